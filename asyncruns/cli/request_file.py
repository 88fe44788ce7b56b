"""Reads a file of requests for a batch, line by line. It never holds the file, and never blocks the event loop.

A message about a line has the name of the file and the number of the line, from 1, but nothing of its contents.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import islice
from typing import IO, Any, Final

import anyio.to_thread
import msgspec

from asyncruns.cli.output import on_one_line
from asyncruns.errors import InvalidRequestError
from asyncruns.wire.codec import parse

READ_AT_ONCE: Final = 500  # lines: each read is a call in a thread


class RequestFile:
    """The requests in a file with one JSON object per line. Blank lines are skipped. It is read once.

    Args:
        path: Path of the file; a pipe is fine.

    Attributes:
        count: Number of requests so far.
    """

    def __init__(self, path: str) -> None:
        self.count: int = 0
        self._path = path
        self._line = 0
        self._lines: dict[str, int] = {}  # of each custom id
        self._is_over = False

    async def requests(self) -> AsyncGenerator[dict[str, Any]]:
        """Yield each request. Safe to cancel.

        Raises:
            InvalidRequestError: The file cannot be read, a line is not a JSON object, or has the custom id of an
                earlier line.
        """
        try:
            file = await anyio.to_thread.run_sync(open, self._path, "rb")
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            while lines := await self._read(file):
                for line in lines:
                    self._line += 1
                    if not line.isspace():
                        self.count += 1
                        yield self._checked(line)
            self._is_over = True
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(file.close)

    async def _read(self, file: IO[bytes]) -> list[bytes]:
        try:
            return await anyio.to_thread.run_sync(lambda: list(islice(file, READ_AT_ONCE)))
        except OSError as error:
            raise self._unreadable(error) from error

    def named(self, error: InvalidRequestError) -> InvalidRequestError:
        """Return an error with the file and the line that was read last, unless it has them, or all were read."""
        if self._is_over or not self._line or str(error).startswith(self._where):
            return error
        return InvalidRequestError(f"{self._where}: {error}")

    def refused(self, why: str) -> InvalidRequestError:
        """Return the error that says why the line that was read last is refused."""
        return InvalidRequestError(f"{self._where}: {why}. Nothing was sent.")

    @property
    def _where(self) -> str:
        return f"{on_one_line(self._path)}, line {self._line}"

    def _checked(self, line: bytes) -> dict[str, Any]:
        try:
            request = parse(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self.refused(f"it is not JSON: {on_one_line(str(error))}") from error
        if not isinstance(request, dict):
            raise self.refused(f"it is not a JSON object, but a {type(request).__name__}")
        custom_id = request.get("custom_id")
        if isinstance(custom_id, str):
            first = self._lines.setdefault(custom_id, self._line)
            if first != self._line:
                raise self.refused(f"it has the custom_id of line {first}; results are told apart by it")
        return request

    def _unreadable(self, error: OSError) -> InvalidRequestError:
        return InvalidRequestError(f"{on_one_line(self._path)} cannot be read: {error.strerror or error}")
