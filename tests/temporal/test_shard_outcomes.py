"""What `Shards.outcomes` does when the shards do not answer, or have ended without their runs."""

from __future__ import annotations

import asyncio

import pytest
from dev_server import DevServer, Stage
from temporalio.client import WorkflowFailureError

from asyncruns import Client
from asyncruns.temporal import start_shards
from asyncruns.testing import Emulator, Scenario

pytestmark = pytest.mark.real_time


async def test_outcomes_of_shards_that_were_cancelled_raise(stage: Stage) -> None:
    stage.emulator.script(Scenario(working=60.0), assistant_id="asst_1")
    run = await stage.new_run()
    async with stage.worker() as temporal:
        shards = await start_shards(temporal, [run], id=stage.task_queue, task_queue=stage.task_queue)
        await shards.cancel()
        with pytest.raises(WorkflowFailureError):
            await asyncio.wait_for(anext(shards.outcomes()), 10.0)


async def test_outcomes_wait_while_no_worker_lives(emulator: Emulator) -> None:
    server = DevServer(settings=('matching.queryPollerUnavailableWindow="1s"',))
    try:
        async with Client(emulator.base_url, api_key="any-key") as client:
            stage = Stage(server.address, emulator, client, [])
            stage.emulator.script(Scenario(queued=0.0, working=1.0), assistant_id="asst_1")
            run = await stage.new_run()
            async with stage.worker() as temporal:
                shards = await start_shards(temporal, [run], id=stage.task_queue, task_queue=stage.task_queue)
                await shards.handles[0].query("asyncruns.state")
            outcomes = shards.outcomes()
            first = asyncio.ensure_future(anext(outcomes))
            await asyncio.wait({first}, timeout=4.0)
            assert not first.done()
            async with stage.worker():
                assert (await first).outcome == "Completed"
                assert [ended async for ended in outcomes] == []
    finally:
        server.kill()
