"""Without a reader only the newest events are kept; a reader gets all events while it reads."""

from __future__ import annotations

import asyncio
import gc
import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from scripted import Scene, ok, scene
from shells import OneWatch, Shell

from asyncruns import Cadence, Ended, StatusChanged
from asyncruns.http import Response
from asyncruns.watch.observers import KEPT_UNREAD

BODY_BYTES = 16_000


def changing(polls: int) -> Scene:
    """Return a scene whose run has a new status and a new body at each of `polls` polls, and then ends."""
    numbers = itertools.count()

    def next_status() -> Response:
        number = next(numbers)
        status = "completed" if number >= polls else ("queued", "in_progress")[number % 2]
        return ok(status, instructions=f"{number} " + "x" * BODY_BYTES)

    return scene(next_status)


async def kept(shell: Shell, polls: int, during: Callable[[OneWatch], Any], **options: Any) -> int:
    """Watch a run to its end, and return the bytes of memory that were added while the watch is open."""
    stage = changing(polls)
    async with shell(stage, stage.ref, cadence=Cadence.fixed(1.0), timeout=None, **options) as watcher:
        tracemalloc.start()
        try:
            await during(watcher)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()


async def until_ended(watcher: OneWatch) -> None:
    while watcher.outcome is None:
        await asyncio.sleep(1.0)


async def wait(watcher: OneWatch) -> None:
    await watcher.wait()


async def break_off(watcher: OneWatch) -> None:
    async for _ in watcher:
        break
    await until_ended(watcher)


async def test_waiting_without_a_reader_keeps_no_events(shell: Shell) -> None:
    assert await kept(shell, 200, wait) < 8 * BODY_BYTES


@pytest.mark.parametrize("during", [until_ended, break_off], ids=["never read", "broken off"])
async def test_a_watch_without_a_reader_keeps_the_newest_events(
    shell: Shell, during: Callable[[OneWatch], Any]
) -> None:
    assert await kept(shell, 200, during) < (KEPT_UNREAD + 8) * BODY_BYTES


async def test_observers_keep_no_events(shell: Shell) -> None:
    seen: list[str] = []

    def observe(change: StatusChanged[Any]) -> None:
        seen.append(change.status)

    assert await kept(shell, 200, wait, on_status=observe) < 10 * BODY_BYTES
    assert len(seen) >= 200


async def test_a_reader_gets_all_events_however_slowly_it_reads(shell: Shell) -> None:
    stage = changing(40)
    seen = []
    async with shell(stage, stage.ref, cadence=Cadence.fixed(0.1), timeout=None) as watcher:
        async for event in watcher:
            seen.append(event)
            await asyncio.sleep(1.0)
    assert len([event for event in seen if isinstance(event, StatusChanged)]) == 41
    assert isinstance(seen[-1], Ended)


async def test_a_reader_that_begins_before_another_waits_gets_all_events(shell: Shell) -> None:
    stage = changing(40)
    seen: list[Any] = []

    async def read(watcher: OneWatch) -> None:
        seen.extend([event async for event in watcher])

    async with shell(stage, stage.ref, cadence=Cadence.fixed(1.0), timeout=None) as watcher:
        reading = asyncio.create_task(read(watcher))
        await watcher.wait()
        await reading
    assert len([event for event in seen if isinstance(event, StatusChanged)]) == 41


async def test_a_reader_that_begins_at_the_end_gets_the_end(shell: Shell) -> None:
    stage = changing(40)
    async with shell(stage, stage.ref, cadence=Cadence.fixed(1.0), timeout=None) as watcher:
        outcome = await watcher.wait()
        events = [event async for event in watcher]
    assert isinstance(events[-1], Ended)
    assert events[-1].outcome is outcome
    assert len(events) == 1
