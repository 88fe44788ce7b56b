"""A watch over the streams of a run: the same events as with polls, and no fault of a stream harms the watch."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, get_args

import pytest

from asyncruns import (
    APIConnectionError,
    APIError,
    Cancelled,
    Client,
    Completed,
    EventTooLargeError,
    Failed,
    GaveUp,
    InvalidRequestError,
    NeedsCaller,
    Reason,
    RunStream,
    RunWatcher,
    StreamBroken,
    Toolset,
)
from asyncruns.abc import ByteStream
from asyncruns.http import Request, Response
from asyncruns.lifecycle.machine import SILENCE_S
from asyncruns.streams.event_stream import source_of
from asyncruns.testing import Fault, FunctionCall, InMemoryTransport, Scenario
from asyncruns.testing.emulator.faults import StreamEnd
from asyncruns.watch.stream_buffer import BUFFERED_EVENTS
from asyncruns.wire import MessageDeltaEvent, encode

ROUNDS: Final = (
    (FunctionCall("add", {"a": 1, "b": 2}), FunctionCall("add", {"a": 3, "b": 4})),
    (FunctionCall("add", {"a": 5, "b": 6}),),
)
ANSWER: Final = "Hello from Paris, my friend"
ENDS: Final = get_args(StreamEnd)
RUN: Final = {"id": "run_1", "object": "thread.run", "thread_id": "thread_1", "assistant_id": "asst_1"}
DELTA: Final = {
    "id": "msg_1",
    "object": "thread.message.delta",
    "delta": {"content": [{"index": 0, "type": "text", "text": {"value": "a word "}}]},
}


class Tools(Toolset):
    """A toolset with one function, `add`, that counts its calls by their arguments."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[int, int]] = Counter()

        async def add(a: int, b: int) -> int:
            self.calls[a, b] += 1
            return a + b

        super().__init__([add])


@pytest.fixture
def transport() -> InMemoryTransport:
    transport = InMemoryTransport(latency=0.01)
    transport.script(Scenario(rounds=ROUNDS, answer=ANSWER), assistant_id="asst_1")
    return transport


@pytest.fixture
async def client(transport: InMemoryTransport) -> AsyncIterator[Client]:
    async with Client(transport=transport) as client:
        yield client


async def begin(client: Client, **parameters: Any) -> RunStream:
    thread = await client.threads.create(messages=[{"role": "user", "content": "Hi"}])
    stream: RunStream = await client.threads.runs.create(thread.id, assistant_id="asst_1", stream=True, **parameters)
    return stream


def polls(transport: InMemoryTransport) -> int:
    return sum(seen.operation == "poll" for seen in transport.requests)


async def notices(watcher: RunWatcher[Any]) -> list[str]:
    return [f"{type(event).__name__} {getattr(event, 'status', '')}".strip() async for event in watcher]


async def all_of(source: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in source]


# Reading streams


async def test_the_events_of_a_watch_are_the_same_and_nothing_is_polled(
    transport: InMemoryTransport, client: Client
) -> None:
    thread = await client.threads.create()
    run = await client.threads.runs.create(thread.id, assistant_id="asst_1")
    async with RunWatcher(client, run, tools=Tools()) as watcher:
        polled = await notices(watcher)
    transport.requests.clear()

    tools = Tools()
    async with RunWatcher(client, await begin(client), tools=tools) as watcher:
        texts, streamed = await asyncio.gather(all_of(watcher.text_deltas()), notices(watcher))
        outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert [event for event in streamed if not event.startswith("CallAnswered")] == [
        event for event in polled if not event.startswith("CallAnswered")
    ]
    assert "".join(texts) == ANSWER
    assert list(tools.calls.values()) == [1, 1, 1]
    assert (polls(transport), watcher.polls, outcome.polls) == (0, 0, 0)
    assert watcher.ref.ids[1] == outcome.run.id
    assert (await outcome.messages())[0].text == ANSWER


