"""Outcomes as values that a history can hold, and back: with their tokens, and without their clients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from asyncruns._loop import loop_time, wall_time
from asyncruns.abc import RunClient
from asyncruns.errors import ForeignError
from asyncruns.fleet import Watch
from asyncruns.lifecycle import Call, Outputs, Reason, RunFault, RunRef, TokenUsage
from asyncruns.lifecycle.records import CallRecord
from asyncruns.temporal.messages import RunReport
from asyncruns.temporal.sizes import json_size
from asyncruns.watch.handover import Token, token_in, token_text
from asyncruns.watch.outcome import (
    AnyOutcome,
    Cancelled,
    Completed,
    Expired,
    Failed,
    GaveUp,
    Incomplete,
    NeedsCaller,
)
from asyncruns.watch.recorder import keys_left_open
from asyncruns.wire import Batch, MessageBatch, ModelResponse, Run
from asyncruns.wire.codec import convert
from asyncruns.wire.names import BATCH, MESSAGE_BATCH, RESPONSE, THREAD_RUN

_OUTCOMES: Final[Mapping[str, type[Any]]] = {
    kind.__name__: kind for kind in (Completed, Failed, Cancelled, Expired, Incomplete, NeedsCaller, GaveUp)
}
_KEPT: Final = ("id", "object", "status", "created_at", "thread_id", "assistant_id", "model", "metadata")
_LEFT_OUT: Final = ("run", "calls", "outputs", "label", "refs", "cancel_error")
LONGEST_MESSAGE: Final = 200
"""Characters of the message of an error."""
LARGEST_TOKEN: Final = 2_000
"""Bytes of a token that a shard keeps of a run whose watch has finished; `on_outcome` got it in any case."""
_RUNS: Final[Mapping[str, type[Any]]] = {
    THREAD_RUN: Run,
    RESPONSE: ModelResponse,
    BATCH: Batch,
    MESSAGE_BATCH: MessageBatch,
}


def report_of(outcome: AnyOutcome[Any], watch: Watch[Any] | None = None, before: Token | None = None) -> RunReport:
    """Return an outcome as a value; with its watch, also by when calls must be answered, and what the run has used.

    Args:
        outcome: The outcome.
        watch: The watch, if it was in this process.
        before: The token that the watch has gone on from.
    """
    fields = outcome.to_dict()
    token = token_in(outcome.token) if outcome.token else None
    if token is not None and before is not None:
        token = with_begun(token, before)
    if outcome.outputs and sorted(_outputs_in(token)) == sorted(outcome.outputs):
        del fields["outputs"]  # a payload may not hold them twice
    by = math.inf if watch is None else watch._answer_by
    return RunReport(
        outcome=fields,
        token=token,
        answer_by=wall_time() + by - loop_time() if by < math.inf else None,
        used=TokenUsage() if watch is None else _used_by(outcome),
    )


def _used_by(outcome: AnyOutcome[Any]) -> TokenUsage:
    if outcome.run is None:
        return TokenUsage()
    return outcome._client.dialect.snapshot(outcome.run).usage or TokenUsage()


def needs_outputs(outcome: AnyOutcome[Any]) -> bool:
    """Return whether a run waits for outputs that a workflow is to provide."""
    return isinstance(outcome, NeedsCaller) and outcome.reason is Reason.UNANSWERED and bool(outcome.calls)


def has_outputs(token: Token) -> bool:
    """Return whether a token has outputs of calls."""
    return token.record is not None and any(call.output is not None for call in token.record.calls)


def _outputs_in(token: Token | None) -> Outputs:
    calls = () if token is None or token.record is None else token.record.calls
    return tuple((call.call_id, call.output) for call in calls if call.output is not None)


def begun_in(token: Token) -> tuple[CallRecord, ...]:
    """Return the calls that had begun when the process of a watch ended: what they have done is not known.

    Those that a tool has left to the caller may run again.
    """
    if token.record is None:
        return ()
    left = keys_left_open(token.record.outcome)
    return tuple(call for call in token.record.calls if call.output is None and call.key not in left)


def without_begun(token: Token) -> Token:
    """Return a token without the calls that have no output: a workflow decides what becomes of them, not a fleet."""
    if token.record is None or all(call.output is not None for call in token.record.calls):
        return token
    calls = tuple(call for call in token.record.calls if call.output is not None)
    return replace(token, record=replace(token.record, calls=calls))


def with_begun(token: Token, before: Token) -> Token:
    """Return a token with the calls that had begun before, of which it has nothing."""
    if not (begun := begun_in(before)) or token.record is None:
        return token
    calls = {call.key: call for call in (*begun, *token.record.calls)}
    return replace(token, record=replace(token.record, calls=tuple(calls.values())))


def report_of_error(ref: RunRef, error: BaseException, reason: Reason, at: float) -> RunReport:
    """Return the report of a run that can't be watched, or no longer; `at` is in seconds since the epoch."""
    cause = {"type": type(error).__name__, "message": cut_message(str(error))}
    fields = {"outcome": GaveUp.__name__, "ref": ref.to_dict(), "refs": [ref.to_dict()], "at": at}
    return RunReport(outcome={**fields, "reason": reason.value, "cause": cause})


