"""Options of a single call: timeout, headers, query and body; for every operation, to the byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from operations import LISTS, OPERATIONS, Operation
from recording_server import SILENCE, RecordingServer, reply

from asyncruns import APITimeoutError, BearerAuth, Client, InvalidRequestError
from asyncruns.wire import encode

RETRIEVE = "/v1/threads/thread_1"


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    async with RecordingServer() as server:
        yield server


@pytest.fixture
async def client(server: RecordingServer) -> AsyncIterator[Client]:
    async with Client(server.base_url, auth=BearerAuth("sk-test"), default_headers={"x-mine": "client"}) as client:
        yield client


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("raw", [False, True], ids=["", "raw"])
async def test_every_operation_sends_the_extras(
    server: RecordingServer, client: Client, operation: Operation, raw: bool
) -> None:
    await operation.call(client, raw=raw)
    await operation.call(
        client,
        raw=raw,
        request_timeout=5,
        extra_headers={"x-more": "1", "X-MINE": "call"},
        extra_query={"q": "a b"},
        extra_body={"more": [1]},
    )
    plain, extra = server.seen
    body = b"" if operation.body is None else encode(operation.body)
    assert (plain.method, plain.target, plain.body) == (operation.method, f"/v1{operation.path}", body)
    merged = encode({**(operation.body or {}), "more": [1]})
    assert (extra.method, extra.target, extra.body) == (operation.method, f"/v1{operation.path}?q=a+b", merged)
    assert (plain.header("x-mine"), plain.header("x-more")) == ("client", None)
    assert (extra.header("x-mine"), extra.header("x-more")) == ("call", "1")
    # A body has the content type of JSON, even if the operation has no body by itself; without one there is no type.
    assert plain.header("Content-Type") == ("application/json" if operation.body is not None else None)
    assert extra.header("Content-Type") == "application/json"
    assert extra.header("Authorization") == "Bearer sk-test"


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_extras_that_are_none_send_nothing(server: RecordingServer, client: Client, operation: Operation) -> None:
    await operation.call(client)
    await operation.call(client, extra_headers=None, extra_query=None, extra_body=None)
    plain, extra = server.seen
    assert extra == plain


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_an_option_that_does_not_exist_is_an_error(
    server: RecordingServer, client: Client, operation: Operation
) -> None:
    with pytest.raises(TypeError, match=r"'temperatur'; there is extra_body="):
        await operation.call(client, temperatur=1)
    assert server.seen == []


# Timeouts, in virtual time


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_the_timeout_of_a_call_replaces_that_of_the_client(operation: Operation) -> None:
    async with RecordingServer(SILENCE) as server, Client(server.base_url, max_retries=0) as client:
        options: list[dict[str, Any]] = [{"request_timeout": 2.5}, {"timeout": 50}]
        for option in options:
            (seconds,) = option.values()
            began = now()
            with pytest.raises(APITimeoutError):
                await operation.call(client, **option)
            assert seconds <= now() - began < seconds + 1  # aiohttp rounds above 5 s


class SlowServer(RecordingServer):
    """Answers after a day."""

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(86_400)
        return await super()._answer_one(reader, writer)


async def test_a_timeout_of_none_is_no_limit() -> None:
    async with SlowServer() as server, Client(server.base_url, request_timeout=1, max_retries=0) as client:
        began = now()
        for seconds in (None, float("inf"), 100_000):
            assert (await client.threads.retrieve("thread_1", request_timeout=seconds)).id == "x_1"
        assert now() - began >= 3 * 86_400
        with pytest.raises(APITimeoutError):
            await client.threads.retrieve("thread_1")


async def test_the_timeout_applies_to_each_attempt_of_a_call() -> None:
    async with RecordingServer(SILENCE) as server, Client(server.base_url, max_retries=2) as client:
        began = now()
        with pytest.raises(APITimeoutError, match="try 3"):
            await client.threads.retrieve("thread_1", request_timeout=2)
        assert 6 <= now() - began <= 10  # the pauses included
        assert len(server.seen) == 3


async def test_the_timeout_of_a_call_applies_to_fetching_its_token_too() -> None:
    async def never() -> str:
        await asyncio.sleep(1_000_000)
        raise AssertionError

    async with RecordingServer() as server, Client(server.base_url, auth=BearerAuth(never), max_retries=0) as client:
        began = now()
        with pytest.raises(APITimeoutError, match="nothing was sent"):
            await client.threads.create(request_timeout=3)
        assert now() - began == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("name", ["request_timeout", "timeout"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("-inf"), True, "5", (1, 2)])
async def test_an_invalid_timeout_is_refused(server: RecordingServer, client: Client, seconds: Any, name: Any) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{name} must be more than 0 seconds"):
        await client.threads.retrieve("thread_1", **{name: seconds})
    assert server.seen == []


async def test_a_timeout_under_both_of_its_names_is_refused(server: RecordingServer, client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="request_timeout or timeout"):
        await client.threads.retrieve("thread_1", request_timeout=1, timeout=2)
    assert server.seen == []


# Headers


async def test_headers_of_a_call_replace_those_of_the_client_whatever_their_case(
    server: RecordingServer, client: Client
) -> None:
    extra = {"openai-beta": "assistants=v7", "AUTHORIZATION": "Bearer other", "accept": "text/json"}
    await client.threads.create(extra_headers={**extra, "content-type": "application/json; charset=utf-8"})
    await client.threads.create()
    other, plain = server.seen
    assert other.header("OpenAI-Beta") == "assistants=v7"
    assert other.header("Authorization") == "Bearer other"
    assert other.header("Accept") == "text/json"
    assert other.header("Content-Type") == "application/json; charset=utf-8"
    assert plain.header("OpenAI-Beta") == "assistants=v2"
    assert plain.header("Authorization") == "Bearer sk-test"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-a": "hid\nden"},
        {"x-a": "hid\r\nX-Evil: 1"},
        {"x-a": "hid\0"},
        {"x-a": "hidж"},
        {"x-a": None},
        {"x-a": 5},
        {"x a": "hid"},
        {"": "hid"},
        {5: "hid"},
    ],
    ids=repr,
)
async def test_a_header_that_cannot_be_sent_is_refused_without_being_shown(
    server: RecordingServer, client: Client, headers: Any
) -> None:
    with pytest.raises(InvalidRequestError, match="extra_headers: ") as caught:
        await client.threads.create(extra_headers=headers)
    assert "hid" not in str(caught.value)
    assert server.seen == []


# Query


@pytest.mark.parametrize(
    ("extra", "query"),
    [
        pytest.param({"a": True, "b": False}, "?limit=5&a=true&b=false", id="booleans"),
        pytest.param({"a": [1, "x", True], "b": ()}, "?limit=5&a%5B%5D=1&a%5B%5D=x&a%5B%5D=true", id="lists"),
        pytest.param({"a": None, "b": 0, "c": 1.5, "d": ""}, "?limit=5&b=0&c=1.5&d=", id="none, numbers, empty"),
        pytest.param({"ä&=": "ö&=#"}, "?limit=5&%C3%A4%26%3D=%C3%B6%26%3D%23", id="what must be quoted"),
        pytest.param({"limit": 500}, "?limit=500", id="over a parameter"),
        pytest.param({"limit": None}, "", id="instead of a parameter"),
        pytest.param({}, "?limit=5", id="nothing"),
    ],
)
async def test_the_query_of_a_call_is_added_to_its_parameters_and_replaces_the_same_name(
    server: RecordingServer, client: Client, extra: dict[str, Any], query: str
) -> None:
    await client.threads.list(limit=5, extra_query=extra)
    assert server.targets == [f"/v1/threads{query}"]


async def test_the_query_of_a_call_replaces_that_of_the_client_of_the_same_name(server: RecordingServer) -> None:
    async with Client(server.base_url, default_query={"api-version": "v1", "x": "1"}) as client:
        await client.threads.retrieve("thread_1", extra_query={"api-version": "v2"})
        await client.threads.retrieve("thread_1")
    assert server.targets == [f"{RETRIEVE}?x=1&api-version=v2", f"{RETRIEVE}?api-version=v1&x=1"]


# Body


async def test_the_extra_body_of_a_call_replaces_its_parameters(server: RecordingServer, client: Client) -> None:
    await client.threads.runs.create(
        "thread_1", assistant_id="asst_1", temperature=2.0, extra_body={"temperature": 3, "seed": 7, "metadata": None}
    )
    await client.threads.runs.cancel("run_1", thread_id="thread_1", extra_body={})
    first, second = server.seen
    assert first.body == b'{"assistant_id":"asst_1","temperature":3,"seed":7,"metadata":null}'
    assert second.body == b""


async def test_a_field_that_is_not_checked_may_be_sent_as_an_extra(server: RecordingServer, client: Client) -> None:
    many = {str(number): "x" for number in range(17)}
    with pytest.raises(InvalidRequestError, match="at most 16 pairs"):
        await client.threads.create(metadata=many)
    await client.threads.create(extra_body={"metadata": many})
    assert [json.loads(seen.body) for seen in server.seen] == [{"metadata": many}]


# Lists

THREE_PAGES = [
    reply(200, {"data": [{"id": f"x_{number}", "status": "queued"}], "has_more": number < 3}) for number in (1, 2, 3)
]


@pytest.mark.parametrize("operation", LISTS, ids=str)
async def test_the_options_of_a_list_apply_to_every_page(operation: Operation) -> None:
    async with RecordingServer(*THREE_PAGES) as server, Client(server.base_url) as client:
        call: Any = operation.call(
            client,
            limit=1,
            extra_headers={"x-more": "1"},
            extra_query={"q": ["a", "b"]},
            extra_body={"filter": 1},
            request_timeout=5,
        )
        assert [item.id async for item in call] == ["x_1", "x_2", "x_3"]
        path = f"/v1{operation.path}"
        pages = ["?limit=1&q[]=a&q[]=b", "?limit=1&after=x_1&q[]=a&q[]=b", "?limit=1&after=x_2&q[]=a&q[]=b"]
        found = [target.replace("%5B%5D", "[]") for target in server.targets]
        assert [sorted(each.split("&")) for each in found] == [sorted((path + each).split("&")) for each in pages]
        assert {(seen.header("x-more"), seen.body) for seen in server.seen} == {("1", b'{"filter":1}')}


async def test_a_cursor_among_the_extras_applies_to_the_first_page_only() -> None:
    async with RecordingServer(*THREE_PAGES, *THREE_PAGES) as server, Client(server.base_url) as client:
        listed = client.threads.list(extra_query={"after": "x_0"})
        assert [item.id async for item in listed] == ["x_1", "x_2", "x_3"]
        assert server.targets == [f"/v1/threads?after=x_{number}" for number in range(3)]
        del server.seen[:]
        assert [item.id async for item in client.threads.list(extra_query={"before": "x_9"})] == ["x_1"]


async def test_the_timeout_of_a_list_applies_to_each_page() -> None:
    first = reply(200, {"data": [{"id": "x_1"}], "has_more": True})
    async with RecordingServer(first, SILENCE) as server, Client(server.base_url, max_retries=0) as client:
        found = []
        began = now()
        with pytest.raises(APITimeoutError):
            async for item in client.threads.list(request_timeout=2):
                found.append(item.id)
        assert found == ["x_1"]
        assert now() - began == pytest.approx(2, abs=0.1)
