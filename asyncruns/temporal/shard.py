"""The workflow of a shard: it owns up to some thousands of runs, which an activity watches with a fleet.

It holds what no worker may lose: which runs are open, the outputs of their calls, and how they ended. The activity
returns what has changed; when its worker dies, another one begins with what is here. While the worker lives, the next
activity goes to it again, by a queue of its own, and finds the fleet as it was.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final, NoReturn

from msgspec.structs import replace
from temporalio import workflow
from temporalio.exceptions import ActivityError

from asyncruns.lifecycle import Reason
from asyncruns.temporal import messages as names
from asyncruns.temporal.desk import desk
from asyncruns.temporal.messages import (
    EndedRun,
    RunReport,
    Shard,
    ShardJob,
    ShardReport,
    ShardRun,
    ShardState,
    WatchJob,
)
from asyncruns.temporal.reports import outcome_of_report, report_of
from asyncruns.temporal.rounds import (
    LONGEST,
    ONCE,
    POLL_RETRIES,
    Answering,
    CallRound,
    OutputsOfCalls,
    RoundProgress,
    RoundResult,
    answer_round,
    is_leaving,
    raise_ours,
    round_of,
    run_on_one,
    unanswered,
)
from asyncruns.temporal.workflow_client import WorkflowClient
from asyncruns.watch.handover import Token, with_outputs
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire.names import RESPONSE

TO_START: Final = timedelta(seconds=10)
"""A worker that does not take an activity from its own queue within this time is taken to be dead."""
ADD_WITHIN: Final = timedelta(minutes=1)
SOON_S: Final = 5.0
"""How long an activity watches at most, when a new history is to begin, or outputs wait for a new fleet."""
LONGEST_RETRY_S: Final = 60.0
CALL_PATIENCE: Final = 3.0
"""How many times longer than for polls the heartbeat of a call may be overdue: it would not run again."""
ADD_GATHER_S: Final = 0.25
TELL_WITHIN: Final = timedelta(minutes=5)


@workflow.defn(name=names.SHARD)
class ShardWorkflow:
    """Watches the runs of one shard."""

    def __init__(self) -> None:
        self._open: dict[str, ShardRun] = {}
        self._ended: list[EndedRun] = []
        self._rounds: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, RoundProgress] = {}
        self._again: dict[str, None] = {}  # keys of the runs that the fleet is to watch again
        self._adding: list[str] = []  # those that it is being given
        self._host = ""
        self._polls = 0  # of earlier fleets
        self._fleet_polls = 0
        self._failures = 0
        self._is_ending = False  # a new history is to begin
        self._broken: Exception | None = None  # what a task has raised

    @workflow.run
    async def run(self, shard: Shard) -> ShardState:
        """Watch all runs until they have ended, and return how."""
        self._shard = shard
        info = workflow.info()
        self._name = f"{info.workflow_id}/{info.first_execution_run_id}"
        self._open = {run.key: run for run in shard.runs}
        self._ended = list(shard.ended)
        self._again, self._host, self._polls = dict.fromkeys(shard.again), shard.host, shard.polls
        adding = asyncio.create_task(self._add_again())
        try:
            await self._watch_all()
        except asyncio.CancelledError:
            await self._leave()
            raise
        finally:
            adding.cancel()
        return self._state()

    @workflow.query(name=names.STATE)
    def state(self, since: int = 0) -> ShardState:
        """Return how far the shard has come, with the runs that have ended from a number on."""
        return self._state(since)

    def _state(self, since: int = 0) -> ShardState:
        return ShardState(ended=self._ended[since:], open=len(self._open), polls=self._polls + self._fleet_polls)

    # Watching

    async def _watch_all(self) -> None:
        while self._open:
            if self._broken is not None:
                raise self._broken
            if workflow.info().is_continue_as_new_suggested():
                self._is_ending = True
            if self._is_ending and not any(each.running for each in self._progress.values()):
                await self._begin_anew()
            if len(self._open) == len(self._rounds):  # all wait for their outputs
                await workflow.wait_condition(lambda: len(self._open) != len(self._rounds) or self._broken is not None)
                continue
            try:
                report = await self._watch()
            except ActivityError as error:
                if is_leaving(error):
                    raise asyncio.CancelledError from error
                raise_ours(error)
                await self._lost_fleet()
                continue
            self._failures = 0
            self._host, self._fleet_polls = report.host, report.polls
            for each in report.reports:
                self._note(each)
            self._show()

    async def _watch(self) -> ShardReport:
        report: ShardReport = await workflow.execute_activity(
            names.WATCH_SHARD,
            self._job(None if self._host else self._to_watch()),
            result_type=ShardReport,
            task_queue=self._host or None,
            schedule_to_start_timeout=TO_START if self._host else None,
            start_to_close_timeout=LONGEST,
            heartbeat_timeout=timedelta(seconds=self._shard.heartbeat),
            retry_policy=ONCE,
            summary=f"{len(self._open)} runs",
        )
        return report

    def _to_watch(self) -> list[ShardRun]:
        self._again.clear()
        return [run for key, run in self._open.items() if key not in self._rounds]

    async def _lost_fleet(self) -> None:
        """Note that the fleet is lost, so that a new one is made: at once, after pauses if it fails again."""
        self._host = ""
        self._polls, self._fleet_polls = self._polls + self._fleet_polls, 0
        if self._failures:
            await workflow.sleep(min(2.0 ** (self._failures - 1), LONGEST_RETRY_S))
        self._failures += 1

    def _job(self, runs: list[ShardRun] | None) -> ShardJob:
        shard = self._shard
        # outputs go to a fleet only when the first activity has told where that is
        is_short = self._is_ending or (runs is not None and bool(self._rounds))
        return ShardJob(
            shard=self._name,
            runs=runs,
            options=shard.options,
            per_second=shard.per_second,
            gather=shard.gather,
            heartbeat=shard.heartbeat,
            **({"at_most": SOON_S} if is_short else {}),
        )

    async def _add_again(self) -> None:
        """Add the runs that have got their outputs to the fleet again, gathered over a moment."""
        while True:
            await workflow.wait_condition(lambda: bool(self._again and self._host and not self._is_ending))
            await workflow.sleep(min(self._shard.gather, ADD_GATHER_S))
            host = self._host
            keys = self._adding = [key for key in self._again if key in self._open]
            self._again.clear()
            if not keys or not host:
                continue
            try:
                await workflow.execute_activity(
                    names.ADD_TO_SHARD,
                    self._job([self._open[key] for key in keys]),
                    task_queue=host,
                    schedule_to_start_timeout=TO_START,
                    start_to_close_timeout=ADD_WITHIN,
                    retry_policy=ONCE,
                    summary=f"{len(keys)} runs go on",
                )
            except ActivityError as error:
                if is_leaving(error):
                    return
                if self._host == host:
                    self._again.update(dict.fromkeys(keys))
            finally:
                self._adding = []

    # What has changed

    def _note(self, report: RunReport) -> None:
        if report.run is None or (run := self._open.get(report.run.key)) is None or run.turn != report.run.turn:
            return  # a fleet has reported it before
        outcome = outcome_of_report(report, WorkflowClient())
        key = run.key
        run = self._open[key] = replace(run, token=report.token or run.token)
        round_ = round_of(outcome, report.answer_within)
        if round_ is None:
            self._finish(key, outcome)
        elif self._is_ending:
            # It is watched again after that, in a turn of its own, and asks for the same calls.
            self._pass_on(key, run.token)
        elif key not in self._rounds:
            self._progress[key] = RoundProgress()
            self._rounds[key] = asyncio.create_task(self._answer(key, round_, outcome))

    def _pass_on(self, key: str, token: Token, *, answered: int = 0) -> None:
        run = self._open[key]
        self._open[key] = replace(run, token=token, turn=run.turn + 1, rounds=run.rounds + answered)
        self._again[key] = None

    async def _answer(self, key: str, round_: CallRound, outcome: AnyOutcome[Any]) -> None:
        progress, token = self._progress[key], self._open[key].token
        try:
            most = self._shard.max_rounds
            if most is not None and self._open[key].rounds >= most:
                done = RoundResult(outputs=(), left=round_.calls)
                outcome = replace(unanswered(outcome, done), reason=Reason.MAX_ROUNDS)
            else:
                done = await answer_round(round_, self._how(), progress)
                outcome = unanswered(outcome, done)
            progress.running += 1  # what follows must not be cut off
            if done.left:
                await self._tell(key, with_outputs(token, done.outputs), outcome)
            elif (report := await self._followed_up(token, done.outputs)).outcome is None:
                self._pass_on(key, report.token or token, answered=1)
            else:
                await self._tell(key, report.token or token, outcome_of_report(report, WorkflowClient()))
        except Exception as error:
            if not is_leaving(error):
                self._broken = error
            raise
        finally:
            del self._rounds[key], self._progress[key]
        self._show()

    def _how(self) -> Answering:
        shard = self._shard
        return Answering(tools=shard.tools, people=frozenset(shard.people), heartbeat=CALL_PATIENCE * shard.heartbeat)

    async def _followed_up(self, token: Token, outputs: OutputsOfCalls) -> RunReport:
        """Return a token with outputs for the fleet; of a response, what its follow-up came to."""
        if token.ref.dialect != RESPONSE:
            return RunReport(token=with_outputs(token, outputs))
        try:
            return await run_on_one(
                names.FOLLOW_UP, WatchJob(token=with_outputs(token, outputs), options=self._shard.options), ONCE
            )
        except ActivityError as error:
            if is_leaving(error):
                raise
            return RunReport(token=with_outputs(token, outputs, is_unsure=True))

    async def _tell(self, key: str, token: Token, outcome: AnyOutcome[Any]) -> None:
        """Finish a watch in a way that the fleet has not told."""
        self._open[key] = replace(self._open[key], token=token)
        report = replace(report_of(outcome), token=token)
        await workflow.execute_activity(
            names.TELL,
            report,
            start_to_close_timeout=TELL_WITHIN,
            retry_policy=POLL_RETRIES,
            summary=f"tell {outcome.ref}",
        )
        self._finish(key, outcome)

    def _finish(self, key: str, outcome: AnyOutcome[Any]) -> None:
        token = self._open.pop(key).token
        self._ended.append(
            EndedRun(
                ref=outcome.ref,
                outcome=type(outcome).__name__,
                status=outcome.status,
                at=outcome.at,
                reason="" if outcome.reason is None else outcome.reason.value,
                error=None if outcome.error is None else outcome.error.to_dict(),
                token=None if outcome.reason is None else token,
            )
        )

    def _show(self) -> None:
        people = len(desk().open_calls())
        waiting = f"; {people} calls wait for people" if people else ""
        workflow.set_current_details(f"{len(self._open)} of {self._shard.total} runs are open{waiting}")

    # Ending

    async def _begin_anew(self) -> NoReturn:
        """Go on with a new history, as this one is long; only people are waited for now."""
        progress = dict(self._progress)
        await self._stop_rounds()
        for key, each in progress.items():
            self._pass_on(key, with_outputs(self._open[key].token, each.outputs))
        workflow.continue_as_new(
            replace(
                self._shard,
                runs=list(self._open.values()),
                ended=self._ended,
                again=[key for key in dict.fromkeys((*self._adding, *self._again)) if key in self._open],
                host=self._host,
                polls=self._polls,
            )
        )

    async def _stop_rounds(self) -> None:
        tasks = list(self._rounds.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave(self) -> None:
        """Stop the calls, and cancel the runs if that was asked for."""
        self._is_ending = True  # so that none begins
        await self._stop_rounds()
        if self._shard.on_exit != "cancel" or not self._open:
            return
        report: ShardReport = await workflow.execute_activity(
            names.CANCEL_MANY,
            replace(self._job(list(self._open.values())), shard=f"{self._name}/cancel"),
            result_type=ShardReport,
            start_to_close_timeout=LONGEST,
            heartbeat_timeout=timedelta(seconds=self._shard.heartbeat),
            summary=f"cancel {len(self._open)} runs",
        )
        for each in report.reports:
            self._note(each)
