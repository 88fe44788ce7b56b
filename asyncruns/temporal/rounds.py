"""Answers the calls of a round from within a workflow: by its handler, by people, and by tools, which are activities.

What was answered is in the history of the workflow. A tool is an activity with one attempt, so that no call begins
twice, whatever dies.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace
from temporalio import workflow
from temporalio.exceptions import ActivityError

from asyncruns.errors import ForeignError, InvalidRequestError
from asyncruns.lifecycle import Call, CallKind, Reason, RunRef
from asyncruns.lifecycle.ledger import check_answers
from asyncruns.lifecycle.machine import TIMED_OUT_OUTPUT
from asyncruns.lifecycle.records import key_of_call
from asyncruns.temporal.desk import desk
from asyncruns.temporal.messages import CALL, IF_INTERRUPTED, CallJob, CallResult, RunReport
from asyncruns.temporal.reports import begun_in, needs_outputs
from asyncruns.temporal.running import ONCE, pauses, run_activity
from asyncruns.temporal.sizes import ADVICE, MOST_OUTPUTS, json_size
from asyncruns.tools import Toolset
from asyncruns.tools.context import RunFacts
from asyncruns.watch.call_answerer import Calls, GivenOutputs, known_calls, texts_of
from asyncruns.watch.outcome import AnyOutcome

RERUN_S: Final = 1.0
"""The first pause before a call runs again, so that one that ends its worker each time does not fill the history."""
LATE: Final = CallResult(output=TIMED_OUT_OUTPUT, failed=True)
_NO_TOOLS: Final = Toolset()

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
        answer_by: When they must be answered, in seconds since the epoch; infinity if there is no limit.
        room: How many bytes their outputs may have together; infinity if there is no limit.
        begun: The keys of calls that had begun when the process that ran them ended.
    """

    ref: RunRef
    calls: tuple[Call, ...]
    metadata: dict[str, Any]
    answer_by: float = math.inf
    room: float = math.inf
    begun: frozenset[str] = frozenset()

    def has_begun(self, call: Call) -> bool:
        """Return whether a call had begun, so that its tool says what becomes of it; not of a question."""
        return call.kind is CallKind.FUNCTION and key_of_call(call) in self.begun


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


def round_of(
    outcome: AnyOutcome[Any], report: RunReport, *, give_up_at: float | None = None, room: int | None = None
) -> CallRound | None:
    """Return the calls that are to be answered in a workflow; None if the outcome is not for the workflow.

    Args:
        outcome: The outcome that the report has.
        report: What an activity has found.
        give_up_at: When the watch gives up, in seconds since the epoch; None if the expiry of the run decides.
        room: How many bytes the outputs may have together, if there is a limit; by default `MOST_OUTPUTS`.
    """
    if not needs_outputs(outcome):
        return None
    metadata = getattr(outcome.run, "metadata", None)
    return CallRound(
        ref=outcome.ref,
        calls=outcome.calls,
        metadata=dict(metadata) if isinstance(metadata, Mapping) else {},
        answer_by=min((at for at in (report.answer_by, give_up_at) if at is not None), default=math.inf),
        room=(room or MOST_OUTPUTS) if report.is_limited else math.inf,
        begun=frozenset() if report.token is None else frozenset(call.key for call in begun_in(report.token)),
    )


class RoundProgress:
    """How far the calls of a round have come.

    Args:
        calls: How many there are.
        by_tools: How many of them people do not answer.

    Attributes:
        calls: The argument of the same name, as is `by_tools`.
        outputs: The outputs that exist.
        running: Number of calls that tools or the handler of the workflow answer; the others wait for people.
    """

    def __init__(self, calls: int, by_tools: int = 0) -> None:
        self.calls: int = calls
        self.by_tools: int = by_tools
        self.outputs: list[tuple[Call, str, bool]] = []
        self.running: int = 0


async def answer_round(round_: CallRound, how: Answering, progress: RoundProgress | None = None) -> RoundResult:
    """Answer the calls of a round, all at once, and return what came of them.

    Calls that have no output when the run is about to expire are answered with an error, so that the run lives.

    Safe to cancel: tools that run are cancelled, and what they had done is not known; the outputs that exist are in
    `progress`.

    Raises:
        InvalidRequestError: The outputs of the handler are too large, or for other calls, or no approval.
        Exception: What the handler of the workflow raised.
    """
    progress = progress or RoundProgress(len(round_.calls))
    progress.running += 1
    try:
        given = await _handled(round_, how)
    finally:
        progress.running -= 1
    progress.outputs += [(call, given[call.id], False) for call in round_.calls if call.id in given]
    rest = [call for call in round_.calls if call.id not in given]
    left = replace(round_, calls=tuple(rest), room=round_.room - _size_of(given))
    tasks = [asyncio.create_task(_answer_one(call, left, how, progress)) for call in rest]
    results = await _until(tasks, round_.answer_by)
    results = [CallResult() if is_undecided(*each) else each[1] for each in zip(rest, results, strict=True)]
    late = [(call, TIMED_OUT_OUTPUT, True) for call, result in zip(rest, results, strict=True) if result is LATE]
    return RoundResult(
        outputs=(*progress.outputs, *late),
        left=tuple(call for call, result in zip(rest, results, strict=True) if result.output is None),
        cause=next((result.cause for result in results if result.cause), ""),
    )


