"""Cold watches in a workflow: they hold no activity between polls, and know of the attempts before."""

from __future__ import annotations

import asyncio
from typing import Any

import flows
import pytest
from dev_server import Stage

from asyncruns import Completed, GaveUp, Reason, RunRef
from asyncruns.dialects.responses import ResponsesDialect
from asyncruns.temporal import cold
from asyncruns.testing import BatchScenario, Fault, Scenario

pytestmark = pytest.mark.real_time


@pytest.mark.slow
async def test_a_cold_watch_holds_no_activity_between_polls(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "COLD_PAUSE_S", 0.01)
    stage.emulator.script(Scenario(queued=0.02, working=2.0), assistant_id="asst_1")
    stage.emulator.script_batches(BatchScenario(validating=0.1, working=2.0, finalizing=0.1))
    requests = [{"model": "gpt", "input": "Hi"}]
    async with stage.worker():
        batch = await stage.client.batches.create(requests=requests, endpoint="/v1/responses")
        run = await stage.new_run()
        waits = [await stage.start(flows.Ask.run, RunRef.of(batch), {})]
        waits.append(await stage.start(flows.Ask.run, RunRef.of(run), {"cold": True}))
        for handle in waits:
            found = await handle.result()
            assert isinstance(found, Completed)
            history = await handle.fetch_history()
            started = [each for each in history.events if each.HasField("activity_task_started_event_attributes")]
            assert len(history.events) == 11
            assert [each.activity_task_started_event_attributes.attempt > 1 for each in started] == [True]


@pytest.mark.slow
async def test_a_cold_watch_gives_up_in_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "COLD_PAUSE_S", 0.01)
    monkeypatch.setattr(cold, "COLD_SHARE", 1000.0)
    stage.emulator.script(Scenario(end="never"), assistant_id="asst_1")
    async with stage.worker():
        run = await stage.new_run()
        found = await stage.run(flows.Ask.run, RunRef.of(run), {"cold": True, "timeout": 2.0})
    assert isinstance(found, GaveUp)
    assert found.reason is Reason.TIMEOUT
    assert 2.0 <= found.elapsed < 30.0
    assert found.polls == polls(stage) > 1


def polls(stage: Stage) -> int:
    return sum(each.operation == "poll" for each in stage.emulator.requests)


@pytest.mark.slow
async def test_a_cold_watch_of_a_run_without_expiry_gives_up_in_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold, "COLD_PAUSE_S", 0.01)
    monkeypatch.setattr(cold, "COLD_SHARE", 0.0)
    monkeypatch.setattr(ResponsesDialect, "without_expiry", 4.0)
    stage.emulator.script(Scenario(end="never"), model="gpt")
    async with stage.worker():
        found = await stage.run(flows.Ask.run, RunRef.of(await stage.new_response()), {"cold": True})
    assert isinstance(found, GaveUp)
    assert found.reason is Reason.TIMEOUT
    assert 3.5 <= found.elapsed < 60.0
    assert found.polls == polls(stage) > 1


def with_new_status(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "status": "pondering"}


@pytest.mark.slow
async def test_a_cold_watch_gives_up_when_an_unknown_status_stays(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold, "COLD_PAUSE_S", 0.01)
    stage.emulator.script(Scenario(end="never"), assistant_id="asst_1")
    async with stage.worker():
        run = await stage.new_run()
        stage.emulator.inject(Fault(on="poll", rewrite=with_new_status, times=None))
        found = await stage.run(flows.Ask.run, RunRef.of(run), {"cold": True, "max_unknown_status": 2.0})
    assert isinstance(found, GaveUp)
    assert found.reason is Reason.UNKNOWN_STATUS


@pytest.mark.slow
async def test_an_outage_counts_over_all_attempts(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "COLD_PAUSE_S", 0.01)
    stage.emulator.script(Scenario(end="never"), assistant_id="asst_1")
    async with stage.worker():
        run = await stage.new_run()
        stage.emulator.inject(Fault(on="poll", status=500, times=None))
        options = {"cold": True, "max_outage": 4.0}
        handle = await stage.start(flows.Ask.run, RunRef.of(run), options)
        found = await handle.result()
        history = await handle.fetch_history()
    assert isinstance(found, GaveUp)
    assert found.reason is Reason.UNREACHABLE
    assert 4.0 <= found.elapsed < 60.0
    assert any(each.activity_task_started_event_attributes.attempt > 2 for each in history.events)


@pytest.mark.slow
async def test_an_outage_that_is_over_counts_no_more(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "COLD_PAUSE_S", 0.01)
    monkeypatch.setattr(cold, "COLD_SHARE", 0.0)
    stage.emulator.script(Scenario(queued=0.0, working=5.0), assistant_id="asst_1")
    async with stage.worker():
        run = await stage.new_run()
        stage.emulator.inject(Fault(on="poll", status=500, times=2))
        handle = await stage.start(flows.Ask.run, RunRef.of(run), {"cold": True, "max_outage": 2.5})
        while sum(each.operation == "poll" and each.acted for each in stage.emulator.requests) < 2:
            await asyncio.sleep(0.02)
        stage.emulator.inject(Fault(on="poll", status=500, times=1))
        assert isinstance(await handle.result(), Completed)


@pytest.mark.slow
async def test_a_slow_poll_is_waited_for(stage: Stage) -> None:
    stage.emulator.script(Scenario(queued=0.0, working=0.0), assistant_id="asst_1")
    stage.emulator.inject(Fault(on="poll", delay_before=1.5, times=1))
    async with stage.worker():
        run = await stage.new_run()
        found = await stage.run(flows.Ask.run, RunRef.of(run), {"cold": True, "timeout": 100.0})
    assert isinstance(found, Completed)