async def test_all_events_of_all_streams_come_once_and_in_order(client: Client) -> None:
    stream = await begin(client)
    async with RunWatcher(client, stream, tools=Tools()) as watcher:
        events = await all_of(watcher.stream_events())
    names = [event.event for event in events]
    assert names.count("done") == 3  # a stream for each round, and the last one
    assert names.count("thread.run.created") == 1
    assert names.count("thread.run.requires_action") == 2
    assert names[-2:] == ["thread.run.completed", "done"]
    assert stream.message is not None
    assert stream.message.text == ANSWER
    assert len(stream.steps) == 3  # the stream object of the caller has the steps of all rounds


async def test_a_caller_that_needs_the_outcome_only_waits(transport: InMemoryTransport, client: Client) -> None:
    outcome = await client.watch(await begin(client), tools=Tools())
    assert isinstance(outcome, Completed)
    assert polls(transport) == 0


async def test_waiting_without_a_reader_discards_the_events(client: Client) -> None:
    async with RunWatcher(client, await begin(client), tools=Tools()) as watcher:
        await watcher.wait()
        with pytest.raises(InvalidRequestError, match="start to read before"):
            await all_of(watcher.text_deltas())


async def test_a_reader_that_starts_late_misses_nothing(client: Client) -> None:
    async with RunWatcher(client, await begin(client), tools=Tools()) as watcher:
        await asyncio.sleep(30.0)
        assert watcher.outcome is not None
        assert "".join(await all_of(watcher.text_deltas())) == ANSWER


async def test_a_reader_that_stopped_may_read_on(client: Client) -> None:
    async with RunWatcher(client, await begin(client), tools=Tools()) as watcher:
        found = []
        async for text in watcher.text_deltas():
            found.append(text)
            break
        assert "".join([*found, *(await all_of(watcher.text_deltas()))]) == ANSWER


async def test_the_events_go_to_one_reader(client: Client) -> None:
    async with RunWatcher(client, await begin(client), tools=Tools()) as watcher:
        first = asyncio.ensure_future(all_of(watcher.text_deltas()))
        await asyncio.sleep(0.3)
        with pytest.raises(InvalidRequestError, match="Another reader"):
            await all_of(watcher.stream_events())
        assert "".join(await first) == ANSWER


async def test_a_slow_reader_stops_the_socket_and_not_the_watch(client: Client, transport: InMemoryTransport) -> None:
    words = [f"{n} " for n in range(3 * BUFFERED_EVENTS)]
    transport.script(Scenario(answer="".join(words), working=1.0), assistant_id="asst_1")
    read = 0
    stream = await begin(client)
    source = source_of(stream)
    of_the_stream = source.next_event

    async def counted() -> Any:
        nonlocal read
        read += 1
        return await of_the_stream()

    source.next_event = counted  # type: ignore[method-assign]
    async with RunWatcher(client, stream) as watcher:
        events = notices(watcher)
        await asyncio.sleep(60.0)
        assert BUFFERED_EVENTS <= read <= BUFFERED_EVENTS + 2
        assert isinstance(watcher.outcome, Completed)  # by polls
        found = []
        async for text in watcher.text_deltas():
            await asyncio.sleep(0.1)
            found.append(text)
        assert "StreamBroken" in await events
    assert "".join(found) == "".join(words)


async def test_a_fast_reader_is_never_behind(client: Client, transport: InMemoryTransport) -> None:
    transport.script(Scenario(answer="word" + " word" * (3 * BUFFERED_EVENTS - 1)), assistant_id="asst_1")
    async with RunWatcher(client, await begin(client)) as watcher:
        texts, events = await asyncio.gather(all_of(watcher.text_deltas()), notices(watcher))
    assert len(texts) == 3 * BUFFERED_EVENTS
    assert "StreamBroken" not in events


async def test_a_fast_reader_is_not_behind_when_much_comes_at_once() -> None:
    said = [{**RUN, "status": "in_progress"}, *[DELTA] * 4 * BUFFERED_EVENTS, {**RUN, "status": "completed"}]
    body = Pieces(b"".join(b"data: " + encode(one) + b"\n\n" for one in said), b"")
    stream = RunStream(Request("POST", "/threads/thread_1/runs"), body)
    async with Client(transport=InMemoryTransport()) as client, RunWatcher(client, stream) as watcher:
        texts, events = await asyncio.gather(all_of(watcher.text_deltas()), notices(watcher))
    assert len(texts) == 4 * BUFFERED_EVENTS
    assert "StreamBroken" not in events


