"""The official client's `beta.threads` and `beta.assistants` against the emulator, compared with our client."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator
from typing import Any, get_args, get_type_hints

import openai
import pytest
from openai.types.beta.threads import Run

from asyncruns import Client, RunStream
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario

ADD: Any = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
PROMPT: dict[str, Any] = {"queued": 0.02, "working": 0.02, "cancelling": 0.0}

pytestmark = [
    pytest.mark.real_time,  # its HTTP client resolves names in a thread, and its timeouts use the real clock
    pytest.mark.filterwarnings("ignore:(The Assistants API is )?deprecated:DeprecationWarning"),
]


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[openai.AsyncOpenAI]:
    emulator.script(Scenario(**PROMPT), assistant_id="asst_1")
    async with openai.AsyncOpenAI(base_url=emulator.base_url, api_key="sk-test", max_retries=0) as client:
        yield client


def outputs_of(run: Run) -> Any:
    assert run.required_action
    calls = run.required_action.submit_tool_outputs.tool_calls
    return [{"tool_call_id": call.id, "output": str(sum(json.loads(call.function.arguments)["n"]))} for call in calls]


async def test_a_conversation_from_assistant_to_answer(client: openai.AsyncOpenAI) -> None:
    assistant = await client.beta.assistants.create(model="gpt-test", name="Adder", instructions="Add.", tools=[ADD])
    thread = await client.beta.threads.create(metadata={"a": "b"})
    await client.beta.threads.messages.create(thread.id, role="user", content="Hi")
    run = await client.beta.threads.runs.create_and_poll(
        thread_id=thread.id, assistant_id=assistant.id, tool_choice="none", poll_interval_ms=20
    )
    assert (run.status, run.assistant_id, run.instructions) == ("completed", assistant.id, "Add.")
    assert run.usage
    assert run.usage.total_tokens > 0
    messages = [message async for message in client.beta.threads.messages.list(thread.id, order="asc", limit=1)]
    assert [message.role for message in messages] == ["user", "assistant"]
    (block,) = messages[1].content
    assert block.type == "text"
    assert block.text.value == "You said: Hi"
    steps = await client.beta.threads.runs.steps.list(run.id, thread_id=thread.id)
    assert [step.type for step in steps.data] == ["message_creation"]
    assert (await client.beta.threads.update(thread.id, metadata={"c": "d"})).metadata
    assert (await client.beta.assistants.delete(assistant.id)).deleted


async def test_tools_are_answered_round_by_round(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    calls = (FunctionCall("add", {"n": [1, 2]}), FunctionCall("add", {"n": [3, 4]}))
    emulator.script(Scenario(**PROMPT, rounds=(calls, calls[:1])), assistant_id="asst_1")
    run = await client.beta.threads.create_and_run_poll(
        assistant_id="asst_1", thread={"messages": [{"role": "user", "content": "Hi"}]}, poll_interval_ms=20
    )
    while run.status == "requires_action":
        run = await client.beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=outputs_of(run), poll_interval_ms=20
        )
    assert run.status == "completed"
    assert [sorted(outputs.values()) for outputs in emulator.submitted(run.id)] == [["3", "7"], ["3"]]


async def test_runs_are_listed_changed_and_cancelled(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    thread = await client.beta.threads.create()
    runs = client.beta.threads.runs
    first = await runs.create_and_poll(thread_id=thread.id, assistant_id="asst_1", poll_interval_ms=20)
    emulator.script(Scenario(queued=0.0, end="never", cancelling=0.0), assistant_id="asst_1")
    second = await runs.create(thread.id, assistant_id="asst_1")
    assert [run.id async for run in runs.list(thread.id, limit=1)] == [second.id, first.id]
    await runs.cancel(second.id, thread_id=thread.id)
    ended = await runs.poll(second.id, thread_id=thread.id, poll_interval_ms=20)
    assert ended.status == "cancelled"
    assert (await runs.update(second.id, thread_id=thread.id, metadata={"a": "b"})).metadata == {"a": "b"}


@pytest.mark.parametrize(("end", "reason"), [("failed", "server_error"), ("incomplete", "max_completion_tokens")])
async def test_other_ends_are_typed(emulator: Emulator, client: openai.AsyncOpenAI, end: str, reason: str) -> None:
    emulator.script(Scenario(**PROMPT, end=end), assistant_id="asst_1")
    run = await client.beta.threads.create_and_run_poll(assistant_id="asst_1", poll_interval_ms=20)
    assert run.status == end
    assert reason in (
        run.last_error and run.last_error.code,
        run.incomplete_details and run.incomplete_details.reason,
    )


STATUSES = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}


@pytest.mark.parametrize("status", STATUSES)
async def test_an_error_status_is_the_class_of_the_same_name_in_both_clients(
    emulator: Emulator, client: openai.AsyncOpenAI, status: int
) -> None:
    emulator.inject(Fault(on="create_thread", status=status, times=2))
    async with Client(emulator.base_url, max_retries=0) as mine:
        with pytest.raises(STATUSES[status]) as theirs:
            await client.beta.threads.create()
        with pytest.raises(Exception) as ours:  # noqa: PT011 - the assertion is about its name
            await mine.threads.create()
    expected, found = theirs.value, ours.value
    assert type(found).__name__ == type(expected).__name__
    for name in ("status_code", "code", "param", "type"):
        assert getattr(found, name) == getattr(expected, name), name
    assert getattr(found, "request_id", "").startswith("req_")
    assert (expected.request_id or "").startswith("req_")


async def test_refusals_of_the_emulator_itself_raise_its_exceptions(
    emulator: Emulator, client: openai.AsyncOpenAI
) -> None:
    runs = client.beta.threads.runs
    with pytest.raises(openai.NotFoundError, match="No thread found with id 'thread_x'"):
        await client.beta.threads.retrieve("thread_x")
    thread = await client.beta.threads.create()
    with pytest.raises(openai.NotFoundError):
        await runs.poll("run_x", thread_id=thread.id)
    emulator.script(Scenario(end="never"), assistant_id="asst_1")
    run = await runs.create(thread.id, assistant_id="asst_1")
    with pytest.raises(openai.BadRequestError, match=run.id):
        await client.beta.threads.messages.create(thread.id, role="user", content="Hi")
    with pytest.raises(openai.BadRequestError):
        await runs.submit_tool_outputs(run.id, thread_id=thread.id, tool_outputs=[])
    async with Emulator(api_key="sk-other") as locked:
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(base_url=locked.base_url).beta.threads.create()


async def test_lost_connections_raise_its_exceptions(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.inject(Fault(on="create_thread", drop=True), Fault(on="create_thread", delay_after=60.0))
    with pytest.raises(openai.APIConnectionError):
        await client.beta.threads.create()
    with pytest.raises(openai.APITimeoutError):
        await client.beta.threads.create(timeout=0.2)


# Names and keywords

HELPERS = (
    "threads.create_and_run_poll",
    "threads.runs.create_and_poll",
    "threads.runs.poll",
    "threads.runs.submit_tool_outputs_and_poll",
    "threads.create_and_run_stream",
    "threads.runs.create_and_stream",
    "threads.runs.stream",
    "threads.runs.submit_tool_outputs_stream",
)
OPERATIONS = (
    *(f"assistants.{name}" for name in ("create", "retrieve", "update", "list", "delete")),
    *(f"threads.{name}" for name in ("create", "retrieve", "update", "delete", "create_and_run")),
    *(f"threads.messages.{name}" for name in ("create", "retrieve", "update", "list", "delete")),
    *(f"threads.runs.{name}" for name in ("create", "retrieve", "update", "list", "cancel", "submit_tool_outputs")),
    *(f"threads.runs.steps.{name}" for name in ("retrieve", "list")),
)


@pytest.mark.parametrize("path", OPERATIONS + HELPERS)
def test_every_method_takes_the_official_clients_keywords(path: str) -> None:
    ours: Any = Client("http://127.0.0.1:9/v1").beta
    theirs: Any = openai.AsyncOpenAI(base_url="http://127.0.0.1:9/v1", api_key="k").beta
    for name in path.split("."):
        ours, theirs = getattr(ours, name), getattr(theirs, name)
    hints = get_type_hints(ours, localns={"RunStream": RunStream, "AssistantEventHandler": Any})  # imported on use
    taken: dict[str, inspect.Parameter | None] = {}
    for name, parameter in inspect.signature(ours).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            taken |= dict.fromkeys(get_type_hints(get_args(hints[name])[0]))
        else:
            taken[name] = parameter
    expected = inspect.signature(theirs).parameters
    assert set(expected) - set(taken) == set()
    positional = [
        name
        for name, each in expected.items()
        if each.kind is each.POSITIONAL_OR_KEYWORD and each.default is each.empty
    ]
    assert list(taken)[: len(positional)] == positional
