"""Follows the streams of a watched run: what they tell of the run is for the machine, and each event for who reads.

There is one stream at a time: a run's ends where it waits for outputs, and the answer to these is the next. Events are
never dropped for a slow reader: some are held, and then the socket is not read. What such a stream tells of the run is
old by then, so the machine goes by polls until the next one; only an end is as good late as early.

A stream that breaks is opened again where it broke, if the server can do that. If it can't, polls tell of the run, and
the text that no event told of is taken from the run itself when it has ended, or waits for the caller. What can't be
had so either, the reader of the text is told of by an error.
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
from asyncruns.abc import ByteStream, RunClient
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
    StreamBegun,
    StreamEnded,
)
from asyncruns.lifecycle.machine import SILENCE_S
from asyncruns.lifecycle.phases import Phase
from asyncruns.streams.opening import accepting, asking, events_of
from asyncruns.watch.requests import check_is_ours, refusal_of
from asyncruns.watch.stream_buffer import BUFFERED_EVENTS, StreamBuffer
from asyncruns.wire import encode

if TYPE_CHECKING:
    from asyncruns.streams.source import EventSource

R = TypeVar("R")

NOTHING_DONE: Final = (RefusalKind.NOT_READY, RefusalKind.NOT_FOUND, RefusalKind.THROTTLED)
BEHIND_S: Final = 1.0  # so long there may be no room for events, then what they tell is old
REOPEN_PAUSES_S: Final = (0.0, 0.5, 1.0, 2.0, 4.0)  # before each attempt to open a broken stream again
STREAM_LAG_S: Final = 5.0  # for how long after its beginning a server may not know yet of what it streamed
LAG_PAUSES_S: Final = (0.25, 0.5, 1.0, 1.5)  # between attempts to fetch messages that lag behind their run's end
REST_S: Final = 5.0  # for how long at most the messages of a run are fetched, where no event told of them
TAIL_S: Final = 1.0  # so long outputs wait for the end of the stream that asked for them; mostly it is there at once


class StreamFollower(Generic[R]):
    """The streams of one watch.

    Args:
        client: Where the next streams are asked for.
        stream: The source of the first; nobody else may read it any more.

    Attributes:
        given: What the stream told before it was handed over, which may be old; or None.
        first: What it told since then, before the watch began; or None.
        heard_at: When it was opened, or the last event came that tells something, by the loop's clock.
        is_open: Whether a stream tells of the run.
        held: The events of all streams, for who reads them.
        owes: Whether the run may have more text than was told, which `complete` is to give.
        missing: Why the text that was told is not whole, where that is known; or None.
    """

    def __init__(self, client: RunClient[R], stream: EventSource[R, Any]) -> None:
        self.given: Snapshot[R] | None = None
        self.first: Observed | None = None
        self.heard_at: float = 0.0
        self.held: StreamBuffer = StreamBuffer()
        self._client = client
        self._stream = stream
        self._early: deque[Any] = deque()  # read before it was known which run they are of
        self.is_open: bool = False
        self.owes: bool = False
        self.missing: APIError | None = None
        self._ref: RunRef | None = None
        self._completing = asyncio.Lock()
        self._is_unstreamed = False  # whether outputs were answered with the run, and not with a stream
        self._refused: set[int] = set()  # the ways to open a stream again that this server does not have
        self._attempts = 0  # to open a stream again, since the last event that told more than a status
        self._number: int | None = None  # of the last event before that
        self._gave_up: APIError | None = None  # with which the server gave the stream up
        self._opened_at = 0.0
        self._is_behind = False  # whether what it tells is old, but for an end
        self._full_since = math.inf
        self._is_held_up = False  # by who reads slowly
        self._awaiting: anyio.CancelScope | None = None  # the first word of an answer
        self._asks = False  # whether it told last that the run waits for outputs
        self._over: anyio.Event
        self._reading: anyio.CancelScope

    async def begin(self, ids: Mapping[str, str], within: float | None = None) -> RunRef:
        """Read until the stream tells which run it is of, and give its name. If that fails, the stream is closed.

        Raises:
            APIError: It ended before, or told nothing within so many seconds.
            InvalidRequestError: Another watch follows it, or it is not of the run with these ids.
        """
        self._stream.claim()
        self._opened()
        try:
            began = loop_time()
            run = self._stream.resource
            if run is None and self._stream.ref is not None:
                return self._named(self._client.dialect.identify(self._stream.ref, ids))
            if run is None:
                run = await self._first_word(within)
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
        """Send outputs, so that the answer is a stream; give what its first word is, as an answer to a submit.

        An answer that is no stream is as good. Safe to cancel; the server may then have acted or not.
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
            # Where a poll can tell as well, a stream that says nothing is not waited for.
            run = await self._first_word(within=SILENCE_S if dialect.shows_submits else None)
            snapshot = self._snapshot(run)
            if snapshot.ref is not None:
                self._ref = dialect.identify(snapshot.ref, {})  # it is watched from now on
        except APIError as error:
            if (refusal := self._refused_by(error, request)) is not None:
                self._early.clear()
                await self._break_off()
                return Refused(loop_time(), refusal, Asked.SUBMIT)
            # What it told so far, and what it still tells, is read all the same.
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
        """Return what it means that a stream begins with an error, if that says that nothing was done; else None.

        Such a server would have refused the request with a status, had it known before.
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
        self.heard_at = self._opened_at = loop_time()
        self._attempts = 0
        self._over, self._reading = anyio.Event(), anyio.CancelScope()

    async def _first_word(self, within: float | None) -> R:
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
        raise self._stream.untold()

    def hasten(self) -> bool:
        """Wait no longer for the first word of an answer, since the run has ended; tell whether one did."""
        if self._awaiting is None:
            return False
        self._awaiting.cancel()
        return True

    def _snapshot(self, run: R) -> Snapshot[R]:
        snapshot = redacted(self._client.dialect.snapshot(run), self._stream.redact)
        return replace(snapshot, server_time=self._stream.server_time)

    async def read(self, tell: Callable[[Event], object]) -> None:
        """Read the stream to its end, and give each event to who reads.

        Safe to cancel: it is closed then; the run goes on at the server.

        Args:
            tell: Takes what the stream tells of the run. Must not wait.
        """
        cause: APIError | None = None
        try:
            with self._reading:
                cause = await self._read_on(tell)
                while not self._stream.progress.has_ended and await self._reopen(tell, cause):
                    cause = await self._read_on(tell)
        finally:
            self.is_open = False
            self.owes = self._is_unstreamed or not self._stream.progress.is_whole
            try:
                await self._stream.close()
            finally:
                self._over.set()  # and then its end is told at once, before the next stream begins
        tell(StreamEnded(loop_time(), cause))

    async def _read_on(self, tell: Callable[[Event], object]) -> APIError | None:
        """Read the stream that is open to its end; return the error that it broke with."""
        self._gave_up = None
        try:
            while self._early:
                await self._give(self._early.popleft(), tell)
            while (event := await self._next(tell)) is not None:
                await self._give(event, tell)
        except APIError as error:
            return error
        return self._gave_up

    async def _reopen(self, tell: Callable[[Event], object], cause: APIError | None) -> bool:
        """Open the stream again where it broke; tell whether that was done.

        At first nothing is told, since nothing is missing if it succeeds at once. Each event that is new, and tells
        more than a status, gives the attempts anew: a stream that is cut each time must not be opened without end.
        """
        self.is_open = False
        is_told = False
        while self._stream.is_streamed and self._attempts < len(REOPEN_PAUSES_S):
            if not self._ways:
                return False
            if pause := REOPEN_PAUSES_S[self._attempts]:
                tell(StreamEnded(loop_time(), cause))
                is_told = True
                await anyio.sleep(pause)
            self._attempts += 1
            if await self._open_again(tell):
                self.is_open = True
                if is_told:
                    tell(StreamBegun(loop_time()))
                return True
        return False

    @property
    def _ways(self) -> list[tuple[int, Request]]:
        """The requests that may open the stream again, each with its number."""
        if self._ref is None or self._stream.progress.is_whole:
            return []
        requests = self._client.dialect.reopen(self._ref, self._stream.sequence_number)
        return [(way, request) for way, request in enumerate(requests) if way not in self._refused]

    async def _open_again(self, tell: Callable[[Event], object]) -> bool:
        asked_at = loop_time()
        for way, request in self._ways:
            request = accepting(request)
            try:
                answer = await self._client.transport.stream(request)
                body = answer if isinstance(answer, ByteStream) else events_of(answer)
                if isinstance(answer, Response) and (body is None or answer.status >= 300):
                    self._was_answered(way, request, answer, asked_at, tell)
                    continue
            except APIError:  # no answer, or a bad one, which may pass
                continue
            if body is not None:
                self._number = self._stream.sequence_number
                self._stream.reopen(request, body)
                return True
        return False

    def _was_answered(
        self, way: int, request: Request, answer: Response, asked_at: float, tell: Callable[[Event], object]
    ) -> None:
        """Take notice of an answer that is no stream: the run as it is, or a refusal.

        Raises:
            APIResponseValidationError: It is neither.
        """
        dialect = self._client.dialect
        if answer.status < 300:
            snapshot = dialect.read(request, answer)
            if snapshot.ref in (None, self._ref):
                self._refused.add(way)
                tell(Observed(loop_time(), snapshot, asked_at=asked_at))
            return
        kind = dialect.refusal(request, answer).kind
        may_lag = kind is RefusalKind.NOT_FOUND and asked_at - self._opened_at < STREAM_LAG_S
        if not kind.passes and not may_lag:
            self._refused.add(way)

    async def _next(self, tell: Callable[[Event], object]) -> Any:
        asked_at = loop_time()
        event = await self._stream.next_event()
        if event is None:
            return None
        now = loop_time()
        error, run = self._stream.error_in(event), self._stream.run_in(event)
        if self._stream.is_known(event):  # a server that is stuck may still send its pings
            self.heard_at = now
            if run is None and error is None and self._tells_more(event):
                self._attempts = 0
        if run is not None:
            snapshot = self._snapshot(run)
            self._asks = snapshot.phase is Phase.NEEDS_CALLER
            if snapshot.phase.is_terminal or not self._is_behind:
                tell(Observed(now, snapshot, asked_at=asked_at))
        elif error is not None:
            self._gave_up = error
            if not self._ways:
                tell(StreamEnded(now, error))
        return event

    def _tells_more(self, event: Any) -> bool:
        """Whether an event tells what was not told before the stream was opened; many a gateway adds a `[DONE]`."""
        return bool(self._stream.text_in(event)) or self._stream.sequence_number != self._number

    async def _give(self, event: Any, tell: Callable[[Event], object]) -> None:
        if self.held.is_full:  # as by one read of the socket, before who reads has its turn
            self._is_held_up = True
            now = loop_time()
            self._full_since = min(self._full_since, now)
            with anyio.move_on_after(self._full_since + BEHIND_S - now):
                await self.held.room()
            if self.held.is_full:
                self._is_behind = True
                tell(StreamEnded(loop_time()))
        elif self.held.is_low:
            self._full_since = math.inf
        if (rest := self._stream.rest_in(event)) is not None:
            await self.held.put(rest)
        await self.held.put(event)
        if self._is_held_up:
            self._is_held_up, self.heard_at = False, loop_time()  # the silence was not the stream's

    async def may_ask(self, tell: Callable[[Event], object], snapshot: Snapshot[R] | None) -> bool:
        """Wait a little for the stream's end; tell whether another can be asked for. If not, polls tell from now on."""
        if self._silent_for >= SILENCE_S or not self.is_open:
            self._reading.cancel()
        with anyio.move_on_after(TAIL_S):
            await self._over.wait()
        if self._asks and not self._over.is_set() and self._silent_for >= TAIL_S:
            self._reading.cancel()  # it said all that it has to say; some servers leave it open
            await self._over.wait()
        if not self._over.is_set():
            self._is_behind = self._is_unstreamed = True
            tell(StreamEnded(loop_time()))
            return False
        await self.complete(snapshot)  # before the next one tells of what follows
        return True

    async def complete(self, snapshot: Snapshot[R] | None) -> None:
        """Give the reader the text that the run has and no event told of.

        Safe to cancel; what is missing then is not told of.

        Args:
            snapshot: The run where it has ended, or waits for the caller; None where the watch gave it up.
        """
        async with self._completing:
            if self.owes and not self.held.is_let_go:
                try:
                    for event in await self._rest_of(snapshot):
                        self.held.add(event)
                except APIError as error:
                    self.missing = error
            self.owes = False

    async def _rest_of(self, snapshot: Snapshot[R] | None) -> Sequence[Any]:
        """Return events with the text that is missing.

        Raises:
            APIConnectionError: It can't be had, or does not fit what was told.
        """
        ref = self._ref
        if snapshot is None or ref is None:
            message = f"The watch of {ref} gave up before the run had ended, so that its text may not be whole"
            raise APIConnectionError(f"{message}; the outcome says why.", sent=True)
        cause: APIError | None = None
        try:
            with anyio.move_on_after(REST_S):
                if (rest := await self._rest_in(snapshot, ref)) is not None:
                    return rest
        except APIError as error:
            cause = error
        message = f"The stream of {ref} broke, and what is missing of its text could not be had, or does not fit it"
        raise APIConnectionError(
            f"{message}; the outcome's text() and messages() have what the server has.", sent=True
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
        """Read on after the run's end, until the stream ends, or says nothing any more."""
        over, reading = self._over, self._reading
        while not over.is_set():
            with anyio.move_on_after(max(SILENCE_S - self._silent_for, TAIL_S)):
                await over.wait()
            if self._silent_for >= SILENCE_S:
                reading.cancel()

    @property
    def _silent_for(self) -> float:
        """For how many seconds nothing came. Who reads slowly lets nothing come, and the stream is not silent then."""
        return 0.0 if self._is_held_up else loop_time() - self.heard_at

    @property
    def is_read(self) -> bool:
        """Whether a stream has not come to its end."""
        return not self._over.is_set()

    @property
    def is_wanted(self) -> bool:
        """Whether there is more to read, and somebody may want it."""
        return (self.is_read or self.owes) and not self.held.is_let_go

    def text_in(self, event: Any) -> str:
        """Give the piece of text that an event adds to an answer, or ""."""
        return self._stream.text_in(event)

    async def close(self) -> None:
        """Stop reading; who reads what is held gets it, and then comes to an end. May be called twice."""
        self.is_open = False
        self.held.finish()
        await self._stream.close()

    def stop(self) -> None:
        """Read no further: the watch gave the run up, and who reads shall not wait for it longer."""
        self._reading.cancel()
