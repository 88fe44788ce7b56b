"""The choice of connections: a request is sent once, and not over one that is dead or about to be closed."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator

import aiohttp
import pytest
from recording_server import DROP, SILENCE, RecordingServer, Seen, reply
from transports import make_transport

from asyncruns import APIConnectionError, APITimeoutError, Client
from asyncruns.client.options import ClientOptions
from asyncruns.http import Request
from asyncruns.transport.trust import CHANGES_DISTRUST_S, KEPT_AFTER_S


@pytest.fixture(params=[False, True], ids=["own", "borrowed"])
async def session(request: pytest.FixtureRequest) -> AsyncIterator[aiohttp.ClientSession | None]:
    if not request.param:
        yield None
        return
    async with aiohttp.ClientSession() as session:
        yield session


Session = aiohttp.ClientSession | None


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "POST"])
@pytest.mark.parametrize("answer", [DROP, b"HTTP/1.1 200 OK\r\nContent-Le"], ids=["nothing", "half a head"])
async def test_a_request_whose_connection_breaks_is_sent_once(session: Session, method: str, answer: bytes) -> None:
    async with RecordingServer(reply(), answer) as server:
        transport = make_transport(server.base_url, session=session)
        await transport.send(Request("GET", "/warm"))
        for send in (transport.send, transport.stream):
            server.seen.clear()
            with pytest.raises(APIConnectionError) as caught:
                await send(Request(method, "/x"))
            assert caught.value.sent is True
            assert len(server.seen) == 1
        await transport.aclose()


@pytest.mark.parametrize("retries", [0, 2, 3])
async def test_a_read_is_sent_again_max_retries_times(session: Session, retries: int) -> None:
    async with (
        RecordingServer(lambda seen: DROP) as server,
        Client(server.base_url, session=session, max_retries=retries) as client,
    ):
        with pytest.raises(APIConnectionError):
            await client.threads.retrieve("thread_1")
    assert len(server.seen) == 1 + retries


async def test_the_middlewares_of_a_borrowed_session_run() -> None:
    async def signs(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        request.headers["x-signed"] = "yes"
        return await handler(request)

    async with RecordingServer() as server, aiohttp.ClientSession(middlewares=[signs]) as session:
        client = Client(server.base_url, session=session)
        await client.threads.create()
    assert server.seen[0].header("x-signed") == "yes"


def closing(seen: Seen) -> AsyncGenerator[bytes, None]:
    """Answer, and close the connection a moment later without announcing it."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield reply()
        await asyncio.sleep(0.02)

    return pieces()


async def test_a_server_that_closes_each_connection_unannounced_gets_every_post_once(session: Session) -> None:
    async with RecordingServer(closing) as server, Client(server.base_url, session=session, max_retries=0) as client:
        for _ in range(5):
            await client.threads.create()
    assert len(server.seen) == server.connections == 5


async def test_a_server_that_keeps_its_connections_gets_posts_over_them(session: Session) -> None:
    async with RecordingServer() as server, Client(server.base_url, session=session) as client:
        await client.threads.retrieve("thread_1")
        await client.threads.retrieve("thread_1")
        for _ in range(5):
            await client.threads.create()
        assert server.connections == 1


async def test_a_connection_that_stayed_open_for_a_while_is_used_for_posts(session: Session) -> None:
    async with RecordingServer() as server, Client(server.base_url, session=session) as client:
        await client.threads.create()
        await asyncio.sleep(KEPT_AFTER_S)
        await client.threads.create()
        assert server.connections == 1


async def test_after_a_lost_answer_reads_share_a_new_connection(session: Session) -> None:
    script = [reply(), reply(), DROP, *[reply()] * 20]
    options: ClientOptions = {"session": session, "max_retries": 0}
    async with RecordingServer(*script) as server, Client(server.base_url, **options) as client:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(client.threads.retrieve("thread_1"))
        with pytest.raises(APIConnectionError):
            await client.threads.retrieve("thread_1")
        assert server.connections == 2
        for _ in range(20):
            await client.threads.retrieve("thread_1")
        assert server.connections == 3  # not the other old connection, and not one for each read


