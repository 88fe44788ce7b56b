"""Each sentence of `explain()`, word for word."""

from __future__ import annotations

import re

import anyio
import pytest
from stage import ONE_CALL, Stage, Tools

from asyncruns import Cadence, Client, Fleet, Watch
from asyncruns.lifecycle import Call
from asyncruns.testing import Emulator, Fault
from asyncruns.wire import Run

NUMBER = re.compile(r"\d+(\.\d+)?")


def said(watch: Watch[Run]) -> str:
    """Return what `explain()` says, with `R` in place of the ref."""
    return watch.explain().replace(str(watch.ref), "R")


async def test_a_run_that_was_not_seen_yet_and_its_next_poll(stage: Stage) -> None:
    run = await stage.run(end="never")
    ref = stage.client.dialect.identify(run, {})
    async with Fleet(stage.client, on_exit="leave", cadence=Cadence.fixed(30.0)) as fleet:
        watch = fleet.watch(ref)
        assert said(watch) == "R was not seen yet after 0 polls; the next poll is in 0.0 s."
        await anyio.sleep(0.001)
        assert said(watch) == "R was not seen yet after 1 poll; a poll is in flight."
        await anyio.sleep(5.0)
        watch = fleet.watch(run)
        found = re.fullmatch(r"R was queued after 1 poll; the next poll is in (\d+\.\d) s\.", said(watch))
        assert found
        assert 24.0 < float(found[1]) < 30.0


async def test_polls_that_wait_for_a_small_budget(stage: Stage) -> None:
    runs = await stage.runs(10, end="never")
    async with Fleet(stage.client, on_exit="leave", requests_per_second=0.5) as fleet:
        watches = [fleet.watch(stage.client.dialect.identify(run, {})) for run in runs]
        await anyio.sleep(1.0)
        assert said(watches[5]) == (
            "R was not seen yet after 0 polls; its poll is due, and 4 requests go before it "
            "at 0.5 requests per second, with 0 in flight."
        )


async def test_places_in_flight_that_are_taken(stage: Stage) -> None:
    stage.server.inject(Fault(on="poll", delay_before=1000.0, times=None))
    runs = await stage.runs(3, end="never")
    async with Fleet(stage.client, on_exit="leave", requests_per_second=None, max_in_flight=2) as fleet:
        watches = [fleet.watch(stage.client.dialect.identify(run, {})) for run in runs]
        await anyio.sleep(1.0)
        assert said(watches[2]) == (
            "R was not seen yet after 0 polls; its poll is due, and 1 request goes before it, with 1 in flight."
        )


async def test_tools_a_submit_and_the_end(stage: Stage) -> None:
    stage.server.inject(Fault(on="submit", delay_before=5.0))
    run = await stage.run(rounds=(ONE_CALL,))
    async with Fleet(stage.client, tools=Tools(takes=10.0), cadence=Cadence.fixed(2.0)) as fleet:
        watch = fleet.watch(run)
        await anyio.sleep(5.0)
        assert NUMBER.sub("N", said(watch)) == (
            "R was requires_action after N polls; its calls are being answered here: f; the next poll is in N s."
        )
        while not stage.count("submit"):
            await anyio.sleep(0.1)
        assert "; the outputs of its calls are being submitted; " in said(watch)
        await watch
        assert said(watch) == f"R was completed after {watch.polls} polls; the watch finished as Completed."


async def test_submits_that_wait_for_the_budget(stage: Stage) -> None:
    runs = await stage.runs(8, rounds=(ONE_CALL,))
    await anyio.sleep(5.0)
    all_asked = anyio.Event()

    async def answer(calls: list[Call]) -> dict[str, str]:
        await all_asked.wait()
        return {call.id: "out" for call in calls}

    async with Fleet(stage.client, on_requires_action=answer, requests_per_second=0.5, on_exit="leave") as fleet:
        watches = [fleet.watch(run) for run in runs]
        while not all(watch.polls for watch in watches):
            await anyio.sleep(1.0)
        all_asked.set()
        await anyio.sleep(0.5)
        assert re.search(r"are being submitted \([78] submits and cancels wait for the budget\); ", said(watches[7]))
        assert fleet.statistics().due >= 7


async def test_a_cancel(stage: Stage) -> None:
    run = await stage.run(end="never", cancelling=20.0)
    async with Fleet(stage.client) as fleet:
        watch = fleet.watch(run)
        await watch.cancel_run()
        await anyio.sleep(1.0)
        assert re.match(r"R was cancelling after \d polls?; its cancel was requested; ", said(watch))


async def test_a_server_that_is_down(emulator: Emulator) -> None:
    async with Client(emulator.base_url, max_retries=0) as client:
        run = await client.threads.create_and_run(assistant_id=(await client.assistants.create(model="gpt-4o")).id)
        emulator.inject(Fault(on="poll", status=503, times=None))
        async with Fleet(client, on_exit="leave") as fleet:
            watch = fleet.watch(run)
            await anyio.sleep(10.0)
            assert "; the next poll is in " in said(watch)
            assert "; the last request for it failed: InternalServerError: " in said(watch)
            assert said(watch).endswith(".")
            assert not said(watch).endswith("..")


@pytest.mark.parametrize("how", ["cancelled", "left"])
async def test_a_watch_that_is_no_longer_watched(stage: Stage, how: str) -> None:
    async with Fleet(stage.client, on_exit="leave", cadence=Cadence.fixed(0.5)) as fleet:
        watch = fleet.watch(await stage.run(end="never"))
        await anyio.sleep(5.0)
        if how == "cancelled":
            watch.cancel()
            assert said(watch) == "R is no longer watched: this watch was cancelled."
    if how == "left":
        said_at_last = NUMBER.sub("N", said(watch))
        assert said_at_last == "R was in_progress after N polls; the fleet was left before the watch finished."


async def test_a_watch_that_broke(stage: Stage) -> None:
    def broken(request: object) -> None:
        raise ZeroDivisionError("bug")

    run = await stage.run(end="never")
    stage.transport.before = broken
    async with Fleet(stage.client) as fleet:
        watch = fleet.watch(run)
        await watch
        assert said(watch) == "R was queued after 1 poll; the watch finished as GaveUp."
