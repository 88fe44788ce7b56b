"""The public base class of the streams of runs and responses. It must not import the event types of the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from asyncruns.abc import AsyncOnly
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle.run_shapes import dialect_and_ids
from asyncruns.lifecycle.values import RunRef

if TYPE_CHECKING:
    from asyncruns.streams.source import EventSource
    from asyncruns.wire.common import ErrorObject

R = TypeVar("R")
E = TypeVar("E")


class EventStream(AsyncOnly, Generic[R, E]):
    """The events of a run or a response, for one reader. Close it, or use it with `async with`.

    A stream ends soon after the event that reports the run's end, even if the server leaves the connection open. If a
    server answers with the run itself instead of a stream, there is one event, which contains the run.
    """

    def __init__(self, source: EventSource[R, E]) -> None:
        self._source = source

    @property
    def ref(self) -> RunRef | None:
        """The ref of the run, as soon as an event has named it; None before."""
        if self._source.ref is not None:
            return self._source.ref
        found = dialect_and_ids(self._source.resource)
        return None if found is None else RunRef(*found)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """Return the next event.

        Safe to cancel: no event is lost. After a cancellation and after each of these errors, the run or background
        response goes on at the server.

        Raises:
            APIConnectionError: The stream broke.
            APITimeoutError: No byte arrived within the request's timeout.
            APIResponseValidationError: An event belongs to another run or response.
            EventTooLargeError: An event has more than 16 MiB.
            InvalidRequestError: A watch reads the stream; see `RunWatcher.stream_events`.
        """
        source = self._source
        if source.is_claimed:
            raise InvalidRequestError(
                "A watch reads this stream: iterate over watcher.text_deltas(), or watcher.stream_events()"
            )
        while source.ready or await source.has_more():  # `next_event` inlined: a further coroutine per event is slow
            if (event := source.take_next()) is not None:
                return event
        raise StopAsyncIteration

    async def text_deltas(self) -> AsyncIterator[str]:
        """Yield the pieces of the text as they arrive; other events are skipped.

        Text that arrived in no delta but is in an event with the whole text, such as the last one, is yielded as one
        more piece.

        Raises:
            APIError: The server ended the stream with an error, or the stream broke or ended before the run did, so the
                text may be incomplete.
        """
        source = self._source
        async for event in self:
            if text := source.text_in(event):
                yield text
            elif (rest := source.rest_in(event)) is not None:
                yield source.text_in(rest)
            else:
                source.check_error(event)
        source.check_whole()

    async def close(self) -> None:
        """Stop reading; iteration then ends. May be called twice.

        The run or background response goes on at the server: cancel it there if it is no longer needed.
        """
        await self._source.close()

    @property
    def error(self) -> ErrorObject | None:
        """The error with which the server ended the stream, or None."""
        return self._source.progress.error

    @property
    def is_done(self) -> bool:
        """Whether the server marked the stream as over. Some servers never do."""
        return self._source.progress.is_done

    @property
    def is_whole(self) -> bool:
        """Whether the stream is complete: it reported the end of the run, or that the run waits for the caller."""
        return self._source.progress.is_whole

    @property
    def request_id(self) -> str:
        """The id by which the server's operators can find the exchange, or ""."""
        return self._source.request_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def source_of(stream: EventStream[R, E]) -> EventSource[R, E]:
    """Return the source of a stream, which a watch reads in place of the stream's user. Internal."""
    return stream._source
