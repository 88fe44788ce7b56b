"""Decodes server-sent events from bytes, without I/O: https://html.spec.whatwg.org/multipage/server-sent-events.html

Feed the bytes as they arrive, cut anywhere; each event is returned as soon as its last byte has been fed. The rules are
those of the specification, with one exception that every client of these APIs needs: an event at the end of the stream
without its empty line is returned by `close`, not dropped. Servers and proxies end streams like that after
`data: [DONE]` and after `event: error`, and the error would be lost. If a connection broke unnoticed, `close` returns
half an event as well; its JSON is cut off, so decoding it fails.

Between calls the decoder never holds more than one event, and never more of it than a limit.
"""

from __future__ import annotations

import enum
import re
from typing import Final

from msgspec import Struct

from asyncruns.errors import SHOWN_BODY_CHARACTERS, EventTooLargeError

EVENT_STREAM: Final = "text/event-stream"
"""The content type of server-sent events."""

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024  # enough for an image in base64

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_FIELDS: Final = frozenset({b"", b"data", b"event", b"id", b"retry"})  # a line without a field name is a comment
_LONGEST_FIELD: Final = 5  # "event", "retry"
_UNNAMED: Final = "message"
# Bounds of the cache of event names, so that a server that makes up names cannot fill the memory.
_MOST_NAMES: Final = 128
_LONGEST_NAME: Final = 128
_DIGITS: Final = re.compile(r"[0-9]{1,12}")  # 10**12 ms are 31 years; a longer number is ignored


class ServerSentEvent(Struct, frozen=True, gc=False):
    """One event.

    Attributes:
        event: Its name; "message" if it has none.
        data: Its data lines, joined by line feeds.
        id: The last id in the stream, of this event or an earlier one, or "".
        retry: Seconds to wait before reconnecting, as last sent, or None.
    """

    event: str
    data: str
    id: str = ""
    retry: float | None = None


class BodyKind(enum.Enum):
    """The kind of a body by its first bytes, whatever its content type is."""

    EVENTS = "events"
    JSON = "json"
    OTHER = "other"  # such as a page of a proxy


def body_kind(start: bytes) -> BodyKind | None:
    """Return the kind of a body by its first bytes, or None if more bytes are needed."""
    start = start.removeprefix(_BYTE_ORDER_MARK).lstrip(b" \t\r\n")
    if start.startswith((b"{", b"[")):
        return BodyKind.JSON
    line, end, _ = start.partition(b"\n")
    name, colon, _ = line.partition(b":")
    if (colon or end) and name.strip() in _FIELDS:
        return BodyKind.EVENTS
    return BodyKind.OTHER if colon or end or len(start) > _LONGEST_FIELD else None


