"""Where the events of a stream come from: they are read, decoded and noted here, for the stream's user or for a watch.

Reading is the only thing that moves a stream: nothing runs in the background, and who reads slowly slows the server.
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
from asyncruns.streams.stream_errors import ended_early, given_up, not_streamed, told_nothing
from asyncruns.wire.stream_events import DoneEvent, ErrorEvent, UndecodableEvent, UnknownEvent
from asyncruns.wire.visible import visible

R = TypeVar("R")
E = TypeVar("E")

_DRAIN_S: Final = 0.25  # for how long at most is read what follows `done`, and is dropped


class EventSource(ABC, Generic[R, E]):
    """The events of one stream, or of several that follow one another, and what they have told so far.

    Attributes:
        dialect: The name of the dialect whose runs it tells of.
        needs_messages: Whether `missing` needs the messages of the run, and not only the run.
        progress: How far the stream has come that is open, or was last.
        ready: What was read of the body and not yet taken, oldest first.
        is_claimed: Whether a watch reads the events, and not the stream's user.
    """

    dialect: ClassVar[str]
    needs_messages: ClassVar[bool] = False

    _of_the_stream: ClassVar[frozenset[object]]
    """The types of the events that tell of the stream or its run, and so are polled."""

    def __init__(self, request: Request, body: ByteStream, own_id: str = "") -> None:
        self.is_claimed: bool = False
        self._own_id = own_id  # of the run, as soon as it is known
        self._begin(request, body)

    def _begin(self, request: Request, body: ByteStream) -> None:
        self.progress: StreamProgress = StreamProgress()
        self._request = request
        self._reader = EventReader(request, body, self._object_event)
        self.ready: deque[ServerSentEvent] = deque()
        self._is_left = False  # by the caller

    # What differs between the wires

    @staticmethod
    @abstractmethod
    def _decoded(name: str, text: str, /) -> E:
        """Return the typed event."""

    @staticmethod
    @abstractmethod
    def _object_event(text: str, fields: dict[str, Any]) -> ServerSentEvent:
        """Return the event that tells what an object tells, which came in place of events."""

    @abstractmethod
    def _take(self, event: E) -> E | None:
        """Take notice of an event; return it, or None if it brings nothing new."""

    @abstractmethod
    def _owner_in(self, event: E) -> tuple[str, str | None]:
        """Return the id of the run that an event says it is of, or "", and the run's status, if it tells that."""

    @abstractmethod
    def _done_is_the_end(self) -> bool:
        """Return whether nothing is missing if the stream is over without the run's end."""

    @abstractmethod
    def _next_step(self) -> str:
        """Return what to do when the stream has broken, for an error's message."""

    @property
    @abstractmethod
    def resource(self) -> R | None:
        """The typed run as last told, or None as long as nothing told of it."""

    @property
    def ref(self) -> RunRef | None:
        """Which run it goes on to tell of, if it began in the middle, and may not say so for long; else None."""
        return None

    @property
    def sequence_number(self) -> int | None:
        """The number of the last event that had one, after which the stream may be reopened; or None."""
        return None

    @abstractmethod
    def run_in(self, event: object) -> R | None:
        """Return the run that an event tells of, or None."""

    @abstractmethod
    def text_in(self, event: object) -> str:
        """Return the piece of text that an event adds to an answer, or ""."""

    @abstractmethod
    def rest_in(self, event: object) -> E | None:
        """Return an event with the text that this one shows and none before it told, or None."""

    @abstractmethod
    def missing(self, run: R, messages: Sequence[Any]) -> Sequence[E] | None:
        """Return events with the text that the run has and no event told; None if what was told does not fit.

        Args:
            run: The run as it is now; what is told next is of it, or of one that follows.
            messages: Those of the run, oldest first, if `needs_messages`.
        """

    # Reading

    async def next_event(self) -> E | None:
        """Wait for the next event, on behalf of the watch; return None at the end. Safe to cancel: nothing is lost.

        Raises:
            APIError: The stream broke; it has ended then.
        """
        while self.ready or await self.has_more():
            if (event := self.take_next()) is not None:
                return event
        return None

    def take_next(self) -> E | None:
        """Take the next event that is ready, and return it, or None if it brings nothing new."""
        sent = self.ready.popleft()
        event = self._decoded(sent.event, sent.data)
        if type(event) in self._of_the_stream:
            noted = self._noted(sent, event)
            return None if noted is None else self._take(noted)
        if self.progress.grace is not None:
            self.progress.goes_on()
        return self._take(event)

    async def has_more(self) -> bool:
        """Wait until an event is ready; return False when none will come. Safe to cancel."""
        while not self.ready:
            if self._reader.is_over or self.progress.is_done or not self._reader.is_streamed:
                break
            if self.progress.grace is None:
                await self._fetch()
            elif not await self._fetch_in_time():
                break
        else:
            return True
        await self._finish()
        return False

    async def _fetch_in_time(self) -> bool:
        """Read on for as long as more may follow; return whether more may come after that."""
        with anyio.move_on_after(self.progress.seconds_left(asyncio.get_running_loop().time())):
            try:
                await self._fetch()
            except APIConnectionError:
                if not self.progress.has_ended:
                    raise
            return True
        return False

    async def _fetch(self) -> None:
        try:
            self.ready.extend(await self._reader.read())
        except (APIConnectionError, EventTooLargeError) as error:
            error.extend(visible(self._next_step()))
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

    # What an event says of the stream itself

    def _noted(self, sent: ServerSentEvent, event: E) -> E | None:
        """Take notice of what an event says of the stream itself; return it, or None if nobody is to see it."""
        if isinstance(event, DoneEvent):
            self.progress.told_done(is_whole=self.progress.is_whole or self._done_is_the_end())
            self.ready.clear()
            return event
        event = self._redacted(sent, event)
        if isinstance(event, ErrorEvent):
            self.progress.told_error(event.data)
        owner, status = self._owner_in(event)
        if owner and self._own_id and owner != self._own_id:
            error = self._foreign(sent, owner)
            if not self.progress.has_ended:
                raise error
            return None
        if status is not None:
            self._own_id = owner or self._own_id
            self.progress.told_status(status)
        return event

    def _redacted(self, sent: ServerSentEvent, event: E) -> E:
        """Return the event without our credentials, if it is of a kind that may be shown."""
        redact = self._reader.redact
        if redact is None or not isinstance(event, ErrorEvent | UndecodableEvent):
            return event
        text = redact(sent.data.encode("utf-8", "replace")).decode("utf-8", "replace")
        return event if text == sent.data else self._decoded(sent.event, text)

    @property
    def is_streamed(self) -> bool:
        """Whether the server streams; else it answered with the run."""
        return self._reader.is_streamed

    @property
    def request_id(self) -> str:
        """What names the exchange to the server's operators, or ""."""
        return self._reader.request_id

    @property
    def redact(self) -> Callable[[bytes], bytes] | None:
        """Takes the credentials out of what is to be shown; None where there is nothing to take out."""
        return self._reader.redact

    @property
    def server_time(self) -> float | None:
        """The server's clock now, in seconds of its epoch, by what it said at the beginning; None where it did not."""
        return self._reader.server_time

    # Errors

    def _foreign(self, sent: ServerSentEvent, owner: str) -> APIError:
        """Return the error for an event of another run, which a proxy may have mixed up; the stream is over."""
        self._reader.abandon()
        self.ready.clear()
        where = f"{self._request.method} {self._request.path}"
        message = f"The stream of {where} told of {owner!r}, and not of {self._own_id!r} only. {self._next_step()}"
        return self._reader.bad_event(sent, message)

    def error_in(self, event: object) -> APIError | None:
        """Return the error with which the server gives the stream up, if the event is that."""
        return given_up(self._request, event.data, self._next_step()) if isinstance(event, ErrorEvent) else None

    def check_error(self, event: object) -> None:
        """Raise what an iterator over pieces can't return as an event."""
        error = self.error_in(event)
        if error is not None:
            raise error

    def check_whole(self) -> None:
        """Check that nothing is missing of what was read to its end.

        Raises:
            APIConnectionError: The stream ended too early.
        """
        if self.progress.is_whole or self._is_left:
            return
        raise (ended_early if self.is_streamed else not_streamed)(self._request, self._next_step())

    def untold(self) -> APIError:
        """Return the error of a stream that ended before it told of its run."""
        return told_nothing(self._request, self._next_step())

    # What a watch does with it

    def claim(self) -> None:
        """Let a watch read the events from now on, and nobody else.

        Raises:
            InvalidRequestError: Another watch does.
        """
        if self.is_claimed:
            raise InvalidRequestError("Another watch reads this stream; watch its run by its ids, without the stream")
        self.is_claimed = True

    def is_known(self, event: object) -> bool:
        """Return whether an event is one of those that tell something."""
        return not isinstance(event, UnknownEvent | UndecodableEvent)

    def continue_with(self, request: Request, body: ByteStream) -> None:
        """Read on from the answer to a request by `asking`, after the end of what was read before."""
        self._begin(request, body)

    def reopen(self, request: Request, body: ByteStream) -> None:
        """Read on from the answer to a request of `Dialect.reopen`. What was told before is not told again."""
        raise NotImplementedError
