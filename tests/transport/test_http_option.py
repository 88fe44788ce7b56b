"""`http=`: what the lean transport sends itself, what it leaves to aiohttp, and the error if it is not installed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import Any

import aiohttp
import pytest
from recording_server import RecordingServer, Seen, reply
from transports import make_transport, over

from asyncruns import APIConnectionError, ApiKeyAuth, BearerAuth, Client, ConfigurationError, InvalidRequestError
from asyncruns.abc import ByteStream
from asyncruns.http import Request
from asyncruns.transport.aiohttp import AiohttpTransport
from asyncruns.transport.httptools import HttptoolsTransport

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 6\r\n\r\ndata: "


def test_the_library_is_aiohttp_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(Client("http://127.0.0.1:9/v1").transport, AiohttpTransport)
    monkeypatch.setenv("ASYNCRUNS_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("ASYNCRUNS_API_KEY", "sk-1")
    for client in (
        Client("http://127.0.0.1:9/v1", http="httptools"),
        Client.from_env(http="httptools"),
        Client.azure("https://res.openai.azure.com", api_version="v1", api_key="k-1", http="httptools"),
        Client.portkey("pk-1", virtual_key="vk-1", http="httptools"),
    ):
        assert isinstance(client.transport, HttptoolsTransport)


@pytest.mark.parametrize("http", ["requests", "", None, 2])
def test_another_library_is_refused(http: Any) -> None:
    with pytest.raises(ConfigurationError, match='http must be "aiohttp" or "httptools"'):
        Client("http://127.0.0.1:9/v1", http=http)


def test_without_httptools_the_client_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['httptools'] = None\n"
        "from asyncruns import Client\n"
        "Client('http://127.0.0.1:9/v1')\n"
        "try: Client('http://127.0.0.1:9/v1', http='httptools')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.startswith("ConfigurationError ")
    assert "pip install 'asyncruns[fast]'" in found


def test_httptools_is_loaded_only_if_it_is_selected() -> None:
    code = "import sys, asyncruns; asyncruns.Client('http://127.0.0.1:9/v1'); assert 'httptools' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@over("httptools")
async def test_requests_are_sent_without_aiohttp_and_streams_with_it() -> None:
    async with RecordingServer(reply(), EVENTS, reply()) as server:
        transport = make_transport(server.base_url, auth=BearerAuth("sk-1"), headers={"x-more": "1"}, query={"v": "1"})
        assert isinstance(transport, HttptoolsTransport)
        await transport.send(Request("GET", "/x"))
        assert transport._inner is None
        stream = await transport.stream(Request("POST", "/x", body=b"{}"))
        assert transport._inner is not None
        assert isinstance(stream, ByteStream)
        await stream.aclose()
        await transport.send(Request("GET", "/x"))
        await transport.aclose()
        with pytest.raises(ConfigurationError, match="The client is closed"):
            await transport.stream(Request("GET", "/x"))
    for seen in server.seen:
        assert (seen.header("Authorization"), seen.header("x-more"), seen.target) == ("Bearer sk-1", "1", "/v1/x?v=1")


@over("httptools")
async def test_both_transports_share_what_is_known_of_the_server() -> None:
    """A server that has answered polls was reached, so a stream that cannot be opened now may be opened later."""
    async with RecordingServer(reply()) as server:
        transport = make_transport(server.base_url)
        await transport.send(Request("GET", "/x"))
    with pytest.raises(APIConnectionError) as caught:
        await transport.stream(Request("GET", "/x"))
    assert caught.value.passes
    await transport.aclose()


@over("httptools")
@pytest.mark.parametrize(
    "options",
    [
        {"proxy": "http://127.0.0.1:9"},
        {"trust_env": True},
        {"ssl": aiohttp.Fingerprint(b"0" * 32)},
        {"headers": {"Transfer-Encoding": "chunked"}},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_with_unsupported_options_aiohttp_sends_all_requests(options: dict[str, Any]) -> None:
    transport = make_transport("https://127.0.0.1:9/v1", **options)
    assert isinstance(transport, HttptoolsTransport)
    assert transport._inner is not None
    assert transport._pools is None
    await transport.aclose()


@over("httptools")
@pytest.mark.parametrize(
    "request_", [Request("HEAD", "/x"), Request("POST", "/x", headers=(("expect", "100-continue"),), body=b"{}")]
)
async def test_aiohttp_sends_requests_that_httptools_does_not(request_: Request) -> None:
    async with RecordingServer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as server:
        transport = make_transport(server.base_url, request_timeout=5)
        assert isinstance(transport, HttptoolsTransport)
        with contextlib.suppress(APIConnectionError):  # the server does not support 100-continue
            await transport.send(request_)
        assert transport._inner is not None
        await transport.aclose()


PATHS = ["/x\r\nX-Evil: 1", "/x\n", "/x\0", "/x y", "/x\x7f", "/x\t", "@evil.example/", "x", "", "//\r", "/x\u2028"]


@pytest.mark.parametrize("path", PATHS)
async def test_an_invalid_path_is_not_sent(path: str) -> None:
    async with RecordingServer() as server:
        transport = make_transport(server.base_url)
        for query in ((), (("a", "b"),)):
            with pytest.raises(InvalidRequestError, match="can't be sent"):
                await transport.send(Request("GET", path, query=query))
        await transport.aclose()
    assert server.seen == []


@pytest.mark.parametrize("name", ["x-more", "X-Evil: 1\r\nx-more"])
@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\n", "a\r", "a\0b"])
async def test_a_header_with_a_line_break_is_not_sent(name: str, value: str) -> None:
    async with RecordingServer() as server:
        transport = make_transport(server.base_url)
        with pytest.raises(ConfigurationError):
            await transport.send(Request("GET", "/x", headers=((name, value),)))
        await transport.aclose()
    assert server.seen == []


@pytest.mark.parametrize("text", ["a\r\nX-Evil: 1", "a\0b", "ö&=#?/ +%", "\u2028"])
async def test_any_query_is_quoted(text: str) -> None:
    async with RecordingServer() as server:
        transport = make_transport(server.base_url, query={"own": text})
        await transport.send(Request("GET", "/x"))
        await transport.send(Request("GET", "/x", query=((text, text),)))
        await transport.aclose()
    assert len(server.seen) == 2
    for seen in server.seen:
        assert seen.header("X-Evil") is None
        assert seen.target.isascii()
        assert seen.target.isprintable()


async def bytes_of(http: str, request: Request, **options: Any) -> Seen:
    async with RecordingServer() as server:
        transport = {"aiohttp": AiohttpTransport, "httptools": HttptoolsTransport}[http](server.base_url, **options)
        await transport.send(request)
        await transport.aclose()
    (seen,) = server.seen
    return seen


@over("aiohttp")
@pytest.mark.parametrize(
    "request_",
    [
        Request("GET", "/threads/thread_1"),
        Request("GET", "/threads/a%2Fb%20c/runs", query=(("limit", "1"), ("after", "ö&"))),
        Request("GET", "/x?y=1#z"),
        Request("GET", "/ö"),
        Request("POST", "/threads", body=b'{"a":"\xc3\xb6"}', headers=(("x-more", "ö"),)),
        Request("POST", "/threads/thread_1/runs/run_1/cancel"),
        Request("DELETE", "/threads/thread_1"),
        Request("PUT", "/x", body=b""),
        Request("PATCH", "/x"),
        Request(
            "GET", "/x", headers=(("host", "other.example"), ("accept-encoding", "identity"), ("connection", "close"))
        ),
    ],
    ids=repr,
)
async def test_both_transports_send_the_same_bytes(request_: Request) -> None:
    options: dict[str, Any] = {"auth": ApiKeyAuth("k-1"), "headers": {"X-Own": "1"}, "query": {"api-version": "v1"}}
    sent = {http: await bytes_of(http, request_, **options) for http in ("aiohttp", "httptools")}
    lines = {
        http: [seen.head.split("\r\n")[0], *sorted(seen.head.lower().split("\r\n")[1:])] for http, seen in sent.items()
    }
    for each in lines.values():
        each[:] = [line for line in each if not line.startswith("host: 127.0.0.1")]
    assert lines["httptools"] == lines["aiohttp"]
    assert sent["httptools"].body == sent["aiohttp"].body
