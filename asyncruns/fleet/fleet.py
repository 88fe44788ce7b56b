"""Watches thousands of runs in one process, under one budget of requests.

There is no task per run: each run is a lifecycle and a place in the schedule, and one owned task (`runner.py`) asks for
the runs that are worth it. Who waits, iterates or looks on is served here.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Generic, Literal, TypeVar, Unpack, overload

import anyio

from asyncruns._loop import loop_time
from asyncruns.abc import AsyncOnly, MultiWireClient, RunClient
from asyncruns.dialects.given import check_client
from asyncruns.errors import InvalidRequestError
from asyncruns.fleet.budget import Budget, check_budget
from asyncruns.fleet.handle import Watch
from asyncruns.fleet.member import Member
from asyncruns.fleet.outcomes import Outcomes
from asyncruns.fleet.runner import Runner
from asyncruns.fleet.schedule import Schedule
from asyncruns.fleet.settings import FleetSettings
from asyncruns.fleet.statistics import Statistics
from asyncruns.lifecycle import RunRef
from asyncruns.streams.event_stream import EventStream
from asyncruns.watch.observers import Observer, Observers, log
from asyncruns.watch.open_watches import (
    ENDING_GRACE_S,
    LEAVING_GRACE_S,
    OpenWatch,
    OpenWatches,
    check_is_here,
    check_may_leave,
    check_may_wait,
    joined,
    open_watches_of,
    outlasting,
    raise_failure,
)
from asyncruns.watch.options import SharedOptions, check_watch_options
from asyncruns.watch.outcome import AnyOutcome

R = TypeVar("R")
T = TypeVar("T")

OBSERVER_GRACE_S: Final = 2.0  # who leaves waits so long for observers that have not seen all yet
ADDED_AT_ONCE: Final = 16  # of some 20 microseconds each
LEFT: Final = "The fleet was left; make a new one"
CANCELS_PER_S: Final = 100.0  # so many at least, where there is no limit
REQUESTS_OF_CANCEL: Final = 2  # the cancel, and a poll that shows what became of it
REFUSED_FOR_S: Final = 600.0  # how long they may take at most where the server has slowed us down: runs expire in that


class Fleet(AsyncOnly, Generic[R]):
    """Watch many runs, under one budget of requests, with one set of tools.

    Use it with `async with`. Leaving the block waits for all runs; see `on_exit`. When it is left by an exception or a
    cancellation, the runs are not waited for. Submits on their way always are, up to 5 s.

    Looks go to those runs first whose end has likely waited longest for one: the fleet learns how long runs of an
    assistant and model take. Submits and cancels go before all looks. A 429, or a small
    `x-ratelimit-remaining-requests`, slows the whole fleet down, and it speeds up again by and by.

    Of an answer no more is kept than what the watch goes by: `run` of a `GaveUp` is mostly None, and its `status` tells
    what was seen last.

    Args:
        client: A `Client`, or what `RunWatcher` takes.
        requests_per_second: For polls, submits and cancels together, in every second. The default of 100 polls 200 runs
            as often as every 2 s, and is lowered by itself when the server refuses more for it. None is no limit of
            ours, but for what the server refuses. Of a limit that the server enforces give a tenth less: on
            their way requests come closer together, and of the full rate some 2 % would be refused, for no gain.
        max_in_flight: How many requests may be unanswered at once. A client has 100 connections.
        on_outcome: Called with each outcome. All observers of a fleet are called one after the other, so whatever takes
            long, begin in a task: while they are far behind, of the statuses of a run only the newest is kept. What
            one raises is logged.
        on_exit: What leaving the block does with runs that go on: "drain" waits for their ends, and until observers
            were told of all, or one takes more than 2 s; "leave" leaves them as they are, and "cancel" cancels them,
            and waits for that for 5 s, and as long as the budget takes for a cancel and a poll of each, but for 10
            minutes at most where the server has slowed the fleet down; with those that were given up, or need the
            caller, the newest 10,000. A run that could not be cancelled has an outcome with `cancel_error`, of which
            observers are told, and a warning is logged. Both wait 2 s at most for observers. A warning is logged
            where these were not told of all. `Client.close` waits for a fleet that is being left.
        **options: The options of `RunWatcher`, for all runs: `tools`, `on_requires_action`, `on_approval`, `timeout`,
            `max_outage`, `max_unknown_status`, `max_rounds`, `keep_tool_choice`, `on_lost_submit`, `on_status`,
            `on_terminal`; and `max_concurrent_calls`, of all runs together. By default, `cadence` is
            `Cadence.learned()`.

    Raises:
        InvalidRequestError: An option can't be used; the message says what to give.
    """

    def __init__(
        self,
        client: RunClient[R],
        *,
        requests_per_second: float | None = 100.0,
        max_in_flight: int = 64,
        on_outcome: Observer | None = None,
        on_exit: Literal["drain", "leave", "cancel"] = "drain",
        **options: Unpack[SharedOptions],
    ) -> None:
        check_watch_options(options, SharedOptions)
        check_budget(requests_per_second, max_in_flight)
        check_client(client, "Fleet")
        if on_exit not in ("drain", "leave", "cancel"):
            raise InvalidRequestError(f'on_exit must be "drain", "leave" or "cancel"; got {on_exit!r}')
        self._client = client
        self._speaks = client.for_run if isinstance(client, MultiWireClient) else None
        self._settings = FleetSettings(options)
        self._on_exit = on_exit
        self._observers = Observers()
        self._outcomes: Outcomes[R] = Outcomes(self._observers, on_outcome)
        self._per_second = math.inf if requests_per_second is None else requests_per_second
        self._budget = Budget(requests_per_second, max_in_flight)
        self._runner = Runner(self._budget, on_end=self._outcomes.note, keeps_unfinished=on_exit == "cancel")
        self._adding = 0
        self.read: set[Watch[Any]] = set()  # those over whose events somebody iterates
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: list[tuple[OpenWatches, OpenWatch]] = []  # of each client

    # Entering and leaving

    async def __aenter__(self) -> Fleet[R]:
        if self._task is not None:
            raise InvalidRequestError("A Fleet is entered once; make a new one")
        self._loop = asyncio.get_running_loop()
        begun = self._loop.create_future()
        self._task = asyncio.create_task(self._drive(begun), name="asyncruns fleet")
        self._task.add_done_callback(self._stopped)
        self._register(self._client)
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
        self.check_is_here()
        check_may_leave(self._runner, "fleet")
        try:
            if error is None and self._on_exit == "drain":
                await self._drain_all()
        finally:
            by = self._leave_by()
            self._leave(by)
            await joined(task, by=by + ENDING_GRACE_S)
        if error is None:
            raise_failure(task)
        elif not task.cancelled() and task.exception() is not None:
            log.error("The fleet broke", exc_info=task.exception())

    def _leave(self, by: float) -> None:
        for _, watch in self._open:
            watch.by = min(watch.by, by + ENDING_GRACE_S)
        self._runner.leave(by=by, cancel=self._on_exit == "cancel")

    def _end(self, by: float) -> None:
        """Be left as the client is closed, and take the time that the budget needs."""
        self._leave(max(by, self._leave_by()))

    def _register(self, client: RunClient[Any]) -> None:
        """Let a client know that it may not be closed while this fleet is being left."""
        watches = open_watches_of(client)
        if all(watches is not known for known, _ in self._open):
            self._open.append((watches, watches.add(self._end if self._on_exit == "cancel" else None)))

    def _leave_by(self) -> float:
        """Give when leaving ends: who cancels has to ask for that first, as the budget and the server allow."""
        now = loop_time()
        if self._on_exit != "cancel":
            return now + LEAVING_GRACE_S
        pause = max(self._budget.ready_at(now) - now, 0.0)
        requests = REQUESTS_OF_CANCEL * (self._runner.active + len(self._runner.unfinished))
        full = min(self._per_second, CANCELS_PER_S)
        asking = min(requests / min(self._budget.rate, full), max(requests / full, REFUSED_FOR_S))
        return now + LEAVING_GRACE_S + pause + asking

    async def drain(self) -> None:
        """Wait until no run is watched any more, and nobody adds any. Safe to cancel: the fleet goes on.

        Raises:
            InvalidRequestError: The fleet was entered in another event loop; or one of its tools or handlers calls
                this, and would wait for itself.
        """
        self.check_is_here()
        check_may_wait(self._runner, "fleet")
        while self._goes_on():
            await self._outcomes.news()

    async def _drain_all(self) -> None:
        await self.drain()
        while self.is_running and await self._observers.drained(OBSERVER_GRACE_S) and self._goes_on():
            await self.drain()  # an observer has added runs

    async def _drive(self, begun: asyncio.Future[None]) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(outlasting, self._observers.run, group.cancel_scope)
                await self._runner.run(begun)
                with anyio.move_on_after(OBSERVER_GRACE_S):
                    await self._observers.drained(OBSERVER_GRACE_S)
                group.cancel_scope.cancel()
        finally:
            self._observers.tell_of_waiting()

    def _stopped(self, task: asyncio.Task[None]) -> None:
        for watches, known in self._open:
            watches.remove(known)
        for watch in list(self.read):
            watch.stop_waiting()
        for member in set(self._runner.members.values()):
            for watch in member.watches:
                watch.stop_waiting()
        self._outcomes.tell()

    # Adding runs

    @overload
    def watch(
        self,
        run: RunRef | None = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        client: RunClient[R] | None = None,
        **options: Unpack[SharedOptions],
    ) -> Watch[R]: ...

    @overload
    def watch(self, run: T, *, client: RunClient[T] | None = None, **options: Unpack[SharedOptions]) -> Watch[T]: ...

    def watch(
        self,
        run: Any = None,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        client: RunClient[Any] | None = None,
        **options: Unpack[SharedOptions],
    ) -> Watch[Any]:
        """Watch a run, and give what to await, cancel or ask about it. Returns at once.

        Tools, handlers and observers see the context variables of who calls this, each call in a copy.

        A run that is watched already is not looked at twice: this watch then only listens, and of the options only
        `on_status` and `on_terminal` count. It is the same where the other watch was cancelled while its outputs were
        on their way, until 5 s after their answer: its tools have run, and do not run again. An observer that several
        watches of a run have, as one of the fleet, is called once for all of them.

        Args:
            run: The run, or a response, or a `RunRef`; or else give `thread_id` and `run_id`.
            client: What speaks for this run instead of the fleet's: another client of the same server, or for a
                response `client.responses.continued(parameters)`.
            **options: As for the fleet, for this run instead; `max_concurrent_calls` holds beside the fleet's, and a
                `cadence` of None is the fleet's.

        Raises:
            InvalidRequestError: The arguments do not name a run, or the fleet is not entered, or left, or was entered
                in another event loop: from a thread, use `loop.call_soon_threadsafe(fleet.watch, run)`.
        """
        self.check_goes_on()
        if self._runner.is_left:
            raise InvalidRequestError(LEFT)
        if isinstance(run, EventStream):
            raise InvalidRequestError(
                f"A fleet polls, and does not follow a {type(run).__name__}: watch that with client.watch(stream), or "
                "give the run or response that it tells of"
            )
        if client is None:
            client = self._client if self._speaks is None else self._speaks(run)
        else:
            self._register(client)
        ids = {"thread_id": thread_id, "run_id": run_id}
        run = client.dialect.given(run)
        ref = client.dialect.identify(run, {name: id_ for name, id_ in ids.items() if id_ is not None})
        if options:
            check_watch_options(options, SharedOptions)
        context = contextvars.copy_context()
        member = self._runner.find(ref)
        given = None
        if member is None:
            policy, answers = self._settings.of(options, client.dialect)
            member = Member(self._runner, client, ref, policy, answers, context)
            given = None if run is None or isinstance(run, RunRef) else client.dialect.snapshot(run)
        both = self._settings.with_own(options)
        watch: Watch[Any] = Watch(
            self, member, on_status=both.get("on_status"), on_terminal=both.get("on_terminal"), context=context
        )
        member.watches = (*member.watches, watch)
        if not member.is_watched:
            self._runner.add(member)
            member.begin(given)
        return watch

    async def add_many(
        self, runs: Iterable[Any] | AsyncIterable[Any], *, at_most: int = 10_000, **options: Unpack[SharedOptions]
    ) -> int:
        """Watch all runs of an iterable, taking no more of them while very many are watched; give how many it had.

        The event loop stays free meanwhile, which it does not when `watch` is called ten thousand times in a row. Safe
        to cancel: those that were taken are watched on.

        Args:
            runs: Runs, responses or `RunRef`s. An async iterable is closed at the end, however it comes.
            at_most: How many may be watched at once, by the whole fleet, with those whose outcomes wait for a reader.
            **options: As for `watch`.

        Raises:
            InvalidRequestError: One of them is no run, or the fleet was left meanwhile; those before it were taken.
        """
        if isinstance(runs, str | bytes | Mapping) or not isinstance(runs, Iterable | AsyncIterable):
            raise InvalidRequestError(
                f"add_many takes an iterable of runs; got {type(runs).__name__}. For one run: fleet.watch(run)"
            )
        if at_most < 1:
            raise InvalidRequestError(f"at_most must be 1 or more; got {at_most!r}")
        self.check_goes_on()
        self._adding += 1
        added = 0
        try:
            async with contextlib.aclosing(_each(runs)) as each:
                async for run in each:
                    self.watch(run, **options)
                    added += 1
                    if added % ADDED_AT_ONCE == 0:
                        await asyncio.sleep(0)
                    while self._runner.active + self._outcomes.awaiting_reader >= at_most:
                        await self._outcomes.news()
                        self.check_goes_on()
        finally:
            self._adding -= 1
            self._outcomes.tell()
        return added

    # Outcomes

    async def __aiter__(self) -> AsyncIterator[AnyOutcome[R]]:
        """Iterate over the outcomes as they come, until no run is watched any more.

        Those of watches that ended before are given too, unless somebody had them: `on_outcome`, `on_terminal`, or who
        awaited the watch, or read its events to the end. Until somebody has them, they are kept; while nobody iterates
        the newest 50,000, and a warning is logged when others are let go. Of several readers each outcome goes to one.
        May be broken off, and begun again.

        Raises:
            InvalidRequestError: The fleet was not entered.
            Exception: What broke the fleet, if anything did.
        """
        task = self._entered()
        async with contextlib.aclosing(self._outcomes.read(self._goes_on)) as outcomes:
            async for outcome in outcomes:
                yield outcome
        if task.done():
            raise_failure(task)

    def _goes_on(self) -> bool:
        return self.is_running and bool(self._runner.active or self._adding)

    # How it is

    def statistics(self) -> Statistics:
        """Tell how the fleet is doing.

        Raises:
            InvalidRequestError: The fleet was entered in another event loop.
        """
        self.check_is_here()
        schedule, budget, now = self.schedule, self._budget, loop_time()
        ended = self._outcomes.ended
        return Statistics(
            active=self._runner.active,
            due=schedule.due + schedule.changes,
            in_flight=budget.in_flight,
            lag=max((now - member.look_at for member in schedule.waiting()), default=0.0),
            budget=None if budget.rate == math.inf else budget.rate,
            polls=self._runner.polls,
            ended=ended,
            polls_per_run=self._outcomes.polls / ended if ended else 0.0,
            throttled=budget.throttled / budget.taken if budget.taken else 0.0,
        )

    @property
    def is_running(self) -> bool:
        """Whether runs can be watched."""
        return self._runner.is_running

    def __repr__(self) -> str:
        counts = f"{self._runner.active} active, {self._outcomes.ended} ended, {self._runner.polls} polls"
        return f"<Fleet {counts}, {self._budget.in_flight} in flight{'' if self.is_running else ', not running'}>"

    # For watches

    def delivered(self, member: Member) -> None:
        """Note that somebody has the outcome of a watch."""
        self._outcomes.delivered(member)

    @property
    def schedule(self) -> Schedule[Member]:
        """Which run is asked next."""
        return self._runner.schedule

    def check_goes_on(self) -> None:
        """Check that runs can be watched, from here.

        Raises:
            InvalidRequestError: The fleet was not entered, or was left, or was entered in another event loop.
        """
        task = self._entered()
        if task.done():
            raise_failure(task)
        if not self.is_running:
            raise InvalidRequestError(LEFT)

    def _entered(self) -> asyncio.Task[None]:
        if self._task is None:
            raise InvalidRequestError("Enter the fleet first: async with Fleet(...) as fleet")
        self.check_is_here()
        return self._task

    def check_is_here(self) -> None:
        """Check that we run in the event loop that entered the fleet.

        Raises:
            InvalidRequestError: We do not; nothing was done.
        """
        check_is_here(self._loop, "fleet")

    def observe(self, observer: Observer, value: object, member: Member, context: contextvars.Context) -> None:
        """Have an observer called with what is news of a run, in a copy of this context."""
        self._observers.put(observer, value, of=member, context=context, owners=member.owners)

    def drop(self, watch: Watch[Any], member: Member) -> None:
        """Let a watch go, and its run when nobody watches it any more."""
        member.watches = tuple(other for other in member.watches if other is not watch)
        if not member.watches:
            self._runner.drop(member)
            self._outcomes.tell()


async def _each(runs: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any]:
    if not isinstance(runs, AsyncIterable):
        for run in runs:
            yield run
        return
    try:
        async for run in runs:
            yield run
    finally:
        if isinstance(runs, AsyncGenerator):
            await runs.aclose()
