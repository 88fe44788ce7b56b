"""Writes the lines of one exchange of a recording. It never raises, so that it does not disturb the request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from asyncruns.abc import ByteStream
from asyncruns.errors import APIConnectionError, APIResponseValidationError, AsyncRunsError
from asyncruns.http import Request, Response
from asyncruns.testing.recording import (
    RecordedLine,
    RecordingFile,
    Redact,
    size_of,
    written_content,
    written_headers,
    written_query,
)
from asyncruns.wire.secret_fields import without_secret_fields

_DIGITS: Final = 6  # of times in seconds

log: Final = logging.getLogger("asyncruns.testing")


class ExchangeWriter:
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

    def opened(
        self, answer: Response | ByteStream, tap: Callable[[ByteStream, ExchangeWriter], ByteStream]
    ) -> Response | ByteStream:
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


def _placeless(text: str, base_url: str) -> str:
    host = urlsplit(base_url).netloc
    return text.replace(base_url, "the server").replace(host, "the server") if host else text
