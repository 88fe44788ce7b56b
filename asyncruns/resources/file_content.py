"""The content of a file, read piece by piece; a connection that breaks is taken up again where it broke.

How it goes on from byte N, by what the server answers to `Range: bytes=N-`::

    206 from byte N       these bytes follow; if they end before the total, the next range is asked for
    206 from a byte < N   the bytes before N are skipped
    200                   the server ignores ranges: the first N bytes are skipped
    416, the total is N   there is nothing after N: the connection broke after the last byte
    416, another total    the server has no such ranges: the whole content is read again, as with 200

Ranges count the bytes on the wire, so the requests ask for no compression; if the server compresses nevertheless,
the whole content is read again, and the first N bytes are skipped. It never holds more than a piece, or a line.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Final, Self

import anyio
from msgspec.structs import replace

from asyncruns.abc import AsyncOnly, ByteStream
from asyncruns.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    InvalidRequestError,
)
from asyncruns.http import Request, Response, wait_hint
from asyncruns.resources.base import Server
from asyncruns.resources.file_threads import in_thread
from asyncruns.streams.opening import WholeBody
from asyncruns.transport.retry import LONGEST_HINT_S, PASSING_STATUSES, PAUSE_CEILING_S, PAUSE_START_S

MOST_FAILURES: Final = 5  # in a row, without a further byte
LONGEST_LINE_BYTES: Final = 64 * 1024 * 1024  # a file without line ends must not fill the memory
UNCOMPRESSED: Final = ("Accept-Encoding", "identity")
_RANGE: Final = re.compile(r"\s*bytes\s+(\d{1,18})-", re.IGNORECASE)
_TOTAL: Final = re.compile(r"\s*bytes\s+[\d*-]+/(\d{1,18})\s*$", re.IGNORECASE)
_PARTIAL: Final = 206
_RANGE_PASSED: Final = 416


class FileContent(AsyncOnly):
    """The content of a file at the server, read while it arrives, by one task at a time.

    Read it to its end, or use it with `async with`, which closes the connection::

        async with await client.files.content(file_id) as content:
            async for line in content.lines():
                ...

    Iterate over it for pieces of bytes. Each way to read continues where another one stopped. If the connection breaks,
    it is taken up again, from the first byte that was not read; an error is raised if five tries in a row bring no
    further byte, or if the server refuses, for example because the file was deleted. After an error, iterating again
    continues from that byte.

    Args:
        server: The server.
        request: The request for it.
        is_replayed: Whether a server that ignores ranges makes the content begin anew, in place of skipping as many
            bytes as were read: it may not send the same bytes again.

    Attributes:
        replays: Number of times that it began anew.
        headers: The headers of the last answer, by names in lower case.
        redact: Removes credentials from bytes that are to be shown; None if there are none to remove.
    """

    def __init__(self, server: Server, request: Request, *, is_replayed: bool = False) -> None:
        self.replays: int = 0
        self.headers: Mapping[str, str] = {}
        self.redact: Callable[[bytes], bytes] | None = None
        self._is_replayed = is_replayed
        self._server = server
        self._request = replace(request, headers=(*request.headers, UNCOMPRESSED))
        self._stream: ByteStream | None = None
        self._position = 0  # bytes that were read
        self._furthest = 0  # the largest position so far
        self._skips = 0  # bytes that the stream repeats
        self._has_ranges = True
        self._total: int | None = None  # the length of the content, as far as is known
        self._opened_at = 0  # the position when the last answer began
        self._failures = 0  # in a row, without a further byte
        self._is_over = False
        self._is_closed = False
        # What was read for lines: the parts of the next one, and the piece that continues it, from an offset.
        self._parts: list[bytes] = []
        self._piece, self._offset = b"", 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece. Safe to cancel: no bytes are lost.

        Raises:
            APIError: The connection broke, and five tries in a row to continue failed; or the server refused.
            InvalidRequestError: It is closed.
        """
        left = b"".join((*self._parts, self._piece[self._offset :]))
        self._parts, self._piece, self._offset = [], b"", 0
        if piece := left or await self._next():
            return piece
        raise StopAsyncIteration

    async def read(self) -> bytes:
        """Return the rest of the content, and close it. If it is cancelled, what it has read is lost.

        Raises:
            APIError: As for each piece.
            InvalidRequestError: It was read to its end and closed before, as by `read`.
        """
        self._check_is_unread()
        async with self:
            return b"".join([piece async for piece in self])

    async def text(self) -> str:
        """Return the rest of the content, as `read` does, decoded from UTF-8; malformed bytes become U+FFFD.

        Raises:
            APIError: As for each piece.
        """
        return (await self.read()).decode(errors="replace")

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the rest of the content line by line, without the line ends. The last line need not have one.

        Safe to cancel, and to call again: no lines are lost.

        Raises:
            APIError: As for each piece.
            APIResponseValidationError: A line is longer than 64 MiB.
        """
        while (line := await self._line()) is not None:
            yield line.removesuffix(b"\r")

    async def write_to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the rest of the content to a file, which is replaced if it exists, and close the content.

        After an error or a cancel, the file holds what had arrived.

        Raises:
            OSError: The file could not be written.
            APIError: As for each piece.
            InvalidRequestError: As for `read`; the file is left as it is.
        """
        self._check_is_unread()
        files = ExitStack()
        try:
            async with self:
                file = await in_thread(_created, path, files)
                async for piece in self:
                    await in_thread(file.write, piece)
        finally:
            await in_thread(files.close)

    async def aclose(self) -> None:
        """Stop reading, and close the connection if there is more to read. May be called twice."""
        self._is_closed = True
        await self._disconnect()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "at its end" if self._is_over else "closed" if self._is_closed else "open"
        return f"<FileContent of {self._request.path}, {self._position} bytes read, {state}>"

    def _check_is_unread(self) -> None:
        if self._is_over and self._is_closed:
            raise InvalidRequestError(
                f"The content of {self._request.path} was read already; ask for the content again"
            )

    async def _line(self) -> bytes | None:
        """Return the next line, without its line end; None at the end of the content."""
        while (end := self._piece.find(b"\n", self._offset)) < 0:
            self._parts.append(self._piece[self._offset :])
            self._piece, self._offset = b"", 0
            if sum(map(len, self._parts)) > LONGEST_LINE_BYTES:
                raise self._invalid(f"has a line of more than {LONGEST_LINE_BYTES} bytes")
            self._piece = await self._next()
            if not self._piece:
                last, self._parts = b"".join(self._parts), []
                return last or None
        line = b"".join((*self._parts, self._piece[self._offset : end]))
        self._parts, self._offset = [], end + 1
        return line

    async def _next(self) -> bytes:
        """Return the next bytes from the connection; b"" at the end of the content."""
        if self._is_closed and not self._is_over:
            raise InvalidRequestError(f"{self!r} can't be read: it is closed; ask for the content again")
        while not self._is_over:
            try:
                if self._stream is None:
                    await self._open()
                    continue
                piece = await self._stream.read()
                if not piece:
                    await self._end()
                    continue
            except APIError as error:
                await self._wait_after(error)
                continue
            if new := piece[self._skips :]:
                self._skips = 0
                self._position += len(new)
                if self._position > self._furthest:
                    self._furthest, self._failures = self._position, 0
                return new
            self._skips -= len(piece)
        return b""

    async def _open(self) -> None:
        """Ask for the content from the first byte that was not read.

        Raises:
            APIError: The server refused, or did not answer.
        """
        request = self._request
        is_ranged = self._position > 0 and self._has_ranges
        if is_ranged:
            request = replace(request, headers=(*request.headers, ("Range", f"bytes={self._position}-")))
        answer = await self._server.transport.download(request)
        if answer.status == _RANGE_PASSED and is_ranged:
            self._total = _total_of(answer) or self._total
            self._is_over = self._total == self._position
            self._has_ranges = False  # unless it is over, the whole content is read again
            return
        if isinstance(answer, Response):
            if not 200 <= answer.status < 300:
                raise self._server.dialect.refusal(request, answer).cause
            answer = WholeBody(answer)
        self._stream, self.headers, self.redact = answer, answer.headers, answer.redact
        self._has_ranges = answer.headers.get("content-encoding", "identity") == "identity"
        if self._is_replayed and self._position and answer.status != _PARTIAL:
            self._begin_again()
        self._total = _total_of(answer) if answer.status == _PARTIAL or self._has_ranges else None
        self._opened_at = self._position
        self._skips = self._position - self._start_of(answer)
        if self._skips < 0:
            await self._disconnect()
            raise self._invalid("answered with another part of the content than asked for")

    def _begin_again(self) -> None:
        self.replays += 1
        self._position = 0
        self._parts, self._piece, self._offset = [], b"", 0

    def _start_of(self, answer: ByteStream) -> int:
        """Return the offset of the first byte of an answer."""
        if answer.status != _PARTIAL:
            return 0
        found = _RANGE.match(answer.headers.get("content-range", ""))
        return int(found[1]) if found else self._position  # without the header, it is taken to be as asked for

    async def _wait_after(self, error: APIError) -> None:
        """Wait before the next try, after one that failed.

        Raises:
            APIError: That error, if there is no further try.
        """
        await self._disconnect()
        self._failures += 1
        passes = error.passes if isinstance(error, APIConnectionError) else _status_passes(error)
        if not passes or self._failures > MOST_FAILURES:
            self._failures = 0
            raise error._extend(f"({self._position} bytes were read before)")
        hint = wait_hint(error.headers) if isinstance(error, APIStatusError) else None
        pause = min(PAUSE_START_S * 2 ** (self._failures - 1), PAUSE_CEILING_S)
        pause += random.uniform(0, PAUSE_START_S)  # noqa: S311 - spreads requests, hides nothing
        await anyio.sleep(max(pause, min(hint or 0.0, LONGEST_HINT_S)))

    async def _end(self) -> None:
        """Note that an answer has ended: with the content, or before it, if it was a part.

        Raises:
            APIError: The answer has nothing of what it should have.
        """
        is_part = self._stream is not None and self._stream.status == _PARTIAL
        await self._disconnect()
        if self._skips:
            raise self._invalid(f"has fewer bytes than the {self._position} that were read before")
        left = self._total - self._position if is_part and self._total is not None else 0
        if left > 0 and self._position == self._opened_at:
            path = self._request.path
            raise APIConnectionError(
                f"GET {path} ended {left} bytes before its end", sent=True, method="GET", path=path
            )
        self._is_over = left <= 0

    async def _disconnect(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    def _invalid(self, problem: str) -> APIResponseValidationError:
        """Return the error for a content that cannot be read."""
        path = self._request.path
        return APIResponseValidationError(f"GET {path} {problem}", status=200, body=b"", method="GET", path=path)


async def open_content(server: Server, request: Request, *, is_replayed: bool = False) -> FileContent:
    """Send a GET for a body of any size, and return its content as soon as its headers have arrived.

    Safe to cancel.

    Args:
        server: The server.
        request: The request.
        is_replayed: See `FileContent`.

    Raises:
        APIError: The server refused the request, or did not answer.
    """
    opened = FileContent(server, request, is_replayed=is_replayed)
    await opened._open()
    return opened


def _total_of(answer: Response | ByteStream) -> int | None:
    """Return the length of the whole content, as the headers of an answer say it."""
    if answer.status == 200:
        length = answer.headers.get("content-length", "")
        return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
    found = _TOTAL.match(answer.headers.get("content-range", ""))
    return int(found[1]) if found else None


def _created(path: str | os.PathLike[str], files: ExitStack) -> IO[bytes]:
    return files.enter_context(open(path, "wb"))


def _status_passes(error: APIError) -> bool:
    return isinstance(error, APIStatusError) and error.status in PASSING_STATUSES
