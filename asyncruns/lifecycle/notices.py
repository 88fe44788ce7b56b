"""What a watch reports while it goes on: all events of `async for event in watcher` except the last, `Ended`.

The lifecycle makes them; the watch that delivers them adds when, of which run, and for which caller.
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar, Generic, TypeVar

from msgspec import field

from asyncruns.errors import pickled_fields
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import Call, Counts, Outputs, RunRef
from asyncruns.wire.plain import Held, Plain, value_in

R = TypeVar("R")


class Connectivity(enum.Enum):
    """How well the watch reaches the server. It says nothing about the run."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"  # the last request failed
    LOST = "lost"  # requests have failed for 15 s or longer


class _Event(Plain, frozen=True, kw_only=True):
    """What all events have. In JSON, `event` is the name of the class.

    Attributes:
        at: When it was noticed, in seconds since the epoch, by this machine's clock.
        ref: The ref of the run.
    """

    _kind: ClassVar[str] = "event"

    at: float = 0.0
    ref: RunRef = RunRef("", ())
    _context: Held | None = None

    @property
    def context(self) -> Any:
        """What the caller gave as `context=`; None if nothing. It is neither in JSON nor in a pickle."""
        return value_in(self._context)

    def __reduce__(self) -> tuple[Any, ...]:
        return pickled_fields(self)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name[0] != "_")
        return f"{type(self).__name__}({shown})"


class StatusChanged(_Event, Generic[R], frozen=True, kw_only=True):
    """The status of the run has changed since the last poll.

    Attributes:
        status: The server's own word. If this version does not know it, `phase` is UNKNOWN.
        phase: What the status means.
        previous: The status before; None at first.
        run: The typed run.
    """

    status: str
    phase: Phase
    previous: str | None
    run: R


class ProgressChanged(_Event, frozen=True, kw_only=True):
    """More requests of a batch have ended than at the last poll.

    Attributes:
        done: Number of requests that have a good answer.
        failed: Number of requests that ended without one.
        total: Number of all requests.
    """

    done: int
    failed: int
    total: int


class ActionRequired(_Event, frozen=True, kw_only=True):
    """The run waits for a new round of calls."""

    calls: tuple[Call, ...]


class CallAnswered(_Event, frozen=True, kw_only=True):
    """A call has its output.

    Attributes:
        call_id: The id of the call.
        tool: The name that the model called.
        output: The output.
        failed: Whether the output is an error of ours: the tool raised, took too long, was refused by an approval, was
            called in a wrong way, or does not exist. False for an output of a handler or of the caller.
    """

    call_id: str
    tool: str
    output: str
    failed: bool = False


class ToolReported(_Event, frozen=True, kw_only=True):
    """A tool reports its progress, with `ToolContext.report`.

    Attributes:
        call_id: The id of the call.
        tool: The name that the model called.
        progress: What the tool passed.
    """

    call_id: str
    tool: str
    progress: Any


class OutputsSubmitted(_Event, frozen=True, kw_only=True):
    """The server accepted the outputs of a round."""

    outputs: Outputs


class CallsLeftToServer(_Event, frozen=True, kw_only=True):
    """The run waits for calls that its server answers itself. The watch goes on."""

    calls: tuple[Call, ...]


class EndRevoked(_Event, frozen=True, kw_only=True):
    """The server shows another status after the run had ended, although an end is final. The outcome stays.

    Attributes:
        status: The server's word now.
        previous: The server's word when the run ended.
    """

    status: str
    previous: str


class ConnectivityChanged(_Event, frozen=True, kw_only=True):
    """The watch reaches the server worse or better than before. `cause` is the last error; None if healthy."""

    connectivity: Connectivity
    cause: Exception | None = None


class StreamBroken(_Event, frozen=True, kw_only=True):
    """The stream no longer reports the run, so the watch polls. No event is repeated.

    The stream broke or ended too early and could not be reopened at once where it broke (a few more tries follow), or
    its events are read so slowly that they are out of date.

    Attributes:
        cause: The error, if that is why; otherwise None.
    """

    cause: Exception | None = None


class CancelRefused(_Event, frozen=True, kw_only=True):
    """The server does not cancel the run in this status, or five tries did not reach it: `cause` tells which.

    If tools were stopped for the cancel and the run waits for them, the watch finishes as `NeedsCaller`; otherwise it
    goes on. The cancel is sent again when the status changes, for at most a minute, unless the server never cancels.
    """

    cause: Exception


class CurrentState(_Event, frozen=True, kw_only=True):
    """The state of a watch, for a subscriber that begins, or that missed events.

    Attributes:
        status: The run's status, as the server spells it; "" if it is not known yet.
        phase: What the status means.
        calls: The calls of the current round that have no output yet.
        progress: What the tools of these calls have last reported, by call id.
        text: The text of the run so far, if it is streamed; otherwise "".
        is_whole: False if a part of that text is missing, because the stream broke and the rest could not be fetched,
            or nobody read it: use `text()` of the outcome.
        counts: How many requests of a batch have ended; None if not known, and for other runs.
    """

    status: str
    phase: Phase
    calls: tuple[Call, ...] = ()
    progress: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    is_whole: bool = True
    counts: Counts | None = None


class TextAdded(_Event, frozen=True, kw_only=True):
    """A piece of the text of a streamed run."""

    text: str


class Gap(_Event, frozen=True, kw_only=True):
    """A subscriber was too slow, and so many events were dropped for it. The next event is the `CurrentState`."""

    dropped: int


Notice = (
    StatusChanged[Any]
    | ProgressChanged
    | ActionRequired
    | CallAnswered
    | ToolReported
    | CallsLeftToServer
    | OutputsSubmitted
    | ConnectivityChanged
    | CancelRefused
    | EndRevoked
    | StreamBroken
)
