"""Every recorded event stream decodes to the same sequence whole, byte by byte, and cut at every position."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from recordings import Exchange, exchanges
from wire_tree import lost_between

from asyncruns.sse import Decoder, ServerSentEvent
from asyncruns.streams.run_accumulator import RunAccumulator
from asyncruns.wire import (
    DoneEvent,
    ErrorEvent,
    MessageDeltaEvent,
    MessageEvent,
    RunEvent,
    RunStep,
    RunStepDeltaEvent,
    RunStepEvent,
    ThreadEvent,
    ThreadStreamEvent,
    ToolCallsStepDetails,
    UndecodableEvent,
    UnknownEvent,
    decode_thread_event,
    encode,
)

STREAMS = [each for each in exchanges() if isinstance(each.body, str) and each.body.startswith("event: ")]
TYPED = (ThreadEvent, RunEvent, RunStepEvent, RunStepDeltaEvent, MessageEvent, MessageDeltaEvent)


def read(*parts: bytes) -> list[ServerSentEvent]:
    decoder = Decoder()
    events = [event for part in parts for event in decoder.feed(part)]
    return events + decoder.close()


def typed(exchange: Exchange) -> list[ThreadStreamEvent]:
    return [decode_thread_event(event.event, event.data) for event in read(exchange.body.encode())]


def test_all_streams_are_here() -> None:
    assert len(STREAMS) == 31
    assert sum(len(read(each.body.encode())) for each in STREAMS) == 2653


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("exchange", STREAMS, ids=str)
def test_a_stream_is_the_same_byte_by_byte(exchange: Exchange, end: bytes) -> None:
    stream = exchange.body.encode()
    whole = read(stream)
    stream = stream.replace(b"\n", end)
    assert read(stream) == whole
    assert read(*(stream[place : place + 1] for place in range(len(stream)))) == whole


@pytest.mark.parametrize("exchange", STREAMS, ids=str)
def test_a_stream_is_the_same_cut_at_every_position(exchange: Exchange) -> None:
    stream = exchange.body.encode()
    whole = read(stream)
    # Every position, in a window of two blocks: the decoder keeps nothing of the blocks before.
    starts = [0, *(place + 2 for place in range(len(stream)) if stream.startswith(b"\n\n", place))]
    found = 0
    for begin, end in zip(starts, [*starts[1:], len(stream)], strict=True):
        events = read(stream[begin:end])
        # The window reaches into the next block.
        window, more = stream[begin : end + 20], read(stream[begin : end + 20])
        assert more[: len(events)] == events
        assert events == whole[found : found + len(events)]
        found += len(events)
        for place in range(len(window) + 1):
            assert read(window[:place], window[place:]) == more
    assert found == len(whole)


@pytest.mark.parametrize("exchange", STREAMS, ids=str)
def test_a_whole_stream_is_cut_at_places_all_over_it(exchange: Exchange) -> None:
    stream = exchange.body.encode()
    whole = read(stream)
    step = 1 if len(stream) < 10_000 else 37
    for place in range(0, len(stream) + 1, step):
        assert read(stream[:place], stream[place:]) == whole


def test_every_event_is_typed_or_one_of_the_fifteen() -> None:
    events = [event for each in STREAMS for event in typed(each)]
    undecodable = [event for event in events if isinstance(event, UndecodableEvent)]
    assert len(undecodable) == 15
    assert all(event.event.startswith("thread.run.") and event.error for event in undecodable)
    assert not any(isinstance(event, UnknownEvent) for event in events)
    assert Counter(type(event) for event in events) == {
        ThreadEvent: 7,
        RunEvent: 104,
        RunStepEvent: 149,
        RunStepDeltaEvent: 776,
        MessageEvent: 98,
        MessageDeltaEvent: 1473,
        ErrorEvent: 1,
        DoneEvent: 30,
        UndecodableEvent: 15,
    }


def test_typed_events_lose_nothing() -> None:
    lost: Counter[str] = Counter()
    for each in STREAMS:
        for raw, event in zip(read(each.body.encode()), typed(each), strict=True):
            if isinstance(event, TYPED):
                came: Any = json.loads(raw.data)
                lost += lost_between(came, json.loads(encode(event.data)))
    assert lost == {}


def test_the_error_in_the_middle_has_its_message() -> None:
    (error,) = [event for each in STREAMS for event in typed(each) if isinstance(event, ErrorEvent)]
    assert error.data.type == "server_error"
    assert "request ID" in str(error.data.message)


# The documentation and the recording simple-openai-31 leave out most deltas.
WITH_ALL_DELTAS = [each for each in STREAMS if "spec" not in each.source and str(each) != "simple-openai-31"]


@pytest.mark.parametrize("exchange", WITH_ALL_DELTAS, ids=str)
def test_deltas_come_to_what_the_server_says_it_was(exchange: Exchange) -> None:
    accumulator = RunAccumulator()
    compared = 0
    for event in typed(exchange):
        if isinstance(event, MessageEvent) and event.data.status in ("completed", "incomplete"):
            assert accumulator.message is not None
            assert accumulator.message.content == event.data.content
            compared += 1
        elif isinstance(event, RunStepEvent) and event.data.status == "completed":
            (step,) = [step for step in accumulator.steps if step.id == event.data.id] or [event.data]
            assert _calls(step) == _calls(event.data)
        accumulator.receive(event)
    assert compared or accumulator.run is not None


def _calls(step: RunStep) -> Any:
    if not isinstance(step.step_details, ToolCallsStepDetails):
        return None
    calls = json.loads(encode(step.step_details))["tool_calls"]
    for call in calls:
        call.get("function", {}).pop("output", None)  # it comes from the caller, so it is in no delta
    return calls
