"""Waits for runs from within a workflow: `watch` and `run_and_wait`, deterministic as a workflow must be.

All requests are sent by activities; what they found is in the history. Nothing here may read a clock, or anything else,
but through the workflow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, Literal, TypedDict, Unpack, cast

from msgspec.structs import replace
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from asyncruns.dialects.given import with_own_id
from asyncruns.errors import (
    APIConnectionError,
    APIError,
    AsyncRunsError,
    ForeignError,
    InvalidRequestError,
)
from asyncruns.http import require_id
from asyncruns.lifecycle import Reason, RunRef, TokenUsage
from asyncruns.lifecycle.policy import MAX_ROUNDS
from asyncruns.resources.response_parameters import with_text_format
from asyncruns.resources.run_parameters import with_response_format
from asyncruns.resources.thread_lock import OnBusy
from asyncruns.temporal import messages as names
from asyncruns.temporal.desk import desk
from asyncruns.temporal.messages import CreateJob, RunReport, WatchJob
from asyncruns.temporal.reports import outcome_of_report
from asyncruns.temporal.rounds import (
    RERUN_S,
    Answering,
    OutputsOfCalls,
    WorkflowHandler,
    answer_round,
    round_of,
    unanswered,
)
from asyncruns.temporal.running import ONCE, POLL_RETRIES, our_errors, pauses, run_activity, run_on_one
from asyncruns.temporal.sizes import check_fits
from asyncruns.temporal.workflow_client import WorkflowClient
from asyncruns.watch.handover import Token, token_in, token_text, with_outputs
from asyncruns.watch.options import check_watch_options
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire.names import BATCH, MESSAGE_BATCH, RESPONSE, THREAD_RUN
from asyncruns.wire.plain import is_plain

CANCEL_RETRIES: Final = RetryPolicy(maximum_attempts=8, maximum_interval=timedelta(seconds=30))
CREATE_WITHIN: Final = timedelta(minutes=2)
CREATE_RETRIES: Final = RetryPolicy(maximum_attempts=8, maximum_interval=timedelta(seconds=30))
_OF_FLEETS: Final = ("max_outage", "max_unknown_status", "keep_tool_choice", "on_lost_submit", "observe_only", "label")
_COLD: Final = frozenset({BATCH, MESSAGE_BATCH})
_OWN: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "tools": (
        "the name of a toolset of the workers, such as Toolset(name='weather'), since workflows hold no functions",
        lambda given: isinstance(given, str | None),
    ),
    "people": (
        'a list of names of functions, such as ["refund"]',
        lambda given: (
            isinstance(given, list | tuple | set | frozenset) and all(isinstance(name, str) for name in given)
        ),
    ),
    "cold": ("True or False", lambda given: isinstance(given, bool)),
    "heartbeat_timeout": (
        "more than 0 seconds",
        lambda given: isinstance(given, int | float) and not isinstance(given, bool) and given > 0,
    ),
}
"""The options that only workflows have: what each must be, in words and as a check."""


class WorkflowOptions(TypedDict, total=False):
    """The options of `watch` in a workflow; that describes them."""

    tools: str | None
    on_requires_action: WorkflowHandler | None
    people: Collection[str]
    timeout: float | None
    max_outage: float | None
    max_unknown_status: float | None
    max_rounds: int | None
    observe_only: bool
    keep_tool_choice: bool
    label: Any
    output_type: type[Any] | None
    on_exit: Literal["leave", "cancel"]
    on_lost_submit: Literal["give_up", "resend"]
    cold: bool
    heartbeat_timeout: float


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
        InvalidRequestError: The arguments do not name a run, or an option is unusable; or outputs are too large for
            Temporal.
        Exception: What `on_requires_action` raised.
    """
    _check(options)
    if token is not None:
        given = token_in(token)
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


def _check(options: WorkflowOptions) -> None:
    """Check the options of a watch, as `Client.watch` does.

    Raises:
        InvalidRequestError: One is unusable.
    """
    check_watch_options({name: given for name, given in options.items() if name not in _OWN}, others=tuple(_OWN))
    for name, (what, is_usable) in _OWN.items():
        given = cast("Mapping[str, object]", options).get(name)
        if name in options and not is_usable(given):
            raise InvalidRequestError(f"{name} must be {what}; got {given!r}")
    if options.get("observe_only") and (options.get("tools") or options.get("people")):
        raise InvalidRequestError("A watch with observe_only=True answers nothing: leave out tools and people")
    if not is_plain(options.get("label")):
        raise InvalidRequestError(f"label must be plain JSON, since the history has it; got {options.get('label')!r}")


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
        self._give_up_at = None if timeout is None else self._began + timeout
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
                await self._cancel_run()
            raise
        if not cancels or outcome.reason is None:
            return outcome
        cancelled = await self._cancel_run()
        if isinstance(cancelled, Exception):
            return replace(outcome, cancel_error=cancelled)
        return self._noted(cancelled)

    async def _until_finished(self) -> AnyOutcome[Any]:
        report = await self._watched()
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
        token = self._token
        if token.ref.dialect != RESPONSE:  # a poll shows whether a submit was accepted, so the activity may begin again
            self._token = with_outputs(token, outputs)
            return await self._watched()
        is_unsure, pause = False, pauses(RERUN_S)
        while True:
            self._token = with_outputs(token, outputs, is_unsure=is_unsure)
            try:
                report = await run_on_one(names.FOLLOW_UP, self._job(), ONCE)
            except ActivityError:
                pass  # it is not known what has become of it
            else:
                self._token = report.token or self._token
                return report if report.outcome is not None else await self._watched()
            if is_unsure and self._options.get("on_lost_submit") != "resend":
                return await self._watched()
            if is_unsure:
                await workflow.sleep(next(pause))
            is_unsure = True

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

    async def _cancel_run(self) -> RunReport | Exception:
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


