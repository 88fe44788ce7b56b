"""Outcomes as values that a history can hold, and back: with their tokens, and without their clients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from asyncruns._loop import loop_time, wall_time
from asyncruns.abc import RunClient
from asyncruns.errors import ForeignError
from asyncruns.fleet import Watch
from asyncruns.lifecycle import Call, Reason, RunFault, RunRef, TokenUsage
from asyncruns.temporal.messages import RunReport
from asyncruns.watch.handover import token_in, token_text
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
from asyncruns.wire import Batch, MessageBatch, ModelResponse, Run
from asyncruns.wire.codec import convert
from asyncruns.wire.names import BATCH, MESSAGE_BATCH, RESPONSE, THREAD_RUN

_OUTCOMES: Final[Mapping[str, type[Any]]] = {
    kind.__name__: kind for kind in (Completed, Failed, Cancelled, Expired, Incomplete, NeedsCaller, GaveUp)
}
_RUNS: Final[Mapping[str, type[Any]]] = {
    THREAD_RUN: Run,
    RESPONSE: ModelResponse,
    BATCH: Batch,
    MESSAGE_BATCH: MessageBatch,
}


def report_of(outcome: AnyOutcome[Any], watch: Watch[Any] | None = None) -> RunReport:
    """Return an outcome as a value; with its watch, also by when calls must be answered, and what the run has used."""
    token = outcome.token
    by = math.inf if watch is None else watch._answer_by
    return RunReport(
        outcome=outcome.to_dict(),
        token=token_in(token) if token else None,
        answer_within=by - loop_time() if by < math.inf else None,
        used=TokenUsage() if watch is None else _used_by(outcome),
    )


def _used_by(outcome: AnyOutcome[Any]) -> TokenUsage:
    if outcome.run is None:
        return TokenUsage()
    return outcome._client.dialect.snapshot(outcome.run).usage or TokenUsage()


def needs_outputs(outcome: AnyOutcome[Any]) -> bool:
    """Return whether a run waits for outputs that a workflow is to provide."""
    return isinstance(outcome, NeedsCaller) and outcome.reason is Reason.UNANSWERED and bool(outcome.calls)


def not_watched(ref: RunRef, error: Exception) -> RunReport:
    """Return the report of a run that no client here can watch."""
    cause = {"type": type(error).__name__, "message": str(error)}
    fields = {"outcome": GaveUp.__name__, "ref": ref.to_dict(), "refs": [ref.to_dict()], "at": wall_time()}
    return RunReport(outcome={**fields, "reason": Reason.REJECTED.value, "cause": cause})


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
        outputs=tuple((call_id, text) for call_id, text in fields.get("outputs", ())),
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
