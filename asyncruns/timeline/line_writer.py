"""Appends lines to a file in a thread of its own, in batches, so that the event loop never waits for the disk."""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import Future
from typing import Any, Final

from msgspec import structs

from asyncruns._version import __version__
from asyncruns.errors import ConfigurationError
from asyncruns.journal.own_thread import OwnThread
from asyncruns.timeline.lines import DECODER, ENCODER, LINES_FORMAT, HeadLine, LostLine, TimelineLine, WatchLine

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FLUSH_S: Final = 1.0
MOST_AT_ONCE: Final = 4096  # lines in one batch, which take some 2 ms to encode
MOST_WAITING: Final = 500_000  # lines in memory, some 100 MB, while the disk takes none

log: Final = logging.getLogger("asyncruns.timeline")


class LineWriter:
    """Appends lines to a file; only its owner may read it, if it is new. It takes lines while `is_open`.

    Args:
        path: The file. What a process wrote before stays in it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: str = os.fspath(path)
        self.is_open: bool = False
        self._thread: OwnThread | None = None
        self._descriptor = -1
        self._lines: list[TimelineLine] = []
        self._given = 0  # lines for the thread
        self._taken = 0  # those that it is done with; it alone counts them
        self._is_broken = False  # a write failed; the thread alone sets it
        self._lost = 0

    async def open(self, at: float) -> None:
        """Open the file, and write its first line. If the caller is cancelled, the file is closed again.

        Raises:
            ConfigurationError: The file holds something else, another process writes to it, or it cannot be opened.
        """
        await self.aclose()  # what has ended because of an error
        self._thread = OwnThread("asyncruns timeline")
        self._is_broken = False
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._begin, at)
        except BaseException:
            self._thread.end(self._close)
            self._thread = None
            raise
        self.is_open = True

    def put(self, line: TimelineLine) -> None:
        """Append a line within a second, unless the writer was closed, or the disk takes no lines."""
        if not self.is_open:
            return
        lines = self._lines
        lines.append(line)
        if len(lines) == 1:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        elif len(lines) >= MOST_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Begin to write the lines that were put so far; returns at once."""
        lines, self._lines = self._lines, []
        if not lines or self._thread is None:
            return
        if self._given - self._taken + len(lines) > MOST_WAITING:
            self._lost += len(lines)
            return
        if self._lost:
            lines.append(LostLine(self._lost))
            self._lost = 0
        self._given += len(lines)
        asyncio.get_running_loop().run_in_executor(self._thread, self._write, lines)

    async def aclose(self) -> None:
        """Write what is waiting, and close the file. Never raises; if the caller is cancelled, this is done even so."""
        if self._thread is None:
            return
        self.flush()
        self.is_open = False
        closed: Future[None] = self._thread.submit(self._close)
        self._thread.shutdown()
        self._thread = None
        await asyncio.shield(asyncio.wrap_future(closed))

    # In the thread

    def _begin(self, at: float) -> None:
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            if fcntl is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write_all(self._gap() + ENCODER.encode(HeadLine(LINES_FORMAT, __version__, at)) + b"\n")
        except BlockingIOError:
            raise ConfigurationError(
                f"{self.path} is being written by another recording: each needs a file of its own"
            ) from None
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def _gap(self) -> bytes:
        """Return what has to stand before our first line: a line end, if that of the last line was not written."""
        size = os.fstat(self._descriptor).st_size
        if size == 0:
            return b""
        try:
            is_ours = isinstance(DECODER.decode(os.pread(self._descriptor, 1000, 0).partition(b"\n")[0]), HeadLine)
        except (ValueError, RecursionError):
            is_ours = False
        if not is_ours:
            raise ConfigurationError(f"{self.path} exists, and is no file of timelines: choose another path")
        return b"" if os.pread(self._descriptor, 1, size - 1) == b"\n" else b"\n"

    def _write(self, lines: list[TimelineLine]) -> None:
        try:
            if not self._is_broken:
                self._write_all(_encoded(lines))
        except Exception as error:
            self._is_broken, self.is_open = True, False
            why = error.strerror if isinstance(error, OSError) else type(error).__name__
            log.warning("The timelines in %s end: a line can't be written (%s). Watches go on", self.path, why)
        finally:
            self._taken += len(lines)

    def _write_all(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _encoded(lines: list[TimelineLine]) -> bytes:
    """Return lines as they are written. A label that has no JSON, such as an integer above 64 bits, is left out."""
    try:
        return ENCODER.encode_lines(lines)
    except (ValueError, OverflowError, RecursionError):
        return b"".join(_encoded_line(line) for line in lines)


def _encoded_line(line: TimelineLine) -> bytes:
    try:
        return ENCODER.encode(line) + b"\n"
    except (ValueError, OverflowError, RecursionError):
        fields = {name: _without_surrogates(getattr(line, name)) for name in line.__struct_fields__ if name != "label"}
        without_label = {"label": None} if isinstance(line, WatchLine) else {}
        return ENCODER.encode(structs.replace(line, **fields, **without_label)) + b"\n"


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_without_surrogates, value))
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
