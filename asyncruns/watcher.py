"""The shell around the lifecycle: it looks, runs the tools, submits and cancels, as the machine says.

All that happens in the background happens in one task, which the watcher owns; its task group is entered and left
inside of it, so a watcher may be left from any task, and an exception of the body leaves as it is. That task looks,
one look after the other; tools and submits are children of it; timers of the loop wake the machine.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Generic, Literal, TypeVar, assert_never

import anyio
import anyio.abc
from msgspec import UNSET, UnsetType

from asyncruns.abc import Connection
from asyncruns.admission import admitted
from asyncruns.answering import Answering, ApprovalHandler, GivenOutputs, Handler, texts_of
from asyncruns.cadence import Cadence
from asyncruns.errors import APIConnectionError, APIResponseValidationError, InvalidRequestError
from asyncruns.http import Request
from asyncruns.lifecycle import (
    Asked,
    Begun,
    Cancel,
    CancelAsked,
    EndKind,
    Event,
    Finish,
    Notice,
    Observed,
    Policy,
    PollAt,
    Provided,
    Refusal,
    RefusalKind,
    Refused,
    Report,
    RunLifecycle,
    RunRef,
    RunTools,
    StopTools,
    Submit,
    Tick,
)
from asyncruns.lifecycle.commands import Command
from asyncruns.observers import Ended, Feed, Observer, deliver, log
from asyncruns.outcome import AnyOutcome, outcome_of
from asyncruns.tools import Toolset
from asyncruns.watch_options import check_watch_options

R = TypeVar("R")

OBSERVER_GRACE_S: Final = 2.0  # at the end, observers get so long for what they have not seen yet
LEAVING_GRACE_S: Final = 5.0  # who leaves waits so long for the answer to a submit or a cancel


class RunWatcher(Generic[R]):
    """Watch one run to its end, and have its tool calls answered.

    Use it with `async with`; then `await watcher.wait()`, or iterate over its events, or both. Leaving the block stops
    the watching and the tools, waits for a submit that is on its way, and leaves the run at the server as it is, or
    cancels it, as `on_exit` says.

    Args:
        connection: A `Client`, or anything with its `transport`, `dialect` and `answer`.
        run: The run as a call returned it, or a `RunRef`; or else give `thread_id` and `run_id`.
        tools: Answers the calls, all of a round at once.
        timeout: Seconds for the whole wait; None is for ever. Default: until the run's expiry by the server's clock and
            60 s more, and 15 minutes where the server tells no expiry.
        max_outage: For how many seconds in a row looks may fail before the watch gives up; None is for ever.
        max_unknown: For how many seconds a status that nobody knows may stay before the watch gives up; None is for
            ever.
        max_concurrent_calls: How many calls of this run are answered by `tools` at once; None is no limit. A toolset
            has a limit of its own over all that share it.
        cadence: The pauses between looks; by default the server's hints, else from 0.25 s growing to 1 s.
        on_exit: What becomes of a run that goes on when the block is left, for whatever reason: "leave" it as it is,
            or "cancel" it, which waits up to 5 s for the run to end. `outcome` then tells what became of it.
        on_status: Called with a `StatusChanged` for each new status. Observes: what it raises is logged.
        on_requires_action: Called (and awaited) once for each round with its calls; gives the outputs, as a mapping by
            call id or as a list of `{"tool_call_id", "output"}`, or None. Calls that it leaves out go to `tools`. If it
            raises, the watch ends as `NeedsCaller` with that cause.
        on_approval: Called (and awaited) with the calls that a tool behind the server waits for an approval of; gives
            True or False for all, or by call id (there also `{"approve": ..., "headers": ...}`), or None. Without it,
            `on_requires_action` is asked. It may take its time: the server's expiry is the only bound.
        on_terminal: Called with the outcome when the watch ends, but not when it needs the caller; once more when a
            run that was given up is then cancelled. Observes.

    Raises:
        InvalidRequestError: The arguments do not name a run.
    """

    def __init__(
        self,
        connection: Connection[R],
        run: R | RunRef | None = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        tools: Toolset | None = None,
        timeout: float | UnsetType | None = UNSET,
        max_outage: float | None = 120.0,
        max_unknown: float | None = 60.0,
        max_concurrent_calls: int | None = None,
        cadence: Cadence | None = None,
        on_exit: Literal["leave", "cancel"] = "leave",
        on_status: Observer | None = None,
        on_requires_action: Handler | None = None,
        on_approval: ApprovalHandler | None = None,
        on_terminal: Observer | None = None,
    ) -> None:
        given = {"thread_id": thread_id, "run_id": run_id}
        self._connection = connection
        self.ref: RunRef = connection.dialect.identify(
            run, {name: id_ for name, id_ in given.items() if id_ is not None}
        )
        self._given = None if run is None or isinstance(run, RunRef) else connection.dialect.snapshot(run)
        check_watch_options(
            {
                "tools": tools,
                "timeout": timeout,
                "max_outage": max_outage,
                "max_unknown": max_unknown,
                "max_concurrent_calls": max_concurrent_calls,
                "cadence": cadence,
                "on_exit": on_exit,
            }
        )
        self._machine = RunLifecycle(
            Policy(
                timeout=timeout,
                max_outage=max_outage,
                max_unknown=max_unknown,
                cadence=cadence or Cadence.hinted(),
            )
        )
        self._answering = Answering(
            handler=on_requires_action,
            approve=on_approval,
            tools=tools,
            at_once=max_concurrent_calls,
            post=self._receive,
        )
        self._cancels_on_exit = on_exit == "cancel"
        self._on_status, self._on_terminal = on_status, on_terminal
        self._observed: Feed[R] | None = Feed() if on_status or on_terminal else None
        self._iterated: Feed[R] = Feed()
        self._ended = asyncio.Event()
        self._poll_at = math.inf
        self._poll_moved: asyncio.Future[None] | None = None
        self._tick_at = math.inf
        self._tick_timer: asyncio.TimerHandle | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._changes = 0  # submits and cancels that the server accepted
        self._changing: set[anyio.CancelScope] = set()
        self._leave_by = math.inf
        self._failure: Exception | None = None  # of a tick, which its task has nobody to raise to
        self._failure_told = False
        self._group: anyio.abc.TaskGroup | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = 0.0
        self.polls: int = 0
        self.outcome: AnyOutcome[R] | None = None

    # The public side

    async def __aenter__(self) -> RunWatcher[R]:
        if self._task is not None:
            raise InvalidRequestError("A RunWatcher watches once; make a new one")
        await admitted()
        self._started = _now()
        begun = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._drive(begun), name=f"asyncruns watch {self.ref}")
        self._task.add_done_callback(self._stopped)
        try:
            await begun
        except asyncio.CancelledError:
            self._task.cancel()
            await _joined(self._task)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = self._task
        if task is None:
            return
        self._leave_by = _now() + LEAVING_GRACE_S
        for scope in self._changing:
            scope.deadline = self._leave_by
        if self._cancels_on_exit and not self._is_over() and not task.done():
            self._receive(CancelAsked(_now()))
        elif self._machine.end is None:
            task.cancel()
        else:
            self._stop_looking()
        await _joined(task, by=self._leave_by)
        if self._failure_told:
            return
        if error is None:
            _raise_failure(task)
        elif not task.cancelled() and task.exception() is not None:
            log.error("The watch of %s broke", self.ref, exc_info=task.exception())

    async def wait(self) -> AnyOutcome[R]:
        """Wait for the end of the watch.

        Safe to cancel: the watch goes on, until its block is left.

        Raises:
            InvalidRequestError: The watcher was not entered with `async with`.
        """
        task = self._entered()
        await self._ended.wait()
        if self.outcome is None:
            self._failure_told = True
            _raise_failure(task)
            raise InvalidRequestError("The watcher was left before the watch ended")
        return self.outcome

    async def __aiter__(self) -> AsyncIterator[Notice | Ended[R]]:
        """Iterate over the events, the last of which is `Ended`. For one reader; may be broken off.

        Raises:
            InvalidRequestError: The watcher was not entered with `async with`.
        """
        task = self._entered()
        while event := await self._iterated.get():
            yield event
            if isinstance(event, Ended):
                return
        _raise_failure(task)

    async def submit(self, outputs: GivenOutputs) -> None:
        """Give outputs for open calls, and go on: `await wait()` again.

        Outputs are merged with those that there are; when all calls of the round have one, all are submitted. May be
        called while tools run, and after the watch ended as `NeedsCaller`. Safe to cancel; it does not wait.

        Raises:
            InvalidRequestError: There is no such call; nothing was submitted then.
        """
        self._tell_machine(Provided(_now(), texts_of(outputs)))

    async def cancel_run(self) -> None:
        """Ask the server to cancel the run, after a submit that is on its way; tools are stopped first.

        Does not wait: looks go on, and `wait()` tells how the run ended, which may be `Completed` when that was faster,
        or `GaveUp` when a run whose cancel was taken still goes on a minute later. A cancel that the server refuses is
        the event `CancelRefused`, and the watch goes on. May be called after the watch ended as `NeedsCaller` or
        `GaveUp`, too; nothing happens when the run has ended. Safe to cancel.

        Raises:
            InvalidRequestError: The watch was not entered, or was left; cancel the run through the client.
        """
        if not self._is_over():
            self._tell_machine(CancelAsked(_now()))

    def _tell_machine(self, event: Event) -> None:
        if self._group is None or self._is_over():
            raise InvalidRequestError("The watch does not go on; submit or cancel through the client")
        self._receive(event)

    @property
    def run(self) -> R | None:
        """The run at the last look, or as it was given."""
        snapshot = self._machine.snapshot
        return snapshot.resource if snapshot else None

    @property
    def status(self) -> str:
        """The server's own word at the last look, or ""."""
        return self._machine.snapshot.status if self._machine.snapshot else ""

    def __repr__(self) -> str:
        return f"<RunWatcher {self.ref} {self.status or 'not seen'}, {self._machine.state.value}, {self.polls} polls>"

    def _entered(self) -> asyncio.Task[None]:
        if self._task is None:
            raise InvalidRequestError("Enter the watcher first: async with RunWatcher(...) as watcher")
        return self._task

    # The background task

    def _stopped(self, task: asyncio.Task[None]) -> None:
        self._ended.set()
        self._iterated.close()

    async def _drive(self, begun: asyncio.Future[None]) -> None:
        if self._observed is None:
            await self._watch(begun)
            return
        async with anyio.create_task_group() as group:
            group.start_soon(deliver, self._observed, self._on_status, self._on_terminal)
            await self._watch(begun)
            with anyio.move_on_after(OBSERVER_GRACE_S):
                await self._observed.drained()
            group.cancel_scope.cancel()

    async def _watch(self, begun: asyncio.Future[None]) -> None:
        try:
            async with anyio.create_task_group() as self._group:
                if not begun.done():
                    begun.set_result(None)
                self._receive(Begun(_now(), self._given))
                while not self._is_done():
                    await self._until_poll()
                    await self._look()
                self._group.cancel_scope.cancel()
        finally:
            self._group = None
            self._set_tick(math.inf)
        if self._failure is not None:
            raise self._failure

    def _is_over(self) -> bool:
        """Whether the run has ended. A watch that ended before its run can be taken up again until it is left."""
        end = self._machine.end
        return end is not None and end.kind not in (EndKind.NEEDS_CALLER, EndKind.GAVE_UP)

    def _is_done(self) -> bool:
        """Whether there is nothing to wait for any more.

        For who leaves that is so when the watch has ended, for whatever reason, and when no cancel is under way.
        """
        leaving = self._leave_by < math.inf
        may_leave = leaving and (self._machine.end is not None or not self._machine.cancel_requested)
        return self._is_over() or may_leave or self._failure is not None

    def _stop_looking(self) -> None:
        # Who is in the midst of the looks sees by itself that they are done.
        if self._group is not None and asyncio.current_task() is not self._task:
            self._group.cancel_scope.cancel()

    async def _until_poll(self) -> None:
        """Wait for the time of the next look, which may be moved meanwhile."""
        loop = asyncio.get_running_loop()
        while (poll_at := self._poll_at) > loop.time():
            self._poll_moved = moved = loop.create_future()
            timer = None if poll_at == math.inf else loop.call_at(poll_at, _wake, moved)
            try:
                await moved
            finally:
                self._poll_moved = None
                if timer is not None:
                    timer.cancel()
            if self._poll_at == poll_at:  # by the timer; it may be early by the clock's resolution
                return

    def _set_tick(self, at: float) -> None:
        if at == self._tick_at:
            return
        self._tick_at = at
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        self._tick_timer = None if at == math.inf else asyncio.get_running_loop().call_at(at, self._tick)

    def _tick(self) -> None:
        # A task group takes no tasks from a callback, so the machine is told in a task, which ends at its first step.
        now = max(_now(), self._tick_at)  # a timer may be early by the clock's resolution
        self._ticking = asyncio.create_task(self._ticked(now), name=f"asyncruns tick {self.ref}")

    async def _ticked(self, now: float) -> None:
        self._set_tick(math.inf)
        try:
            self._receive(Tick(now))
        except Exception as error:
            self._failure = error
            self._stop_looking()

    def _receive(self, event: Event) -> None:
        if self._group is None:
            return
        commands = self._machine.receive(event)
        if self.outcome is not None and self._machine.end is None:
            self.outcome = None  # the watch was taken up again
            self._ended.clear()
        for command in commands:
            self._perform(command, self._group)
        self._set_tick(self._machine.wake_at)
        if self._is_done():
            self._stop_looking()

    def _perform(self, command: Command, group: anyio.abc.TaskGroup) -> None:
        match command:
            case PollAt(not_before, not_after):
                self._poll(random.uniform(not_before, not_after))  # noqa: S311 - spreads looks, hides nothing
            case RunTools(calls):
                group.start_soon(self._answering.begin(calls))
            case StopTools():
                self._answering.stop()
            case Submit(outputs):
                request = self._connection.dialect.submit(self.ref, outputs)
                group.start_soon(self._change, request, Asked.SUBMIT)
            case Cancel():
                group.start_soon(self._change, self._connection.dialect.cancel(self.ref), Asked.CANCEL)
            case Report(notice):
                self._tell(notice)
            case Finish():
                self._finish(command)
            case _:
                assert_never(command)

    def _poll(self, at: float) -> None:
        self._poll_at = at
        if self._poll_moved is not None:
            _wake(self._poll_moved)

    def _tell(self, event: Notice | Ended[R]) -> None:
        if self._observed is not None:
            self._observed.put(event)
        self._iterated.put(event)

    def _finish(self, command: Finish) -> None:
        self._answering.stop()
        self._poll(math.inf)
        self.outcome = outcome_of(
            command.end,
            self.ref,
            self._connection,
            polls=self.polls,
            elapsed=_now() - self._started,
            cancel_requested=self._machine.cancel_requested,
        )
        self._tell(Ended(self.outcome))
        self._ended.set()

    # Requests

    async def _look(self) -> None:
        self._poll_at = math.inf
        changes = self._changes
        event = await self._ask(self._connection.dialect.poll(self.ref), Asked.POLL)
        # Else it may show the run as it was before a submit or a cancel, whose answer has asked for a new look already.
        if changes == self._changes:
            self._receive(event)

    async def _change(self, request: Request, asked: Asked) -> None:
        # Who leaves the watch meanwhile waits for the answer for some seconds: what a submit came to would be lost.
        with anyio.CancelScope(shield=True, deadline=self._leave_by) as scope:
            self._changing.add(scope)
            try:
                event = await self._ask(request, asked)
            finally:
                self._changing.discard(scope)
            if isinstance(event, Observed):
                self._changes += 1
            self._receive(event)

    async def _ask(self, request: Request, asked: Asked) -> Observed | Refused:
        dialect = self._connection.dialect
        await admitted()
        self.polls += asked is Asked.POLL
        asked_at = _now()
        try:
            response = await self._connection.transport.send(request)
            if not 200 <= response.status < 300:
                return Refused(_now(), dialect.refusal(request, response), asked)
            return Observed(_now(), dialect.read(request, response), asked, asked_at)
        except APIConnectionError as error:
            kind = RefusalKind.LOST if error.sent else RefusalKind.NOT_SENT
            return Refused(_now(), Refusal(kind=kind, cause=error), asked)
        except APIResponseValidationError as error:
            return Refused(_now(), Refusal(kind=RefusalKind.LOST, cause=error), asked)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _raise_failure(task: asyncio.Task[None]) -> None:
    """Raise what broke the background task, if anything did; a lone error without the group around it."""
    failure = None if task.cancelled() else task.exception()
    while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]
    if failure is not None:
        raise failure


async def _joined(task: asyncio.Task[None], *, by: float = math.inf) -> None:
    """Wait until a task has ended, even when we are cancelled ourselves: it holds a submit or a cancel at most.

    Args:
        task: The task.
        by: When it is cancelled.
    """
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        if _now() >= by:
            task.cancel()
            by = math.inf
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task}, timeout=None if by == math.inf else by - _now())
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
