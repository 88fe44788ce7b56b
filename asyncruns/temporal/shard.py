"""The workflow of a shard: it owns up to some thousands of runs, which an activity watches with a fleet.

It holds what no worker may lose: which runs are open, the outputs of their calls, and how they ended. The activity
returns what has changed; when its worker dies, another one begins with what is here. While the worker lives, the next
activity goes to it again, by a queue of its own, and finds the fleet as it was.

No run may end the shard, or hold it up.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Final, NoReturn

from msgspec.structs import replace
from temporalio import workflow
from temporalio.exceptions import ActivityError

from asyncruns.temporal import messages as names
from asyncruns.temporal.desk import desk
from asyncruns.temporal.messages import RunReport, Shard, ShardJob, ShardReport, ShardRun, ShardState
from asyncruns.temporal.reports import cut_message, outcome_of_report
from asyncruns.temporal.rounds import round_of
from asyncruns.temporal.running import LONGEST, ONCE, is_leaving
from asyncruns.temporal.shard_rounds import ShardRounds
from asyncruns.temporal.shard_runs import ShardRuns
from asyncruns.temporal.sizes import LARGEST_HISTORY_INPUT, LARGEST_OUTPUTS, json_size
from asyncruns.temporal.workflow_client import WorkflowClient

TO_START: Final = timedelta(seconds=10)
"""A worker that does not take an activity from its own queue within this time is taken to be dead."""
ADD_WITHIN: Final = timedelta(minutes=1)
SOON_S: Final = 1.0
"""How long an activity watches if runs wait to be added to a new fleet."""
PAUSED_WATCH_S: Final = 5.0
LONG_HISTORY_WATCH_S: Final = 60.0
LONGEST_WATCH_S: Final = 600.0
PAUSE_S: Final = 30.0
"""How long no calls are begun when a new history is due, so that those that are being answered can end before."""
BETWEEN_PAUSES_S: Final = 300.0
LONGEST_RETRY_S: Final = 60.0
ADD_GATHER_S: Final = 0.25
MOST_EVENTS: Final = 40_000
MOST_BYTES: Final = 40_000_000
"""From here on no calls are begun in a history; Temporal ends a workflow at 51,200 events or 50 MB."""


@workflow.defn(name=names.SHARD)
class ShardWorkflow:
    """Watches the runs of one shard."""

    def __init__(self) -> None:
        self._begin_with(Shard(runs=[]))
        self._host = ""
        self._polls = 0  # of earlier fleets
        self._fleet_polls = 0
        self._failures = 0
        self._trouble = ""
        self._paused_until = self._next_pause_at = 0.0

    def _begin_with(self, shard: Shard) -> None:
        self._shard = shard
        self._runs = ShardRuns(shard)
        self._rounds = ShardRounds(shard, self._runs, self._round_ended)

    @workflow.run
    async def run(self, shard: Shard) -> ShardState:
        """Watch all runs until they have ended, and return how."""
        info = workflow.info()
        self._name = f"{info.workflow_id}/{info.first_execution_run_id}"
        self._begin_with(shard)
        self._host, self._polls = shard.host, shard.polls
        adding = asyncio.create_task(self._add_again())
        try:
            await self._watch_all()
        except asyncio.CancelledError:
            adding.cancel()
            await self._leave()
            raise
        finally:
            adding.cancel()
        return self.state()

    @workflow.query(name=names.STATE)
    def state(self, since: int = 0) -> ShardState:
        """Return how far the shard has come, with the runs that have ended from a number on."""
        runs = self._runs
        return ShardState(ended=runs.ended[since:], open=len(runs.open), polls=self._polls + self._fleet_polls)

    # Watching

    async def _watch_all(self) -> None:
        runs = self._runs
        while runs.open:
            if self._may_begin_anew():
                await self._begin_anew()
            self._pause_if_due()
            self._begin_calls()
            if not runs.has_watched:
                await self._wait_for_runs()
                continue
            try:
                report = await self._watch()
            except ActivityError as error:
                if is_leaving(error):
                    raise asyncio.CancelledError from error
                await self._lost_fleet(error)
                continue
            self._failures, self._trouble = 0, ""
            self._host, self._fleet_polls = report.host, report.polls
            for key, turn in report.settled:
                self._runs.settle(key, turn)
            for each in report.reports:
                self._note(each)
            self._show()

    async def _wait_for_runs(self) -> None:
        """Wait until there are runs to watch, or something is to be done about this history."""
        runs = self._runs
        left = self._paused_until - workflow.time()
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: runs.has_watched or not runs.open or self._may_begin_anew() or self._is_stuck(),
                timeout=left if runs.later and left > 0 else None,
            )

    async def _watch(self) -> ShardReport:
        report: ShardReport = await workflow.execute_activity(
            names.WATCH_SHARD,
            self._next_job(),
            result_type=ShardReport,
            task_queue=self._host or None,
            schedule_to_start_timeout=TO_START if self._host else None,
            start_to_close_timeout=LONGEST,
            heartbeat_timeout=timedelta(seconds=self._shard.heartbeat),
            retry_policy=ONCE,
            summary=f"{len(self._runs.open)} runs",
        )
        return report

    def _next_job(self) -> ShardJob:
        if self._host:
            at_most = PAUSED_WATCH_S if self._is_paused() else LONG_HISTORY_WATCH_S
            return self._job(None, at_most if self._is_long() else LONGEST_WATCH_S)
        runs = self._runs.begin()
        # The others can be added only when this activity has told where the fleet is.
        return self._job(runs, LONGEST_WATCH_S if len(runs) == len(self._runs.open) else SOON_S)

    def _job(self, runs: list[ShardRun] | None, at_most: float = LONGEST_WATCH_S) -> ShardJob:
        shard = self._shard
        return ShardJob(
            shard=self._name,
            runs=runs,
            options=shard.options,
            per_second=shard.per_second,
            gather=shard.gather,
            at_most=at_most,
            heartbeat=shard.heartbeat,
        )

    async def _lost_fleet(self, error: ActivityError) -> None:
        """Note that the fleet is lost, so that a new one is made: at once, after pauses if it fails again."""
        self._host, self._trouble = "", f"; the fleet was lost: {cut_message(str(error.cause))}"
        self._polls, self._fleet_polls = self._polls + self._fleet_polls, 0
        self._show()
        if self._failures:
            await workflow.sleep(min(2.0 ** (self._failures - 1), LONGEST_RETRY_S))
        self._failures += 1

    async def _add_again(self) -> None:
        """Add the runs that have got their outputs to the fleet again, gathered over a moment."""
        failures = 0
        while True:
            await workflow.wait_condition(lambda: bool(self._runs.again and self._host))
            await workflow.sleep(min(2.0**failures, LONGEST_RETRY_S) if failures else self._gather())
            if not self._host or not (runs := self._runs.take_again()):
                continue
            try:
                await workflow.execute_activity(
                    names.ADD_TO_SHARD,
                    self._job(runs),
                    task_queue=self._host,
                    schedule_to_start_timeout=TO_START,
                    start_to_close_timeout=ADD_WITHIN,
                    retry_policy=ONCE,
                    summary=f"{len(runs)} runs go on",
                )
            except ActivityError as error:
                if is_leaving(error):
                    return
                failures += 1
                self._runs.added(is_certain=False)
            else:
                failures = 0
                self._runs.added(is_certain=True)

    def _gather(self) -> float:
        return min(self._shard.gather, ADD_GATHER_S)

    # What has changed

    def _note(self, report: RunReport) -> None:
        if report.run is None or (run := self._runs.open.get(report.run.key)) is None or run.turn != report.run.turn:
            return  # a fleet has reported it before
        outcome = outcome_of_report(report, WorkflowClient())
        self._runs.open[run.key] = replace(run, token=report.token or run.token)
        round_ = None if self._rounds.is_stopped else round_of(outcome, report, room=LARGEST_OUTPUTS)
        if round_ is None:
            self._runs.finish(run.key, outcome)
        else:
            self._rounds.add(run.key, round_, outcome)

    def _show(self) -> None:
        people = len(desk().open_calls())
        waiting = f"; {people} calls wait for people" if people else ""
        workflow.set_current_details(
            f"{len(self._runs.open)} of {self._shard.total} runs are open{waiting}{self._trouble}"
        )

    # Calls, and new histories

    def _round_ended(self) -> None:
        self._begin_calls()
        self._show()

    def _begin_calls(self) -> None:
        """Begin to answer the calls that wait, as many as the history has room for; in a pause, none."""
        if not self._is_paused():
            is_stuck = self._is_stuck() and not self._rounds.give_up_largest()
            self._rounds.begin(self._has_room if not is_stuck else lambda events, size: True)

    def _is_stuck(self) -> bool:
        """Return whether calls wait for a new history that can't begin, even though no others are being answered."""
        runs, rounds = self._runs, self._rounds
        if not runs.later or self._is_paused() or runs.is_answering or rounds.is_giving_up:
            return False
        return not self._has_room() and not self._fits()

    def _pause_if_due(self) -> None:
        """Begin a pause, in which those calls can end that hold up a new history."""
        now = workflow.time()
        if now < self._next_pause_at or not self._is_long():
            return
        if self._fits():
            self._paused_until = now + PAUSE_S
            self._next_pause_at = self._paused_until + BETWEEN_PAUSES_S
        else:
            self._next_pause_at = now + PAUSED_WATCH_S

    def _is_paused(self) -> bool:
        return workflow.time() < self._paused_until

    def _has_room(self, more_events: int = 0, more_bytes: int = 0) -> bool:
        """Return whether the history has room for more calls than those to which these events and bytes are due."""
        info = workflow.info()
        return (
            info.get_current_history_length() + more_events < MOST_EVENTS
            and info.get_current_history_size() + more_bytes < MOST_BYTES
        )

    def _is_long(self) -> bool:
        """Return whether a new history is due."""
        return workflow.info().is_continue_as_new_suggested() or not self._has_room()

    def _fits(self) -> bool:
        """Return whether Temporal takes what a new history begins with."""
        return json_size(self._runs.next_shard(self._shard, self._host, 0)) <= LARGEST_HISTORY_INPUT

    def _may_begin_anew(self) -> bool:
        """Return whether a new history is due and possible, and only people are waited for."""
        is_answering = self._runs.is_answering or desk().has_answers
        return self._is_long() and not is_answering and self._fits()

    async def _begin_anew(self) -> NoReturn:
        await self._rounds.stop()
        workflow.continue_as_new(self._runs.next_shard(self._shard, self._host, self._polls))

    # Ending

    async def _leave(self) -> None:
        """Stop the calls, and cancel the runs if that was asked for."""
        await self._rounds.stop()
        if self._shard.on_exit != "cancel":
            return
        pieces = list(self._runs.to_cancel())
        jobs = [self._job_to_cancel(number, len(pieces), runs) for number, runs in enumerate(pieces)]
        results = await asyncio.gather(*map(self._cancel, jobs), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                workflow.logger.error("Runs of the shard were not cancelled, and may go on", exc_info=result)
                continue
            for each in result.reports:
                self._note(each)

    def _job_to_cancel(self, number: int, of: int, runs: list[ShardRun]) -> ShardJob:
        per_second = self._shard.per_second
        share = None if per_second is None else per_second / of
        return replace(self._job(runs), shard=f"{self._name}/cancel-{number}", per_second=share)

    async def _cancel(self, job: ShardJob) -> ShardReport:
        report: ShardReport = await workflow.execute_activity(
            names.CANCEL_MANY,
            job,
            result_type=ShardReport,
            start_to_close_timeout=LONGEST,
            heartbeat_timeout=timedelta(seconds=self._shard.heartbeat),
            summary=f"cancel {len(job.runs or [])} runs",
        )
        return report