async def test_events_that_were_read_before_the_watch_do_not_come_again(
    client: Client, transport: InMemoryTransport
) -> None:
    stream = await begin(client)
    before = [await anext(stream) for _ in range(3)]
    async with RunWatcher(client, stream, tools=Tools()) as watcher:
        events = await all_of(watcher.stream_events())
        assert isinstance(await watcher.wait(), Completed)
    assert [event.event for event in before][-1] == "thread.run.in_progress"
    assert "thread.run.created" not in [event.event for event in events]
    assert polls(transport) == 0


async def test_a_stream_that_was_read_to_its_end_can_be_watched(client: Client, transport: InMemoryTransport) -> None:
    stream, tools = await begin(client), Tools()
    async for _ in stream:
        pass
    async with RunWatcher(client, stream, tools=tools) as watcher:
        assert "".join(await all_of(watcher.text_deltas())) == ANSWER
        assert isinstance(await watcher.wait(), Completed)
    assert polls(transport) == 1  # what a stream showed long ago is old
    assert list(tools.calls.values()) == [1, 1, 1]


# Streams that fail


@pytest.mark.parametrize("events", range(1, 16))
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("on", ["create_run", "submit"])
async def test_a_stream_that_ends_too_early_costs_some_polls(
    client: Client, transport: InMemoryTransport, on: Any, end: StreamEnd, events: int
) -> None:
    transport.inject(Fault(on=on, stream=end, events=events))
    tools, loop = Tools(), asyncio.get_running_loop()
    began = loop.time()
    async with RunWatcher(client, await begin(client), tools=tools) as watcher:
        texts, reported = await asyncio.gather(all_of(watcher.stream_events()), notices(watcher))
        outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert list(tools.calls.values()) == [1, 1, 1]
    assert sum(seen.operation == "submit" for seen in transport.requests) == 2
    deltas = [event.data.text for event in texts if isinstance(event, MessageDeltaEvent)]
    assert ANSWER.startswith("".join(deltas)) or on == "submit"
    assert reported.count("StreamBroken") <= 1
    assert reported[-1] == "Ended completed"
    assert loop.time() - began < 20.0
    assert polls(transport) < 20


async def test_a_stream_that_never_names_its_run_is_an_error(client: Client, transport: InMemoryTransport) -> None:
    transport.inject(Fault(on="create_run", stream="close", events=0))
    with pytest.raises(APIConnectionError, match=r"before any event of a run.*list the runs"):
        await client.watch(await begin(client))
    transport.inject(Fault(on="create_run", stream="error", events=0))
    with pytest.raises(APIError, match=r"gave up the stream.*list the runs"):
        await client.watch(await begin(client))


async def test_a_run_whose_stream_is_silent_is_polled(client: Client, transport: InMemoryTransport) -> None:
    transport.script(Scenario(queued=0.1, working=22.0, answer="word"), assistant_id="asst_1")
    async with RunWatcher(client, await begin(client)) as watcher:
        outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert 0 < polls(transport) <= 22.0 / SILENCE_S


async def test_a_submit_with_a_stream_may_be_lost(client: Client, transport: InMemoryTransport) -> None:
    transport.inject(Fault(on="submit", drop=True, acts=True), Fault(on="submit", skip=1, status=500))
    tools = Tools()
    async with RunWatcher(client, await begin(client), tools=tools) as watcher:
        texts = await all_of(watcher.text_deltas())
        outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert list(tools.calls.values()) == [1, 1, 1]
    assert "".join(texts) in ("", ANSWER)


