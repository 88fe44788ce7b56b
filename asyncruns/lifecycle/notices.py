"""What a watch reports while it goes on; the events of `async for event in watcher`, but for the last one."""

from __future__ import annotations

import enum
from typing import Any, Generic, TypeVar

from msgspec import Struct

from asyncruns.errors import pickled_fields
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import Call, Outputs

R = TypeVar("R")


class Connectivity(enum.Enum):
    """How it stands between us and the server; not the state of the run."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"  # the last poll failed
    LOST = "lost"  # polls have failed for 15 s and more


class StatusChanged(Struct, Generic[R], frozen=True, kw_only=True):
    """The run has another status than at the last poll.

    Attributes:
        status: The server's own word; it may be one that nobody knows, and `phase` is UNKNOWN then.
        previous: The status before, or None at first.
        run: The typed run.
    """

    status: str
    phase: Phase
    previous: str | None
    run: R


class ActionRequired(Struct, frozen=True, kw_only=True):
    """The run waits for these calls, a new round of them."""

    calls: tuple[Call, ...]


class CallAnswered(Struct, frozen=True, kw_only=True):
    """A call has its output."""

    call_id: str
    output: str


class OutputsSubmitted(Struct, frozen=True, kw_only=True):
    """The server took the outputs of a round."""

    outputs: Outputs


class CallsLeftToServer(Struct, frozen=True, kw_only=True):
    """The run waits for calls that its server answers itself; the watch goes on."""

    calls: tuple[Call, ...]


class EndRevoked(Struct, frozen=True, kw_only=True):
    """The server shows a run in another status after it had ended, which no run may; the outcome stays.

    Attributes:
        status: The server's word now.
        previous: Its word when the run ended.
    """

    status: str
    previous: str


class ConnectivityChanged(Struct, frozen=True, kw_only=True):
    """Polls began to fail, or to succeed again. `cause` is the last error, None when healthy."""

    connectivity: Connectivity
    cause: Exception | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return pickled_fields(self)


class StreamBroken(Struct, frozen=True, kw_only=True):
    """The stream that told of the run does so no more; the watch polls, and no event comes twice.

    It broke or ended too early, and could not be opened again at once where it broke, which is tried some more times;
    or its events are taken so slowly that what they tell is old by then.

    Attributes:
        cause: The error, if that is why.
    """

    cause: Exception | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return pickled_fields(self)


class CancelRefused(Struct, frozen=True, kw_only=True):
    """The server does not cancel the run in this status; the watch goes on.

    The cancel is sent again when the status changes, for at most a minute.
    """

    cause: Exception

    def __reduce__(self) -> tuple[Any, ...]:
        return pickled_fields(self)


Notice = (
    StatusChanged[Any]
    | ActionRequired
    | CallAnswered
    | CallsLeftToServer
    | OutputsSubmitted
    | ConnectivityChanged
    | CancelRefused
    | EndRevoked
    | StreamBroken
)
