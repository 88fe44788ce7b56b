"""Polls on request in a fleet: by ref or id, before all others, and within the budget."""

from __future__ import annotations

import anyio
from stage import Stage

from asyncruns import Cadence, Fleet, RunRef
from asyncruns._loop import loop_time

SLOW = Cadence.fixed(60.0)


async def test_a_run_is_found_by_its_ref_and_by_its_id(stage: Stage) -> None:
    run, other, response = await stage.run(working=5.0), await stage.run(working=5.0), await stage.response(working=5.0)
    async with Fleet(stage.client, cadence=SLOW) as fleet:
        watches = [fleet.watch(one) for one in (run, other, response)]
        await anyio.sleep(10.0)
        assert [watch.status for watch in watches] != ["completed"] * 3
        began = loop_time()
        assert fleet.poll_now(run.id)
        assert fleet.poll_now(watches[1])
        assert fleet.poll_now(other)
        assert fleet.poll_now(RunRef("responses", [response.id]))  # type: ignore[arg-type]  # as read from JSON
        assert not fleet.poll_now("run_of_another")
        assert not fleet.poll_now(RunRef("thread.run", ("thread_of_another", run.id)))
        for watch in watches:
            assert (await watch).status == "completed"
        assert loop_time() - began < 1.0
        assert not fleet.poll_now(run.id), "its watch has finished"


async def test_it_goes_before_all_other_polls_and_the_budget_holds(stage: Stage) -> None:
    runs = await stage.runs(40, working=300.0)
    async with Fleet(stage.client, requests_per_second=2, cadence=Cadence.fixed(0.1), on_exit="leave") as fleet:
        for run in runs:
            fleet.watch(run)
        await anyio.sleep(30.0)
        assert fleet.statistics().due > 30
        sent = stage.count("poll")
        last = runs[-1]
        before = stage.count("poll", last)
        began = loop_time()
        fleet.poll_now(last.id)
        while stage.count("poll", last) == before:
            await anyio.sleep(0.05)
        assert loop_time() - began < 1.2, "it waited for others"
        assert stage.count("poll") - sent <= 3


async def test_one_poll_follows_the_one_in_flight(stage: Stage) -> None:
    run = await stage.run(working=100.0)
    async with Fleet(stage.client, cadence=SLOW, on_exit="leave") as fleet:
        watch = fleet.watch(run)
        await anyio.sleep(5.0)
        polls = watch.polls
        for _ in range(5):
            watch.poll_now()
            await anyio.sleep(0.001)
        await anyio.sleep(5.0)
        assert watch.polls == polls + 2


async def test_a_poll_on_request_does_not_make_an_outage_of_a_budget(stage: Stage) -> None:
    """A poll that is due and held back stays held back, for as long as before."""
    runs = await stage.runs(30, working=300.0)
    async with Fleet(stage.client, requests_per_second=1, cadence=Cadence.fixed(1.0), on_exit="leave") as fleet:
        watches = [fleet.watch(run) for run in runs]
        await anyio.sleep(20.0)
        held = next(watch for watch in watches if watch._member.is_due)
        due_at = held._member.due_at
        held.poll_now()
        assert held._member.due_at == due_at
