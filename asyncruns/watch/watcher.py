"""The watcher of one run: the object that a caller enters, waits on, iterates over, and leaves.

Everything in the background happens in one task, which the watcher owns. Its task groups are entered and left inside
that task, so a watcher may be left from any task, and an exception of the block's body propagates unchanged. A task
group held open by `__aenter__` could do neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, TypeVar, Unpack, overload

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
    wall_time,
)
from asyncruns.abc import AsyncOnly, HasId, Journal, MultiWireClient, RunClient, WatchTrace
from asyncruns.dialects.given import check_client
from asyncruns.errors import InvalidRequestError, JournalError, NotOwnerError
from asyncruns.lifecycle import (
    CancelAsked,
    End,
    Event,
    Notice,
    OutputsProvided,
    Reason,
    RunLifecycle,
    RunRef,
    Snapshot,
)
from asyncruns.lifecycle.records import Wish, ref_of
from asyncruns.streams.event_stream import EventStream, source_of
from asyncruns.tools.concurrency import ConcurrencyLimit
from asyncruns.user_code import check_may_leave, check_may_wait
from asyncruns.watch.begin_recording import begin_as_created, begin_to_record, check_label, go_on_to_record, record_of
from asyncruns.watch.call_answerer import CallAnswerer, GivenOutputs, texts_of
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.watch.engine import Engine
from asyncruns.watch.handover import HandedOver, check_has_journal, handed_over, token_alone, token_for
from asyncruns.watch.logs import WATCH_LOG, log_notice, log_outcome, warn_of_uncancelled
from asyncruns.watch.observers import OBSERVER_OPTIONS, E, Ended, Feed, calls_for, deliver, stamped
from asyncruns.watch.open_watches import OpenWatch, open_watches_of, take_claimed, trace_of
from asyncruns.watch.options import WatchOptions, check_watch_options, policy_of
from asyncruns.watch.outcome import AnyOutcome, outcome_of
from asyncruns.watch.recorded_end import recorded_end
from asyncruns.watch.recorder import WatchRecorder
from asyncruns.watch.stream_follower import TAIL_S, StreamFollower
from asyncruns.watch.subscribers import Subscribed, Subscribers
from asyncruns.wire.plain import Held
from asyncruns.wire.shown_text import on_one_line

R = TypeVar("R")


class RunWatcher(AsyncOnly, Generic[R]):
    """Watch one run until it ends, answer its tool calls, and report what happens.

    Use it with `async with`; inside the block `await watcher.wait()`, iterate over its events, or do both::

        async with RunWatcher(client, run, tools=toolset, timeout=300) as watcher:
            async for event in watcher:
                print(event)
            outcome = await watcher.wait()
        print(await outcome.text())

    If you only need the outcome, `await client.watch(run, ...)` takes the same options.

    Leaving the block stops polls and tools, waits at most 5 s for a pending submit, and then leaves the run at the
    server as it is, or cancels it: see `on_exit`. A watcher watches once; its functions must be called in the event
    loop that entered it. Callbacks may be async; one that is not runs in the event loop and must not block.

    Below, a *round* is all the tool calls that the run asks for at one time; their outputs are submitted together.

    Args:
        client: A `Client`, or any other `asyncruns.abc.RunClient`, such as `client.responses.continued(...)` for a
            response whose follow-ups need other parameters than it echoes.
        run: A run, a response or a batch as returned by a call, or its `RunRef`, or the stream that `stream=True`
            returned. A stream replaces most polls, and the events are the same. If omitted, pass `thread_id` and
            `run_id`.
        thread_id: The thread of the run, when `run` is not given.
        run_id: The run, when `run` is not given.
        token: What `token` of another watcher, of a watch or of an outcome returned, to go on with that watch, in place
            of a run. It has the label of that. On entering, it is claimed in the journal that it is of.
        tools: The `Toolset` that answers tool calls, all calls of a round at once. Calls that still run shortly before
            the run expires (5 s at most) are stopped and answered with an error, so that the run lives. Default None:
            if no handler answers a call, the watch finishes as `NeedsCaller`.
        timeout: Seconds for the whole watch, tools included; None is no limit, and 0 is a single poll. When it passes,
            the outcome is `GaveUp` with `Reason.TIMEOUT`. Default: until 60 s after the run's expiry by the server's
            clock, since servers notice an expiry late; for a batch an hour, since its results are written then. If the
            server sends no expiry: 15 minutes for a run on a thread, 24 hours for a response, which may run for hours,
            25 hours for a batch.
        max_outage: Seconds in a row for which requests may fail before the watch gives up with `Reason.UNREACHABLE`;
            None is no limit. A throttled request (429) is not an outage, and what can't pass, such as an untrusted
            certificate, finishes the watch at once. Default 120: outlasts a restart of the server, and ends long before
            a usual timeout; an hour for a batch, which goes on meanwhile.
        max_unknown_status: Seconds for which a status that this version does not know may last before the watch gives
            up with `Reason.UNKNOWN_STATUS`; None is no limit. Default 60: a status that passes does no harm, and an
            unknown final one does not hold the watch until its timeout.
        max_concurrent_calls: Number of calls of this run that `tools` runs at once. Default None: only the limit of the
            toolset (`Toolset(max_concurrency=...)`), which all its runs share.
        max_rounds: Number of rounds of tool calls to answer. If the run then asks for another one, the watch finishes
            as `NeedsCaller` with its calls and `Reason.MAX_ROUNDS`; `submit()` continues from there. None is no limit.
            Default 50: far more than agents need, and a bound on the cost of one that never ends.
        observe_only: Whether another process answers the calls: this watch then answers nothing, and goes on while the
            run waits for outputs. The outputs to a response begin another one, which this watch cannot know of, so it
            finishes as `NeedsCaller` there. Default False.
        keep_tool_choice: Whether a `tool_choice` that forces a tool call is repeated in each follow-up of a response.
            Default False: it becomes "auto" after the first round, since forced calls never end. No effect on a run of
            a thread, where the server decides.
        context: Any object of the caller's. Tools of this run get it as `value` of their `ToolContext`, handlers as
            `context` of their calls, and observers as `context` of each event and of the outcome. Default None.
        label: Any object that tells this watch from others, such as a key or a row of the caller's; the outcome has it
            as `label`. With a journal it must be a plain JSON value, which is written down. Default None.
        output_type: The type that `outcome.parsed()` reads the run's text as: a pydantic model, a msgspec Struct, a
            dataclass, a TypedDict, or another type that these libraries read JSON as. It sends nothing: the schema is
            sent when the run is created, as by `client.run(output_type=...)`. Default None.
        cadence: The `Cadence`, which sets the pauses between polls. Default None: `Cadence.hinted()`, the server's
            hint, or without one 0.25 s growing to 1 s. For a batch: 2 s at first, then 5 % of its age, at most 5
            minutes.
        on_exit: What to do with a run that still goes on when the block is left, for whatever reason. "leave" (default)
            leaves it as it is. "cancel" cancels it and waits at most 5 s for it to end; a refused cancel is sent again
            when the status changes. `outcome` then shows what became of the run; if it could not be cancelled, a
            warning is logged and `outcome.cancel_error` says why. `Client.close` waits for this. The cancel of a batch
            takes minutes: once its status says so, the outcome is `GaveUp` without an error, with that status.
        on_lost_submit: What to do when no answer to a submit arrived and a poll can't show whether the outputs were
            taken, as with responses. "give_up" (default) finishes with `Reason.SUBMIT_LOST`; "resend" sends the same
            outputs again, which may create a second response. Tools do not run again in either case. No effect on a
            run of a thread, where a poll shows it.
        on_event: Observer, called with every event, `Ended` included. What an observer raises is logged and does not
            affect the watch. Default None, as for the other callbacks.
        on_status: Observer, called with a `StatusChanged` for each new status.
        on_requires_action: Handler, called once for each round with the list of its calls (see `Calls`). It returns
            outputs, as a mapping by call id or a list of `{"tool_call_id": ..., "output": ...}`, or None. Calls that it
            leaves out go to `tools`, as soon as it has returned. So that slow outputs delay nothing else, it may return
            them as awaitables: `return {call.id: ask_a_person(call)}`. If it or one of these raises, the watch finishes
            as `NeedsCaller` with the exception as `cause`.
        on_approval: Handler, called with the calls that ask for the approval of a tool behind the server. It returns
            True or False for all, a mapping by call id (whose values may also be `{"approve": ..., "headers": ...}`, or
            awaitables), a list of such dicts with their `tool_call_id`, or None. It may take its time: it has no time
            limit of its own, but is stopped when the watch finishes. Default None: approvals go to
            `on_requires_action`.
        on_terminal: Observer, called with the outcome when the watch finishes, unless as `NeedsCaller`; called again if
            a run that was given up is cancelled afterwards.

    Attributes:
        outcome: How the watch finished; None until then. Leaving the block may update it.

    Raises:
        InvalidRequestError: The arguments do not name a run, or an option is unknown or has an unusable value; or, on
            entering, another watch reads this stream.
        APIError: On entering: the stream ended, or `timeout` passed, before the stream named its run.
        JournalError: On entering: the client has a journal, and it could not be written.
        NotOwnerError: On entering: another process that has the same journal watches the run; or the watch of a token
            was delivered or forgotten.
    """

    @overload
    def __init__(
        self,
        client: RunClient[R],
        run: R | RunRef | EventStream[R, Any] | None = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: RunWatcher[Any],
        client: RunClient[Any],
        run: HasId | Mapping[str, Any] | EventStream[Any, Any],
        **options: Unpack[WatchOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: RunWatcher[Any], client: RunClient[Any], *, token: str, **options: Unpack[WatchOptions]
    ) -> None: ...

    def __init__(
        self,
        client: RunClient[Any],
        run: Any = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        token: str | None = None,
        **options: Unpack[WatchOptions],
    ) -> None:
        given = {"thread_id": thread_id, "run_id": run_id}
        check_client(client, "RunWatcher")
        self._token = None if token is None else token_alone(token, run=run, **given)
        by = run if self._token is None else self._token.run
        if isinstance(client, MultiWireClient) and by is not None:
            client = client.for_run(by)
        run = client.dialect.given(run if self._token is None else self._token.ref)
        check_watch_options(options)
        self._client = client
        self._context = Held.of(options.get("context"))
        self._subscribers: Subscribers[R] = Subscribers(
            self._stamped, lambda: self._machine, lambda: self._answering.progress
        )
        self._ids = {name: id_ for name, id_ in given.items() if id_ is not None}
        self._given = None
        self._following = None
        if isinstance(run, EventStream):
            source = source_of(run)
            if source.dialect != client.dialect.name:
                raise InvalidRequestError(
                    f"The stream is of a {source.dialect}, but this client watches a {client.dialect.name}: "
                    "use RunWatcher(client, stream) with a Client, which watches both"
                )
            ref = RunRef(client.dialect.name, ())  # the ids come from the stream, on entering
            self._following = StreamFollower(client, source, self._subscribers)
        else:
            ref = client.dialect.identify(run, self._ids)
            self._given = None if run is None or isinstance(run, RunRef) else client.dialect.snapshot(run)
        self._output_type = options.get("output_type")
        self._cancels_on_exit = options.get("on_exit") == "cancel"
        self._label = options.get("label")
        self._tools = options.get("tools")
        # The process that answers the calls of the run records it.
        self._journal = None if options.get("observe_only") else open_watches_of(client).journal
        self._recorder: WatchRecorder | None = None
        self._created_with: WatchRecorder | None = None  # what has recorded the create of the run
        if self._token is not None and not options.get("observe_only"):
            check_has_journal(self._token, self._journal)
        elif self._token is not None:
            self._token = None  # it only names the run: another process goes on with the watch
        self._delivered: AnyOutcome[R] | None = None  # what the caller has
        self._observed_end: AnyOutcome[R] | None = None  # what `on_terminal` has returned for
        self._settles_late = False  # whether the journal gets to know only after this was left what became of it
        if self._journal is not None:
            check_label(self._label)
        self._machine = RunLifecycle(policy_of(options, client.dialect))
        self._answering = CallAnswerer(
            handler=options.get("on_requires_action"),
            approve=options.get("on_approval"),
            tools=self._tools,
            limit=None if (at_once := options.get("max_concurrent_calls")) is None else ConcurrencyLimit(at_once),
            value=options.get("context"),
            post=self._receive,
            notify=self._notify,
        )
        self._engine = Engine(
            client,
            ref,
            self._machine,
            self._answering,
            self._following,
            cancels_on_exit=self._cancels_on_exit,
            on_notice=self._notify,
            on_end=self._end,
            on_read=self._tell_subscribers_of_end,
        )
        timeout = options.get("timeout", UNSET)
        self._begin_within = None if timeout is None or isinstance(timeout, UnsetType) else max(timeout, TAIL_S)
        self._observers = {name: options.get(name) for name in OBSERVER_OPTIONS}
        self._observed: Feed[R] | None = Feed() if any(self._observers.values()) else None
        self._iterated: Feed[R] = Feed()
        self._ended = asyncio.Event()
        self._task = OwnedTask(
            "watcher",
            log=WATCH_LOG,
            entering="RunWatcher(...) as watcher",
            once="This RunWatcher was entered before, and watches only once; create a new one",
        )
        self._open: OpenWatch | None = None
        self._trace: WatchTrace | None = None
        self._started = 0.0
        self.outcome: AnyOutcome[R] | None = None

    # The public side

    async def __aenter__(self) -> RunWatcher[R]:
        self._task.check_unused()
        self._engine.entered_by(asyncio.current_task(), contextvars.copy_context())
        if self._following is not None:
            await self._begin_to_follow(self._following)
        if self._recorder is not None:
            take_claimed(self._client, self._recorder)
        elif self._token is not None:
            self._take_up(await go_on_to_record(self._journal, self._token, self._tools, self._settle_unbegun))
        elif self._journal is not None:
            await self._begin_to_record(self._journal)
        if self._recorder is not None:
            self._recorder.on_wish = self._grant
            self._engine.record_with(self._recorder)
            self._engine.is_cancel_asked = self._recorder.is_cancel_asked
        self._started = loop_time()
        self._begin_trace(self._given)
        self._open = open_watches_of(self._client).add(self._leave if self._cancels_on_exit else None)
        await self._task.start(
            self._drive,
            name=f"asyncruns watch {self.ref}",
            on_done=self._stopped,
            leave=lambda: self.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None),
        )
        return self

    def _begin_trace(self, run: Snapshot[R] | None) -> None:
        """Make a trace of the watch from now on."""
        resource = None if run is None else run.resource
        self._trace = trace_of(self._client, self.ref, resource, self.traceparent, self._label)
        self._engine.follow_with(self._trace)

    def _end_trace(self, outcome: AnyOutcome[R] | None) -> None:
        trace, self._trace = self._trace, None
        if trace is not None:
            trace.ended(outcome)

    async def _begin_to_record(self, journal: Journal) -> None:
        try:
            self._recorder = self._created_with
            if self._recorder is None:
                record = record_of(self.ref, self._label, self._tools)
                self._recorder = await begin_to_record(journal, record, self._settle_unbegun)
            else:
                await begin_as_created(self._recorder)
        except BaseException as error:
            if self._following is not None:
                await self._following.close()
            if self._cancels_on_exit and not isinstance(error, NotOwnerError):
                await cancel_unwatched(self._client, self.ref)
                if isinstance(error, JournalError):
                    raise type(error)(
                        f"The run {self.ref} was cancelled, as it is not in the journal: {error.__cause__ or error}"
                    ) from error
            raise

    def _settle_unbegun(self, recorder: WatchRecorder) -> None:
        """Leave a watch to `resume` whose caller was cancelled while it was written down."""
        settle_later(recorder, recorder.settled(None, None), self._client)

    def _take_up(self, recorder: WatchRecorder) -> None:
        """Go on with a watch that was claimed, or that a token has handed over; to be called before entering."""
        record = recorder.record
        self._recorder, self._label = recorder, record.label
        self._engine.begin_with(ref_of(record), record.refs)

    async def _begin_to_follow(self, following: StreamFollower[R]) -> None:
        """Read the stream until it names its run.

        With `on_exit="cancel"`, a cancelled caller still waits at most 5 s for that: the run goes on at the server, and
        cannot be cancelled without its ids.
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
        WATCH_LOG.warning(
            "A stream was left before it named its run, so the run could not be cancelled; it may go on at the server"
        )

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
                if self._recorder is not None and not self._settles_late:
                    await self._recorder.settled(self._delivered or self._observed_end, self.outcome)
            if self.outcome is not None and self.outcome.refs != self._engine.refs:
                # The answer to a submit arrived after the end: it created a follow-up, which has a ref of its own.
                handed = None if self._engine.is_over else self._handed_over(self._machine.end)
                self.outcome = replace(self.outcome, ref=self._engine.ref, refs=self._engine.refs, _handed=handed)
        self._task.raise_once(error, "The watch of %s failed with an unexpected error", on_one_line(str(self.ref)))

    def _leave(self, by: float) -> None:
        if self._open is not None:
            self._open.leave_by(by + ENDING_GRACE_S)
        self._engine.leave(by=by, cancel=self._cancels_on_exit)

    async def wait(self) -> AnyOutcome[R]:
        """Wait until the watch finishes, and return its outcome.

        Can be called again: after `submit()` or `cancel_run()` have resumed a finished watch, it waits for the new
        outcome. Safe to cancel: the watch goes on until its block is left. A journal forgets the watch then.

        Raises:
            InvalidRequestError: The watcher was not entered with `async with`, or was entered in another event loop, or
                was left before the watch finished; or one of its own tools or handlers calls this, and would wait for
                itself.
        """
        self._task.check_entered()
        if not self._ended.is_set():
            check_may_wait(self._engine, "watch")
        if self._following is not None:
            await asyncio.sleep(0)  # a reader task that was just started registers first; else its events are discarded
        while True:
            if self._following is not None:
                self._following.held.discard()
            with self._iterated.waiter():
                await self._ended.wait()
            if self._task.is_done and self.outcome is None:
                self._task.raise_failure()
                raise InvalidRequestError(
                    f"The watcher of {self.ref} was left before the watch finished; call wait() inside its block"
                )
            if self.outcome is not None and self._ended.is_set():  # a submit may have resumed the watch since
                self._delivered = outcome = self.outcome
                return outcome

    async def __aiter__(self) -> AsyncIterator[Notice | Ended[R]]:
        """Iterate over the events of the watch; the last one is `Ended`. For one reader, which may stop at any time.

        A reader gets every event from the moment it starts, preceded by the newest 16 of those before. If it is 256
        events behind, a new `StatusChanged` or `ConnectivityChanged` replaces the last unread one. While a
        caller is in `wait()` and there is no reader, only the newest event is kept.

        Raises:
            InvalidRequestError: The watcher was not entered with `async with`, or was entered in another event loop, or
                another reader is active.
        """
        self._task.check_entered()
        with self._iterated.reader():
            while event := await self._iterated.get():
                yield event
                if isinstance(event, Ended):
                    self._delivered = event.outcome  # the reader has come back
                    return
        self._task.raise_failure()

    async def subscribe(self) -> AsyncGenerator[Subscribed[R]]:
        """Iterate over the state of the watch as it is, and over its events from now on; the last one is `Ended`.

        There may be any number of subscribers, and one may begin at any time: first it gets the `CurrentState`. For a
        streamed run that has the text so far, and the text that follows comes as `TextAdded`s. A subscriber that begins
        after the watch has finished gets the state and `Ended`.

        A subscriber holds up nothing. If it is 256 events behind, these are dropped, and it gets a `Gap`, which says
        how many, and the `CurrentState` again. While there are subscribers, and no reader of `stream_events` or
        `text_deltas`, the events of the stream are not kept for one. Ends without `Ended` when the block is left before
        the watch finishes.

        Raises:
            InvalidRequestError: The watcher was not entered with `async with`, or was entered in another event loop.
        """
        self._task.check_entered()
        if self._following is not None:
            await asyncio.sleep(0)  # as in `wait`
            self._following.held.discard()
        async with contextlib.aclosing(self._subscribers.read(self._ended_with)) as events:
            async for event in events:
                yield event

    def _ended_with(self) -> Ended[R] | None:
        """Return the end of the watch, if subscribers have nothing to get before it; otherwise None."""
        may_end = self._following is None or not self._following.is_wanted
        return Ended(self.outcome) if self.outcome is not None and self._ended.is_set() and may_end else None

    def _tell_subscribers_of_end(self) -> None:
        if (end := self._ended_with()) is not None:
            self._subscribers.put(end)

    def _stamped(self, event: E) -> E:
        return stamped(event, self.ref, self._context)

    async def stream_events(self) -> AsyncIterator[Any]:
        """Iterate over the server's own events, each once: of the given stream, and of the stream of each later round.

        Outputs are submitted with `stream=True`, so each round has a stream. At most 256 events are buffered, then the
        socket is not read: a slow reader slows the server down, and no event is dropped.

        A broken stream is reopened where it broke, if the server supports that. If not, the watch polls (and reports
        `StreamBroken`), and there are no more events until the next round. The text that is missing then arrives as one
        more delta when the run has ended or waits for the caller; such a delta of a response has no `sequence_number`.

        Ends when the watch has finished and everything is read, or when the block is left. For one reader at a time,
        which may stop and start again. Start reading before `wait()`, or concurrently: if there is no reader when
        `wait()` is called, the events are discarded.

        Raises:
            InvalidRequestError: The watcher was not entered, or was not given a stream, or another reader is active, or
                the events were discarded because there was no reader when `wait()` was called.
        """
        held = self._streamed().held
        with held.reader():
            while (event := await held.get()) is not None:
                yield event
        self._raise_if_broken()

    async def text_deltas(self) -> AsyncIterator[str]:
        """Iterate over the pieces of the text of all rounds as they arrive; apart from that like `stream_events`.

        Raises:
            InvalidRequestError: As `stream_events`.
            APIConnectionError: The text is incomplete: a stream broke and the rest could not be fetched, or the watch
                gave up before the run ended. Raised at the end, after all the text that there is.
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
                "This watch has no stream: create the run with stream=True, and pass the stream in place of the run"
            )
        return self._following

    async def submit(self, outputs: GivenOutputs) -> None:
        """Provide outputs for open calls, and resume the watch if it had finished; then `await wait()` again.

        Outputs are merged with those that exist already; once all calls of the round have one, they are submitted
        together. May be called while tools run, and after the watch finished as `NeedsCaller`. Returns at once; the
        submit happens in the background.

        Args:
            outputs: A mapping by call id, or a list of `{"tool_call_id": ..., "output": ...}`. An output that is not a
                string is sent as JSON.

        Raises:
            InvalidRequestError: There is no such call, or an output can't be sent as text, or the watch was not
                entered, was left or gave up, or its run has ended; nothing was submitted.
        """
        self._task.check_is_here()
        self._receive_if_running(OutputsProvided(loop_time(), texts_of(outputs)))

    async def cancel_run(self) -> None:
        """Ask the server to cancel the run, and stop its tools; a pending submit is awaited first (2 s on a thread).

        Returns at once: polls go on, and `wait()` returns how the run ended. That may be `Completed` if the run was
        faster, or `GaveUp` if the server accepted the cancel and the run still goes on a minute later. If the server
        refuses the cancel, or five tries within some 8 s do not reach it, `CancelRefused` is reported and the watch
        goes on; but if the run waits for tools that were stopped for the cancel, the outcome is `NeedsCaller`. May also
        be called after the watch finished as `NeedsCaller` or `GaveUp`, which resumes it; nothing happens if the run
        has ended.

        Raises:
            InvalidRequestError: The watcher was not entered, or was left; cancel the run through the client.
        """
        self._task.check_is_here()
        if not self._engine.is_over:
            self._receive_if_running(CancelAsked(loop_time()))

    def poll_now(self) -> None:
        """Poll the run at once: a webhook says that it has ended, say. Does not wait.

        If a poll is in flight, another one follows it, unless that shows the end. A `Retry-After` of the server is not
        waited for. Nothing happens if the watch has finished.

        Raises:
            InvalidRequestError: The watcher was not entered, or was left, or was entered in another event loop.
        """
        self._task.check_entered()
        if self._engine.is_running:
            self._engine.poll_now()

    def token(self) -> str:
        """Return a text with which another process goes on with this watch, as `client.watch(token=...)` does.

        It begins with "asyncruns1.", and holds no credential, header or URL, but what is said below; treat it as you
        treat the label and the outputs of tools.

        With a journal it names the watch there, and is valid at any time after entering. It can be used once this
        process has left the watch, or has ended: until then, using it raises a `NotOwnerError`. All that the
        journal holds is kept, so no call begins twice. The token of a `GaveUp` has what a token without a journal has
        in addition, since the journal forgets the watch when its outcome was delivered.

        Without a journal it has the dialect and the ids of the run, the label if that is plain JSON, the outputs of the
        open round, and the ids of calls that had begun, which are then treated as `if_interrupted` says; for a response
        also the parameters of its follow-ups, so it is not small. It may be used once: two watches that go on from it
        run the tools twice. So it is returned only after this watch has finished, or was left.

        If the parameters of a response may hold a credential, such as the headers of an MCP server, they are left out,
        and the client to go on with is `client.responses.continued(parameters)`.

        Raises:
            InvalidRequestError: The run has ended; or the watcher was not entered; or there is no journal, and the
                watch goes on.
        """
        is_left = self._task.is_done
        if self.outcome is not None and (self._ended.is_set() or is_left):
            if not (token := self.outcome.token):
                raise InvalidRequestError(f"The run {self.ref} has ended: there is nothing to go on with")
            return token
        if not self._task.was_started:
            raise InvalidRequestError("This watcher was not entered, so there is nothing to go on with: pass its ref")
        if (self._recorder is None or self._recorder.is_private) and not is_left:
            raise InvalidRequestError(
                f"The watch of {self.ref} goes on, and has no journal: two watches would run its tools twice. Leave it "
                "first, or pass journal=SQLiteJournal(...) to the client"
            )
        return token_for(self.ref, self._engine.refs, self._label, self._handed_over(None), self._client)

    def _handed_over(self, end: End | None) -> HandedOver:
        if self._recorder is None:
            return handed_over("", self._machine, end)
        return self._recorder.handed_over(self._machine, end)

    def _grant(self, wish: Wish, run: str | RunRef) -> bool:
        """Do what another process asks of this watch; return False if it does not watch this run."""
        if (isinstance(run, RunRef) and run not in self._engine.refs) or not self._engine.is_running:
            return False
        if wish is Wish.POLL:
            self._engine.poll_now()
        elif not self._engine.is_over:
            self._engine.receive(CancelAsked(loop_time()))
        return True

    def _receive_if_running(self, event: Event) -> None:
        if not self._engine.is_running or self._engine.is_over:
            raise InvalidRequestError(
                f"The watch of {self.ref} was not entered, or was left, or its run has ended; if the run goes on, use "
                "the client: client.threads.runs.submit_tool_outputs() or .cancel()"
            )
        self._engine.receive(event)

    @property
    def ref(self) -> RunRef:
        """The ref of the watched run. It changes if a submit creates a new one, as with responses.

        Of a stream, the ids are known once the watcher was entered.
        """
        return self._engine.ref

    @property
    def label(self) -> Any:
        """What the caller gave as `label=`; of a watch that is resumed, what the journal has."""
        return self._label

    @property
    def traceparent(self) -> str:
        """The W3C trace context in which the watch was written down first, to link to; "" if there was none.

        It is that of OpenTelemetry's current span, if the program uses OpenTelemetry. "" without a journal.
        """
        return "" if self._recorder is None else self._recorder.record.traceparent

    @property
    def polls(self) -> int:
        """Number of polls sent."""
        return self._engine.polls

    @property
    def run(self) -> R | None:
        """The run as the last poll or stream event showed it, or as it was given; None when neither is known."""
        snapshot = self._machine.snapshot
        return snapshot.resource if snapshot else None

    @property
    def status(self) -> str:
        """The run's status, as the server spells it, or "" when it is not known yet."""
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
            observe = partial(deliver, self._observed, self._observers, (self._engine,), self._was_observed)
            group.start_soon(outlasting, observe, group.cancel_scope)
            await self._engine.run(self._given, begun)
            with anyio.move_on_after(OBSERVER_GRACE_S):
                await self._observed.drained()
            group.cancel_scope.cancel()

    def _was_observed(self, outcome: AnyOutcome[R]) -> None:
        self._observed_end = outcome

    def _receive(self, event: Event) -> None:
        self._engine.receive(event)

    def _stopped(self) -> None:
        if self.outcome is not None and self._ended.is_set():
            self._subscribers.put(Ended(self.outcome))
        self._end_trace(None)
        self._ended.set()
        self._iterated.close()
        self._subscribers.close()
        if self._open is not None:
            open_watches_of(self._client).remove(self._open)
        if self._following is not None:
            self._following.held.finish()

    def _notify(self, notice: Notice) -> None:
        if self._trace is not None:
            self._trace.notice(notice)
        self._deliver(self._stamped(notice))
        log_notice(WATCH_LOG, self.ref, notice)

    def _deliver(self, event: Notice | Ended[R]) -> None:
        if self._observed is not None and any(calls_for(event, self._observers)):
            self._observed.put(event)
        self._iterated.put(event)
        if not isinstance(event, Ended):
            self._subscribers.put(event)

    def _end(self, end: End | None) -> None:
        if end is None:  # the watch was resumed; `outcome` keeps the earlier outcome until there is a new one
            self._ended.clear()
            self._begin_trace(self._machine.snapshot)
            if self._following is not None and self._subscribers:
                self._following.held.discard()  # as when they began
            return
        if self._recorder is not None and end.reason in (Reason.NOT_FOUND, Reason.GONE):
            end = recorded_end(self._recorder.record, self._client) or end
        self.outcome = outcome_of(
            end,
            self._engine.ref,
            self._engine.refs,
            self._client,
            polls=self.polls,
            elapsed=loop_time() - self._started,
            at=wall_time(),
            context=self._context,
            cancel_requested=self._machine.cancel_requested,
            cancel_error=self._machine.cancel_error,
            label=self._label,
            output_type=self._output_type,
            handed=self._handed_over,
        )
        self._end_trace(self.outcome)
        self._deliver(Ended(self.outcome))
        self._ended.set()
        self._tell_subscribers_of_end()
        log_outcome(WATCH_LOG, self.outcome)
        if self._open is not None and self._open.by < math.inf:
            self._open.settle()
            warn_of_uncancelled(WATCH_LOG, self.outcome)


