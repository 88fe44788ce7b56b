"""The official client against the emulator's responses, so that its users can rely on the emulator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import openai
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall

from asyncruns import Toolset
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario

MODEL = "gpt-test"
PROMPT = Scenario(queued=0.02, working=0.02, cancelling=0.0)

# In real time: its HTTP client resolves names in a thread, and its timeouts use the real clock.
pytestmark = pytest.mark.real_time


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[openai.AsyncOpenAI]:
    emulator.script(PROMPT, model=MODEL)
    async with openai.AsyncOpenAI(base_url=emulator.base_url, api_key="sk-test", max_retries=0) as client:
        yield client


async def polled(client: openai.AsyncOpenAI, response: Response) -> Response:
    """Poll a response until it has ended."""
    async with asyncio.timeout(10):
        while response.status in ("queued", "in_progress"):
            await asyncio.sleep(0.01)
            response = await client.responses.retrieve(response.id)
    return response


async def test_a_response_in_the_background_is_polled_to_its_end(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(model=MODEL, input="Hi", background=True, metadata={"a": "b"})
    assert (response.status, response.background, response.metadata) == ("queued", True, {"a": "b"})
    assert response.output_text == ""
    done = await polled(client, response)
    assert (done.id, done.status, done.output_text) == (response.id, "completed", "You said: Hi")
    assert done.usage is not None
    assert done.usage.total_tokens == 120
    assert done.completed_at is not None


async def test_a_response_in_the_foreground_has_ended(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(model=MODEL, input=[{"role": "user", "content": "Hi"}])
    assert (response.status, response.output_text) == ("completed", "You said: Hi")


async def test_a_tool_loop_goes_from_response_to_response(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    calls = (FunctionCall("add", {"a": 1, "b": 2}), FunctionCall("add", {"a": 3, "b": 4}))
    rounds = (calls, (FunctionCall("add", {"a": 3, "b": 7}),))
    emulator.script(Scenario(queued=0.02, working=0.02, rounds=rounds), model=MODEL)
    tools = cast("Any", Toolset([add]).definitions(wire="responses"))
    chain: list[str] = []
    said = ""
    answers: Any = "Add"
    while answers:
        previous = {"previous_response_id": chain[-1]} if chain else {}
        response = await client.responses.create(
            model=MODEL, input=answers, tools=tools, background=True, **cast("Any", previous)
        )
        response = await polled(client, response)
        chain.append(response.id)
        said = response.output_text
        answers = [
            {
                "type": "function_call_output",
                "call_id": call.call_id,
                "output": str(add(**json.loads(call.arguments))),
            }
            for call in response.output
            if isinstance(call, ResponseFunctionToolCall)
        ]
    assert said == "add: 3\nadd: 7\nadd: 10"
    assert len(set(chain)) == 3
    assert [list(outputs.values()) for outputs in emulator.submitted(chain[-1])] == [["3", "7"], ["10"]]


async def test_a_cancel_ends_a_response_and_may_be_repeated(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.script(Scenario(end="never", cancelling=0.0), model=MODEL)
    response = await client.responses.create(model=MODEL, input="Hi", background=True)
    for _ in range(2):
        assert (await client.responses.cancel(response.id)).status == "cancelled"


@pytest.mark.parametrize(("end", "reason"), [("failed", "server_error"), ("incomplete", "max_output_tokens")])
async def test_other_ends_are_typed(emulator: Emulator, client: openai.AsyncOpenAI, end: Any, reason: str) -> None:
    emulator.script(Scenario(queued=0.0, working=0.0, end=end), model=MODEL)
    response = await polled(client, await client.responses.create(model=MODEL, input="Hi", background=True))
    assert response.status == end
    assert reason in (
        response.error and response.error.code,
        response.incomplete_details and response.incomplete_details.reason,
    )


async def test_input_items_are_typed_and_a_deleted_response_is_not_found(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(model=MODEL, input="Hi")
    items = [item async for item in client.responses.input_items.list(response.id, limit=1)]
    assert [item.type for item in items] == ["message"]
    await client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError, match=f"Response with id '{response.id}' not found"):
        await client.responses.retrieve(response.id)


async def test_refusals_raise_its_exceptions(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.script(Scenario(rounds=((FunctionCall("f"),),), reuse_call_ids=True), model=MODEL)
    first = await client.responses.create(model=MODEL, input="Hi")
    with pytest.raises(openai.BadRequestError, match="No tool output found for function call call_0") as missing:
        await client.responses.create(model=MODEL, input="Hi", previous_response_id=first.id)
    assert (missing.value.param, missing.value.code) == ("input", None)
    with pytest.raises(openai.BadRequestError) as lost:
        await client.responses.create(model=MODEL, input="Hi", previous_response_id="resp_x")
    assert lost.value.code == "previous_response_not_found"
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        await client.responses.cancel(first.id)


async def test_faults_raise_its_exceptions(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.inject(
        Fault(on="create_response", status=429),
        Fault(on="create_response", status=500),
        Fault(on="create_response", status=400, code="conversation_locked", message="Another process is at it."),
        Fault(on="create_response", drop=True, acts=True),
    )
    for expected in (openai.RateLimitError, openai.InternalServerError, openai.BadRequestError):
        with pytest.raises(expected):
            await client.responses.create(model=MODEL, input="Hi", background=True)
    with pytest.raises(openai.APIConnectionError):
        await client.responses.create(model=MODEL, input="Hi", background=True)
    assert len(emulator.responses) == 1  # it was created although the client has no answer
