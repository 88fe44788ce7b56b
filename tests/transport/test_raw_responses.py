"""`with_raw_response`: the answer as it came, of every operation of every resource."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest
from operations import LISTS, OPERATIONS, Operation
from recording_server import ANYTHING, RecordingServer, Seen, reply, unused_origin

from asyncruns import (
    APIConnectionError,
    APIResponseValidationError,
    BearerAuth,
    Client,
    InvalidRequestError,
    NotFoundError,
)
from asyncruns.resources import RawCalls, RawResponse
from asyncruns.wire import Page, Run, RunStep, Thread

KEY = "sk-hidden-0123456789abcdef"
ANSWER = reply(200, ANYTHING, X_Request_Id="req_1", X_Remaining="7")


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    async with RecordingServer(ANSWER) as server:
        yield server


@pytest.fixture
async def client(server: RecordingServer) -> AsyncIterator[Client]:
    async with Client(server.base_url, auth=BearerAuth(KEY)) as client:
        yield client


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_every_operation_gives_its_answer_as_it_came(
    server: RecordingServer, client: Client, operation: Operation
) -> None:
    raw = await operation.call(client, raw=True)
    assert type(raw) is RawResponse
    assert (raw.status, raw.status_code, raw.request_id) == (200, 200, "req_1")
    assert raw.headers["x-remaining"] == "7"
    assert raw.headers["content-type"] == "application/json"
    assert raw.content == json.dumps(ANYTHING).encode()
    parsed = raw.parse()
    assert parsed == await operation.call(client)
    assert isinstance(parsed, Page) is (operation in LISTS)
    first, second = server.seen
    assert first == second


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_a_body_that_is_not_of_this_api_is_no_error_until_it_is_parsed(operation: Operation) -> None:
    page = "<html><body>Log in</body></html>"
    async with RecordingServer(reply(200, page, X_Request_Id="req_1")) as server, Client(server.base_url) as client:
        raw = await operation.call(client, raw=True)
    assert raw.content == page.encode()
    for _ in range(2):
        with pytest.raises(APIResponseValidationError, match="<html><body>Log in") as caught:
            raw.parse()
        error = caught.value
        assert (error.status, error.request_id, error.body) == (200, "req_1", page.encode())
        assert (error.method, error.path) == (operation.method, operation.path)


async def test_a_good_status_without_a_body_is_an_answer_too() -> None:
    async with RecordingServer(b"HTTP/1.1 204 No\r\n\r\n") as server, Client(server.base_url) as client:
        raw = await client.threads.with_raw_response.delete("thread_1")
    assert (raw.status, raw.content, raw.request_id) == (204, b"", "")


async def test_what_a_body_echoes_is_not_shown_by_the_error() -> None:
    def echo(seen: Seen) -> bytes:
        return reply(200, seen.head)

    async with RecordingServer(echo) as server, Client(server.base_url, auth=BearerAuth(KEY)) as client:
        raw = await client.threads.with_raw_response.retrieve("thread_1", extra_headers={"x-token": f"{KEY}-2"})
    assert KEY in raw.content.decode()
    with pytest.raises(APIResponseValidationError, match="GET /v1/threads") as caught:
        raw.parse()
    assert KEY not in f"{caught.value} {caught.value.body!r}"


async def test_errors_are_raised_as_ever() -> None:
    async with RecordingServer(reply(503, {}), reply(404, {})) as server, Client(server.base_url) as client:
        with pytest.raises(NotFoundError, match="after 503"):
            await client.threads.runs.with_raw_response.retrieve("run_1", thread_id="thread_1")
        with pytest.raises(InvalidRequestError, match="thread_id"):
            await client.threads.with_raw_response.retrieve("")
        with pytest.raises(InvalidRequestError, match="limit"):
            await client.threads.with_raw_response.list(limit=0)
        with pytest.raises(TypeError, match="time_out"):
            await client.threads.with_raw_response.retrieve("thread_1", time_out=5)
        assert len(server.seen) == 2
    async with Client(await unused_origin(), max_retries=0) as client:
        with pytest.raises(APIConnectionError):
            await client.assistants.with_raw_response.list()


async def test_a_list_gives_its_page_and_nothing_to_iterate_over() -> None:
    body = {"data": [{"id": "thread_1"}], "has_more": True, "last_id": "thread_1"}
    async with RecordingServer(reply(200, body)) as server, Client(server.base_url) as client:
        call = client.threads.with_raw_response.list(limit=1)
        assert not hasattr(call, "__aiter__")
        page = (await call).parse()
    assert (page.data, page.has_more) == ([Thread(id="thread_1")], True)
    assert server.targets == ["/v1/threads?limit=1"]


# What lies below a resource


async def test_what_lies_below_a_resource_is_raw_as_well(server: RecordingServer, client: Client) -> None:
    threads = client.threads.with_raw_response
    answers = [
        await threads.messages.list("thread_1"),
        await threads.runs.retrieve("run_1", thread_id="thread_1"),
        await threads.runs.steps.retrieve("step_1", thread_id="thread_1", run_id="run_1"),
        await client.threads.runs.with_raw_response.steps.list("run_1", thread_id="thread_1"),
    ]
    assert {type(answer) for answer in answers} == {RawResponse}
    assert isinstance(answers[1].parse(), Run)
    assert isinstance(answers[2].parse(), RunStep)
    run = "/v1/threads/thread_1/runs/run_1"
    assert server.targets == ["/v1/threads/thread_1/messages", run, f"{run}/steps/step_1", f"{run}/steps"]


@pytest.mark.parametrize("name", ["nothing", "watch", "with_raw_response", "_server", "_raw", "_ask", "__len__"])
def test_there_is_nothing_else_on_it(name: str) -> None:
    client = Client("http://127.0.0.1:9/v1")
    raw: Any
    for raw in (client.threads.with_raw_response, client.threads.runs.with_raw_response):
        with pytest.raises(AttributeError, match=name):
            getattr(raw, name)
    with pytest.raises(AttributeError, match="RawCalls has no 'steps'"):
        _ = client.assistants.with_raw_response.steps
    with pytest.raises(AttributeError, match="RawResponses has no 'run'"):  # it would create a response, and lose it
        _ = client.responses.with_raw_response.run


async def test_the_resource_itself_stays_as_it_was(server: RecordingServer, client: Client) -> None:
    before = client.threads.with_raw_response
    assert isinstance(await before.retrieve("thread_1"), RawResponse)
    assert isinstance(await client.threads.retrieve("thread_1"), Thread)
    assert isinstance(await before.runs.retrieve("run_1", thread_id="thread_1"), RawResponse)
    assert isinstance(await client.threads.runs.retrieve("run_1", thread_id="thread_1"), Run)
    assert isinstance(await before.retrieve("thread_1"), RawResponse)


async def test_raw_and_other_calls_may_go_on_at_once(client: Client) -> None:
    calls: list[Any] = []
    for _ in range(20):
        calls += [client.threads.retrieve("thread_1"), client.threads.with_raw_response.retrieve("thread_1")]
    found = await asyncio.gather(*calls)
    assert [type(each) for each in found] == [Thread, RawResponse] * 20


async def test_a_repr_shows_no_secret(client: Client) -> None:
    calls = client.threads.runs.with_raw_response
    raw = await calls.create(
        "thread_1", assistant_id="a", extra_headers={"x-token": KEY}, extra_query={"sig": KEY}, extra_body={"key": KEY}
    )
    size = len(raw.content)
    assert repr(raw) == f"<RawResponse 200 of POST /threads/thread_1/runs, {size} bytes>"
    assert repr(calls) == "<RawRuns of Runs>"
    assert repr(client.assistants.with_raw_response) == "<RawCalls of Assistants>"


async def test_raw_calls_can_be_copied(client: Client) -> None:
    raw = copy.copy(client.assistants.with_raw_response)
    assert isinstance(raw, RawCalls)
    assert isinstance(await raw.retrieve("asst_1"), RawResponse)
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):  # the connections stay here
        pickle.dumps(raw)