def cut_message(text: str) -> str:
    """Return a text that is cut, if it is long."""
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}..."


def asking_report(report: RunReport) -> RunReport:
    """Return the report of a run that waits for outputs, with no more of its body than a shard needs."""
    fields = dict(report.outcome or {})
    run = fields.get("run") or {}
    fields["run"] = {name: run[name] for name in _KEPT if name in run} or None
    return replace(report, outcome=fields)


def finished_report(report: RunReport) -> RunReport:
    """Return the report of a watch that has finished, with no more of it than a shard keeps."""
    fields = {name: value for name, value in (report.outcome or {}).items() if name not in _LEFT_OUT}
    if fields.get("error"):
        fields["error"] = {**fields["error"], "message": cut_message(str(fields["error"].get("message", "")))}
    if fields.get("cause"):
        fields["cause"] = {**fields["cause"], "message": cut_message(str(fields["cause"].get("message", "")))}
    token = report.token if report.token is not None and json_size(report.token) <= LARGEST_TOKEN else None
    return replace(report, outcome=fields, token=token)


def outcome_of_report(
    report: RunReport, client: RunClient[Any], output_type: type[Any] | None = None
) -> AnyOutcome[Any]:
    """Return the outcome that a report has.

    Args:
        report: A report with an outcome.
        client: Fetches the messages of the run.
        output_type: As for `Client.watch`.
    """
    fields = report.outcome or {}
    ref = RunRef.of(fields["ref"])
    outcome: AnyOutcome[Any] = _OUTCOMES.get(fields["outcome"], GaveUp)(
        ref=ref,
        refs=tuple(RunRef.of(each) for each in fields.get("refs", ())),
        status=fields.get("status", ""),
        run=_run_in(ref, fields.get("run")),
        polls=fields.get("polls", 0),
        elapsed=fields.get("elapsed", 0.0),
        at=fields.get("at", 0.0),
        run_elapsed=fields.get("run_elapsed"),
        usage=convert(fields.get("usage") or {}, TokenUsage),
        error=None if fields.get("error") is None else convert(fields["error"], RunFault),
        reason=_reason_in(fields.get("reason")),
        cause=_error_in(fields.get("cause")),
        calls=calls_in(fields.get("calls", ())),
        outputs=tuple((call_id, text) for call_id, text in fields.get("outputs", _outputs_in(report.token))),
        cancel_requested=fields.get("cancel_requested", False),
        cancel_error=_error_in(fields.get("cancel_error")),
        label=fields.get("label"),
        _output_type=output_type,
        _token="" if report.token is None else token_text(report.token),
        _client=client,
    )
    return outcome


def calls_in(calls: Sequence[Any]) -> tuple[Call, ...]:
    """Return calls that were plain JSON."""
    return msgspec.convert(calls, tuple[Call, ...])


def _run_in(ref: RunRef, run: Any) -> Any:
    kind = _RUNS.get(ref.dialect)
    return run if run is None or kind is None else convert(run, kind)


def _reason_in(value: str | None) -> Reason | None:
    with suppress(ValueError):  # of a newer version
        return None if value is None else Reason(value)
    return None


def _error_in(value: Mapping[str, Any] | None) -> Exception | None:
    return None if value is None else ForeignError(str(value.get("type")), str(value.get("message")))
