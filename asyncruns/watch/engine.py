"""Does what the lifecycle of one run says: polls, submits and cancels, has calls answered, and wakes it in time.

It polls in its own task, one look after the other; tools, submits and cancels are children of that task; timers of the
loop wake the machine. It knows nothing of who waits for the end, and who looks on.
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
from asyncruns.abc import RunClient
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
from asyncruns.watch.call_answerer import CallAnswerer
from asyncruns.watch.logs import WATCH_LOG, log_poll
from asyncruns.watch.requests import send_for_event
from asyncruns.watch.stream_follower import StreamFollower

R = TypeVar("R")

load_anyio_backend()


class Engine(Generic[R]):
    """One machine, and what it needs to go.

    Args:
        client: Where requests go, and in which language.
        ref: The run.
        machine: Its lifecycle, before the beginning.
        answering: Has calls answered; its events are to be given to `receive`.
        following: Follows the streams of the run, where there is one.
        cancels_on_exit: Whether a run that goes on is cancelled when nobody watches it any more, for whatever reason.
        on_notice: Told what is to be reported. Must not wait.
        on_end: Told how the watch ended, and None when it is taken up again. Must not wait.

    Attributes:
        ref: What is watched; it changes at servers where a submit begins a new run.
        refs: All that were watched, in their order.
        polls: How many polls were sent.
        entered: The task that entered the watch, which no tool or handler may await.
        is_running: Whether events from outside are taken.
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
    ) -> None:
        self._client = client
        self.ref: RunRef = ref
        self.refs: tuple[RunRef, ...] = (ref,)
        self._machine = machine
        self._answering = answering
        self._following = following
        self._on_notice, self._on_end = on_notice, on_end
        self._poll_at = math.inf
        self._if_silent = 0.0  # for so many seconds the stream must have said nothing by then
        self._poll_moved: asyncio.Future[None] | None = None
        self._tick_at = math.inf
        self._tick_timer: asyncio.TimerHandle | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._failure: Exception | None = None  # of a tick, which its task has nobody to raise to
        self._changing: dict[anyio.CancelScope, StreamFollower[R] | None] = {}
        self._polling: anyio.CancelScope | None = None
        self._leave_by = math.inf
        self._cancels_on_exit = cancels_on_exit
        self._cancels = False  # who left before the beginning wants the run cancelled
        self._has_begun = False
        self._cut_off: list[Asked] = []  # requests whose tasks somebody cancelled
        self._closing = False
        self._task: asyncio.Task[Any] | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self.polls: int = 0
        self.entered: asyncio.Task[Any] | None = None

    def entered_by(self, task: asyncio.Task[Any] | None, context: Context) -> None:
        """Note which task enters the watch, and the context variables that its tools and handlers see."""
        self.entered = task
        self._answering.use(context, owners=(self, ANSWERING))

    def begin_with(self, ref: RunRef) -> None:
        """Watch this run; before the beginning."""
        self.ref, self.refs = ref, (ref,)

    async def run(self, given: Snapshot[R] | None, begun: asyncio.Future[None]) -> None:
        """Watch until the run has ended, or until it is left.

        Safe to cancel: tools are stopped; a submit or a cancel on its way is waited for, until the time that `leave`
        gives. With `cancels_on_exit`, the run is cancelled first, for some seconds at most: at the end of `asyncio.run`
        every task is cancelled, this one and those of its requests, too.

        Args:
            given: What the caller's object says.
            begun: Gets its result as soon as events are taken.
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
                self._task.uncancel()
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
        if self._cancels and not self.is_over:
            self.receive(CancelAsked(loop_time(), self._leave_by))

    def _outlasts(self) -> bool:
        """Tell whether the run is still to be cancelled, although somebody has cancelled a task of ours."""
        is_wanted = (self._cancels_on_exit or self._machine.is_cancelling) and not self.is_over
        may_go_on = loop_time() < self._leave_by and anyio.current_effective_deadline() > -math.inf
        if not is_wanted or not may_go_on or self._failure is not None:
            return False
        self._leave_by = min(self._leave_by, loop_time() + LEAVING_GRACE_S)
        self._cancels = True
        return True

    def _go_on(self) -> None:
        """Cancel the run, now that all that went on was cut off; answers that did not come are lost."""
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
        elif self._machine.snapshot is None:  # it was taken up in the middle
            self._schedule_poll(loop_time())
        group.start_soon(self._read, following)

    def _close(self) -> None:
        """Begin nothing any more; what changes something at the server is still waited for."""
        self._closing = True
        self._answering.stop()
        self._set_tick(math.inf)

    def receive(self, event: Event) -> None:
        """Tell the machine of an event, and do what it says. After the end, nothing happens.

        Raises:
            InvalidRequestError: The event cannot be; nothing was done.
        """
        if self._group is None:
            return
        had_ended = self._machine.end is not None
        commands = self._machine.receive(event)
        if had_ended and self._machine.end is None:
            if self._following is not None:
                self._following.held.go_on()
            self._on_end(None)
        for command in commands:
            self._perform(command, self._group)
        if not self._closing:
            self._set_tick(self._machine.wake_at)
        if self._is_done():
            self._stop()

    def leave(self, *, by: float, cancel: bool) -> None:
        """Stop watching: at once, when the run is left as it is; else when its cancel is confirmed or refused.

        Args:
            by: How long at most a request that changes something is waited for, by the loop's clock.
            cancel: Whether a run that goes on is to be cancelled.
        """
        self._leave_by = min(by, self._leave_by)
        self._cancels = self._cancels or cancel
        for scope in self._changing:
            scope.deadline = self._leave_by
        if (cancel or self._machine.is_cancelling) and not self.is_over:
            self.receive(CancelAsked(loop_time(), self._leave_by))
        if self._is_done():
            self._stop()

    @property
    def is_running(self) -> bool:
        return self._group is not None and not self._closing

    @property
    def is_over(self) -> bool:
        """Whether the run has ended. A watch that ended before its run can be taken up again until it is left."""
        end = self._machine.end
        return end is not None and end.kind.is_final

    def _is_done(self) -> bool:
        """Whether there is nothing to wait for any more.

        For who leaves that is so when the watch has ended, for whatever reason, and when no cancel is under way. Else
        a run may have ended, and what its stream said before that is still read.
        """
        may_leave = self._leave_by < math.inf and not self._machine.is_cancelling
        is_read = self._following is not None and self._following.is_wanted
        return (self.is_over and not is_read) or may_leave or self._failure is not None

    def _stop(self) -> None:
        # Our own task sees by itself that it is done.
        if self._group is not None and asyncio.current_task() is not self._task:
            self._group.cancel_scope.cancel()

    # Time

    async def _until_poll(self) -> None:
        """Wait for the time of the next poll, which may be moved meanwhile."""
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
            if self._due_at == poll_at < math.inf:  # by the timer; it may be early by the clock's resolution
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
        # A task group takes no tasks from a callback, so the machine is told in a task, which ends at its first step.
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
                self._schedule_poll(random.uniform(not_before, not_after), if_silent)  # noqa: S311 - spreads looks only
            case RunTools(calls):
                self._answering.begin(calls, group)
            case StopTools(approvals):
                self._answering.stop(approvals=approvals)
            case Submit(answers, snapshot, keep):
                request = self._client.dialect.submit(self.ref, snapshot, answers, keep_tool_choice=keep)
                group.start_soon(self._change, request, Asked.SUBMIT)
            case Cancel():
                group.start_soon(self._change, self._client.dialect.cancel(self.ref), Asked.CANCEL)
            case Report(notice):
                self._on_notice(notice)
            case Finish(end):
                self._answering.stop()
                self._schedule_poll(math.inf)
                if self.is_over:
                    for scope, following in self._changing.items():  # their answers can change nothing any more
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
            self.receive(await self._ask(self._client.dialect.poll(self.ref), Asked.POLL))

    async def _change(self, request: Request, asked: Asked) -> None:
        following = self._following if asked is Asked.SUBMIT else None
        # Who leaves the watch meanwhile waits for the answer for some seconds: what a submit came to would be lost.
        with anyio.CancelScope(shield=True, deadline=self._leave_by) as scope:
            self._changing[scope] = following
            is_cut_off = True
            try:
                if following is None or not await following.may_ask(self.receive, self._machine.snapshot):
                    following, event = None, await self._ask(request, asked)
                else:
                    event = await following.ask(request)
                is_cut_off = False
            finally:
                del self._changing[scope]
                if is_cut_off and not scope.cancel_called:
                    self._cut_off.append(asked)
            if isinstance(event, Observed) and self._polling is not None:
                # The poll may show the run as it was before; this answer asks for a new one.
                self._polling.cancel()
            if asked is Asked.SUBMIT and isinstance(event, Observed) and event.snapshot.ref is not None:
                self._follow(event.snapshot.ref)
            self.receive(event)
            if following is not None and following.is_open and isinstance(event, Observed):
                self.receive(StreamBegun(loop_time()))
        if following is not None and following.is_read and not scope.cancelled_caught:
            await self._read(following)

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
        if self._is_done():
            self._stop()

    def _hear(self, event: Event) -> None:
        if isinstance(event, Observed) and self._polling is not None:
            self._polling.cancel()  # it was asked before; what it shows may be older than what the stream tells
        self.receive(event)

    def _follow(self, ref: RunRef) -> None:
        """Watch what a submit gave from now on, where that is something new."""
        if ref != self.ref:
            self.ref = ref
            self.refs = (*self.refs, ref)

    async def _ask(self, request: Request, asked: Asked) -> Observed | Refused:
        await admitted()
        self.polls += asked is Asked.POLL
        event = await send_for_event(self._client, request, asked)
        log_poll(WATCH_LOG, self.ref, event)
        return event
