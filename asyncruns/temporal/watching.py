"""Waits for runs from within a workflow: `watch`, deterministic as a workflow must be.

All requests are sent by activities; what they found is in the history. Nothing here may read a clock, or anything else,
but through the workflow.
"""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any, Final, Unpack

from msgspec.structs import replace
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from asyncruns.dialects.given import with_own_id
from asyncruns.errors import AsyncRunsError, ForeignError, InvalidRequestError
from asyncruns.http import require_id
from asyncruns.lifecycle import Reason, RunRef, TokenUsage
from asyncruns.lifecycle.policy import MAX_ROUNDS
from asyncruns.lifecycle.records import CallRecord
from asyncruns.temporal import messages as names
from asyncruns.temporal.desk import desk
from asyncruns.temporal.messages import RunReport, WatchJob
from asyncruns.temporal.reports import outcome_of_report
from asyncruns.temporal.rounds import RERUN_S, Answering, OutputsOfCalls, answer_round, round_of, unanswered
from asyncruns.temporal.running import ONCE, POLL_RETRIES, pauses, result_in_time, run_on_one
from asyncruns.temporal.sizes import check_fits
from asyncruns.temporal.workflow_client import WorkflowClient
from asyncruns.temporal.workflow_options import WorkflowOptions, check_options
from asyncruns.watch.handover import Token, token_alone, token_text, with_outputs
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire.names import BATCH, MESSAGE_BATCH, RESPONSE, THREAD_RUN

CANCEL_RETRIES: Final = RetryPolicy(maximum_attempts=8, maximum_interval=timedelta(seconds=30))
_OF_FLEETS: Final = ("max_outage", "max_unknown_status", "keep_tool_choice", "on_lost_submit", "observe_only", "label")
_COLD: Final = frozenset({BATCH, MESSAGE_BATCH})


async def watch(
    run: Any = None,
    *,
    thread_id: str | None = None,
    run_id: str | None = None,
    response_id: str | None = None,
    batch_id: str | None = None,
    token: str | None = None,
    **options: Unpack[WorkflowOptions],
) -> AnyOutcome[Any]:
    """Watch a run from within a workflow until it ends, answer its tool calls, and return the outcome.

    An activity polls, with the client of the worker that runs it; when that worker dies, another one goes on. Each tool
    call is an activity with one attempt, and its output is in the history, so no call runs twice. Outputs are submitted
    by the activity that polls, which sees by a poll what became of a submit whose answer was lost.

    Let one workflow watch a run, once: two would both answer its calls. Others may use `observe_only`.

    Safe to cancel: the activities are cancelled, and then the run, if `on_exit` says so; otherwise it goes on at the
    server. A submit that is being sent may still arrive.

    Args:
        run: A run, a response, a batch, or a `RunRef`. If omitted, pass `thread_id` and `run_id`, `response_id` or
            `batch_id`.
        thread_id: The thread of the run, when `run` is not given.
        run_id: The run, when `run` is not given.
        response_id: The response, when `run` is not given.
        batch_id: The batch, when `run` is not given.
        token: What `token` of an outcome returned, to go on with that watch.
        **options: As for `Client.watch`, but for these:

            - `tools`: The name of the toolset that the workers have: `Toolset(name=...)`; a call waits for a worker
              that has it. Default "": the one without a name; on a worker without one, the calls are the caller's.
              None for no tools.
            - `on_requires_action`: A function in the workflow, called first with the calls of each round; it may be
              async, and wait for a signal. It returns outputs by call id; what it leaves out goes to people and tools.
              What it raises ends the watch.
            - `people`: Names of functions whose calls people answer: see `answer_call` and `open_calls`.
            - `timeout`: Seconds for the whole watch. By default the expiry of the run decides, as for `Client.watch`;
              the time that calls wait for their answers does not count then.
            - `cold`: Whether long pauses between two polls are spent without an activity, in the server of Temporal:
              for runs of hours. Default: for batches.
            - `heartbeat_timeout`: Seconds after which a worker that is not heard of is taken to be dead. Default 30.

    Returns:
        The outcome, as for `Client.watch`. Its `text()` fetches the messages by an activity.

    Raises:
        InvalidRequestError: The arguments do not name a run, or more than one, or an option is unusable; or outputs are
            too large for Temporal.
        Exception: What `on_requires_action` raised.
    """
    check_options(options)
    if token is not None:
        given = token_alone(
            token, run=run, thread_id=thread_id, run_id=run_id, response_id=response_id, batch_id=batch_id
        )
    else:
        run = with_own_id(run, response_id, batch_id, thread_id=thread_id, run_id=run_id)
        given = Token(ref=_ref_of(run, thread_id, run_id))
    return await WorkflowWatch(given, options).outcome()


