"""Requests without an answer: whether the server may have acted, the text of the error, and what happens next."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import aiohttp.abc
import pytest
from recording_server import DROP, SILENCE, RecordingServer, Seen, reply, unused_origin
from transports import make_transport

from asyncruns import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BearerAuth,
    Client,
    ConfigurationError,
    NotFoundError,
)
from asyncruns.http import Request


async def test_a_refused_connection_has_sent_nothing() -> None:
    origin = await unused_origin()
    async with Client(origin, max_retries=0) as client:
        with pytest.raises(APIConnectionError, match="Nothing was sent") as caught:
            await client.threads.create()
    assert caught.value.sent is False
    assert not isinstance(caught.value, APITimeoutError)
    assert (caught.value.method, caught.value.path) == ("POST", "/threads")
    assert origin in str(caught.value)
    assert "POST /threads" in str(caught.value)


class NoSuchHost(aiohttp.abc.AbstractResolver):
    """Resolves no host, without the delay of a name server."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        raise OSError(None, "Name or service not known")

    async def close(self) -> None:
        pass


async def test_an_unknown_host_has_sent_nothing_and_is_named() -> None:
    connector = aiohttp.TCPConnector(resolver=NoSuchHost())
    async with aiohttp.ClientSession(connector=connector) as session:
        client = Client("https://nonexistent.invalid/v1", session=session, max_retries=0)
        with pytest.raises(APIConnectionError, match=r"nonexistent\.invalid.*check the host") as caught:
            await client.threads.create()
    assert caught.value.sent is False


async def test_https_to_a_server_without_tls_has_sent_nothing() -> None:
    async with RecordingServer(DROP) as server:
        async with Client(server.base_url.replace("http:", "https:"), max_retries=0) as client:
            with pytest.raises(APIConnectionError) as caught:
                await client.threads.create()
        assert caught.value.sent is False
        assert server.seen == []


PARTIAL = [
    pytest.param(DROP, id="no answer"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="half a head"),
    pytest.param(reply()[:-5], id="half a body"),
    pytest.param(b"SMTP ready\r\n\r\n", id="another protocol"),
    pytest.param(reply(200, b"no gzip", Content_Encoding="gzip"), id="a broken encoding"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="broken chunks"),
]


@pytest.mark.parametrize("answer", PARTIAL)
async def test_a_connection_that_breaks_after_the_request_may_have_had_its_effect(answer: bytes) -> None:
    def once(seen: Seen) -> bytes:
        return answer

    async with RecordingServer(once) as server:
        async with Client(server.base_url, request_timeout=5) as client:
            with pytest.raises(APIConnectionError, match="The server may have acted on it") as caught:
                await client.threads.create()
        assert caught.value.sent is True
        assert len(server.seen) == 1


async def test_silence_ends_at_the_timeout_of_the_request() -> None:
    loop = asyncio.get_running_loop()
    async with RecordingServer(SILENCE) as server:
        async with Client(server.base_url, request_timeout=4.5) as client:
            start = loop.time()
            with pytest.raises(APITimeoutError, match=r"No answer in time.*may have acted") as caught:
                await client.threads.create()
            assert loop.time() - start == pytest.approx(4.5)
        assert caught.value.sent is True
        assert len(server.seen) == 1


async def test_a_request_may_have_a_timeout_of_its_own() -> None:
    loop = asyncio.get_running_loop()
    async with RecordingServer(SILENCE) as server:
        transport = make_transport(server.base_url, request_timeout=None)
        for timeout, waited in ((3.0, 3.0), (0.0, 0.0), (-1.0, 0.0)):  # 0 does not mean "no limit"
            start = loop.time()
            with pytest.raises(APITimeoutError):
                await transport.send(Request("GET", "/x", timeout=timeout))
            assert loop.time() - start == pytest.approx(waited, abs=0.01)
        await transport.aclose()


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_of_zero_or_less_is_refused(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="request_timeout"):
        Client("http://127.0.0.1:9/v1", request_timeout=timeout)


async def test_a_connection_that_times_out_has_sent_nothing() -> None:
    # With a full queue of connections, the next one waits for ever, as behind a firewall that drops packets.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        filling = [socket.socket() for _ in range(4)]
        for each in filling:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        async with Client(f"http://127.0.0.1:{port}/v1", max_retries=0) as client:
            start = asyncio.get_running_loop().time()
            with pytest.raises(APITimeoutError, match=r"No connection in time.*Nothing was sent") as caught:
                await client.threads.create()
        assert caught.value.sent is False
        assert asyncio.get_running_loop().time() - start == pytest.approx(10, abs=1)
        for each in filling:
            each.close()


async def test_a_cancelled_request_leaves_a_client_that_works() -> None:
    async with RecordingServer(SILENCE, reply()) as server, Client(server.base_url) as client:
        polling = asyncio.create_task(client.threads.retrieve("thread_1"))
        while not server.seen:
            await asyncio.sleep(0)
        polling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await polling
        assert (await client.threads.retrieve("thread_1")).id == "x_1"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_error_and_the_other_host_gets_nothing(status: int) -> None:
    async with RecordingServer() as other:
        moved = reply(status, b"", Location=f"{other.origin}/elsewhere?secret=1")
        async with RecordingServer(moved) as server, Client(server.base_url, auth=BearerAuth("sk-test")) as client:
            for call in (client.threads.create(), client.threads.retrieve("thread_1")):
                with pytest.raises(APIStatusError, match="Redirects are not followed") as caught:
                    await call
                assert caught.value.status == status
                assert f"{other.origin}/elsewhere." in str(caught.value)
                assert "secret" not in str(caught.value)
        assert other.seen == []


async def test_an_error_names_the_request_the_status_the_request_id_and_the_next_step() -> None:
    answer = reply(404, {"error": {"message": "No run found with id 'run_1'."}}, X_Request_Id="req_7")
    async with RecordingServer(answer) as server, Client(server.base_url) as client:
        with pytest.raises(NotFoundError) as caught:
            await client.threads.runs.retrieve("run_1", thread_id="thread_1")
    assert str(caught.value) == (
        "GET /threads/thread_1/runs/run_1 answered 404: No run found with id 'run_1'. (request id req_7). "
        "Check the id, and that the base URL serves this path."
    )
