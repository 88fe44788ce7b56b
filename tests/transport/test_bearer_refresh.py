"""Tokens that expire: fetched once for all who wait, before they expire, and once more when they are refused."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from recording_server import RecordingServer, reply

from asyncruns import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BearerAuth,
    Client,
    ConfigurationError,
    GaveUp,
    Reason,
)
from asyncruns.errors import PermissionDeniedError


@dataclass
class Token:
    token: str
    expires_on: float


@dataclass
class Source:
    """Gives tokens that hold for a while, each of its own; raises what it is told to."""

    lifetime: float | None = None
    failure: Exception | None = None
    delay: float = 0.0
    fetches: int = 0

    async def __call__(self) -> str | Token:
        self.fetches += 1
        await asyncio.sleep(self.delay)
        if self.failure is not None:
            raise self.failure
        text = f"token-{self.fetches}"
        # Wall clock time, as azure-identity tells it; virtual time does not move it.
        return text if self.lifetime is None else Token(text, time.time() + self.lifetime)


async def poll(client: Client) -> None:
    await client.threads.retrieve("thread_1")


def tokens(server: RecordingServer) -> list[str | None]:
    return [seen.header("Authorization") for seen in server.seen]


@pytest.mark.parametrize("lifetime", [None, 3600.0])
async def test_one_fetch_serves_all_who_wait(lifetime: float | None) -> None:
    source = Source(lifetime, delay=5)
    async with RecordingServer() as server, Client(server.base_url, auth=BearerAuth(source)) as client:
        await asyncio.gather(*(poll(client) for _ in range(50)))
        assert source.fetches == 1
        assert tokens(server) == ["Bearer token-1"] * 50


async def test_a_token_is_renewed_before_it_expires() -> None:
    source = Source(3600)
    async with RecordingServer() as server, Client(server.base_url, auth=BearerAuth(source)) as client:
        await poll(client)
        await asyncio.sleep(3290)  # 300 s before the end is the time
        await poll(client)
        await asyncio.sleep(20)
        await poll(client)
        assert tokens(server) == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]


async def test_a_short_lived_token_is_used_for_most_of_its_life() -> None:
    source = Source(10)
    async with RecordingServer() as server, Client(server.base_url, auth=BearerAuth(source)) as client:
        for _ in range(4):
            await poll(client)
            await asyncio.sleep(3.9)  # renewed when a fifth of it is left
        assert source.fetches == 2


async def test_a_token_without_an_expiry_is_asked_for_again_after_a_minute() -> None:
    source = Source()
    async with RecordingServer() as server, Client(server.base_url, auth=BearerAuth(source)) as client:
        for pause in (50, 20, 0):
            await poll(client)
            await asyncio.sleep(pause)
        assert tokens(server) == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_token_is_renewed_and_the_request_repeated_once(status: int) -> None:
    source = Source(3600)
    script = reply(), reply(status), reply()
    async with RecordingServer(*script) as server, Client(server.base_url, auth=BearerAuth(source)) as client:
        await poll(client)
        await client.threads.create(metadata={"a": "b"})  # safe to repeat: the server has done nothing
        assert tokens(server) == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]
        assert server.seen[1].body == server.seen[2].body == b'{"metadata":{"a":"b"}}'


@pytest.mark.parametrize(("status", "error"), [(401, AuthenticationError), (403, PermissionDeniedError)])
async def test_a_second_refusal_is_what_the_caller_gets(status: int, error: type[Exception]) -> None:
    source = Source(3600)
    async with RecordingServer(reply(status)) as server, Client(server.base_url, auth=BearerAuth(source)) as client:
        with pytest.raises(error):
            await poll(client)
        assert len(server.seen) == source.fetches == 2


@pytest.mark.parametrize("status", [401, 403])
async def test_a_watch_goes_on_with_a_renewed_token_and_ends_when_that_is_refused_too(status: int) -> None:
    source = Source(3600)
    run = reply(200, {"id": "run_1", "thread_id": "thread_1", "status": "in_progress"})
    script = run, reply(status), run, reply(status), reply(status)
    async with RecordingServer(*script) as server, Client(server.base_url, auth=BearerAuth(source)) as client:
        outcome = await client.watch(thread_id="thread_1", run_id="run_1")
        assert isinstance(outcome, GaveUp)
        assert (outcome.reason, outcome.polls) == (Reason.UNAUTHORIZED, 3)
        assert (len(server.seen), source.fetches) == (5, 3)


async def test_many_refusals_at_once_cost_one_fetch() -> None:
    source = Source(3600, delay=1)
    script = *[reply(401)] * 50, reply()
    async with RecordingServer(*script) as server, Client(server.base_url, auth=BearerAuth(source)) as client:
        await asyncio.gather(*(poll(client) for _ in range(50)))
        assert source.fetches == 2
        assert tokens(server) == ["Bearer token-1"] * 50 + ["Bearer token-2"] * 50


async def test_a_constant_key_is_not_tried_twice() -> None:
    async with RecordingServer(reply(401)) as server, Client(server.base_url, auth=BearerAuth("sk-test")) as client:
        with pytest.raises(AuthenticationError):
            await poll(client)
        assert len(server.seen) == 1


async def test_a_credential_that_fails_is_told_by_its_kind_and_nothing_is_sent() -> None:
    source = Source(failure=LookupError("the secret is sk-hidden"))
    async with (
        RecordingServer() as server,
        Client(server.base_url, auth=BearerAuth(source), max_retries=0) as client,
    ):
        with pytest.raises(APIConnectionError, match="LookupError") as caught:
            await poll(client)
        assert caught.value.sent is False
        assert "hidden" not in str(caught.value) + repr(caught.value)
        assert server.seen == []


async def test_all_who_wait_for_a_credential_that_fails_share_the_failure() -> None:
    source = Source(failure=OSError(), delay=10)
    auth, loop = BearerAuth(source), asyncio.get_running_loop()
    start = loop.time()
    found = await asyncio.gather(*(auth.refresh() for _ in range(50)), return_exceptions=True)
    assert [type(each) for each in found] == [APIConnectionError] * 50
    assert (source.fetches, loop.time() - start) == (1, 10)
    source.failure = None
    assert await auth.refresh() == {"Authorization": "Bearer token-2"}  # who comes later asks anew


async def test_a_failed_renewal_leaves_the_token_that_still_holds() -> None:
    source = Source(3600)
    async with RecordingServer() as server, Client(server.base_url, auth=BearerAuth(source)) as client:
        await poll(client)
        source.failure = OSError()
        await asyncio.sleep(3400)
        await poll(client)
        await poll(client)  # it is not asked again at once
        assert source.fetches == 2
        await asyncio.sleep(15)
        source.failure = None
        await poll(client)
        await asyncio.sleep(4000)
        source.failure = OSError()
        with pytest.raises(APIConnectionError, match="no token"):
            await poll(client)
        assert tokens(server) == ["Bearer token-1"] * 3 + ["Bearer token-3"]


async def test_a_credential_that_hangs_is_bounded_by_the_requests_timeout() -> None:
    source = Source(delay=1e6)
    loop = asyncio.get_running_loop()
    async with Client("http://127.0.0.1:9/v1", auth=BearerAuth(source), request_timeout=7, max_retries=0) as client:
        start = loop.time()
        with pytest.raises(APITimeoutError, match="The credential gave no token") as caught:
            await poll(client)
        assert caught.value.sent is False
        assert loop.time() - start == 7


async def test_a_cancelled_fetch_is_done_again_by_the_next_who_waits() -> None:
    source = Source(delay=5)
    auth = BearerAuth(source)
    first, second = asyncio.create_task(auth.refresh()), asyncio.create_task(auth.refresh())
    await asyncio.sleep(1)
    first.cancel()
    assert await second == {"Authorization": "Bearer token-2"}


@pytest.mark.parametrize("wrong", ["", "line\nbreak", None, 5])
async def test_a_credential_that_gives_no_usable_token_counts_as_failed(wrong: object) -> None:
    async def fetch() -> object:
        return wrong

    with pytest.raises(APIConnectionError, match="no token"):
        await BearerAuth(fetch).refresh()  # type: ignore[arg-type]  # this is what is tested


class AsyncCredential:
    """As those of azure.identity.aio."""

    def __init__(self) -> None:
        self.scopes: list[tuple[str, ...]] = []

    async def get_token(self, *scopes: str) -> Token:
        self.scopes.append(scopes)
        return Token("token-a", time.time() + 3600)


async def test_an_async_azure_credential_is_asked_with_the_scope() -> None:
    credential = AsyncCredential()
    assert await BearerAuth(credential).refresh() == {"Authorization": "Bearer token-a"}
    await BearerAuth(credential, scope="https://other/.default").refresh()
    assert credential.scopes == [("https://ai.azure.com/.default",), ("https://other/.default",)]


class BlockingCredential:
    """As those of azure.identity: `get_token` blocks."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.thread: threading.Thread | None = None

    def get_token(self, *scopes: str) -> Token:
        self.thread = threading.current_thread()
        assert self.release.wait(10)
        return Token("token-b", time.time() + 3600)


