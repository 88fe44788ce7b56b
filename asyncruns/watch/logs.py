"""Logs what happens to a watched run: its statuses and its outcome at INFO, each poll at DEBUG.

The ids are fields of each record, so that a log can be filtered by run. No credential, and no content (messages,
arguments, outputs), is ever logged. What a server said is logged on one line, without control characters.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from asyncruns.lifecycle import (
    ActionRequired,
    CancelRefused,
    ConnectivityChanged,
    EndRevoked,
    Notice,
    Observed,
    OutputsSubmitted,
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
    return {"run_ref": str(ref), "run_dialect": ref.dialect}


def log_poll(log: logging.Logger, ref: RunRef, event: Observed | Refused) -> None:
    """Log what one request of a watch found, at DEBUG."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    if isinstance(event, Observed):
        found = event.snapshot.status
    else:
        found = f"{event.refusal.kind.value}: {event.refusal.cause}"
    log.debug("%s of %s: %s", event.asked.value, *_shown(ref, found), extra=fields_of(ref))


def log_notice(log: logging.Logger, ref: RunRef, notice: Notice) -> None:
    """Log what a watch reports, at INFO."""
    if not log.isEnabledFor(logging.INFO):
        return
    if text := _told(notice):
        log.info("%s: %s", *_shown(ref, text), extra=fields_of(ref))


def log_outcome(log: logging.Logger, outcome: AnyOutcome[Any]) -> None:
    """Log how a watch ended, at INFO."""
    if not log.isEnabledFor(logging.INFO):
        return
    why = f" ({outcome.reason.value})" if outcome.reason is not None else ""
    said = f"{type(outcome).__name__}{why} as {outcome.status or 'not seen'}"
    text = f"{said} after {outcome.elapsed:.1f} s and {outcome.polls} polls"
    log.info("%s: %s", *_shown(outcome.ref, text), extra=fields_of(outcome.ref))


def warn_of_uncancelled(log: logging.Logger, outcome: AnyOutcome[Any]) -> None:
    """Log, at WARNING, that a run which was to be cancelled may go on, and cost, if that is so."""
    if outcome.cancel_error is not None and isinstance(outcome, GaveUp | NeedsCaller):
        shown = _shown(outcome.ref, str(outcome.cancel_error))
        log.warning("The run %s could not be cancelled, and may go on: %s", *shown, extra=fields_of(outcome.ref))


def _told(notice: Notice) -> str:
    """Return the text for a notice; "" for one that is not logged."""
    match notice:
        case StatusChanged(status=status, previous=previous):
            return f"{previous or 'not seen'} -> {status}"
        case ActionRequired(calls=calls):
            return f"asks for tool calls: {len(calls)}"
        case OutputsSubmitted(outputs=outputs):
            return f"outputs submitted: {len(outputs)}"
        case ConnectivityChanged(connectivity=connectivity, cause=cause):
            return f"the connection is {connectivity.value}{f': {cause}' if cause else ''}"
        case CancelRefused(cause=cause):
            return f"the server refused the cancel: {cause}"
        case EndRevoked(status=status, previous=previous):
            return f"the server shows {status} after the run had ended as {previous}"
        case StreamBroken(cause=cause):
            return f"the stream broke{f': {cause}' if cause else ''}; the watch polls"
        case _:
            return ""


def _shown(ref: RunRef, text: str) -> tuple[str, str]:
    return on_one_line(str(ref)), on_one_line(text)
