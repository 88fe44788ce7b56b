"""Reopens the broken stream of a watched run where it broke, as far as the server supports that.

Which requests may reopen a stream, the dialect says (`Dialect.reopen`); which events of the reopened stream are new,
`streams/repeats.py` decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio

from asyncruns._loop import loop_time
from asyncruns.abc import ByteStream, RunClient
from asyncruns.errors import APIError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Event, Observed, RefusalKind, RunRef, StreamBegun, StreamEnded
from asyncruns.streams.opening import accepting, events_of

if TYPE_CHECKING:
    from asyncruns.streams.source import EventSource

R = TypeVar("R")

REOPEN_PAUSES_S: Final = (0.0, 0.5, 1.0, 2.0, 4.0)  # before each attempt to reopen a broken stream
STREAM_LAG_S: Final = 5.0  # how long after a stream was opened a 404 for its run is tolerated (replica lag)


class StreamReopener(Generic[R]):
    """Reopens one watch's stream, at most five times without a new event in between.

    Args:
        client: The client that sends the requests.
        stream: The source of the stream, which continues with the body of the response.
    """

    def __init__(self, client: RunClient[R], stream: EventSource[R, Any]) -> None:
        self._client = client
        self._stream = stream
        self._refused: set[int] = set()  # the ways to reopen a stream that this server does not support
        self._attempts = 0  # to reopen the stream, since the last new event that had more than a status
        self._number: int | None = None  # sequence number of the last event before the stream was reopened
        self._opened_at = -math.inf

    def stream_opened(self, now: float) -> None:
        """Note that a stream was opened: the first one, or that of another round."""
        self._opened_at = now
        self._attempts = 0

    def note(self, event: Any) -> None:
        """Note an event of the stream that is more than a status: attempts to reopen it are counted anew.

        Events without text and without a new sequence number do not show progress: many gateways add a `[DONE]` to a
        stream that they cut.
        """
        if self._stream.text_in(event) or self._stream.sequence_number != self._number:
            self._attempts = 0

    def may_reopen(self, ref: RunRef | None) -> bool:
        """Return whether there is a request that may reopen the stream of this run."""
        return bool(self._ways(ref))

    async def reopen(self, ref: RunRef | None, post: Callable[[Event], object], cause: APIError | None) -> bool:
        """Reopen the stream where it broke; return whether that succeeded. Safe to cancel.

        The machine hears of it only if the first attempt fails: otherwise nothing is missing. Only a new event with
        more than a status resets the count of attempts, so that a stream that is cut each time is not reopened for
        ever.

        Args:
            ref: The run; None if it is not known.
            post: Called with each event for the machine. Must not wait.
            cause: The error that the stream broke with, if any.
        """
        is_reported = False
        while self._stream.is_streamed and self._attempts < len(REOPEN_PAUSES_S):
            if not self.may_reopen(ref):
                return False
            if pause := REOPEN_PAUSES_S[self._attempts]:
                post(StreamEnded(loop_time(), cause))
                is_reported = True
                await anyio.sleep(pause)
            self._attempts += 1
            if await self._open_again(ref, post):
                if is_reported:
                    post(StreamBegun(loop_time()))
                return True
        return False

    def _ways(self, ref: RunRef | None) -> list[tuple[int, Request]]:
        """Return the requests that may reopen the stream, each with its index among those of the dialect."""
        if ref is None or self._stream.progress.is_whole:
            return []
        requests = self._client.dialect.reopen(ref, self._stream.sequence_number)
        return [(way, request) for way, request in enumerate(requests) if way not in self._refused]

    async def _open_again(self, ref: RunRef | None, post: Callable[[Event], object]) -> bool:
        asked_at = loop_time()
        for way, request in self._ways(ref):
            request = accepting(request)
            try:
                answer = await self._client.transport.stream(request)
                body = answer if isinstance(answer, ByteStream) else events_of(answer)
                if isinstance(answer, Response) and (body is None or answer.status >= 300):
                    self._was_answered(way, ref, request, answer, asked_at, post)
                    continue
            except APIError:  # no answer, or an unusable one; the next attempt may succeed
                continue
            if body is not None:
                self._number = self._stream.sequence_number
                self._stream.reopen(request, body)
                return True
        return False

    def _was_answered(
        self,
        way: int,
        ref: RunRef | None,
        request: Request,
        answer: Response,
        asked_at: float,
        post: Callable[[Event], object],
    ) -> None:
        """Handle an answer that is not a stream: either the run as it is, or a refusal.

        Raises:
            APIResponseValidationError: The body is not a run.
        """
        dialect = self._client.dialect
        if answer.status < 300:
            snapshot = dialect.read(request, answer)
            if snapshot.ref in (None, ref):
                self._refused.add(way)
                post(Observed(loop_time(), snapshot, asked_at=asked_at))
            return
        kind = dialect.refusal(request, answer).kind
        may_lag = kind is RefusalKind.NOT_FOUND and asked_at - self._opened_at < STREAM_LAG_S
        if not kind.passes and not may_lag:
            self._refused.add(way)
