"""Findings of a review: readers that hung, events that got lost, polls that were not sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
from test_streamed import ANSWER, ROUNDS, Tools, all_of, begin, notices, polls

from asyncruns import (
    APIConnectionError,
    Client,
    Completed,
    GaveUp,
    InvalidRequestError,
    NeedsCaller,
    RunWatcher,
    Toolset,
)
from asyncruns.abc import ByteStream
from asyncruns.http import Request, Response
from asyncruns.lifecycle.machine import SILENCE_S
from asyncruns.streams.event_stream import source_of
from asyncruns.testing import Fault, InMemoryTransport, Scenario

SOON_S: Final = 60.0


class Body(ByteStream):
    """A stream of the emulator that the test makes slow or odd."""

    def __init__(self, inner: ByteStream) -> None:
        self._inner = inner
        self.status, self.headers, self.redact = inner.status, inner.headers, inner.redact

    async def read(self) -> bytes:
        return await self._inner.read()

    async def aclose(self) -> None:
        await self._inner.aclose()


class Streams(InMemoryTransport):
    """A server whose streams are modified by `odd`."""

    def __init__(self, odd: Callable[[ByteStream], ByteStream], **scenario: Any) -> None:
        super().__init__(latency=0.01)
        self.script(Scenario(**{"rounds": ROUNDS, "answer": ANSWER, **scenario}), assistant_id="asst_1")
        self._odd = odd

    async def stream(self, request: Request) -> Response | ByteStream:
        answer = await super().stream(request)
        return self._odd(answer) if isinstance(answer, ByteStream) and request.method == "POST" else answer


def scripted(transport: InMemoryTransport, **scenario: Any) -> InMemoryTransport:
    transport.script(Scenario(**{"rounds": ROUNDS, "answer": ANSWER, **scenario}), assistant_id="asst_1")
    return transport


@pytest.fixture
def transport() -> InMemoryTransport:
    return scripted(InMemoryTransport(latency=0.01))


@pytest.fixture
async def client(transport: InMemoryTransport) -> AsyncIterator[Client]:
    async with Client(transport=transport) as client:
        yield client


# Readers come to an end


async def test_a_reader_ends_when_polls_see_the_end_before_the_submit_streams(
    client: Client, transport: InMemoryTransport
) -> None:
    scripted(transport, rounds=ROUNDS[:1], working=2.0)
    transport.inject(Fault(on="submit", stream="silence", events=0))
    async with RunWatcher(client, await begin(client), tools=Tools()) as watcher:
        async with asyncio.timeout(SOON_S):
            await all_of(watcher.stream_events())
        assert isinstance(await watcher.wait(), Completed)


async def test_a_reader_ends_with_the_error_that_broke_the_watch(transport: InMemoryTransport, client: Client) -> None:
    stream = await begin(client)

    async def breaks() -> Any:
        raise ValueError("from a stream of the caller's own")

    async with RunWatcher(client, stream, tools=Tools()) as watcher:
        source_of(stream).next_event = breaks  # type: ignore[method-assign]
        with pytest.raises(ValueError, match="own"):
            async with asyncio.timeout(SOON_S):
                await all_of(watcher.text_deltas())


async def test_a_reader_ends_when_a_leaving_caller_is_cancelled_again(
    client: Client, transport: InMemoryTransport
) -> None:
    scripted(transport, rounds=(), working=50.0)
    transport.inject(Fault(on="cancel", delay_before=4.0))
    stream, watchers = await begin(client), []

    async def hold() -> None:
        async with RunWatcher(client, stream, on_exit="cancel") as watcher:
            watchers.append(watcher)
            await asyncio.sleep(1000.0)

    holding = asyncio.ensure_future(hold())
    await asyncio.sleep(0.5)
    reading = asyncio.ensure_future(all_of(watchers[0].stream_events()))
    for _ in range(2):
        await asyncio.sleep(0.5)
        holding.cancel()
    async with asyncio.timeout(SOON_S):
        await reading
    await asyncio.wait({holding})


async def test_a_reader_ends_at_the_timeout_of_the_watch(client: Client, transport: InMemoryTransport) -> None:
    scripted(transport, rounds=(), answer="word " * 50, working=50.0)
    began = asyncio.get_running_loop().time()
    async with RunWatcher(client, await begin(client), timeout=3.0) as watcher:
        texts = []
        with pytest.raises(APIConnectionError, match="gave up before the run ended"):
            async for text in watcher.text_deltas():
                texts.append(text)
        assert texts
        assert asyncio.get_running_loop().time() - began < 4.0
        assert isinstance(watcher.outcome, GaveUp)


async def test_the_timeout_of_the_watch_bounds_the_beginning_of_a_stream(
    client: Client, transport: InMemoryTransport
) -> None:
    transport.inject(Fault(on="create_run", stream="silence", events=0))
    began = asyncio.get_running_loop().time()
    with pytest.raises(APIConnectionError, match="fell silent"):
        await client.watch(await begin(client), timeout=3.0)
    assert asyncio.get_running_loop().time() - began < 4.0


# A stream that is alive but has no news


async def test_pings_do_not_count_as_news_of_the_run() -> None:
    class Pings(Body):
        async def read(self) -> bytes:
            if data := await super().read():
                return data
            await asyncio.sleep(2.0)
            return b'event: ping\ndata: {"type": "ping"}\n\n'

    transport = Streams(Pings, rounds=())
    transport.inject(Fault(on="create_run", stream="close", events=6))
    async with Client(transport=transport) as client:
        began = asyncio.get_running_loop().time()
        async with RunWatcher(client, await begin(client)) as watcher, asyncio.timeout(SOON_S):
            await all_of(watcher.stream_events())
            assert isinstance(watcher.outcome, Completed)
        assert asyncio.get_running_loop().time() - began < 4 * SILENCE_S


async def test_a_stream_that_stays_open_after_the_calls_does_not_cost_the_next() -> None:
    class NeverDone(Body):
        async def read(self) -> bytes:
            data = await super().read()
            if not data or b"event: done" in data:
                await asyncio.sleep(10_000.0)
            return data

    transport = Streams(NeverDone)
    async with (
        Client(transport=transport) as client,
        RunWatcher(client, await begin(client), tools=Tools()) as watcher,
    ):
        assert "".join(await all_of(watcher.text_deltas())) == ANSWER
    assert polls(transport) == 0


# No event is lost


async def test_a_reader_may_wait_and_read_on_after_each_round(client: Client) -> None:
    texts: list[str] = []
    async with RunWatcher(client, await begin(client)) as watcher:
        texts += await all_of(watcher.text_deltas())
        outcome = await watcher.wait()
        while isinstance(outcome, NeedsCaller):
            await watcher.submit({call.id: "7" for call in outcome.calls})
            texts += await all_of(watcher.text_deltas())
            outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert "".join(texts) == ANSWER


async def test_waiter_and_reader_may_begin_in_any_order(client: Client) -> None:
    async with RunWatcher(client, await begin(client), tools=Tools()) as watcher:
        outcome, texts = await asyncio.gather(watcher.wait(), all_of(watcher.text_deltas()))
    assert isinstance(outcome, Completed)
    assert "".join(texts) == ANSWER


@pytest.mark.parametrize("late", [112.0 + 0.35 * n for n in range(15)])
async def test_a_reader_that_starts_very_late_misses_nothing_of_a_slow_stream(late: float) -> None:
    class Slow(Body):
        async def read(self) -> bytes:
            await asyncio.sleep(0.4)
            return await super().read()

    words = [f"{n} " for n in range(300)]
    transport = Streams(Slow, rounds=(), answer="".join(words), working=1.0)
    async with Client(transport=transport) as client, RunWatcher(client, await begin(client)) as watcher:
        await asyncio.sleep(late)
        assert "".join(await all_of(watcher.text_deltas())) == "".join(words)


async def test_the_events_of_a_submit_are_read_even_if_it_names_the_run_late() -> None:
    class Deltas(Body):
        async def read(self) -> bytes:
            while b"event: thread.run.queued" in (data := await super().read()) or b"run.in_progress" in data:
                pass
            await asyncio.sleep(3.0 if b"run.completed" in data else 0.0)
            return data

    transport = Streams(Deltas, rounds=ROUNDS[:1], working=2.0)
    async with Client(transport=transport) as client:
        stream = await begin(client)
        async with RunWatcher(client, stream, tools=Tools()) as watcher, asyncio.timeout(SOON_S):
            assert "".join(await all_of(watcher.text_deltas())) == ANSWER
            assert isinstance(await watcher.wait(), Completed)


# What is reported is right


async def test_a_poll_that_is_late_does_not_undo_what_a_stream_showed() -> None:
    class SlowPolls(InMemoryTransport):
        async def send(self, request: Request) -> Response:
            answer = await super().send(request)
            await asyncio.sleep(1.0 if request.method == "GET" else 0.0)
            return answer

    async def add(a: int, b: int) -> int:
        await asyncio.sleep(2.0)
        return a + b

    transport = scripted(SlowPolls(), rounds=ROUNDS[:1], working=SILENCE_S + 0.9)
    async with Client(transport=transport) as client:
        stream = await begin(client)
        async with RunWatcher(client, stream, tools=Toolset([add])) as watcher:
            reported = [event for event in await notices(watcher) if event.startswith("StatusChanged")]
    names = ["queued", "in_progress", "requires_action", "queued", "in_progress", "completed"]
    assert reported == [f"StatusChanged {name}" for name in names]


async def test_a_slow_end_of_one_stream_is_not_taken_for_that_of_the_next() -> None:
    class SlowClose(Body):
        async def aclose(self) -> None:
            await super().aclose()
            await asyncio.sleep(0.5)

    transport = Streams(SlowClose)
    async with (
        Client(transport=transport) as client,
        RunWatcher(client, await begin(client), tools=Tools()) as watcher,
    ):
        assert "StreamBroken" not in await notices(watcher)
    assert polls(transport) == 0


async def test_a_stray_cancellation_of_a_submit_breaks_the_watch_and_says_so() -> None:
    class Stray(InMemoryTransport):
        async def stream(self, request: Request) -> Response | ByteStream:
            if request.path.endswith("/submit_tool_outputs"):
                raise asyncio.CancelledError
            return await super().stream(request)

    async with Client(transport=scripted(Stray())) as client:
        with pytest.raises(RuntimeError, match="its task was not cancelled"):
            await client.watch(await begin(client), tools=Tools())


# Streams of responses


async def test_a_reopened_stream_of_a_response_is_watched(transport: InMemoryTransport) -> None:
    transport.script(Scenario(answer="word " * 300, working=30.0), model="gpt-4o")
    async with Client(transport=transport) as client:
        stream: Any = await client.responses.create(model="gpt-4o", input="Hi", background=True, stream=True)
        before = [await anext(stream) for _ in range(6)]
        response_id, number = stream.response.id, stream.sequence_number
        await stream.close()
        stream = await client.responses.retrieve(response_id, stream=True, starting_after=number)
        began = asyncio.get_running_loop().time()
        async with RunWatcher(client.responses.continued(), stream) as watcher:
            assert asyncio.get_running_loop().time() - began < 1.0
            after = await all_of(watcher.stream_events())
            assert isinstance(await watcher.wait(), Completed)
    deltas = [event.delta for event in (*before, *after) if event.event == "response.output_text.delta"]
    assert "".join(deltas) == "word " * 300


async def test_a_client_watches_streams_of_both_kinds_and_one_for_responses_only_its_own(client: Client) -> None:
    stream = await client.responses.create(model="gpt-4o", input="Hi", background=True, stream=True)
    async with RunWatcher(client, stream) as watcher:
        assert isinstance(await watcher.wait(), Completed)
    thread = await client.threads.create()
    assistant = await client.assistants.create(model="gpt-4o")
    run: Any = await client.threads.runs.create(thread.id, assistant_id=assistant.id, stream=True)
    with pytest.raises(InvalidRequestError, match=r"this client watches a response: use RunWatcher\(client, stream\)"):
        RunWatcher(client.responses.continued(), run)
    await run.close()
