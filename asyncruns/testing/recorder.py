"""Records what a client and a server exchange, for tests that replay it.

It must never change what the client gets: answers, bytes and errors are passed on as they are, and a line that cannot
be written ends the recording, not the request.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
import os
import re
from functools import partial
from typing import Final

from asyncruns.abc import ByteStream, Transport
from asyncruns.errors import ConfigurationError
from asyncruns.http import Request, Response
from asyncruns.testing.exchange_writer import ExchangeWriter
from asyncruns.testing.recording import RecordingFile, Redact, first_line
from asyncruns.transport.base import HTTPTransport
from asyncruns.transport.followed import FollowedTransport

LONGEST_DOWNLOAD_BYTES: Final = 1024 * 1024  # the content of a longer one is not recorded
_EVENT_END: Final = re.compile(rb"\n\r?\n|\r\r")


class Recorder(Transport):
    """A transport that sends through another one, and writes each exchange to a new file, for `Replay`.

    ::

        async with Client.from_env() as server, Client(transport=Recorder(server.transport, "day.jsonl")) as client:
            ...

    Each line is written at once, by the thread of the event loop, as a log is: what there was is in the file if the
    process dies. The file may be read by its owner alone. `asyncruns.testing.recording` describes the lines.

    Credentials are replaced by `***`: those of the client wherever they occur; headers, query parameters and fields of
    JSON that are credentials by their names; cookies; the ids of organizations and projects in headers. The base URL is
    not recorded; the text of a network error may name an address. What users and models wrote is recorded: remove that
    with `redact`. A text that a stream splits over two events can't be found in them.

    Of an upload only the size and the type are recorded, of a download the first MiB or, if it is longer, the size.

    If a line cannot be written, because the disk is full or `redact` raises, a warning is logged and the recording
    ends; requests go on.

    Args:
        transport: The transport to send with, such as that of a client. It is borrowed.
        path: The file, which must not exist.
        redact: Called with each body and each event of a stream, without the client's credentials; returns what is
            written.

    Raises:
        ConfigurationError: The file exists, or `transport` is not a Transport.
        OSError: The file cannot be created.
    """

    def __init__(self, transport: Transport, path: str | os.PathLike[str], *, redact: Redact | None = None) -> None:
        if not isinstance(transport, Transport):
            hint = "pass its transport, client.transport" if hasattr(transport, "transport") else "pass a Transport"
            kind = type(transport).__name__
            raise ConfigurationError(f"A Recorder sends with a transport, not with a {kind}: {hint}")
        self._inner = transport
        while isinstance(transport, FollowedTransport):  # of a client with telemetry=
            transport = transport.inner
        self._sender = transport if isinstance(transport, HTTPTransport) else None
        self._redact = redact
        self._file = RecordingFile(path)
        self._file.write(first_line(datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")))
        self._numbers = itertools.count(1)
        self._began: float | None = None

    async def send(self, request: Request) -> Response:
        exchange = self._begin(request, "send")
        try:
            response = await self._inner.send(request)
        except BaseException as error:
            exchange.broke(error)
            raise
        exchange.answered(response)
        return response

    async def stream(self, request: Request) -> Response | ByteStream:
        exchange = self._begin(request, "stream")
        try:
            answer = await self._inner.stream(request)
        except BaseException as error:
            exchange.broke(error)
            raise
        return exchange.opened(answer, _TappedStream)

    async def download(self, request: Request) -> Response | ByteStream:
        exchange = self._begin(request, "download")
        try:
            answer = await self._inner.download(request)
        except BaseException as error:
            exchange.broke(error)
            raise
        return exchange.opened(answer, _TappedDownload)

    async def aclose(self) -> None:
        """Close the file; the other transport stays open."""
        self._file.close()

    def _begin(self, request: Request, how: str) -> ExchangeWriter:
        now = asyncio.get_running_loop().time()
        if self._began is None:
            self._began = now
        known = partial(self._known, request)
        base_url = "" if self._sender is None else self._sender.base_url
        exchange = ExchangeWriter(self._file, next(self._numbers), now, known, self._redact, base_url)
        exchange.asked(request, how, now - self._began)
        return exchange

    def _known(self, request: Request, data: bytes) -> bytes:
        return data if self._sender is None else self._sender.redacted(data, request)

    def __repr__(self) -> str:
        return f"<Recorder {self._file.path} of {self._inner!r}>"


class _TappedStream(ByteStream):
    """A stream whose events are written as they arrive; the reader gets the bytes as they are."""

    def __init__(self, inner: ByteStream, exchange: ExchangeWriter) -> None:
        self.status = inner.status
        self.headers = inner.headers
        self.redact = inner.redact
        self._inner = inner
        self._exchange = exchange
        self._rest = b""  # of an event that has not arrived whole, or of a download
        self._is_over = False

    async def read(self) -> bytes:
        try:
            data = await self._inner.read()
        except asyncio.CancelledError:
            raise  # no bytes are lost, and reading may go on
        except BaseException as error:
            self._over(error)
            raise
        if data:
            self._took(data)
        else:
            self._over(None)
        return data

    async def aclose(self) -> None:
        self._over(asyncio.CancelledError())
        await self._inner.aclose()

    def _took(self, data: bytes) -> None:
        begin = max(len(self._rest) - 3, 0)  # an end may have arrived in two parts
        self._rest += data
        at = 0
        for found in _EVENT_END.finditer(self._rest, begin):
            self._exchange.event(self._rest[at : found.end()])
            at = found.end()
        self._rest = self._rest[at:]

    def _over(self, error: BaseException | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._rest:
            self._exchange.event(self._rest)
        if error is None:
            self._exchange.ended()
        else:
            self._exchange.broke(error)


class _TappedDownload(_TappedStream):
    """A download whose content is written when it ends, unless it is too long."""

    _size = 0

    def _took(self, data: bytes) -> None:
        self._size += len(data)
        self._rest = self._rest + data if self._size <= LONGEST_DOWNLOAD_BYTES else b""

    def _over(self, error: BaseException | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        content = self._rest if self._size <= LONGEST_DOWNLOAD_BYTES else None
        if error is None:
            self._exchange.ended(content, self._size)
        else:
            self._exchange.broke(error, content, self._size)