def _ref_of(run: Any, thread_id: str | None, run_id: str | None) -> RunRef:
    if run is None:
        return RunRef(THREAD_RUN, (require_id("thread_id", thread_id), require_id("run_id", run_id)))
    if thread_id is not None or run_id is not None:
        raise InvalidRequestError("Pass a run, or thread_id and run_id, not both")
    return RunRef.of(run)


class WorkflowWatch:
    """One watch of a workflow.

    Args:
        token: What is known of the run.
        options: The options of `watch`, which were checked.
    """

    def __init__(self, token: Token, options: WorkflowOptions) -> None:
        self._token = token
        self._options = options
        self._began = workflow.time()
        self._polls = 0
        self._used: dict[RunRef, TokenUsage] = {}
        self._refs: tuple[RunRef, ...] = ()
        self._is_limited = False  # of outputs, as the last report says
        timeout = options.get("timeout")
        self._give_up_at = None if timeout is None or timeout == math.inf else self._began + timeout
        self._heartbeat = options.get("heartbeat_timeout", 30.0)
        self._answering = Answering(
            tools=options.get("tools", ""),
            handler=options.get("on_requires_action"),
            people=frozenset(options.get("people", ())),
            label=options.get("label", token.record and token.record.label),
            heartbeat=self._heartbeat,
        )

    async def outcome(self) -> AnyOutcome[Any]:
        """Watch until the watch finishes; `watch` describes the rest."""
        ref, watched = self._token.ref, desk().watched
        if self._options.get("observe_only"):
            return await self._outcome()
        if ref in watched:
            raise InvalidRequestError(f"This workflow watches {ref} already, and a second watch would answer its calls")
        watched.add(ref)
        try:
            return await self._outcome()
        finally:
            watched.discard(ref)

    async def _outcome(self) -> AnyOutcome[Any]:
        cancels = self._options.get("on_exit") == "cancel"
        try:
            outcome = await self._until_finished()
        except (Exception, asyncio.CancelledError):
            if cancels:
                await self.cancel_run()
            raise
        if not cancels or outcome.reason is None:
            return outcome
        cancelled = await self.cancel_run()
        if isinstance(cancelled, Exception):
            return replace(outcome, cancel_error=cancelled)
        return self._noted(cancelled)

    async def _until_finished(self) -> AnyOutcome[Any]:
        has_round = _has_round(self._token) and not self._options.get("observe_only")
        report = await (self._followed_up() if has_round else self._watched())
        rounds = 0
        while True:
            outcome = self._noted(report)
            self._token = report.token or self._token
            round_ = round_of(outcome, report, give_up_at=self._give_up_at)
            if round_ is None:
                return outcome
            most = self._options.get("max_rounds", MAX_ROUNDS)
            if most is not None and rounds >= most:
                return replace(outcome, reason=Reason.MAX_ROUNDS)
            rounds += 1
            self._is_limited = report.is_limited
            done = await answer_round(round_, self._answering)
            if done.left:
                self._token = with_outputs(self._token, done.outputs)
                return replace(unanswered(outcome, done), _token=token_text(self._token))
            report = await self._submitted(done.outputs)

    def _noted(self, report: RunReport) -> AnyOutcome[Any]:
        """Return the outcome that an activity reported, as one of the whole watch."""
        outcome = outcome_of_report(report, WorkflowClient(), self._options.get("output_type"))
        self._polls += outcome.polls
        self._used[outcome.ref] = report.used
        self._refs = tuple(dict.fromkeys((*self._refs, *outcome.refs)))
        elapsed = workflow.time() - self._began
        usage = sum(self._used.values(), TokenUsage())
        return replace(outcome, polls=self._polls, usage=usage, refs=self._refs, elapsed=elapsed)

    async def _submitted(self, outputs: OutputsOfCalls) -> RunReport:
        """Submit outputs, and return what is found next."""
        self._token = with_outputs(self._token, outputs)
        if self._token.ref.dialect != RESPONSE:  # a poll shows if a submit was accepted, so the activity may run again
            return await self._watched()
        return await self._followed_up()

    async def _followed_up(self) -> RunReport:
        """Submit the outputs that the token has for a response, and return what is found next.

        A poll can't show whether they were accepted, so the activity has one attempt, and more only to send them again.
        """
        pause = pauses(RERUN_S)
        is_unsure = _is_unsure(self._token)
        while not is_unsure or self._options.get("on_lost_submit") == "resend":
            try:
                report = await self._follow_up()
            except ActivityError:  # it is not known what has become of it
                if is_unsure:
                    await workflow.sleep(next(pause))
                is_unsure, self._token = True, _unsure(self._token)
            else:
                self._token = report.token or self._token
                return report if report.outcome is not None else await self._watched()
        return await self._watched()

    async def _follow_up(self) -> RunReport:
        sending = asyncio.create_task(run_on_one(names.FOLLOW_UP, self._job(), ONCE))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            if self._options.get("on_exit") == "cancel" and (report := await result_in_time(sending)) is not None:
                self._token = report.token or self._token  # the response that follows is the one to cancel
            sending.cancel()
            raise

    async def _watched(self) -> RunReport:
        return await run_on_one(names.WATCH, self._job(), POLL_RETRIES)

    def _job(self) -> WatchJob:
        options: dict[str, Any] = {name: value for name, value in self._options.items() if name in _OF_FLEETS}
        if "timeout" in self._options and self._give_up_at is None:
            options["timeout"] = None
        job = WatchJob(
            token=self._token,
            options=options,
            give_up_at=self._give_up_at,
            is_cold=self._options.get("cold", self._token.ref.dialect in _COLD),
            heartbeat=self._heartbeat,
        )
        return check_fits(job) if self._is_limited else job

    async def cancel_run(self) -> RunReport | Exception:
        """Cancel the run; return how it ended, or why that is not known."""
        label = {} if self._answering.label is None else {"label": self._answering.label}
        # without outputs, which nobody waits for any more
        job = WatchJob(token=Token(ref=self._token.ref), options=label, heartbeat=self._heartbeat)
        try:
            return await run_on_one(names.CANCEL, job, CANCEL_RETRIES)
        except (ActivityError, AsyncRunsError) as error:
            cause = error.cause if isinstance(error, ActivityError) else error
            workflow.logger.warning("The run %s was not cancelled, and may go on: %s", self._token.ref, cause)
            return error if isinstance(error, AsyncRunsError) else ForeignError("ActivityError", str(cause))


def _unsubmitted(token: Token) -> tuple[CallRecord, ...]:
    """Return the calls of the open round that have begun, or have outputs that were not submitted."""
    return () if token.record is None else tuple(call for call in token.record.calls if not call.accepted_at)


def _has_round(token: Token) -> bool:
    """Return whether all calls of a response have outputs, and none was submitted for certain."""
    calls = _unsubmitted(token)
    if token.ref.dialect != RESPONSE or token.record is None or not calls:
        return False
    left = {call["id"] for call in (token.record.outcome or {}).get("calls", ())}
    return all(call.output is not None for call in calls) and left <= {call.call_id for call in calls}


def _is_unsure(token: Token) -> bool:
    """Return whether outputs of the open round may have been submitted."""
    return token.record is not None and any(call.key in token.record.submitting for call in _unsubmitted(token))


def _unsure(token: Token) -> Token:
    """Return a token whose outputs may have been submitted."""
    if token.record is None:
        return token
    keys = tuple(call.key for call in _unsubmitted(token) if call.output is not None)
    return replace(token, record=replace(token.record, submitting=keys))
