"""Answers that are none: each a clear error with its first bytes, soon, and without filling the memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import pytest
from operations import LISTS, OPERATIONS, Operation
from recording_server import Answer, RecordingServer, Seen, reply
from transports import make_transport

from asyncruns import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    Client,
    Completed,
    RunRef,
    RunWatcher,
)
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.http import Request
from asyncruns.transport.base import HTTPTransport
from asyncruns.wire import Message

MIB: Final = 1024 * 1024
LIMIT: Final = MIB // 4
HTML: Final = "<!DOCTYPE html><html><title>502 at the proxy</title>"
OBJECTS = [operation for operation in OPERATIONS if operation not in LISTS]
DEEP: Final = 100_000

BROKEN: dict[str, tuple[bytes, str]] = {
    "HTML": (HTML.encode(), HTML),
    "3 MB of HTML": ((HTML + "<p>x</p>" * (3 * MIB // 8)).encode(), HTML),
    "truncated JSON": (b'{"id": "x_1", "status": "que', '{"id": "x_1", "status": "que'),
    "nothing": (b"", "empty"),
    "invalid UTF-8": (b'{"id": "\xff\xfe", "data": "\xff"}', '{"id": "\ufffd\ufffd", "data": "\ufffd"}'),
    "UTF-16": ('{"id": "x_1"}'.encode("utf-16"), "\ufffd"),
    "a text": (b'"x_1"', '"x_1"'),
    "null": (b"null", "null"),
    "a list of lists": (b"[[]]", "[[]]"),
    "an object in an object": (b'{"result": {"id": "x_1"}}', '{"result": {"id": "x_1"}}'),
    "deep lists": (b"[" * DEEP, "[" * 300 + "..."),
    "deep objects": (b'{"id":' * DEEP + b"1" + b"}" * DEEP, '{"id":' * 50 + "..."),
    "deep metadata": (b'{"metadata":' * DEEP, '{"metadata":' * 25 + "..."),
    "two objects": (b'{"id": "x_1", "status": "a", "data": []}{}', '{"id": "x_1", "status": "a", "data": []}{}'),
    "zeros": (b"\0" * 1000, "\ufffd" * 300 + "..."),
}


def as_json(body: bytes, status: int = 200) -> bytes:
    return reply(status, body, Content_Type="application/json", X_Request_Id="req_1")


async def error_of(operation: Operation, answer: Answer) -> APIResponseValidationError:
    async with RecordingServer(answer) as server, Client(server.base_url) as client:
        with pytest.raises(APIResponseValidationError) as caught:
            await operation.call(client)
        assert len(server.seen) == 1, "it is not asked again"
        return caught.value


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_body_is_an_error_with_its_first_bytes(name: str) -> None:
    body, shown = BROKEN[name]
    for operation in (OPERATIONS[0], OPERATIONS[1], *LISTS[:1]):
        error = await error_of(operation, as_json(body))
        assert (error.status, error.request_id, error.body) == (200, "req_1", body)
        assert f"{operation.method} {operation.path} answered 200 with a body that is not of this API" in str(error)
        assert shown in str(error)
        assert "(request id req_1)" in str(error)
        assert len(str(error)) < 1000


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_no_operation_takes_html_for_its_answer(operation: Operation) -> None:
    error = await error_of(operation, reply(200, HTML, X_Request_Id="req_1"))
    assert f"text/html): {HTML}" in str(error)
    assert (error.status, error.request_id) == (200, "req_1")


@pytest.mark.parametrize("operation", OBJECTS, ids=str)
async def test_a_list_is_no_object(operation: Operation) -> None:
    assert '[{"id": "x_1", "status": "queued"}]' in str(
        await error_of(operation, reply(200, [{"id": "x_1", "status": "queued"}]))
    )


@pytest.mark.parametrize("operation", LISTS, ids=str)
async def test_an_object_or_a_bare_list_is_no_page(operation: Operation) -> None:
    for body in ({"id": "x_1", "status": "queued"}, [{"id": "x_1", "status": "queued"}], {"data": {"id": "x_1"}}):
        assert json.dumps(body) in str(await error_of(operation, reply(200, body)))


@pytest.mark.parametrize("status", [400, 404, 500, 502])
async def test_an_error_status_over_a_huge_page_is_that_error(status: int) -> None:
    answer = reply(status, HTML + "<p>x</p>" * (3 * MIB // 8))
    async with RecordingServer(answer) as server, Client(server.base_url, max_retries=0) as client:
        with pytest.raises(APIStatusError, match="502 at the proxy") as caught:
            await client.threads.retrieve("thread_1")
    assert caught.value.status == status
    assert len(str(caught.value)) < 1000


# Bodies without end


class Flood:
    """An answer that never ends: `chunk` again and again, every `pause` seconds."""

    def __init__(self, chunk: bytes = b'"' + b"x" * 65_535, *, pause: float = 0.0, status: int = 200) -> None:
        self.sent = 0
        self.closed = asyncio.Event()
        self._chunk, self._pause, self._status = chunk, pause, status

    def __call__(self, seen: Seen) -> AsyncGenerator[bytes, None]:
        return self._pieces()

    async def is_closed(self) -> bool:
        """Tell whether the client has closed the connection, or does so in a moment."""
        for _ in range(100):
            if not self.closed.is_set():
                await asyncio.sleep(1)
        return self.closed.is_set()

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            yield f"HTTP/1.1 {self._status} OK\r\nX-Request-Id: req_1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            while True:
                yield b"%x\r\n%b\r\n" % (len(self._chunk), self._chunk)
                self.sent += len(self._chunk)
                await asyncio.sleep(self._pause)
        finally:
            self.closed.set()


def bomb(size: int) -> Callable[[Seen], AsyncGenerator[bytes, None]]:
    """Make an answer of so many bytes, in few."""
    packed = gzip.compress(b" " * size)
    assert len(packed) < size / 500

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"HTTP/1.1 200 OK\r\nX-Request-Id: req_1\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
        yield f"Content-Length: {len(packed)}\r\n\r\n".encode()
        yield packed
        await asyncio.Event().wait()

    return lambda seen: pieces()


@asynccontextmanager
async def transport_to(*script: Answer, max_body: int = LIMIT) -> AsyncIterator[HTTPTransport]:
    async with RecordingServer(*script) as server:
        transport = make_transport(server.base_url, max_body=max_body)
        yield transport
        await transport.aclose()


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_a_body_without_end_is_refused_at_the_limit_and_its_connection_closed(status: int) -> None:
    flood = Flood(status=status)
    async with transport_to(flood) as transport:
        with memory_below(4 * LIMIT), pytest.raises(APIResponseValidationError) as caught:
            await transport.send(Request("GET", "/threads/thread_1"))
        assert await flood.is_closed()
    error = caught.value
    assert f"GET /threads/thread_1 answered {status} with more than {LIMIT} bytes" in str(error)
    assert (error.status, error.request_id) == (status, "req_1")
    assert error.body == b'"' + b"x" * 299
    assert flood.sent < 64 * LIMIT  # what fits into the sockets on the way


@pytest.mark.parametrize("streams", [False, True])
async def test_a_small_body_that_becomes_huge_is_refused_at_the_limit(streams: bool) -> None:
    async with transport_to(bomb(64 * MIB)) as transport:
        send = transport.stream if streams else transport.send
        with memory_below(16 * LIMIT), pytest.raises(APIResponseValidationError, match="more than") as caught:
            await send(Request("GET", "/threads/thread_1"))
    assert (caught.value.status, caught.value.request_id) == (200, "req_1")
    assert caught.value.body == b" " * 300


async def test_a_body_that_drips_without_end_is_a_timeout() -> None:
    flood = Flood(b" ", pause=1.0)
    async with transport_to(flood) as transport:
        began = asyncio.get_running_loop().time()
        with pytest.raises(APITimeoutError):
            await transport.send(Request("GET", "/threads/thread_1"))
        assert 30 <= asyncio.get_running_loop().time() - began < 32
        assert await flood.is_closed()


async def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    async with transport_to(reply(200, b"x" * 1000), reply(200, b"x" * 1001), max_body=1000) as transport:
        assert len((await transport.send(Request("GET", "/x"))).body) == 1000
        with pytest.raises(APIResponseValidationError, match="more than 1000 bytes"):
            await transport.send(Request("GET", "/x"))


async def test_the_connection_pool_survives_a_flood() -> None:
    async with transport_to(*[Flood()] * 3, reply()) as transport:
        for _ in range(3):
            with pytest.raises(APIResponseValidationError):
                await transport.send(Request("GET", "/x"))
        assert (await transport.send(Request("GET", "/x"))).status == 200


async def test_a_header_without_end_is_a_broken_connection() -> None:
    async with transport_to(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * MIB) as transport:
        with pytest.raises(APIConnectionError) as caught:
            await transport.send(Request("GET", "/x"))
    assert caught.value.sent
    assert len(str(caught.value)) < 1000


# A watch


class Link:
    """A connection whose transport reads little."""

    def __init__(self, transport: HTTPTransport) -> None:
        self.transport = transport
        self.dialect = ThreadRunDialect()

    async def answer(self, ref: RunRef) -> list[Message]:
        return []


def run(status: str, **more: object) -> bytes:
    return reply(200, {"id": "run_1", "thread_id": "thread_1", "status": status, **more})


TROUBLE: dict[str, Callable[[], Answer]] = {
    "a flood": Flood,
    "a flood of a 500": lambda: Flood(status=500),
    "a bomb": lambda: bomb(16 * MIB),
    "a drip": lambda: Flood(b" ", pause=1.0),
    "HTML": lambda: reply(200, HTML),
    "3 MB of HTML": lambda: reply(200, BROKEN["3 MB of HTML"][0]),
    "deep lists": lambda: reply(200, BROKEN["deep lists"][0]),
    "another object": lambda: reply(200, [1]),
    "nothing": lambda: reply(200, b""),
}


@pytest.mark.parametrize("name", TROUBLE)
async def test_a_poll_that_is_answered_badly_is_not_the_end_of_the_wait(name: str) -> None:
    trouble = [TROUBLE[name]() for _ in range(3)]
    async with transport_to(run("in_progress"), *trouble, run("completed")) as transport:
        link: Any = Link(transport)
        async with RunWatcher(link, thread_id="thread_1", run_id="run_1", max_outage=120) as watcher:
            outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert outcome.polls == 5
