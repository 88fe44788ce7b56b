"""The commands that the lifecycle returns to its shell, to be executed in order; how and why a watch finishes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from asyncruns.lifecycle.notices import Notice
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import Answers, Call, Outputs, Snapshot, TokenUsage

NOTHING_USED: Final = TokenUsage()


class PollAt(Struct, frozen=True):
    """Poll the run within this window, which replaces any earlier one.

    The shell picks the moment, so that the polls of many watches spread.

    Attributes:
        not_before: Earliest time of the poll.
        not_after: Latest time of the poll.
        if_silent: Seconds for which the stream must have been silent; each of its events postpones the poll. 0 without
            a stream.
    """

    not_before: float
    not_after: float
    if_silent: float = 0.0


class RunTools(Struct, frozen=True):
    """Hand out these calls, to be answered concurrently. None of them was handed out before."""

    calls: tuple[Call, ...]


class StopTools(Struct, frozen=True):
    """Stop the calls that still run; their outputs are no longer wanted.

    Attributes:
        approvals: Whether to stop pending approvals as well.
    """

    approvals: bool = True


class Submit(Struct, frozen=True):
    """Send these outputs, in one request.

    Attributes:
        answers: The calls with their outputs.
        snapshot: The last snapshot of the run that asked for them.
        keep_tool_choice: Whether a `tool_choice` that forces a call stays for the next round.
    """

    answers: Answers
    snapshot: Snapshot[Any]
    keep_tool_choice: bool = False

    @property
    def outputs(self) -> Outputs:
        """The outputs as pairs of call id and text."""
        return tuple((call.id, output) for call, output in self.answers)


class Cancel(Struct, frozen=True):
    """Ask the server to cancel the run."""


class Report(Struct, frozen=True):
    """Report this notice to the observers."""

    notice: Notice


class EndKind(enum.Enum):
    """How a watch finishes."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    INCOMPLETE = "incomplete"
    NEEDS_CALLER = "needs_caller"
    GAVE_UP = "gave_up"

    @property
    def is_final(self) -> bool:
        """Whether the run itself has ended. If not, a cancel or, with NEEDS_CALLER, outputs may reopen the watch."""
        return self not in (EndKind.NEEDS_CALLER, EndKind.GAVE_UP)


class Reason(enum.Enum):
    """Why a watch finished before its run ended."""

    TIMEOUT = "timeout"  # the deadline of the watch has passed
    UNREACHABLE = "unreachable"  # requests failed for as long as `max_outage`, or none can reach the server
    UNKNOWN_STATUS = "unknown_status"  # a status unknown to this version did not change for `max_unknown_status`
    NOT_FOUND = "not_found"  # there is no such run
    GONE = "gone"  # the run existed, and is not found any more
    UNAUTHORIZED = "unauthorized"
    QUOTA_SPENT = "quota_spent"
    REJECTED = "rejected"  # the server refuses the request itself
    UNANSWERED = "unanswered"  # some calls are answered neither by a handler nor by a toolset
    CANCEL_UNCONFIRMED = "cancel_unconfirmed"  # the server accepted the cancel, but the run went on for a minute
    # Calls were stopped for a cancel that the server refused, that never reached it, or that had nothing to stop.
    CANCEL_REFUSED = "cancel_refused"
    NOT_CANCELLED = "not_cancelled"  # the caller left, and the cancel was refused or not confirmed in time
    HANDLER_FAILED = "handler_failed"  # a handler raised, or a tool whose failures are surfaced
    NO_CALLS = "no_calls"  # the run waits for the caller but names no calls
    OUTPUTS_IGNORED = "outputs_ignored"  # the server accepted the outputs twice, and still asks for them
    SUBMIT_REFUSED = "submit_refused"
    MAX_ROUNDS = "max_rounds"  # the run asks for more calls after `max_rounds` rounds
    SUBMIT_LOST = "submit_lost"  # the answer to a submit was lost, and no poll can show whether it was accepted
    TAKEN_OVER = "taken_over"  # by the journal, something else watches the run, or what follows it
    NOT_CREATED = "not_created"  # in a fleet only: the run could not be created, or was not, since the fleet was left
    BROKE = "broke"  # in a fleet only: an unexpected error in one watch, which must not end the others


ENDS: Final[Mapping[Phase, EndKind]] = {
    Phase.SUCCEEDED: EndKind.COMPLETED,
    Phase.FAILED: EndKind.FAILED,
    Phase.CANCELLED: EndKind.CANCELLED,
    Phase.EXPIRED: EndKind.EXPIRED,
    Phase.INCOMPLETE: EndKind.INCOMPLETE,
}


class End(Struct, frozen=True, kw_only=True):
    """How the watch finished, and what is left to do.

    Attributes:
        kind: How it finished; the set is closed.
        snapshot: The last snapshot of the run; None if there was none.
        reason: Why the watch finished, if the run itself has not ended; otherwise None.
        cause: The last error, which may be why; None if there was none, or if the run completed.
        calls: The open calls; empty if the run has ended.
        outputs: The outputs that exist for the open round; empty if the run has ended.
        usage: The tokens used, over all runs that were watched.
    """

    kind: EndKind
    snapshot: Snapshot[Any] | None
    reason: Reason | None = None
    cause: Exception | None = None
    calls: tuple[Call, ...] = ()
    outputs: Outputs = ()
    usage: TokenUsage = NOTHING_USED


class Finish(Struct, frozen=True):
    """The watch has finished; stop everything that still runs."""

    end: End


Command = PollAt | RunTools | StopTools | Submit | Cancel | Report | Finish
