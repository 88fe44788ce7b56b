"""What the lifecycle asks its shell to do, in order."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from asyncruns.lifecycle.notices import Notice
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import Answers, Call, Outputs, Snapshot


class PollAt(Struct, frozen=True):
    """Poll the run within this window, which replaces an earlier one. The shell picks the moment: polls spread.

    Attributes:
        if_silent: For so many seconds a stream must have said nothing: each event of it puts the poll off anew.
    """

    not_before: float
    not_after: float
    if_silent: float = 0.0


class RunTools(Struct, frozen=True):
    """Have these calls answered, all at once. None of them was ever handed out before."""

    calls: tuple[Call, ...]


class StopTools(Struct, frozen=True):
    """Stop the calls that still run; their outputs are not wanted any more.

    Attributes:
        approvals: Whether that goes for approvals that are asked for, too.
    """

    approvals: bool = True


class Submit(Struct, frozen=True):
    """Send these outputs, in one request.

    Attributes:
        answers: The calls with their outputs.
        snapshot: What asked for them.
        keep_tool_choice: Whether the model may be forced to call a tool again, as it was in the round before.
    """

    answers: Answers
    snapshot: Snapshot[Any]
    keep_tool_choice: bool = False

    @property
    def outputs(self) -> Outputs:
        """The outputs by the ids of the calls."""
        return tuple((call.id, output) for call, output in self.answers)


class Cancel(Struct, frozen=True):
    """Ask the server to cancel the run."""


class Report(Struct, frozen=True):
    """Tell the observers."""

    notice: Notice


class EndKind(enum.Enum):
    """How a watch ends."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    INCOMPLETE = "incomplete"
    NEEDS_CALLER = "needs_caller"
    GAVE_UP = "gave_up"

    @property
    def is_final(self) -> bool:
        """Whether the run itself has ended. Otherwise outputs from the caller, or a cancel, may take the watch up."""
        return self not in (EndKind.NEEDS_CALLER, EndKind.GAVE_UP)


class Reason(enum.Enum):
    """Why a watch ended before its run did."""

    TIMEOUT = "timeout"  # the wait's own time is over
    UNREACHABLE = "unreachable"  # no poll succeeded for as long as `max_outage`, or none can
    UNKNOWN_STATUS = "unknown_status"  # a status that nobody knows did not change for `max_unknown_status`
    NOT_FOUND = "not_found"  # there is no such run
    GONE = "gone"  # the run was there, and was deleted
    UNAUTHORIZED = "unauthorized"
    QUOTA_SPENT = "quota_spent"
    REJECTED = "rejected"  # the server refuses the request itself
    UNANSWERED = "unanswered"  # calls that neither a handler nor a toolset answers
    CANCEL_UNCONFIRMED = "cancel_unconfirmed"  # the server took the cancel, and a minute later the run still goes on
    CANCEL_REFUSED = "cancel_refused"  # calls were stopped for a cancel that the server then refused
    NOT_CANCELLED = "not_cancelled"  # the caller left, and the cancel was refused, or not confirmed in time
    HANDLER_FAILED = "handler_failed"  # a handler raised, or a tool whose failures are surfaced
    NO_CALLS = "no_calls"  # the run waits for the caller and does not say for what
    OUTPUTS_IGNORED = "outputs_ignored"  # the server took the outputs twice, and still asks for them
    SUBMIT_REFUSED = "submit_refused"
    MAX_ROUNDS = "max_rounds"  # the run asked for calls once more after `max_rounds` rounds of them
    SUBMIT_LOST = "submit_lost"  # no answer to the outputs came, and no poll can tell whether they were taken
    BROKE = "broke"  # in a fleet, where an unexpected error in one watch must not end the others


ENDS: Final[Mapping[Phase, EndKind]] = {
    Phase.SUCCEEDED: EndKind.COMPLETED,
    Phase.FAILED: EndKind.FAILED,
    Phase.CANCELLED: EndKind.CANCELLED,
    Phase.EXPIRED: EndKind.EXPIRED,
    Phase.INCOMPLETE: EndKind.INCOMPLETE,
}


class End(Struct, frozen=True, kw_only=True):
    """How the watch ended, and what is left.

    Attributes:
        kind: One of the closed set.
        snapshot: The last poll, or None when there was none.
        reason: Why, where the run itself has not ended.
        cause: The last error, where one is why.
        calls: The calls that are open.
        outputs: The outputs that there are for the open round.
    """

    kind: EndKind
    snapshot: Snapshot[Any] | None
    reason: Reason | None = None
    cause: Exception | None = None
    calls: tuple[Call, ...] = ()
    outputs: Outputs = ()


class Finish(Struct, frozen=True):
    """The watch is over; stop all that still runs."""

    end: End


Command = PollAt | RunTools | StopTools | Submit | Cancel | Report | Finish
