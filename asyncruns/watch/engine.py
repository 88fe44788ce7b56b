"""Executes the commands of one run's lifecycle: polls, submits, cancels, starts tools, and wakes the machine on time.

Theory of operation. The machine (`lifecycle/machine.py`) decides and never acts; the engine acts and never decides.
Every answer, tool output and tick is an event; `receive` passes it to the machine and performs the commands that it
returns. Three kinds of work run:

- One task polls, one poll after the other: `_work` waits until a poll is due, sends it, and waits again.
- Tools, submits, cancels and the reader of a stream are children of that task, in one task group.
- One timer of the loop sends the machine a `Tick` at the time that it asked for (`wake_at`).

A submit or a cancel in flight is not cut off while the run goes on: its scope is shielded, and gets a deadline when the
watch is left. Once the run has ended, its answer does not matter, and it is cancelled.
When the task group was cancelled from outside (as `asyncio.run` does at its end) and the run is still to be cancelled,
`run` opens a new group and continues there, for at most 5 s.

The engine must not know callers and observers: it only calls `on_notice` and `on_end`.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar, assert_never

import anyio
import anyio.abc

from asyncruns._loop import LEAVING_GRACE_S, admitted, loop_time, wake
from asyncruns._private import load_anyio_backend
from asyncruns.abc import RunClient, WatchTrace
from asyncruns.errors import APIConnectionError
from asyncruns.http import Request
from asyncruns.lifecycle import (
    Asked,
    Begun,
    Cancel,
    CancelAsked,
    Command,
    End,
    EndKind,
    Event,
    Finish,
    Notice,
    Observed,
    PollAt,
    Refusal,
    RefusalKind,
    Refused,
    Report,
    RunLifecycle,
    RunRef,
    RunTools,
    Snapshot,
    StopTools,
    StreamBegun,
    Submit,
    Tick,
)
from asyncruns.user_code import ANSWERING
from asyncruns.watch.call_answerer import CallAnswerer, facts_of
from asyncruns.watch.logs import WATCH_LOG, log_poll
from asyncruns.watch.recorder import WatchRecorder
from asyncruns.watch.requests import followed, send_for_event
from asyncruns.watch.stream_follower import StreamFollower

R = TypeVar("R")

load_anyio_backend()


class Engine(Generic[R]):
    """The shell around one machine.

    Args:
        client: The transport that requests are sent with, and the dialect that makes and reads them.
        ref: The run.
        machine: The run's lifecycle, not begun yet.
        answering: Answers tool calls; its events must be passed to `receive`.
        following: Reads the streams of the run; None if it is only polled.
        cancels_on_exit: Whether a run that goes on is cancelled when its watch stops, for whatever reason.
        on_notice: Called with each notice for observers. Must not wait.
        on_end: Called with the end of the watch, and with None when the watch is resumed. Must not wait.
        on_read: Called when the streams of the run were read to their end. Must not wait.

    Attributes:
        ref: The run that is watched; it changes at servers where a submit creates a new run.
        refs: All runs that were watched, oldest first.
        polls: Number of polls sent.
        entered: The task that entered the watch, which no tool or handler may await.
        is_cancel_asked: Whether the run is to be cancelled as soon as the work begins.
        is_running: Whether events from outside are accepted.
    """

    def __init__(
        self,
        client: RunClient[R],
        ref: RunRef,
        machine: RunLifecycle,
        answering: CallAnswerer,
        following: StreamFollower[R] | None = None,
        *,
        cancels_on_exit: bool = False,
        on_notice: Callable[[Notice], object],
        on_end: Callable[[End | None], object],
        on_read: Callable[[], object],
    ) -> None:
        self._client = client
        self.ref: RunRef = ref
        self.refs: tuple[RunRef, ...] = (ref,)
        self._machine = machine
        self._answering = answering
        self._following = following
        self._recorder: WatchRecorder | None = None
        self._trace: WatchTrace | None = None
        self._on_notice, self._on_end, self._on_read = on_notice, on_end, on_read
        self._poll_at = math.inf
        self._if_silent = 0.0  # the poll is only due if the stream has been silent for this many seconds
        self._poll_moved: asyncio.Future[None] | None = None
        self._polls_again = False  # whether a poll was wanted while one was in flight
        self._tick_at = math.inf
        self._tick_timer: asyncio.TimerHandle | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._failure: Exception | None = None  # raised in a tick, whose task nothing awaits; `run` raises it
        # The scope of each submit and cancel in flight, with the follower if the answer may be a stream.
        self._changing: dict[anyio.CancelScope, StreamFollower[R] | None] = {}
        self._polling: anyio.CancelScope | None = None
        self._leave_by = math.inf
        self._cancels_on_exit = cancels_on_exit
        self._cancels = False  # whether the run is to be cancelled when the work begins, or continues
        self._has_begun = False
        self._cut_off: list[Asked] = []  # submits and cancels whose tasks were cancelled from outside
        self._closing = False
        self._task: asyncio.Task[Any] | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self.polls: int = 0
        self.entered: asyncio.Task[Any] | None = None
        self.is_cancel_asked: bool = False

    def entered_by(self, task: asyncio.Task[Any] | None, context: Context) -> None:
        """Record which task enters the watch, and the context variables that its tools and handlers see."""
        self.entered = task
        self._answering.use(context, owners=(self, ANSWERING))

    def begin_with(self, ref: RunRef, refs: tuple[RunRef, ...] = ()) -> None:
        """Set the run to watch, and all runs of the watch if it has others, before `run` is called."""
        self.ref, self.refs = ref, refs or (ref,)

    def record_with(self, recorder: WatchRecorder) -> None:
        """Set what writes down calls and submits, before `run` is called."""
        self._recorder = recorder
        self._answering.record_with(recorder, self._machine.policy.max_outage)

    def follow_with(self, trace: WatchTrace | None) -> None:
        """Set what follows the watch from now on."""
        self._trace = trace
        self._answering.follow_with(trace)

    async def run(self, given: Snapshot[R] | None, begun: asyncio.Future[None]) -> None:
        """Watch until the run has ended, or until the watch is left.

        Safe to cancel: tools are stopped, and a pending submit or cancel is awaited until the deadline set by `leave`.
        With `cancels_on_exit`, the run is cancelled before this returns, which takes at most 5 s. This also holds at
        the end of `asyncio.run`, which cancels every task, including those of this engine's requests.

        Args:
            given: The run as the caller's object shows it; None to poll first.
            begun: Gets its result as soon as events are accepted.
        """
        self._task = asyncio.current_task()
        begin = partial(self._begin, given, begun)
        while True:
            try:
                if not self._has_begun:
                    await admitted()
                await self._work(self._go_on if self._has_begun else begin)
            except asyncio.CancelledError:
                if self._task is None or not self._outlasts():
                    raise
                self._task.uncancel()  # it is handled: the next task group must not count it
            else:
                if self._is_done() or not self._outlasts():
                    break
        if self._failure is not None:
            raise self._failure

    async def _work(self, begin: Callable[[], object]) -> None:
        try:
            async with anyio.create_task_group() as self._group:
                self._closing = False
                try:
                    begin()
                    while not self._is_done():
                        await self._until_poll()
                        await self._poll()
                finally:
                    self._close()
                self._group.cancel_scope.cancel()
        finally:
            self._group = None

    def _begin(self, given: Snapshot[R] | None, begun: asyncio.Future[None]) -> None:
        self._has_begun = True
        wake(begun)
        self.receive(Begun(loop_time(), given))
        if self._following is not None and self._group is not None:
            self._begin_to_read(self._following, self._group)
        if (self._cancels or self.is_cancel_asked) and not self.is_over:
            self.receive(CancelAsked(loop_time(), self._leave_by))

    def _outlasts(self) -> bool:
        """Return whether to continue and cancel the run, although a task of this engine was cancelled from outside."""
        is_wanted = (self._cancels_on_exit or self._machine.is_cancelling) and not self.is_over
        may_go_on = loop_time() < self._leave_by and anyio.current_effective_deadline() > -math.inf
        if not is_wanted or not may_go_on or self._failure is not None:
            return False
        self._leave_by = min(self._leave_by, loop_time() + LEAVING_GRACE_S)
        self._cancels = True
        return True

    def _go_on(self) -> None:
        """Cancel the run in a new task group; the requests of the old one were cut off, so their answers are lost."""
        cut_off, self._cut_off = self._cut_off, []
        for asked in cut_off:
            cause = APIConnectionError("The request was cut off: its task was cancelled", sent=True)
            self.receive(Refused(loop_time(), Refusal(kind=RefusalKind.LOST, cause=cause), asked))
        if not self.is_over:
            self.receive(CancelAsked(loop_time(), self._leave_by))
        self._schedule_poll(loop_time())

    def _begin_to_read(self, following: StreamFollower[R], group: anyio.abc.TaskGroup) -> None:
        self.receive(StreamBegun(loop_time()))
        if following.first is not None:
            self.receive(following.first)
        elif self._machine.snapshot is None:  # the stream was read in part before, and only its ref is known
            self._schedule_poll(loop_time())
        group.start_soon(self._read, following)

    def _close(self) -> None:
        """Start nothing new, and stop tools; pending submits and cancels are still awaited."""
        self._closing = True
        self._answering.stop()
        self._set_tick(math.inf)

    def receive(self, event: Event) -> None:
        """Pass an event to the machine, and perform the commands that it returns. Does nothing unless `run` is active.

        Raises:
            InvalidRequestError: The event is impossible, such as an output for an unknown call; nothing was done.
        """
        if self._group is None:
            return
        had_ended = self._machine.end is not None
        commands = self._machine.receive(event)
        if had_ended and self._machine.end is None:
            if self._following is not None:
                self._following.held.reopen()
            self._on_end(None)
        for command in commands:
            self._perform(command, self._group)
        if not self._closing:
            self._set_tick(self._machine.wake_at)
        if self._is_done():
            self._stop()

    def leave(self, *, by: float, cancel: bool) -> None:
        """Stop watching: at once if the run is left as it is, else when it has ended, cannot be cancelled, or at `by`.

        Args:
            by: When to stop waiting for a pending submit or cancel, by the loop's clock.
            cancel: Whether to cancel a run that goes on.
        """
        self._leave_by = min(by, self._leave_by)
        self._cancels = self._cancels or cancel
        for scope in self._changing:
            scope.deadline = self._leave_by
        if (cancel or self._machine.is_cancelling) and not self.is_over:
            self.receive(CancelAsked(loop_time(), self._leave_by))
        if self._is_done():
            self._stop()

    def poll_now(self) -> None:
        """Send the planned poll at once; after a poll in flight, unless that shows the end."""
        if self._poll_at < math.inf:
            self._schedule_poll(loop_time())
        elif self._machine.end is None:
            self._polls_again = True

    @property
    def is_running(self) -> bool:
        """Whether events from outside are accepted: `run` has begun, and is not closing."""
        return self._group is not None and not self._closing

    @property
    def is_over(self) -> bool:
        """Whether the run has ended. A watch that finished before its run can be resumed until it is left."""
        end = self._machine.end
        return end is not None and end.kind.is_final

    def _is_done(self) -> bool:
        """Whether there is nothing left to wait for.

        While the caller stays, that is when the run has ended and its stream is read to the end. Once the caller
        leaves, it is when no cancel is pending. A failed tick ends both.
        """
        may_leave = self._leave_by < math.inf and not self._machine.is_cancelling
        is_read = self._following is not None and self._following.is_wanted
        return (self.is_over and not is_read) or may_leave or self._failure is not None

    def _stop(self) -> None:
        # The engine's own task checks `_is_done` after each step; cancelling it here would interrupt that step.
        if self._group is not None and asyncio.current_task() is not self._task:
            self._group.cancel_scope.cancel()

    # Time

    async def _until_poll(self) -> None:
        """Wait until the next poll is due; `_schedule_poll` may move that time while this waits."""
        loop = asyncio.get_running_loop()
        while (poll_at := self._due_at) > loop.time():
            self._poll_moved = moved = loop.create_future()
            timer = None if poll_at == math.inf else loop.call_at(poll_at, wake, moved)
            try:
                await moved
            finally:
                self._poll_moved = None
                if timer is not None:
                    timer.cancel()
            # The timer has fired, possibly early by the clock's resolution. Do not compare with the clock again: that
            # would mean one more wait.
            if self._due_at == poll_at < math.inf:
                return

    @property
    def _due_at(self) -> float:
        if not self._if_silent or self._following is None:
            return self._poll_at
        return max(self._poll_at, self._following.heard_at + self._if_silent)

    def _set_tick(self, at: float) -> None:
        if at == self._tick_at:
            return
        self._tick_at = at
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        self._tick_timer = None if at == math.inf else asyncio.get_running_loop().call_at(at, self._tick)

    def _tick(self) -> None:
        # A task group can't start tasks from a callback of the loop, so the tick has a task, which ends at once.
        now = max(loop_time(), self._tick_at)  # a timer may be early by the clock's resolution
        self._ticking = asyncio.create_task(self._ticked(now), name=f"asyncruns tick {self.ref}")

    async def _ticked(self, now: float) -> None:
        self._set_tick(math.inf)
        try:
            self.receive(Tick(now))
        except Exception as error:
            self._failure = error
            self._stop()

    def _schedule_poll(self, at: float, if_silent: float = 0.0) -> None:
        self._poll_at, self._if_silent = at, if_silent
        if self._poll_moved is not None:
            wake(self._poll_moved)

    # Commands

    def _perform(self, command: Command, group: anyio.abc.TaskGroup) -> None:
        if self._closing and isinstance(command, PollAt | RunTools | Submit):
            return
        match command:
            case PollAt(not_before, not_after, if_silent):
                self._schedule_poll(random.uniform(not_before, not_after), if_silent)  # noqa: S311 - only spreads polls
                if self._polls_again:
                    self._polls_again = False
                    self._schedule_poll(loop_time())
            case RunTools(calls):
                self._answering.begin(calls, group, facts_of(self.ref, self._machine))
            case StopTools(approvals):
                self._answering.stop(approvals=approvals)
            case Submit(answers, snapshot, keep):
                request = self._client.dialect.submit(self.ref, snapshot, answers, keep_tool_choice=keep)
                if self._recorder is not None:
                    self._recorder.will_submit(answers)
                group.start_soon(self._change, request, Asked.SUBMIT)
            case Cancel():
                group.start_soon(self._change, self._client.dialect.cancel(self.ref), Asked.CANCEL)
            case Report(notice):
                self._on_notice(notice)
            case Finish(end):
                self._answering.stop()
                self._schedule_poll(math.inf)
                if self.is_over:
                    for scope, following in self._changing.items():  # the run has ended: their answers don't matter
                        if following is None or not following.hasten():
                            scope.cancel()
                if self._following is not None:
                    if end.kind is EndKind.GAVE_UP:
                        self._following.stop()
                    group.start_soon(self._read_out, self._following, end)
                self._on_end(end)
            case _:
                assert_never(command)

    # Requests

    async def _poll(self) -> None:
        self._poll_at = math.inf
        with anyio.CancelScope() as self._polling:
            event = await self._ask(self._client.dialect.poll(self.ref), Asked.POLL)
            if self._trace is not None:
                self._trace.polled(event)
            self.receive(event)

    async def _change(self, request: Request, asked: Asked) -> None:
        following = self._following if asked is Asked.SUBMIT else None
        # Shielded: a caller that leaves now still waits for the answer, at most until `_leave_by`. Otherwise it would
        # not be known whether the submit or cancel had its effect.
        with anyio.CancelScope(shield=True, deadline=self._leave_by) as scope:
            self._changing[scope] = following
            is_cut_off = True
            try:
                if following is None or not await following.may_ask(self.receive, self._machine.snapshot):
                    following = None
                send = partial(self._send_change, request, asked, following)
                if self._trace is not None:
                    send = partial(followed, self._trace, asked, send)
                if self._recorder is None:
                    event = await send()
                else:
                    shows = self._client.dialect.shows_submits
                    event = await self._recorder.change(asked, send, may_be_lost=not shows)
                is_cut_off = False
            finally:
                del self._changing[scope]
                if is_cut_off and not scope.cancel_called:
                    self._cut_off.append(asked)
            if isinstance(event, Observed) and self._polling is not None:
                # That poll may show the run as it was before this request; `receive` below schedules a new poll.
                self._polling.cancel()
            if asked is Asked.SUBMIT and isinstance(event, Observed) and event.snapshot.ref is not None:
                self._follow(event.snapshot.ref)
            self.receive(event)
            if following is not None and following.is_open and isinstance(event, Observed):
                self.receive(StreamBegun(loop_time()))
        if following is not None and following.is_read and not scope.cancelled_caught:
            await self._read(following)

    async def _send_change(
        self, request: Request, asked: Asked, following: StreamFollower[R] | None
    ) -> Observed | Refused:
        if following is None:
            return await self._ask(request, asked)
        event = await following.ask(request)
        log_poll(WATCH_LOG, self.ref, event)
        return event

    async def _read(self, following: StreamFollower[R]) -> None:
        await following.read(self._hear)
        self._was_read(following)

    async def _read_out(self, following: StreamFollower[R], end: End) -> None:
        await following.end_in_silence()
        await following.complete(None if end.kind is EndKind.GAVE_UP else end.snapshot)
        self._was_read(following)

    def _was_read(self, following: StreamFollower[R]) -> None:
        if self._machine.end is not None and not following.is_read and not following.owes:
            following.held.finish()
            self._on_read()
        if self._is_done():
            self._stop()

    def _hear(self, event: Event) -> None:
        if isinstance(event, Observed) and self._polling is not None:
            self._polling.cancel()  # it was sent before this event, and may show an older state of the run
        self.receive(event)

    def _follow(self, ref: RunRef) -> None:
        """Watch the run that a submit returned, if it is a new one."""
        if ref != self.ref:
            self.ref = ref
            self.refs = (*self.refs, ref)

    async def _ask(self, request: Request, asked: Asked) -> Observed | Refused:
        await admitted()
        self.polls += asked is Asked.POLL
        event = await send_for_event(self._client, request, asked)
        log_poll(WATCH_LOG, self.ref, event)
        return event
