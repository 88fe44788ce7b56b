"""What `Shards.outcomes` does when the shards do not answer, or have ended without their runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dev_server import DevServer, Stage
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from asyncruns import Client
from asyncruns.temporal import shards as shards_module
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
            await asyncio.wait_for(anext(shards.outcomes()), 30.0)


async def test_outcomes_are_read_again_when_the_server_was_away(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = 0
    result = WorkflowHandle.result

    async def losing(handle: WorkflowHandle[Any, Any], **options: Any) -> Any:
        nonlocal lost
        if lost < 2:
            lost += 1
            raise RPCError("no connection", RPCStatusCode.UNAVAILABLE, b"")
        return await result(handle, **options)

    monkeypatch.setattr(shards_module, "READ_EVERY_S", 0.1)
    monkeypatch.setattr(WorkflowHandle, "result", losing)
    stage.emulator.script(Scenario(queued=0.0, working=0.1), assistant_id="asst_1")
    run = await stage.new_run()
    async with stage.worker() as temporal:
        shards = await start_shards(temporal, [run], id=stage.task_queue, task_queue=stage.task_queue)
        async with asyncio.timeout(60):
            assert [ended.outcome async for ended in shards.outcomes()] == ["Completed"]
    assert lost == 2


@pytest.mark.slow
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