class Decoder:
    """Decodes the bytes of one stream.

    Args:
        max_event: Maximum number of bytes that the data lines of one event may have together, and any other line by
            itself.

    Attributes:
        last_event_id: The last id in the stream, or "".
        retry: Seconds to wait before reconnecting, as last sent, or None.
    """

    def __init__(self, *, max_event: int = MAX_EVENT_BYTES) -> None:
        self.last_event_id: str = ""
        self.retry: float | None = None
        self._max_event = max_event
        self._start: bytes | None = b""  # the start of what may be a byte order mark; None once that is decided
        self._is_after_cr = False  # a line feed that comes next belongs to the last line end
        self._rest: list[bytes] = []  # the pieces of a line whose end has not come yet
        self._rest_size = 0
        self._names: dict[bytes, str] = {}  # the names of the events so far, by their `event: ...` lines
        self._name = ""
        self._data: list[bytes] = []  # the data lines of the event that has begun
        self._data_size = 0
        self._refusal: EventTooLargeError | None = None

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Return the events that these bytes complete.

        Raises:
            EventTooLargeError: An event exceeds the limit. If other events are complete before it, they are returned,
                and the next call raises. From then on every call raises.
        """
        if self._refusal is not None:
            raise self._refusal
        if self._start is not None:
            data = self._without_mark(data)
        if self._is_after_cr and data:
            self._is_after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._is_after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return self._guarded(data)

    def close(self) -> list[ServerSentEvent]:
        """Return the event that the end of the stream completes, if it has data.

        Raises:
            EventTooLargeError: As for `feed`.
        """
        if self._refusal is not None:
            raise self._refusal
        start, self._start = self._start or b"", b""
        # Two line ends: one for the line that was cut off, one for the empty line that dispatches the event.
        ends = b"\n\n" if self._rest or start or self._data else b""
        return self._guarded(start + ends)

    def _guarded(self, data: bytes) -> list[ServerSentEvent]:
        events: list[ServerSentEvent] = []
        try:
            self._read(data, events)
        except EventTooLargeError as error:
            self._refusal = error
            if not events:
                raise
        return events

    def _without_mark(self, data: bytes) -> bytes:
        data = (self._start or b"") + data
        if len(data) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(data):
            self._start = data
            return b""
        self._start = None
        return data.removeprefix(_BYTE_ORDER_MARK)

    def _read(self, data: bytes, events: list[ServerSentEvent]) -> None:
        if b"\n" not in data:
            self._keep(data)
            return
        if self._rest:
            self._rest.append(data)
            data = b"".join(self._rest)
            self._rest.clear()
            self._rest_size = 0
        if self._data or self._name:
            data = self._read_first(data, events)
        *blocks, tail = data.split(b"\n\n")
        names, limit = self._names, self._max_event
        last_id, retry = self.last_event_id, self.retry
        for block in blocks:
            # A fast way for the common form: at most one event line, then one data line.
            head, found, text = block.partition(b"data: ")
            name = names.get(head) or self._name_in(head)
            if name and found and b"\n" not in text and len(block) <= limit:
                events.append(ServerSentEvent(name, _text(text), last_id, retry))
            else:
                self._read_lines(block.split(b"\n"), events)
                self._dispatch(events)
                last_id, retry = self.last_event_id, self.retry
        *lines, rest = tail.split(b"\n")
        self._read_lines(lines, events)
        self._keep(rest)

    def _name_in(self, head: bytes) -> str:
        """Return the event's name if the text before its data is one `event: ` line, or empty; otherwise ""."""
        if not head:
            return _UNNAMED
        if not head.startswith(b"event: ") or head.find(b"\n") != len(head) - 1:
            return ""
        name = _text(head[7:-1]) or _UNNAMED
        if len(self._names) < _MOST_NAMES and len(head) < _LONGEST_NAME:
            self._names[head] = name
        return name

    def _read_first(self, data: bytes, events: list[ServerSentEvent]) -> bytes:
        """Continue the event that has begun, and return the bytes after it, or all if its end is not among them."""
        if not data.startswith(b"\n"):
            lines, end, after = data.partition(b"\n\n")
            if not end:
                return data
            self._read_lines(lines.split(b"\n"), events)
            data = b"\n" + after
        self._dispatch(events)
        return data[1:]

    def _read_lines(self, lines: list[bytes], events: list[ServerSentEvent]) -> None:
        for line in lines:
            if not line:
                self._dispatch(events)
                continue
            self._check(len(line), line)
            # Fields that are not known, and comments (lines that begin with a colon), are ignored.
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                self._data.append(value)
                self._data_size += len(line) + 1
            elif field == b"event":
                self._name = _text(value)
            elif field == b"id" and b"\0" not in value:
                self.last_event_id = _text(value)
            elif field == b"retry" and _DIGITS.fullmatch(_text(value)):
                self.retry = int(value) / 1000.0

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        # Without data there is no event; its name is discarded, but its id and `retry` count.
        if self._data:
            text = _text(b"\n".join(self._data))
            events.append(ServerSentEvent(self._name or _UNNAMED, text, self.last_event_id, self.retry))
            self._data.clear()
        self._name = ""
        self._data_size = 0

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._rest.append(rest)
            self._rest_size += len(rest)
            self._check(self._rest_size, self._rest[0])

    def _check(self, line_size: int, shown: bytes) -> None:
        if self._data_size + line_size > self._max_event:
            self._rest.clear()
            self._data.clear()
            raise EventTooLargeError(
                f"An event of the stream has more than {self._max_event} bytes; the stream is not read further",
                status=200,
                body=shown[:SHOWN_BODY_CHARACTERS],
            )


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")
