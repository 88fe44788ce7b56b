"""One connection of the lean transport: one request at a time, and its answer.

The only module that imports httptools. Its parser (llhttp) is strict: it refuses two lengths, a length together with
chunks, a line that ends with LF alone. This module refuses what the parser leaves to its user: an endless head, endless
trailers, an answer without a request, a second answer to one request, a protocol other than HTTP/1. After any of these,
the connection is closed; it must never be used again.
"""

from __future__ import annotations

import asyncio
import math
import re
import select
from collections.abc import Mapping
from typing import Any, Final, Protocol

import httptools
from multidict import CIMultiDict, CIMultiDictProxy

from asyncruns.transport.base import KEEPALIVE_S
from asyncruns.transport.inflate import INFLATED

MAX_HEAD_BYTES: Final = 64 * 1024  # for all heads of one answer, and its trailers
MAX_FRAMING_RATIO: Final = 8  # framing bytes per byte of a body; chunks of one byte need five: b"1\r\n" and b"\r\n"
BEFORE_SERVER_S: Final = 1.0  # how long before the server's own `Keep-Alive` timeout an idle connection is closed
_TIMEOUT: Final = re.compile(r"\btimeout\s*=\s*(\d{1,9})\b", re.I)
_SHOWN_BYTES: Final = 20
_START: Final = b"HTTP/1."
_SWITCHING_PROTOCOLS: Final = 101

_LENGTHS: Final = frozenset({"content-length", "transfer-encoding"})
_NO_HEADERS: Final[CIMultiDictProxy[str]] = CIMultiDictProxy(CIMultiDict())

RawAnswer = tuple[int, CIMultiDictProxy[str], bytes, str]
"""Status, headers and body as received, and the coding of the body that is still to be decompressed, or ""."""


class ServerDisconnected(ConnectionError):
    """The server closed the connection before its answer was complete."""


class NotHTTP(ConnectionError):
    """What the server sent is not an HTTP/1 answer."""


