"""Reads the streams of one run of a fleet: what they show goes to the lifecycle, their text to subscribers.

While the stream reports the run, polls only check its silence, so they are planned here, by a timer that each event
puts off, and not in the schedule. The requests of streams, other than the submits that open them, need no budget: an
open stream holds a connection, and no place among the requests in flight.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from asyncruns._loop import loop_time
from asyncruns.abc import RunClient
from asyncruns.fleet.listener import Listener
from asyncruns.http import Request
from asyncruns.lifecycle import End, EndKind, Event, Observed, Refused, RunLifecycle, RunRef, StreamBegun, TextAdded
from asyncruns.watch.observers import E, Ended
from asyncruns.watch.stream_follower import TAIL_S, StreamFollower
from asyncruns.watch.subscribers import TextSoFar

if TYPE_CHECKING:
    from asyncruns.streams.source import EventSource


class StreamedMember(Protocol):
    """The run, as its stream sees it."""

    machine: RunLifecycle
    listeners: tuple[Listener, ...]
    is_polling: bool

    def receive_safely(self, event: Event) -> None:
        """Pass an event to the lifecycle."""
        ...

    def discard_poll(self) -> None:
        """Discard the response to the poll in flight."""
        ...

    def plan_poll(self, at: float) -> None:
        """Plan the next poll, unless the watch has finished."""
        ...

    def broke(self, error: Exception) -> None:
        """Finish the watch because of an unexpected error."""
        ...

    @property
    def group(self) -> anyio.abc.TaskGroup | None:
        """The task group of the fleet; None if it is not running."""
        ...

    def stamped(self, event: E) -> E:
        """Return an event with the time, the ref of the run, and what the caller gave as `context=`."""
        ...


class MemberStream:
    """The streams of one run.

    Args:
        member: The run.
        client: Opens the next streams, and fetches text that is missing.
        source: The source of the first stream.
        on_read: Called when subscribers have been told how the watch ended. Must not wait.

    Attributes:
        text: The text so far.
        has_started: Whether the stream is read, or was.
    """

    def __init__(
        self,
        member: StreamedMember,
        client: RunClient[Any],
        source: EventSource[Any, Any],
        on_read: Callable[[], object],
    ) -> None:
        self._member = member
        self._on_read = on_read
        self._following: StreamFollower[Any] = StreamFollower(client, source, self)
        self._timer: asyncio.Handle | None = None
        self._ended: Ended[Any] | None = None
        self._owed: tuple[Listener, ...] = ()  # the listeners whose subscribers are still to be told of the end
        self._is_closed = False
        self._is_streamed = False  # whether the answer to the last submit is a stream
        self.text: TextSoFar = TextSoFar()
        self.has_started: bool = False
        self._following.claim()

    # What the follower tells

    def __bool__(self) -> bool:
        """Whether there are subscribers."""
        return any(listener.has_subscribers for listener in self._listeners)

    def add_text(self, text: str) -> None:
        """Pass on a piece of text."""
        self.text.parts.append(text)
        if self:
            event = self._member.stamped(TextAdded(text=text))
            for listener in self._listeners:
                listener.tell_subscribers(event)

    def lose_text(self) -> None:
        """Note that a part of the text is missing, and will not come."""
        self.text.is_whole = False
        for listener in self._listeners:
            listener.restate()

    @property
    def _listeners(self) -> tuple[Listener, ...]:
        return self._owed or self._member.listeners

    # Beginning and reading

    async def begin(self, ids: Mapping[str, str], within: float | None) -> RunRef:
        """Read until the stream names its run, and return the ref; `StreamFollower.begin` describes the rest."""
        ref = await self._following.begin(ids, None if within is None else max(within, TAIL_S))
        self._following.held.discard()
        return ref

    @property
    def given(self) -> Any:
        """The run as the stream had shown it before it was handed over, or None."""
        return self._following.given

    def start(self, member: StreamedMember, group: anyio.abc.TaskGroup) -> None:
        """Read on, in a task of the group, for a member that has begun, or that watched the run already."""
        self._member, self.has_started = member, True
        self._member.receive_safely(StreamBegun(loop_time()))
        if self._following.first is not None:
            self._member.receive_safely(self._following.first)
        elif self._member.machine.snapshot is None:  # the stream was read in part before, and only its ref is known
            self._member.plan_poll(loop_time())
        group.start_soon(self._read)

    async def _read(self) -> None:
        try:
            await self._following.read(self._hear)
        except Exception as error:  # unexpected, and it must not end the other watches
            self._member.broke(error)
        if self._ended is not None and not self._following.is_wanted:
            self._tell_end(self._ended)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Observed) and self._member.is_polling:
            self._member.discard_poll()  # it was sent before this event, and may show an older state of the run
        self._member.receive_safely(event)

    def poll_at(self, at: float, if_silent: float) -> float:
        """Return when to plan a poll that the lifecycle wants.

        If it is to be sent only when the stream has been silent for so many seconds, that is never: it is planned here
        when that is so.
        """
        self.forget_poll()
        if not if_silent:
            return at
        self._poll_if_silent(at, if_silent)
        return math.inf

    def _poll_if_silent(self, at: float, if_silent: float) -> None:
        loop = asyncio.get_running_loop()
        due_at = max(at, self._following.heard_at + if_silent)
        if due_at > loop.time():
            self._timer = loop.call_at(due_at, self._poll_if_silent, at, if_silent)
        else:  # not within this call: the member plans what `poll_at` returns after it
            self._timer = loop.call_soon(self._poll_now)

    def _poll_now(self) -> None:
        self._member.plan_poll(loop_time())

    def forget_poll(self) -> None:
        """Plan no poll."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Submits

    async def submit(self, request: Request) -> Observed | Refused | None:
        """Submit outputs so that the answer is a stream; return None if it can't be one, and nothing was sent."""
        self._is_streamed = await self._following.may_ask(self._member.receive_safely, self._member.machine.snapshot)
        if not self._is_streamed:
            return None
        return await self._following.ask(request)

    def submitted(self, event: Observed | Refused) -> None:
        """Read the stream that a submit has opened, if it has; the member has received its first event."""
        if not self._is_streamed:
            return
        if self._following.is_open and isinstance(event, Observed):
            self._member.receive_safely(StreamBegun(loop_time()))
        if self._following.is_read and self._member.group is not None:
            self._member.group.start_soon(self._read)

    def hasten(self) -> bool:
        """Stop waiting for the first event of a stream that a submit opens; return whether one was awaited."""
        return self._following.hasten()

    # The end

    @property
    def is_wanted(self) -> bool:
        """Whether subscribers are still to be told the rest of the text, and the end."""
        return self._ended is not None and self._following.is_wanted

    def finish(self, end: End, ended: Ended[Any]) -> None:
        """Read out the streams; subscribers are told the end after that."""
        self.forget_poll()
        self._ended, self._owed = ended, self._member.listeners
        group = self._member.group
        if not self.has_started or self._is_closed or group is None:
            self._tell_end(ended)
            return
        if end.kind is EndKind.GAVE_UP:
            self._following.stop()
        group.start_soon(self._read_out, end, ended)

    @property
    def owes_end(self) -> bool:
        """Whether subscribers are still to be told the end."""
        return self._ended is not None

    def reopened(self) -> None:
        """Note that the watch goes on: subscribers that were not told its end yet need not know of it."""
        self._ended, self._owed = None, ()

    async def _read_out(self, end: End, ended: Ended[Any]) -> None:
        try:
            await self._following.end_in_silence()
            await self._following.complete(None if end.kind is EndKind.GAVE_UP else end.snapshot)
        except Exception as error:  # unexpected, and it must not end the other watches
            self._member.broke(error)
        finally:
            self._tell_end(ended)

    def _tell_end(self, ended: Ended[Any]) -> None:
        if self._ended is not ended:  # told already, or the watch was reopened
            return
        owed, self._ended, self._owed = self._owed, None, ()
        for listener in owed:
            listener.tell_subscribers(ended)
        self._on_read()

    def stop(self) -> None:
        """Read no more: nothing watches the run."""
        self.forget_poll()
        if self.has_started:
            self._following.stop()

    async def close(self) -> None:
        """Close the stream. May be called twice."""
        self._is_closed = True
        self.forget_poll()
        await self._following.close()