async def test_a_server_that_answers_a_submit_with_the_run_is_polled(transport: InMemoryTransport) -> None:
    class Plain(InMemoryTransport):
        async def stream(self, request: Request) -> Any:
            if request.path.endswith("/submit_tool_outputs"):
                return await super().stream(Request(request.method, request.path, body=plain(request)))
            return await super().stream(request)

    def plain(request: Request) -> bytes:
        return (request.body or b"").replace(b',"stream":true', b"")

    other = Plain()
    other.script(Scenario(rounds=ROUNDS, answer=ANSWER), assistant_id="asst_1")
    async with Client(transport=other) as client:
        outcome = await client.watch(await begin(client), tools=Tools())
    assert isinstance(outcome, Completed)
    assert polls(other) > 0


# Leaving and cancelling


async def test_leaving_ends_the_reading_and_the_run_goes_on(client: Client, transport: InMemoryTransport) -> None:
    async with RunWatcher(client, await begin(client), tools=Tools()) as watcher:
        reading = asyncio.ensure_future(all_of(watcher.stream_events()))
        await asyncio.sleep(0.3)
    names = [event.event for event in await reading]
    assert "thread.run.in_progress" in names
    assert "thread.run.requires_action" not in names
    assert (await client.threads.runs.retrieve(watcher.ref.ids[1], thread_id=watcher.ref.ids[0])).status != "cancelled"


async def test_a_run_is_cancelled_while_it_streams(client: Client) -> None:
    async with RunWatcher(client, await begin(client), tools=Tools()) as watcher:
        await asyncio.sleep(0.3)
        await watcher.cancel_run()
        assert isinstance(await watcher.wait(), Cancelled)


async def test_leaving_may_cancel_a_run_that_streams(client: Client) -> None:
    async with RunWatcher(client, await begin(client), tools=Tools(), on_exit="cancel") as watcher:
        await asyncio.sleep(0.3)
    assert isinstance(watcher.outcome, Cancelled)


async def test_the_timeout_holds_whatever_the_stream_shows(client: Client, transport: InMemoryTransport) -> None:
    transport.script(Scenario(answer="word " * 50, working=50.0), assistant_id="asst_1")
    async with RunWatcher(client, await begin(client), timeout=3.0) as watcher:
        assert isinstance(await watcher.wait(), GaveUp)
        texts = await all_of(watcher.text_deltas()) if watcher.outcome is None else []
    assert texts == []


async def test_a_watch_that_needs_the_caller_is_resumed_with_a_stream(client: Client) -> None:
    async with RunWatcher(client, await begin(client)) as watcher:
        first = await all_of(watcher.stream_events())
        assert isinstance(watcher.outcome, NeedsCaller)
        for _ in ROUNDS:
            assert isinstance(watcher.outcome, NeedsCaller)
            await watcher.submit({call.id: "7" for call in watcher.outcome.calls})
            more = await all_of(watcher.stream_events())
            assert more[0].event == "thread.run.step.completed"
        assert isinstance(watcher.outcome, Completed)
    assert first[-1].event == "done"


async def test_a_caller_that_is_cancelled_while_the_stream_begins_closes_it(
    client: Client, transport: InMemoryTransport
) -> None:
    transport.inject(Fault(on="create_run", stream="silence", events=0))
    stream = await begin(client)
    watching = asyncio.ensure_future(client.watch(stream))
    await asyncio.sleep(1.0)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert source_of(stream)._reader.is_over


# Readers of a stream


async def test_a_stream_is_read_by_its_watch_alone(client: Client) -> None:
    stream = await begin(client)
    async with RunWatcher(client, stream, tools=Tools()):
        with pytest.raises(InvalidRequestError, match=r"watcher\.text_deltas"):
            await anext(stream)
        with pytest.raises(InvalidRequestError, match="Another watch"):
            await client.watch(stream)