@pytest.mark.real_time
async def test_a_blocking_azure_credential_runs_in_a_thread_and_the_loop_goes_on() -> None:
    credential = BlockingCredential()
    fetching = asyncio.create_task(BearerAuth(credential).refresh())
    while credential.thread is None:
        await asyncio.sleep(0.001)
    assert credential.thread is not threading.current_thread()
    credential.release.set()  # by the loop, which is free
    assert await fetching == {"Authorization": "Bearer token-b"}


@pytest.mark.real_time
async def test_a_blocking_credential_that_hangs_does_not_hold_up_a_cancelled_request() -> None:
    credential = BlockingCredential()
    fetching = asyncio.create_task(BearerAuth(credential).refresh())
    while credential.thread is None:
        await asyncio.sleep(0.001)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert not credential.release.is_set()
    credential.release.set()  # the thread is not a daemon


@pytest.mark.parametrize("token", [None, 5, b"sk-hidden"])
def test_what_gives_no_token_is_refused(token: Callable[[], Awaitable[str]]) -> None:
    with pytest.raises(ConfigurationError, match="async function or a credential"):
        BearerAuth(token)


async def test_a_provider_that_ignores_its_cancellation_is_abandoned(caplog: pytest.LogCaptureFixture) -> None:
    async def provide() -> str:
        while True:
            with contextlib.suppress(BaseException):
                await asyncio.sleep(3600.0)

    auth = BearerAuth(provide)
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(auth.refresh())
    await asyncio.sleep(1.0)
    began = loop.time()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert loop.time() == pytest.approx(began + 2.5, abs=0.1)
    assert "The provider of tokens ignored its cancellation" in caplog.text
