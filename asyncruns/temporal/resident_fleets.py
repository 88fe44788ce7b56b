"""The fleets of a worker: they outlive the activities that use them, so that the next one goes on without new polls.

A fleet here has no tools and no journal: it only polls, and submits outputs that it is given. It must not cancel a run
when it is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import anyio
from msgspec.structs import replace

from asyncruns._loop import loop_time
from asyncruns.client.client import Client
from asyncruns.errors import InvalidRequestError
from asyncruns.fleet import Fleet, Watch
from asyncruns.fleet.fleet import ADDED_AT_ONCE
from asyncruns.lifecycle import Reason
from asyncruns.temporal.messages import RunReport, ShardJob, ShardRun
from asyncruns.temporal.reports import needs_outputs, not_watched, report_of
from asyncruns.user_code import Raised
from asyncruns.user_code.attempt import attempt_call
from asyncruns.watch.handover import Token, token_text
from asyncruns.watch.logs import FLEET_LOG
from asyncruns.watch.outcome import AnyOutcome

OnOutcome = Callable[[AnyOutcome[Any]], Awaitable[object] | object]

UNUSED_S: Final = 30.0
"""How long the fleet of a shard goes on without an activity; then it is left."""
TIDY_EVERY_S: Final = 5.0
ENDS_WAIT: Final = 5.0
"""How many times longer than calls the ends of runs are gathered: no run waits for the workflow to know of them."""
LONGEST_TELL_PAUSE_S: Final = 60.0
TOLD_AT_ONCE: Final = 64


class ShardFleet:
    """The fleet of one shard, with what has changed and was not reported yet.

    Args:
        client: Polls the runs.
        per_second: The share of the budget, in requests per second; None for no limit.
        on_outcome: Called with the outcome of each run, before that is reported.

    Attributes:
        users: Number of activities that use it now.
        used_at: When the last one ended, by the loop's clock.
    """

    def __init__(self, client: Client, per_second: float | None, on_outcome: OnOutcome | None) -> None:
        self._fleet: Fleet[Any] = Fleet(client, requests_per_second=per_second, on_exit="leave", journal=None)
        self._on_outcome = on_outcome
        self._room = asyncio.Semaphore(TOLD_AT_ONCE)
        self._following: set[asyncio.Task[None]] = set()
        self._turns: dict[str, int] = {}  # the last turn of each run
        self._open: dict[str, Watch[Any]] = {}  # the runs that are watched, or whose outcomes are being told
        self._reports: list[RunReport] = []
        self._first_at = self._needs_at = math.inf  # since when something is to be reported; and calls
        self._changed = asyncio.Event()
        self.users: int = 0
        self.used_at: float = loop_time()

    async def open(self) -> None:
        """Begin to poll."""
        await self._fleet.__aenter__()

    async def aclose(self) -> None:
        """Stop to poll; the runs go on at the server."""
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        await self._fleet.__aexit__(None, None, None)

    @property
    def polls(self) -> int:
        """Number of polls sent."""
        return self._fleet.statistics().polls

    async def add(self, runs: Iterable[ShardRun], options: dict[str, Any]) -> None:
        """Watch more runs, but for those that are watched already in this turn.

        May be repeated, and is safe to cancel: some may be watched then.
        """
        for number, run in enumerate(runs, 1):
            if self._turns.get(run.key, -1) >= run.turn:
                continue
            self._turns[run.key] = run.turn
            try:
                watch = begin_watch(self._fleet, run.token, options)
            except InvalidRequestError as error:
                self._report(run, not_watched(run.token.ref, error))
                continue
            self._open[run.key] = watch
            task = asyncio.create_task(self._follow(run, watch), name="asyncruns shard")
            self._following.add(task)
            task.add_done_callback(self._following.discard)
            if number % ADDED_AT_ONCE == 0:
                await asyncio.sleep(0)  # the event loop stays responsive

    async def changes(self, job: ShardJob) -> list[RunReport]:
        """Wait until runs have ended or need the caller, gather more of them, and return what is known of them.

        Safe to cancel: nothing is taken then.
        """
        until = loop_time() + job.at_most
        # without open runs, some are about to be added, unless there is something to report
        while (self._open or not self._reports) and (pause := self._due_at(job, until) - loop_time()) > 0:
            self._changed.clear()
            with anyio.move_on_after(pause):
                await self._changed.wait()
        reports, self._reports = self._reports, []
        self._first_at = self._needs_at = math.inf
        return reports

    async def cancelled(self) -> list[RunReport]:
        """Cancel all runs, and return how they ended. Safe to cancel."""
        for watch in list(self._open.values()):
            with contextlib.suppress(InvalidRequestError):  # it has finished
                await watch.cancel_run()
        while self._open:
            self._changed.clear()
            await self._changed.wait()
        return self._reports

    def _due_at(self, job: ShardJob, until: float) -> float:
        return min(until, self._needs_at + job.gather, self._first_at + ENDS_WAIT * job.gather)

    async def _follow(self, run: ShardRun, watch: Watch[Any]) -> None:
        """Report an outcome, once `on_outcome` was called with it if it is final."""
        outcome = await watch
        if self._on_outcome is not None and not needs_outputs(outcome):
            await self._tell(outcome, self._on_outcome)
        self._report(run, report_of(outcome, watch))

    async def _tell(self, outcome: AnyOutcome[Any], on_outcome: OnOutcome) -> None:
        for tries in itertools.count():
            async with self._room:
                raised = await attempt_call(on_outcome, outcome, what="on_outcome")
            if not isinstance(raised, Raised):
                return
            FLEET_LOG.error("on_outcome raised for %s, and is called again", outcome.ref, exc_info=raised.error)
            await asyncio.sleep(min(2.0**tries, LONGEST_TELL_PAUSE_S))

    def _report(self, run: ShardRun, report: RunReport) -> None:
        self._open.pop(run.key, None)
        needs = report.outcome is not None and report.outcome["reason"] == Reason.UNANSWERED.value
        if not needs and report.outcome is not None:
            report.outcome["run"] = None  # a shard has thousands, and `on_outcome` was told
        self._reports.append(replace(report, run=ShardRun(key=run.key, token=Token(ref=run.token.ref), turn=run.turn)))
        self._first_at = min(self._first_at, loop_time())
        if needs:
            self._needs_at = min(self._needs_at, loop_time())
        self._changed.set()


def begin_watch(fleet: Fleet[Any], token: Token, options: dict[str, Any]) -> Watch[Any]:
    """Watch the run of a token, which may say no more than which run that is."""
    if token.record is None and token.parameters is None and not token.lacks:
        return fleet.watch(token.ref, **options)
    return fleet.watch(token=token_text(token), **options)


class ResidentFleets:
    """The fleets of one worker: one for the watches of workflows, and one for each shard.

    Args:
        client: Polls the runs.
        per_second: The budget of the fleet for the watches of workflows, in requests per second, and of that for their
            watches with `observe_only`; None for no limit.
        on_outcome: Told how each run of a shard ended.
    """

    def __init__(self, client: Client, per_second: float | None, on_outcome: OnOutcome | None) -> None:
        self._client = client
        self._per_second = per_second
        self._on_outcome = on_outcome
        self._shared: dict[bool, Fleet[Any]] = {}
        self._shards: dict[str, ShardFleet] = {}
        self._lock = asyncio.Lock()
        self._tidying: asyncio.Task[None] | None = None

    async def shared(self, *, observes: bool) -> Fleet[Any]:
        """Return the fleet for the watches of workflows, or that for those with `observe_only`.

        Watches of one fleet share the polls of a run, and then it is the first one's options that hold.
        """
        async with self._lock:
            if observes not in self._shared:
                fleet: Fleet[Any] = Fleet(
                    self._client, requests_per_second=self._per_second, on_exit="leave", journal=None
                )
                self._shared[observes] = await fleet.__aenter__()
            return self._shared[observes]

    def shard(self, name: str) -> ShardFleet | None:
        """Return the fleet of a shard, if there is one here."""
        return self._shards.get(name)

    async def new_shard(self, job: ShardJob) -> ShardFleet:
        """Make a new fleet for a shard, in place of an old one, and watch its runs."""
        async with self._lock:
            await self._leave([job.shard])
            fleet = ShardFleet(self._client, job.per_second, self._on_outcome)
            await fleet.open()
            self._shards[job.shard] = fleet
            if self._tidying is None:
                self._tidying = asyncio.create_task(self._tidy(), name="asyncruns shards")
            return fleet

    async def _tidy(self) -> None:
        """Leave the fleets that no activity has used for a while: their shards have ended, or are elsewhere."""
        while True:
            await asyncio.sleep(TIDY_EVERY_S)
            async with self._lock:
                await self._leave([name for name, each in self._shards.items() if _is_unused(each)])

    async def leave(self, name: str) -> None:
        """Leave the fleet of a shard that has ended."""
        async with self._lock:
            await self._leave([name])

    async def aclose(self) -> None:
        """Leave all fleets; the runs go on at the server."""
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        async with self._lock:
            await self._leave(list(self._shards))
            while self._shared:
                await self._shared.popitem()[1].__aexit__(None, None, None)

    async def _leave(self, names: list[str]) -> None:
        for name in names:
            if (fleet := self._shards.pop(name, None)) is not None:
                await fleet.aclose()


def _is_unused(fleet: ShardFleet) -> bool:
    return fleet.users == 0 and loop_time() > fleet.used_at + UNUSED_S
