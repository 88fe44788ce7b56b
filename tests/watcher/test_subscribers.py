"""Subscribers of one watch: any number, at any time, bounded, and none holds up another; in all shells and wires."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from shells import FleetOfOne
from wires import ONE_CALL, TWO_ROUNDS, Tools, Wire

from asyncruns import (
    ActionRequired,
    CallAnswered,
    Completed,
    CurrentState,
    Ended,
    Fleet,
    Gap,
    NeedsCaller,
    Phase,
    StatusChanged,
    TextAdded,
    ToolContext,
    ToolReported,
    Toolset,
)
from asyncruns.testing import Fault
from asyncruns.watch.subscribers import QUEUED_EVENTS

about_streams = pytest.mark.parametrize("way", ["streamed", "streamed fleet"])


async def events_of(watch: Any) -> list[Any]:
    return [event async for event in watch.subscribe()]


async def test_a_subscriber_gets_the_state_and_then_what_follows(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=TWO_ROUNDS, queued=0.5, working=0.5)
    async with wire.watcher(run, tools=tools, context="mine") as watch:
        first, *events = await events_of(watch)
    assert isinstance(first, CurrentState)
    assert (first.status, first.text, first.calls) in (("queued", "", ()), ("", "", ()))
    assert first.ref.dialect == watch.ref.dialect
    assert first.context == "mine"
    assert isinstance(events[-1], Ended)
    assert sum(isinstance(event, ActionRequired) for event in events) == 2
    assert sum(isinstance(event, CallAnswered) for event in events) == 3
    assert not any(isinstance(event, CurrentState | Gap) for event in events)


async def test_many_subscribers_get_the_same_with_the_polls_of_one(wire: Wire, tools: Tools) -> None:
    runs = [await wire.start(rounds=(ONE_CALL,), queued=0.5, working=0.5) for _ in range(2)]
    async with wire.watcher(runs[0], tools=tools) as watch:
        alone = await watch.wait()
    async with wire.watcher(runs[1], tools=tools) as watch, asyncio.TaskGroup() as group:
        readers = [group.create_task(events_of(watch)) for _ in range(20)]
    seen = [[repr(event) for event in reader.result()[1:]] for reader in readers]
    assert all(each == seen[0] for each in seen)
    assert watch.polls <= alone.polls + 1


async def test_a_late_subscriber_gets_the_open_calls(wire: Wire) -> None:
    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.1)
    release = anyio.Event()

    async def add(a: int, b: int, context: ToolContext[Any]) -> int:
        context.report("half")
        await release.wait()
        return a + b

    async with wire.watcher(run, tools=Toolset([add])) as watch:
        async with aclosing(watch.subscribe()) as early:
            async for event in early:
                if isinstance(event, ToolReported):
                    break
        async with aclosing(watch.subscribe()) as late:
            state = await anext(late)
            assert isinstance(state, CurrentState)
            assert state.phase is Phase.NEEDS_CALLER
            assert [call.name for call in state.calls] == ["add"]
            assert state.progress == {state.calls[0].id: "half"}
            release.set()
            assert isinstance([event async for event in late][-1], Ended)


async def test_a_subscriber_after_the_end_gets_the_state_and_the_end(wire: Wire) -> None:
    run = await wire.start(queued=0.1, working=0.1)
    async with wire.watcher(run) as watch:
        outcome = await watch.wait()
        state, ended = await events_of(watch)
    assert isinstance(state, CurrentState)
    assert state.phase is Phase.SUCCEEDED
    assert isinstance(ended, Ended)
    assert ended.outcome == outcome


async def test_subscribers_end_when_the_watch_is_left(wire: Wire) -> None:
    run = await wire.start(queued=0.1, working=100.0)
    async with asyncio.TaskGroup() as group, wire.watcher(run) as watch:
        readers = [group.create_task(events_of(watch)) for _ in range(3)]
        await anyio.sleep(1.0)
    for reader in readers:
        assert not any(isinstance(event, Ended) for event in reader.result())


async def test_a_slow_subscriber_gets_a_gap_and_the_state_and_holds_up_nobody(wire: Wire) -> None:
    async def add(a: int, b: int, context: ToolContext[Any]) -> str:
        for step in range(3 * QUEUED_EVENTS):
            context.report(step)
            await asyncio.sleep(0)
        return "7"

    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.1)
    slow: list[Any] = []
    async with wire.watcher(run, tools=Toolset([add])) as watch:

        async def read_slowly() -> None:
            async for event in watch.subscribe():
                slow.append(event)
                if isinstance(event, ActionRequired):
                    await anyio.sleep(50.0)

        async with asyncio.TaskGroup() as group:
            group.create_task(read_slowly())
            fast = group.create_task(events_of(watch))
            outcome = await watch.wait()
            assert outcome.elapsed < 10.0
    assert [event.progress for event in fast.result() if isinstance(event, ToolReported)] == list(range(3 * 256))
    gaps = [place for place, event in enumerate(slow) if isinstance(event, Gap)]
    assert len(gaps) == 1
    assert slow[gaps[0]].dropped + len(slow) >= len(fast.result()) - 2
    state = slow[gaps[0] + 1]
    assert isinstance(state, CurrentState)
    assert state.phase is Phase.SUCCEEDED
    assert isinstance(slow[-1], Ended)
    assert len(slow) < QUEUED_EVENTS


@about_streams
async def test_the_text_of_a_stream_is_there_for_early_and_late_subscribers(wire: Wire, tools: Tools) -> None:
    answer = "The sum is seven, and that is all there is to say."
    run = await wire.start(rounds=(ONE_CALL,), answer=answer, queued=0.1, working=5.0)
    async with wire.watcher(run, tools=tools) as watch, asyncio.TaskGroup() as group:
        early = group.create_task(events_of(watch))
        async with aclosing(watch.subscribe()) as first:
            async for event in first:
                if isinstance(event, TextAdded):
                    break
        late = group.create_task(events_of(watch))
        outcome = await watch.wait()
    assert answer in await outcome.text()
    for reader in (early, late):
        events = reader.result()
        assert isinstance(events[-1], Ended)
        assert "".join(event.text for event in events if isinstance(event, CurrentState | TextAdded)) == answer
    assert late.result()[0].text


@about_streams
@pytest.mark.parametrize("end", ["close", "error", "silence"])
async def test_a_subscriber_gets_the_whole_text_of_a_stream_that_breaks(wire: Wire, end: Any) -> None:
    answer = "The sum is seven, and that is all there is to say."
    on: Any = "create_run" if wire.name == "threads" else "create_response"
    wire.emulator.inject(Fault(on=on, stream=end, events=8))
    run = await wire.start(answer=answer, queued=0.1, working=5.0)
    async with wire.watcher(run) as watch:
        events = await events_of(watch)
    assert isinstance(events[-1], Ended)
    assert "".join(event.text for event in events if isinstance(event, CurrentState | TextAdded)) == answer


async def test_a_finished_watch_that_is_resumed_has_subscribers_again(wire: Wire) -> None:
    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.1)
    async with wire.watcher(run) as watch:
        *_, ended = await events_of(watch)
        assert isinstance(ended, Ended)
        assert isinstance(ended.outcome, NeedsCaller)
        await watch.submit({call.id: "7" for call in ended.outcome.calls})
        *_, ended = await events_of(watch)
        assert isinstance(ended.outcome, Completed)


async def test_a_subscriber_that_stops_leaves_nothing_behind(wire: Wire) -> None:
    run = await wire.start(queued=0.1, working=20.0)
    async with wire.watcher(run) as watch:
        for _ in range(100):
            async with aclosing(watch.subscribe()) as events:
                await anext(events)
        gc.collect()
        listener: Any = watch.watch._listener if isinstance(watch, FleetOfOne) else watch
        assert not listener._subscribers


async def test_cancelling_one_watch_of_a_fleet_ends_its_subscribers_only(wire: Wire) -> None:
    run = await wire.start(queued=0.5, working=2.0)
    async with Fleet(wire.connection) as fleet, asyncio.TaskGroup() as group:
        one, other = fleet.watch(run), fleet.watch(run)
        of_one, of_other = group.create_task(events_of(one)), group.create_task(events_of(other))
        await anyio.sleep(1.0)
        one.cancel()
        assert not any(isinstance(event, Ended) for event in await of_one)
        events = await of_other
        assert [event.status for event in events if isinstance(event, StatusChanged)][-1] == "completed"
        assert isinstance(events[-1], Ended)
    for stream in (wire.streams or {}).values():
        await stream.close()


@about_streams
@pytest.mark.parametrize("events", [4, 5])
async def test_a_subscriber_keeps_its_place_when_a_broken_watch_is_resumed(wire: Wire, events: int) -> None:
    answer = "word " * 600  # more pieces than a reader of the stream that never comes would have room for
    on: Any = "create_run" if wire.name == "threads" else "create_response"
    wire.emulator.inject(Fault(on=on, stream="close", events=events))

    async def provide(event: Any) -> None:
        if isinstance(event, Ended) and isinstance(event.outcome, NeedsCaller):
            await watch.submit({call.id: "7" for call in event.outcome.calls})

    run = await wire.start(rounds=(ONE_CALL,), answer=answer, queued=0.1, working=5.0)
    async with wire.watcher(run, on_event=provide, timeout=200.0) as watch:
        while True:
            shown, ended = "", None
            async with asyncio.timeout(300.0):
                async for event in watch.subscribe():
                    if isinstance(event, CurrentState):
                        shown = event.text
                    elif isinstance(event, TextAdded):
                        shown += event.text
                    elif isinstance(event, Ended):
                        ended = event
            assert ended is not None
            if isinstance(ended.outcome, Completed):
                break
            await anyio.sleep(0.1)  # until the outputs are provided
    assert shown.strip() == answer.strip()
