"""What the lifecycle is told. `now` is a number on each event: seconds of any clock that only goes forward."""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct

from asyncruns.lifecycle.values import Asked, Call, Outputs, Refusal, Snapshot


class Begun(Struct, frozen=True):
    """The watch begins; `snapshot` is what the caller's object says, which may be old."""

    now: float
    snapshot: Snapshot[Any] | None = None


class Observed(Struct, frozen=True):
    """A request was answered with the run. `asked_at` is when it was sent, where that was not just now."""

    now: float
    snapshot: Snapshot[Any]
    asked: Asked = Asked.POLL
    asked_at: float | None = None


class Refused(Struct, frozen=True):
    """A request was not answered as asked, or not at all.

    Attributes:
        now: When.
        refusal: Why.
        asked: What was asked.
        held_back: For how many seconds the shell held a poll back that was due, while the server answered others: that
            is no time of an outage.
    """

    now: float
    refusal: Refusal
    asked: Asked = Asked.POLL
    held_back: float = 0.0


class CallsAnswered(Struct, frozen=True):
    """Calls that were handed out have their outputs."""

    now: float
    outputs: tuple[tuple[Call, str], ...]


class OutputsProvided(Struct, frozen=True):
    """The caller gives outputs of its own, by the ids of the round that is asked for."""

    now: float
    outputs: Outputs


class CallsUnanswered(Struct, frozen=True):
    """Nobody here answers these calls. `cause` is what a handler, or a tool, raised, if that is why."""

    now: float
    calls: tuple[Call, ...]
    cause: Exception | None = None


class CancelAsked(Struct, frozen=True):
    """The caller wants the run cancelled.

    Attributes:
        now: When.
        by: When the caller has left the watch, and nothing is done for the run any more; infinity for a caller that
            stays.
    """

    now: float
    by: float = math.inf


class StreamBegun(Struct, frozen=True):
    """A stream tells of the run from now on; what it tells comes as `Observed`, as if a poll had been answered."""

    now: float


class StreamEnded(Struct, frozen=True):
    """The stream tells nothing more of the run, or nothing new. `cause` is why, if that is an error."""

    now: float
    cause: Exception | None = None


class Tick(Struct, frozen=True):
    """The time that `wake_at` gave has come."""

    now: float


Event = (
    Begun
    | Observed
    | Refused
    | CallsAnswered
    | OutputsProvided
    | CallsUnanswered
    | CancelAsked
    | StreamBegun
    | StreamEnded
    | Tick
)
