"""How the outcomes of a fleet are delivered, and how runs are added."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from itertools import pairwise
from typing import Any

import anyio
import pytest
from stage import ONE_CALL, Stage

import asyncruns.fleet.outcomes
from asyncruns import Completed, Ended, Fleet, InvalidRequestError, NeedsCaller
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire import Run


async def gathered(fleet: Fleet[Any]) -> list[AnyOutcome[Any]]:
    return [outcome async for outcome in fleet]


def ids(outcomes: list[AnyOutcome[Any]]) -> list[str]:
    return sorted(outcome.ref.ids[-1] for outcome in outcomes)


# Iterating


async def test_each_outcome_comes_once_and_the_iteration_ends_with_the_last(stage: Stage) -> None:
    runs = [await stage.run(working=float(seconds)) for seconds in (30, 10, 20)]
    async with Fleet(stage.client) as fleet:
        for run in runs:
            fleet.watch(run)
        outcomes = await gathered(fleet)
        assert [outcome.ref.ids[-1] for outcome in outcomes] == [runs[1].id, runs[2].id, runs[0].id]
        assert await gathered(fleet) == []


async def test_iterating_over_an_empty_fleet_ends_at_once(stage: Stage) -> None:
    async with Fleet(stage.client) as fleet:
        began = anyio.current_time()
        assert await gathered(fleet) == []
        assert anyio.current_time() == began


async def test_earlier_outcomes_are_included_unless_they_were_delivered(stage: Stage) -> None:
    runs = await stage.runs(4)
    async with Fleet(stage.client) as fleet:
        watches = [fleet.watch(run, on_terminal=print if run is runs[1] else None) for run in runs]
        await watches[0]
        await anyio.sleep(60.0)
        assert ids(await gathered(fleet)) == sorted(run.id for run in runs[2:])


async def test_a_caller_cancelled_while_it_waits_does_not_count_as_delivery(stage: Stage) -> None:
    run = await stage.run(working=10.0)
    async with Fleet(stage.client) as fleet:
        watch = fleet.watch(run)
        with anyio.move_on_after(1.0):
            await watch
        await anyio.sleep(60.0)
        assert ids(await gathered(fleet)) == [run.id]


async def test_on_terminal_does_not_count_as_delivery_of_needs_caller(stage: Stage) -> None:
    seen: list[AnyOutcome[Any]] = []
    async with Fleet(stage.client, on_terminal=seen.append) as fleet:
        fleet.watch(await stage.run(rounds=(ONE_CALL,)))
        await anyio.sleep(60.0)
        (outcome,) = await gathered(fleet)
    assert isinstance(outcome, NeedsCaller)
    assert seen == []


async def test_outcomes_delivered_to_on_outcome_are_not_kept(stage: Stage) -> None:
    seen: list[AnyOutcome[Any]] = []
    async with Fleet(stage.client, on_outcome=seen.append) as fleet:
        for run in await stage.runs(3):
            fleet.watch(run)
        await fleet.drain()
        assert await gathered(fleet) == []
    assert len(seen) == 3


async def test_a_reader_also_gets_outcomes_that_others_get(stage: Stage) -> None:
    seen: list[AnyOutcome[Any]] = []
    async with Fleet(stage.client, on_outcome=seen.append) as fleet:
        watches = [fleet.watch(run) for run in await stage.runs(3)]
        reading = asyncio.create_task(gathered(fleet))
        awaited = [await watch for watch in watches]
        read = await reading
    assert ids(read) == ids(awaited) == ids(seen)


async def test_of_several_readers_each_outcome_goes_to_one(stage: Stage) -> None:
    runs = await stage.runs(20)
    async with Fleet(stage.client) as fleet:
        for run in runs:
            fleet.watch(run)
        read = await asyncio.gather(*(gathered(fleet) for _ in range(3)))
    assert ids([outcome for one in read for outcome in one]) == sorted(run.id for run in runs)


async def test_an_iteration_may_be_stopped_and_started_again(stage: Stage) -> None:
    runs = await stage.runs(10)
    read: list[AnyOutcome[Any]] = []
    async with Fleet(stage.client) as fleet:
        for run in runs:
            fleet.watch(run)
        async for outcome in fleet:
            read.append(outcome)
            if len(read) == 3:
                break
        await anyio.sleep(10.0)
        read += await gathered(fleet)
    assert ids(read) == sorted(run.id for run in runs)


async def test_a_reopened_watch_is_delivered_with_its_last_outcome_only(stage: Stage) -> None:
    run = await stage.run(rounds=(ONE_CALL,))
    async with Fleet(stage.client) as fleet:
        watch = fleet.watch(run)
        await anyio.sleep(10.0)
        assert isinstance(watch.outcome, NeedsCaller)
        await watch.submit({watch.outcome.calls[0].id: "out"})
        (outcome,) = await gathered(fleet)
    assert isinstance(outcome, Completed)


async def test_a_watch_that_is_cancelled_has_no_outcome(stage: Stage) -> None:
    runs = await stage.runs(2)
    async with Fleet(stage.client) as fleet:
        watches = [fleet.watch(run) for run in runs]
        reading = asyncio.create_task(gathered(fleet))
        await asyncio.sleep(0)
        watches[0].cancel()
        assert ids(await reading) == [runs[1].id]
    assert fleet.statistics().ended == 1


async def test_on_outcome_is_called_once_for_each_outcome_and_its_exceptions_are_logged(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[AnyOutcome[Any]] = []

    async def on_outcome(outcome: AnyOutcome[Any]) -> None:
        await anyio.sleep(0.1)
        seen.append(outcome)
        raise ValueError("mine")

    async with Fleet(stage.client, on_outcome=on_outcome) as fleet:
        for run in await stage.runs(5):
            fleet.watch(run)
    assert len(seen) == 5
    assert caplog.text.count("on_outcome raised") == 5


async def test_waiting_for_a_watch_may_be_cancelled_and_started_again(stage: Stage) -> None:
    async with Fleet(stage.client) as fleet:
        watch = fleet.watch(await stage.run(working=20.0))
        with anyio.move_on_after(3.0) as scope:
            await watch
        assert scope.cancelled_caught
        first, second = await asyncio.gather(watch, watch.wait())
        assert first is second is watch.outcome is await watch


async def test_a_reader_that_starts_late_receives_only_the_end(stage: Stage) -> None:
    async with Fleet(stage.client) as fleet:
        watch = fleet.watch(await stage.run())
        outcome = await watch
        assert [event.outcome async for event in watch] == [outcome]  # type: ignore[union-attr]
        with anyio.fail_after(60.0):
            assert [event async for event in watch] == []


async def test_a_reader_that_waits_for_a_watch_to_be_reopened_stops_with_the_fleet(stage: Stage) -> None:
    async def read() -> list[Any]:
        return [event async for event in watch]

    async with Fleet(stage.client) as fleet:
        watch = fleet.watch(await stage.run(rounds=(ONE_CALL,)))
        assert isinstance(await watch, NeedsCaller)
        await read()
        reading = asyncio.create_task(read())
        await anyio.sleep(60.0)
    with anyio.fail_after(60.0):
        assert await reading == []


@pytest.mark.parametrize("begins_after", [0.0, 60.0])
async def test_reading_all_events_of_a_watch_delivers_its_outcome_and_reading_may_go_on(
    stage: Stage, begins_after: float
) -> None:
    async with Fleet(stage.client) as fleet:
        watch = fleet.watch(await stage.run(rounds=(ONE_CALL,)))
        await anyio.sleep(begins_after)
        assert isinstance([event async for event in watch][-1], Ended)
        assert await gathered(fleet) == []
        assert isinstance(watch.outcome, NeedsCaller)
        with anyio.move_on_after(60.0) as waited:
            assert [event async for event in watch] == []
        assert waited.cancelled_caught
        await watch.submit({watch.outcome.calls[0].id: "out"})
        assert isinstance([event async for event in watch][-1], Ended)
        assert isinstance(watch.outcome, Completed)


async def test_only_the_newest_unread_outcomes_are_kept_and_a_warning_says_so_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(asyncruns.fleet.outcomes, "KEPT_OUTCOMES", 3)
    runs = await stage.runs(6)
    async with Fleet(stage.client) as fleet:
        for run in runs:
            watch = fleet.watch(run)
            await anyio.sleep(60.0)
            assert isinstance(watch.outcome, Completed)
        assert ids(await gathered(fleet)) == sorted(run.id for run in runs[3:])
    (record,) = caplog.records
    assert "only the newest 3 are kept" in record.getMessage()


async def test_a_reader_gets_all_outcomes_however_many_wait(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(asyncruns.fleet.outcomes, "KEPT_OUTCOMES", 3)
    runs = await stage.runs(6)
    async with Fleet(stage.client) as fleet:
        fleet.watch(runs[0])
        read = []
        async for outcome in fleet:
            read.append(outcome)
            for run in runs[len(read) :] if len(read) == 1 else []:
                fleet.watch(run)
            await anyio.sleep(60.0)
    assert ids(read) == sorted(run.id for run in runs)
    assert not caplog.records


async def test_delivered_outcomes_do_not_count_for_the_limit(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(asyncruns.fleet.outcomes, "KEPT_OUTCOMES", 3)
    async with Fleet(stage.client) as fleet:
        for run in await stage.runs(6):
            await fleet.watch(run)
    assert not caplog.records


# Adding many


class Source:
    """An async iterable of runs that notes how far it was read, and that it was closed."""

    def __init__(self, runs: list[Run], *, fails_at: int | None = None, every: float = 0.0) -> None:
        self.runs, self.fails_at, self.every = runs, fails_at, every
        self.given = 0
        self.closed = False

    async def each(self) -> AsyncGenerator[Run]:
        try:
            for run in self.runs:
                if self.given == self.fails_at:
                    raise LookupError("the database is gone")
                self.given += 1
                yield run
                await anyio.sleep(self.every)
        finally:
            self.closed = True


async def test_runs_are_added_from_a_list_and_from_a_generator(stage: Stage) -> None:
    runs = await stage.runs(40)
    async with Fleet(stage.client) as fleet:
        assert await fleet.add_many(runs[:20]) == 20
        assert await fleet.add_many(run for run in runs[20:]) == 20
        assert await fleet.add_many([]) == 0
        assert ids(await gathered(fleet)) == sorted(run.id for run in runs)


async def test_a_reader_waits_for_runs_that_another_task_adds_and_slows_it_down(stage: Stage) -> None:
    source = Source(await stage.runs(30, working=2.0))
    most = 0
    read: list[AnyOutcome[Any]] = []
    async with Fleet(stage.client) as fleet:
        adding = asyncio.create_task(fleet.add_many(source.each(), at_most=5))
        async for outcome in fleet:
            read.append(outcome)
            most = max(most, source.given - len(read))
            await anyio.sleep(1.0)  # a slow reader slows the source down, so no backlog builds up
    assert await adding == 30
    assert ids(read) == sorted(run.id for run in source.runs)
    assert most <= 5 + 1
    assert source.closed


async def test_outcomes_without_a_reader_do_not_hold_back_adding(stage: Stage) -> None:
    source = Source(await stage.runs(10))
    async with Fleet(stage.client) as fleet:
        adding = asyncio.create_task(fleet.add_many(source.each(), at_most=3))
        reader = aiter(fleet)
        await anext(reader)
        await anyio.sleep(10.0)
        assert source.given < 10
        await reader.aclose()  # type: ignore[attr-defined]
        assert await adding == 10


async def test_adding_is_held_back_by_the_runs_being_watched(stage: Stage) -> None:
    source = Source(await stage.runs(12, working=2.0))
    async with Fleet(stage.client) as fleet:
        adding = asyncio.create_task(fleet.add_many(source.each(), at_most=4))
        while not adding.done():
            assert fleet.statistics().active <= 4
            await anyio.sleep(0.1)
    assert fleet.statistics().ended == 12


async def test_a_source_that_fails_raises_and_the_runs_before_are_still_watched(stage: Stage) -> None:
    source = Source(await stage.runs(5), fails_at=3)
    async with Fleet(stage.client) as fleet:
        with pytest.raises(LookupError, match="the database is gone"):
            await fleet.add_many(source.each())
        assert len(await gathered(fleet)) == 3
    assert source.closed


async def test_an_iterable_that_fails_raises_and_the_runs_before_are_still_watched(stage: Stage) -> None:
    runs = await stage.runs(3)

    def each() -> Iterator[Run]:
        yield from runs
        raise LookupError("the database is gone")

    async with Fleet(stage.client) as fleet:
        with pytest.raises(LookupError):
            await fleet.add_many(each())
        with pytest.raises(InvalidRequestError, match="got str"):
            await fleet.add_many(["run_1"])
        assert len(await gathered(fleet)) == 3


async def test_cancelling_add_many_closes_the_source_and_the_runs_are_still_watched(stage: Stage) -> None:
    source = Source(await stage.runs(10), every=1.0)
    async with Fleet(stage.client) as fleet:
        adding = asyncio.create_task(fleet.add_many(source.each()))
        await anyio.sleep(3.5)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert source.closed
        assert source.given == 4
        assert len(await gathered(fleet)) == 4


async def test_adding_that_is_held_back_ends_when_the_fleet_is_left(stage: Stage) -> None:
    source = Source(await stage.runs(10, end="never"))
    async with Fleet(stage.client, on_exit="leave") as fleet:
        adding = asyncio.create_task(fleet.add_many(source.each(), at_most=3))
        await anyio.sleep(5.0)
    with pytest.raises(InvalidRequestError, match="was left"):
        await adding
    assert (source.given, source.closed) == (3, True)


async def test_add_many_keeps_the_event_loop_responsive(stage: Stage) -> None:
    runs = await stage.runs(200)
    turns: list[int] = []

    async def beat() -> None:
        while True:
            turns.append(fleet.statistics().active)
            await asyncio.sleep(0)

    async with Fleet(stage.client) as fleet:
        beating = asyncio.create_task(beat())
        await fleet.add_many(runs, timeout=60.0)
        beating.cancel()
    assert max(after - before for before, after in pairwise(turns)) <= 32


# Labels


async def test_a_label_comes_back_with_each_outcome_and_that_of_the_first_watch_stays(stage: Stage) -> None:
    runs = await stage.runs(3)
    async with Fleet(stage.client, label="of the fleet") as fleet:
        fleet.watch(runs[0])
        fleet.watch(runs[1], label={"row": 1})
        second = fleet.watch(runs[1], label={"row": 2})
        await fleet.add_many(runs[2:], label=None)
        labels = {outcome.ref.ids[-1]: outcome.label async for outcome in fleet}
        assert (await second).label == {"row": 1}
    assert labels == dict(zip([run.id for run in runs], ["of the fleet", {"row": 1}, None], strict=True))


async def test_runs_with_a_label_share_the_settings_of_the_fleet(stage: Stage) -> None:
    first, second = await stage.runs(2)
    async with Fleet(stage.client) as fleet:
        watches = [fleet.watch(first), fleet.watch(second, label="x")]
        assert watches[0]._member.machine._policy is watches[1]._member.machine._policy
        await fleet.drain()
