"""What dies, or is lost, below a shard: its worker, its fleet, a report, its history. No call runs twice."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import flows
import pytest
from dev_server import KEY, DevServer, Stage
from shard_bench import TWO_ROUNDS, Bench, opened, start

from asyncruns import Client, RunRef
from asyncruns.temporal import Shards, answer_call, resident_fleets
from asyncruns.temporal.messages import RunReport, ShardJob, ShardRun
from asyncruns.temporal.shard_fleet import ShardFleet
from asyncruns.testing import Emulator, FunctionCall, Scenario

pytestmark = pytest.mark.real_time

WEATHER = FunctionCall("get_weather", {"city": "Rome"})
REFUND = FunctionCall("refund", {"order": "7"})


async def result_of(shards: Shards, within: float = 60.0) -> list[str]:
    async with asyncio.timeout(within):
        return [each.outcome for each in await shards.result()]


async def until_polled(stage: Stage, runs: Iterable[Any]) -> None:
    """Wait until the server has seen a poll of each run."""
    async with asyncio.timeout(60):
        while not {run.id for run in runs} <= {each.run_id for each in stage.emulator.requests}:
            await asyncio.sleep(0.02)


def polls(stage: Stage) -> Counter[str | None]:
    return Counter(each.run_id for each in stage.emulator.requests if each.operation == "poll")


# Histories


@pytest.fixture(scope="module")
def short_histories() -> Iterator[str]:
    """Return the address of a server that suggests a new history after a few events."""
    server = DevServer(settings=("limit.historyCount.suggestContinueAsNew=40",))
    yield server.address
    server.kill()


@pytest.fixture
async def short(short_histories: str, emulator: Emulator) -> AsyncIterator[Stage]:
    async with Client(emulator.base_url, api_key=KEY) as client:
        yield Stage(short_histories, emulator, client, flows.WORKFLOWS)


async def number_of_histories(shards: Shards, stage: Stage) -> int:
    assert stage.temporal is not None
    query = f'WorkflowId="{shards.handles[0].id}"'
    return len([each async for each in stage.temporal.list_workflows(query)])


@pytest.mark.slow
async def test_a_new_history_goes_on_with_tools_in_flight(short: Stage, bench: Bench) -> None:
    bench.pause = 0.2
    for number in range(8):
        rounds = ((WEATHER, WEATHER), (WEATHER,))
        short.emulator.script(Scenario(queued=0.0, working=0.2 * number, rounds=rounds), assistant_id=f"asst_{number}")
    runs = [await short.new_run(f"asst_{number}") for number in range(8)]
    async with short.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        shards = await start(short, temporal, runs, max_rounds=2)
        assert await result_of(shards, 40) == ["Completed"] * 8
        assert await number_of_histories(shards, short) > 1
    assert bench.told == Counter(map(RunRef.of, runs))
    assert len(bench.begun) == 8 * 3
    assert set(bench.begun.values()) == {1}


@pytest.mark.slow
async def test_a_new_history_keeps_the_outputs_of_rounds_that_wait_for_people(short: Stage, bench: Bench) -> None:
    for number in range(8):
        rounds = ((WEATHER, REFUND),) if number < 2 else ((WEATHER,), (WEATHER,))
        short.emulator.script(Scenario(queued=0.0, working=0.2 * number, rounds=rounds), assistant_id=f"asst_{number}")
    runs = [await short.new_run(f"asst_{number}") for number in range(8)]
    async with short.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        shards = await start(short, temporal, runs, people=["refund"], max_rounds=2)
        async with asyncio.timeout(60):
            while await number_of_histories(shards, short) < 2 or len(bench.told) < 6:
                await asyncio.sleep(0.1)
        for call in await opened(temporal, shards.handles[0].id, 2):
            await answer_call(temporal, shards.handles[0].id, call, "paid")
        assert await result_of(shards) == ["Completed"] * 8
    assert set(bench.begun.values()) == {1}
    for run in runs[:2]:
        assert sorted(short.emulator.submitted(run.id)[0].values()) == ["paid", "sunny in Rome"]


@pytest.mark.slow
async def test_nothing_is_kept_in_memory_only(stage: Stage, bench: Bench) -> None:
    """Each task of a workflow replays its history, as the worker keeps none."""
    stage.emulator.script(Scenario(queued=0.0, working=0.05, rounds=((WEATHER, REFUND), (WEATHER,))), assistant_id="a")
    runs = [await stage.new_run("a") for _ in range(3)]
    async with stage.worker(
        tools=bench.tools, on_outcome=bench.tell, worker={"max_cached_workflows": 0, "max_concurrent_workflow_tasks": 1}
    ) as temporal:
        shards = await start(stage, temporal, runs, people=["refund"])
        for call in await opened(temporal, shards.handles[0].id, 3):
            await answer_call(temporal, shards.handles[0].id, call, "paid")
        assert await result_of(shards) == ["Completed"] * 3
    assert len(bench.begun) == 6
    assert set(bench.begun.values()) == {1}


# Workers


@contextlib.contextmanager
def worker_process(stage: Stage, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = str(Path(__file__).with_name("shard_worker.py"))
    command = [sys.executable, program, stage.address, stage.task_queue, stage.emulator.base_url, str(file)]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


@pytest.mark.slow
async def test_a_killed_worker_costs_one_poll_of_each_run(stage: Stage, bench: Bench, tmp_path: Path) -> None:
    stage.emulator.script(Scenario(queued=0.0, working=4.0), assistant_id="asst_1")
    stage.emulator.script(Scenario(queued=0.0, working=0.0), assistant_id="asst_2")
    async with stage.worker() as temporal:
        pass
    with worker_process(stage, tmp_path / "calls"):
        assert await result_of(await start(stage, temporal, [await stage.new_run("asst_2")])) == ["Completed"]
        runs = [await stage.new_run() for _ in range(5)]
        shards = await start(stage, temporal, runs, heartbeat_timeout=1.0)
        await until_polled(stage, runs)
    async with asyncio.timeout(60):
        while (
            await stage.client.threads.runs.retrieve(runs[-1].id, thread_id=runs[-1].thread_id)
        ).status != "completed":
            await asyncio.sleep(0.1)
    stage.emulator.requests.clear()
    async with stage.worker(on_outcome=bench.tell):
        assert await result_of(shards) == ["Completed"] * 5
    assert polls(stage) == {run.id: 1 for run in runs}
    assert bench.told == Counter(map(RunRef.of, runs))


@pytest.mark.slow
async def test_the_calls_of_a_killed_worker_are_not_run_again(stage: Stage, bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "calls"
    stage.emulator.script(Scenario(queued=0.0, working=0.05, rounds=((WEATHER, WEATHER),)), assistant_id="asst_1")
    runs = [await stage.new_run() for _ in range(3)]
    async with stage.worker() as temporal:
        pass
    with worker_process(stage, file):
        shards = await start(stage, temporal, runs, heartbeat_timeout=1.0)
        async with asyncio.timeout(60):
            while not file.exists() or len(file.read_text().splitlines()) < 6:
                await asyncio.sleep(0.02)
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell):
        assert await result_of(shards, 60) == ["Completed"] * 3
    assert not bench.begun
    assert len(set(file.read_text().splitlines())) == 6
    for run in runs:
        assert all("is not known" in text for text in stage.emulator.submitted(run.id)[0].values())


@pytest.mark.slow
async def test_a_fleet_that_no_activity_uses_is_left_and_made_again(
    stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident_fleets, "UNUSED_S", 0.2)
    monkeypatch.setattr(resident_fleets, "TIDY_EVERY_S", 0.1)
    stage.emulator.script(Scenario(queued=0.0, working=0.05, rounds=((REFUND,),)), assistant_id="asst_1")
    run = await stage.new_run()
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        shards = await start(stage, temporal, [run], people=["refund"])
        (call,) = await opened(temporal, shards.handles[0].id)
        await asyncio.sleep(1.0)
        await answer_call(temporal, shards.handles[0].id, call, "paid")
        assert await result_of(shards) == ["Completed"]
        assert (await shards.handles[0].result()).polls > 0


# Activities


@pytest.mark.slow
async def test_a_lost_report_is_found_again(stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(ShardFleet):
        lost = 0

        async def changes(self, job: ShardJob) -> list[RunReport]:
            reports = await super().changes(job)
            if reports and Forgetful.lost < 2:
                Forgetful.lost += 1
                raise RuntimeError("the connection is lost")
            return reports

    monkeypatch.setattr(resident_fleets, "ShardFleet", Forgetful)
    stage.emulator.script(TWO_ROUNDS, assistant_id="asst_1")
    runs = [await stage.new_run() for _ in range(3)]
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        assert await result_of(await start(stage, temporal, runs)) == ["Completed"] * 3
    assert Forgetful.lost == 2
    assert set(bench.begun.values()) == {1}
    assert set(bench.told) == set(map(RunRef.of, runs))


@pytest.mark.slow
async def test_an_answer_that_is_lost_after_adding_runs_again(
    stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf(ShardFleet):
        lost = 0

        async def add(self, runs: Iterable[ShardRun], options: dict[str, Any]) -> None:
            given = list(runs)
            await super().add(given, options)
            if any(run.turn for run in given) and Deaf.lost < 2:
                Deaf.lost += 1
                raise RuntimeError("the connection is lost")

    monkeypatch.setattr(resident_fleets, "ShardFleet", Deaf)
    stage.emulator.script(TWO_ROUNDS, assistant_id="asst_1")
    runs = [await stage.new_run() for _ in range(3)]
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        assert await result_of(await start(stage, temporal, runs)) == ["Completed"] * 3
    assert Deaf.lost == 2
    assert set(bench.begun.values()) == {1}
    assert len(bench.begun) == 9


@pytest.mark.slow
async def test_a_fleet_that_is_made_while_tools_run_gets_their_outputs_soon(
    stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first activity of a fleet tells the workflow where that is; it must not take as long as the other runs do."""

    class Failing(ShardFleet):
        calls = 0

        async def changes(self, job: ShardJob) -> list[RunReport]:
            Failing.calls += 1
            if Failing.calls == 2:
                await asyncio.sleep(0.2)
                raise RuntimeError("the connection is lost")
            return await super().changes(job)

    monkeypatch.setattr(resident_fleets, "ShardFleet", Failing)
    bench.pause = 1.5
    stage.emulator.script(Scenario(queued=0.0, working=0.05, rounds=((WEATHER,),)), assistant_id="asst_1")
    stage.emulator.script(Scenario(queued=0.0, working=60.0), assistant_id="asst_2")
    runs = [await stage.new_run("asst_1"), await stage.new_run("asst_2")]
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        shards = await start(stage, temporal, runs)
        async with asyncio.timeout(60):
            while not bench.told:
                await asyncio.sleep(0.1)
        await shards.cancel()
    assert set(bench.begun.values()) == {1}
