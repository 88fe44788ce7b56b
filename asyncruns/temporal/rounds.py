"""Answers the calls of a round from within a workflow: by its handler, by people, and by tools, which are activities.

What was answered is in the history of the workflow. A tool is an activity with one attempt, so that no call begins
twice, whatever dies.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from asyncruns import errors
from asyncruns.errors import APIError, AsyncRunsError, ConfigurationError, ForeignError, InvalidRequestError
from asyncruns.lifecycle import Call, CallKind, Reason, RunRef
from asyncruns.lifecycle.machine import TIMED_OUT_OUTPUT
from asyncruns.temporal.desk import desk
from asyncruns.temporal.messages import (
    CALL,
    IF_INTERRUPTED,
    NO_TOOLSET,
    NOT_BEGUN,
    CallJob,
    CallResult,
    RunReport,
    WatchJob,
)
from asyncruns.temporal.reports import needs_outputs
from asyncruns.tools.context import RunFacts
from asyncruns.watch.call_answerer import Calls, GivenOutputs, texts_of
from asyncruns.watch.outcome import AnyOutcome

ONCE: Final = RetryPolicy(maximum_attempts=1)
POLL_RETRIES: Final = RetryPolicy(maximum_interval=timedelta(minutes=1))
LONGEST: Final = timedelta(days=30)
"""How long an activity may take whose worker lives; whether that does, heartbeats show."""
NOT_BEGUN_S: Final = 10.0
"""The pause before a call that could not begin is tried again."""
RERUN_S: Final = 1.0
"""The pause before a call runs again, so that one that ends its worker each time does not fill the history."""
LATE: Final = CallResult(output=TIMED_OUT_OUTPUT, failed=True)

WorkflowHandler = Callable[[Calls], Awaitable[GivenOutputs | None] | GivenOutputs | None]
OutputsOfCalls = tuple[tuple[Call, str, bool], ...]


class Answering(Struct, frozen=True, kw_only=True):
    """How the calls of a watch are answered.

    Attributes:
        tools: The name of the toolset; "" for the one without a name, None if no tool is to run.
        handler: Called in the workflow first, with the calls of a round.
        people: Names of the functions whose calls people answer.
        label: The label of the watch.
        heartbeat: The heartbeat timeout of the tools, in seconds.
    """

    tools: str | None = ""
    handler: WorkflowHandler | None = None
    people: Collection[str] = ()
    label: Any = None
    heartbeat: float = 30.0


class CallRound(Struct, frozen=True, kw_only=True):
    """The calls that a run waits for.

    Attributes:
        ref: The ref of the run.
        calls: The calls.
        metadata: The metadata of the run.
        within: Seconds within which they must be answered; None if there is no limit.
    """

    ref: RunRef
    calls: tuple[Call, ...]
    metadata: dict[str, Any]
    within: float | None = None


class RoundResult(Struct, frozen=True, kw_only=True):
    """What came of the calls of a round.

    Attributes:
        outputs: Calls, each with its output, and whether that is an error of ours.
        left: Calls that are left to the caller.
        cause: Why, in words; "" if nothing answers them.
    """

    outputs: OutputsOfCalls
    left: tuple[Call, ...] = ()
    cause: str = ""


def round_of(outcome: AnyOutcome[Any], within: float | None) -> CallRound | None:
    """Return the calls that are to be answered in a workflow; None if the outcome is not for the workflow."""
    if not needs_outputs(outcome):
        return None
    metadata = getattr(outcome.run, "metadata", None)
    plain = dict(metadata) if isinstance(metadata, Mapping) else {}
    return CallRound(ref=outcome.ref, calls=outcome.calls, metadata=plain, within=within)


class RoundProgress:
    """How far the calls of a round have come.

    Attributes:
        outputs: The outputs that exist.
        running: Number of calls that tools or the handler of the workflow answer; the others wait for people.
    """

    def __init__(self) -> None:
        self.outputs: list[tuple[Call, str, bool]] = []
        self.running: int = 0


async def answer_round(round_: CallRound, how: Answering, progress: RoundProgress | None = None) -> RoundResult:
    """Answer the calls of a round, all at once, and return what came of them.

    Calls that have no output when the run is about to expire are answered with an error, so that the run lives.

    Safe to cancel: tools that run are cancelled, and what they had done is not known; the outputs that exist are in
    `progress`.

    Raises:
        Exception: What the handler of the workflow raised.
    """
    progress = progress or RoundProgress()
    until = math.inf if round_.within is None else workflow.time() + round_.within
    progress.running += 1
    try:
        given = await _handled(round_, how, until)
    finally:
        progress.running -= 1
    progress.outputs += [(call, given[call.id], False) for call in round_.calls if call.id in given]
    rest = [call for call in round_.calls if call.id not in given]
    tasks = [asyncio.create_task(_answer_one(call, round_, how, progress)) for call in rest]
    results = await _until(tasks, until)
    late = [(call, TIMED_OUT_OUTPUT, True) for call, result in zip(rest, results, strict=True) if result is LATE]
    return RoundResult(
        outputs=(*progress.outputs, *late),
        left=tuple(call for call, result in zip(rest, results, strict=True) if result.output is None),
        cause=next((result.cause for result in results if result.cause), ""),
    )


async def _until(tasks: list[asyncio.Task[CallResult]], until: float) -> list[CallResult]:
    """Return the results of tasks; of those that are not done in time, an error."""
    if not tasks:
        return []
    try:
        timeout = None if until == math.inf else max(until - workflow.time(), 0.0)
        await workflow.wait(tasks, timeout=timeout)
        return [task.result() if task.done() else LATE for task in tasks]
    finally:
        for task in tasks:
            task.cancel()


async def _handled(round_: CallRound, how: Answering, until: float) -> dict[str, str]:
    whole = [call for call in round_.calls if not call.is_cut]
    if how.handler is None or not whole:
        return {}
    asked = Calls(whole, RunFacts(ref=round_.ref, metadata=round_.metadata), None)
    given = how.handler(asked)
    if inspect.isawaitable(given):
        task = asyncio.ensure_future(given)
        try:
            await workflow.wait([task], timeout=None if until == math.inf else max(until - workflow.time(), 0.0))
            given = task.result() if task.done() else {call.id: TIMED_OUT_OUTPUT for call in whole}
        finally:
            task.cancel()
    return {} if given is None else dict(texts_of(given))


async def _answer_one(call: Call, round_: CallRound, how: Answering, progress: RoundProgress) -> CallResult:
    if call.name in how.people and not call.is_cut:
        result = CallResult(output=await desk().output_of(call, round_.ref, how.label))
    else:
        progress.running += 1
        try:
            result = await _result_of(call, round_, how)
        finally:
            progress.running -= 1
    if result.output is not None:
        progress.outputs.append((call, result.output, result.failed))
    return result


async def _result_of(call: Call, round_: CallRound, how: Answering) -> CallResult:
    if how.tools is None or call.kind is not CallKind.FUNCTION:
        return CallResult()
    job = CallJob(
        call=call,
        ref=round_.ref,
        toolset=how.tools,
        label=how.label,
        metadata=round_.metadata,
        among=len(round_.calls),
        heartbeat=how.heartbeat,
    )
    while True:
        try:
            return await _run_once(job)
        except ActivityError as error:
            if is_leaving(error):
                raise asyncio.CancelledError from error
            if has_not_begun(error):
                await workflow.sleep(NOT_BEGUN_S)
                continue
        found = await _interrupted(job)
        if found.output is not None or found.cause:
            return found
        await workflow.sleep(RERUN_S)


async def _run_once(job: CallJob) -> CallResult:
    result: CallResult = await workflow.execute_activity(
        CALL,
        job,
        result_type=CallResult,
        start_to_close_timeout=LONGEST,
        heartbeat_timeout=timedelta(seconds=job.heartbeat),
        retry_policy=ONCE,
        summary=f"{job.call.name} {job.call.id}",
    )
    return result


async def _interrupted(job: CallJob) -> CallResult:
    """Return what the tool's `if_interrupted` says; without an output, it runs again."""
    result: CallResult = await workflow.execute_activity(
        IF_INTERRUPTED,
        job,
        result_type=CallResult,
        start_to_close_timeout=LONGEST,
        heartbeat_timeout=timedelta(seconds=job.heartbeat),
        summary=f"interrupted: {job.call.name} {job.call.id}",
    )
    return result