class BodyTooLarge(Exception):
    """The body is larger than the limit."""

    def __init__(self, status: int, headers: CIMultiDictProxy[str], start: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.start = start


class _SecondAnswer(Exception):
    """Stops the parser when another answer follows the one to the request."""


class ConnectionOwner(Protocol):
    """Receives the changes of a connection's state."""

    def released(self, connection: Connection) -> None:
        """Note that the answer is complete, and that the connection may be used again."""

    def lost(self, connection: Connection) -> None:
        """Note that the connection is closed. Called once."""

    def gone(self, connection: Connection) -> None:
        """Note that the loop has closed the socket of the connection."""


class Connection(asyncio.Protocol):
    """A connection to a server, for one request at a time.

    Attributes:
        uses: Number of requests sent.
        deadline: When the request in flight times out, by the loop's clock.
        idle_since: When the last answer was complete, by the loop's clock.
        may_idle_s: Seconds for which it may be idle and is still used again.
        has_begun: Whether the head of the answer to the last request has arrived.
        is_closed: Whether it is closed, and cannot be used any more.
        broke_with: The error that the loop reported when the connection was lost.
    """

    def __init__(self, owner: ConnectionOwner, loop: asyncio.AbstractEventLoop, max_body: int) -> None:
        self.uses: int = 0
        self.deadline: float = 0.0
        self.idle_since: float = 0.0
        self.may_idle_s: float = KEEPALIVE_S
        self.has_begun: bool = False
        self.is_closed: bool = False
        self.broke_with: Exception | None = None
        self._owner = owner
        self._loop = loop
        self._max_body = max_body
        self._waiter: asyncio.Future[RawAnswer] | None = None
        self._is_last = False
        self._transport: Any = None  # an asyncio.Transport
        self._readable: select.poll | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._fields: list[bytes] = []
        self._body: list[bytes] = []
        self._is_whole = False
        self._failure: Exception | None = None
        self._status = 0
        self._headers = _NO_HEADERS
        self._coding = ""
        self._start = b""  # what arrived before it is clear whether it is HTTP/1
        self._read = 0
        self._body_size = 0

    # Called by the pool

    def request(self, data: bytes, deadline: float, *, is_last: bool) -> asyncio.Future[RawAnswer]:
        """Send a request, and return a future of the answer, or of an OSError, `BodyTooLarge` or TimeoutError.

        Args:
            data: The bytes of the request.
            deadline: When it times out, by the loop's clock; the owner checks that.
            is_last: Whether the connection is to be closed after the answer.
        """
        self.uses += 1
        self.deadline = deadline
        self._is_last = is_last
        self.has_begun = self._is_whole = False
        self._start = b""
        self._read = self._body_size = 0
        waiter = self._waiter = self._loop.create_future()
        self._transport.write(data)
        return waiter

    def abandon(self, waiter: asyncio.Future[RawAnswer]) -> None:
        """Close the connection if this request is still in flight over it."""
        if self._waiter is waiter:
            self.close()

    def fail(self, error: Exception) -> None:
        """Fail the request in flight with an error, and close the connection."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        self.close()

    def close(self) -> None:
        """Close the connection at once. May be called twice."""
        if self.is_closed:
            return
        self.is_closed = True
        self._waiter = None
        if self._transport is not None:
            self._owner.lost(self)
            self._transport.abort()

    def looks_alive(self) -> bool:
        """Return whether an idle connection may be used: the kernel has received neither data nor the end."""
        if self.is_closed or self._transport.is_closing():
            return False
        if self._readable is None:
            socket = self._transport.get_extra_info("socket")
            if not hasattr(select, "poll"):  # Windows
                return not select.select([socket], [], [], 0)[0]
            self._readable = select.poll()
            self._readable.register(socket.fileno(), select.POLLIN)
        return not self._readable.poll(0)

    # Called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self.is_closed:  # the request that wanted it was cancelled
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.close()  # no request is in flight, or it was cancelled
            return
        if not self._read:
            data = self._start + data
            if not data.startswith(_START):
                self._start = data
                if not _START.startswith(data):
                    self.fail(NotHTTP(f"the answer begins with {data[:_SHOWN_BYTES]!r}"))
                return
        self._read += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._is_whole:
                self.fail(self._failure or NotHTTP(str(error)))
                return
            self._is_last = True  # the answer is complete, but something follows it
        if self._failure is not None:
            self.fail(self._failure)
        elif self._is_whole:
            self._finish(waiter)
        elif self._read - self._body_size > MAX_HEAD_BYTES + MAX_FRAMING_RATIO * self._body_size:
            self.fail(NotHTTP(f"more than {MAX_HEAD_BYTES} bytes came around the body"))

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.broke_with = exc
        self._ended(exc)
        self._owner.gone(self)
        self._parser = None  # breaks the reference cycle with this connection

    def _ended(self, error: Exception | None) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.close()
        elif error is None and self._ends_with_the_connection():
            self._is_last = True
            self._finish(waiter)
        else:
            self.fail(error or ServerDisconnected("the server closed the connection before its answer was complete"))

    def _ends_with_the_connection(self) -> bool:
        return self.has_begun and _LENGTHS.isdisjoint(map(str.lower, self._headers))

    def _finish(self, waiter: asyncio.Future[RawAnswer]) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        answer = self._status, self._headers, body, self._coding
        self._body = []
        self._waiter = None
        self.idle_since = self._loop.time()
        if self._is_last or self._transport.is_closing() or self._transport.get_write_buffer_size():
            self.close()
        elif self._coding:
            self.deadline = math.inf  # not released yet: decompression may show that the body is not valid
        else:
            self._owner.released(self)
        waiter.set_result(answer)

    # Called by the parser

    def on_message_begin(self) -> None:
        if self._is_whole:
            raise _SecondAnswer

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += (name, value)

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        fields, self._fields = self._fields, []  # fields after these are trailers
        if self._status < 200:
            if self._status == _SWITCHING_PROTOCOLS:
                self._failure = NotHTTP("the server switched to another protocol unasked")
            return
        self.has_begun = True
        headers = self._headers = _headers_of(fields)
        if "Transfer-Encoding" in headers and headers["Transfer-Encoding"].lower() != "chunked":
            self._failure = NotHTTP(f"the body has the transfer coding {headers['Transfer-Encoding'][:_SHOWN_BYTES]!r}")
        self._coding = _coding_of(headers) if "Content-Encoding" in headers else ""
        if "Keep-Alive" in headers:
            self.may_idle_s = _may_idle_s(headers["Keep-Alive"])

    def on_body(self, data: bytes) -> None:
        self._body_size += len(data)
        if self._body_size <= self._max_body:
            self._body.append(data)
        elif self._failure is None:
            self._failure = BodyTooLarge(self._status, self._headers, self._body[0] if self._body else data)

    def on_message_complete(self) -> None:
        if self._status < 200:
            self._fields = []
            return
        self._is_whole = True
        self._is_last |= not self._parser.should_keep_alive()


def _headers_of(fields: list[bytes]) -> CIMultiDictProxy[str]:
    """Return headers from alternating names and values. None contains a line feed: the parser has checked that."""
    if not fields:
        return _NO_HEADERS
    text = b"\n".join(fields).decode("utf-8", "surrogateescape")
    if " \n" in text or "\t\n" in text or text[-1:].isspace():  # the parser leaves white space after values
        texts = [part.strip(" \t") for part in text.split("\n")]
    else:
        texts = text.split("\n")
    return CIMultiDictProxy(CIMultiDict(zip(texts[::2], texts[1::2], strict=True)))


def _coding_of(headers: Mapping[str, str]) -> str:
    """Return the coding of a body if it is one that is decompressed here, otherwise ""."""
    coding = headers.get("Content-Encoding", "").lower()
    return coding if coding in INFLATED else ""


def _may_idle_s(keep_alive: str) -> float:
    """Return for how many seconds a connection may be idle: 4 for `Keep-Alive: timeout=5`, 0.5 for `timeout=1`."""
    found = _TIMEOUT.search(keep_alive)
    if found is None:
        return KEEPALIVE_S
    seconds = float(found[1])
    return min(max(seconds - BEFORE_SERVER_S, seconds / 2), KEEPALIVE_S)
