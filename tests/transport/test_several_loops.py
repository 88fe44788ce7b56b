"""One client in several event loops: one after another it serves them all, two at a time are refused."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Generic, TypeVar

import aiohttp
import pytest
from certificates import server_context, trusting_context
from recording_server import RecordingServer
from transports import LIBRARIES

from asyncruns import APIConnectionError, BearerAuth, Client, ConfigurationError
from asyncruns.testing import Emulator, Scenario
from asyncruns.testing.emulator.scenario import RunRequest, default_scenario
from asyncruns.wire import Thread

S = TypeVar("S", bound=AbstractAsyncContextManager[Any])

PROGRAM = """
import asyncio, sys
from asyncruns import BearerAuth, Cadence, Client, Fleet, Toolset

async def token():
    return "a token"

client = Client(sys.argv[1], http=sys.argv[2], auth=BearerAuth(token))
tools = Toolset(max_concurrency=1)
pause = Cadence.fixed(0.05)

@tools.tool
def add(a: int) -> int:
    return a + 1

async def main():
    assistant = await client.assistants.create(model="m", tools=tools.definitions())
    outcome = await client.run(assistant_id=assistant.id, message="Hello", tools=tools, cadence=pause)
    async with Fleet(client, tools=tools, cadence=pause) as fleet:
        for _ in range(3):
            fleet.watch(await client.threads.create_and_run(assistant_id=assistant.id))
        statuses = [each.status async for each in fleet]
    async with client.threads.runs.stream(thread_id=outcome.ref.ids[0], assistant_id=assistant.id) as stream:
        async for event in stream:
            pass
    print(outcome.status, *statuses)

for _ in range(2):
    asyncio.run(main(), debug=False)  # in debug mode, which `-X dev` turns on, asyncio reports slow callbacks
"""


class _InAnotherLoop(Generic[S]):
    """A server in a loop and a thread of its own, so that the loops of a test come and go."""

    def __init__(self, server: S) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> S:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.__aenter__(), self._loop).result()
        return self._server

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._server.__aexit__(None, None, None), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _quick(request: RunRequest) -> Scenario:
    return replace(default_scenario(request), queued=0.0, working=0.02)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_global_client_serves_each_asyncio_run_and_leaves_nothing_open(library: str) -> None:
    with _InAnotherLoop(Emulator(_quick)) as emulator:
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, emulator.base_url, library]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [" ".join(["completed"] * 4)] * 2


@pytest.mark.parametrize("http", LIBRARIES, indirect=True)
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
def test_the_connections_of_a_loop_are_closed_when_it_ends(is_tls: bool) -> None:
    with _InAnotherLoop(RecordingServer(tls=server_context("right") if is_tls else None)) as server:
        base_url = server.base_url.replace("http:", "https:") if is_tls else server.base_url
        client = Client(base_url, auth=BearerAuth("sk-1"), ssl=trusting_context() if is_tls else True)

        async def twice() -> None:
            await client.threads.retrieve("thread_1")
            await client.threads.retrieve("thread_1")

        for loops in (1, 2, 3):
            asyncio.run(twice())
            assert server.connections == loops
        asyncio.run(client.close())
        gc.collect()  # a warning of a transport that was left open would be an error here


@pytest.mark.parametrize("http", LIBRARIES, indirect=True)
def test_a_client_that_was_closed_stays_closed_in_the_next_loop() -> None:
    with _InAnotherLoop(RecordingServer()) as server:
        client = Client(server.base_url)

        async def within() -> None:
            async with client:
                await client.threads.retrieve("thread_1")

        asyncio.run(within())
        with pytest.raises(ConfigurationError, match="The client is closed"):
            asyncio.run(within())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("http", LIBRARIES, indirect=True)
@pytest.mark.parametrize("ends_with", ["a request", "close"])
def test_a_loop_that_was_closed_by_hand_leaves_the_client_usable(ends_with: str) -> None:
    with _InAnotherLoop(RecordingServer()) as server:
        client = Client(server.base_url)

        async def ask() -> None:
            await client.threads.retrieve("thread_1")

        for _ in range(2):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(ask())
            loop.close()  # without `shutdown_asyncgens`, so the sockets are left to the garbage collector
        if ends_with == "a request":
            asyncio.run(ask())
        asyncio.run(client.close())
        with pytest.raises(ConfigurationError, match="The client is closed"):
            asyncio.run(ask())
        gc.collect()


@pytest.mark.parametrize("http", LIBRARIES, indirect=True)
def test_two_loops_at_a_time_are_refused_with_the_line_to_write() -> None:
    client = Client("http://127.0.0.1:9/v1", max_retries=0)

    async def ask() -> None:
        await client.threads.retrieve("thread_1")

    with asyncio.Runner() as first:
        with pytest.raises(APIConnectionError):
            first.run(ask())
        with asyncio.Runner() as second, pytest.raises(ConfigurationError, match=r"`async with Client\(\.\.\.\)"):
            second.run(ask())
        with pytest.raises(APIConnectionError):
            first.run(ask())
        first.run(client.close())


@pytest.mark.parametrize("http", LIBRARIES, indirect=True)
def test_a_borrowed_session_of_another_loop_is_refused() -> None:
    async def open_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    async def ask(session: aiohttp.ClientSession) -> None:
        await Client("http://127.0.0.1:9/v1", session=session).threads.retrieve("thread_1")

    with asyncio.Runner() as first:
        session = first.run(open_session())
        with asyncio.Runner() as second, pytest.raises(ConfigurationError, match="belongs to another event loop"):
            second.run(ask(session))
        first.run(session.close())


@pytest.mark.parametrize("http", LIBRARIES, indirect=True)
def test_an_asynchronous_generator_may_close_the_client_while_the_loop_ends() -> None:
    with _InAnotherLoop(RecordingServer()) as server:
        client = Client(server.base_url)

        async def reads() -> AsyncGenerator[Thread]:
            try:
                while True:
                    yield await client.threads.retrieve("thread_1")
            finally:
                await client.close()

        async def main() -> None:
            await anext(reading)

        reading = reads()
        asyncio.run(main())
        with pytest.raises(ConfigurationError, match="The client is closed"):
            asyncio.run(anext_of(reads()))


async def anext_of(reads: AsyncGenerator[Thread]) -> Thread:
    return await anext(reads)
