"""Notes each request that is sent, with its answer and how long that took, for traces and metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from asyncruns._loop import loop_time
from asyncruns.abc import ByteStream, Transport
from asyncruns.http import Request, Response
from asyncruns.user_code.guarded_telemetry import GuardedTelemetry

A = TypeVar("A", bound=Response | ByteStream)


class FollowedTransport(Transport):
    """Sends through another transport, and tells the telemetry of each request.

    Args:
        inner: The transport that sends; it is borrowed.
        telemetry: What is told.

    Attributes:
        inner: The argument of the same name.
    """

    def __init__(self, inner: Transport, telemetry: GuardedTelemetry) -> None:
        self.inner: Transport = inner
        self._telemetry = telemetry

    def __repr__(self) -> str:
        return repr(self.inner)

    async def send(self, request: Request) -> Response:
        return await self._followed(request, self.inner.send)

    async def stream(self, request: Request) -> Response | ByteStream:
        return await self._followed(request, self.inner.stream)

    async def download(self, request: Request) -> Response | ByteStream:
        return await self._followed(request, self.inner.download)

    async def aclose(self) -> None:
        pass

    async def _followed(self, request: Request, send: Callable[[Request], Awaitable[A]]) -> A:
        began = loop_time()
        try:
            answer = await send(request)
        except Exception as error:
            self._telemetry.requested(request, error, loop_time() - began)
            raise
        self._telemetry.requested(request, answer if isinstance(answer, Response) else None, loop_time() - began)
        return answer
