"""What `Fleet` and its `Watch` handles share: the task of the fleet, its runner, and its outcomes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, Generic, Literal, TypeVar

import anyio
from msgspec import UNSET, UnsetType

from asyncruns._loop import ENDING_GRACE_S, LEAVING_GRACE_S, OBSERVER_GRACE_S, OwnedTask, loop_time, outlasting, wake
from asyncruns.abc import Journal, MultiWireClient, RunClient
from asyncruns.errors import APIConnectionError, InvalidRequestError, JournalError
from asyncruns.fleet.budget import Budget
from asyncruns.fleet.creates import CreatesRuns, PendingRun
from asyncruns.fleet.listener import Listener
from asyncruns.fleet.member import Member
from asyncruns.fleet.member_stream import MemberStream
from asyncruns.fleet.outcomes import Outcomes
from asyncruns.fleet.permits import PermittedTransport
from asyncruns.fleet.runner import Runner
from asyncruns.fleet.settings import OPTIONS_OF_FLEETS, FleetSettings
from asyncruns.lifecycle import RunRef
from asyncruns.lifecycle.records import WatchRecord, ref_of
from asyncruns.resources.new_run import NewRun
from asyncruns.streams.event_stream import EventStream, source_of
from asyncruns.timeline import TimelineFile
from asyncruns.tools import Toolset
from asyncruns.user_code import check_may_leave, check_may_wait
from asyncruns.user_code.guarded_telemetry import GuardedTelemetry
from asyncruns.watch.begin_recording import begun_now, check_label, record_of, record_privately, with_its_tools
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.watch.handover import Token, check_has_journal, token_in
from asyncruns.watch.logs import FLEET_LOG
from asyncruns.watch.observers import Observer, Observers
from asyncruns.watch.open_watches import OpenWatch, OpenWatches, keeps_open_watches, open_watches_of
from asyncruns.watch.options import SharedOptions, check_watch_options

R = TypeVar("R")

LEFT: Final = "The fleet was left; make a new one"
CANCELS_PER_S: Final = 100.0  # the most requests per second that the time for cancels is computed with
REQUESTS_OF_CANCEL: Final = 2  # the cancel, and a poll that shows its effect
REFUSED_FOR_S: Final = 600.0  # the most time for cancels if the server has slowed us down; runs expire within it


class Hub(Generic[R]):
    """Runs the one task of a fleet, and checks that the fleet may be entered, used and left.

    Args:
        client: Sends the requests of watches without a client of their own.
        requests_per_second: As for `Fleet`, like the other arguments.

    Attributes:
        runner: Sends what the schedule plans.
        outcomes: Delivers the outcomes.
        task: The one task of the fleet.
    """

    def __init__(
        self,
        client: RunClient[R],
        *,
        requests_per_second: float | None,
        max_in_flight: int,
        on_outcome: Observer | None,
        on_exit: Literal["drain", "leave", "cancel"],
        journal: Journal | None,
        options: SharedOptions,
    ) -> None:
        self._client = client
        self._speaks = client.for_run if isinstance(client, MultiWireClient) else None
        self._settings = FleetSettings(options)
        self._on_exit = on_exit
        self._per_second = math.inf if requests_per_second is None else requests_per_second
        self._observers = Observers()
        self.outcomes: Outcomes[R] = Outcomes(
            self._observers, on_outcome, lambda member, outcome: self.runner.delivered(member, outcome)
        )
        budget = Budget(requests_per_second, max_in_flight)
        self.runner: Runner = Runner(
            budget,
            on_end=self.outcomes.note,
            on_begun=self.outcomes.wake_all,
            keeps_unfinished=on_exit == "cancel",
            journal=journal,
        )
        self._adding: list[asyncio.Task[Any] | None] = []  # the tasks that add runs
        self._leaving: asyncio.Task[Any] | None = None  # the task that leaves: it adds no more
        self._read: Counter[Listener] = Counter()  # of watches whose events are being read, with how many read them
        self.task: OwnedTask = OwnedTask(
            "fleet", log=FLEET_LOG, entering="Fleet(...) as fleet", once="A Fleet is entered once; make a new one"
        )
        self._open: list[tuple[OpenWatches, OpenWatch]] = []  # one for each client in use
        self._last_context = contextvars.Context()
        self._timelines: TimelineFile | None = None

    # Entering and leaving

    async def enter(self) -> None:
        """Start to run. Safe to cancel: the fleet is left then.

        Raises:
            InvalidRequestError: The fleet was entered before, or its journal is not open.
        """
        self.task.check_unused()
        if self.runner.records is not None and not self.runner.records.journal.is_open:
            raise InvalidRequestError(
                "The journal of this fleet is not open: async with SQLiteJournal(...) as journal, "
                "Fleet(client, journal=journal) as fleet: ..."
            )
        self._register(self._client)
        await self.task.start(
            self._drive,
            name="asyncruns fleet",
            on_done=self._stopped,
            leave=lambda: self.exit(asyncio.CancelledError()),
        )

    async def exit(self, error: BaseException | None) -> None:
        """Stop running, as `on_exit` says. If the block was left by an error, "drain" does not wait for runs."""
        if not self.task.was_started:
            return
        self.task.check_is_here()
        check_may_leave(self.runner, "fleet")
        self._leaving = asyncio.current_task()
        try:
            if error is None and self._on_exit == "drain":
                await self._drain_all()
        finally:
            by = self._leave_by()
            self._leave(by)
            await self.task.join(by)
            if self._timelines is not None:
                await self._timelines.aclose()
        self.task.raise_once(error, "The fleet broke")

    async def record(self, path: str | os.PathLike[str], *, labels: bool) -> None:
        """Write timelines of the watches that begin from now on to a file; `Fleet.record` describes the arguments.

        Raises:
            ConfigurationError: The file cannot be used.
            InvalidRequestError: This fleet writes timelines already; or it is not running, or in another event loop.
        """
        self.check_goes_on()
        if self._timelines is not None:
            raise InvalidRequestError("This fleet writes timelines already: call record() once")
        timelines = self._timelines = TimelineFile(path, labels=labels)
        try:
            await timelines.open()
        except BaseException:
            self._timelines = None
            raise
        self.runner.recording = GuardedTelemetry(timelines)

    def _leave(self, by: float) -> None:
        for _, watch in self._open:
            watch.leave_by(by + ENDING_GRACE_S)
        self.runner.leave(by=by, cancel=self._on_exit == "cancel")

    def _end(self, by: float) -> None:
        """Leave the fleet because the client is being closed; cancels get the time that the budget needs."""
        self._leave(max(by, self._leave_by()))

    def _register(self, client: RunClient[Any]) -> None:
        """Register at a client, so that closing it waits while this fleet is being left."""
        if not keeps_open_watches(client):
            return
        watches = open_watches_of(client)
        if all(watches is not known for known, _ in self._open):
            self._open.append((watches, watches.add(self._end if self._on_exit == "cancel" else None)))

    def _leave_by(self) -> float:
        """Return when leaving must be over, by the loop's clock: cancelling takes as long as the budget needs.

        For example, cancelling 300 runs at 100 requests per second takes 600 requests, so 6 s in addition to the 5 s
        for pending ones. If the server has slowed the fleet down to 2 per second, they would take 300 s;
        with 3000 runs 3000 s, of which 600 s are allowed.
        """
        now = loop_time()
        if self._on_exit != "cancel":
            return now + LEAVING_GRACE_S
        roster, budget = self.runner.roster, self.runner.schedule.budget
        pause = max(budget.ready_at(now) - now, 0.0)
        if self.runner.creates.begun:
            pause += LEAVING_GRACE_S  # for their answers; the runs are cancelled then
        requests = REQUESTS_OF_CANCEL * (roster.active + len(roster.unfinished))
        full = min(self._per_second, CANCELS_PER_S)
        asking = min(requests / min(budget.rate, full), max(requests / full, REFUSED_FOR_S))
        return now + LEAVING_GRACE_S + pause + asking

    async def drain(self) -> None:
        """Wait until no run is being created or watched, and nothing adds runs. Safe to cancel: the fleet goes on.

        Raises:
            InvalidRequestError: The fleet was entered in another event loop; or this was called by one of its tools or
                handlers, or by the task that adds runs, which would wait for itself.
        """
        self.task.check_is_here()
        check_may_wait(self.runner, "fleet")
        if asyncio.current_task() in self._adding and asyncio.current_task() is not self._leaving:
            raise InvalidRequestError(
                "drain() waits until nothing adds runs, and this task does: leave keep_open() before"
            )
        while self.goes_on():
            await self.outcomes.news()

    async def _drain_all(self) -> None:
        await self.drain()
        while self.is_running and await self._observers.drained(OBSERVER_GRACE_S) and self.goes_on():
            await self.drain()  # an observer has added runs

    async def _drive(self, begun: asyncio.Future[None]) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(outlasting, self._observers.run, group.cancel_scope)
                records = self.runner.records
                if records is not None:
                    group.start_soon(outlasting, records.run, group.cancel_scope)
                await self.runner.run(begun)
                with anyio.move_on_after(OBSERVER_GRACE_S):
                    await self._observers.drained(OBSERVER_GRACE_S)
                if records is not None:
                    with anyio.move_on_after(OBSERVER_GRACE_S):
                        records.leave()
                        await records.written()
                group.cancel_scope.cancel()
        finally:
            self._observers.warn_of_waiting()

    def _stopped(self) -> None:
        for watches, known in self._open:
            watches.remove(known)
        for listener in list(self._read):
            listener.stop()
        for pending in self.runner.creates:
            wake(pending.answered)
        for member in (*self.runner.roster, *(pending.member for pending in self.runner.creates)):
            member.end_trace(None)
            for listener in member.listeners:
                listener.stop()
        self.outcomes.wake_all()

    # Watches

    def add_run(
        self,
        run: Any,
        ids: Mapping[str, str | None],
        client: RunClient[Any] | None,
        options: SharedOptions,
        shared: Listener | None = None,
    ) -> tuple[Member, Listener]:
        """Watch a run; `Fleet.watch` describes the other arguments.

        Args:
            run: The run.
            ids: Its ids, by the names of the parameters.
            client: The client for this run; None for the fleet's.
            options: The options of this watch.
            shared: The listener of another watch that nobody holds. It is used again, to save memory, if the observers
                and the context variables are the same.

        Raises:
            InvalidRequestError: They are invalid; or the fleet is not running, or runs in another event loop.
        """
        self.check_goes_on()
        if self.runner.is_left:
            raise InvalidRequestError(LEFT)
        client = self._chosen(client, run)
        run = client.dialect.given(run)
        named = {name: id_ for name, id_ in ids.items() if id_ is not None}
        if isinstance(run, EventStream):
            return self._add_stream(run, named, client, options)
        ref = client.dialect.identify(run, named)
        check_own_options(options)
        context = self._current_context()
        member = self.runner.roster.find(ref)
        given = None
        if member is None:
            member = self._member_of(client, ref, options, context)
            given = None if run is None or isinstance(run, RunRef) else client.dialect.snapshot(run)
        listener = self._listener_of(options, context, shared)
        member.add_listener(listener)
        if not member.is_watched:
            self.runner.add_member(member, given)
        return member, listener

    def go_on(self, text: object, client: RunClient[Any] | None, options: SharedOptions) -> tuple[Member, Listener]:
        """Go on with the watch of a token; `Fleet.watch` describes the arguments, and `add_run` what is raised."""
        self.check_goes_on()
        token = token_in(text)
        is_observer = self._settings.with_own(options).get("observe_only")
        if is_observer or self.runner.roster.watched(token.ref) is not None:  # it only names the run
            return self.add_run(token.ref, {}, client, options)
        if self.runner.is_left:
            raise InvalidRequestError(LEFT)
        records = self.runner.records
        check_has_journal(token, None if records is None else records.journal)
        client = self._chosen(client, token.run)
        client.dialect.identify(token.ref, {})
        check_own_options(options)
        own: SharedOptions = {**options, "label": None if token.record is None else token.record.label}
        context = self._current_context()
        member = self._member_of(client, RunRef(client.dialect.name, ()), own, context)
        listener = self._listener_of(options, context, None)
        member.add_listener(listener)
        new = NewRun(client, lambda guard: self._claimed(member, token))
        self.runner.add_named(PendingRun(member, new, None))
        return member, listener

    async def _claimed(self, member: Member, token: Token) -> RunRef:
        """Return the run that the watch of a token is at, once it is ours."""
        if self.runner.records is not None:
            try:
                await self.runner.records.go_on(member, token)
            except JournalError:
                member.ref = token.ref  # so that its outcome names it
                raise
        else:
            member.recorder = await record_privately(begun_now(token.record or record_of(token.ref, None)))
        if member.recorder is None:
            return token.ref
        member.label = member.recorder.record.label
        return ref_of(member.recorder.record)

    def _chosen(self, client: RunClient[Any] | None, run: object) -> RunClient[Any]:
        """Return the client for a run: the fleet's, if none is given."""
        if client is None:
            return self._client if self._speaks is None else self._speaks(run)
        self._register(client)
        return client.for_run(run) if isinstance(client, MultiWireClient) else client

    def resume(
        self, record: WatchRecord, options: SharedOptions, toolsets: Iterable[Toolset]
    ) -> tuple[Member, Listener]:
        """Go on with a watch that another process has left in the journal; `Fleet.resume` describes the options."""
        self.check_goes_on()
        if record.toolset:
            given = self._settings.with_own(options).get("tools")
            options = {**options, "tools": with_its_tools(record, given, toolsets)}
        if record.ref is None:
            return self._resume_create(record, options)
        ref = RunRef.of(record.ref)
        client = self._client if self._speaks is None else self._speaks(ref)
        client.dialect.identify(ref, {})
        context = self._current_context()
        member = self.runner.roster.find(ref)
        is_new = member is None
        if member is None:
            member = self._member_of(client, ref, {**options, "label": record.label}, context)
        elif not member.is_recorded:
            raise InvalidRequestError("This fleet watches it with observe_only: cancel that watch first")
        listener = self._listener_of(options, context, None)
        member.add_listener(listener)
        if is_new:
            self.runner.resume(member, record)
        elif self.runner.records is not None:
            self.runner.records.claimed(member, record)
        return member, listener

    def _resume_create(self, record: WatchRecord, options: SharedOptions) -> tuple[Member, Listener]:
        creator: RunClient[Any] = self._client
        if not isinstance(creator, CreatesRuns):
            raise InvalidRequestError(f"It is to be created, and a {type(creator).__name__} creates no runs")
        sender = PermittedTransport(creator, self.runner.permits)
        if record.creating is None:
            new = NewRun(creator, _cannot_ask_again)
        else:
            new = creator._new_run_again(record.creating, self._settings.with_own(options), sender)
        context = self._current_context()
        ref = RunRef(new.client.dialect.name, ())
        member = self._member_of(new.client, ref, {**options, "label": record.label}, context)
        listener = self._listener_of(options, context, None)
        member.add_listener(listener)
        self.runner.resume_create(PendingRun(member, new, sender), record)
        return member, listener

    async def recorded(self, member: Member) -> None:
        """Wait until the journal has the watch of a member; returns at once without a journal. Safe to cancel."""
        cause = None if member.outcome is None or member.recorder is not None else member.outcome.cause
        if isinstance(cause, JournalError):  # it was to go on from a token
            raise cause
        if self.runner.records is not None and member.recorder is not None:
            await self.runner.records.added(member.recorder)

    async def acknowledge(self, member: Member) -> None:
        """Note that the outcome of a member was delivered; after the fleet was left, write that at once."""
        self.outcomes.delivered(member)
        await self.write_delivered()

    async def write_delivered(self) -> None:
        """Write which outcomes were delivered, if the fleet was left, so that nothing else does. Safe to cancel."""
        records = self.runner.records
        if records is not None and self.task.is_done:
            with contextlib.suppress(JournalError):  # it is delivered again then
                await records.write_delivered()

    def _add_stream(
        self, stream: EventStream[Any, Any], ids: Mapping[str, str], client: RunClient[Any], options: SharedOptions
    ) -> tuple[Member, Listener]:
        check_own_options(options)
        source = source_of(stream)
        if source.dialect != client.dialect.name:
            raise InvalidRequestError(
                f"The stream is of a {source.dialect}, but this client watches a {client.dialect.name}"
            )
        context = self._current_context()
        member = self._member_of(client, RunRef(client.dialect.name, ()), options, context)
        member.stream = following = MemberStream(member, client, source, self.outcomes.wake_all)
        listener = self._listener_of(options, context, None)
        member.add_listener(listener)
        timeout = self._settings.with_own(options).get("timeout", UNSET)
        begin = partial(following.begin, ids, None if isinstance(timeout, UnsetType) else timeout)
        cancels = self._on_exit == "cancel"  # then leaving waits for the name of the run
        new = NewRun(client, lambda guard: guard.keep(begin()) if cancels else begin())
        self.runner.add_named(PendingRun(member, new, None))
        return member, listener

    def _member_of(
        self, client: RunClient[Any], ref: RunRef, options: SharedOptions, context: contextvars.Context
    ) -> Member:
        given = self._settings.with_own(options)
        label = given.get("label")
        records = self.runner.records if not given.get("observe_only") else None
        if records is not None:
            check_label(label)
        own: SharedOptions = options.copy()
        own.pop("label", None)  # runs that have nothing but a label of their own share their settings
        policy, answerers = self._settings.of(own, client.dialect)
        member = Member(self.runner, client, ref, policy, answerers, context, label)
        member.is_recorded = records is not None
        return member

    def _listener_of(self, options: SharedOptions, context: contextvars.Context, shared: Listener | None) -> Listener:
        observers = self._settings.observers(options)
        if shared is not None and shared.is_like(observers, context):
            return shared
        return Listener(self._observers, observers, context=context)

    def add_create(
        self,
        arguments: Mapping[str, Any],
        client: RunClient[Any] | None,
        options: SharedOptions,
        shared: Listener | None = None,
    ) -> tuple[Member, Listener]:
        """Create a run, and watch it then; `Fleet.run` describes the other arguments.

        Args:
            arguments: What `Client.run` takes, but for the options of the watch.
            client: The client that creates the run; None for the fleet's.
            options: The options of this watch.
            shared: As for `add_run`.

        Raises:
            InvalidRequestError: They are invalid; or the fleet is not running, or runs in another event loop.
        """
        self.check_goes_on()
        if self.runner.is_left:
            raise InvalidRequestError(LEFT)
        creator: RunClient[Any] = self._client if client is None else client
        if not isinstance(creator, CreatesRuns):
            raise InvalidRequestError(
                f"A Client creates runs, and this is a {type(creator).__name__}: pass client=, or create the run, and "
                "watch it with fleet.watch(run)"
            )
        if client is not None:
            self._register(client)
        sender = PermittedTransport(creator, self.runner.permits)
        new = creator._new_run(
            self._settings.with_own(options), sender, whose="fleet.run", known=SharedOptions, **arguments
        )
        context = self._current_context()
        member = self._member_of(new.client, RunRef(new.client.dialect.name, ()), options, context)
        listener = self._listener_of(options, context, shared)
        member.add_listener(listener)
        creating = new.to_ask_again() if member.is_recorded and new.to_ask_again is not None else None
        self.runner.add_create(PendingRun(member, new, sender), creating)
        return member, listener

    def _current_context(self) -> contextvars.Context:
        """Return a copy of the context variables: the last one if they have not changed since, to save memory."""
        context = contextvars.copy_context()
        last = self._last_context
        # By identity: values that are equal may be different objects.
        if len(context) != len(last) or any(last.get(name, last) is not value for name, value in context.items()):
            self._last_context = context
        return self._last_context

    async def answered(self, member: Member) -> None:
        """Wait until the run of a member is created, or will not be, or the fleet has stopped. Safe to cancel."""
        pending = self.runner.creates.of(member)
        if pending is not None:
            await asyncio.wait({pending.answered})

    def cancel(self, member: Member, listener: Listener) -> None:
        """Cancel a watch, and discard the member if it has no other."""
        member.remove_listener(listener)
        if not member.listeners:
            self.runner.creates.give_up(member)
            self.runner.discard(member)
            if self.runner.records is not None:
                self.runner.records.forget(member)
            self.runner.progress.changed(member.machine.counts, None)
            self.outcomes.wake_all()
        listener.cancel()

    def forget(self, member: Member) -> None:
        """Forget the watch of a member in the journal; its run needs the caller, who does not want it."""
        if self.runner.records is not None and not member.is_watched:
            self.runner.records.forget(member)

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """Count as a caller that adds runs; `drain` waits for it."""
        task = asyncio.current_task()
        self._adding.append(task)
        try:
            yield
        finally:
            self._adding.remove(task)
            self.outcomes.wake_all()

    @contextlib.contextmanager
    def reading(self, listener: Listener) -> Iterator[None]:
        """Count as a reader of the events of a watch; it is woken when the fleet stops."""
        self._read[listener] += 1
        try:
            yield
        finally:
            self._read[listener] -= 1
            if not self._read[listener]:
                del self._read[listener]

    async def room_below(self, at_most: int, *, queue: float = math.inf) -> None:
        """Wait until fewer than `at_most` runs are watched, or have outcomes that wait for a reader. Safe to cancel.

        Args:
            at_most: The number of runs.
            queue: How many creates may wait for the budget.

        Raises:
            InvalidRequestError: The fleet was left in the meantime.
        """
        runner = self.runner
        while runner.roster.active + self.outcomes.awaiting_reader >= at_most or runner.creates.waiting >= queue:
            await self.outcomes.news()
            self.check_goes_on()

    # State

    @property
    def is_running(self) -> bool:
        """Whether the fleet is running, so that runs can be watched."""
        return self.runner.is_running

    def goes_on(self) -> bool:
        """Return whether runs are being watched or added. A fleet does not wait for the task that leaves it."""
        is_adding = any(task is None or task is not self._leaving for task in self._adding)
        return self.is_running and (self.runner.roster.active > 0 or is_adding or self.runner.is_reading)

    def check_goes_on(self) -> None:
        """Check that the fleet is running, in this event loop.

        Raises:
            InvalidRequestError: The fleet was not entered, or was left, or was entered in another event loop.
            Exception: The error that broke the fleet, if there was one.
        """
        self.task.check_entered()
        if self.task.is_done:
            self.task.raise_failure()
        if not self.is_running:
            raise InvalidRequestError(LEFT)


async def _cannot_ask_again(guard: CreateGuard) -> Any:
    begun = guard.recorder is not None and bool(guard.recorder.record.submitting)
    said = "It may exist" if begun else "Nothing was sent"
    raise APIConnectionError(
        f"The codec of the journal has dropped what it takes to ask for the run. {said}; ask for it again", sent=begun
    )


def check_own_options(options: SharedOptions) -> None:
    """Check the options of one watch of a fleet."""
    if options:
        check_watch_options(options, SharedOptions, elsewhere=(OPTIONS_OF_FLEETS, "that is an option of the fleet"))