def has_not_begun(error: ActivityError) -> bool:
    """Return whether a call did not begin, as the worker has no toolset or no context for it."""
    return isinstance(error.cause, ApplicationError) and error.cause.type in (NO_TOOLSET, NOT_BEGUN)


def is_leaving(error: BaseException, cancels_before: int = 0) -> bool:
    """Return whether an activity ended because this task of the workflow was cancelled, not for its own sake.

    Args:
        error: What the activity ended with.
        cancels_before: `cancels()` when the activity was started; a task that cleans up was cancelled already.
    """
    # the SDK takes back the cancel of a task that waits for an activity
    return is_cancelled_exception(error) or cancels() > cancels_before


def cancels() -> int:
    """Return how often the current task was cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


@contextmanager
def our_errors() -> Iterator[None]:
    """Raise what ended an activity as an error that its caller expects.

    Raises:
        AsyncRunsError: It can't succeed.
        ActivityError: It failed otherwise.
        asyncio.CancelledError: This task was cancelled; what waits for it, such as `asyncio.timeout`, needs this error.
    """
    before = cancels()
    try:
        yield
    except ActivityError as error:
        if is_leaving(error, before):
            raise asyncio.CancelledError from error
        raise_ours(error)
        raise


async def run_on_one(activity: str, job: WatchJob, retry_policy: RetryPolicy) -> RunReport:
    """Run an activity for one run.

    Raises:
        AsyncRunsError: It can't succeed.
        ActivityError: It failed otherwise.
        asyncio.CancelledError: This task was cancelled.
    """
    with our_errors():
        report: RunReport = await workflow.execute_activity(
            activity,
            job,
            result_type=RunReport,
            start_to_close_timeout=LONGEST,
            heartbeat_timeout=timedelta(seconds=job.heartbeat),
            retry_policy=retry_policy,
            summary=f"{activity.removeprefix('asyncruns.').replace('_', ' ')} {job.token.ref}",
        )
    return report


def unanswered(outcome: AnyOutcome[Any], done: RoundResult) -> AnyOutcome[Any]:
    """Return the outcome of a watch of which some calls are left to the caller."""
    return replace(
        outcome,
        calls=done.left,
        outputs=tuple((call.id, text) for call, text, _ in done.outputs),
        reason=Reason.HANDLER_FAILED if done.cause else Reason.UNANSWERED,
        cause=ForeignError("asyncruns.errors.CallNotAnsweredError", done.cause) if done.cause else None,
    )


def raise_ours(error: ActivityError) -> None:
    """Raise the error of asyncruns that ended an activity for good, if one did."""
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.non_retryable and cause.type:
        kind = getattr(errors, cause.type, None)
        if kind in (InvalidRequestError, ConfigurationError):
            raise kind(cause.message) from error
        if isinstance(kind, type) and issubclass(kind, AsyncRunsError):
            raise APIError(f"{cause.type}: {cause.message}") from error
