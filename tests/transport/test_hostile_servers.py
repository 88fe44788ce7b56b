"""Servers that send too much, too little or too late: what is accepted, and which connection is used afterwards."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import pytest
from recording_server import SILENCE, RecordingServer, Seen, reply
from transports import make_transport, over

from asyncruns import APIConnectionError, APITimeoutError
from asyncruns.http import Request
from asyncruns.transport.base import MAX_CONNECTIONS

GET: Final = Request("GET", "/x")
ANSWER: Final = reply(200, {"whose": "ours"})
OTHERS: Final = reply(200, {"whose": "not ours"})

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """Serve each connection with a function, and yield the base URL."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(task := asyncio.current_task())
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1024)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        left = [task for task in tasks if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left)
        await server.wait_closed()


def echo_of(head: bytes) -> bytes:
    return reply(200, head.split(b" ")[1])


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that the client receives a reset."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@over("httptools")  # over aiohttp the connection is used further, after the second answer was dropped
@pytest.mark.parametrize("joined", [True, False], ids=["at once", "in a moment"])
async def test_a_second_answer_is_discarded(joined: bool) -> None:

    def twice(seen: Seen) -> AsyncGenerator[bytes, None]:
        async def pieces() -> AsyncGenerator[bytes, None]:
            yield ANSWER + OTHERS if joined else ANSWER
            await asyncio.sleep(0.5)
            yield OTHERS
            await asyncio.Event().wait()

        return pieces()

    async with RecordingServer(twice, ANSWER) as server:
        transport = make_transport(server.base_url)
        assert (await transport.send(GET)).body == b'{"whose": "ours"}'
        await asyncio.sleep(1)
        assert (await transport.send(GET)).body == b'{"whose": "ours"}'
        assert server.connections == 2
        await transport.aclose()


@over("httptools")  # over aiohttp the next request fails
@pytest.mark.parametrize("more", [b"H", b"x", b"HTTP/1.1 200 OK\r\n", OTHERS, b"\0" * 100_000])
async def test_any_bytes_after_an_answer_close_the_connection(more: bytes) -> None:
    async with RecordingServer(ANSWER + more, ANSWER) as server:
        transport = make_transport(server.base_url)
        for _ in range(2):
            assert (await transport.send(GET)).body == b'{"whose": "ours"}'
        assert server.connections == 2
        await transport.aclose()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_answer_without_a_request_is_discarded(method: str) -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
            if connections == 1:
                await asyncio.sleep(1)
                writer.write(OTHERS)

    async with serving(handler) as base_url:
        transport = make_transport(base_url)
        for _ in range(3):
            assert (await transport.send(Request(method, "/x"))).body == b'{"whose": "ours"}'
            await asyncio.sleep(2)
        assert connections == 2
        await transport.aclose()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_that_was_closed_while_idle_is_not_used(method: str) -> None:
    served = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        served += 1
        writer.write(ANSWER)
        await asyncio.sleep(1)

    async with serving(handler) as base_url:
        transport = make_transport(base_url)
        for _ in range(5):
            assert (await transport.send(Request(method, "/x"))).status == 200
            await asyncio.sleep(2)
        assert served == 5
        await transport.aclose()


async def test_a_reset_at_any_byte_is_a_lost_answer() -> None:
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER[:sent])
        await writer.drain()
        await asyncio.sleep(0.01)
        reset(writer)

    async with serving(handler) as base_url:
        while sent < len(ANSWER):
            transport = make_transport(base_url, request_timeout=5)
            with pytest.raises(APIConnectionError) as caught:
                await transport.send(Request("POST", "/x"))
            assert caught.value.sent
            assert not isinstance(caught.value, APITimeoutError)
            await transport.aclose()
            sent += 1


@pytest.mark.parametrize(
    "answer", [ANSWER, b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, b"HTTP/1.1 200 OK\r\nX: " + b"y" * 500]
)
async def test_an_answer_that_drips_ends_at_the_timeout_of_the_request(answer: bytes) -> None:
    def drips(seen: Seen) -> AsyncGenerator[bytes, None]:
        async def pieces() -> AsyncGenerator[bytes, None]:
            for byte in answer:
                yield bytes([byte])
                await asyncio.sleep(1)

        return pieces()

    loop = asyncio.get_running_loop()
    async with RecordingServer(drips) as server:
        transport = make_transport(server.base_url)
        began = loop.time()
        with pytest.raises(APITimeoutError) as caught:
            await transport.send(Request("GET", "/x", timeout=4.5))
        assert caught.value.sent
        assert loop.time() - began == pytest.approx(4.5)
        await transport.aclose()


