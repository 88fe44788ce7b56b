"""Follows the streams of a watched run: what they tell of the run is for the machine, and each event for who reads.

There is one stream at a time: a run's ends where it waits for outputs, and the answer to these is the next. Events are
never dropped for a slow reader: some are held, and then the socket is not read. What such a stream tells of the run is
old by then, so the machine goes by looks until the next one; only an end is as good late as early.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import anyio
from msgspec.structs import replace

from asyncruns.abc import Connection, RunEvents
from asyncruns.asking import check_is_ours, loop_time, refusal_of
from asyncruns.dialects.errors import redacted
from asyncruns.errors import APIError, InvalidRequestError
from asyncruns.held import HELD_EVENTS, Held
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

R = TypeVar("R")

BEHIND_S: Final = 1.0  # so long there may be no room for events, then what they tell is old
TAIL_S: Final = 1.0  # so long outputs wait for the end of the stream that asked for them; mostly it is there at once


class Following(Generic[R]):
    """The streams of one watch.

    Args:
        connection: Where the next streams are asked for.
        stream: The first; nobody else may read it any more.

    Attributes:
        given: What the stream told before it was handed over, which may be old; or None.
        first: What it told since then, before the watch began; or None.
        heard_at: When it was opened, or the last event came that tells something, by the loop's clock.
        is_open: Whether a stream tells of the run.
        held: The events of all streams, for who reads them.
    """

    def __init__(self, connection: Connection[R], stream: RunEvents[R]) -> None:
        self.given: Snapshot[R] | None = None
        self.first: Observed | None = None
        self.heard_at: float = 0.0
        self.held: Held = Held()
        self._connection = connection
        self._stream = stream
        self._early: deque[Any] = deque()  # read before it was known which run they are of
        self.is_open: bool = False
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
                return self._connection.dialect.identify(self._stream.ref, ids)
            if run is None:
                run = await self._first_word(within)
                self.first = Observed(self.heard_at, self._snapshot(run), asked_at=began)
            else:
                self.given = self._snapshot(run)
            return self._connection.dialect.identify(run, ids)
        except BaseException:
            await self.close()
            raise

    async def ask(self, request: Request) -> Observed | Refused:
        """Send outputs, so that the answer is a stream; give what its first word is, as an answer to a submit.

        An answer that is no stream is as good. Safe to cancel; the server may then have acted or not.
        """
        asked_at = loop_time()
        request = self._stream.asking(request)
        dialect = self._connection.dialect
        try:
            answer = await self._connection.transport.stream(request)
            if isinstance(answer, Response):
                if not 200 <= answer.status < 300:
                    return Refused(loop_time(), dialect.refusal(request, answer), Asked.SUBMIT)
                return Observed(loop_time(), dialect.read(request, answer), Asked.SUBMIT, asked_at)
            self._stream.go_on(request, answer)
            self._opened()
            # Where a look can tell as well, a stream that says nothing is not waited for.
            run = await self._first_word(within=SILENCE_S if dialect.shows_submits else None)
            snapshot = self._snapshot(run)
            if snapshot.ref is not None:
                dialect.identify(snapshot.ref, {})  # it is watched from now on
        except APIError as error:  # what it told so far, and what it still tells, is read all the same
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

    async def _break_off(self) -> None:
        self.is_open = False
        self._over.set()
        await self._stream.close()

    def _opened(self) -> None:
        self.is_open, self._is_behind, self._full_since = True, False, math.inf
        self._is_held_up = self._asks = False
        self.heard_at = loop_time()
        self._over, self._reading = anyio.Event(), anyio.CancelScope()

    async def _first_word(self, within: float | None) -> R:
        try:
            with anyio.move_on_after(within) as self._awaiting:
                while len(self._early) < HELD_EVENTS and (event := await self._stream.next_event()) is not None:
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
        snapshot = redacted(self._connection.dialect.snapshot(run), self._stream)
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
                while self._early:
                    await self._give(self._early.popleft(), tell)
                while (event := await self._next(tell)) is not None:
                    await self._give(event, tell)
        except APIError as error:
            cause = error
        finally:
            self.is_open = False
            try:
                await self._stream.close()
            finally:
                self._over.set()  # and then its end is told at once, before the next stream begins
        tell(StreamEnded(loop_time(), cause))

    async def _next(self, tell: Callable[[Event], object]) -> Any:
        asked_at = loop_time()
        event = await self._stream.next_event()
        if event is None:
            return None
        now = loop_time()
        if self._stream.is_known(event):  # a server that is stuck may still send its pings
            self.heard_at = now
        if (run := self._stream.run_in(event)) is not None:
            snapshot = self._snapshot(run)
            self._asks = snapshot.phase is Phase.NEEDS_CALLER
            if snapshot.phase.is_terminal or not self._is_behind:
                tell(Observed(now, snapshot, asked_at=asked_at))
        elif (error := self._stream.error_in(event)) is not None:
            tell(StreamEnded(now, error))
        return event

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
        await self.held.put(event)
        if self._is_held_up:
            self._is_held_up, self.heard_at = False, loop_time()  # the silence was not the stream's

    async def may_ask(self, tell: Callable[[Event], object]) -> bool:
        """Wait a little for the stream's end; tell whether another can be asked for. If not, looks tell from now on."""
        if self._silent_for >= SILENCE_S:
            self._reading.cancel()
        with anyio.move_on_after(TAIL_S):
            await self._over.wait()
        if self._asks and not self._over.is_set() and self._silent_for >= TAIL_S:
            self._reading.cancel()  # it said all that it has to say; some servers leave it open
            await self._over.wait()
        if not self._over.is_set():
            self._is_behind = True
            tell(StreamEnded(loop_time()))
        return self._over.is_set()

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
        return self.is_read and not self.held.is_let_go

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
