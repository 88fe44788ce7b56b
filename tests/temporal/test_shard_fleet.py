"""The fleet of a shard on its worker, without Temporal: what it reports, and what one broken run does to the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from dev_server import KEY

from asyncruns import AnyOutcome, AsyncRunsError, Client, Reason, RunRef
from asyncruns.fleet import Watch
from asyncruns.lifecycle.records import key_of_run
from asyncruns.temporal import resident_fleets
from asyncruns.temporal.messages import RunReport, ShardJob, ShardRun
from asyncruns.temporal.reports import LONGEST_MESSAGE, calls_in
from asyncruns.temporal.resident_fleets import ResidentFleets
from asyncruns.temporal.shard_fleet import ShardFleet
from asyncruns.temporal.sizes import LARGEST_PIECE, json_size
from asyncruns.testing import Emulator, FunctionCall, Scenario
from asyncruns.watch.handover import Token, with_outputs

pytestmark = pytest.mark.real_time

JOB = ShardJob(shard="s", gather=0.01, at_most=5.0)
ASKS = Scenario(queued=0.0, working=0.0, rounds=((FunctionCall("get_weather", {"city": "Rome"}),),))
ENDS = Scenario(queued=0.0, working=0.0)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    async with Client(emulator.base_url, api_key=KEY) as client:
        yield client


class Told:
    """Takes outcomes, as `on_outcome` does."""

    def __init__(self) -> None:
        self.outcomes: list[AnyOutcome[Any]] = []

    def __call__(self, outcome: AnyOutcome[Any]) -> None:
        self.outcomes.append(outcome)


async def new_runs(client: Client, emulator: Emulator, scenario: Scenario, number: int = 1) -> list[ShardRun]:
    emulator.script(scenario, assistant_id="asst_1")
    refs = []
    for _ in range(number):
        thread = await client.threads.create()
        refs.append(RunRef.of(await client.threads.runs.create(thread.id, assistant_id="asst_1")))
    return [ShardRun(key=key_of_run(ref), token=Token(ref=ref)) for ref in refs]


async def reports_of(fleet: ShardFleet, runs: list[ShardRun], **options: Any) -> list[RunReport]:
    await fleet.open()
    try:
        await fleet.add(runs, options)
        reports: list[RunReport] = []
        async with asyncio.timeout(60):
            while len(reports) < len(runs):
                reports += await fleet.changes(JOB)
        return reports
    finally:
        await fleet.aclose()


def kinds(reports: list[RunReport]) -> Counter[str]:
    return Counter(report.outcome["outcome"] for report in reports if report.outcome)


async def test_reports_have_no_more_of_a_run_than_a_shard_needs(client: Client, emulator: Emulator) -> None:
    told = Told()
    (asks,) = await reports_of(ShardFleet(client, None, told), await new_runs(client, emulator, ASKS))
    assert asks.outcome is not None
    assert set(asks.outcome["run"]) <= {
        "id",
        "object",
        "status",
        "created_at",
        "thread_id",
        "assistant_id",
        "model",
        "metadata",
    }
    assert not told.outcomes
    (ends,) = await reports_of(ShardFleet(client, None, told), await new_runs(client, emulator, ENDS))
    assert "run" not in (ends.outcome or {})
    assert told.outcomes[0].run is not None


@pytest.mark.slow
async def test_reports_that_do_not_fit_are_left_for_the_next_time_which_is_at_once(
    client: Client, emulator: Emulator
) -> None:
    asks = Scenario(queued=0.0, working=0.0, rounds=((FunctionCall("get_weather", {"city": "x" * 200_000}),),))
    runs = await new_runs(client, emulator, asks, 5)
    fleet = ShardFleet(client, None, None)
    await fleet.open()
    try:
        await fleet.add([*runs, *await new_runs(client, emulator, Scenario(end="never"))], {})
        async with asyncio.timeout(60):
            first = await fleet.changes(ShardJob(shard="s", gather=2.0))
            assert 1 <= len(first) < 5
            assert json_size(first) <= LARGEST_PIECE + 1_000
            rest: list[RunReport] = []
            while len(rest) < 5 - len(first):
                rest += await asyncio.wait_for(fleet.changes(ShardJob(shard="s", gather=9.0)), 6.0)
        assert {each.run.key for each in [*first, *rest] if each.run} == {run.key for run in runs}
    finally:
        await fleet.aclose()


async def test_calls_that_do_not_fit_end_the_watch_of_their_run_alone(client: Client, emulator: Emulator) -> None:
    told = Told()
    asks = Scenario(queued=0.0, working=0.0, rounds=((FunctionCall("get_weather", {"city": "x" * 5_000}),),))
    runs = [*await new_runs(client, emulator, asks), *await new_runs(client, emulator, ASKS)]
    reports = await reports_of(ShardFleet(client, None, told, largest_report=5_000), runs)
    assert kinds(reports) == {"GaveUp": 1, "NeedsCaller": 1}
    assert [each.reason for each in told.outcomes] == [Reason.BROKE]
    assert "can be passed on in a shard" in str(told.outcomes[0].cause)


async def test_a_watch_that_raises_ends_the_watch_of_its_run_alone(
    client: Client, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, told = await new_runs(client, emulator, ENDS, 2), Told()
    wait = Watch.wait

    async def waiting(watch: Watch[Any]) -> Any:
        if watch.ref == runs[0].token.ref:
            raise ValueError("x" * 1_000)
        return await wait(watch)

    monkeypatch.setattr(Watch, "wait", waiting)
    reports = await reports_of(ShardFleet(client, None, told), runs)
    assert kinds(reports) == {"GaveUp": 1, "Completed": 1}
    assert {each.reason for each in told.outcomes} == {Reason.BROKE, None}
    broken = next(each.outcome for each in reports if each.outcome and each.outcome["outcome"] == "GaveUp")
    assert len(broken["cause"]["message"]) <= LONGEST_MESSAGE + 3


async def test_a_run_that_can_t_be_watched_is_told_and_reported(client: Client, emulator: Emulator) -> None:
    ref, told = RunRef("unheard_of", ("1",)), Told()
    run = ShardRun(key="1", token=Token(ref=ref))
    reports = await reports_of(ShardFleet(client, None, told), [run, *await new_runs(client, emulator, ENDS)])
    assert kinds(reports) == {"GaveUp": 1, "Completed": 1}
    assert ref in {each.ref for each in told.outcomes}


async def test_a_token_of_a_journal_is_refused(client: Client, emulator: Emulator) -> None:
    (run,), told = await new_runs(client, emulator, ENDS), Told()
    run = ShardRun(key=run.key, token=Token(ref=run.token.ref, key="the key in the journal"))
    reports = await reports_of(ShardFleet(client, None, told), [run])
    assert kinds(reports) == {"GaveUp": 1}
    assert [each.reason for each in told.outcomes] == [Reason.REJECTED]
    assert "is of a watch in a journal" in str(told.outcomes[0].cause)


async def test_a_fleet_that_has_stopped_raises(
    client: Client, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = await new_runs(client, emulator, Scenario(end="never"), 2)
    fleet = ShardFleet(client, None, None)
    await fleet.open()
    await fleet.add(runs, {})
    changes = asyncio.create_task(fleet.changes(JOB))
    await asyncio.sleep(0.1)
    await fleet._fleet.__aexit__(None, None, None)
    with pytest.raises(Exception, match="left"):
        await asyncio.wait_for(changes, 30.0)


async def test_observers_report_no_calls(client: Client, emulator: Emulator) -> None:
    emulator.script(ASKS, model="gpt")  # the body of a response that asks never changes
    response = await client.responses.create(model="gpt", input="Weather?", background=True)
    ref = RunRef.of(response)
    told = Told()
    run = ShardRun(key=key_of_run(ref), token=Token(ref=ref))
    (report,) = await reports_of(ShardFleet(client, None, told), [run], observe_only=True)
    assert "calls" not in (report.outcome or {})
    assert len(told.outcomes) == 1


async def test_runs_that_wait_for_outputs_are_cancelled(client: Client, emulator: Emulator) -> None:
    runs = await new_runs(client, emulator, ASKS, 3)
    fleet = ShardFleet(client, None, None)
    await fleet.open()
    try:
        reports = await asyncio.wait_for(fleet.cancelled(runs, {}), 30.0)
    finally:
        await fleet.aclose()
    assert kinds(reports) == {"Cancelled": 3}


async def test_a_cancel_that_raises_does_not_stop_the_others(
    client: Client, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = await new_runs(client, emulator, Scenario(queued=0.0, working=0.5, cancelling=0.0), 2)
    cancel_run = Watch.cancel_run

    async def cancelling(watch: Watch[Any]) -> None:
        if watch.ref == runs[0].token.ref:
            raise AsyncRunsError("no connection")
        await cancel_run(watch)

    monkeypatch.setattr(Watch, "cancel_run", cancelling)
    fleet = ShardFleet(client, None, None)
    await fleet.open()
    try:
        reports = await asyncio.wait_for(fleet.cancelled(runs, {}), 30.0)
    finally:
        await fleet.aclose()
    assert kinds(reports) == {"Completed": 1, "Cancelled": 1}


async def test_a_fleet_that_can_t_be_left_in_order_does_not_keep_the_others(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident_fleets, "UNUSED_S", 0.05)
    monkeypatch.setattr(resident_fleets, "TIDY_EVERY_S", 0.02)
    aclose = ShardFleet.aclose

    async def raising(fleet: ShardFleet) -> None:
        await aclose(fleet)
        raise RuntimeError("not in order")

    monkeypatch.setattr(ShardFleet, "aclose", raising)
    fleets = ResidentFleets(client, None, None)
    try:
        for name in ("one", "two"):
            await fleets.new_shard(ShardJob(shard=name))
        async with asyncio.timeout(60):
            while fleets.shard("one") or fleets.shard("two"):
                await asyncio.sleep(0.02)
        await fleets.new_shard(ShardJob(shard="one"))
        await fleets.new_shard(ShardJob(shard="one"))  # in place of the one before
        async with asyncio.timeout(60):
            while fleets.shard("one"):
                await asyncio.sleep(0.02)
    finally:
        await fleets.aclose()


async def test_runs_that_go_on_with_their_outputs_are_settled(client: Client, emulator: Emulator) -> None:
    asks = Scenario(queued=0.0, working=0.3, rounds=((FunctionCall("get_weather", {"city": "Rome"}),),))
    (run,) = await new_runs(client, emulator, asks)
    fleet = ShardFleet(client, None, None)
    await fleet.open()
    try:
        await fleet.add([run], {})
        (report,) = await asyncio.wait_for(fleet.changes(JOB), 30.0)
        assert report.outcome is not None
        assert report.token is not None
        assert fleet.take_settled() == []
        outputs = [(call, "sunny", False) for call in calls_in(report.outcome["calls"])]
        run = ShardRun(key=run.key, token=with_outputs(report.token, outputs), turn=1)
        await fleet.add([run], {})
        async with asyncio.timeout(60):
            while not (settled := fleet.take_settled()):
                await asyncio.sleep(0.01)
        assert settled == [(run.key, 1)]
        (report,) = await asyncio.wait_for(fleet.changes(JOB), 30.0)
        assert kinds([report]) == {"Completed": 1}
    finally:
        await fleet.aclose()


@pytest.mark.slow
@pytest.mark.parametrize(("ended", "waits"), [(1, True), (2, False)])
async def test_ends_are_gathered_until_they_are_a_fifth(
    client: Client, emulator: Emulator, ended: int, waits: bool
) -> None:
    """Of 10 runs; they would be gathered for 6 s, and calls for 0.2 s."""
    fleet = ShardFleet(client, None, None)
    runs = await new_runs(client, emulator, ENDS, ended)
    runs += await new_runs(client, emulator, Scenario(queued=60.0), 10 - ended)
    await fleet.open()
    try:
        await fleet.add(runs, {})
        began = asyncio.get_running_loop().time()
        reports = await fleet.changes(ShardJob(shard="s", gather=0.2, at_most=2.0))
        assert len(reports) == ended
        assert (asyncio.get_running_loop().time() - began >= 1.9) is waits
    finally:
        await fleet.aclose()


async def test_a_new_fleet_waits_until_the_one_before_is_left(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    fleets, may_end = ResidentFleets(client, None, None), asyncio.Event()
    first = await fleets.new_shard(JOB)
    leave = first.aclose

    async def leaving() -> None:
        await may_end.wait()
        await leave()

    monkeypatch.setattr(first, "aclose", leaving)
    left = asyncio.create_task(fleets.leave("s"))
    await asyncio.sleep(0)
    second = asyncio.create_task(fleets.new_shard(JOB))
    await asyncio.sleep(0.05)
    assert not second.done()  # it would submit what the first one is submitting
    may_end.set()
    assert await second is not first
    await left
    await fleets.aclose()
