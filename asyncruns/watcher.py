"""Watches one run: what a caller enters, waits for, iterates over, and leaves.

All that happens in the background happens in one task, which the watcher owns; its task groups are entered and left
inside of it, so a watcher may be left from any task, and an exception of the body leaves as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final, Generic, Literal, TypeVar

import anyio
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from asyncruns.abc import Connection, RunEvents
from asyncruns.answering import Answering, ApprovalHandler, GivenOutputs, Handler, texts_of
from asyncruns.asking import loop_time
from asyncruns.cadence import Cadence
from asyncruns.engine import Engine
from asyncruns.errors import InvalidRequestError
from asyncruns.following import TAIL_S, Following
from asyncruns.lifecycle import CancelAsked, End, Event, Notice, Provided, RunLifecycle, RunRef
from asyncruns.observers import Ended, Feed, Observer, deliver, log
from asyncruns.outcome import AnyOutcome, outcome_of
from asyncruns.owned import joined, raise_failure
from asyncruns.tools import Toolset
from asyncruns.tools.limit import Limit
from asyncruns.watch_options import WatchOptions, check_watch_options, policy_of

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
        run: The run as a call returned it, or a `RunRef`; or the stream that `stream=True` gave, which is followed
            then: the events are the same, and there is less to look for. Or else give `thread_id` and `run_id`.
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
        on_ambiguous: What to do when no answer to a submit came and no look can tell whether it was taken, as with
            responses: "give_up", or "resend" the same outputs, which may begin the same twice. Tools are not run again.
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
        InvalidRequestError: The arguments do not name a run; or, on entering, the stream is another watch's.
        APIError: On entering: the stream ended, or `timeout` passed, before it told which run it is of.
    """

    def __init__(
        self,
        connection: Connection[R],
        run: R | RunRef | RunEvents[R] | None = None,
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
        on_ambiguous: Literal["give_up", "resend"] = "give_up",
        on_status: Observer | None = None,
        on_requires_action: Handler | None = None,
        on_approval: ApprovalHandler | None = None,
        on_terminal: Observer | None = None,
    ) -> None:
        given = {"thread_id": thread_id, "run_id": run_id}
        self._connection = connection
        self._ids = {name: id_ for name, id_ in given.items() if id_ is not None}
        self._given = None
        self._following = None
        if isinstance(run, RunEvents):
            if run.dialect != connection.dialect.name:
                raise InvalidRequestError(
                    f"The stream tells of a {run.dialect}, and this connection watches a {connection.dialect.name}: "
                    "use client.watch(stream), or RunWatcher(client.responses.continued(), stream) for a response"
                )
            ref = RunRef(connection.dialect.name, ())  # the stream will tell
            self._following = Following(connection, run)
        else:
            ref = connection.dialect.identify(run, self._ids)
            self._given = None if run is None or isinstance(run, RunRef) else connection.dialect.snapshot(run)
        options: WatchOptions = {
            "tools": tools,
            "timeout": timeout,
            "max_outage": max_outage,
            "max_unknown": max_unknown,
            "max_concurrent_calls": max_concurrent_calls,
            "cadence": cadence,
            "on_exit": on_exit,
            "on_ambiguous": on_ambiguous,
        }
        check_watch_options(options)
        self._machine = RunLifecycle(policy_of(options, shows_submits=connection.dialect.shows_submits))
        answering = Answering(
            handler=on_requires_action,
            approve=on_approval,
            tools=tools,
            limit=None if max_concurrent_calls is None else Limit(max_concurrent_calls),
            post=self._receive,
        )
        self._engine = Engine(
            connection, ref, self._machine, answering, self._following, on_notice=self._tell, on_end=self._end
        )
        self._begin_within = None if timeout is None or isinstance(timeout, UnsetType) else max(timeout, TAIL_S)
        self._cancels_on_exit = on_exit == "cancel"
        self._on_status, self._on_terminal = on_status, on_terminal
        self._observed: Feed[R] | None = Feed() if on_status or on_terminal else None
        self._iterated: Feed[R] = Feed()
        self._ended = asyncio.Event()
        self._failure_told = False
        self._task: asyncio.Task[None] | None = None
        self._started = 0.0
        self.outcome: AnyOutcome[R] | None = None

    # The public side

    async def __aenter__(self) -> RunWatcher[R]:
        if self._task is not None:
            raise InvalidRequestError("A RunWatcher watches once; make a new one")
        if self._following is not None:
            self._engine.begin_with(await self._following.begin(self._ids, self._begin_within))
            self._given = self._following.given
        self._started = loop_time()
        begun = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._drive(begun), name=f"asyncruns watch {self.ref}")
        self._task.add_done_callback(self._stopped)
        try:
            await begun
        except asyncio.CancelledError as error:
            await self.__aexit__(asyncio.CancelledError, error, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = self._task
        if task is None:
            return
        by = loop_time() + LEAVING_GRACE_S
        try:
            self._engine.leave(by=by, cancel=self._cancels_on_exit)
        finally:
            try:
                await joined(task, by=by)
            finally:
                if self._following is not None:
                    await self._following.close()
            if self.outcome is not None and self.outcome.refs != self._engine.refs:
                # A submit was answered after the end, and began something.
                self.outcome = replace(self.outcome, ref=self._engine.ref, refs=self._engine.refs)
        if self._failure_told:
            return
        if error is None:
            raise_failure(task)
        elif not task.cancelled() and task.exception() is not None:
            log.error("The watch of %s broke", self.ref, exc_info=task.exception())

    async def wait(self) -> AnyOutcome[R]:
        """Wait for the end of the watch.

        Safe to cancel: the watch goes on, until its block is left.

        Raises:
            InvalidRequestError: The watcher was not entered with `async with`.
        """
        task = self._entered()
        if self._following is not None:
            await asyncio.sleep(0)  # who reads beside us may begin right after
        while True:
            if self._following is not None:
                self._following.held.let_go()
            await self._ended.wait()
            if task.done() and self.outcome is None:
                self._failure_told = True
                raise_failure(task)
                raise InvalidRequestError("The watcher was left before the watch ended")
            if self.outcome is not None and self._ended.is_set():  # and not taken up again since
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
        raise_failure(task)

    async def stream_events(self) -> AsyncIterator[Any]:
        """Iterate over the events of the run's streams, each once: of the one that was given, and of those that follow.

        Outputs are submitted with `stream=True`, so there is a stream for each round. Reading keeps step with the
        socket: who reads slowly slows the server, and no event is dropped. When a stream breaks, it is opened again
        where it broke, if the server can do that. If not, the watch polls (`StreamBroken` tells), there are no more
        events until the next round, and what they would have told of the text comes as one more delta when the run has
        ended, or waits for the caller; a delta of a response that came so has no `sequence_number`. Ends when the watch
        has ended and all is read, or when its block is left. For one reader at a time; may be broken off, and taken up
        again. Begin before `wait()`, or beside it: who only waits gets none.

        Raises:
            InvalidRequestError: The watcher was not entered, or was given no stream, or another reads, or the events
                were let go since nobody read them when `wait()` was called.
        """
        held = self._streamed().held
        with held.reader():
            while (event := await held.get()) is not None:
                yield event
        self._raise_if_broken()

    async def text_deltas(self) -> AsyncIterator[str]:
        """Iterate over the pieces of the text as they come, of all rounds; else as `stream_events`.

        Raises:
            InvalidRequestError: As `stream_events`.
            APIConnectionError: The text is not whole: a stream broke and the rest could not be had, or the watch gave
                up before the run had ended.
        """
        following = self._streamed()
        with following.held.reader():
            while (event := await following.held.get()) is not None:
                if text := following.text_in(event):
                    yield text
        self._raise_if_broken()
        if following.missing is not None:
            raise following.missing

    def _raise_if_broken(self) -> None:
        task = self._entered()
        if task.done():
            self._failure_told = True
            raise_failure(task)

    def _streamed(self) -> Following[R]:
        self._entered()
        if self._following is None:
            raise InvalidRequestError(
                "This watch follows no stream: create the run with stream=True, and give the stream in place of the run"
            )
        return self._following

    async def submit(self, outputs: GivenOutputs) -> None:
        """Give outputs for open calls, and go on: `await wait()` again.

        Outputs are merged with those that there are; when all calls of the round have one, all are submitted. May be
        called while tools run, and after the watch ended as `NeedsCaller`. Safe to cancel; it does not wait.

        Raises:
            InvalidRequestError: There is no such call; nothing was submitted then.
        """
        self._tell_machine(Provided(loop_time(), texts_of(outputs)))

    async def cancel_run(self) -> None:
        """Ask the server to cancel the run, after a submit that is on its way; tools are stopped first.

        Does not wait: looks go on, and `wait()` tells how the run ended, which may be `Completed` when that was faster,
        or `GaveUp` when a run whose cancel was taken still goes on a minute later. A cancel that the server refuses is
        the event `CancelRefused`, and the watch goes on. May be called after the watch ended as `NeedsCaller` or
        `GaveUp`, too; nothing happens when the run has ended. Safe to cancel.

        Raises:
            InvalidRequestError: The watch was not entered, or was left; cancel the run through the client.
        """
        if not self._engine.is_over:
            self._tell_machine(CancelAsked(loop_time()))

    def _tell_machine(self, event: Event) -> None:
        if not self._engine.is_running or self._engine.is_over:
            raise InvalidRequestError("The watch does not go on; submit or cancel through the client")
        self._engine.receive(event)

    @property
    def ref(self) -> RunRef:
        """Which run is watched; it changes where each round of outputs begins a new one. Of a stream, known inside."""
        return self._engine.ref

    @property
    def polls(self) -> int:
        """How many looks were sent."""
        return self._engine.polls

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

    async def _drive(self, begun: asyncio.Future[None]) -> None:
        if self._observed is None:
            await self._engine.run(self._given, begun)
            return
        async with anyio.create_task_group() as group:
            group.start_soon(deliver, self._observed, self._on_status, self._on_terminal)
            await self._engine.run(self._given, begun)
            with anyio.move_on_after(OBSERVER_GRACE_S):
                await self._observed.drained()
            group.cancel_scope.cancel()

    def _receive(self, event: Event) -> None:
        self._engine.receive(event)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        self._ended.set()
        self._iterated.close()
        if self._following is not None:
            self._following.held.finish()

    def _tell(self, event: Notice | Ended[R]) -> None:
        if self._observed is not None:
            self._observed.put(event)
        self._iterated.put(event)

    def _end(self, end: End | None) -> None:
        if end is None:  # taken up again; what the outcome was stands until there is another
            self._ended.clear()
            return
        self.outcome = outcome_of(
            end,
            self._engine.refs,
            self._connection,
            polls=self.polls,
            elapsed=loop_time() - self._started,
            cancel_requested=self._machine.cancel_requested,
        )
        self._tell(Ended(self.outcome))
        self._ended.set()
