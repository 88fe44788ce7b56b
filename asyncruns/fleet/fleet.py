"""Watches thousands of runs in one process, under one budget of requests: what callers use.

There is no task per run: each run is a lifecycle and a place in the schedule (`member.py`, `schedule.py`), and one
owned task polls the runs that are worth it (`runner.py`). Behind this facade is a hub, which watches share (`hub.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Generic, Literal, TypeVar, Unpack, overload

from asyncruns.abc import AsyncOnly, RunClient
from asyncruns.dialects.given import check_client
from asyncruns.errors import InvalidRequestError
from asyncruns.fleet.budget import check_budget
from asyncruns.fleet.handle import Watch
from asyncruns.fleet.hub import Hub
from asyncruns.fleet.statistics import Statistics, statistics_of
from asyncruns.lifecycle import RunRef
from asyncruns.watch.observers import Observer
from asyncruns.watch.options import SharedOptions, check_watch_options
from asyncruns.watch.outcome import AnyOutcome

R = TypeVar("R")
T = TypeVar("T")

ADDED_AT_ONCE: Final = 16  # of some 20 microseconds each


class Fleet(AsyncOnly, Generic[R]):
    """Watch many runs, under one budget of requests, with one set of tools.

    Use it with `async with`. Leaving the block waits for all runs; see `on_exit`. When it is left by an exception or a
    cancellation, the runs are not waited for. Submits on their way always are, up to 5 s.

    Polls go to those runs first whose end has likely waited longest for one: the fleet learns how long runs of an
    assistant and model take. Submits and cancels go before all polls. A 429, or a small
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
        self._hub: Hub[R] = Hub(
            client,
            requests_per_second=requests_per_second,
            max_in_flight=max_in_flight,
            on_outcome=on_outcome,
            on_exit=on_exit,
            options=options,
        )

    # Entering and leaving

    async def __aenter__(self) -> Fleet[R]:
        await self._hub.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._hub.exit(error)

    async def drain(self) -> None:
        """Wait until no run is watched any more, and nobody adds any. Safe to cancel: the fleet goes on.

        Raises:
            InvalidRequestError: The fleet was entered in another event loop; or one of its tools or handlers calls
                this, and would wait for itself.
        """
        await self._hub.drain()

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

        A run that is watched already is not polled twice: this watch then only listens, and of the options only
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
        ids = {"thread_id": thread_id, "run_id": run_id}
        member, listener = self._hub.add_run(run, ids, client, options)
        return Watch(self._hub, member, listener)

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
        self._hub.check_goes_on()
        added = 0
        with self._hub.adding():
            async with contextlib.aclosing(_each(runs)) as each:
                async for run in each:
                    self.watch(run, **options)
                    added += 1
                    if added % ADDED_AT_ONCE == 0:
                        await asyncio.sleep(0)
                    await self._hub.room_below(at_most)
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
        self._hub.task.check_entered()
        async with contextlib.aclosing(self._hub.outcomes.read(self._hub.goes_on)) as outcomes:
            async for outcome in outcomes:
                yield outcome
        if self._hub.task.is_done:
            self._hub.task.raise_failure()

    # How it is

    def statistics(self) -> Statistics:
        """Tell how the fleet is doing.

        Raises:
            InvalidRequestError: The fleet was entered in another event loop.
        """
        self._hub.task.check_is_here()
        return statistics_of(self._hub.runner, self._hub.outcomes)

    @property
    def is_running(self) -> bool:
        """Whether runs can be watched."""
        return self._hub.is_running

    def __repr__(self) -> str:
        runner = self._hub.runner
        counts = f"{runner.roster.active} active, {self._hub.outcomes.ended} ended, {runner.polls} polls"
        in_flight = runner.schedule.budget.in_flight
        return f"<Fleet {counts}, {in_flight} in flight{'' if self.is_running else ', not running'}>"


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