ENDLESS: Final = {
    "a header": (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 10_000),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000),
    "a reason": (b"HTTP/1.1 200 ", b"OK" * 5000),
    "answers of 1xx": (b"", b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 100),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 1000),
    "an extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=", b"y" * 10_000),
}


@over("httptools")
@pytest.mark.parametrize("name", ENDLESS)
async def test_heads_and_framing_are_not_read_endlessly(name: str) -> None:
    start, more = ENDLESS[name]
    sent = 0

    def endless(seen: Seen) -> AsyncGenerator[bytes, None]:
        async def pieces() -> AsyncGenerator[bytes, None]:
            nonlocal sent
            yield start
            while True:
                yield more
                sent += len(more)
                await asyncio.sleep(0)

        return pieces()

    async with RecordingServer(endless) as server:
        transport = make_transport(server.base_url)
        with pytest.raises(APIConnectionError, match="bytes came around the body"):
            await transport.send(GET)
        assert sent < 10_000_000  # as much as fits into the buffers of the sockets
        await transport.aclose()


@over("httptools")  # aiohttp warns about such large bodies
async def test_an_answer_before_the_request_was_read_is_accepted_and_the_connection_closed() -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await asyncio.sleep(5)  # the large body is not read

    async with serving(handler) as base_url:
        transport = make_transport(base_url, request_timeout=60)
        response = await transport.send(Request("POST", "/x", body=b"x" * 20_000_000))
        assert response.body == b'{"whose": "ours"}'
        assert (await transport.send(GET)).status == 200
        assert connections == 2
        await transport.aclose()


# Many requests at once


@pytest.mark.slow
async def test_a_thousand_requests_over_connections_that_close_at_any_time_get_their_own_answers() -> None:
    chance = random.Random(1)
    served: Counter[bytes] = Counter()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            served[head.split(b" ")[1]] += 1
            writer.write(echo_of(head))
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.003)
                if chance.random() < 0.5:
                    reset(writer)
                return

    async with serving(handler) as base_url:
        transport = make_transport(base_url, request_timeout=5)
        lost = 0

        async def one(number: int) -> None:
            nonlocal lost
            path = f"/{number}"
            method = "POST" if number % 4 == 0 else "GET"
            await asyncio.sleep(number * 0.0005)
            try:
                response = await transport.send(Request(method, path))
            except APIConnectionError:
                lost += 1
            else:
                assert response.body.decode() == f"/v1{path}"

        await asyncio.gather(*map(one, range(1000)))
        await transport.aclose()
    assert max(served.values()) == 1
    assert lost < 200


@pytest.mark.slow
async def test_cancelled_requests_never_pass_their_answers_to_others() -> None:
    chance = random.Random(2)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            answer, cut = echo_of(head), chance.randrange(100)
            writer.write(answer[:cut])
            await asyncio.sleep(chance.random() * 0.01)
            writer.write(answer[cut:])

    async with serving(handler) as base_url:
        transport = make_transport(base_url, request_timeout=100)
        answered = cancelled = 0

        async def one(number: int) -> None:
            nonlocal answered
            response = await transport.send(Request("GET", f"/{number}"))
            assert response.body.decode() == f"/v1/{number}"
            answered += 1

        async def one_of_many(number: int) -> None:
            nonlocal cancelled
            await asyncio.sleep(chance.random() * 0.2)
            task = asyncio.create_task(one(number))
            if number % 3 == 0:
                await asyncio.sleep(chance.random() * 0.015)
                task.cancel()
                cancelled += 1
            await asyncio.gather(task, return_exceptions=number % 3 == 0)

        await asyncio.gather(*map(one_of_many, range(1000)))
        assert answered >= 666
        assert (await transport.send(GET)).status == 200
        await transport.aclose()


