"""The kind of an outcome, for counting and for exit codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, assert_never

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

EXIT_CODES: Final[Mapping[EndKind, int]] = {
    EndKind.COMPLETED: 0,
    EndKind.FAILED: 1,
    EndKind.CANCELLED: 3,
    EndKind.EXPIRED: 4,
    EndKind.INCOMPLETE: 5,
    EndKind.NEEDS_CALLER: 6,
    EndKind.GAVE_UP: 7,
}


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
