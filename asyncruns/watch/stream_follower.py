"""Reads the streams of a watched run: what they show of the run goes to the machine, and each event to the reader.

Theory of operation. There is one stream at a time: it ends where the run waits for outputs, and the answer to the
submit is the next stream.

- Slow reader: events are never dropped. 256 are buffered, and then the socket is not read. Once there was no room for
  1 s, what the stream shows of the run is old; the machine then polls until the next stream. Only the end of a run is
  still reported from the stream, as it is true however late it is read.
- Broken stream: it is reopened where it broke, if the server supports that. If not, the machine polls. The text that
  is missing is taken from the run itself once it has ended or waits for the caller (`complete`). If that fails, too,
  `missing` is the error that the reader of the text gets.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio
from msgspec.structs import replace

from asyncruns._loop import loop_time
from asyncruns.abc import RunClient
from asyncruns.dialects.errors import redacted
from asyncruns.errors import APIConnectionError, APIError, InvalidRequestError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import (
    Asked,
    Event,
    Observed,
    Refusal,
    RefusalKind,
    Refused,
    RunRef,
    Snapshot,
    StreamEnded,
)
from asyncruns.lifecycle.machine import SILENCE_S
from asyncruns.lifecycle.phases import Phase
from asyncruns.streams.opening import asking, events_of
from asyncruns.watch.requests import check_is_ours, refusal_of
from asyncruns.watch.stream_buffer import BUFFERED_EVENTS, StreamBuffer
from asyncruns.watch.stream_reopener import StreamReopener
from asyncruns.watch.subscribers import TextReaders
from asyncruns.wire import encode

if TYPE_CHECKING:
    from asyncruns.streams.source import EventSource

R = TypeVar("R")

# Refusals in a stream's first event that mean that the outputs were not taken, and may be submitted again.
NOTHING_DONE: Final = (RefusalKind.NOT_READY, RefusalKind.NOT_FOUND, RefusalKind.THROTTLED)
BEHIND_S: Final = 1.0  # once the buffer was full for this long, what the stream shows of the run is taken to be old
LAG_PAUSES_S: Final = (0.25, 0.5, 1.0, 1.5)  # between attempts to fetch messages, which may lag behind the run's end
REST_S: Final = 5.0  # how long fetching the messages with the missing text may take
TAIL_S: Final = 1.0  # how long outputs wait for the end of the stream that asked for them; mostly it is there at once


class StreamFollower(Generic[R]):
    """The streams of one watch.

    Args:
        client: The client that opens the next streams.
        stream: The source of the first stream; from now on nothing else may read it.
        readers: Get the text as it arrives, in addition to the reader of `held`.

    Attributes:
        given: The run as the stream had shown it before it was handed over, which may be old; or None.
        first: The run as the stream showed it since, before the watch began; or None.
        heard_at: When the stream was opened, or when its last known event arrived, by the loop's clock.
        is_open: Whether a stream is open.
        held: The events of all streams, for the reader.
        owes: Whether the run may have text that was in no event, which `complete` must fetch.
        missing: Why the text that the reader got is incomplete, if that is known; or None.
    """

    def __init__(self, client: RunClient[R], stream: EventSource[R, Any], readers: TextReaders) -> None:
        self.given: Snapshot[R] | None = None
        self.first: Observed | None = None
        self.heard_at: float = 0.0
        self.held: StreamBuffer = StreamBuffer()
        self._client = client
        self._stream = stream
        self._readers = readers
        self._is_claimed = False
        self._early: deque[Any] = deque()  # events read until one named the run; they are for the reader, too
        self.is_open: bool = False
        self.owes: bool = False
        self.missing: APIError | None = None
        self._ref: RunRef | None = None
        self._completing = asyncio.Lock()
        self._is_unstreamed = False  # whether the last outputs were submitted without a stream
        self._reopener: StreamReopener[R] = StreamReopener(client, stream)
        self._gave_up: APIError | None = None  # the error event with which the server ended the stream
        self._is_behind = False  # whether what the stream shows of the run is old, except its end
        self._full_since = math.inf
        self._is_held_up = False  # whether the reader is slow, so that the socket was not read
        self._awaiting: anyio.CancelScope | None = None  # around the wait for the first event that shows the run
        self._asks = False  # whether the stream last showed that the run waits for outputs
        self._over: anyio.Event
        self._reading: anyio.CancelScope

    def claim(self) -> None:
        """Reserve the stream for this watch.

        Raises:
            InvalidRequestError: Another watch reads it.
        """
        self._stream.claim()
        self._is_claimed = True
        if text := self._stream.text:  # the caller has read a part of it
            self._readers.add_text(text)

    async def begin(self, ids: Mapping[str, str], within: float | None = None) -> RunRef:
        """Read until the stream names its run, and return the run's ref. If that fails, close the stream.

        Args:
            ids: The ids that the caller passed, which the run must have.
            within: Seconds to wait for at most; None is no limit.

        Raises:
            APIError: The stream ended before it named its run, or did not name it in time.
            InvalidRequestError: Another watch reads this stream, or it is not the stream of the run with these ids.
        """
        if not self._is_claimed:
            self.claim()
        self._opened()
        try:
            began = loop_time()
            run = self._stream.resource
            if run is None and self._stream.ref is not None:
                return self._named(self._client.dialect.identify(self._stream.ref, ids))
            if run is None:
                run = await self._first_run(within)
                self.first = Observed(self.heard_at, self._snapshot(run), asked_at=began)
            else:
                self.given = self._snapshot(run)
            return self._named(self._client.dialect.identify(run, ids))
        except BaseException:
            await self.close()
            raise

    def _named(self, ref: RunRef) -> RunRef:
        self._ref = ref
        return ref

    async def ask(self, request: Request) -> Observed | Refused:
        """Submit outputs with `stream=True`, and return the first state of the run that the new stream shows.

        A server may also answer with the run instead of a stream. Safe to cancel; it is then not known whether the
        server has acted.
        """
        asked_at = loop_time()
        request = asking(request)
        dialect = self._client.dialect
        try:
            answer = await self._client.transport.stream(request)
            if isinstance(answer, Response):
                if not 200 <= answer.status < 300:
                    return Refused(loop_time(), dialect.refusal(request, answer), Asked.SUBMIT)
                if (events := events_of(answer)) is None:
                    self.is_open, self.owes = False, True
                    snapshot = dialect.read(request, answer)
                    self._ref = snapshot.ref or self._ref
                    return Observed(loop_time(), snapshot, Asked.SUBMIT, asked_at)
                answer = events
            self._stream.continue_with(request, answer)
            self._opened()
            # If a poll can show whether the outputs were taken, a silent stream is awaited for 5 s only.
            run = await self._first_run(within=SILENCE_S if dialect.shows_submits else None)
            snapshot = self._snapshot(run)
            if snapshot.ref is not None:
                self._ref = dialect.identify(snapshot.ref, {})  # the submit created a new run: watch that one
        except APIError as error:
            if (refusal := self._refused_by(error, request)) is not None:
                self._early.clear()
                await self._break_off()
                return Refused(loop_time(), refusal, Asked.SUBMIT)
            # The stream stays open: its events so far, and those to come, are read all the same.
            return Refused(loop_time(), refusal_of(error), Asked.SUBMIT)
        except InvalidRequestError as error:
            await self._break_off()
            return Refused(loop_time(), Refusal(kind=RefusalKind.LOST, cause=error), Asked.SUBMIT)
        except asyncio.CancelledError as error:
            await self._break_off()
            check_is_ours(error)
            raise
        except BaseException:
            await self._break_off()
            raise
        return Observed(loop_time(), snapshot, Asked.SUBMIT, asked_at)

    def _refused_by(self, error: APIError, request: Request) -> Refusal | None:
        """Return the refusal if a stream begins with an error event that says that nothing was done, otherwise None.

        Such a server sends status 200 before it knows of the error. So the event is read as if it were a 400.
        """
        if type(error) is not APIError:
            return None
        body = encode({"error": {"code": error.code, "message": error.message}})
        refusal = self._client.dialect.refusal(request, Response(400, {}, body))
        return replace(refusal, cause=error) if refusal.kind in NOTHING_DONE else None

    async def _break_off(self) -> None:
        self.is_open = False
        self._over.set()
        await self._stream.close()

    def _opened(self) -> None:
        self.is_open, self._is_behind, self._full_since = True, False, math.inf
        self._is_held_up = self._asks = self._is_unstreamed = False
        self.heard_at = loop_time()
        self._reopener.stream_opened(self.heard_at)
        self._over, self._reading = anyio.Event(), anyio.CancelScope()

    async def _first_run(self, within: float | None) -> R:
        try:
            with anyio.move_on_after(within) as self._awaiting:
                while len(self._early) < BUFFERED_EVENTS and (event := await self._stream.next_event()) is not None:
                    self.heard_at = loop_time()
                    self._early.append(event)
                    if (error := self._stream.error_in(event)) is not None:
                        raise error
                    if (run := self._stream.run_in(event)) is not None:
                        return run
        finally:
            self._awaiting = None
        raise self._stream.ended_before_run()

    def hasten(self) -> bool:
        """Stop waiting for the first event of a new stream, since the run has ended; return whether one was awaited."""
        if self._awaiting is None:
            return False
        self._awaiting.cancel()
        return True

    def _snapshot(self, run: R) -> Snapshot[R]:
        snapshot = redacted(self._client.dialect.snapshot(run), self._stream.redact)
        return replace(snapshot, server_time=self._stream.server_time)

    async def read(self, post: Callable[[Event], object]) -> None:
        """Read the stream to its end, reopen it if it breaks, and buffer each event for the reader.

        Safe to cancel: the stream is then closed; the run goes on at the server.

        Args:
            post: Called with each event for the machine. Must not wait.
        """
        cause: APIError | None = None
        try:
            with self._reading:
                cause = await self._read_on(post)
                while not self._stream.progress.has_ended:
                    self.is_open = False
                    if not await self._reopener.reopen(self._ref, post, cause):
                        break
                    self.is_open = True
                    cause = await self._read_on(post)
        finally:
            self.is_open = False
            self.owes = self._is_unstreamed or not self._stream.progress.is_whole
            try:
                await self._stream.close()
            finally:
                self._over.set()  # `may_ask` resumes in a later pass of the loop, so `StreamEnded` below comes first
        post(StreamEnded(loop_time(), cause))

    async def _read_on(self, post: Callable[[Event], object]) -> APIError | None:
        """Read the open stream to its end; return the error that it broke with, or None."""
        self._gave_up = None
        try:
            while self._early:
                await self._deliver(self._early.popleft(), post)
            while (event := await self._next(post)) is not None:
                await self._deliver(event, post)
        except APIError as error:
            return error
        return self._gave_up

    async def _next(self, post: Callable[[Event], object]) -> Any:
        asked_at = loop_time()
        event = await self._stream.next_event()
        if event is None:
            return None
        now = loop_time()
        error, run = self._stream.error_in(event), self._stream.run_in(event)
        if self._stream.is_known(event):  # pings don't count: a server that hangs may still send them
            self.heard_at = now
            if run is None and error is None:
                self._reopener.note(event)
        if run is not None:
            snapshot = self._snapshot(run)
            self._asks = snapshot.phase is Phase.NEEDS_CALLER
            if snapshot.phase.is_terminal or not self._is_behind:
                post(Observed(now, snapshot, asked_at=asked_at))
        elif error is not None:
            self._gave_up = error
            if not self._reopener.may_reopen(self._ref):
                post(StreamEnded(now, error))
        return event

    async def _deliver(self, event: Any, post: Callable[[Event], object]) -> None:
        if self.held.is_full:  # even with a fast reader: one read of the socket may hold more events than the buffer
            self._is_held_up = True
            now = loop_time()
            self._full_since = min(self._full_since, now)
            with anyio.move_on_after(self._full_since + BEHIND_S - now):
                await self.held.room()
            if self.held.is_full:
                self._is_behind = True
                post(StreamEnded(loop_time()))
        elif self.held.is_low:
            self._full_since = math.inf
        if (rest := self._stream.rest_in(event)) is not None:
            self._tell(rest)
            await self.held.put(rest)
        self._tell(event)
        await self.held.put(event)
        if self._is_held_up:
            self._is_held_up, self.heard_at = False, loop_time()  # the silence was the reader's, not the stream's

    async def may_ask(self, post: Callable[[Event], object], snapshot: Snapshot[R] | None) -> bool:
        """Wait for the end of the stream, for about 1 s; return whether outputs can be submitted with a new stream.

        If not, the machine polls from now on, and outputs are submitted without a stream.
        """
        if self._silent_for >= SILENCE_S or not self.is_open:
            self._reading.cancel()
        with anyio.move_on_after(TAIL_S):
            await self._over.wait()
        if self._asks and not self._over.is_set() and self._silent_for >= TAIL_S:
            self._reading.cancel()  # it has nothing more to send; some servers leave it open
            await self._over.wait()
        if not self._over.is_set():
            self._is_behind = self._is_unstreamed = True
            post(StreamEnded(loop_time()))
            return False
        await self.complete(snapshot)  # the missing text goes before that of the next stream
        return True

    async def complete(self, snapshot: Snapshot[R] | None) -> None:
        """Add the text that the run has but no event had, so that the reader gets it; or set `missing`.

        Safe to cancel; the reader then gets neither the text nor the error.

        Args:
            snapshot: The run, which has ended or waits for the caller; None if the watch gave up.
        """
        async with self._completing:
            if self.owes and not self._has_readers:
                self._readers.lose_text()
            elif self.owes:
                try:
                    for event in await self._rest_of(snapshot):
                        self._tell(event)
                        self.held.add(event)
                except APIError as error:
                    self.missing = error
                    self._readers.lose_text()
            self.owes = False

    async def _rest_of(self, snapshot: Snapshot[R] | None) -> Sequence[Any]:
        """Return events with the missing text.

        Raises:
            APIConnectionError: It could not be fetched, or does not continue the text that the reader got.
        """
        ref = self._ref
        if snapshot is None or ref is None:
            message = f"The watch of {ref} gave up before the run ended, so its text may be incomplete"
            raise APIConnectionError(f"{message}; the outcome's reason and cause say why.", sent=True)
        cause: APIError | None = None
        try:
            with anyio.move_on_after(REST_S):
                if (rest := await self._rest_in(snapshot, ref)) is not None:
                    return rest
        except APIError as error:
            cause = error
        message = f"The stream of {ref} broke, and the rest of its text could not be fetched, or does not continue it"
        raise APIConnectionError(
            f"{message}; use the outcome's text() or messages() to fetch what the server has.", sent=True
        ) from cause

    async def _rest_in(self, snapshot: Snapshot[R], ref: RunRef) -> Sequence[Any] | None:
        if not self._stream.needs_messages:
            return self._stream.missing(snapshot.resource, ())
        for pause in LAG_PAUSES_S if snapshot.phase is Phase.SUCCEEDED else ():
            messages = await self._client.answer(ref)
            if messages and (rest := self._stream.missing(snapshot.resource, messages)) is not None:
                return rest
            await anyio.sleep(pause)
        return self._stream.missing(snapshot.resource, await self._client.answer(ref))

    async def end_in_silence(self) -> None:
        """Wait, after the watch has finished, until the stream ends; stop reading it if it is silent for 5 s."""
        over, reading = self._over, self._reading
        while not over.is_set():
            with anyio.move_on_after(max(SILENCE_S - self._silent_for, TAIL_S)):
                await over.wait()
            if self._silent_for >= SILENCE_S:
                reading.cancel()

    @property
    def _silent_for(self) -> float:
        """Seconds for which nothing arrived; 0 while a slow reader keeps the socket from being read."""
        return 0.0 if self._is_held_up else loop_time() - self.heard_at

    @property
    def is_read(self) -> bool:
        """Whether a stream has not ended yet, so that it is still read."""
        return not self._over.is_set()

    @property
    def is_wanted(self) -> bool:
        """Whether there is more for a reader, and a reader may still want it."""
        return (self.is_read or self.owes) and self._has_readers

    @property
    def _has_readers(self) -> bool:
        """Whether there are readers of the text, or there is or may come a reader of the events."""
        return bool(self._readers) or not self.held.is_discarded

    def _tell(self, event: Any) -> None:
        if text := self._stream.text_in(event):
            self._readers.add_text(text)

    def text_in(self, event: Any) -> str:
        """Return the piece of text that an event adds to a message, or ""."""
        return self._stream.text_in(event)

    async def close(self) -> None:
        """Close the stream; the reader gets the events that are left, and then ends. May be called twice."""
        self.is_open = False
        self.held.finish()
        await self._stream.close()

    def stop(self) -> None:
        """Stop reading, since the watch gave up: the reader must not wait for this stream any longer."""
        self._reading.cancel()
