"""TLS, over both transports: which servers are trusted; the others receive nothing."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final

import pytest
from certificates import AUTHORITY, server_context, trusting_context, with_certificate
from recording_server import RecordingServer
from transports import make_transport, over

from asyncruns import APIConnectionError, Client
from asyncruns.http import Request

GET: Final = Request("GET", "/x")
REFUSED: Final = {
    "for another host": "for another host",
    "expired": "check this machine's clock",
}


def https(server: RecordingServer) -> str:
    return server.base_url.replace("http:", "https:")


async def test_a_server_with_the_right_certificate_is_used_over_one_connection() -> None:
    async with RecordingServer(tls=server_context("right")) as server:
        async with Client(https(server), ssl=trusting_context()) as client:
            for _ in range(5):
                await client.threads.retrieve("thread_1")
            await client.threads.create()
        assert (len(server.seen), server.connections) == (6, 1)


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_server_with_a_wrong_certificate_gets_nothing(kind: str) -> None:
    async with RecordingServer(tls=server_context(kind)) as server:
        async with Client(https(server), ssl=trusting_context()) as client:
            with pytest.raises(APIConnectionError, match=REFUSED[kind]) as caught:
                await client.threads.create()
        assert (caught.value.sent, caught.value.passes) == (False, False)
        assert server.seen == []


async def test_a_server_of_an_unknown_authority_gets_nothing() -> None:
    async with RecordingServer(tls=server_context("right")) as server:
        async with Client(https(server)) as client:
            with pytest.raises(APIConnectionError, match="does not trust the server's certificate") as caught:
                await client.threads.create()
        assert (caught.value.sent, caught.value.passes) == (False, False)
        assert server.seen == []


@pytest.mark.parametrize("kind", ["right", *REFUSED])
async def test_without_checks_any_certificate_is_accepted(kind: str) -> None:
    async with RecordingServer(tls=server_context(kind)) as server:
        async with Client(https(server), ssl=False) as client:
            await client.threads.retrieve("thread_1")
        assert len(server.seen) == 1


async def test_the_tls_handshake_names_the_host() -> None:
    named: list[str | None] = []
    context = server_context("right")
    context.sni_callback = lambda _, name, __: named.append(name)
    async with RecordingServer(tls=context) as server:
        transport = make_transport(https(server).replace("127.0.0.1", "localhost"), ssl=trusting_context())
        with pytest.raises(APIConnectionError, match="for another host"):  # the certificate is not for localhost
            await transport.send(GET)
        await transport.aclose()
    assert named == ["localhost"]


async def test_a_certificate_of_the_client_is_shown_to_a_server_that_wants_one() -> None:
    wants = server_context("right")
    wants.verify_mode = ssl.CERT_REQUIRED
    wants.load_verify_locations(cadata=AUTHORITY)
    async with RecordingServer(tls=wants) as server:
        async with Client(https(server), ssl=with_certificate(trusting_context(), "right")) as client:
            await client.threads.create()
        async with Client(https(server), ssl=trusting_context(), max_retries=0) as client:
            with pytest.raises(APIConnectionError):
                await client.threads.create()
        assert len(server.seen) == 1


async def test_a_handshake_that_is_never_answered_times_out() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = make_transport(f"https://127.0.0.1:{silent.getsockname()[1]}/v1")
        began = loop.time()
        with pytest.raises(APIConnectionError) as caught:
            await transport.send(GET)
        assert not caught.value.sent
        assert loop.time() - began == pytest.approx(10, abs=1)
        await transport.aclose()


@over("httptools")  # aiohttp's pool uses a clock of its own, not the virtual time of these tests
async def test_a_tls_connection_that_was_idle_for_too_long_is_not_used() -> None:
    async with RecordingServer(tls=server_context("right")) as server:
        transport = make_transport(https(server), ssl=trusting_context())
        for _ in range(3):
            assert (await transport.send(GET)).status == 200
            await asyncio.sleep(66)
        assert server.connections == 3
        await transport.aclose()
