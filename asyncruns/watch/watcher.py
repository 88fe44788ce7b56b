"""Watches one run: what a caller enters, waits for, iterates over, and leaves.

All that happens in the background happens in one task, which the watcher owns; its task groups are entered and left
inside of it, so a watcher may be left from any task, and an exception of the body leaves as it is.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar, Unpack

import anyio
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from asyncruns._loop import (
    ENDING_GRACE_S,
    LEAVING_GRACE_S,
    OBSERVER_GRACE_S,
    OwnedTask,
    loop_time,
    outlasting,
)
from asyncruns.abc import AsyncOnly, RunClient
from asyncruns.dialects.given import check_client
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import CancelAsked, End, Event, Notice, OutputsProvided, RunLifecycle, RunRef, StatusChanged
from asyncruns.streams.event_stream import EventStream, source_of
from asyncruns.tools.concurrency import ConcurrencyLimit
from asyncruns.user_code import check_may_leave, check_may_wait
from asyncruns.watch.call_answerer import CallAnswerer, GivenOutputs, texts_of
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.watch.engine import Engine
from asyncruns.watch.logs import WATCH_LOG, log_notice, log_outcome, warn_of_uncancelled
from asyncruns.watch.observers import Ended, Feed, deliver
from asyncruns.watch.open_watches import OpenWatch, open_watches_of
from asyncruns.watch.options import WatchOptions, check_watch_options, policy_of
from asyncruns.watch.outcome import AnyOutcome, outcome_of
from asyncruns.watch.stream_follower import TAIL_S, StreamFollower
from asyncruns.wire.shown_text import on_one_line

R = TypeVar("R")


class RunWatcher(AsyncOnly, Generic[R]):
    """Watch one run to its end, and have its tool calls answered.

    Use it with `async with`; then `await watcher.wait()`, or iterate over its events, or both. Leaving the block stops
    the watching and the tools, waits for a submit that is on its way, and leaves the run at the server as it is, or
    cancels it, as `on_exit` says.

    Args:
        client: A `Client`, or anything with its `transport`, `dialect` and `answer`.
        run: The run as a call returned it, or a `RunRef`; or the stream that `stream=True` gave, which is followed
            then: the events are the same, and there is less to look for. Or else give `thread_id` and `run_id`.
        tools: Answers the calls, all of a round at once.
        timeout: Seconds for the whole wait; None is for ever. Default: until the run's expiry by the server's clock and
            60 s more; where the server tells no expiry, 15 minutes for a run of a thread, and 24 hours for a response,
            which may take hours without saying so.
        max_outage: For how many seconds in a row polls may fail before the watch gives up; None is for ever.
        max_unknown_status: For how many seconds a status that this version does not know may stay before the watch
            gives up; None is no limit.
        max_concurrent_calls: How many calls of this run are answered by `tools` at once; None is no limit. A toolset
            has a limit of its own over all that share it.
        max_rounds: After how many rounds of calls the watch ends as `NeedsCaller`, with the calls of the next round and
            `Reason.MAX_ROUNDS`, since each round costs money; `submit()` goes on from there. None is no limit.
        keep_tool_choice: Whether a `tool_choice` that forces the model to call a tool is repeated in each follow-up of
            a response. By default it becomes "auto" after the first round: a forced call in each round has no end. (In
            a thread, the choice is the server's matter.)
        cadence: The pauses between polls; by default the server's hints, else from 0.25 s growing to 1 s.
        on_exit: What becomes of a run that goes on when the block is left, for whatever reason: "leave" it as it is,
            or "cancel" it, which waits up to 5 s for the run to end, and sends the cancel again when it was refused and
            the status has changed. `outcome` then tells what became of it; where the run could not be cancelled, a
            warning is logged, and `outcome.cancel_error` says why. `Client.close` waits for that, too.
        on_lost_submit: What to do when no answer to a submit came and no poll can tell whether it was taken, as with
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
        client: RunClient[R],
        run: R | RunRef | EventStream[R, Any] | None = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> None:
        given = {"thread_id": thread_id, "run_id": run_id}
        run = check_client(client, "RunWatcher").dialect.given(run)
        check_watch_options(options)
        self._client = client
        self._ids = {name: id_ for name, id_ in given.items() if id_ is not None}
        self._given = None
        self._following = None
        if isinstance(run, EventStream):
            source = source_of(run)
            if source.dialect != client.dialect.name:
                raise InvalidRequestError(
                    f"The stream tells of a {source.dialect}, and this client watches a {client.dialect.name}: "
                    "use client.watch(stream), or RunWatcher(client.responses.continued(), stream) for a response"
                )
            ref = RunRef(client.dialect.name, ())  # the stream will tell
            self._following = StreamFollower(client, source)
        else:
            ref = client.dialect.identify(run, self._ids)
            self._given = None if run is None or isinstance(run, RunRef) else client.dialect.snapshot(run)
        self._cancels_on_exit = options.get("on_exit") == "cancel"
        self._machine = RunLifecycle(policy_of(options, client.dialect))
        self._answering = CallAnswerer(
            handler=options.get("on_requires_action"),
            approve=options.get("on_approval"),
            tools=options.get("tools"),
            limit=None if (at_once := options.get("max_concurrent_calls")) is None else ConcurrencyLimit(at_once),
            post=self._receive,
        )
        self._engine = Engine(
            client,
            ref,
            self._machine,
            self._answering,
            self._following,
            cancels_on_exit=self._cancels_on_exit,
            on_notice=self._tell,
            on_end=self._end,
        )
        timeout = options.get("timeout", UNSET)
        self._begin_within = None if timeout is None or isinstance(timeout, UnsetType) else max(timeout, TAIL_S)
        self._on_status, self._on_terminal = options.get("on_status"), options.get("on_terminal")
        self._observed: Feed[R] | None = Feed() if self._on_status or self._on_terminal else None
        self._iterated: Feed[R] = Feed()
        self._ended = asyncio.Event()
        self._task = OwnedTask(
            "watcher",
            log=WATCH_LOG,
            entering="RunWatcher(...) as watcher",
            once="A RunWatcher watches once; make a new one",
        )
        self._open: OpenWatch | None = None
        self._started = 0.0
        self.outcome: AnyOutcome[R] | None = None

    # The public side

    async def __aenter__(self) -> RunWatcher[R]:
        self._task.check_unused()
        self._engine.entered_by(asyncio.current_task(), contextvars.copy_context())
        if self._following is not None:
            await self._begin_to_follow(self._following)
        self._started = loop_time()
        self._open = open_watches_of(self._client).add(self._leave if self._cancels_on_exit else None)
        await self._task.start(
            self._drive,
            name=f"asyncruns watch {self.ref}",
            on_done=self._stopped,
            leave=lambda: self.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None),
        )
        return self

    async def _begin_to_follow(self, following: StreamFollower[R]) -> None:
        """Read the stream until it tells which run it is of; for some seconds more when the caller is cancelled.

        The run goes on at the server, and its name is needed to cancel it.
        """
        begin = following.begin(self._ids, self._begin_within)
        if self._cancels_on_exit:
            watches = open_watches_of(self._client)
            guard = CreateGuard(watches, late=self._cancel_unwatched, lost=self._warn_of_unnamed, cancels=True)
            ref = await guard.keep(begin)
        else:
            ref = await begin
        self._engine.begin_with(ref)
        self._given = following.given

    async def _cancel_unwatched(self, ref: RunRef) -> None:
        if self._following is not None:
            await self._following.close()
        await cancel_unwatched(self._client, ref)

    def _warn_of_unnamed(self) -> None:
        WATCH_LOG.warning("A stream was left before it told which run it is of; the run could not be cancelled")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._task.was_started:
            return
        self._task.check_is_here()
        check_may_leave(self._engine, "watcher")
        by = loop_time() + LEAVING_GRACE_S
        try:
            self._leave(by)
        finally:
            try:
                await self._task.join(by)
            finally:
                if self._following is not None:
                    await self._following.close()
            if self.outcome is not None and self.outcome.refs != self._engine.refs:
                # A submit was answered after the end, and began something.
                self.outcome = replace(self.outcome, ref=self._engine.ref, refs=self._engine.refs)
        self._task.raise_once(error, "The watch of %s broke", on_one_line(str(self.ref)))

    def _leave(self, by: float) -> None:
        if self._open is not None:
            self._open.leave_by(by + ENDING_GRACE_S)
        self._engine.leave(by=by, cancel=self._cancels_on_exit)

    async def wait(self) -> AnyOutcome[R]:
        """Wait for the end of the watch.

        Safe to cancel: the watch goes on, until its block is left.

        Raises:
            InvalidRequestError: The watcher was not entered with `async with`, or was entered in another event loop; or
                one of its own tools or handlers calls this, and would wait for itself.
        """
        self._task.check_entered()
        if not self._ended.is_set():
            check_may_wait(self._engine, "watch")
        if self._following is not None:
            await asyncio.sleep(0)  # who reads beside us may begin right after
        while True:
            if self._following is not None:
                self._following.held.let_go()
            with self._iterated.waiter():
                await self._ended.wait()
            if self._task.is_done and self.outcome is None:
                self._task.raise_failure()
                raise InvalidRequestError("The watcher was left before the watch ended")
            if self.outcome is not None and self._ended.is_set():  # and not taken up again since
                return self.outcome

    async def __aiter__(self) -> AsyncIterator[Notice | Ended[R]]:
        """Iterate over the events, the last of which is `Ended`. For one reader; may be broken off.

        A reader gets every event from when it begins to when it breaks off, and of those before the newest 16. While
        somebody waits in `wait()` and nobody reads, only the newest event is kept.

        Raises:
            InvalidRequestError: The watcher was not entered with `async with`, or was entered in another event loop.
        """
        self._task.check_entered()
        with self._iterated.reader():
            while event := await self._iterated.get():
                yield event
                if isinstance(event, Ended):
                    return
        self._task.raise_failure()

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
        self._task.check_entered()
        if self._task.is_done:
            self._task.raise_failure()

    def _streamed(self) -> StreamFollower[R]:
        self._task.check_entered()
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
        self._task.check_is_here()
        self._tell_machine(OutputsProvided(loop_time(), texts_of(outputs)))

    async def cancel_run(self) -> None:
        """Ask the server to cancel the run, after a submit that is on its way; tools are stopped first.

        Does not wait: polls go on, and `wait()` tells how the run ended, which may be `Completed` when that was faster,
        or `GaveUp` when a run whose cancel was taken still goes on a minute later. A cancel that the server refuses is
        the event `CancelRefused`, and the watch goes on. May be called after the watch ended as `NeedsCaller` or
        `GaveUp`, too; nothing happens when the run has ended. Safe to cancel.

        Raises:
            InvalidRequestError: The watch was not entered, or was left; cancel the run through the client.
        """
        self._task.check_is_here()
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
        """How many polls were sent."""
        return self._engine.polls

    @property
    def run(self) -> R | None:
        """The run at the last poll, or as it was given."""
        snapshot = self._machine.snapshot
        return snapshot.resource if snapshot else None

    @property
    def status(self) -> str:
        """The server's own word at the last poll, or ""."""
        return self._machine.snapshot.status if self._machine.snapshot else ""

    def __repr__(self) -> str:
        seen = f"{self.ref} {self.status or 'not seen'}"
        return f"<RunWatcher {on_one_line(seen)}, {self._machine.state.value}, {self.polls} polls>"

    # The background task

    async def _drive(self, begun: asyncio.Future[None]) -> None:
        if self._observed is None:
            await self._engine.run(self._given, begun)
            return
        async with anyio.create_task_group() as group:
            observe = partial(deliver, self._observed, self._on_status, self._on_terminal, (self._engine,))
            group.start_soon(outlasting, observe, group.cancel_scope)
            await self._engine.run(self._given, begun)
            with anyio.move_on_after(OBSERVER_GRACE_S):
                await self._observed.drained()
            group.cancel_scope.cancel()

    def _receive(self, event: Event) -> None:
        self._engine.receive(event)

    def _stopped(self) -> None:
        self._ended.set()
        self._iterated.close()
        if self._open is not None:
            open_watches_of(self._client).remove(self._open)
        if self._following is not None:
            self._following.held.finish()

    def _tell(self, event: Notice | Ended[R]) -> None:
        if not isinstance(event, Ended):
            log_notice(WATCH_LOG, self.ref, event)
        if self._observed is not None and isinstance(event, StatusChanged | Ended):
            self._observed.put(event)
        self._iterated.put(event)

    def _end(self, end: End | None) -> None:
        if end is None:  # taken up again; what the outcome was stands until there is another
            self._ended.clear()
            return
        self.outcome = outcome_of(
            end,
            self._engine.refs,
            self._client,
            polls=self.polls,
            elapsed=loop_time() - self._started,
            cancel_requested=self._machine.cancel_requested,
            cancel_error=self._machine.cancel_error,
        )
        log_outcome(WATCH_LOG, self.outcome)
        self._tell(Ended(self.outcome))
        self._ended.set()
        if self._open is not None and self._open.by < math.inf:
            self._open.settle()
            warn_of_uncancelled(WATCH_LOG, self.outcome)


async def cancel_unwatched(client: RunClient[Any], run: Any, options: WatchOptions | None = None) -> None:
    """Cancel a run whose caller was cancelled before there was a watch of it; bounded, and told as on leaving."""
    cancelling: WatchOptions = {**(options or WatchOptions()), "on_exit": "cancel"}
    async with RunWatcher(client, run, **cancelling):
        pass