async def test_there_are_at_most_100_connections_although_requests_are_cancelled() -> None:
    open_now = most = 0
    order: list[int] = []  # of the requests that reached the server

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                order.append(int(head.split(b" ")[1].removeprefix(b"/v1/")))
                await asyncio.sleep(1)
                writer.write(echo_of(head))
        finally:
            open_now -= 1

    async with serving(handler) as base_url:
        transport = make_transport(base_url)
        tasks = [asyncio.create_task(transport.send(Request("GET", f"/{number}"))) for number in range(400)]
        await asyncio.sleep(0.5)
        for gone in (*range(0, 100, 9), *range(100, 400, 7)):  # both in flight and waiting
            tasks[gone].cancel()
        await asyncio.wait(tasks)
        await transport.aclose()
    assert most <= MAX_CONNECTIONS + len(range(0, 100, 9))  # the server has not yet noticed that these are gone
    assert sorted(order) == [n for n in range(400) if n < MAX_CONNECTIONS or n % 7 != 2]


@over("httptools")
async def test_requests_that_wait_are_served_in_order() -> None:
    order: list[int] = []

    def answer(seen: Seen) -> bytes:
        order.append(int(seen.target.rpartition("/")[2]))
        return reply()

    async with RecordingServer(answer) as server:
        transport = make_transport(server.base_url)
        await asyncio.gather(*(transport.send(Request("GET", f"/{number}")) for number in range(MAX_CONNECTIONS)))
        order.clear()
        await asyncio.gather(*(transport.send(Request("GET", f"/{number}")) for number in range(1000)))
        await transport.aclose()
    waited = order[MAX_CONNECTIONS:]
    assert all(abs(place + MAX_CONNECTIONS - number) <= MAX_CONNECTIONS for place, number in enumerate(waited))


async def test_a_request_that_waits_for_a_connection_times_out() -> None:
    async with RecordingServer(SILENCE) as server:
        transport = make_transport(server.base_url, request_timeout=50)
        busy = [asyncio.create_task(transport.send(GET)) for _ in range(MAX_CONNECTIONS)]
        await asyncio.sleep(1)
        with pytest.raises(APITimeoutError):
            await transport.send(Request("GET", "/x", timeout=3))
        assert len(server.seen) == MAX_CONNECTIONS
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)
        await transport.aclose()


async def test_a_request_that_changes_something_gets_a_new_connection_although_all_are_taken() -> None:
    script = [*[reply()] * MAX_CONNECTIONS, SILENCE, reply()]
    async with RecordingServer(*script) as server:
        transport = make_transport(server.base_url, request_timeout=5)
        await asyncio.gather(*(transport.send(GET) for _ in range(MAX_CONNECTIONS)))
        with pytest.raises(APITimeoutError):
            await transport.send(GET)  # this makes the idle connections suspect
        assert (await transport.send(Request("POST", "/x"))).status == 200
        await transport.aclose()


# Timeouts


async def closed_after(seconds: float, **headers: str) -> bool:
    """Return whether the client closes an idle connection after this many seconds, plus or minus 0.1."""
    closed_at = 0.0
    loop = asyncio.get_running_loop()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal closed_at
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(**headers))
        await reader.read()
        closed_at = loop.time()

    async with serving(handler) as base_url:
        transport = make_transport(base_url)
        await transport.send(GET)
        began = loop.time()
        await asyncio.sleep(200)
        await transport.aclose()
    return seconds - 0.1 <= closed_at - began <= seconds + 0.1


@over("httptools")
async def test_an_idle_connection_is_closed_before_the_server_does() -> None:
    assert await closed_after(65)
    assert await closed_after(4, Keep_Alive="timeout=5, max=100")
    assert await closed_after(0.5, Keep_Alive="Timeout = 1")
    assert await closed_after(65, Keep_Alive="timeout=900")
    assert await closed_after(65, Keep_Alive="max=3")


async def test_a_request_that_is_cancelled_anywhere_leaves_nothing_behind() -> None:
    """Cancel after 0, 1, 2, ... passes of the loop, until the answer arrives before the cancellation."""
    async with RecordingServer(reply()) as server:
        ended: list[bool] = []
        for passes in range(60):
            transport = make_transport(server.base_url)
            sending = asyncio.create_task(transport.send(GET))
            for _ in range(passes):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait({sending})
            ended.append(sending.cancelled())
            assert (await transport.send(GET)).status == 200
            await transport.aclose()
    assert set(ended) == {True, False}


async def test_closing_fails_requests_that_wait_for_a_connection() -> None:
    async with RecordingServer(SILENCE) as server:
        transport = make_transport(server.base_url)
        tasks = [asyncio.create_task(transport.send(GET)) for _ in range(MAX_CONNECTIONS + 5)]
        await asyncio.sleep(1)
        await transport.aclose()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in done} == {APIConnectionError}
