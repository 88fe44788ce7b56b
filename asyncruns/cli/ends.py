"""The kind of an outcome, for counting and for exit codes."""

from __future__ import annotations

from typing import Any, assert_never

from asyncruns.lifecycle import EndKind
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


def end_of(outcome: AnyOutcome[Any]) -> EndKind:
    """Return the kind of an outcome."""
    match outcome:
        case Completed():
            return EndKind.COMPLETED
        case Failed():
            return EndKind.FAILED
        case Cancelled():
            return EndKind.CANCELLED
        case Expired():
            return EndKind.EXPIRED
        case Incomplete():
            return EndKind.INCOMPLETE
        case NeedsCaller():
            return EndKind.NEEDS_CALLER
        case GaveUp():
            return EndKind.GAVE_UP
        case _:
            assert_never(outcome)
