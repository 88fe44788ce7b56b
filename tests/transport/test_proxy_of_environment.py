"""The proxy of the environment: only `Client.from_env()` and the command line use it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from recording_server import RecordingServer, reply

from asyncruns import APIConnectionError, Client, ConfigurationError
from asyncruns.cli.connect import connect
from asyncruns.transport.urls import proxy_of_environment

PROXY = "http://proxy.example:3128"
NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("ASYNCRUNS_BASE_URL", "http://host.example/v1")
    monkeypatch.setenv("ASYNCRUNS_API_KEY", "sk-test-123456789")


def set_all(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


FOUND: list[tuple[Mapping[str, str], str, str | None]] = [
    ({}, "https://host.example/v1", None),
    ({"HTTPS_PROXY": PROXY}, "https://host.example/v1", PROXY),
    ({"https_proxy": PROXY}, "https://host.example/v1", PROXY),
    ({"HTTPS_PROXY": PROXY}, "http://host.example/v1", None),
    ({"HTTP_PROXY": PROXY}, "http://host.example/v1", PROXY),
    ({"HTTP_PROXY": PROXY}, "https://host.example/v1", None),
    ({"ALL_PROXY": PROXY}, "https://host.example/v1", PROXY),
    ({"ALL_PROXY": "http://other.example:1", "HTTPS_PROXY": PROXY}, "https://host.example/v1", PROXY),
    ({"HTTPS_PROXY": "proxy.example:3128"}, "https://host.example/v1", PROXY),
    ({"HTTPS_PROXY": ""}, "https://host.example/v1", None),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "host.example"}, "https://host.example/v1", None),
    ({"HTTPS_PROXY": PROXY, "no_proxy": "a.example, .example"}, "https://host.example/v1", None),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "host.example:8443"}, "https://host.example:8443/v1", None),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "host.example:8443"}, "https://host.example/v1", PROXY),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, "https://host.example/v1", None),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "other.example"}, "https://host.example/v1", PROXY),
    ({"HTTP_PROXY": PROXY}, "http://127.0.0.1:8000/v1", None),
    ({"HTTP_PROXY": PROXY}, "http://127.1.2.3:8000/v1", None),
    ({"HTTP_PROXY": PROXY}, "http://localhost:8000/v1", None),
    ({"HTTP_PROXY": PROXY}, "http://api.localhost/v1", None),
    ({"HTTP_PROXY": PROXY}, "http://[::1]:8000/v1", None),
    ({"HTTP_PROXY": PROXY}, "http://10.0.0.1/v1", PROXY),
    ({"HTTP_PROXY": PROXY, "NO_PROXY": "[2001:db8::1]"}, "http://[2001:db8::1]/v1", None),
    ({"HTTP_PROXY": PROXY, "NO_PROXY": "2001:db8::1"}, "http://[2001:db8::1]/v1", None),
]


@pytest.mark.parametrize(("environment", "base_url", "proxy"), FOUND)
def test_the_environment_names_a_proxy_for_a_server(
    monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], base_url: str, proxy: str | None
) -> None:
    set_all(monkeypatch, environment)
    assert proxy_of_environment(base_url) == proxy


@pytest.fixture
async def proxy() -> AsyncIterator[RecordingServer]:
    async with RecordingServer() as server:
        yield server


def of_environment(**options: Any) -> Client:
    return Client.from_env(**options)


def of_command_line(**options: Any) -> Client:
    return connect(None, None, **options)


def of_command_line_with_a_url(**options: Any) -> Client:
    return connect("http://host.example/v1", "sk-test-123456789", headers={"x-mine": "1"}, **options)


WAYS = pytest.mark.parametrize("make", [of_environment, of_command_line, of_command_line_with_a_url])


@WAYS
async def test_requests_go_through_the_proxy_with_its_login_and_without_netrc(
    proxy: RecordingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make: Any
) -> None:
    (tmp_path / "netrc").write_text("machine host.example login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", proxy.origin.replace("//", "//user:pass@"))
    async with make() as client:
        await client.threads.retrieve("thread_1")
    (seen,) = proxy.seen
    assert seen.target == "http://host.example/v1/threads/thread_1"
    assert seen.header("Proxy-Authorization") == "Basic dXNlcjpwYXNz"
    assert seen.header("Authorization") == "Bearer sk-test-123456789"


@WAYS
async def test_a_proxy_argument_replaces_that_of_the_environment(
    proxy: RecordingServer, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    async with make(proxy=proxy.origin) as client:
        await client.threads.retrieve("thread_1")
    assert len(proxy.seen) == 1


async def test_none_means_no_proxy_and_a_session_uses_its_own(
    proxy: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCRUNS_BASE_URL", f"{proxy.base_url}")
    monkeypatch.setattr("asyncruns.transport.urls._is_loopback", lambda host: False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with Client.from_env(proxy=None) as client, aiohttp.ClientSession() as session:
        await client.threads.retrieve("thread_1")
        await Client.from_env(session=session).threads.retrieve("thread_1")
    assert len(proxy.seen) == 2
    async with Client.from_env(max_retries=0) as client:
        with pytest.raises(APIConnectionError):
            await client.threads.retrieve("thread_1")


async def test_client_ignores_the_proxy_of_the_environment(
    proxy: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncruns.transport.urls._is_loopback", lambda host: False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with Client(proxy.base_url) as client:
        await client.threads.retrieve("thread_1")
    assert len(proxy.seen) == 1


@WAYS
@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_an_unsupported_proxy_is_an_error_that_does_not_show_its_login(
    monkeypatch: pytest.MonkeyPatch, make: Any, name: str
) -> None:
    monkeypatch.setenv(name, "socks5://user:hidden@proxy.example:1080")
    with pytest.raises(ConfigurationError, match=f"{name} is not the URL of an HTTP proxy.*NO_PROXY") as caught:
        make()
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("login", ["user:hidden-password", "hidden-token-1234"])
async def test_the_login_of_a_proxy_is_never_shown(monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    answer = reply(502, {"error": {"message": f"http://{login}@proxy: no way"}})
    async with RecordingServer(answer) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin.replace("//", f"//{login}@"))
        async with Client.from_env(max_retries=0) as client:
            with pytest.raises(Exception, match="no way") as caught:
                await client.threads.retrieve("thread_1")
            shown = [repr(client), repr(client.transport), str(caught.value), repr(caught.value.__cause__)]
    monkeypatch.setenv("HTTP_PROXY", f"http://{login}@127.0.0.1:9")
    async with Client.from_env(max_retries=0) as client:
        with pytest.raises(APIConnectionError) as refused:
            await client.threads.retrieve("thread_1")
    shown += [str(refused.value), repr(refused.value.__cause__)]
    assert "hidden" not in " ".join(shown)


async def test_a_proxy_that_requires_a_login_fails_a_call_at_once() -> None:
    async with RecordingServer(reply(407)) as proxy, Client("https://host.example/v1", proxy=proxy.origin) as client:
        with pytest.raises(APIConnectionError, match="wants a login: pass it as proxy=") as caught:
            await client.threads.retrieve("thread_1")
    assert not caught.value.passes
    assert len(proxy.seen) == 1
