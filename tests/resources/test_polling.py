"""The helpers that wait for a run and return it, named as in the official client and in azure-ai-agents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncruns import (
    AuthenticationError,
    BadRequestError,
    Client,
    InvalidRequestError,
    NotFoundError,
    RateLimitError,
    Reason,
    RunGoneError,
    RunNeedsCallerError,
    ThreadBusyError,
    Toolset,
    WatchGaveUpError,
)
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario
from asyncruns.wire import RequiredActionFunctionToolCall, Run
from asyncruns.wire.status_names import REQUIRES_ACTION

ADD = FunctionCall("add", {"a": 1, "b": 2})
ADD_MORE = FunctionCall("add", {"a": 3, "b": 4})


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    emulator.script(Scenario(), assistant_id="asst_1")
    async with Client(emulator.base_url) as client:
        yield client


@pytest.fixture
async def thread_id(client: Client) -> str:
    return (await client.threads.create()).id


def add(a: int, b: int) -> int:
    return a + b


def outputs_of(run: Run) -> list[dict[str, str]]:
    """Return the outputs of the open calls, as hand-written loops compute them."""
    assert run.required_action
    assert run.required_action.submit_tool_outputs
    calls = run.required_action.submit_tool_outputs.tool_calls or []
    assert calls
    found = []
    for call in calls:
        assert isinstance(call, RequiredActionFunctionToolCall)
        found.append({"tool_call_id": call.id, "output": str(add(**json.loads(call.function.arguments)))})
    return found


def polls(emulator: Emulator) -> int:
    return sum(request.operation == "poll" for request in emulator.requests)


@pytest.mark.parametrize("end", ["completed", "failed", "incomplete", "never"])
async def test_a_run_is_returned_however_it_ended(emulator: Emulator, client: Client, thread_id: str, end: str) -> None:
    emulator.script(Scenario(end=end), assistant_id="asst_1")
    run = await client.beta.threads.runs.create_and_poll(thread_id=thread_id, assistant_id="asst_1")
    assert run.status == ("expired" if end == "never" else end)
    assert (await client.threads.runs.poll(run.id, thread_id)).status == run.status
    assert (await client.threads.runs.poll(run_id=run.id, thread_id=thread_id)).id == run.id


async def test_a_cancelled_run_is_returned(emulator: Emulator, client: Client, thread_id: str) -> None:
    emulator.script(Scenario(end="never"), assistant_id="asst_1")
    run = await client.threads.runs.create(thread_id, assistant_id="asst_1")
    await client.threads.runs.cancel(run.id, thread_id=thread_id)
    assert (await client.threads.runs.poll(run.id, thread_id=thread_id)).status == "cancelled"


async def test_the_loop_of_the_official_clients_documentation(
    emulator: Emulator, client: Client, thread_id: str
) -> None:
    emulator.script(Scenario(rounds=((ADD, ADD_MORE), (ADD,))), assistant_id="asst_1")
    runs = client.beta.threads.runs
    run = await runs.create_and_poll(thread_id=thread_id, assistant_id="asst_1", instructions="Add.")
    rounds = 0
    while run.status == REQUIRES_ACTION:
        rounds += 1
        run = await runs.submit_tool_outputs_and_poll(
            thread_id=thread_id, run_id=run.id, tool_outputs=iter(outputs_of(run))
        )
    assert (rounds, run.status, run.instructions) == (2, "completed", "Add.")
    assert [sorted(outputs.values()) for outputs in emulator.submitted(run.id)] == [["3", "7"], ["3"]]


async def test_a_thread_and_a_run_are_created_in_one_request_and_polled(emulator: Emulator, client: Client) -> None:
    run = await client.threads.create_and_run_poll(
        assistant_id="asst_1", thread={"messages": [{"role": "user", "content": "Hi"}]}, metadata={"a": "b"}
    )
    assert (run.status, run.metadata) == ("completed", {"a": "b"})
    messages = await client.threads.messages.list(run.thread_id, run_id=run.id)
    assert messages.data[0].text == "You said: Hi"


async def test_the_pause_between_polls_is_the_requested_one(emulator: Emulator, client: Client, thread_id: str) -> None:
    emulator.script(Scenario(queued=0.0, working=10.0), assistant_id="asst_1")
    for milliseconds, expected in ((2_000, 5), (500, 20)):
        before = polls(emulator)
        await client.threads.runs.create_and_poll(
            thread_id=thread_id, assistant_id="asst_1", poll_interval_ms=milliseconds
        )
        assert polls(emulator) - before == pytest.approx(expected, abs=2)
    before = polls(emulator)
    await client.threads.runs.create_and_process(thread_id, agent_id="asst_1", polling_interval=2)
    assert polls(emulator) - before == pytest.approx(5, abs=2)


async def test_without_a_requested_pause_the_servers_hints_are_used() -> None:
    async with Emulator(poll_after_ms=5_000) as emulator, Client(emulator.base_url) as client:
        emulator.script(Scenario(queued=0.0, working=20.0), assistant_id="asst_1")
        run = await client.threads.create_and_run_poll(assistant_id="asst_1")
        assert run.status == "completed"
        assert polls(emulator) <= 6


@pytest.mark.parametrize("pause", [0, -1, "5", True, float("nan")])
async def test_an_invalid_pause_is_refused_before_anything_is_sent(
    emulator: Emulator, client: Client, pause: Any
) -> None:
    runs = client.threads.runs
    for waiting in (
        runs.poll("run_1", "thread_1", poll_interval_ms=pause),
        runs.create_and_poll(thread_id="thread_1", assistant_id="asst_1", poll_interval_ms=pause),
        runs.submit_tool_outputs_and_poll(
            tool_outputs=[], run_id="run_1", thread_id="thread_1", poll_interval_ms=pause
        ),
        runs.create_and_process("thread_1", agent_id="asst_1", polling_interval=pause),
        client.threads.create_and_run_poll(assistant_id="asst_1", poll_interval_ms=pause),
    ):
        with pytest.raises(InvalidRequestError, match="must be more than 0"):
            await waiting
    assert emulator.requests == []


# Errors


async def test_failed_polls_and_unknown_statuses_are_tolerated(
    emulator: Emulator, client: Client, thread_id: str
) -> None:
    def rename(body: dict[str, Any]) -> None:
        body["status"] = "pondering"

    emulator.inject(
        Fault(on="poll", status=500, times=10),
        Fault(on="poll", damage="html", times=3),
        Fault(on="poll", rewrite=rename, times=3),
    )
    run = await client.threads.runs.create_and_poll(thread_id=thread_id, assistant_id="asst_1")
    assert run.status == "completed"


async def test_a_refused_poll_raises_the_error_of_the_official_client(
    emulator: Emulator, client: Client, thread_id: str
) -> None:
    with pytest.raises(NotFoundError, match="run_x"):
        await client.threads.runs.poll("run_x", thread_id=thread_id)
    emulator.script(Scenario(end="never"), assistant_id="asst_1")
    run = await client.threads.runs.create(thread_id, assistant_id="asst_1")
    emulator.inject(Fault(on="poll", status=401), Fault(on="poll", status=429, code="insufficient_quota"))
    for expected in (AuthenticationError, RateLimitError):
        with pytest.raises(expected):
            await client.threads.runs.poll(run.id, thread_id=thread_id)


async def test_a_run_that_vanishes_during_the_wait_has_an_error_of_its_own(
    emulator: Emulator, client: Client, thread_id: str
) -> None:
    emulator.inject(Fault(on="poll", status=404, skip=1, times=None))
    with pytest.raises(RunGoneError):
        await client.threads.runs.create_and_poll(thread_id=thread_id, assistant_id="asst_1")


async def test_a_wait_that_is_given_up_says_why(emulator: Emulator, client: Client, thread_id: str) -> None:
    emulator.inject(Fault(on="poll", status=500, times=None))
    with pytest.raises(WatchGaveUpError) as caught:
        await client.threads.runs.create_and_poll(thread_id=thread_id, assistant_id="asst_1")
    assert caught.value.outcome.reason is Reason.UNREACHABLE


async def test_a_run_can_not_be_created_while_another_is_active(
    emulator: Emulator, client: Client, thread_id: str
) -> None:
    emulator.script(Scenario(end="never"), assistant_id="asst_1")
    first = await client.threads.runs.create(thread_id, assistant_id="asst_1")
    with pytest.raises(ThreadBusyError) as caught:
        await client.threads.runs.create_and_poll(thread_id=thread_id, assistant_id="asst_1")
    assert caught.value.active_run_id == first.id


@pytest.mark.parametrize(
    "fault",
    [
        Fault(on="submit", status=500),
        Fault(on="submit", status=500, acts=True),
        Fault(on="submit", drop=True),
        Fault(on="submit", drop=True, acts=True),
        Fault(on="submit", damage="html", acts=True),
    ],
    ids=["500", "500, accepted", "dropped", "dropped, accepted", "html, accepted"],
)
async def test_outputs_are_accepted_once_even_if_the_answer_to_their_submit_is_lost(
    emulator: Emulator, client: Client, thread_id: str, fault: Fault
) -> None:
    emulator.script(Scenario(rounds=((ADD,), (ADD_MORE,))), assistant_id="asst_1")
    emulator.inject(fault)
    run = await client.threads.runs.create_and_poll(thread_id=thread_id, assistant_id="asst_1")
    for _ in range(2):
        assert run.status == REQUIRES_ACTION
        run = await client.threads.runs.submit_tool_outputs_and_poll(
            thread_id=thread_id, run_id=run.id, tool_outputs=outputs_of(run)
        )
    assert run.status == "completed"
    assert [list(outputs.values()) for outputs in emulator.submitted(run.id)] == [["3"], ["7"]]


async def test_outputs_that_the_run_does_not_wait_for_are_refused_by_the_server(
    emulator: Emulator, client: Client, thread_id: str
) -> None:
    emulator.script(Scenario(rounds=((ADD,),)), assistant_id="asst_1")
    run = await client.threads.runs.create_and_poll(thread_id=thread_id, assistant_id="asst_1")
    wrong = [{"tool_call_id": "call_x", "output": "3"}]
    with pytest.raises(BadRequestError):
        await client.threads.runs.submit_tool_outputs_and_poll(thread_id=thread_id, run_id=run.id, tool_outputs=wrong)
    emulator.inject(Fault(on="submit", drop=True))
    lost = await client.threads.runs.submit_tool_outputs_and_poll(
        thread_id=thread_id, run_id=run.id, tool_outputs=wrong
    )
    assert lost.status == REQUIRES_ACTION
    assert emulator.submitted(run.id) == []


async def test_a_wait_that_is_cancelled_leaves_the_run(emulator: Emulator, client: Client, thread_id: str) -> None:
    emulator.script(Scenario(end="never"), assistant_id="asst_1")
    run = await client.threads.runs.create(thread_id, assistant_id="asst_1")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await client.threads.runs.poll(run.id, thread_id=thread_id)
    assert (await client.threads.runs.retrieve(run.id, thread_id=thread_id)).status == "in_progress"


# Options of the call


async def test_every_request_has_the_options_of_the_call(emulator: Emulator, client: Client, thread_id: str) -> None:
    emulator.script(Scenario(rounds=((ADD,),)), assistant_id="asst_1")
    emulator.inject(Fault(on="submit", drop=True))
    options: Any = {"extra_headers": {"x-trace": "7"}, "extra_query": {"tenant": "t"}, "timeout": 7.5}
    emulator.requests.clear()
    run = await client.threads.runs.create_and_poll(thread_id=thread_id, assistant_id="asst_1", **options)
    await client.threads.runs.submit_tool_outputs_and_poll(
        thread_id=thread_id, run_id=run.id, tool_outputs=outputs_of(run), **options
    )
    assert {request.operation for request in emulator.requests} == {"create_run", "poll", "submit"}
    for request in emulator.requests:
        assert (request.headers.get("x-trace"), request.query) == ("7", "tenant=t")


async def test_a_timeout_applies_to_each_poll(emulator: Emulator, client: Client, thread_id: str) -> None:
    emulator.inject(Fault(on="poll", delay_after=20.0))
    loop = asyncio.get_running_loop()
    run = await client.threads.runs.create(thread_id, assistant_id="asst_1")
    began = loop.time()
    assert (await client.threads.runs.poll(run.id, thread_id=thread_id, timeout=2.0)).status == "completed"
    assert 2.0 <= loop.time() - began < 10.0


# Toolsets


async def test_create_and_process_answers_the_calls(emulator: Emulator, client: Client, thread_id: str) -> None:
    emulator.script(Scenario(rounds=((ADD, ADD_MORE), (ADD,))), assistant_id="asst_1")
    tools = Toolset([add])
    run = await client.runs.create_and_process(thread_id=thread_id, agent_id="asst_1", toolset=tools)
    assert run.status == "completed"
    assert [sorted(outputs.values()) for outputs in emulator.submitted(run.id)] == [["3", "7"], ["3"]]
    assert isinstance(run.tools, list)
    assert [tool.to_dict() for tool in run.tools] == tools.definitions()


async def test_tools_of_the_call_replace_those_of_the_toolset(client: Client, thread_id: str) -> None:
    run = await client.runs.create_and_process(
        thread_id, agent_id="asst_1", toolset=Toolset([add]), tools=[{"type": "code_interpreter"}]
    )
    assert run.to_dict()["tools"] == [{"type": "code_interpreter"}]


async def test_without_a_toolset_a_waiting_run_is_returned(emulator: Emulator, client: Client, thread_id: str) -> None:
    emulator.script(Scenario(rounds=((ADD,),)), assistant_id="asst_1")
    run = await client.runs.create_and_process(thread_id, agent_id="asst_1")
    assert run.status == REQUIRES_ACTION


async def test_a_call_that_a_policy_leaves_to_the_caller_raises(
    emulator: Emulator, client: Client, thread_id: str
) -> None:
    emulator.script(Scenario(rounds=((FunctionCall("subtract"),),)), assistant_id="asst_1")
    tools = Toolset([add], if_unknown_tool="surface")
    with pytest.raises(RunNeedsCallerError) as caught:
        await client.runs.create_and_process(thread_id, agent_id="asst_1", toolset=tools)
    assert [call.name for call in caught.value.outcome.calls] == ["subtract"]


def test_the_names_of_other_clients_lead_to_the_same_things() -> None:
    client = Client("http://127.0.0.1:9/v1")
    assert client.beta.threads is client.threads
    assert client.beta.assistants is client.assistants
    assert client.runs is client.threads.runs
    assert client.messages is client.threads.messages
    assert client.run_steps is client.threads.runs.steps


def test_methods_that_wait_have_no_raw_variant() -> None:
    client = Client("http://127.0.0.1:9/v1")
    for name in ("poll", "create_and_poll", "submit_tool_outputs_and_poll", "create_and_process"):
        assert not hasattr(client.threads.runs.with_raw_response, name)
    assert not hasattr(client.threads.with_raw_response, "create_and_run_poll")
