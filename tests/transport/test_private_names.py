"""The private names of aiohttp and anyio that are used: each exists, and does what it is used for.

If a test fails, the installed version of the library lacks a name; the message says what users lose without it.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
from recording_server import RecordingServer, Seen, reply

from asyncruns import _private as private
from asyncruns._private import arrived, close_idle, close_stray, has_idle, middlewares_of

OVER = ("aiohttp",)


async def test_the_middlewares_of_a_session_are_found() -> None:
    async def theirs(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        return await handler(request)

    async with aiohttp.ClientSession(middlewares=[theirs]) as session, aiohttp.ClientSession() as bare:
        assert middlewares_of(session) == (theirs,), (
            "ClientSession._middlewares is gone: the middlewares of a session passed as session= do not run"
        )
        assert middlewares_of(bare) == ()


async def test_the_idle_connections_of_a_pool_are_found_and_closed() -> None:
    lost = (
        "BaseConnector._conns is gone: a request that changes something may go over a connection that is about to be "
        "closed, and with session= it may be sent again over a dead one"
    )
    keys = []

    async def note(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        keys.append(request.connection_key)
        return await handler(request)

    async with RecordingServer() as server, aiohttp.ClientSession(middlewares=[note]) as session:
        assert not has_idle(session.connector)
        async with session.get(server.base_url) as response:
            await response.read()
        assert has_idle(session.connector), lost
        assert has_idle(session.connector, keys[0]), lost
        assert not has_idle(session.connector, keys[0]._replace(host="other.example"))
        close_idle(session.connector, keys[0])
        assert not has_idle(session.connector), lost
        async with session.get(server.base_url) as response:
            await response.read()
        assert server.connections == 2


async def test_the_bytes_of_a_body_that_arrived_are_read_after_the_connection_broke() -> None:
    cut = reply(200, b"x" * 10)[:-3]
    async with (
        RecordingServer(lambda seen: cut) as server,
        aiohttp.ClientSession() as session,
        session.get(server.base_url) as response,
    ):
        response.content.set_exception(ConnectionError())
        found = arrived(response.content)
        while not found:
            await asyncio.sleep(0)
            found = arrived(response.content)
        assert found == b"x" * 7, (
            "StreamReader._buffer or ._read_nowait is gone: a stream loses what arrived just before it broke"
        )
        assert arrived(response.content) == b""


def test_the_backend_of_anyio_is_loaded_with_the_package() -> None:
    code = "import sys, asyncruns.watch.engine; print('anyio._backends._asyncio' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout == "True\n", (
        "anyio._backends._asyncio is gone: the first watch of a program holds up its loop for some 20 ms"
    )


def test_private_names_are_used_in_one_module() -> None:
    package = Path(private.__file__).parent
    private_use = re.compile(
        r"\b(?:aiohttp|anyio)[.\w]*\._[a-z]"
        r"|\b(?:session|connector|content|answer|protocol|reader|resp|request)\._[a-z]"
        r"|(?:import|from) +(?:aiohttp|anyio)[.\w]*\._"
    )
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if private_use.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"_private.py"}


async def test_an_idle_connection_that_received_more_is_found_and_closed() -> None:
    keys = []

    async def note(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        keys.append(request.connection_key)
        return await handler(request)

    async def answer_twice(seen: Seen) -> AsyncGenerator[bytes, None]:
        yield reply(200, b"{}")
        await asyncio.sleep(1)
        yield reply(200, b"[]")
        await asyncio.sleep(60)

    async with RecordingServer(answer_twice) as server, aiohttp.ClientSession(middlewares=[note]) as session:
        url = f"{server.origin}/"
        async with session.get(url) as response:
            await response.read()
        close_stray(session.connector, keys[0])
        assert has_idle(session.connector, keys[0])
        await asyncio.sleep(2)
        close_stray(session.connector, keys[0])
        assert not has_idle(session.connector, keys[0]), (
            "ResponseHandler.should_close is gone: bytes that arrive over an idle connection are taken for the answer "
            "to the next request"
        )