async def test_two_watches_read_two_streams_of_one_run(client: Client, transport: InMemoryTransport) -> None:
    """One reads the stream that began the run; the other that of outputs which another client submitted."""
    async with RunWatcher(client, await begin(client)) as first:
        assert isinstance(await first.wait(), NeedsCaller)
        thread_id, run_id = first.ref.ids
        assert isinstance(first.outcome, NeedsCaller)
        outputs: Any = [{"tool_call_id": call.id, "output": "7"} for call in first.outcome.calls]
        other = await client.threads.runs.submit_tool_outputs(
            run_id, thread_id=thread_id, tool_outputs=outputs, stream=True
        )
        tools = Tools()
        async with RunWatcher(client, other, tools=tools) as second:
            texts = await all_of(second.text_deltas())
            assert isinstance(await second.wait(), Completed)
        await first.submit({output["tool_call_id"]: "8" for output in outputs})
        assert isinstance(await first.wait(), Completed)
    assert "".join(texts) == ANSWER
    assert list(tools.calls) == [(5, 6)]


async def test_the_ids_must_be_those_of_the_stream(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="contradicts the run"):
        await client.watch(await begin(client), run_id="run_other")


async def test_a_watch_without_a_stream_has_none_to_read(client: Client) -> None:
    thread = await client.threads.create()
    run = await client.threads.runs.create(thread.id, assistant_id="asst_1")
    async with RunWatcher(client, run) as watcher:
        with pytest.raises(InvalidRequestError, match="stream=True"):
            await anext(watcher.text_deltas())
    with pytest.raises(InvalidRequestError, match="async with"):
        await anext(watcher_of(client, run).stream_events())


def watcher_of(client: Client, run: Any) -> RunWatcher[Any]:
    return RunWatcher(client, run)


# What servers send


class Pieces(ByteStream):
    """A body that the test specifies; the last piece repeats, unless it is b""."""

    def __init__(self, *pieces: bytes) -> None:
        self.status = 200
        self.headers: Mapping[str, str] = {}
        self._pieces = list(pieces)
        self.is_closed = False

    async def read(self) -> bytes:
        await asyncio.sleep(0.01)
        return self._pieces.pop(0) if len(self._pieces) > 1 else self._pieces[0]

    async def aclose(self) -> None:
        self.is_closed = True


