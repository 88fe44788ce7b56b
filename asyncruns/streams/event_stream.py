"""What the streams of runs and of responses have in common for their users. Light: it loads no events of the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from asyncruns.abc import AsyncOnly
from asyncruns.errors import InvalidRequestError

if TYPE_CHECKING:
    from asyncruns.streams.source import EventSource
    from asyncruns.wire.common import ErrorObject

R = TypeVar("R")
E = TypeVar("E")


class EventStream(AsyncOnly, Generic[R, E]):
    """The events of a run or a response, for one reader; to be closed, or used with `async with`.

    A stream ends with the event that tells of the run's end, also if the server leaves the connection open. Where a
    server answers with the run itself in place of a stream, there is one event, which holds that.
    """

    def __init__(self, source: EventSource[R, E]) -> None:
        self._source = source

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """Return the next event.

        Safe to cancel: no event is lost, and what the stream tells of goes on at the server.

        Raises:
            APIConnectionError: The stream broke; what it told of goes on at the server.
            APITimeoutError: No byte came within the request's timeout; as above.
            APIResponseValidationError: An event is of another run than this; as above.
            EventTooLargeError: An event is larger than what is taken; as above.
            InvalidRequestError: A watch reads the stream; see `RunWatcher.stream_events`.
        """
        source = self._source
        if source.is_claimed:
            raise InvalidRequestError(
                "A watch reads this stream: iterate over watcher.text_deltas(), or watcher.stream_events()"
            )
        while source.ready or await source.has_more():  # not by `next_event`: each event would cost more
            if (event := source.take_next()) is not None:
                return event
        raise StopAsyncIteration

    async def text_deltas(self) -> AsyncIterator[str]:
        """Yield the pieces of the text as they come, and pass over all else.

        What no piece told of and an event shows whole, such as the last one, comes as one more piece.

        Raises:
            APIError: The server gave up the stream with an error, or the stream broke or ended before the run did, so
                that the text may not be whole.
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
        """Stop reading; iterating ends then. May be called twice.

        What the stream tells of goes on at the server: cancel it there if nobody wants it.
        """
        await self._source.close()

    @property
    def error(self) -> ErrorObject | None:
        """What the server said when it gave the stream up, or None."""
        return self._source.progress.error

    @property
    def is_done(self) -> bool:
        """Whether the server said that the stream is over. Some never say it."""
        return self._source.progress.is_done

    @property
    def is_whole(self) -> bool:
        """Whether the stream told all: the end of the run, or that it waits for the caller."""
        return self._source.progress.is_whole

    @property
    def request_id(self) -> str:
        """What names the exchange to the server's operators, or ""."""
        return self._source.request_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def source_of(stream: EventStream[R, E]) -> EventSource[R, E]:
    """Return what a stream reads from, which a watch reads instead of the stream's user. Internal."""
    return stream._source
