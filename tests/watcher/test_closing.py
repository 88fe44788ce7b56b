"""A watch that is left, or finished, begins nothing and delays nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from scripted import error, lost, ok, scene
from shells import Shell

from asyncruns import Cancelled, Completed, Ended, GaveUp, NeedsCaller, RunWatcher, Toolset
from asyncruns.http import Response
from asyncruns.lifecycle import Call

CALL = ("call_1", "f", "{}")
THROTTLED = Response(429, {"retry-after": "1"}, b"{}")


async def f() -> str:
    return "out"


def other_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_no_submit_begins_after_a_refused_cancel_ended_leaving(shell: Shell) -> None:
    stage = scene(
        ok("requires_action", CALL),
        submits=[THROTTLED, ok("queued")],
        cancels=[error(400, "Not supported")],
        cancels_take=2.0,
    )
    async with shell(stage, stage.ref, tools=Toolset([f]), on_exit="cancel"):
        await anyio.sleep(0.5)
    assert other_tasks() == []
    assert stage.transport.count("submit") == 1
    await anyio.sleep(5.0)
    assert stage.transport.count("submit") == 1


@pytest.mark.parametrize("with_handler", [False, True])
async def test_the_next_round_is_not_begun_once_the_watch_was_left(shell: Shell, with_handler: bool) -> None:
    begun: list[str] = []

    async def g() -> str:
        begun.append("g")
        return "out"

    def handler(calls: list[Call]) -> None:
        begun.extend(call.name for call in calls if call.name == "g")

    stage = scene(ok("requires_action", CALL), submits=[ok("requires_action", ("call_2", "g", "{}")), ok("queued")])
    stage.transport.submits_take = 1.0
    on_requires_action = handler if with_handler else None
    async with shell(stage, stage.ref, tools=Toolset([f, g]), on_requires_action=on_requires_action):
        await anyio.sleep(0.5)
    assert stage.transport.finished.count("submit") == 1  # it was waited for
    await anyio.sleep(5.0)
    assert begun == []
    assert stage.transport.count("submit") == 1


async def test_a_request_that_hangs_delays_nothing_once_the_run_has_ended(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), ok("in_progress"), ok("completed"), submits=[lost()])
    stage.transport.submits_take = 30.0
    async with shell(stage, stage.ref, tools=Toolset([f])) as watcher:
        assert isinstance(await watcher.wait(), Completed)
        began = anyio.current_time()
    assert anyio.current_time() - began < 0.1
    assert other_tasks() == []


async def test_a_poll_that_hangs_is_given_up_when_a_cancel_was_accepted(shell: Shell) -> None:
    stage = scene(ok("in_progress"), ok("cancelled"), cancels=[ok("cancelling")])
    async with shell(stage, stage.ref) as watcher:
        await anyio.sleep(0.2)
        stage.transport._takes = 100.0
        await anyio.sleep(1.0)  # a poll hangs
        stage.transport._takes = 0.01
        began = anyio.current_time()
        await watcher.cancel_run()
        assert isinstance(await watcher.wait(), Cancelled)
    assert anyio.current_time() - began < 1.0


async def test_an_end_during_leaving_is_reported_to_observers(shell: Shell) -> None:
    reported: list[object] = []
    stage = scene(ok("requires_action", CALL), submits=[ok("completed")])
    stage.transport.submits_take = 3.0
    async with shell(stage, stage.ref, tools=Toolset([f]), on_terminal=reported.append) as watcher:
        await anyio.sleep(0.5)
    assert isinstance(watcher.outcome, Completed)
    assert reported == [watcher.outcome]


async def test_a_caller_that_is_cancelled_before_the_watch_began_cancels_the_run_too(shell: Shell) -> None:
    stages = [scene(ok("in_progress"), ok("cancelled"), cancels=[ok("cancelling")]) for _ in range(30)]

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def watch(number: int) -> None:
        async with shell(stages[number], stages[number].ref, on_exit="cancel") as watcher:
            await watcher.wait()

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(watch(number))
            group.create_task(fail())
    # Watches whose task never ran have watched nothing.
    assert [stage.transport.count("cancel") for stage in stages] == [1] * 30


async def test_a_waiter_notices_that_another_task_resumed_the_watch(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), submits=[ok("completed")])
    async with shell(stage, stage.ref) as watcher:

        async def wait() -> object:
            outcome = await watcher.wait()
            if isinstance(outcome, NeedsCaller):
                await watcher.submit({"call_1": "out"})
                outcome = await watcher.wait()
            return outcome

        first, second = await asyncio.gather(wait(), wait())
        assert first is second
        assert isinstance(first, Completed)


async def test_a_reader_may_resume_the_watch_at_its_end(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), submits=[ok("completed")])
    async with shell(stage, stage.ref) as watcher:
        waiting = asyncio.create_task(watcher.wait())
        async for event in watcher:
            if isinstance(event, Ended) and isinstance(event.outcome, NeedsCaller):
                await watcher.submit({"call_1": "out"})
        assert isinstance(await waiting, Completed)


@pytest.mark.parametrize("cancels", [[error(400, "Not supported")], [ok("cancelling")]])
async def test_an_outcome_stays_until_there_is_a_new_one(shell: Shell, cancels: list[Any]) -> None:
    stage = scene(ok("in_progress"), cancels=cancels)
    async with shell(stage, stage.ref, timeout=2.0, on_exit="cancel") as watcher:
        assert isinstance(await watcher.wait(), GaveUp)
    assert isinstance(watcher.outcome, GaveUp)


async def test_a_broken_dialect_leaves_no_task_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = scene(ok("in_progress"))

    def broken(ref: object) -> Any:
        raise ZeroDivisionError("bug")

    monkeypatch.setattr(stage.dialect, "cancel", broken)
    with pytest.raises(ZeroDivisionError):
        async with RunWatcher(stage, stage.ref, on_exit="cancel"):
            await anyio.sleep(0.1)
    assert other_tasks() == []


async def children_that_fail() -> str:
    async def fail() -> None:
        raise ValueError("one source is down")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(asyncio.sleep(10.0))
    except* ValueError:
        pass
    return "the other source"


async def cancels_itself() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await anyio.sleep(1.0)
    return "never"


@pytest.mark.parametrize("tool", [children_that_fail, cancels_itself])
@pytest.mark.parametrize("beside", [0, 1])
async def test_what_a_tool_does_to_its_own_task_does_not_affect_the_watch(
    shell: Shell, tool: Callable[[], Any], beside: int
) -> None:
    calls = [("call_1", tool.__name__, "{}"), ("call_2", "f", "{}")][: 1 + beside]
    stage = scene(ok("requires_action", *calls), submits=[ok("completed")])
    async with shell(stage, stage.ref, tools=Toolset([tool, f]), timeout=60.0) as watcher:
        outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert outcome.elapsed < 5.0
    outputs = [one["output"] for one in stage.transport.bodies("submit")[0]["tool_outputs"]]
    assert outputs[0] == "the other source" or "failed" in outputs[0]
    assert outputs[1:] == ["out"] * beside


async def test_what_a_handler_and_an_observer_do_to_their_tasks_does_not_affect_the_watch(shell: Shell) -> None:
    seen: list[str] = []

    async def handler(calls: list[Call]) -> dict[str, str]:
        return {"call_1": await children_that_fail()}

    async def observer(change: Any) -> None:
        seen.append(change.status)
        await children_that_fail()

    stage = scene(ok("queued"), ok("requires_action", CALL), submits=[ok("completed")])
    async with shell(stage, stage.ref, on_requires_action=handler, on_status=observer) as watcher:
        assert isinstance(await watcher.wait(), Completed)
    assert seen == ["queued", "requires_action", "completed"]
