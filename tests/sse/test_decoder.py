"""The decoder of server-sent events: whole, byte by byte and cut anywhere, compared with a literal implementation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncruns import APIResponseValidationError, EventTooLargeError
from asyncruns.sse import Decoder, ServerSentEvent

DELTA = b'event: thread.message.delta\ndata: {"id":"msg_1"}\n\n'

# Meaningful pieces, so that the streams that Hypothesis draws are not only noise.
PIECES = st.sampled_from(
    [
        *(b"\n", b"\r", b"\r\n", b"\n\n", b"data:", b"data: ", b"data", b"event: ", b"event:x", b"id: 7", b"id: \0"),
        *(b"retry: 250", b"retry: x", b": comment", b":", b" ", b"x", b"{}", b"[DONE]", b"\xef\xbb\xbf", b"\xff"),
        *("é".encode(), "€".encode()[:2], "😀".encode(), b"data: a\n\n", b"event: e\ndata: {}\n\n", DELTA),
    ]
)
STREAMS = st.lists(PIECES | st.binary(max_size=4), max_size=24).map(b"".join)


def decode_all(parts: Iterable[bytes], decoder: Decoder | None = None) -> list[ServerSentEvent]:
    decoder = decoder or Decoder()
    events = [event for part in parts for event in decoder.feed(part)]
    return events + decoder.close()


def cut(stream: bytes, at: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(place for place in at if place <= len(stream)), len(stream)]
    return [stream[begin:end] for begin, end in pairwise(places)]


def as_specified(stream: bytes) -> list[tuple[str, str, str, float | None]]:
    """Interpret a stream literally by the specification, line by line, with an empty line at its end."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    events = []
    data: list[str] = []
    name = last_id = ""
    retry: float | None = None
    for line in [*re.split("\r\n|\n|\r", text), ""]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                events.append((name or "message", "\n".join(data), last_id, retry))
            data, name = [], ""
        elif field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id" and "\0" not in value:
            last_id = value
        elif field == "retry" and re.fullmatch("[0-9]+", value):
            retry = int(value) / 1000
    return events


def plain(events: Iterable[ServerSentEvent]) -> list[tuple[str, str, str, float | None]]:
    return [(event.event, event.data, event.id, event.retry) for event in events]


@given(STREAMS)
def test_any_bytes_are_decoded_as_specified(stream: bytes) -> None:
    assert plain(decode_all([stream])) == as_specified(stream)


@given(STREAMS)
def test_bytes_cut_at_any_position_are_the_same_events(stream: bytes) -> None:
    whole = decode_all([stream])
    assert decode_all(stream[place : place + 1] for place in range(len(stream))) == whole
    for place in range(len(stream) + 1):
        assert decode_all([stream[:place], stream[place:]]) == whole


@given(STREAMS, st.lists(st.integers(0, 200), max_size=6))
def test_empty_pieces_and_many_pieces_change_nothing(stream: bytes, places: list[int]) -> None:
    assert decode_all(cut(stream, [*places, *places])) == decode_all([stream])


def refused(parts: Iterable[bytes], limit: int) -> tuple[list[ServerSentEvent], bool]:
    decoder = Decoder(max_event=limit)
    events: list[ServerSentEvent] = []
    try:
        for part in parts:
            events += decoder.feed(part)
        events += decoder.close()
    except EventTooLargeError:
        return events, True
    return events, False


@settings(max_examples=200)
@given(STREAMS, st.integers(1, 40))
def test_the_limit_applies_equally_wherever_the_stream_is_cut(stream: bytes, limit: int) -> None:
    whole = refused([stream], limit)
    assert refused((stream[place : place + 1] for place in range(len(stream))), limit) == whole
    for place in range(len(stream) + 1):
        assert refused([stream[:place], stream[place:]], limit) == whole


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_each_kind_of_line_end_counts_once(end: bytes) -> None:
    stream = end.join([b"event: a", b"data: 1", b"data: 2", b"", b": ping", b"", b"data:3", b"", b""])
    for parts in ([stream], [stream[place : place + 1] for place in range(len(stream))]):
        assert [(event.event, event.data) for event in decode_all(parts)] == [("a", "1\n2"), ("message", "3")]


def test_an_event_is_returned_with_its_last_byte() -> None:
    for stream in (b"data: 1\n\n", b"data: 1\r\r", b"data: 1\r\n\r"):
        decoder = Decoder()
        assert decoder.feed(stream[:-1]) == []
        assert [event.data for event in decoder.feed(stream[-1:])] == ["1"]
        assert decoder.feed(b"\n") == []
        assert decoder.close() == []


def test_a_byte_order_mark_is_not_part_of_the_first_line() -> None:
    assert [event.data for event in decode_all([b"\xef", b"\xbb", b"\xbfdata: 1\n\n"])] == ["1"]
    assert decode_all([b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\n"]) == []
    assert decode_all([b"\xef\xbb"]) == []


def test_an_event_at_the_end_needs_no_empty_line() -> None:
    assert [event.data for event in decode_all([b"data: [DONE]\n"])] == ["[DONE]"]
    assert [event.data for event in decode_all([b"data: [DONE]"])] == ["[DONE]"]
    assert decode_all([b"event: thread.run.completed\n"]) == []
    assert decode_all([b"event: a\ndata"]) == [ServerSentEvent("a", "")]


def test_id_and_retry_persist_until_replaced() -> None:
    decoder = Decoder()
    events = decode_all([b"id: 1\nretry: 1500\ndata: a\n\ndata: b\n\nid\nretry: -1\ndata: c\n\nretry: 20\n\n"], decoder)
    assert [(event.id, event.retry) for event in events] == [("1", 1.5), ("1", 1.5), ("", 1.5)]
    assert (decoder.last_event_id, decoder.retry) == ("", 0.02)


def test_invalid_utf_8_is_replaced() -> None:
    assert [event.data for event in decode_all([b"data: \xffa\xe2\x82\n\n"])] == ["\ufffda\ufffd"]


def test_unknown_fields_are_ignored() -> None:
    assert decode_all([b"...\n\n", b"foo: 1\nevent:  a\ndata: 1\n\n"]) == [ServerSentEvent(" a", "1")]


def test_a_line_without_end_is_refused_at_the_limit() -> None:
    decoder = Decoder(max_event=1000)
    assert decoder.feed(DELTA) != []
    accepted = 0
    with pytest.raises(EventTooLargeError, match="more than 1000 bytes") as caught:
        for part in [b"data: " + b"x" * 94] * 100:
            decoder.feed(part)
            accepted += 1
    assert accepted == 10
    assert isinstance(caught.value, APIResponseValidationError)
    assert caught.value.body.startswith(b"data: xxx")
    with pytest.raises(EventTooLargeError):
        decoder.feed(DELTA)
    with pytest.raises(EventTooLargeError):
        decoder.close()


def test_an_event_of_many_lines_is_refused_at_the_limit() -> None:
    decoder = Decoder(max_event=1000)
    with pytest.raises(EventTooLargeError):
        for _ in range(101):
            decoder.feed(b"data: 456\n")


def test_events_before_one_that_is_too_large_are_returned() -> None:
    decoder = Decoder(max_event=100)
    assert len(decoder.feed(DELTA + DELTA + b"data: " + b"x" * 200)) == 2
    with pytest.raises(EventTooLargeError):
        decoder.feed(b"")


def test_endless_comments_are_no_event() -> None:
    decoder = Decoder(max_event=100)
    for _ in range(100):
        assert decoder.feed(b": keep-alive\n") == []
    assert len(decoder.feed(DELTA)) == 1
