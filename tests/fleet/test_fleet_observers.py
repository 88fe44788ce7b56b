"""The observers of a fleet: called once for each run, without a backlog of statuses, and with all before leaving."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import anyio
import pytest
from stage import ONE_CALL, Stage, Tools

from asyncruns import Completed, Fleet, StatusChanged
from asyncruns.watch.observers import COALESCE_ABOVE, Observers
from asyncruns.watch.outcome import AnyOutcome


class Seen:
    """Observers of statuses and outcomes; the first status takes `takes` seconds, all others no time."""

    def __init__(self, takes: float = 0.0) -> None:
        self.takes = takes
        self.statuses: list[StatusChanged[Any]] = []
        self.ends: list[AnyOutcome[Any]] = []

    async def status(self, change: StatusChanged[Any]) -> None:
        takes, self.takes = self.takes, 0.0
        await anyio.sleep(takes)
        self.statuses.append(change)

    def end(self, outcome: AnyOutcome[Any]) -> None:
        self.ends.append(outcome)


# Once for each run


async def test_an_observer_of_the_fleet_is_called_once_for_a_run_that_is_watched_twice(stage: Stage) -> None:
    seen, own = Seen(), Seen()
    run = await stage.run(working=10.0)
    async with Fleet(stage.client, on_status=seen.status, on_terminal=seen.end) as fleet:
        watches = [fleet.watch(run), fleet.watch(run), fleet.watch(run, on_status=own.status, on_terminal=own.end)]
    outcome = watches[0].outcome
    assert seen.ends == own.ends == [outcome]
    statuses = [change.status for change in seen.statuses]
    assert statuses == ["queued", "in_progress", "completed"]
    assert [change.status for change in own.statuses] == statuses[1:]  # it came later


@pytest.mark.parametrize("cancelled", [0, 1])
async def test_the_observer_is_still_called_after_one_of_the_watches_was_cancelled(
    stage: Stage, cancelled: int
) -> None:
    seen = Seen()
    run = await stage.run(working=10.0)
    async with Fleet(stage.client, on_status=seen.status, on_terminal=seen.end) as fleet:
        watches = [fleet.watch(run), fleet.watch(run)]
        await anyio.sleep(5.0)
        watches[cancelled].cancel()
    assert seen.ends == [watches[1 - cancelled].outcome]
    assert [change.status for change in seen.statuses][-1] == "completed"


async def test_a_watch_may_replace_the_observer_of_the_fleet_or_have_none(stage: Stage) -> None:
    seen, own = Seen(), Seen()
    runs = await stage.runs(3)
    async with Fleet(stage.client, on_terminal=seen.end) as fleet:
        watches = [fleet.watch(runs[0], on_terminal=own.end), fleet.watch(runs[1], on_terminal=None)]
        watches.append(fleet.watch(runs[2]))
    assert (own.ends, seen.ends) == ([watches[0].outcome], [watches[2].outcome])


# Far behind


@pytest.mark.slow
async def test_an_observer_far_behind_gets_only_the_newest_status_of_a_run_and_every_outcome(stage: Stage) -> None:
    seen = Seen(takes=300.0)
    outcomes: list[AnyOutcome[Any]] = []
    count = COALESCE_ABOVE + 50
    runs = await stage.runs(count, rounds=(ONE_CALL, ONE_CALL, ONE_CALL), working=20.0)
    async with Fleet(
        stage.client,
        tools=Tools(),
        requests_per_second=None,
        on_status=seen.status,
        on_terminal=seen.end,
        on_outcome=outcomes.append,
    ) as fleet:
        await fleet.add_many(runs)
        await fleet.drain()
        assert seen.statuses == []
        await anyio.sleep(300.0)
    assert {type(outcome) for outcome in outcomes} == {Completed}
    assert len(seen.ends) == len(outcomes) == count
    assert len(seen.statuses) <= COALESCE_ABOVE + count + 1
    last = {change.run.id: change.status for change in seen.statuses}
    assert Counter(last.values()) == {"completed": count}


# Leaving


async def test_leaving_waits_until_slow_observers_were_called_with_everything(stage: Stage) -> None:
    seen: list[AnyOutcome[Any]] = []

    async def on_outcome(outcome: AnyOutcome[Any]) -> None:
        await anyio.sleep(1.5)
        seen.append(outcome)

    async with Fleet(stage.client, on_outcome=on_outcome) as fleet:
        for run in await stage.runs(20):
            fleet.watch(run)
    assert len(seen) == 20


async def test_leaving_waits_for_runs_that_an_observer_adds(stage: Stage) -> None:
    runs = await stage.runs(3, working=5.0)
    seen: list[AnyOutcome[Any]] = []

    async def on_outcome(outcome: AnyOutcome[Any]) -> None:
        await anyio.sleep(1.0)
        seen.append(outcome)
        if runs:
            fleet.watch(runs.pop())

    async with Fleet(stage.client, on_outcome=on_outcome) as fleet:
        fleet.watch(runs.pop())
    assert [type(outcome) for outcome in seen] == [Completed] * 3


@pytest.mark.parametrize(("calls", "dropped"), [(1, 1), (5, 5)])
async def test_a_warning_says_how_many_calls_are_left_when_observers_hang(
    stage: Stage, caplog: pytest.LogCaptureFixture, calls: int, dropped: int
) -> None:
    async def hang(outcome: object) -> None:
        await anyio.sleep_forever()

    async with Fleet(stage.client, on_outcome=hang) as fleet:
        for run in await stage.runs(calls):
            fleet.watch(run)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{dropped} calls of them were dropped" in record.getMessage()


async def test_leaving_with_an_error_does_not_wait_for_slow_observers_and_logs_a_warning(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow(outcome: object) -> None:
        await anyio.sleep(0.9)

    fleet = Fleet(stage.client, on_outcome=slow)
    async with fleet:
        for run in await stage.runs(10):
            fleet.watch(run)
        await fleet.drain()
        began = anyio.current_time()
        await fleet.__aexit__(LookupError, LookupError(), None)
        assert anyio.current_time() - began <= 2.1
    assert "calls of them were dropped" in caplog.text


async def test_no_warning_is_logged_if_no_calls_are_left(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen()
    async with Fleet(stage.client, on_status=seen.status, on_outcome=seen.end) as fleet:
        fleet.watch(await stage.run())
    assert seen.ends
    assert not caplog.records


@pytest.mark.parametrize("start", [1021.9 + 0.0117 * n for n in range(40)])
async def test_waiting_for_observers_works_at_any_time_of_the_clock(
    start: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A difference of times may round to less than the time to wait; then virtual time would stand still."""
    loop, waits, wait = asyncio.get_running_loop(), 0, asyncio.wait

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal waits
        waits += 1
        assert waits < 100, "time stands still"
        return await wait(*arguments, **options)

    monkeypatch.setattr(asyncio, "wait", counted)
    await asyncio.sleep(start - loop.time())
    observers = Observers()
    called = asyncio.create_task(observers.run())
    observers.put(lambda _: asyncio.sleep(1000.0), "slow", "on_status", of=1)
    assert not await observers.drained(2.0)
    called.cancel()


async def test_an_observer_that_was_slow_before_gets_its_full_time_when_leaving_waits_for_it() -> None:
    observers, seen = Observers(), []

    async def slow(value: object) -> None:
        await asyncio.sleep(31.0)
        seen.append(value)

    called = asyncio.create_task(observers.run())
    for n in range(2):
        observers.put(slow if n == 0 else seen.append, n, "on_status", of=n)
    await asyncio.sleep(30.0)
    assert await observers.drained(2.0)
    assert seen == [0, 1]
    called.cancel()
