"""Records what a client and a server exchange, for tests that replay it.

It must never change what the client gets: answers, bytes and errors are passed on as they are, and a line that cannot
be written ends the recording, not the request.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
import logging
import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from asyncruns.abc import ByteStream, Transport
from asyncruns.errors import APIConnectionError, APIResponseValidationError, AsyncRunsError, ConfigurationError
from asyncruns.http import Request, Response
from asyncruns.testing.recording import (
    RecordedLine,
    RecordingFile,
    Redact,
    first_line,
    size_of,
    without_secret_fields,
    written_content,
    written_headers,
    written_query,
)
from asyncruns.transport.base import HTTPTransport

LONGEST_DOWNLOAD_BYTES: Final = 1024 * 1024  # the content of a longer one is not recorded
_EVENT_END: Final = re.compile(rb"\n\r?\n|\r\r")
_DIGITS: Final = 6  # of times in seconds

log: Final = logging.getLogger("asyncruns.testing")


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

    def _begin(self, request: Request, how: str) -> _Exchange:
        now = asyncio.get_running_loop().time()
        if self._began is None:
            self._began = now
        known = partial(self._known, request)
        base_url = self._inner.base_url if isinstance(self._inner, HTTPTransport) else ""
        exchange = _Exchange(self._file, next(self._numbers), now, known, self._redact, base_url)
        exchange.asked(request, how, now - self._began)
        return exchange

    def _known(self, request: Request, data: bytes) -> bytes:
        return self._inner.redacted(data, request) if isinstance(self._inner, HTTPTransport) else data

    def __repr__(self) -> str:
        return f"<Recorder {self._file.path} of {self._inner!r}>"


class _Exchange:
    """Writes the lines of one exchange.

    Args:
        file: Where to.
        number: The number of the exchange.
        began: When it began, by the loop's clock.
        known: Removes the credentials that the transport knows.
        redact: The caller's function, for bodies.
        base_url: The place of the server, which is left out of messages.
    """

    def __init__(
        self,
        file: RecordingFile,
        number: int,
        began: float,
        known: Redact,
        redact: Redact | None,
        base_url: str,
    ) -> None:
        self._file = file
        self._number = number
        self._began = began
        self._known = known
        self._own = redact
        self._base_url = base_url

    def write(self, kind: Any, fields: Callable[[], dict[str, Any]]) -> None:
        """Append a line, unless the recording has ended. Never raises."""
        if self._file.is_closed:
            return
        try:
            self._file.write(RecordedLine(kind=kind, n=self._number, **fields()))
        except Exception as error:
            self._file.close()
            why = str(error) if isinstance(error, OSError) else type(error).__name__  # other texts may quote a body
            log.warning("The recording %s ends: a line can't be written (%s). Requests go on", self._file.path, why)

    def asked(self, request: Request, how: str, at: float) -> None:
        """Write a request."""
        self.write(
            "request",
            lambda: {
                "at": round(at, _DIGITS),
                "how": how,
                "method": request.method,
                "path": self._text(request.path),
                "query": written_query(request.query, self._text),
                "headers": written_headers(request.headers, self._text, lengths=True),
                "upload": size_of(request.upload),
                **self._content(request.body, exact=False),
            },
        )

    def answered(self, response: Response) -> None:
        """Write a whole answer."""
        self._see(response)
        self.write("answer", lambda: {**self._head(response), **self._content(response.body, exact=False)})

    def opened(self, answer: Response | ByteStream, tap: type[_TappedStream]) -> Response | ByteStream:
        """Write the beginning of an answer that is read piece by piece, and return what writes the rest of it."""
        if isinstance(answer, Response):
            self.answered(answer)
            return answer
        self._see(answer)
        self.write("opened", lambda: self._head(answer, lengths=True))
        return tap(answer, self)

    def event(self, content: bytes) -> None:
        """Write an event of a stream."""
        self.write("event", lambda: {"after": self._after(), **self._content(content)})

    def ended(self, content: bytes | None = None, size: int | None = None) -> None:
        """Write that all was read, with the content of a download and its size."""
        self.write("end", lambda: {"after": self._after(), "size": size, **self._content(content)})

    def broke(self, error: BaseException, content: bytes | None = None, size: int | None = None) -> None:
        """Write that no answer came, or no more of it, with what of a download came before.

        A cancellation is that of the caller, who may also have stopped reading.
        """
        fields: dict[str, Any] = {} if isinstance(error, asyncio.CancelledError) else {"error": type(error).__name__}
        if isinstance(error, AsyncRunsError):  # the text of another exception may quote a file of the caller's
            fields["message"] = self._text(_placeless(str(error), self._base_url))
        if isinstance(error, APIConnectionError):
            fields |= {"sent": error.sent, "passes": error.passes}
        if isinstance(error, APIResponseValidationError):
            fields |= {"status": error.status, "request_id": error.request_id}
            content = error.body
        kind = "error" if fields else "left"
        self.write(kind, lambda: {"after": self._after(), **fields, "size": size, **self._content(content)})

    def _see(self, answer: Response | ByteStream) -> None:
        """Remove, from here on, what the answer says to be a credential."""
        known, redact = self._known, answer.redact
        if redact is not None:
            self._known = lambda data: redact(known(data))

    def _head(self, answer: Response | ByteStream, *, lengths: bool = False) -> dict[str, Any]:
        headers = written_headers(answer.headers.items(), self._text, lengths=lengths)
        return {"after": self._after(), "status": answer.status, "headers": headers}

    def _after(self) -> float:
        return round(asyncio.get_running_loop().time() - self._began, _DIGITS)

    def _text(self, text: str) -> str:
        return self._known(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")

    def _content(self, content: bytes | None, *, exact: bool = True) -> dict[str, Any]:
        if content is None:
            return {}
        content = without_secret_fields(self._known(content))
        return written_content(content if self._own is None else self._own(content), exact=exact)


class _TappedStream(ByteStream):
    """A stream whose events are written as they arrive; the reader gets the bytes as they are."""

    def __init__(self, inner: ByteStream, exchange: _Exchange) -> None:
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


def _placeless(text: str, base_url: str) -> str:
    host = urlsplit(base_url).netloc
    return text.replace(base_url, "the server").replace(host, "the server") if host else text
