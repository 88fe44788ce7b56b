"""The events that the lifecycle receives. `now` on each is in seconds, of any clock that never goes backward."""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct

from asyncruns.lifecycle.values import Asked, Call, Outputs, Refusal, Snapshot


class Begun(Struct, frozen=True):
    """The watch begins. `snapshot` is read from the caller's object and may be old; None without one."""

    now: float
    snapshot: Snapshot[Any] | None = None


class Observed(Struct, frozen=True):
    """A request was answered with the run.

    Attributes:
        now: When.
        snapshot: What the answer shows.
        asked: The kind of the request.
        asked_at: When it was sent; None means at `now`.
        is_announced: Whether the server had announced that something happened to the run, so that this poll came
            before its time.
        among: Number of watched runs that the same answer showed, this one included.
    """

    now: float
    snapshot: Snapshot[Any]
    asked: Asked = Asked.POLL
    asked_at: float | None = None
    is_announced: bool = False
    among: int = 1


class Refused(Struct, frozen=True):
    """A request was refused, or its answer was lost.

    Attributes:
        now: When.
        refusal: Why.
        asked: The kind of the request.
        held_back: Seconds for which the shell delayed a poll that was due, while the server answered others. They do
            not count as an outage.
    """

    now: float
    refusal: Refusal
    asked: Asked = Asked.POLL
    held_back: float = 0.0


class CallsAnswered(Struct, frozen=True):
    """Calls that were handed out have their outputs. `failed` says whether these are errors for the model to read."""

    now: float
    outputs: tuple[tuple[Call, str], ...]
    failed: bool = False


class OutputsProvided(Struct, frozen=True):
    """The caller provides outputs, by the ids of the calls of the current round."""

    now: float
    outputs: Outputs


class CallsUnanswered(Struct, frozen=True):
    """No handler or tool answers these calls. `cause` is what one raised, if that is why."""

    now: float
    calls: tuple[Call, ...]
    cause: Exception | None = None


class CancelAsked(Struct, frozen=True):
    """The caller wants the run cancelled.

    Attributes:
        now: When.
        by: Time limit of a caller that leaves the watch; after it nothing is done for the run. Infinity for a caller
            that stays.
    """

    now: float
    by: float = math.inf


class StreamBegun(Struct, frozen=True):
    """A stream reports the run from now on. Its snapshots arrive as `Observed`, as if from polls."""

    now: float


class StreamEnded(Struct, frozen=True):
    """The stream reports nothing more, or nothing new. `cause` is the error, if that is why."""

    now: float
    cause: Exception | None = None


class Tick(Struct, frozen=True):
    """The time in `wake_at` has come. A tick that comes early or late is harmless."""

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
