"""What the operations of responses send, to the byte."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import openai
import pytest
from recording_server import RecordingServer, reply

from asyncruns import BadRequestError, BearerAuth, Client, InvalidRequestError, NotFoundError
from asyncruns.resources.response_parameters import ResponseParameters

Operation = Callable[[Client], Awaitable[object]]

RESPONSE = "/v1/responses/resp_1"


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    async with RecordingServer() as server:
        yield server


@pytest.fixture
async def client(server: RecordingServer) -> AsyncIterator[Client]:
    async with Client(server.base_url, auth=BearerAuth("sk-test")) as client:
        yield client


READS: Mapping[str, tuple[Operation, str, str]] = {
    "retrieve": (lambda c: c.responses.retrieve("resp_1"), "GET", RESPONSE),
    "retrieve with include": (
        lambda c: c.responses.retrieve("resp_1", include=["reasoning.encrypted_content", "more"]),
        "GET",
        f"{RESPONSE}?include%5B%5D=reasoning.encrypted_content&include%5B%5D=more",
    ),
    "delete": (lambda c: c.responses.delete("resp_1"), "DELETE", RESPONSE),
    "input_items.list": (lambda c: c.responses.input_items.list("resp_1"), "GET", f"{RESPONSE}/input_items"),
    "input_items.list with everything": (
        lambda c: c.responses.input_items.list(
            "resp_1", limit=100, order="asc", after="msg_1", before="msg_2", include=["x"]
        ),
        "GET",
        f"{RESPONSE}/input_items?limit=100&order=asc&after=msg_1&before=msg_2&include%5B%5D=x",
    ),
}

WRITES: Mapping[str, tuple[Operation, str, bytes]] = {
    "create": (
        lambda c: c.responses.create(model="m", input="Hi", background=True),
        "/v1/responses",
        b'{"model":"m","input":"Hi","background":true}',
    ),
    "create from a template": (
        lambda c: c.responses.create(prompt={"id": "p"}),
        "/v1/responses",
        b'{"prompt":{"id":"p"}}',
    ),
    "create with outputs": (
        lambda c: c.responses.create(
            model="m",
            previous_response_id="resp_1",
            input=({"type": "function_call_output", "call_id": id, "output": "22°"} for id in ["c"]),
            background=True,
            background_options={"completion_window": "2h", "continuation_id": "k"},
            conversation=None,
            temperature=0.0,
            tool_choice={"type": "function", "name": "f"},
            tools=[{"type": "function", "name": "f", "parameters": {}, "strict": False}],
        ),
        "/v1/responses",
        '{"model":"m","previous_response_id":"resp_1","input":[{"type":"function_call_output","call_id":"c",'
        '"output":"22°"}],"background":true,"background_options":{"completion_window":"2h","continuation_id":"k"},'
        '"conversation":null,"temperature":0.0,"tool_choice":{"type":"function","name":"f"},"tools":[{"type":"function",'
        '"name":"f","parameters":{},"strict":false}]}'.encode(),
    ),
    # No body, but the content type of JSON, as the official client sends it.
    "cancel": (lambda c: c.responses.cancel("resp_1"), f"{RESPONSE}/cancel", b""),
}


@pytest.mark.parametrize("name", READS)
async def test_an_operation_without_a_body_sends(server: RecordingServer, client: Client, name: str) -> None:
    operation, method, target = READS[name]
    await operation(client)
    (seen,) = server.seen
    assert (seen.method, seen.target, seen.body) == (method, target, b"")
    assert seen.header("Content-Type") is None


@pytest.mark.parametrize("name", WRITES)
async def test_an_operation_with_a_body_sends(server: RecordingServer, client: Client, name: str) -> None:
    operation, target, body = WRITES[name]
    await operation(client)
    (seen,) = server.seen
    assert (seen.method, seen.target, seen.body) == ("POST", target, body)
    assert seen.header("Content-Type") == ("application/json" if body else None)


def test_the_parameters_are_those_of_the_official_client_except_for_streams() -> None:
    # Later versions of it may have more.
    theirs = set(inspect.signature(openai.AsyncOpenAI(api_key="x").responses.create).parameters)
    assert set(ResponseParameters.__annotations__) - theirs == {"request_timeout", "output_type"}
    assert {"stream", "stream_options"}.isdisjoint(ResponseParameters.__annotations__)
    assert len(ResponseParameters.__annotations__) == 38


async def test_parameters_that_the_server_would_refuse_are_refused_before_sending(
    server: RecordingServer, client: Client
) -> None:
    with pytest.raises(InvalidRequestError, match="metadata: at most 16 pairs"):
        await client.responses.create(model="m", input="Hi", metadata={str(n): "" for n in range(17)})
    with pytest.raises(InvalidRequestError, match="limit: 1 to 100"):
        await client.responses.input_items.list("resp_1", limit=101)
    with pytest.raises(InvalidRequestError, match="starting_after is for a stream"):
        await client.responses.retrieve("resp_1", stream=False, starting_after=1)
    assert server.seen == []


async def test_the_number_of_tools_is_not_limited(server: RecordingServer, client: Client) -> None:
    tools: list[Any] = [{"type": "web_search"}] * 200
    await client.responses.create(model="m", input="Hi", tools=tools)
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_create_that_may_have_had_its_effect_is_not_repeated(status: int) -> None:
    async with RecordingServer(reply(status, {})) as server, Client(server.base_url) as client:
        with pytest.raises(Exception, match=str(status)):
            await client.responses.create(model="m", input="Hi", background=True)
    assert len(server.seen) == 1


async def test_errors_are_those_of_responses_and_not_of_threads() -> None:
    # For a thread, this text would mean that it is held by a run.
    error = {"error": {"message": "Thread t already has an active run r.", "type": "invalid_request_error"}}
    async with RecordingServer(reply(400, error), reply(404, {})) as server, Client(server.base_url) as client:
        with pytest.raises(BadRequestError) as caught:
            await client.responses.create(model="m", input="Hi")
        assert type(caught.value) is BadRequestError
        with pytest.raises(NotFoundError, match="GET /responses/resp_1 answered 404"):
            await client.responses.retrieve("resp_1")
