"""Logs what happens to a watched run: statuses and outcome at INFO, each poll at DEBUG, an outage at WARNING.

The ids are fields of each record, so that a log can be filtered by run. No credential is ever logged, and below
WARNING no content (messages, arguments, outputs) either; the error in a warning may quote the start of a response. What
a server said is logged on one line, without control characters.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final

from asyncruns.lifecycle import (
    ActionRequired,
    CancelRefused,
    Connectivity,
    ConnectivityChanged,
    EndRevoked,
    Notice,
    Observed,
    OutputsSubmitted,
    ProgressChanged,
    Refused,
    RunRef,
    StatusChanged,
    StreamBroken,
)
from asyncruns.watch.outcome import AnyOutcome, GaveUp, NeedsCaller
from asyncruns.wire.shown_text import on_one_line

WATCH_LOG: Final = logging.getLogger("asyncruns.watch")
FLEET_LOG: Final = logging.getLogger("asyncruns.fleet")


def fields_of(ref: RunRef) -> dict[str, str]:
    """Return the fields of a log record about a run, for `extra=`: `run_ref` has its ids, `run_dialect` its kind."""
    return {"run_ref": on_one_line(str(ref)), "run_dialect": ref.dialect}


def log_poll(log: logging.Logger, ref: RunRef, event: Observed | Refused) -> None:
    """Log what one request of a watch found, at DEBUG."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    if isinstance(event, Observed):
        found = event.snapshot.status
    else:
        found = f"{event.refusal.kind.value}, {_kind_of(event.refusal.cause)}"
    _write(log, logging.DEBUG, ref, f"{event.asked.value} of %s: %s", found)


def log_notice(log: logging.Logger, ref: RunRef, notice: Notice) -> None:
    """Log what a watch reports, at INFO; at WARNING if requests have failed for 15 s."""
    if isinstance(notice, ConnectivityChanged) and notice.connectivity is Connectivity.LOST:
        warn_of_outage(log, ref, notice)
    elif log.isEnabledFor(logging.INFO) and (text := _text_of(notice)):
        _write(log, logging.INFO, ref, "%s: %s", text)


def warn_of_outage(log: logging.Logger, ref: RunRef, notice: ConnectivityChanged, *, is_fleet: bool = False) -> None:
    """Log, at WARNING, that requests about a run have failed for 15 s.

    Args:
        log: The logger.
        ref: The run.
        notice: What its watch reports.
        is_fleet: Whether it is one of a fleet, in which others may be affected, too.
    """
    cause = f", {_kind_of(notice.cause)}" if notice.cause else ""
    others = ", as do those of other runs of the fleet, perhaps, which are not logged" if is_fleet else ""
    _write(log, logging.WARNING, ref, "%s: %s", f"requests have failed for 15 s{cause}; the watch goes on{others}")


def log_healthy(log: logging.Logger, ref: RunRef) -> None:
    """Log, at INFO, that requests about all runs of a fleet succeed again.

    Args:
        log: The logger.
        ref: The run of the last one.
    """
    _write(log, logging.INFO, ref, "%s: %s", "requests succeed again, for all runs of the fleet")


def log_outcome(log: logging.Logger, outcome: AnyOutcome[Any]) -> None:
    """Log how a watch finished, at INFO."""
    if not log.isEnabledFor(logging.INFO):
        return
    why = f" ({outcome.reason.value})" if outcome.reason is not None else ""
    said = f"{type(outcome).__name__}{why} as {outcome.status or 'not seen'}"
    _write(log, logging.INFO, outcome.ref, "%s: %s", f"{said} after {outcome.elapsed:.1f} s and {outcome.polls} polls")


def warn_of_uncancelled(log: logging.Logger, outcome: AnyOutcome[Any]) -> None:
    """Log, at WARNING, that a run which was to be cancelled may go on, and cost, if that is so."""
    if outcome.cancel_error is not None and isinstance(outcome, GaveUp | NeedsCaller):
        message = "The run %s could not be cancelled, and may go on: %s"
        _write(log, logging.WARNING, outcome.ref, message, str(outcome.cancel_error))


def log_unwritten(log: logging.Logger, ref: RunRef, what: str, error: Exception) -> None:
    """Log, at WARNING, what could not be written into the journal of a run."""
    _write(log, logging.WARNING, ref, "The journal of %s could not be written: %s", f"{what}: {error}")


def warn_of_unresumed(log: logging.Logger, ref: RunRef, error: Exception) -> None:
    """Log, at WARNING, that a run in a journal cannot be watched."""
    _write(log, logging.WARNING, ref, "The run %s is in the journal, and cannot be watched here: %s", str(error))


def log_broken(log: logging.Logger, ref: RunRef, error: Exception) -> None:
    """Log, at ERROR, that an unexpected error ended a watch."""
    _write(log, logging.ERROR, ref, "The watch of %s broke: %s", type(error).__name__, error)


def _write(
    log: logging.Logger, level: int, ref: RunRef, message: str, text: str, error: Exception | None = None
) -> None:
    """Write a record. A filter or a handler of the application that raises must not end a watch, so it is reported."""
    try:
        log.log(level, message, on_one_line(str(ref)), on_one_line(text), extra=fields_of(ref), exc_info=error)
    except Exception as raised:
        context = {"message": f"Logging to {log.name} raised", "exception": raised}
        with contextlib.suppress(Exception):  # asyncio's handler logs as well, perhaps to the same place
            asyncio.get_running_loop().call_exception_handler(context)


def _kind_of(error: Exception) -> str:
    """Return what an error is, without its text, which may quote a body."""
    status, request_id = getattr(error, "status", None), getattr(error, "request_id", "")
    shown = type(error).__name__ if status is None else f"{type(error).__name__} {status}"
    return f"{shown}, request {request_id}" if request_id else shown


def _text_of(notice: Notice) -> str:
    """Return the text for a notice; "" for one that is not logged."""
    match notice:
        case StatusChanged(status=status, previous=previous):
            return f"{previous or 'not seen'} -> {status}"
        case ProgressChanged(done=done, failed=failed, total=total):
            return f"{done} of {total} requests done, {failed} failed"
        case ActionRequired(calls=calls):
            return f"asks for tool calls: {len(calls)}"
        case OutputsSubmitted(outputs=outputs):
            return f"outputs submitted: {len(outputs)}"
        case ConnectivityChanged(connectivity=connectivity, cause=cause):
            return f"the connection is {connectivity.value}{f', {_kind_of(cause)}' if cause else ''}"
        case CancelRefused(cause=cause):
            return f"the run could not be cancelled, {_kind_of(cause)}"
        case EndRevoked(status=status, previous=previous):
            return f"the server shows {status} after the run had ended as {previous}"
        case StreamBroken(cause=cause):
            return f"the stream broke{f', {_kind_of(cause)}' if cause else ''}; the watch polls"
        case _:
            return ""
