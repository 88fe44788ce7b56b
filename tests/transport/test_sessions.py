"""Sessions, proxies and TLS: what is borrowed is left alone, what is asked for is passed on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from recording_server import SILENCE, RecordingServer, reply
from transports import make_transport

from asyncruns import APIConnectionError, BearerAuth, Client, ConfigurationError, NotFoundError
from asyncruns.http import Request


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    async with RecordingServer() as server:
        yield server


async def test_a_borrowed_session_is_not_closed(server: RecordingServer) -> None:
    async with aiohttp.ClientSession(headers={"X-Of-Session": "1"}) as session:
        async with Client(server.base_url, session=session, auth=BearerAuth("sk-test")) as client:
            await client.threads.create()
        await client.close()
        assert not session.closed
        async with session.get(server.base_url) as response:
            assert response.status == 200
    assert server.seen[0].header("X-Of-Session") == "1"
    assert server.seen[0].header("Authorization") == "Bearer sk-test"


async def test_two_clients_may_borrow_one_session(server: RecordingServer) -> None:
    async with aiohttp.ClientSession() as session:
        async with Client(server.base_url, session=session, auth=BearerAuth("sk-1")) as one:
            await one.threads.create()
        async with Client(server.base_url, session=session, auth=BearerAuth("sk-2")) as two:
            await two.threads.create()
    assert [seen.header("Authorization") for seen in server.seen] == ["Bearer sk-1", "Bearer sk-2"]


@pytest.mark.parametrize("borrows", [True, False])
async def test_a_closed_client_says_so(server: RecordingServer, borrows: bool) -> None:
    async with aiohttp.ClientSession() as session:
        client = Client(server.base_url, session=session if borrows else None)
        await client.threads.create()
        await client.close()
        await client.close()
        with pytest.raises(ConfigurationError, match="The client is closed"):
            await client.threads.create()
    assert len(server.seen) == 1


async def test_a_client_that_was_never_used_is_closed_all_the_same() -> None:
    client = Client("http://127.0.0.1:9/v1")
    await client.close()
    with pytest.raises(ConfigurationError, match="closed"):
        await client.threads.create()


async def test_a_session_that_its_owner_has_closed_is_told(server: RecordingServer) -> None:
    async with aiohttp.ClientSession() as session:
        client = Client(server.base_url, session=session)
    with pytest.raises(ConfigurationError, match="given as session= is closed"):
        await client.threads.create()


async def test_closing_ends_the_requests_that_are_under_way() -> None:
    async with RecordingServer(SILENCE) as server:
        client = Client(server.base_url, max_retries=0)
        polling = asyncio.create_task(client.threads.create())
        while not server.seen:
            await asyncio.sleep(0)
        await client.close()
        with pytest.raises(APIConnectionError) as caught:
            await polling
    assert caught.value.sent is True


async def test_a_session_that_raises_for_a_status_does_not_get_in_the_way() -> None:
    answer = reply(404, {"error": {"message": "No thread"}})
    async with RecordingServer(answer) as server, aiohttp.ClientSession(raise_for_status=True) as session:
        with pytest.raises(NotFoundError, match="No thread"):
            await Client(server.base_url, session=session).threads.retrieve("thread_1")


async def test_cookies_are_not_kept() -> None:
    async with RecordingServer(reply(Set_Cookie="a=b")) as server, Client(server.base_url) as client:
        await client.threads.create()
        await client.threads.create()
        assert server.seen[1].header("Cookie") is None


async def test_one_connection_serves_one_request_after_the_other() -> None:
    async with RecordingServer() as server, Client(server.base_url) as client:
        await client.threads.create()
        await asyncio.sleep(60)  # a slow watch looks once a minute
        await client.threads.create()
        assert server.connections == 1


async def test_a_proxy_gets_the_request_in_its_absolute_form(server: RecordingServer) -> None:
    proxy = server.origin.replace("//", "//user:p%40ss@")
    async with Client("http://host.example/v1", proxy=proxy, auth=BearerAuth("sk-test")) as client:
        await client.threads.retrieve("a/b")
    (seen,) = server.seen
    assert seen.target == "http://host.example/v1/threads/a%2Fb"
    assert seen.header("Host") == "host.example"
    assert seen.header("Proxy-Authorization") == "Basic dXNlcjpwQHNz"


async def test_a_proxy_that_refuses_to_connect_has_sent_nothing() -> None:
    async with (
        RecordingServer(reply(407)) as server,
        Client("https://host.example/v1", proxy=server.origin, max_retries=0) as client,
    ):
        with pytest.raises(APIConnectionError, match="407") as caught:
            await client.threads.create()
    assert caught.value.sent is False
    assert [(seen.method, seen.target) for seen in server.seen] == [("CONNECT", "host.example:443")]


@pytest.mark.parametrize("proxy", ["host:3128", "nonsense", "socks5://h:1", "http://", "http://h:99999", "http://[::1"])
def test_a_proxy_that_can_not_be_one_is_refused(proxy: str) -> None:
    with pytest.raises(ConfigurationError, match="proxy must be the URL"):
        Client("http://host.example/v1", proxy=proxy)


@pytest.mark.parametrize("trust_env", [True, False])
async def test_the_proxy_of_the_environment_counts_when_told_so(
    server: RecordingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trust_env: bool
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", server.origin)
    async with RecordingServer() as direct:
        async with Client(direct.base_url, trust_env=trust_env) as client:
            await client.threads.retrieve("thread_1")
        assert (len(server.seen), len(direct.seen)) == ((1, 0) if trust_env else (0, 1))


async def test_a_login_of_netrc_beside_our_key_is_told(
    server: RecordingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with Client(server.base_url, trust_env=True, auth=BearerAuth("sk-test")) as client:
        with pytest.raises(ConfigurationError, match=r"\.netrc"):
            await client.threads.create()
    assert server.seen == []


def anonymous_tls(purpose: int) -> ssl.SSLContext:
    """Give a context that only understands its like: a cipher without certificates."""
    context = ssl.SSLContext(purpose)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    return context


async def test_the_given_tls_context_is_the_one_that_is_used() -> None:
    async with RecordingServer(tls=anonymous_tls(ssl.PROTOCOL_TLS_SERVER)) as server:
        base_url = server.base_url.replace("http:", "https:")
        async with Client(base_url, ssl=anonymous_tls(ssl.PROTOCOL_TLS_CLIENT)) as client:
            await client.threads.retrieve("thread_1")
        async with Client(base_url, max_retries=0) as client:
            with pytest.raises(APIConnectionError) as caught:
                await client.threads.create()
        assert caught.value.sent is False
        assert len(server.seen) == 1


async def test_a_transport_gives_every_status_as_it_came() -> None:
    async with RecordingServer(reply(418, "I'm a teapot", X_More="1")) as server:
        transport = make_transport(server.base_url)
        response = await transport.send(Request("GET", "/x"))
        assert (response.status, response.body, response.headers["x-more"]) == (418, b"I'm a teapot", "1")
        await transport.aclose()
