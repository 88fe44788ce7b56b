"""Token providers: anything that can be called without arguments, async or not."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from recording_server import RecordingServer, reply

from asyncruns import APIConnectionError, BearerAuth, Client, ConfigurationError

pytestmark = pytest.mark.real_time  # functions that may block are called in threads


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    async with RecordingServer() as server:
        yield server


def plain() -> str:
    return "token-1"


def plain_with_an_argument(token: str) -> str:
    return token


async def coroutine() -> str:
    return "token-1"


def makes_a_coroutine() -> Any:
    return coroutine()


class Called:
    def __call__(self) -> str:
        return "token-1"

    def method(self) -> str:
        return "token-1"


class CalledAsync:
    async def __call__(self) -> str:
        return "token-1"


class Credential:
    def get_token(self, *scopes: str, **options: object) -> Any:
        return SimpleNamespace(token="token-1", expires_on=time.time() + 3600)


PROVIDERS: dict[str, Any] = {
    "a function": plain,
    "a lambda": lambda: "token-1",
    "a coroutine function": coroutine,
    "a function that makes a coroutine": makes_a_coroutine,
    "a partial": functools.partial(plain_with_an_argument, "token-1"),
    "a partial of a coroutine function": functools.partial(coroutine),
    "a partial of an object": functools.partial(CalledAsync()),
    "an object": Called(),
    "an async object": CalledAsync(),
    "a method": Called().method,
    "a cached function": functools.cache(plain),
    "a function that returns a token object": lambda: SimpleNamespace(token="token-1", expires_on=time.time() + 60),
    "a credential": Credential(),
}


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("by", ["auth", "api_key"])
async def test_a_token_comes_from(server: RecordingServer, name: str, by: str) -> None:
    provider = PROVIDERS[name]
    options: Any = {"auth": BearerAuth(provider)} if by == "auth" else {"api_key": provider}
    async with Client(server.base_url, **options) as client:
        await client.threads.retrieve("thread_1")
    assert server.seen[0].header("Authorization") == "Bearer token-1"


async def test_azure_accepts_a_plain_function(server: RecordingServer) -> None:
    async with Client.azure(server.base_url, api_version="v1", credential=plain) as client:
        await client.threads.retrieve("thread_1")
    assert server.seen[0].header("Authorization") == "Bearer token-1"


async def test_a_function_that_blocks_does_not_block_the_loop(server: RecordingServer) -> None:
    called, may_answer = threading.Event(), threading.Event()

    def blocks() -> str:
        called.set()
        assert may_answer.wait(10)
        return "token-1"

    async with Client(server.base_url, api_key=blocks, max_retries=0) as client:
        reading = asyncio.create_task(client.threads.retrieve("thread_1"))
        while not called.is_set():
            await asyncio.sleep(0)
        may_answer.set()  # reached only if the loop is not blocked
        await reading
    assert server.seen[0].header("Authorization") == "Bearer token-1"


async def test_a_plain_function_is_called_again_after_a_401() -> None:
    tokens = iter(["old", "new"])
    async with (
        RecordingServer(reply(401, {}), reply()) as server,
        Client(server.base_url, api_key=lambda: next(tokens)) as client,
    ):
        await client.threads.retrieve("thread_1")
    assert [seen.header("Authorization") for seen in server.seen] == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize(
    ("returned", "hint"),
    [
        (lambda: None, "it returned a NoneType; it must return a string"),
        (lambda: 5, "it returned a int; it must return a string"),
        (lambda: b"sk-hidden-12345", "it returned a bytes; it must return a string"),
        (lambda: {"token": "sk-hidden-12345"}, "it returned a dict; it must return a string"),
        (lambda: "", "token must be a non-empty string"),
        (lambda: "sk-hidden-12345\n", "contains a line break"),
        (lambda: plain, "it returned a function; it must return a string"),
        (lambda: SimpleNamespace(token="sk-hidden-12345", expires_on="later"), "it returned a SimpleNamespace"),
    ],
    ids=["none", "a number", "bytes", "a dict", "nothing", "a line break", "a function", "no time"],
)
async def test_a_provider_that_returns_no_token_is_an_error_and_not_called_again(
    server: RecordingServer, returned: Callable[[], Any], hint: str
) -> None:
    calls = 0

    def provider() -> Any:
        nonlocal calls
        calls += 1
        return returned()

    async with Client(server.base_url, api_key=provider) as client:
        with pytest.raises(APIConnectionError, match=hint) as caught:
            await client.threads.retrieve("thread_1")
    assert (caught.value.sent, caught.value.passes, calls) == (False, False, 1)
    assert "sk-hidden" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert server.seen == []


async def test_the_error_of_a_provider_is_not_shown_and_may_pass(server: RecordingServer) -> None:
    def provider() -> str:
        raise RuntimeError("no access with sk-hidden-12345")

    async with Client(server.base_url, api_key=provider, max_retries=0) as client:
        with pytest.raises(APIConnectionError, match="RuntimeError") as caught:
            await client.threads.retrieve("thread_1")
    assert caught.value.passes
    assert "sk-hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("token", "hint"),
    [
        (None, "not a NoneType"),
        (b"sk-hidden-12345", "not a bytes"),
        (["sk-hidden-12345"], "not a list"),
        (Credential, "this is the class Credential: pass an instance"),
        (plain_with_an_argument, "this function has required parameters"),
        ("", "non-empty"),
    ],
    ids=["none", "bytes", "a list", "a class", "an argument", "nothing"],
)
def test_an_argument_that_is_not_a_token_or_provider_is_refused_with_a_hint(token: Any, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint) as caught:
        BearerAuth(token)
    assert "sk-hidden" not in str(caught.value)


def test_a_coroutine_in_place_of_its_function_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="pass the function itself, without calling it"):
        BearerAuth(coroutine())  # type: ignore[arg-type]
