"""Leaving a fleet: what happens to the runs and to an exception, and that nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Literal

import anyio
import pytest
from stage import ONE_CALL, Stage, Tools, other_tasks

import asyncruns.fleet.roster
from asyncruns import Cancelled, Completed, Fleet, GaveUp, InvalidRequestError, Reason
from asyncruns.testing import Fault

How = Literal["drain", "leave", "cancel"]


async def test_by_default_leaving_waits_for_all_runs(stage: Stage) -> None:
    async with Fleet(stage.client) as fleet:
        watches = [fleet.watch(run) for run in await stage.runs(5, working=20.0)]
    assert [type(watch.outcome) for watch in watches] == [Completed] * 5
    assert other_tasks() == []


async def test_leaving_waits_for_runs_that_another_task_still_adds(stage: Stage) -> None:
    runs = await stage.runs(3, working=20.0)

    async def come() -> AsyncGenerator[Any]:
        for run in runs:
            await anyio.sleep(60.0)
            yield run

    async with Fleet(stage.client) as fleet:
        adding = asyncio.create_task(fleet.add_many(come()))
        await asyncio.sleep(0)
    assert await adding == 3
    assert fleet.statistics().ended == 3


async def test_on_exit_leave_leaves_the_runs_as_they_are(stage: Stage) -> None:
    tools = Tools(takes=100.0)
    runs = [await stage.run(rounds=(ONE_CALL,)), await stage.run(end="never")]
    async with Fleet(stage.client, tools=tools, on_exit="leave") as fleet:
        watches = [fleet.watch(run) for run in runs]
        await anyio.sleep(5.0)
        began = anyio.current_time()
    assert anyio.current_time() - began < 0.1
    assert (tools.stopped, stage.count("cancel")) == (1, 0)
    assert [watch.outcome for watch in watches] == [None, None]
    for watch in watches:
        with pytest.raises(InvalidRequestError, match="was left"):
            await watch
        assert [event async for event in watch] == []
        assert not watch.cancel()
    requests = len(stage.server.requests)
    await anyio.sleep(60.0)
    assert len(stage.server.requests) == requests
    assert other_tasks() == []


async def test_on_exit_cancel_cancels_the_runs_and_waits_for_that(stage: Stage) -> None:
    tools = Tools(takes=100.0)
    runs = [*await stage.runs(20, end="never"), await stage.run(rounds=(ONE_CALL,)), await stage.run()]
    async with Fleet(stage.client, tools=tools, on_exit="cancel", requests_per_second=100.0) as fleet:
        watches = [fleet.watch(run) for run in runs]
        await anyio.sleep(5.0)
    assert [type(watch.outcome) for watch in watches] == [Cancelled] * 21 + [Completed]
    assert (tools.stopped, stage.count("cancel"), stage.count("submit")) == (1, 21, 0)


async def test_stuck_cancels_delay_leaving_for_some_seconds_only(stage: Stage) -> None:
    runs = await stage.runs(3, end="never", cancelling=float("inf"))
    began = anyio.current_time()
    async with Fleet(stage.client, on_exit="cancel") as fleet:
        watches = [fleet.watch(run) for run in runs]
    assert anyio.current_time() - began == pytest.approx(5.0, abs=0.5)
    assert [watch.status for watch in watches] == ["cancelling"] * 3
    assert other_tasks() == []


async def test_a_cancel_takes_as_long_as_the_budget_needs(stage: Stage) -> None:
    runs = await stage.runs(30, end="never", cancelling=0.1)
    began = anyio.current_time()
    async with Fleet(stage.client, on_exit="cancel", requests_per_second=2.0) as fleet:
        watches = [fleet.watch(run) for run in runs]
    assert stage.count("cancel") == 30
    assert [type(watch.outcome) for watch in watches] == [Cancelled] * 30  # each needs a cancel and a poll
    assert anyio.current_time() - began == pytest.approx(30.0, abs=2.0)


async def test_a_server_that_refuses_all_requests_delays_leaving_for_at_most_ten_minutes(stage: Stage) -> None:
    runs = await stage.runs(500, end="never")
    async with Fleet(stage.client, on_exit="cancel") as fleet:
        watches = [fleet.watch(run) for run in runs]
        stage.server.inject(Fault(on="any", status=429, times=None))
        await anyio.sleep(60.0)
        assert (fleet.statistics().budget or 0.0) < 1.5  # a rate at which two requests for each run take longer
        began = anyio.current_time()
    assert anyio.current_time() - began == pytest.approx(605.0, abs=1.0)
    assert all(watch.outcome is not None and watch.outcome.cancel_error is not None for watch in watches)


async def test_on_outcome_gets_the_runs_that_could_not_be_cancelled(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes_seen: list[Any] = []
    stuck = await stage.run(end="never", cancelling=float("inf"))
    runs = [stuck, await stage.run(end="never", cancelling=0.1), await stage.run(end="never", cancelling=float("inf"))]
    async with Fleet(stage.client, on_exit="cancel", on_outcome=outcomes_seen.append) as fleet:
        for run in runs[:2]:
            fleet.watch(run)
        assert isinstance(await fleet.watch(runs[2], timeout=2.0), GaveUp)
    ends = {outcome.ref.ids[1]: outcome for outcome in outcomes_seen}
    assert [(type(ends[run.id]), ends[run.id].reason) for run in runs] == [
        (GaveUp, Reason.NOT_CANCELLED),
        (Cancelled, None),
        (GaveUp, Reason.TIMEOUT),
    ]
    assert [ends[run.id].cancel_error is None for run in runs] == [False, True, False]
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 2
    assert [any(run.id in text for text in warned) for run in runs] == [True, False, True]


@pytest.mark.parametrize("per_second", [1.0, None])
async def test_runs_that_leaving_had_no_time_to_cancel_have_outcomes_too(
    stage: Stage, per_second: float | None
) -> None:
    outcomes_seen: list[Any] = []
    runs = await stage.runs(20, end="never")
    stage.server.inject(Fault(on="cancel", delay_before=1e6, times=None))
    async with Fleet(
        stage.client, on_exit="cancel", on_outcome=outcomes_seen.append, requests_per_second=per_second, max_in_flight=2
    ) as fleet:
        watches = [fleet.watch(run) for run in runs]
    assert [type(outcome) for outcome in outcomes_seen] == [GaveUp] * 20
    assert all(watch.outcome is not None and watch.outcome.cancel_error is not None for watch in watches)
    assert other_tasks() == []


async def test_an_error_in_the_block_does_not_hide_runs_that_could_not_be_cancelled(stage: Stage) -> None:
    outcomes_seen: list[Any] = []
    run = await stage.run(end="never", cancelling=float("inf"))
    with pytest.raises(ValueError, match="mine"):
        async with Fleet(stage.client, on_exit="cancel", on_outcome=outcomes_seen.append) as fleet:
            fleet.watch(run)
            await anyio.sleep(1.0)
            raise ValueError("mine")
    assert [outcome.reason for outcome in outcomes_seen] == [Reason.NOT_CANCELLED]


async def test_on_exit_leave_waits_for_cancels_that_were_requested_before(stage: Stage) -> None:
    runs = await stage.runs(2, end="never", cancelling=0.1)
    stage.server.inject(Fault(on="cancel", status=503))
    async with Fleet(stage.client, on_exit="leave") as fleet:
        watches = [fleet.watch(run) for run in runs]
        await anyio.sleep(1.0)
        await watches[0].cancel_run()
    assert stage.count("cancel") == 2
    assert [type(watch.outcome) for watch in watches] == [Cancelled, type(None)]


async def test_a_watch_cancelled_while_all_runs_are_cancelled_leaves_its_run_alone_and_is_not_waited_for(
    stage: Stage,
) -> None:
    runs = await stage.runs(30, end="never", cancelling=0.5)

    async def cancel_watch() -> None:
        for watch in watches[:10]:
            watch.cancel()

    async with Fleet(stage.client, on_exit="cancel", requests_per_second=None) as fleet:
        watches = [fleet.watch(run) for run in runs]
        await anyio.sleep(2.0)
        letting_go = asyncio.create_task(cancel_watch())
        began = anyio.current_time()
    assert letting_go.done()
    assert stage.count("cancel") == 20
    assert anyio.current_time() - began < 3.0


async def test_of_runs_that_were_given_up_the_newest_are_cancelled_and_a_warning_says_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(asyncruns.fleet.roster, "KEPT_UNFINISHED", 2)
    runs = await stage.runs(5, end="never", cancelling=0.0)
    async with Fleet(stage.client, on_exit="cancel") as fleet:
        for run in runs:
            assert isinstance(await fleet.watch(run, timeout=3.0), GaveUp)
    assert [stage.count("cancel", run) for run in runs] == [0, 0, 0, 1, 1]
    assert [record.getMessage() for record in caplog.records if "the newest 2" in record.getMessage()]
    assert len(caplog.records) == 1


async def test_a_run_that_is_gone_is_not_cancelled(stage: Stage) -> None:
    run = await stage.run(end="never")
    stage.server.inject(Fault(on="poll", status=404, times=None))
    async with Fleet(stage.client, on_exit="cancel") as fleet:
        outcome = await fleet.watch(run)
    assert outcome.reason is Reason.NOT_FOUND
    assert stage.count("cancel") == 0


async def test_no_run_is_added_while_all_are_cancelled(stage: Stage) -> None:
    run, late = await stage.runs(2, end="never", cancelling=3.0)

    async def add() -> None:
        await anyio.sleep(1.0)
        fleet.watch(late)

    async with Fleet(stage.client, on_exit="cancel") as fleet:
        fleet.watch(run)
        adding = asyncio.create_task(add())
        await asyncio.sleep(0)
    with pytest.raises(InvalidRequestError, match="was left"):
        await adding
    assert fleet.statistics().active == 0


async def test_a_pause_that_the_server_demands_counts_as_time_that_the_budget_needs(stage: Stage) -> None:
    runs = await stage.runs(3, end="never", cancelling=0.0)
    stage.server.inject(Fault(on="poll", status=429, headers={"Retry-After": "40"}))
    async with Fleet(stage.client, on_exit="cancel") as fleet:
        for run in runs:
            fleet.watch(run)
        await anyio.sleep(1.0)
    assert stage.count("cancel") == 3


@pytest.mark.parametrize("on_exit", ["drain", "leave", "cancel"])
async def test_an_error_in_the_block_is_raised_unchanged_and_at_once(stage: Stage, on_exit: How) -> None:
    run = await stage.run(end="never")
    began = anyio.current_time()
    with pytest.raises(ValueError, match="mine"):
        async with Fleet(stage.client, on_exit=on_exit) as fleet:
            fleet.watch(run)
            await anyio.sleep(1.0)
            raise ValueError("mine")
    assert anyio.current_time() - began < 3.0
    assert stage.count("cancel") == (on_exit == "cancel")
    assert other_tasks() == []


@pytest.mark.parametrize("on_exit", ["drain", "leave", "cancel"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_task_leaves_the_fleet_at_once(stage: Stage, on_exit: How, times: int) -> None:
    run = await stage.run(end="never")

    async def watch() -> None:
        async with Fleet(stage.client, on_exit=on_exit) as fleet:
            fleet.watch(run)  # cancelled in the block, or while leaving waits for the run
            if on_exit != "drain":
                await anyio.sleep_forever()

    task = asyncio.create_task(watch())
    await anyio.sleep(5.0)
    began = anyio.current_time()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.001)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert anyio.current_time() - began < 2.0
    assert stage.count("cancel") == (on_exit == "cancel")
    assert other_tasks() == []


async def test_a_scope_that_times_out_leaves_the_fleet(stage: Stage) -> None:
    with anyio.move_on_after(5.0) as scope:
        async with Fleet(stage.client) as fleet:
            await fleet.watch(await stage.run(end="never"))
    assert scope.cancelled_caught
    assert other_tasks() == []


async def test_a_task_cancelled_while_entering_leaves_nothing_behind(stage: Stage) -> None:
    entering = asyncio.create_task(Fleet(stage.client).__aenter__())
    await asyncio.sleep(0)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert other_tasks() == []


async def test_a_fleet_may_be_left_from_another_task(stage: Stage) -> None:
    fleet: Fleet[Any] = Fleet(stage.client)

    async def leave() -> None:
        await fleet.__aexit__(None, None, None)

    await asyncio.create_task(fleet.__aenter__())
    watch = fleet.watch(await stage.run(working=10.0))
    await asyncio.create_task(leave())
    assert isinstance(watch.outcome, Completed)
    assert other_tasks() == []


async def test_a_generator_that_is_closed_early_leaves_its_fleet(stage: Stage) -> None:
    runs = [*await stage.runs(3), await stage.run(end="never")]

    async def outcomes() -> AsyncGenerator[Any]:
        async with Fleet(stage.client) as fleet:
            for run in runs:
                fleet.watch(run)
            async for outcome in fleet:
                yield outcome

    seen = []
    generator = outcomes()
    async for outcome in generator:
        seen.append(outcome)
        if len(seen) == 2:
            break
    await asyncio.create_task(generator.aclose())  # in another task, as the loop does
    assert [type(outcome) for outcome in seen] == [Completed] * 2
    assert other_tasks() == []


async def test_a_submit_on_its_way_is_waited_for(stage: Stage) -> None:
    stage.server.inject(Fault(on="submit", delay_before=2.0))
    run = await stage.run(rounds=(ONE_CALL,))
    async with Fleet(stage.client, tools=Tools(takes=0.0), on_exit="leave") as fleet:
        fleet.watch(run)
        while not stage.count("submit"):
            await anyio.sleep(0.1)
    assert [list(outputs.values()) for outputs in stage.server.submitted(run.id)] == [["out 1"]]


async def test_requests_that_hang_delay_leaving_for_some_seconds_only(stage: Stage) -> None:
    stage.server.inject(Fault(on="submit", delay_before=1e6, times=None), Fault(on="poll", delay_before=1e6, skip=8))
    runs = await stage.runs(4, rounds=(ONE_CALL,))
    async with Fleet(stage.client, tools=Tools(takes=0.0), on_exit="leave") as fleet:
        for run in runs:
            fleet.watch(run)
        await anyio.sleep(3.0)
        began = anyio.current_time()
    assert anyio.current_time() - began == pytest.approx(5.0, abs=0.5)
    assert not [name for name in other_tasks() if name.startswith("asyncruns")]


async def test_observers_that_hang_delay_leaving_for_some_seconds_only(stage: Stage) -> None:
    async def hang(outcome: object) -> None:
        await anyio.sleep_forever()

    async with Fleet(stage.client, on_outcome=hang) as fleet:
        outcome = await fleet.watch(await stage.run())
        began = anyio.current_time()
    assert isinstance(outcome, Completed)
    assert anyio.current_time() - began == pytest.approx(2.0, abs=0.1)
    assert other_tasks() == []


async def test_waiting_callers_and_readers_learn_that_the_fleet_was_left(stage: Stage) -> None:
    fleet: Fleet[Any] = Fleet(stage.client, on_exit="leave")

    async def read_outcomes() -> list[Any]:
        return [outcome async for outcome in fleet]

    async def read_events(watch: Any) -> list[str]:
        return [type(event).__name__ async for event in watch]

    async with fleet:
        watch = fleet.watch(await stage.run(end="never"))
        waiting = asyncio.create_task(watch.wait())
        reading = [asyncio.create_task(read_outcomes()), asyncio.create_task(read_events(watch))]
        await anyio.sleep(5.0)
    with pytest.raises(InvalidRequestError, match="was left"):
        await waiting
    outcomes, events = [await task for task in reading]
    assert outcomes == []
    assert set(events) == {"StatusChanged"}


async def test_an_outcome_stays_after_leaving(stage: Stage) -> None:
    async with Fleet(stage.client) as fleet:
        watch = fleet.watch(await stage.run(end="never"), timeout=3.0)
    assert isinstance(await watch, GaveUp)
    with pytest.raises(InvalidRequestError, match="through the client"):
        await watch.cancel_run()