async def run_and_wait(
    *,
    message: str | Iterable[Mapping[str, Any]],
    assistant_id: str | None = None,
    model: str | None = None,
    thread_id: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    on_busy: OnBusy = "raise",
    **options: Unpack[WorkflowOptions],
) -> AnyOutcome[Any]:
    """Send a message to an assistant or a model from within a workflow, watch the run, and return the outcome.

    The message and the run carry a key of this workflow, by which they are found if an activity has to begin again, so
    nothing is created twice; without `thread_id`, a thread is created first, of which an empty one may remain. A
    response cannot be found: its create has one attempt, and with `on_lost_submit="resend"` more.

    Safe to cancel, as `watch` is; what was created remains at the server.

    Args:
        message: The user's text, or a list of content parts. It is in the history of the workflow.
        assistant_id: The assistant, which must know the tools.
        model: The model of a response; it gets the definitions of the tools.
        thread_id: The thread. Default None: a new one.
        parameters: Further parameters of the run or the response, as plain JSON: they are in the history, so none may
            be a credential, and `extra_headers` are refused.
        on_busy: What to do if another run is active on the thread: "raise" (default), or "wait" until it has ended.
        **options: As for `watch`.

    Returns:
        The outcome, as for `watch`.

    Raises:
        InvalidRequestError: An argument is unusable.
        APIError: The run could not be created.
    """
    _check(options)
    with_format = with_text_format if assistant_id is None else with_response_format
    request: dict[str, Any] = {
        "message": message if isinstance(message, str) else list(message),
        "assistant_id": assistant_id,
        "model": model,
        "parameters": with_format({**_checked(parameters or {}), "output_type": options.get("output_type")}),
        "on_busy": on_busy,
    }
    if not is_plain(request):
        raise InvalidRequestError("message and parameters must be plain JSON, since the history has them")
    if assistant_id is not None and model is None:
        request |= {"thread_id": thread_id or await _new_thread(), "key": str(workflow.uuid4())}
    elif thread_id is not None:
        request["thread_id"] = thread_id
    report = await _created(request, options)
    if report.token is None:
        raise APIError("The create has returned no run")
    return await WorkflowWatch(report.token, options).outcome()


def _checked(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters of a run.

    Raises:
        InvalidRequestError: One must not be in a history, or is passed otherwise.
    """
    if parameters.get("extra_headers"):
        raise InvalidRequestError(
            "extra_headers may be credentials, and would be in the history: pass them to the client as default_headers"
        )
    if "output_type" in parameters:
        raise InvalidRequestError("Pass output_type as output_type=, not in the parameters")
    return parameters


async def _new_thread() -> str:
    with our_errors():
        thread_id: str = await workflow.execute_activity(
            names.CREATE_THREAD, result_type=str, schedule_to_close_timeout=CREATE_WITHIN, summary="new thread"
        )
    return thread_id


async def _created(request: dict[str, Any], options: WorkflowOptions) -> RunReport:
    heartbeat = options.get("heartbeat_timeout", 30.0)
    job = CreateJob(request=request, toolset=options.get("tools", ""), label=options.get("label"), heartbeat=heartbeat)
    is_found_again = "key" in request or options.get("on_lost_submit") == "resend"
    creating = asyncio.create_task(_create(job, CREATE_RETRIES if is_found_again else ONCE))
    try:
        return await asyncio.shield(creating)
    except asyncio.CancelledError:
        if options.get("on_exit") == "cancel":
            await workflow.wait([creating], timeout=CREATE_WITHIN.total_seconds())  # it may not even have begun
            if creating.done() and creating.exception() is None and (token := creating.result().token) is not None:
                await WorkflowWatch(token, options)._cancel_run()
            creating.cancel()
        raise


async def _create(job: CreateJob, retry_policy: RetryPolicy) -> RunReport:
    summary = f"create a run of {job.request.get('assistant_id') or job.request.get('model')}"
    try:
        return await run_activity(names.CREATE, job, RunReport, retry_policy, summary)
    except ActivityError as error:
        raise APIConnectionError(
            f"The run could not be created, or its create was lost: {error.cause}", sent=True
        ) from error
