"""Writes the requests of a batch to a temporary file, cut into the parts that fit into one batch each.

No request is held: what was checked is on the disk. The file has no name in the file system, or is deleted when it is
closed, so that nothing is left behind, whatever happens. Nothing here sends anything.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import IO, Any, Final

import anyio
from msgspec import Struct

from asyncruns.dialects.request_lines import (
    MOST_BYTES_OF_FILE,
    MOST_LINES_OF_FILE,
    RequestLine,
    RequestLines,
    refused_request,
)
from asyncruns.errors import InvalidRequestError
from asyncruns.resources.file_threads import in_thread
from asyncruns.watch.reconciliation import each_of

WRITTEN_AT_ONCE: Final = 65_536  # bytes; encoding that many keeps the event loop for a millisecond or two


class FilePart(Struct, kw_only=True):
    """The part of the file that one batch gets.

    Attributes:
        start: Where it begins, in bytes.
        size: Its length in bytes.
        requests: Number of its lines.
        tokens: The estimate of their tokens.
    """

    start: int
    size: int = 0
    requests: int = 0
    tokens: int = 0

    def fits(self, line: RequestLine, most_tokens: int | None) -> bool:
        """Return whether a line may follow in this part."""
        return (
            self.requests < MOST_LINES_OF_FILE
            and self.size + len(line.data) <= MOST_BYTES_OF_FILE
            and (most_tokens is None or self.tokens + line.tokens <= most_tokens)
        )

    def take(self, line: RequestLine) -> None:
        """Count a line."""
        self.size += len(line.data)
        self.requests += 1
        self.tokens += line.tokens


class WrittenRequests(Struct):
    """Requests that were written.

    Attributes:
        file: The file with all of them.
        parts: The parts, in order; at least one.
        endpoint: Their endpoint.
    """

    file: IO[bytes]
    parts: list[FilePart]
    endpoint: str

    def content_of(self, part: FilePart) -> Section:
        """Return the content of a part as a file of its own. One at a time may be read."""
        return Section(self.file, part.start, part.size)


class Section:
    """A section of a file, which can be read and sought like a file of its own."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._place = 0

    def tell(self) -> int:
        """Return the place in the section, in bytes."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the place, and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Return up to that many bytes, or all that are left; b"" at the end."""
        left = max(0, self._size - self._place)
        self._file.seek(self._start + self._place)
        found = self._file.read(left if size < 0 else min(size, left))
        self._place += len(found)
        return found


@contextlib.asynccontextmanager
async def written(
    requests: Iterable[Any] | AsyncIterable[Any], endpoint: str | None, most_tokens: int | None
) -> AsyncGenerator[WrittenRequests]:
    """Write requests to a temporary file, which exists within the `async with`. Safe to cancel.

    Args:
        requests: The requests, in any form that `RequestLines` takes.
        endpoint: Their endpoint; None takes that of the first line.
        most_tokens: The most tokens of a part; None for no limit.

    Raises:
        InvalidRequestError: A request cannot be part of the batch, or there is none.
        OSError: The file cannot be written.
    """
    files = contextlib.ExitStack()
    try:
        file = await in_thread(_opened_in, files)
        lines = RequestLines(endpoint)
        parts = await _write_all(file, requests, lines, most_tokens)
        yield WrittenRequests(file, parts, lines.endpoint or "")
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(files.close)


def _opened_in(files: contextlib.ExitStack) -> IO[bytes]:
    return files.enter_context(tempfile.TemporaryFile())


async def _write_all(
    file: IO[bytes], requests: Iterable[Any] | AsyncIterable[Any], lines: RequestLines, most_tokens: int | None
) -> list[FilePart]:
    parts = [FilePart(start=0)]
    waiting = bytearray()
    async with contextlib.aclosing(each_of(requests)) as each:
        async for request in each:
            line = lines.add(request)
            if parts[-1].requests and not parts[-1].fits(line, most_tokens):
                parts.append(FilePart(start=parts[-1].start + parts[-1].size))
            if not parts[-1].fits(line, most_tokens):
                raise _too_large(lines.count, line, most_tokens)
            parts[-1].take(line)
            waiting += line.data
            if len(waiting) >= WRITTEN_AT_ONCE:
                await in_thread(file.write, bytes(waiting))
                waiting.clear()
    if not lines.count:
        raise InvalidRequestError("There are no requests: a batch needs at least one. Nothing was sent.")
    await in_thread(file.write, bytes(waiting))
    await in_thread(file.flush)
    return parts


def _too_large(number: int, line: RequestLine, most_tokens: int | None) -> InvalidRequestError:
    if len(line.data) > MOST_BYTES_OF_FILE:
        return refused_request(number, f"has {len(line.data)} bytes; a batch takes {MOST_BYTES_OF_FILE} in all")
    return refused_request(number, f"has some {line.tokens} tokens, more than max_enqueued_tokens={most_tokens}")
