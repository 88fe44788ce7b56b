"""What a watch in a workflow makes of lost submits, lost workers, long waits, large outputs, and what histories hold."""

from __future__ import annotations

import asyncio
import re
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import flows
import pytest
from dev_server import KEY, Stage
from google.protobuf.json_format import MessageToJson
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowFailureError
from temporalio.converter import DataConverter, PayloadCodec

from asyncruns import Completed, GaveUp, Reason, RunRef, Toolset
from asyncruns.temporal import activities
from asyncruns.testing import BatchScenario, Fault, FunctionCall, Scenario

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


# Workers


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


# Long waits


async def test_a_cold_watch_holds_no_activity_between_polls(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities, "COLD_PAUSE_S", 0.01)
    stage.emulator.script(Scenario(queued=0.02, working=1.2), assistant_id="asst_1")
    stage.emulator.script_batches(BatchScenario(validating=0.1, working=0.5, finalizing=0.1))
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


async def test_a_cold_watch_gives_up_in_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities, "COLD_PAUSE_S", 0.01)
    monkeypatch.setattr(activities, "COLD_SHARE", 1000.0)
    stage.emulator.script(Scenario(end="never"), assistant_id="asst_1")
    async with stage.worker():
        run = await stage.new_run()
        found = await stage.run(flows.Ask.run, RunRef.of(run), {"cold": True, "timeout": 2.0})
    assert isinstance(found, GaveUp)
    assert found.reason is Reason.TIMEOUT
    assert 2.0 <= found.elapsed < 4.0


# Sizes


class Packed(PayloadCodec):
    """A codec that compresses."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        packed = [zlib.compress(each.SerializeToString()) for each in payloads]
        return [Payload(metadata={"encoding": b"packed"}, data=each) for each in packed]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(zlib.decompress(each.data)) if each.metadata["encoding"] == b"packed" else each
            for each in payloads
        ]


async def test_an_output_that_no_payload_can_hold_is_an_error_for_the_model(stage: Stage) -> None:
    large = Counted("x" * 600_000)
    tools = Toolset([large.get_weather], max_output=1_000_000)
    four = Scenario(queued=0.02, working=0.02, rounds=((CALL,) * 4,))
    stage.emulator.script(four, assistant_id="asst_1")
    async with stage.worker(tools=tools):
        run = await stage.new_run()
        assert isinstance(await stage.run(flows.Ask.run, RunRef.of(run), {}), Completed)
    assert all("Ask for less" in output for output in stage.emulator.submitted(run.id)[0].values())
    stage.emulator.script(ONE, assistant_id="asst_1")
    async with stage.worker(tools=tools):
        run = await stage.new_run()
        assert isinstance(await stage.run(flows.Ask.run, RunRef.of(run), {}), Completed)
    assert [len(output) for output in stage.emulator.submitted(run.id)[0].values()] == [600_000]


async def test_a_run_that_no_payload_can_hold_is_refused_unless_there_is_a_codec(stage: Stage) -> None:
    stage.emulator.script(Scenario(queued=0.02, working=0.02, answer="x" * 2_100_000), model="gpt")
    async with stage.worker():
        ref = RunRef.of(await stage.new_response())
        with pytest.raises(WorkflowFailureError) as failed:
            await stage.run(flows.Ask.run, ref, {})
        assert "give the client of Temporal a payload codec" in str(failed.value.cause)
    async with stage.worker(converter=DataConverter(payload_codec=Packed())):
        found = await stage.run(flows.Ask.run, ref, {})
        assert isinstance(found, Completed)
        assert len(await found.text()) == 2_100_000


# Histories


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
            text = "".join(MessageToJson(event) for event in history.events) + opened(history.events)
            assert '"ids":' in text
            assert KEY not in text
            assert not re.search("authorization|bearer", text, re.IGNORECASE)


def opened(events: Sequence[Any]) -> str:
    """Return the data of all payloads, which are in base64 otherwise."""
    return "\n".join(data.decode("utf-8", "replace") for event in events for data in _payloads(event))


def _payloads(message: Any) -> list[bytes]:
    if isinstance(message, Payload):
        return [message.data]
    found: list[bytes] = []
    for _, value in message.ListFields() if hasattr(message, "ListFields") else ():
        many = value.values() if isinstance(value, Mapping) else value if _is_many(value) else [value]
        found += [data for each in many for data in _payloads(each)]
    return found


def _is_many(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, str | bytes)
