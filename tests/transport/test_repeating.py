"""What is sent again, when, and how often: what can do no harm, and not for ever."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

import pytest
import tenacity
from recording_server import DROP, SILENCE, Answer, RecordingServer, reply, unused_origin

from asyncruns import APIConnectionError, APIError, APIStatusError, Client, InternalServerError, RateLimitError
from asyncruns.abc import Transport
from asyncruns.errors import APITimeoutError
from asyncruns.http import Request, Response
from asyncruns.transport.retry import PAUSE_CEILING_S, PAUSE_START_S, RetryTransport

QUOTA = reply(429, {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}})

PASSING: dict[str, Answer] = {
    **{str(status): reply(status, {}) for status in (408, 409, 425, 429, 500, 502, 503, 504)},
    "dropped": DROP,
    "silent": SILENCE,
}


@pytest.mark.parametrize("name", PASSING)
async def test_a_poll_is_repeated_until_it_is_answered(name: str) -> None:
    async with RecordingServer(PASSING[name], PASSING[name], reply()) as server, Client(server.base_url) as client:
        assert (await client.threads.retrieve("thread_1")).id == "x_1"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("500", "answered 500: {} (try 3, after 500, 500)"),
        ("429", "answered 429: {} (try 3, after 429, 429)"),
        ("silent", "(try 3, after APITimeoutError, APITimeoutError)"),
    ],
)
async def test_a_poll_is_given_up_after_some_tries_and_the_error_names_them(name: str, said: str) -> None:
    async with RecordingServer(PASSING[name]) as server, Client(server.base_url, max_retries=2) as client:
        with pytest.raises(APIError) as caught:
            await client.threads.retrieve("thread_1")
        assert said in str(caught.value)
        assert said in caught.value.message
        assert len(server.seen) == 3


async def test_an_error_names_all_that_came_before_it() -> None:
    script = reply(503), reply(429), reply(404, {})
    async with RecordingServer(*script) as server, Client(server.base_url) as client:
        with pytest.raises(APIStatusError, match=r"\(try 3, after 503, 429\)"):
            await client.threads.retrieve("thread_1")


async def test_one_refused_connection_after_another_is_named_too() -> None:
    async with Client(await unused_origin(), max_retries=1) as client:
        with pytest.raises(APIConnectionError, match=r"\(try 2, after APIConnectionError\)") as caught:
            await client.threads.create()
    assert caught.value.sent is False


@pytest.mark.parametrize("name", ["408", "409", "425", "500", "502", "503", "504", "dropped", "silent"])
async def test_what_may_have_had_its_effect_is_not_repeated(name: str) -> None:
    async with RecordingServer(PASSING[name], reply()) as server, Client(server.base_url) as client:
        with pytest.raises(APIError):
            await client.threads.runs.create("thread_1", assistant_id="asst_1")
        assert len(server.seen) == 1


async def test_a_deletion_is_not_repeated_after_a_500() -> None:
    async with RecordingServer(reply(500), reply()) as server, Client(server.base_url) as client:
        with pytest.raises(InternalServerError):
            await client.threads.delete("thread_1")
        assert len(server.seen) == 1


async def test_a_post_is_repeated_after_a_429() -> None:
    async with RecordingServer(reply(429), reply(429), reply()) as server, Client(server.base_url) as client:
        await client.threads.create(metadata={"a": "b"})
        assert [seen.body for seen in server.seen] == [b'{"metadata":{"a":"b"}}'] * 3


class Flaky(Transport):
    """Gives prepared results."""

    def __init__(self, *results: Response | APIConnectionError) -> None:
        self.results = list(results)

    async def send(self, request: Request) -> Response:
        result = self.results.pop(0)
        if isinstance(result, APIConnectionError):
            raise result
        return result

    async def aclose(self) -> None:
        self.results.clear()


POST = Request("POST", "/threads")
GOOD = Response(200, {}, b"{}")


async def test_a_post_is_repeated_after_a_refused_connection() -> None:
    refused = APIConnectionError("refused", sent=False)
    response = await RetryTransport(Flaky(refused, refused, GOOD)).send(POST)
    assert (response.status, response.attempts) == (200, ("APIConnectionError", "APIConnectionError"))


async def test_a_post_is_not_repeated_once_one_of_its_tries_was_sent() -> None:
    inner = Flaky(APIConnectionError("refused", sent=False), APITimeoutError("late", sent=True), GOOD)
    with pytest.raises(APITimeoutError, match=r"late \(try 2, after APIConnectionError\)"):
        await RetryTransport(inner, max_retries=5).send(POST)
    assert inner.results == [GOOD]


async def test_a_spent_quota_is_not_asked_again() -> None:
    async with RecordingServer(QUOTA) as server, Client(server.base_url) as client:
        for call in (client.threads.retrieve("thread_1"), client.threads.create()):
            with pytest.raises(RateLimitError) as caught:
                await call
            assert caught.value.code == "insufficient_quota"
        assert len(server.seen) == 2


async def test_no_retries_means_one_try() -> None:
    async with RecordingServer(reply(500)) as server, Client(server.base_url, max_retries=0) as client:
        with pytest.raises(InternalServerError):
            await client.threads.retrieve("thread_1")
        assert len(server.seen) == 1


HINTS = [
    ({"Retry_After": "30"}, 30.0),
    ({"Retry_After": "12.5"}, 12.5),
    ({"retry_after_ms": "20000"}, 20.0),
    ({"x_ms_retry_after_ms": "20000", "Retry_After": "1"}, 20.0),
    ({"Retry_After": formatdate(1_000_040, usegmt=True), "Date": formatdate(1_000_000, usegmt=True)}, 40.0),
]


@pytest.mark.parametrize(("headers", "waited"), HINTS)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_pause_is_what_the_server_asks_for(status: int, headers: dict[str, str], waited: float) -> None:
    loop = asyncio.get_running_loop()
    async with RecordingServer(reply(status, **headers), reply()) as server, Client(server.base_url) as client:
        start = loop.time()
        await client.threads.retrieve("thread_1")
        assert loop.time() - start == pytest.approx(waited, abs=0.01)


@pytest.mark.parametrize("hint", ["0", "-5", "nan", "soon", "Wed, 99 Foo 2026", ""])
async def test_without_a_usable_hint_the_pauses_grow(hint: str) -> None:
    loop = asyncio.get_running_loop()
    script = *[reply(503, Retry_After=hint)] * 3, reply()
    async with RecordingServer(*script) as server, Client(server.base_url, max_retries=3) as client:
        start = loop.time()
        await client.threads.retrieve("thread_1")
        least = PAUSE_START_S * (1 + 2 + 4)
        assert least <= loop.time() - start <= least + 3 * PAUSE_START_S


async def test_the_pauses_have_a_ceiling() -> None:
    loop = asyncio.get_running_loop()
    inner = Flaky(*[Response(500, {}, b"")] * 9, GOOD)
    start = loop.time()
    await RetryTransport(inner, max_retries=9).send(Request("GET", "/x"))
    assert 45 < loop.time() - start < 9 * (PAUSE_CEILING_S + PAUSE_START_S)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_pause_of_hours_is_not_waited_for(status: int) -> None:
    loop = asyncio.get_running_loop()
    async with (
        RecordingServer(reply(status, Retry_After="7200")) as server,
        Client(server.base_url, max_retries=5) as client,
    ):
        start = loop.time()
        with pytest.raises(APIStatusError) as caught:
            await client.threads.retrieve("thread_1")
        assert caught.value.headers["retry-after"] == "7200"
        assert len(server.seen) == 1
        assert loop.time() - start < 1


async def test_a_good_first_answer_never_enters_tenacity(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("tenacity was entered")

    monkeypatch.setattr(tenacity, "AsyncRetrying", refuse)
    response = await RetryTransport(Flaky(GOOD)).send(POST)
    assert response is GOOD
    with pytest.raises(AssertionError, match="tenacity was entered"):
        await RetryTransport(Flaky(Response(429, {}, b""))).send(POST)


async def test_a_cancelled_pause_sends_nothing_more() -> None:
    inner = Flaky(Response(429, {"retry-after": "50"}, b""), GOOD)
    sending = asyncio.create_task(RetryTransport(inner).send(POST))
    await asyncio.sleep(10)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert inner.results == [GOOD]


async def test_closing_goes_through_to_the_inner_transport() -> None:
    inner = Flaky(GOOD)
    await RetryTransport(inner).aclose()
    assert inner.results == []
