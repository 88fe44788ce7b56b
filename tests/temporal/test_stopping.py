"""A worker that is stopped leaves what it watches to another one at once, and waits for tools only."""

from __future__ import annotations

import asyncio
import time

import flows
import pytest
from dev_server import Stage

from asyncruns import Completed, RunRef
from asyncruns.temporal import start_shards
from asyncruns.testing import Scenario

pytestmark = pytest.mark.real_time

SLOW = Scenario(queued=0.0, working=2.0)
SOON_S = 9.0  # a watch would hold up the worker for the 10 s that tools have


@pytest.mark.slow
async def test_a_stopped_worker_leaves_the_watch_of_a_workflow_to_another_one(stage: Stage) -> None:
    stage.emulator.script(SLOW, assistant_id="asst_1")
    ref = RunRef.of(await stage.new_run())
    async with stage.worker():
        handle = await stage.start(flows.Ask.run, ref, {})
        await polled(stage)
        began = time.monotonic()
    assert time.monotonic() - began < SOON_S
    async with stage.worker():
        assert isinstance(await handle.result(), Completed)
    assert time.monotonic() - began < SOON_S


@pytest.mark.slow
async def test_a_stopped_worker_leaves_its_shards_to_another_one(stage: Stage) -> None:
    stage.emulator.script(SLOW, assistant_id="asst_1")
    run = await stage.new_run()
    async with stage.worker() as temporal:
        shards = await start_shards(temporal, [run], id=stage.task_queue, task_queue=stage.task_queue)
        await polled(stage)
        began = time.monotonic()
    assert time.monotonic() - began < SOON_S
    async with stage.worker():
        assert [ended.outcome for ended in await shards.result()] == ["Completed"]
    assert time.monotonic() - began < SOON_S


async def polled(stage: Stage) -> None:
    while not any(request.operation == "poll" for request in stage.emulator.requests):
        await asyncio.sleep(0.02)
