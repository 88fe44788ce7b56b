"""The fleet of one shard on a worker: it watches the runs, calls `on_outcome`, and gathers what has changed.

It has no tools and no journal: it only polls, and submits outputs that it is given. It must not cancel a run when it is
left, and no run may hold up the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any, Final, cast

import anyio
from msgspec.structs import replace

from asyncruns._loop import loop_time, wall_time
from asyncruns.client.client import Client
from asyncruns.errors import APIError, AsyncRunsError, InvalidRequestError
from asyncruns.fleet import Fleet, Watch
from asyncruns.fleet.fleet import ADDED_AT_ONCE
from asyncruns.lifecycle import CancelRefused, Phase, Reason, StatusChanged
from asyncruns.temporal.messages import RunReport, ShardJob, ShardRun
from asyncruns.temporal.reports import (
    asking_report,
    finished_report,
    has_outputs,
    needs_outputs,
    outcome_of_report,
    report_of,
    report_of_error,
    without_begun,
)
from asyncruns.temporal.sizes import first_piece, json_size
from asyncruns.user_code import Raised
from asyncruns.user_code.attempt import attempt_call
from asyncruns.watch.handover import Token, token_text
from asyncruns.watch.logs import FLEET_LOG
from asyncruns.watch.observers import Ended
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.outcome_clients import LeftBehind

OnOutcome = Callable[[AnyOutcome[Any]], Awaitable[object] | object]

ENDS_WAIT: Final = 30.0
"""How many times longer than calls the ends of runs are gathered: no run waits for the workflow to know of them."""
ENDS_SHARE: Final = 0.2
"""Ends of so many of the runs are not gathered for longer than calls."""
LONGEST_TELL_PAUSE_S: Final = 60.0
TOLD_AT_ONCE: Final = 64
REFUSED_S: Final = 15.0
"""How long the end of a run is waited for whose cancel the server has refused."""


class ShardFleet:
    """The fleet of one shard, with what has changed and was not reported yet.

    Args:
        client: Polls the runs.
        per_second: The share of the budget, in requests per second; None for no limit.
        on_outcome: Called with the outcome of each run, before that is reported.
        largest_report: The bytes that the report of a run may have.

    Attributes:
        users: Number of activities that use it now.
        used_at: When the last one ended, by the loop's clock.
    """

    def __init__(
        self,
        client: Client,
        per_second: float | None,
        on_outcome: OnOutcome | None,
        largest_report: float = math.inf,
    ) -> None:
        self._fleet: Fleet[Any] = Fleet(client, requests_per_second=per_second, on_exit="leave", journal=None)
        self._on_outcome = on_outcome
        self._largest_report = largest_report
        self._room = asyncio.Semaphore(TOLD_AT_ONCE)
        self._following: set[asyncio.Task[None]] = set()
        self._turns: dict[str, int] = {}  # the last turn of each run
        self._open: set[str] = set()  # keys of the runs that are watched, or whose outcomes are being told
        self._reports: list[RunReport] = []
        self._settled: list[tuple[str, int]] = []
        self._first_at = self._needs_at = math.inf  # since when something is to be reported; and calls
        self._changed = asyncio.Event()
        self._broken: BaseException | None = None  # why the fleet has stopped by itself
        self._cancels = False
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
            self._open.add(run.key)
            task = asyncio.create_task(self._follow(run, options), name="asyncruns shard")
            self._following.add(task)
            task.add_done_callback(self._following.discard)
            if number % ADDED_AT_ONCE == 0:
                await asyncio.sleep(0)  # the event loop stays responsive

    async def changes(self, job: ShardJob) -> list[RunReport]:
        """Wait until runs have ended or need the caller, gather more of them, and return what is known of them.

        What does not fit into a payload is left for the next time, which is then at once. Safe to cancel: nothing is
        taken then.

        Raises:
            Exception: What has stopped the fleet.
        """
        until = loop_time() + job.at_most
        # without open runs, some are about to be added, unless there is something to report
        while (self._open or not self._reports) and (pause := self._due_at(job, until) - loop_time()) > 0:
            self._changed.clear()
            with anyio.move_on_after(pause):
                await self._changed.wait()
            self._check_goes_on()
        number = first_piece(self._reports)
        reports, self._reports = self._reports[:number], self._reports[number:]
        self._first_at = -math.inf if self._reports else math.inf
        self._needs_at = math.inf
        return reports

    def take_settled(self) -> list[tuple[str, int]]:
        """Return the keys and turns of the runs that have gone on with their outputs, since the last time."""
        settled, self._settled = self._settled, []
        return settled

    async def cancelled(self, runs: Iterable[ShardRun], options: dict[str, Any]) -> list[RunReport]:
        """Cancel runs, and return how they ended. Safe to cancel."""
        self._cancels = True
        await self.add(runs, options)
        while self._open:
            self._changed.clear()
            await self._changed.wait()
            self._check_goes_on()
        return self._reports

    def _due_at(self, job: ShardJob, until: float) -> float:
        are_many = len(self._reports) >= ENDS_SHARE * len(self._turns)
        ends_wait = job.gather if are_many else ENDS_WAIT * job.gather
        return min(until, self._needs_at + job.gather, self._first_at + ends_wait)

    def _check_goes_on(self) -> None:
        if self._broken is not None:
            raise self._broken

    async def _follow(self, run: ShardRun, options: dict[str, Any]) -> None:
        """Report an outcome, once `on_outcome` was called with it if it is final."""
        try:
            outcome, report, asks = await self._watched(run, options)
        except Exception as error:
            if not self._fleet.is_running:
                self._broken = error  # another fleet is to go on with all runs
                self._changed.set()
                return
            reason = Reason.REJECTED if isinstance(error, InvalidRequestError) else Reason.BROKE
            FLEET_LOG.error("%s is no longer watched", run.token.ref, exc_info=error)
            outcome, report, asks = _given_up(run, error, reason)
        if self._on_outcome is not None and not asks:
            await self._tell(outcome, self._on_outcome)
        self._report(run, report, asks)

    async def _watched(self, run: ShardRun, options: dict[str, Any]) -> tuple[AnyOutcome[Any], RunReport, bool]:
        """Return the outcome of a watch, its report, and whether the run waits for outputs of the workflow."""
        watch = begin_watch(self._fleet, run.token, options)
        if has_outputs(run.token) and not self._cancels:
            await self._settle(run, watch)
        outcome = await (cancelled(watch) if self._cancels else watch.wait())
        report = report_of(outcome, watch, run.token)
        if self._cancels or options.get("observe_only") or not needs_outputs(outcome):
            return outcome, finished_report(report), False
        report = asking_report(report)
        if (size := json_size(report)) > self._largest_report:
            error = InvalidRequestError(
                f"The calls of the run have {size} bytes, and {self._largest_report:.0f} can be passed on in a shard"
            )
            return _given_up(run, error, Reason.BROKE)
        return outcome, replace(report, is_limited=self._largest_report < math.inf), True

    async def _settle(self, run: ShardRun, watch: Watch[Any]) -> None:
        """Note when the run goes on with the outputs that it was given: the workflow need not keep them any more."""
        async with contextlib.aclosing(cast("AsyncGenerator[Any]", aiter(watch))) as events:
            async for event in events:
                if isinstance(event, StatusChanged) and event.phase is not Phase.NEEDS_CALLER:
                    if watch.ref == run.token.ref:  # and not a run that follows it
                        self._settled.append((run.key, run.turn))
                    return

    async def _tell(self, outcome: AnyOutcome[Any], on_outcome: OnOutcome) -> None:
        for tries in itertools.count():
            async with self._room:
                raised = await attempt_call(on_outcome, outcome, what="on_outcome")
            if not isinstance(raised, Raised):
                return
            FLEET_LOG.error("on_outcome raised for %s, and is called again", outcome.ref, exc_info=raised.error)
            await asyncio.sleep(min(2.0**tries, LONGEST_TELL_PAUSE_S))

    def _report(self, run: ShardRun, report: RunReport, asks: bool) -> None:
        self._open.discard(run.key)
        self._reports.append(replace(report, run=ShardRun(key=run.key, token=Token(ref=run.token.ref), turn=run.turn)))
        self._first_at = min(self._first_at, loop_time())
        if asks:
            self._needs_at = min(self._needs_at, loop_time())
        self._changed.set()


def _given_up(run: ShardRun, error: Exception, reason: Reason) -> tuple[AnyOutcome[Any], RunReport, bool]:
    report = report_of_error(run.token.ref, error, reason, wall_time())
    return outcome_of_report(report, LeftBehind()), report, False


async def cancelled(watch: Watch[Any]) -> AnyOutcome[Any]:
    """Cancel the run of a watch, and return how it ended.

    Raises:
        Exception: Why the server has refused, if the run goes on.
    """
    refused: Exception | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            try:
                await watch.created()  # a token is claimed in the background
                await watch.cancel_run()
            except AsyncRunsError as error:
                refused = error
                limit.reschedule(loop_time() + REFUSED_S)
            async for event in watch:
                if isinstance(event, Ended):
                    return event.outcome
                if isinstance(event, CancelRefused):  # it may just have ended; if not, it goes on
                    refused = event.cause
                    limit.reschedule(loop_time() + REFUSED_S)
    raise refused or APIError(f"The run {watch.ref} was not cancelled")


def begin_watch(fleet: Fleet[Any], token: Token, options: dict[str, Any]) -> Watch[Any]:
    """Watch the run of a token, which may say no more than which run that is.

    Raises:
        InvalidRequestError: The token is of a watch in a journal: what has begun there would begin again.
    """
    token = without_begun(token)
    if not token.key and token.record is None and token.parameters is None and not token.lacks:
        return fleet.watch(token.ref, **options)
    return fleet.watch(token=token_text(token), **options)