async def outcome_of_watch(watcher: RunWatcher[R]) -> AnyOutcome[R]:
    """Enter a watcher, and return the outcome once it was left.

    The journal is told only after the caller has the outcome, in the background: a caller that is cancelled in the
    meantime has none. Closing the client waits for that.
    """
    watcher._settles_late = True
    delivered: AnyOutcome[R] | None = None
    try:
        async with watcher:
            outcome = await watcher.wait()
        delivered = watcher.outcome or outcome  # with on_exit="cancel", leaving may have updated it
        return delivered
    finally:
        if (recorder := watcher._recorder) is not None:
            settled = recorder.settled(delivered or watcher._observed_end, watcher.outcome)
            settle_later(recorder, settled, watcher._client)


_SETTLING: Final[set[asyncio.Task[None]]] = set()


def settle_later(recorder: WatchRecorder, settling: Coroutine[Any, Any, None], client: RunClient[Any]) -> None:
    """Write in the background what became of a single watch; closing the client waits for it."""
    watches = open_watches_of(client)
    known = watches.add()
    known.leave_by(loop_time() + LEAVING_GRACE_S)

    async def settle() -> None:
        try:
            await settling
        finally:
            watches.remove(known)

    recorder.settling = task = asyncio.create_task(settle(), name="asyncruns journal")
    _SETTLING.add(task)  # the loop keeps only a weak reference
    task.add_done_callback(_SETTLING.discard)


async def cancel_unwatched(client: RunClient[Any], run: Any, options: WatchOptions | None = None) -> None:
    """Cancel a run whose caller was cancelled before the run was watched.

    Takes at most as long as leaving a watch, and logs the same warning if the run could not be cancelled.
    """
    cancelling: WatchOptions = {**(options or WatchOptions()), "on_exit": "cancel"}
    watcher: RunWatcher[Any] = RunWatcher(client, run, **cancelling)
    watcher._journal = None  # no caller is to get its outcome
    async with watcher:
        pass