class Odd(InMemoryTransport):
    """A server whose first stream names the real run, and continues as the test specifies."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__(latency=0.01)
        self.script(Scenario(rounds=ROUNDS, answer=ANSWER), assistant_id="asst_1")
        self._pieces = pieces
        self.odd: Pieces | None = None

    async def stream(self, request: Request) -> Response | ByteStream:
        answer = await super().stream(request)
        if not request.path.endswith("/runs") or isinstance(answer, Response):
            return answer
        self.odd = Pieces(await answer.read(), *self._pieces)
        return self.odd


@pytest.mark.parametrize(
    ("pieces", "cause"),
    [
        ([b"data: " + b"x" * 1_000_000], EventTooLargeError),
        ([b"x" * 1_000_000], EventTooLargeError),
        ([b": a comment\n" * 1000, b""], type(None)),
        ([b"\xff\xfe\x00garbage\n\n", b""], type(None)),
        ([b'event: error\ndata: {"message": "overloaded"}\n\n', b""], APIError),
    ],
    ids=["an event without end", "a line without end", "comments", "garbage", "error"],
)
async def test_a_stream_of_rubbish_costs_some_polls(pieces: list[bytes], cause: type) -> None:
    transport, tools = Odd(*pieces), Tools()
    client = Client(transport=transport)
    async with RunWatcher(client, await begin(client), tools=tools) as watcher:
        broken = [event async for event in watcher if isinstance(event, StreamBroken)]
        assert isinstance(await watcher.wait(), Completed)
    assert type(broken[0].cause) is cause
    assert len(broken) == 1
    assert list(tools.calls.values()) == [1, 1, 1]
    assert transport.odd is not None
    assert transport.odd.is_closed


async def test_the_data_of_an_event_counts_and_not_its_name() -> None:
    said = b"event: thread.run.completed\ndata: " + encode({**RUN, "status": "in_progress"}) + b"\n\n"
    stream = RunStream(Request("POST", "/threads/thread_1/runs"), Pieces(said, b": nothing more\n"))
    async with Client(transport=InMemoryTransport()) as client, RunWatcher(client, stream) as watcher:
        await asyncio.sleep(1.0)
        assert (watcher.status, watcher.outcome) == ("in_progress", None)


async def test_no_credential_is_shown_from_the_error_of_a_stream() -> None:
    fault = {"code": "server_error", "message": "bad key sk-hidden"}
    body = Pieces(b"data: " + encode({**RUN, "status": "failed", "last_error": fault}) + b"\n\n", b"")
    body.redact = lambda text: text.replace(b"sk-hidden", b"***")
    stream = RunStream(Request("POST", "/threads/thread_1/runs"), body)
    async with Client(transport=InMemoryTransport()) as client:
        outcome = await client.watch(stream)
    assert isinstance(outcome, Failed)
    assert "sk-hidden" not in f"{outcome!r} {outcome.error}"


async def test_the_expiry_of_a_run_that_streams_is_known(client: Client, transport: InMemoryTransport) -> None:
    """Calls that hang are answered in time for the run to live, although nothing was polled before."""
    transport.script(Scenario(rounds=ROUNDS, lifetime=60.0), assistant_id="asst_1")

    async def add(a: int, b: int) -> int:
        if a == 1:
            await asyncio.get_running_loop().create_future()
        return a + b

    outcome = await client.watch(await begin(client), tools=Toolset([add]))
    assert isinstance(outcome, Completed)
    assert "did not finish" in str(transport.submitted(outcome.run.id)[0])


async def test_the_end_that_a_slow_reader_reaches_ends_the_watch_although_no_poll_succeeds(
    client: Client, transport: InMemoryTransport
) -> None:
    transport.script(Scenario(answer="word" + " word" * 2 * BUFFERED_EVENTS, working=1.0), assistant_id="asst_1")
    transport.inject(Fault(on="poll", status=500, times=None))
    async with RunWatcher(client, await begin(client), max_outage=None) as watcher:
        async for _ in watcher.text_deltas():
            await asyncio.sleep(0.1)
        outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert polls(transport) > 0


# Responses


async def test_a_streamed_follow_up_of_a_response_is_waited_for_as_no_poll_can_show_it(
    client: Client, transport: InMemoryTransport
) -> None:
    """Its id is unknown until the first event, so a late event must not be taken for a lost answer."""
    transport.script(Scenario(rounds=ROUNDS, answer=ANSWER), model="gpt-test")
    late = transport.stream

    async def stream(request: Request) -> Any:
        answer = await late(request)
        if b"previous_response_id" in (request.body or b"") and isinstance(answer, ByteStream):
            await asyncio.sleep(0)
            read = answer.read

            async def read_late() -> bytes:
                answer.read = read  # type: ignore[method-assign]
                await asyncio.sleep(2 * SILENCE_S)
                return await read()

            answer.read = read_late  # type: ignore[method-assign]
        return answer

    transport.stream = stream  # type: ignore[method-assign]
    tools = Tools()
    begun = await client.responses.create(model="gpt-test", input="Hi", background=True, stream=True)
    async with RunWatcher(client.responses.continued(), begun, tools=tools) as watcher:
        texts = await all_of(watcher.text_deltas())
        outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert "".join(texts) == ANSWER
    assert list(tools.calls.values()) == [1, 1, 1]
    assert len(outcome.refs) == 1 + len(ROUNDS)


async def test_a_follow_up_that_streams_without_an_id_cannot_be_watched(
    client: Client, transport: InMemoryTransport
) -> None:
    transport.script(Scenario(rounds=ROUNDS, answer=ANSWER), model="gpt-test")
    good = transport.stream

    async def stream(request: Request) -> Any:
        answer = await good(request)
        if b"previous_response_id" not in (request.body or b""):
            return answer
        nameless = {"type": "response.created", "response": {"id": "", "object": "response", "status": "queued"}}
        return Pieces(b"data: " + encode(nameless) + b"\n\n", b"")

    transport.stream = stream  # type: ignore[method-assign]
    begun = await client.responses.create(model="gpt-test", input="Hi", background=True, stream=True)
    outcome = await client.watch(begun, tools=Tools())
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.SUBMIT_LOST
