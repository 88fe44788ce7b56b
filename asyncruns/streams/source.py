"""The source of a stream's events: reads, decodes and accumulates them, for the stream's user or for a watch.

Only reading advances a stream. Nothing may run in the background here, so a slow reader slows down the server.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, Generic, TypeVar

import anyio

from asyncruns.abc import ByteStream
from asyncruns.errors import APIConnectionError, APIError, EventTooLargeError, InvalidRequestError
from asyncruns.http import Request
from asyncruns.lifecycle.values import RunRef
from asyncruns.sse import ServerSentEvent
from asyncruns.streams.event_reader import EventReader
from asyncruns.streams.progress import StreamProgress
from asyncruns.streams.stream_errors import ended_before_run, ended_early, given_up, not_streamed
from asyncruns.wire.shown_text import visible
from asyncruns.wire.stream_events import DoneEvent, ErrorEvent, UndecodableEvent, UnknownEvent

R = TypeVar("R")
E = TypeVar("E")

_DRAIN_S: Final = 0.25  # for at most this long, the body is read on after `done`, so that the connection can be reused


class EventSource(ABC, Generic[R, E]):
    """The events of one stream, or of several that follow one another.

    Attributes:
        dialect: The name of the runs' dialect.
        needs_messages: Whether `missing` needs the messages of the run, and not only the run.
        progress: How far the current or last stream has come.
        ready: Events that were read and not yet taken, oldest first.
        is_claimed: Whether a watch reads the events in place of the stream's user.
    """

    dialect: ClassVar[str]
    needs_messages: ClassVar[bool] = False

    _of_the_stream: ClassVar[frozenset[object]]
    """The types of the events that `_noted` must check; the others are deltas and take a fast path."""

    def __init__(self, request: Request, body: ByteStream, own_id: str = "") -> None:
        self.is_claimed: bool = False
        self._own_id = own_id  # of the run; "" until it is known
        self._begin(request, body)

    def _begin(self, request: Request, body: ByteStream) -> None:
        self.progress: StreamProgress = StreamProgress()
        self._request = request
        self._reader = EventReader(request, body, self._object_event)
        self.ready: deque[ServerSentEvent] = deque()
        self._is_left = False  # whether the caller closed the stream before its end

    # What differs between runs and responses

    @staticmethod
    @abstractmethod
    def _decoded(name: str, text: str, /) -> E:
        """Return the typed event. Must not raise."""

    @staticmethod
    @abstractmethod
    def _object_event(text: str, fields: dict[str, Any]) -> ServerSentEvent:
        """Return the event that is equivalent to a JSON object that the server sent instead of events."""

    @abstractmethod
    def _take(self, event: E) -> E | None:
        """Accumulate an event; return it, or None if it contains nothing new."""

    @abstractmethod
    def _owner_in(self, event: E) -> tuple[str, str | None]:
        """Return the id of the run that an event belongs to, or "", and the run's status or None."""

    @abstractmethod
    def _done_is_the_end(self) -> bool:
        """Return whether a stream with `done`, but without the run's end, is nevertheless complete."""

    @abstractmethod
    def _next_step(self) -> str:
        """Return what the caller can do after the stream broke, for an error message."""

    @property
    @abstractmethod
    def resource(self) -> R | None:
        """The run or response as last seen, or None."""

    @property
    def ref(self) -> RunRef | None:
        """The run of a stream that began in the middle, whose events may not contain it for long; otherwise None."""
        return None

    @property
    def sequence_number(self) -> int | None:
        """The number of the last event that had one, after which the stream can be reopened; or None."""
        return None

    @abstractmethod
    def run_in(self, event: object) -> R | None:
        """Return the run or response that an event contains, or None."""

    @abstractmethod
    def text_in(self, event: object) -> str:
        """Return the piece of text that an event adds, or ""."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The text of all events that were read."""

    @abstractmethod
    def rest_in(self, event: object) -> E | None:
        """Return an event with the text that this event contains and no earlier one did, or None."""

    @abstractmethod
    def missing(self, run: R, messages: Sequence[Any]) -> Sequence[E] | None:
        """Return events with the text of a run that no event contained; None if the run's text is another.

        Args:
            run: The run as it is now; the text of all later events is its own, or that of a follow-up.
            messages: The messages of the run, oldest first, if `needs_messages`.
        """

    # Reading

    async def next_event(self) -> E | None:
        """Wait for the next event, for a watch; return None at the end. Safe to cancel: no event is lost.

        Raises:
            APIError: The stream broke, and has ended.
        """
        while self.ready or await self.has_more():
            if (event := self.take_next()) is not None:
                return event
        return None

    def take_next(self) -> E | None:
        """Take the next event from `ready` and return it; None if it contains nothing new."""
        sent = self.ready.popleft()
        event = self._decoded(sent.event, sent.data)
        if type(event) in self._of_the_stream:
            noted = self._noted(sent, event)
            return None if noted is None else self._take(noted)
        if self.progress.grace is not None:  # a delta after the run seemed to pause: it is in progress
            self.progress.goes_on()
        return self._take(event)

    async def has_more(self) -> bool:
        """Wait until an event is ready; return False at the end of the stream. Safe to cancel."""
        while not self.ready:
            if self._reader.is_over or self.progress.is_done or not self._reader.is_streamed:
                break
            if self.progress.grace is None:
                await self._fetch()
            elif not await self._fetch_in_time():
                break
        else:  # no `break`: an event is ready
            return True
        await self._finish()
        return False

    async def _fetch_in_time(self) -> bool:
        """Read once, for at most the time in which more may follow; return False when that time is over."""
        with anyio.move_on_after(self.progress.seconds_left(asyncio.get_running_loop().time())):
            try:
                await self._fetch()
            except APIConnectionError:
                if not self.progress.has_ended:  # after the run's end, nothing is lost with the connection
                    raise
            return True
        return False

    async def _fetch(self) -> None:
        try:
            self.ready.extend(await self._reader.read())
        except (APIConnectionError, EventTooLargeError) as error:
            error._extend(visible(self._next_step()))  # built only now: it depends on what the stream has shown
            raise

    async def _finish(self) -> None:
        if self.progress.is_done and not self._reader.is_over:
            await self._reader.drain(_DRAIN_S)
        await self._shut()

    async def _shut(self) -> None:
        self.ready.clear()
        await self._reader.close()

    async def close(self) -> None:
        """Stop reading; the run goes on at the server. May be called twice."""
        self._is_left = True
        await self._shut()

    # What an event shows about the stream itself

    def _noted(self, sent: ServerSentEvent, event: E) -> E | None:
        """Note what an event shows about the stream itself; return the event, or None if it must be hidden."""
        if isinstance(event, DoneEvent):
            self.progress.told_done(is_whole=self.progress.is_whole or self._done_is_the_end())
            self.ready.clear()  # nothing after `done` belongs to the stream
            return event
        event = self._redacted(sent, event)
        if isinstance(event, ErrorEvent):
            self.progress.told_error(event.data)
        owner, status = self._owner_in(event)
        if owner and self._own_id and owner != self._own_id:
            error = self._foreign(sent, owner)
            if not self.progress.has_ended:
                raise error
            return None  # the run has ended, so nothing of it is lost
        if status is not None:
            self._own_id = owner or self._own_id
            self.progress.told_status(status)
        return event

    def _redacted(self, sent: ServerSentEvent, event: E) -> E:
        """Return the event without credentials. Only events that may end up in an error or a log need this."""
        redact = self._reader.redact
        if redact is None or not isinstance(event, ErrorEvent | UndecodableEvent):
            return event
        text = redact(sent.data.encode("utf-8", "replace")).decode("utf-8", "replace")
        return event if text == sent.data else self._decoded(sent.event, text)

    @property
    def is_streamed(self) -> bool:
        """Whether the server sends events; False once it turned out to have answered with the run."""
        return self._reader.is_streamed

    @property
    def request_id(self) -> str:
        """The id by which the server's operators can find the exchange, or ""."""
        return self._reader.request_id

    @property
    def redact(self) -> Callable[[bytes], bytes] | None:
        """Removes credentials from bytes that are to be shown; None if there are none to remove."""
        return self._reader.redact

    @property
    def server_time(self) -> float | None:
        """The server's current time in seconds of the epoch, from the response's `Date`; None if it has none."""
        return self._reader.server_time

    # Errors

    def _foreign(self, sent: ServerSentEvent, owner: str) -> APIError:
        """Return the error for an event of another run, which a proxy may have mixed in; the stream is then over."""
        self._reader.abandon()
        self.ready.clear()
        where = f"{self._request.method} {self._request.path}"
        message = (
            f"The stream of {where} has an event of {owner!r}, but belongs to {self._own_id!r}. {self._next_step()}"
        )
        return self._reader.bad_event(sent, message)

    def error_in(self, event: object) -> APIError | None:
        """Return the error for an event with which the server ends the stream; None for any other event."""
        return given_up(self._request, event.data, self._next_step()) if isinstance(event, ErrorEvent) else None

    def check_error(self, event: object) -> None:
        """Raise the error of an event, for iterators over text, which cannot return the event.

        Raises:
            APIError: The server ended the stream with an error.
        """
        error = self.error_in(event)
        if error is not None:
            raise error

    def check_whole(self) -> None:
        """Check that a stream that was read to its end is complete; one that the caller closed is not checked.

        Raises:
            APIConnectionError: The stream ended too early.
        """
        if self.progress.is_whole or self._is_left:
            return
        raise (ended_early if self.is_streamed else not_streamed)(self._request, self._next_step())

    def ended_before_run(self) -> APIError:
        """Return the error for a stream that ended before any event of its run."""
        return ended_before_run(self._request, self._next_step())

    # For a watch

    def claim(self) -> None:
        """Reserve the events for a watch: the stream's user can no longer read them.

        Raises:
            InvalidRequestError: Another watch reads them.
        """
        if self.is_claimed:
            raise InvalidRequestError("Another watch reads this stream; watch its run by its ids, without the stream")
        self.is_claimed = True

    def is_known(self, event: object) -> bool:
        """Return whether an event was decoded and is of a known type."""
        return not isinstance(event, UnknownEvent | UndecodableEvent)

    def continue_with(self, request: Request, body: ByteStream) -> None:
        """Continue with the stream of a further request, after the end of the stream before.

        Args:
            request: A request made by `opening.asking`.
            body: The response to it.
        """
        self._begin(request, body)

    def reopen(self, request: Request, body: ByteStream) -> None:
        """Continue with a stream that was reopened. What was delivered before is not delivered again.

        Args:
            request: A request made by `Dialect.reopen`.
            body: The response to it.
        """
        raise NotImplementedError
