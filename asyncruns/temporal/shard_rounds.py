"""Answers the calls of the runs of a shard, each run in a task of its own, and has their outputs submitted.

A run whose calls can't be answered finishes; it must not hold up the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final

from msgspec.structs import replace
from temporalio import workflow
from temporalio.exceptions import ActivityError

from asyncruns.lifecycle import Reason
from asyncruns.temporal.desk import MOST_TOOLS_AT_ONCE
from asyncruns.temporal.messages import FOLLOW_UP, TELL, RunReport, Shard, WatchJob
from asyncruns.temporal.reports import needs_outputs, outcome_of_report, report_of, report_of_error
from asyncruns.temporal.rounds import (
    Answering,
    CallRound,
    OutputsOfCalls,
    RoundProgress,
    RoundResult,
    answer_round,
    unanswered,
)
from asyncruns.temporal.running import ONCE, POLL_RETRIES, run_on_one
from asyncruns.temporal.shard_runs import ShardRuns
from asyncruns.temporal.sizes import json_size
from asyncruns.temporal.workflow_client import WorkflowClient
from asyncruns.watch.handover import Token, with_outputs
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire.names import RESPONSE

TYPICAL_OUTPUT: Final = 20_000
"""Bytes that an output is taken to have, until some are known."""
KNOWN_AFTER: Final = 20
EVENTS_OF_CALL: Final = 8
"""At most so many events of the history are due to a call, with what follows it."""
COPIES_OF_OUTPUT: Final = 3
"""How often an output may be in the history: as a result, and as what fleets are given."""
CALL_PATIENCE: Final = 3.0
"""How many times longer than for polls the heartbeat of a call may be overdue: it would not run again."""
TELL_WITHIN: Final = timedelta(minutes=5)


class ShardRounds:
    """The rounds of calls that are being answered for a shard.

    Args:
        shard: What the workflow began with.
        runs: Its runs; they are changed here.
        on_end: Called when a round is over.

    Attributes:
        is_stopped: Whether no calls are answered any more.
    """

    def __init__(self, shard: Shard, runs: ShardRuns, on_end: Callable[[], None]) -> None:
        self._shard = shard
        self._runs = runs
        self._on_end = on_end
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, tuple[CallRound, AnyOutcome[Any]]] = {}  # those of `later` of the runs
        self._given_up: set[str] = set()
        self._outputs = self._output_bytes = 0  # that are known in this history
        self._slots = asyncio.Semaphore(MOST_TOOLS_AT_ONCE)  # for what follows calls, as the desk for tools
        self._telling = asyncio.Semaphore(MOST_TOOLS_AT_ONCE)
        self._answering = Answering(
            tools=None if shard.options.get("observe_only") else shard.tools,
            people=frozenset(shard.people),
            heartbeat=CALL_PATIENCE * shard.heartbeat,
        )
        self.is_stopped: bool = False

    def add(self, key: str, round_: CallRound, outcome: AnyOutcome[Any]) -> None:
        """Note that the calls of a run are to be answered; nothing happens if they are being answered already."""
        if key not in self._tasks:
            self._waiting[key] = round_, outcome
            self._runs.later[key] = None

    def begin(self, has_room: Callable[[int, int], bool]) -> None:
        """Begin to answer calls that wait, those of one run after the other.

        Args:
            has_room: Called with the numbers of events and bytes of the history that are due to the calls that are
                being answered; returns whether more may begin.
        """
        while self._waiting and not self.is_stopped:
            calls = self._calls
            if calls >= MOST_TOOLS_AT_ONCE or not has_room(calls * EVENTS_OF_CALL, calls * self._bytes_of_call):
                return
            key = next(iter(self._waiting))
            round_, outcome = self._waiting.pop(key)
            del self._runs.later[key]
            by_tools = sum(call.name not in self._answering.people for call in round_.calls)
            self._runs.rounds[key] = RoundProgress(len(round_.calls), by_tools)
            self._tasks[key] = asyncio.create_task(self._answer(key, round_, outcome))

    @property
    def _calls(self) -> int:
        """Number of calls that tools are answering, or will."""
        return sum(max(each.by_tools - len(each.outputs), 0) for each in self._runs.rounds.values())

    @property
    def _bytes_of_call(self) -> int:
        is_known = self._outputs >= KNOWN_AFTER
        return COPIES_OF_OUTPUT * (self._output_bytes // self._outputs if is_known else TYPICAL_OUTPUT)

    @property
    def is_giving_up(self) -> bool:
        """Whether a run is being given up now."""
        return bool(self._given_up)

    def give_up_largest(self) -> bool:
        """Stop to watch the run whose calls have the most bytes of outputs; return False if there is none."""
        rounds = self._runs.rounds
        key = max(rounds, key=lambda each: json_size([text for _, text, _ in rounds[each].outputs]), default=None)
        if key is not None:
            self._given_up.add(key)
            self._tasks[key].cancel("the outputs of its calls are too large to be kept while other calls are answered")
        return key is not None

    async def stop(self) -> None:
        """Stop all; the outputs that exist are in the `rounds` of the runs."""
        self.is_stopped = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, key: str, round_: CallRound, outcome: AnyOutcome[Any]) -> None:
        try:
            await self._answered(key, round_, outcome)
        except (Exception, asyncio.CancelledError) as error:
            if self.is_stopped:
                raise
            await self._give_up(key, error)
        # not in a `finally`, which may be executed outside of the workflow, when it is forgotten
        self._learn(self._runs.rounds.pop(key))
        del self._tasks[key]
        self._given_up.discard(key)
        self._on_end()

    def _learn(self, progress: RoundProgress) -> None:
        self._outputs += len(progress.outputs)
        self._output_bytes += sum(json_size(text) for _, text, _ in progress.outputs)

    async def _answered(self, key: str, round_: CallRound, outcome: AnyOutcome[Any]) -> None:
        run, progress, most = self._runs.open[key], self._runs.rounds[key], self._shard.max_rounds
        if most is not None and run.rounds >= most:
            done = RoundResult(outputs=(), left=round_.calls)
            outcome = replace(unanswered(outcome, done), reason=Reason.MAX_ROUNDS)
        else:
            done = await answer_round(round_, self._answering, progress)
            outcome = unanswered(outcome, done)
        if done.left:
            await self._tell(key, with_outputs(run.token, done.outputs), outcome)
            return
        progress.running += 1  # what follows must not be cut off
        report = await self._followed_up(key, run.token, done.outputs)
        token = report.token or run.token
        if report.outcome is not None and not needs_outputs(found := outcome_of_report(report, WorkflowClient())):
            await self._tell(key, token, found)
        else:
            self._runs.pass_on(key, token, answered=1)

    async def _followed_up(self, key: str, token: Token, outputs: OutputsOfCalls) -> RunReport:
        """Return a token with outputs for the fleet; of a response, what its follow-up came to."""
        if token.ref.dialect != RESPONSE:
            return RunReport(token=with_outputs(token, outputs))
        job = WatchJob(token=with_outputs(token, outputs), options=self._shard.options)
        sending = asyncio.ensure_future(self._in_slot(run_on_one(FOLLOW_UP, job, ONCE)))
        try:
            return await asyncio.shield(sending)
        except ActivityError:
            return RunReport(token=with_outputs(token, outputs, is_unsure=True))
        except asyncio.CancelledError:
            if self._shard.on_exit == "cancel":  # the response that follows is the one to cancel
                self._runs.pass_on(key, (await sending).token or token)
            sending.cancel()
            raise

    async def _in_slot(self, work: Coroutine[Any, Any, RunReport]) -> RunReport:
        async with self._slots:
            return await work

    async def _give_up(self, key: str, error: BaseException) -> None:
        """Finish the watch of a run whose calls, or what followed them, raised an unexpected error."""
        token = with_outputs(self._runs.open[key].token, self._runs.rounds[key].outputs)
        cause = error.cause if isinstance(error, ActivityError) and error.cause else error
        report = report_of_error(token.ref, cause, Reason.BROKE, workflow.time())
        await self._tell(key, token, outcome_of_report(report, WorkflowClient()))

    async def _tell(self, key: str, token: Token, outcome: AnyOutcome[Any]) -> None:
        """Finish a watch in a way that the fleet has not told."""
        self._runs.open[key] = replace(self._runs.open[key], token=token)
        report = replace(report_of(outcome), token=None if outcome.reason is None else token)
        try:
            async with self._telling:
                await workflow.execute_activity(
                    TELL,
                    report,
                    start_to_close_timeout=TELL_WITHIN,
                    retry_policy=POLL_RETRIES,
                    summary=f"tell {outcome.ref}",
                )
        except ActivityError as error:
            if self.is_stopped:
                raise
            workflow.logger.error("on_outcome was not called for %s: %s", outcome.ref, error.cause)
        self._runs.finish(key, outcome)
