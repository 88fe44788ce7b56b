"""What a replay gives a caller: the recorded pieces of a body, and the recorded errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

import anyio

from asyncruns._loop import loop_time
from asyncruns.abc import ByteStream
from asyncruns.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APITimeoutError,
    ConfigurationError,
    InvalidRequestError,
)
from asyncruns.http import Request
from asyncruns.testing.recording import RecordedLine

_PATIENCE_S: Final = 30.0  # of a request without a timeout of its own that is never answered

Piece = tuple[float, bytes | BaseException]
"""Bytes, or what ends them, with the seconds since the request; infinity if nothing comes any more."""


class ReplayedStream(ByteStream):
    """The recorded pieces of a body, each at its time."""

    def __init__(self, request: Request, began: float, opened: RecordedLine, pieces: list[Piece]) -> None:
        self.status: int = opened.status
        self.headers: Mapping[str, str] = opened.headers
        self._request = request
        self._began = began
        self._pieces = pieces

    async def read(self) -> bytes:
        if not self._pieces:
            return b""
        after, piece = self._pieces[0]
        if after == math.inf:
            await never_answered(self._request)
        await anyio.sleep(max(self._began + after - loop_time(), 0.0))
        del self._pieces[:1]
        if isinstance(piece, bytes):
            return piece
        self._pieces = []
        raise piece

    async def aclose(self) -> None:
        self._pieces = []


async def never_answered(request: Request) -> NoReturn:
    """Wait for the timeout of a request, and raise."""
    timeout = math.inf if request.timeout is None else request.timeout
    await anyio.sleep(_PATIENCE_S if timeout == math.inf else timeout)  # a wait without end would hang the test
    message = f"{request.method} {request.path} got no answer in the recording: its caller left, or the process died"
    raise APITimeoutError(message, sent=True, method=request.method, path=request.path)


def replayed_error(line: RecordedLine, request: Request) -> Exception:
    """Return the error that a line records."""
    make = _ERRORS.get(line.error)
    if make is None:
        return RuntimeError(f"{line.error} in the recording, at {request.method} {request.path}. {line.message}")
    return make(line, request)


def _lost(kind: type[APIConnectionError]) -> Callable[[RecordedLine, Request], Exception]:
    return lambda line, request: kind(
        line.message, sent=bool(line.sent), passes=line.passes, method=request.method, path=request.path
    )


def _invalid(line: RecordedLine, request: Request) -> APIError:
    return APIResponseValidationError(
        line.message,
        status=line.status,
        body=line.content or b"",
        request_id=line.request_id,
        method=request.method,
        path=request.path,
    )


_ERRORS: Final[Mapping[str, Callable[[RecordedLine, Request], Exception]]] = {
    "APIConnectionError": _lost(APIConnectionError),
    "APITimeoutError": _lost(APITimeoutError),
    "APIResponseValidationError": _invalid,
    "ConfigurationError": lambda line, request: ConfigurationError(line.message),
    "InvalidRequestError": lambda line, request: InvalidRequestError(line.message),
}