def is_undecided(call: Call, result: CallResult) -> bool:
    """Return whether it is too late for an approval, which is left to the caller: no decision is invented."""
    return result is LATE and call.kind is CallKind.APPROVAL


async def _until(tasks: list[asyncio.Task[CallResult]], until: float) -> list[CallResult]:
    """Return the results of tasks; of those that are not done in time, an error."""
    if not tasks:
        return []
    try:
        await workflow.wait(tasks, timeout=_seconds_to(until))
        return [task.result() if task.done() else LATE for task in tasks]
    finally:
        for task in tasks:
            task.cancel()


async def _handled(round_: CallRound, how: Answering) -> dict[str, str]:
    whole = [call for call in round_.calls if not call.is_cut and not round_.has_begun(call)]
    if how.handler is None or not whole:
        return {}
    asked = Calls(whole, RunFacts(ref=round_.ref, metadata=round_.metadata), None)
    given = how.handler(asked)
    if inspect.isawaitable(given):
        task = asyncio.ensure_future(given)
        try:
            await workflow.wait([task], timeout=_seconds_to(round_.answer_by))
            late = [call.id for call in whole if call.kind is not CallKind.APPROVAL]
            given = task.result() if task.done() else dict.fromkeys(late, TIMED_OUT_OUTPUT)
        finally:
            task.cancel()
    texts = {} if given is None else dict(texts_of(given))
    check_answers(tuple((call, texts[call.id]) for call in known_calls(texts, whole)))
    if (size := _size_of(texts)) > round_.room:
        raise InvalidRequestError(
            f"The outputs of on_requires_action have {size} bytes, and {round_.room:.0f} fit into a payload of "
            f"Temporal: return less, or {ADVICE}"
        )
    return texts


def _size_of(outputs: Mapping[str, str]) -> int:
    return sum(map(json_size, outputs.values()))


def _seconds_to(at: float) -> float | None:
    """Return the seconds until a time of the workflow; None for infinity."""
    return None if at == math.inf else max(at - workflow.time(), 0.0)


async def _answer_one(call: Call, round_: CallRound, how: Answering, progress: RoundProgress) -> CallResult:
    if call.name in how.people and not call.is_cut:
        room = round_.room / len(round_.calls)
        result = CallResult(output=await desk().output_of(call, round_.ref, how.label, room))
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
    if call.kind is not CallKind.FUNCTION:
        return CallResult()
    has_begun = round_.has_begun(call)
    if how.tools is None:
        return await _told_of_interruption(call) if has_begun else CallResult()
    job = CallJob(
        call=call,
        ref=round_.ref,
        toolset=how.tools,
        label=how.label,
        metadata=round_.metadata,
        among=len(round_.calls),
        room=None if round_.room == math.inf else int(round_.room),
        heartbeat=how.heartbeat,
    )
    pause = pauses(RERUN_S)
    while True:
        if not has_begun:
            try:
                return await run_activity(CALL, job, CallResult, ONCE, f"{call.name} {call.id}")
            except ActivityError:
                pass  # it had begun, and how it ended is not known
        has_begun = False
        found = await run_activity(IF_INTERRUPTED, job, CallResult, None, f"interrupted: {call.name} {call.id}")
        if found.output is not None or found.cause:
            return found
        await workflow.sleep(next(pause))


async def _told_of_interruption(call: Call) -> CallResult:
    output = await _NO_TOOLS.output_of_interrupted(call)
    return CallResult() if output is None else CallResult(output=output.text, failed=True)


def unanswered(outcome: AnyOutcome[Any], done: RoundResult) -> AnyOutcome[Any]:
    """Return the outcome of a watch of which some calls are left to the caller."""
    outputs = {**dict(outcome.outputs), **{call.id: text for call, text, _ in done.outputs}}
    return replace(
        outcome,
        calls=done.left,
        outputs=tuple(outputs.items()),
        reason=Reason.HANDLER_FAILED if done.cause else Reason.UNANSWERED,
        cause=ForeignError("asyncruns.errors.CallNotAnsweredError", done.cause) if done.cause else None,
    )
