"""Admission: a thousand watches that are started together begin a few at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from scripted import Scene, Scripted, ScriptedTransport, ok, scene

from asyncruns import Cadence, Completed, RunWatcher, Toolset
from asyncruns._loop import ADMITTED_AT_ONCE, admitted
from asyncruns.http import Request, Response


async def test_each_pass_of_the_loop_admits_a_few_in_their_order() -> None:
    order: list[int] = []

    async def enter(number: int) -> None:
        await admitted()
        order.append(number)

    tasks = [asyncio.create_task(enter(number)) for number in range(10 * ADMITTED_AT_ONCE)]
    grown: list[int] = []
    while len(order) < len(tasks):
        before = len(order)
        await asyncio.sleep(0)
        grown.append(len(order) - before)
    assert max(grown) == ADMITTED_AT_ONCE
    assert order == sorted(order)
    await asyncio.gather(*tasks)


async def test_a_cancelled_waiter_does_not_delay_the_others() -> None:
    tasks = [asyncio.create_task(admitted()) for _ in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks[1::2])
    await admitted()


def test_each_loop_has_its_own_admission() -> None:
    for _ in range(3):
        with asyncio.Runner() as runner:
            runner.run(admitted())


@pytest.mark.slow
async def test_a_thousand_watches_neither_poll_together_nor_drift_back_together() -> None:
    stage = scene(*[ok("in_progress")] * 4_000, ok("completed"))
    polls_in_a_pass: list[int] = []

    async def watch() -> None:
        async with RunWatcher(stage, stage.ref, timeout=None) as watcher:
            assert isinstance(await watcher.wait(), Completed)

    tasks = [asyncio.create_task(watch()) for _ in range(1000)]
    while stage.transport.count("poll") < 1000:
        before = len(stage.transport.requests)
        await asyncio.sleep(0)
        polls_in_a_pass.append(len(stage.transport.requests) - before)
    assert max(polls_in_a_pass) <= 4 * ADMITTED_AT_ONCE
    await asyncio.gather(*tasks)
    # Virtual time does not advance while the first polls are sent, so only the jitter spreads the later ones.
    third = [at for at in stage.transport.times("poll") if at > stage.transport.times("poll")[0] + 0.5]
    moments = [round(at, 2) for at in third]
    assert max(moments.count(moment) for moment in set(moments)) < 500


class Counting(ScriptedTransport):
    """The transport of one watch of many; `sent` counts the requests of all."""

    sent = 0

    async def send(self, request: Request) -> Response:
        Counting.sent += 1
        return await super().send(request)


@pytest.mark.slow
async def test_no_pass_of_the_loop_starts_more_than_a_few_requests_of_many_watches() -> None:
    loop: Any = asyncio.get_running_loop()
    run_once, started = loop._run_once, [0]

    def counted() -> None:
        before = Counting.sent
        run_once()
        started.append(Counting.sent - before)

    async def f() -> str:
        return "out"

    async def watch() -> None:
        polls: list[Scripted] = [ok("in_progress"), ok("requires_action", ("call_1", "f", "{}")), ok("completed")]
        stage = Scene(Counting(polls, submits=[ok("queued")]))
        cadence = Cadence.fixed(1.0)
        async with RunWatcher(stage, stage.ref, tools=Toolset([f]), cadence=cadence, timeout=None) as watcher:
            assert isinstance(await watcher.wait(), Completed)

    async def fall_asleep() -> None:
        await asyncio.sleep(0.9)
        loop._virtual.now += 3600.0  # all the next polls are due at once

    loop._run_once = counted
    try:
        await asyncio.gather(fall_asleep(), *(watch() for _ in range(1000)))
    finally:
        del loop._run_once
    assert sum(started) == 4000
    assert max(started) <= ADMITTED_AT_ONCE


async def test_a_watch_that_is_cancelled_before_admission_leaves_nothing_behind() -> None:
    stage = scene(ok("in_progress"))

    async def watch() -> None:
        async with RunWatcher(stage, stage.ref):
            await anyio.sleep_forever()

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.transport.requests == []
    assert len(asyncio.all_tasks()) == 1
