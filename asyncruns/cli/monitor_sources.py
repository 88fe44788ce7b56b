"""Where `asyncruns monitor` gets its runs from, beside its arguments: lines of files and of standard input.

A line that names no run is an error of that line only. Nothing here waits for a disk or a pipe on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from msgspec import Struct

from asyncruns.cli.ids import given_ref
from asyncruns.errors import ConfigurationError, InvalidRequestError
from asyncruns.http import join_path
from asyncruns.lifecycle import RunRef

STDIN: Final = "-"
LONGEST_LINE: Final = 1 << 20  # bytes: `asyncruns list --json` prints whole objects
_READ_AT_ONCE: Final = 1 << 16
_AHEAD: Final = 4  # reads
_COMMENT: Final = "#"
_BYTE_ORDER_MARK: Final = "\ufeff"  # some editors of Windows begin a file with it
_IDS: Final = re.compile(r"[\w.:~=-]+(/[\w.:~=-]+)?")


class LineFile(Struct):
    """A file of lines, opened.

    Attributes:
        name: Its name, for messages.
        descriptor: Its file descriptor.
    """

    name: str
    descriptor: int


def opened(path: str) -> LineFile:
    """Open a file of lines; "-" is standard input.

    Raises:
        ConfigurationError: It can't be read.
    """
    if path != STDIN:
        try:
            descriptor = os.open(path, os.O_RDONLY)
            if os.path.isdir(path):
                os.close(descriptor)
                raise ConfigurationError(f"{path} is a directory: pass a file with one run per line")
        except OSError as error:
            raise ConfigurationError(f"{path} can't be read: {error.strerror}") from error
        return LineFile(path, descriptor)
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigurationError("standard input is a terminal: pipe the ids into --file -, one run per line")
    return LineFile("standard input", os.dup(sys.stdin.fileno()))


async def lines_in(file: LineFile) -> AsyncIterator[tuple[int, str | None]]:
    """Yield the number and the text of each line as it comes, and close the file; None for a line that is too long.

    Safe to cancel. A thread reads, which is left alone if it waits: nobody can wake it.
    """
    loop = asyncio.get_running_loop()
    queue = asyncio.Queue[bytes | OSError]()
    ahead = threading.Semaphore(_AHEAD)

    def read() -> None:
        data: bytes | OSError = b"-"
        with contextlib.suppress(RuntimeError):  # the loop was closed
            while data and not isinstance(data, OSError):
                ahead.acquire()
                try:
                    data = os.read(file.descriptor, _READ_AT_ONCE)
                except OSError as error:
                    data = error
                loop.call_soon_threadsafe(queue.put_nowait, data)
        os.close(file.descriptor)

    threading.Thread(target=read, name=f"asyncruns-{file.name}", daemon=True).start()
    splitter, number = _Splitter(), 0
    while True:
        data = await queue.get()
        if isinstance(data, OSError):
            raise ConfigurationError(f"{file.name} can't be read: {data.strerror}") from data
        for line in splitter.feed(data):
            number += 1
            yield number, line
        if not data:
            return
        ahead.release()


class _Splitter:
    """Splits bytes into lines; keeps at most `LONGEST_LINE` of one."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._is_too_long = False

    def feed(self, data: bytes) -> Iterator[str | None]:
        """Yield the lines that are complete; with no data, what is left."""
        *whole, rest = data.split(b"\n") if data else [b"", b""][: 1 + bool(self._kept or self._is_too_long)]
        for part in whole:
            self._keep(part)
            yield None if self._is_too_long else self._kept.decode(errors="replace").strip()
            self._kept.clear()
            self._is_too_long = False
        self._keep(rest)

    def _keep(self, part: bytes) -> None:
        self._is_too_long = self._is_too_long or len(self._kept) + len(part) > LONGEST_LINE
        if self._is_too_long:
            self._kept.clear()
        else:
            self._kept += part


def ref_in(line: str | None) -> RunRef | None:
    """Return what a line names: ids as on the command line, or JSON with them; None for an empty line or a comment.

    Raises:
        InvalidRequestError: It names no run; the message says why.
    """
    if line is None:
        raise InvalidRequestError(f"it is longer than {LONGEST_LINE:,} bytes")
    line = line.removeprefix(_BYTE_ORDER_MARK)
    if not line or line.startswith(_COMMENT):
        return None
    if line.startswith("{"):
        ref = _ref_in_json(line)
        for id_ in ref.ids:
            join_path(id_)  # raises if it is none
        return ref
    words = line.replace(",", " ").split()
    if not 1 <= len(words) <= 2 or not all(_IDS.fullmatch(word) for word in words):
        raise InvalidRequestError("pass THREAD_ID/RUN_ID, or the id of a response or a batch, and one run per line")
    return given_ref(*words)


def _ref_in_json(line: str) -> RunRef:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("it begins like JSON, but is none") from error
    listed: Any = value.get("id")
    if isinstance(listed, str) and isinstance(value.get("kind"), str):  # as `list`, `show` and `cancel` print it
        return RunRef.of({"dialect": value["kind"], "ids": listed.split("/")})
    ref = RunRef.of(value)
    if not ref.ids:
        raise InvalidRequestError("its run is not created yet")
    return ref