@pytest.mark.parametrize("lost", [DROP, SILENCE], ids=["a broken connection", "no answer"])
async def test_after_a_lost_answer_requests_that_change_something_use_new_connections(
    session: Session, lost: bytes | None
) -> None:
    script = [reply(), reply(), lost, reply()]
    options: ClientOptions = {"session": session, "max_retries": 0, "request_timeout": 5}
    async with RecordingServer(*script) as server, Client(server.base_url, **options) as client:
        await client.threads.retrieve("thread_1")
        await client.threads.retrieve("thread_1")
        with pytest.raises(APIConnectionError):
            await client.threads.create()
        assert server.connections == 1
        for made in (2, 3):  # each over a connection of its own, whatever the pool holds
            await client.threads.create()
            assert server.connections == made
        await asyncio.sleep(CHANGES_DISTRUST_S)
        await client.threads.retrieve("thread_1")
        await client.threads.retrieve("thread_1")
        before = server.connections
        await client.threads.create()
        assert server.connections == before


async def test_a_read_that_is_sent_again_uses_a_new_connection(session: Session) -> None:
    pooled = 3

    def answer(seen: Seen) -> bytes:
        # From the third connection on, all earlier ones are dead; only a new one works.
        return reply() if len(server.seen) <= pooled or server.connections > pooled else DROP

    async with RecordingServer(answer) as server, Client(server.base_url, session=session, max_retries=2) as client:
        await asyncio.gather(*(client.threads.retrieve("thread_1") for _ in range(pooled)))
        assert server.connections == pooled
        await client.threads.retrieve("thread_1")
    assert server.connections == pooled + 1
    assert len(server.seen) == pooled + 2


async def test_silence_of_one_run_does_not_make_a_pool_suspect_over_which_others_are_answered() -> None:
    def silent(seen: Seen) -> bytes | AsyncGenerator[bytes, None]:
        async def never() -> AsyncGenerator[bytes, None]:
            await asyncio.sleep(1000)
            yield b""

        return never() if "slow" in seen.target else reply()

    async with RecordingServer(silent) as server, Client(server.base_url, max_retries=0, request_timeout=5) as client:
        slow = asyncio.create_task(client.threads.retrieve("slow"))
        for _ in range(8):
            await client.threads.retrieve("thread_1")
            await asyncio.sleep(1)
        with pytest.raises(APITimeoutError):
            await slow
        assert server.connections == 2


@pytest.mark.real_time
async def test_a_connection_that_was_closed_while_the_loop_was_blocked_is_not_used(session: Session) -> None:
    """The server closes while code blocks the loop; a POST follows at once."""
    served = 0
    is_closed = threading.Event()

    def serve() -> None:
        nonlocal served
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                served += len(connection.recv(65536)) > 0
                connection.sendall(reply())
            is_closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        transport = make_transport(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", session=session)
        transport._trust.keeps = True
        await transport.send(Request("GET", "/x"))
        is_closed.wait(5)
        response = await transport.send(Request("POST", "/x"))
        await transport.aclose()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert (response.status, served) == (200, 2)


@pytest.mark.parametrize("for_all", [True, False], ids=["default_headers", "extra_headers"])
async def test_connection_close_keeps_a_connection_out_of_the_pool(session: Session, for_all: bool) -> None:
    close = {"Connection": "close"}
    async with (
        RecordingServer() as server,
        Client(server.base_url, session=session, default_headers=close if for_all else None) as client,
    ):
        for _ in range(3):
            await client.threads.retrieve("thread_1", extra_headers=None if for_all else close)
    assert server.connections == 3
    assert {seen.header("Connection") for seen in server.seen} == {"close"}


async def test_many_posts_in_a_row_do_not_each_need_a_connection() -> None:
    async with RecordingServer() as server, Client(server.base_url) as client:
        for _ in range(20):
            await client.threads.create()
            await asyncio.sleep(KEPT_AFTER_S / 4)
        assert server.connections <= 6


async def test_a_borrowed_object_may_merely_resemble_a_session() -> None:
    class Wrapper:
        """Like the client of aiohttp-retry: it has the methods of a session, and nothing else."""

        closed = False

        def __init__(self, session: aiohttp.ClientSession) -> None:
            self.request = session.request

    async with RecordingServer() as server, aiohttp.ClientSession() as session:
        client = Client(server.base_url, session=Wrapper(session))  # type: ignore[arg-type]
        await client.threads.create()
        await client.threads.retrieve("thread_1")
    assert len(server.seen) == 2
