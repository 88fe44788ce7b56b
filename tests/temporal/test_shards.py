"""Shards: thousands of runs in a few workflows, whose calls are answered once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from dev_server import Stage
from shard_bench import TWO_ROUNDS, Bench, read, start
from temporalio.client import WorkflowFailureError

from asyncruns import RunRef
from asyncruns.testing import Scenario

pytestmark = pytest.mark.real_time


@pytest.mark.slow
async def test_the_runs_of_several_shards_end_and_each_call_runs_once(stage: Stage, bench: Bench) -> None:
    stage.emulator.script(TWO_ROUNDS, assistant_id="asst_1")
    runs = [await stage.new_run() for _ in range(7)]
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        shards = await start(stage, temporal, runs, size=3)
        ended = await read(shards)
        assert len(shards.handles) == 3
        assert Counter(each.ref for each in ended) == Counter(map(RunRef.of, runs)) == bench.told
        assert {each.outcome for each in ended} == {"Completed"}
        assert sorted(await shards.result(), key=str) == sorted(ended, key=str)
    assert len(bench.begun) == 7 * 3
    assert set(bench.begun.values()) == {1}


@pytest.mark.slow
async def test_responses(stage: Stage, bench: Bench) -> None:
    stage.emulator.script(TWO_ROUNDS, model="gpt")
    made = [
        await stage.client.responses.create(
            model="gpt", input="Weather?", background=True, store=True, tools=bench.tools.definitions(wire="responses")
        )
        for _ in range(3)
    ]
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        ended = await read(await start(stage, temporal, made))
    assert [each.outcome for each in ended] == ["Completed"] * 3
    assert len(bench.begun) == 3 * 3
    assert set(bench.begun.values()) == {1}
    assert len(bench.told) == 3


async def test_cancelling_a_shard_cancels_its_runs_if_asked(stage: Stage, bench: Bench) -> None:
    stage.emulator.script(Scenario(end="never", cancelling=0.05), assistant_id="asst_1")
    runs = [await stage.new_run() for _ in range(3)]
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        shards = await start(stage, temporal, runs, on_exit="cancel")
        await asyncio.sleep(0.5)
        await shards.cancel()
        async with asyncio.timeout(60):
            with pytest.raises(WorkflowFailureError):
                await shards.result()
            ended = []
            with pytest.raises(WorkflowFailureError):
                async for each in shards.outcomes():
                    ended.append(each)
    assert [each.outcome for each in ended] == ["Cancelled"] * 3
    for run in runs:
        assert (await stage.client.threads.runs.retrieve(run.id, thread_id=run.thread_id)).status == "cancelled"
    assert len(bench.told) == 3


@pytest.mark.slow
async def test_no_worker_is_no_reason_to_stop_reading(stage: Stage, bench: Bench) -> None:
    stage.emulator.script(Scenario(queued=0.0, working=0.0), assistant_id="asst_1")
    runs = [await stage.new_run() for _ in range(2)]
    async with stage.worker() as temporal:
        pass
    shards = await start(stage, temporal, runs)
    reading = asyncio.create_task(read(shards))
    await asyncio.sleep(4.0)
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell):
        async with asyncio.timeout(60):
            assert len(await reading) == 2
