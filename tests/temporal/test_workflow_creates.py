"""`run_and_wait` in a workflow: what it creates exists once, whatever is lost and whichever worker ends."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import flows
import pytest
from dev_server import Stage
from temporalio.client import WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import CancelledError

from asyncruns import Completed, InvalidRequestError, Toolset
from asyncruns.temporal import creating, run_and_wait, running
from asyncruns.temporal.messages import CREATE
from asyncruns.testing import Fault, FunctionCall, Scenario

pytestmark = pytest.mark.real_time

CALL = FunctionCall("get_weather", {"city": "Paris"})
ONE = Scenario(queued=0.02, working=0.02, rounds=((CALL,),))
NONE = Scenario(queued=0.02, working=0.02)
TWICE = RetryPolicy(maximum_attempts=2, initial_interval=timedelta(milliseconds=10))
AT_ONCE = {"graceful_shutdown_timeout": timedelta(milliseconds=50)}


async def get_weather(city: str) -> str:
    return f"sunny in {city}"


TOOLS = Toolset([get_weather])
ASK: dict[str, Any] = {"assistant_id": "asst_1", "message": "Weather?"}
ASK_MODEL: dict[str, Any] = {"model": "gpt", "message": "Weather?"}


def sent(stage: Stage, operation: str) -> list[Any]:
    return [each for each in stage.emulator.requests if each.operation == operation]


def acted(stage: Stage, operation: str) -> int:
    return sum(each.acted for each in sent(stage, operation))


async def creates_of(handle: Any) -> int:
    """Return how often a workflow has had a run created."""
    events = (await handle.fetch_history()).events
    return sum(each.activity_task_scheduled_event_attributes.activity_type.name == CREATE for each in events)


async def refusal(stage: Stage, options: dict[str, Any]) -> str:
    with pytest.raises(WorkflowFailureError) as failed:
        await stage.run(flows.AskNew.run, options)
    return str(failed.value.cause)


async def test_both_wires(stage: Stage) -> None:
    stage.emulator.script(ONE, assistant_id="asst_1")
    stage.emulator.script(ONE, model="gpt")
    async with stage.worker(tools=TOOLS):
        found, other = await asyncio.gather(
            stage.run(flows.AskNew.run, {**ASK, "parameters": {"metadata": {"a": "b"}}, "label": 7}),
            stage.run(flows.AskNew.run, {**ASK_MODEL, "parameters": {"instructions": "Be kind."}}),
        )
    assert isinstance(found, Completed)
    assert isinstance(other, Completed)
    assert found.label == 7
    assert found.run.metadata["a"] == "b"
    assert found.run.metadata["asyncruns_key"]
    created = [json.loads(each.body) for each in (*sent(stage, "create_response"), *sent(stage, "submit")) if each.body]
    of_model = [each for each in created if each.get("model") == "gpt"]
    assert [each["instructions"] for each in of_model] == ["Be kind."] * 2
    assert [[tool["name"] for tool in each["tools"]] for each in of_model] == [["get_weather"]] * 2


async def test_an_output_type_is_sent_as_the_format(stage: Stage) -> None:
    stage.emulator.script(NONE, assistant_id="asst_1")
    stage.emulator.script(NONE, model="gpt")
    async with stage.worker():
        assert await stage.run(flows.ReadNew.run, ASK) == "Weather"
        assert await stage.run(flows.ReadNew.run, {**ASK_MODEL, "tools": None}) == "Weather"
    (run,), (response,) = sent(stage, "create_run"), sent(stage, "create_response")
    assert json.loads(run.body)["response_format"]["json_schema"]["name"] == "Weather"
    assert json.loads(response.body)["text"]["format"]["name"] == "Weather"


@pytest.mark.parametrize("operation", ["create_message", "create_run"])
async def test_a_create_whose_answers_are_lost_is_found(stage: Stage, operation: Any) -> None:
    stage.emulator.script(NONE, assistant_id="asst_1")
    stage.emulator.inject(Fault(on=operation, drop=True, acts=True, times=1))
    async with stage.worker(tools=TOOLS):
        assert isinstance(await stage.run(flows.AskNew.run, ASK), Completed)
    assert acted(stage, "create_message") == acted(stage, "create_run") == acted(stage, "create_thread") == 1


@pytest.mark.slow
async def test_a_create_whose_worker_ends_is_found_by_its_key(stage: Stage) -> None:
    stage.emulator.script(NONE, assistant_id="asst_1")
    stage.emulator.inject(Fault(on="create_run", delay_after=60.0))
    async with stage.worker(tools=TOOLS, worker=AT_ONCE):
        handle = await stage.start(flows.AskNew.run, ASK)
        while not acted(stage, "create_run"):
            await asyncio.sleep(0.01)
    async with stage.worker(tools=TOOLS):
        assert isinstance(await handle.result(), Completed)
    assert acted(stage, "create_message") == acted(stage, "create_run") == 1


@pytest.mark.slow
async def test_a_busy_thread_is_an_error_or_waited_for(stage: Stage) -> None:
    stage.emulator.script(Scenario(queued=0.02, working=2.0), assistant_id="asst_1")
    async with stage.worker(tools=TOOLS):
        run = await stage.new_run()
        on_it = {**ASK, "thread_id": run.thread_id}
        assert run.id in await refusal(stage, on_it)
        assert isinstance(await stage.run(flows.AskNew.run, {**on_it, "on_busy": "wait"}), Completed)


@pytest.mark.slow
async def test_a_response_that_may_exist_is_not_created_again_by_itself(stage: Stage) -> None:
    stage.emulator.script(NONE, model="gpt")
    stage.emulator.inject(Fault(on="create_response", drop=True, acts=True, times=1))
    async with stage.worker(tools=TOOLS):
        assert "its create was lost" in await refusal(stage, ASK_MODEL)
        assert acted(stage, "create_response") == 1
        stage.emulator.inject(Fault(on="create_response", drop=True, acts=True, times=1))
        found = await stage.run(flows.AskNew.run, {**ASK_MODEL, "on_lost_submit": "resend"})
    assert isinstance(found, Completed)
    assert acted(stage, "create_response") == 3


async def test_what_was_being_created_when_the_workflow_was_cancelled_is_cancelled(stage: Stage) -> None:
    stage.emulator.script(Scenario(end="never", cancelling=0.05), assistant_id="asst_1")
    stage.emulator.inject(Fault(on="create_run", delay_before=0.5))
    async with stage.worker(tools=TOOLS):
        handle = await stage.start(flows.AskNew.run, {**ASK, "on_exit": "cancel"})
        while not sent(stage, "create_run"):
            await asyncio.sleep(0.01)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert acted(stage, "create_run") == acted(stage, "cancel") == 1


async def test_a_create_that_fails_does_not_hide_that_the_workflow_was_cancelled(stage: Stage) -> None:
    stage.emulator.script(NONE, assistant_id="asst_1")
    stage.emulator.inject(Fault(on="create_run", delay_before=0.5, status=403))
    async with stage.worker(tools=TOOLS):
        handle = await stage.start(flows.AskNew.run, {**ASK, "on_exit": "cancel"})
        while not sent(stage, "create_run"):
            await asyncio.sleep(0.01)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
    assert isinstance(failed.value.cause, CancelledError)
    assert sent(stage, "cancel") == []


async def test_a_refused_create_ends_the_workflow_with_what_the_server_said(stage: Stage) -> None:
    async with stage.worker(tools=TOOLS):
        assert "No assistant found" in await refusal(stage, {**ASK, "assistant_id": "asst_none"})
        assert "assistant_id" in await refusal(stage, {"message": "Hello"})


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"parameters": {"extra_headers": {"X-Key": "secret"}}}, "extra_headers may be credentials"),
        ({"parameters": {"metadata": {"a": object()}}}, "must be plain JSON"),
        ({"parameters": {"output_type": int}}, "Pass output_type as output_type="),
        ({"parameters": {"extra_query": {"key": "secret"}}}, "extra_query may be credentials"),
        ({"parameters": {"tools": [{"type": "mcp", "server_url": "https://x"}]}}, "'server_url'. Create the run in"),
        ({"parameters": {"tools": ({"type": "mcp", "authorization": "secret"},)}}, "'authorization'. Create the"),
        ({"parameters": {"extra_body": {"api_key": "secret"}}}, "'api_key'. Create the run in an activity"),
        ({"timout": 3.0}, "did you mean 'timeout'"),
    ],
)
@pytest.mark.parametrize("ask", [ASK, ASK_MODEL], ids=["assistant", "model"])
async def test_bad_arguments_are_refused(ask: dict[str, Any], options: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidRequestError, match=part) as refused:
        await run_and_wait(**ask, **options)
    assert "secret" not in str(refused.value).replace("may be secret", "")


@pytest.mark.slow
async def test_a_killed_worker_costs_a_thread_a_heartbeat(stage: Stage, tmp_path: Path) -> None:
    stage.emulator.script(NONE, assistant_id="asst_1")
    stage.emulator.inject(Fault(on="create_thread", delay_after=60.0))
    await stage.connect()
    handle = await stage.start(flows.AskNew.run, {**ASK, "heartbeat_timeout": 1.0})
    program = [sys.executable, str(Path(__file__).with_name("worker_process.py")), stage.address, stage.task_queue]
    process = await asyncio.create_subprocess_exec(*program, stage.emulator.base_url, str(tmp_path / "called"))
    try:
        while not sent(stage, "create_thread"):
            await asyncio.sleep(0.02)
    finally:
        process.kill()
        await process.wait()
    async with stage.worker(tools=TOOLS):
        assert isinstance(await handle.result(), Completed)


async def test_a_thread_that_cannot_be_created_is_told_as_that(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creating, "CREATE_RETRIES", RetryPolicy(maximum_attempts=1))
    stage.emulator.inject(Fault(on="create_thread", status=500, times=None))
    async with stage.worker(tools=TOOLS):
        assert "The thread could not be created" in await refusal(stage, ASK)
    assert sent(stage, "create_run") == []


@pytest.mark.slow
@pytest.mark.parametrize("ask", [ASK, ASK_MODEL], ids=["assistant", "model"])
async def test_a_create_waits_for_a_worker_that_has_the_toolset(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, ask: dict[str, Any]
) -> None:
    monkeypatch.setattr(creating, "CREATE_RETRIES", TWICE)
    monkeypatch.setattr(running, "NOT_BEGUN_S", 0.1)
    stage.emulator.script(NONE, assistant_id="asst_1")
    stage.emulator.script(NONE, model="gpt")
    async with stage.worker(tools=TOOLS):
        handle = await stage.start(flows.AskNew.run, {**ask, "tools": "other"})
        async with asyncio.timeout(60):
            while await creates_of(handle) < 2:
                await asyncio.sleep(0.05)
    async with stage.worker(toolsets=[Toolset([get_weather], name="other")]):
        assert isinstance(await handle.result(), Completed)


@pytest.mark.slow
async def test_a_create_that_its_caller_has_left_does_not_begin_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "NOT_BEGUN_S", 0.1)
    stage.emulator.script(NONE, model="gpt")
    async with stage.worker(tools=TOOLS):
        handle = await stage.start(flows.ImpatientNew.run, 0.3, 4.0, {**ASK_MODEL, "tools": "other"})
        await asyncio.sleep(1.5)
    async with stage.worker(toolsets=[Toolset([get_weather], name="other")]):
        assert await handle.result() == "TimeoutError"
    assert sent(stage, "create_response") == []
