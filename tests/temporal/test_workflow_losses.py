"""What a watch in a workflow makes of lost submits and lost workers, and what histories hold."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import flows
import pytest
from dev_server import KEY, Stage
from google.protobuf.json_format import MessageToJson
from recorded import opened
from temporalio.client import WorkflowFailureError

from asyncruns import Completed, GaveUp, NeedsCaller, Reason, RunRef, Toolset
from asyncruns.temporal.messages import CANCEL
from asyncruns.testing import Fault, FunctionCall, Scenario
from asyncruns.watch.handover import token_in, token_text, with_outputs

pytestmark = pytest.mark.real_time

CALL = FunctionCall("get_weather", {"city": "Paris"})
ONE = Scenario(queued=0.02, working=0.02, rounds=((CALL,),))
TWO = Scenario(queued=0.02, working=0.02, rounds=((CALL,), (CALL,)))
AT_ONCE = {"graceful_shutdown_timeout": timedelta(milliseconds=50)}
HERE = Path(__file__).parent


class Counted:
    """A tool that notes its calls."""

    def __init__(self, output: str = "sunny") -> None:
        self.called: list[str] = []
        self._output = output
        self.tools = Toolset([self.get_weather])

    async def get_weather(self, city: str) -> str:
        self.called.append(city)
        return self._output


def sent(stage: Stage, operation: str) -> list[Any]:
    return [each for each in stage.emulator.requests if each.operation == operation]


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


# Submits


async def test_a_submit_whose_answer_is_lost_is_found_by_a_poll(stage: Stage) -> None:
    counted = Counted()
    stage.emulator.script(TWO, assistant_id="asst_1")
    stage.emulator.inject(Fault(on="submit", drop=True, acts=True, times=1))
    async with stage.worker(tools=counted.tools):
        run = await stage.new_run()
        assert isinstance(await stage.run(flows.Ask.run, RunRef.of(run), {}), Completed)
    assert len(stage.emulator.submitted(run.id)) == len(counted.called) == 2


@pytest.mark.slow
async def test_a_lost_follow_up_is_told_or_sent_again(stage: Stage) -> None:
    counted = Counted()
    stage.emulator.script(ONE, model="gpt")
    lost = Fault(on="submit", drop=True, acts=True, times=1)
    async with stage.worker(tools=counted.tools):
        stage.emulator.inject(lost)
        found = await stage.run(flows.Ask.run, RunRef.of(await stage.new_response()), {})
        assert isinstance(found, GaveUp)
        assert found.reason is Reason.SUBMIT_LOST
        assert len(sent(stage, "submit")) == len(counted.called) == 1
        stage.emulator.inject(lost)
        ref = RunRef.of(await stage.new_response())
        again = await stage.run(flows.Ask.run, ref, {"on_lost_submit": "resend"})
        assert isinstance(again, Completed)
        assert again.refs[0] == ref
        assert len(sent(stage, "submit")) == 3
        assert len(counted.called) == 2


async def test_a_follow_up_whose_worker_ends_may_have_arrived(stage: Stage) -> None:
    counted = Counted()
    stage.emulator.script(ONE, model="gpt")
    stage.emulator.inject(Fault(on="submit", delay_after=0.6, times=1))
    async with stage.worker(tools=counted.tools, worker=AT_ONCE):
        handle = await stage.start(flows.Ask.run, RunRef.of(await stage.new_response()), {})
        await until(lambda: bool(sent(stage, "submit")))
    async with stage.worker(tools=counted.tools):
        found = await handle.result()
    assert isinstance(found, GaveUp)
    assert found.reason is Reason.SUBMIT_LOST
    assert len(sent(stage, "submit")) == len(counted.called) == 1


@pytest.mark.slow
async def test_outputs_of_a_token_are_not_submitted_twice(stage: Stage) -> None:
    stage.emulator.script(ONE, model="gpt")
    asking = await stage.client.watch(await stage.new_response())
    assert isinstance(asking, NeedsCaller)
    answered = with_outputs(token_in(asking.token), [(call, "sunny", False) for call in asking.calls])
    stage.emulator.inject(Fault(on="submit", delay_after=0.6, times=1))
    async with stage.worker(worker=AT_ONCE):
        handle = await stage.start(flows.GoOn.run, token_text(answered), {})
        await until(lambda: bool(sent(stage, "submit")))
    async with stage.worker():
        found = await handle.result()
        assert isinstance(found, GaveUp)
        assert found.reason is Reason.SUBMIT_LOST
        assert len(sent(stage, "submit")) == 1
        again = await stage.run(flows.GoOn.run, found.token, {"on_lost_submit": "resend"})
        assert isinstance(again, Completed)
        assert len(sent(stage, "submit")) == 2


@pytest.mark.slow
async def test_the_outputs_of_a_token_are_submitted(stage: Stage) -> None:
    counted = Counted()
    stage.emulator.script(TWO, model="gpt")
    asking = await stage.client.watch(await stage.new_response())
    answered = with_outputs(token_in(asking.token), [(call, "sunny", False) for call in asking.calls])
    async with stage.worker(tools=counted.tools):
        found = await stage.run(flows.GoOn.run, token_text(answered), {})
    assert isinstance(found, Completed)
    assert len(counted.called) == 1
    assert len(sent(stage, "submit")) == 2


@pytest.mark.slow
async def test_the_response_that_follows_is_cancelled_if_the_watch_is_left_meanwhile(stage: Stage) -> None:
    stage.emulator.script(Scenario(rounds=((CALL,),), end="never", cancelling=0.05), model="gpt")
    stage.emulator.inject(Fault(on="submit", delay_after=1.0))
    async with stage.worker(tools=Counted().tools):
        first = await stage.new_response()
        handle = await stage.start(flows.Ask.run, RunRef.of(first), {"on_exit": "cancel"})
        await until(lambda: bool(sent(stage, "submit")))
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        events = (await handle.fetch_history()).events
    scheduled = [each.activity_task_scheduled_event_attributes for each in events]
    (cancel,) = (each for each in scheduled if each.activity_type.name == CANCEL)
    assert first.id not in str(cancel.input)
    (request,) = sent(stage, "cancel")
    assert f'"{request.run_id}"'.encode() in cancel.input.payloads[0].data


# Workers


@pytest.mark.slow
async def test_another_worker_goes_on_at_once_when_one_is_stopped(stage: Stage) -> None:
    stage.emulator.script(Scenario(queued=0.02, working=1.5), assistant_id="asst_1")
    async with stage.worker():
        run = await stage.new_run()
        handle = await stage.start(flows.Ask.run, RunRef.of(run), {"on_exit": "cancel"})
        await until(lambda: bool(sent(stage, "poll")))
        left_at = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - left_at < 2.0  # and not the grace of 10 s
    async with stage.worker():
        found = await handle.result()
    assert isinstance(found, Completed)
    assert found.polls > 0
    assert sent(stage, "cancel") == []


@pytest.mark.slow
async def test_a_killed_worker_costs_a_heartbeat_and_no_call_runs_twice(stage: Stage, tmp_path: Path) -> None:
    called = tmp_path / "called"
    stage.emulator.script(Scenario(queued=0.02, working=0.02, rounds=((CALL, CALL),)), assistant_id="asst_1")
    run = await stage.new_run()
    await stage.connect()
    handle = await stage.start(flows.Ask.run, RunRef.of(run), {"heartbeat_timeout": 1.0})
    program = [sys.executable, str(HERE / "worker_process.py"), stage.address, stage.task_queue]
    process = await asyncio.create_subprocess_exec(*program, stage.emulator.base_url, str(called))
    try:
        await until(lambda: called.exists() and called.read_text().count("\n") == 2)
    finally:
        process.kill()
        await process.wait()
    counted = Counted()
    async with stage.worker(tools=counted.tools):
        assert isinstance(await handle.result(), Completed)
    assert counted.called == []
    assert len(set(called.read_text().split())) == 2
    assert all("not known" in output for output in stage.emulator.submitted(run.id)[0].values())


# Histories


@pytest.mark.slow
async def test_no_history_has_a_credential(stage: Stage) -> None:
    counted = Counted()
    stage.emulator.script(TWO, assistant_id="asst_1")
    stage.emulator.script(TWO, model="gpt")
    stage.emulator.inject(Fault(on="poll", status=500, times=1), Fault(on="submit", drop=True))
    async with stage.worker(tools=counted.tools) as temporal:
        await asyncio.gather(
            stage.run(flows.AskNew.run, {"assistant_id": "asst_1", "message": "Hi"}),
            stage.run(flows.AskNew.run, {"model": "gpt", "message": "Hi", "on_lost_submit": "resend"}),
        )
        stage.emulator.inject(Fault(on="messages", status=401))
        with pytest.raises(WorkflowFailureError, match="Workflow execution failed"):
            await stage.run(flows.Read.run, RunRef.of(await stage.new_run()))
        stage.emulator.inject(Fault(on="poll", status=401, times=None))
        await stage.run(flows.Ask.run, RunRef.of(await stage.new_run()), {})
        for handle in stage.handles:
            history = await temporal.get_workflow_handle(handle.id).fetch_history()
            text = "".join(MessageToJson(event) for event in history.events) + opened(history)
            assert '"ids":' in text
            assert KEY not in text
            assert not re.search("authorization|bearer", text, re.IGNORECASE)
