"""A cancel that the caller asked for, and what came of it so far.

The server may refuse it, take long, stick in `cancelling`, or be overtaken by the run's own end
(https://platform.openai.com/docs/api-reference/runs/cancelRun). Some servers cancel only from some statuses, so a
refusal says nothing of the next status. So a cancel is sent some times, confirmed by polls, bounded, and reported as it
was::

    no answer, or a passing one    send it again, after a pause, at most 5 times
    refused                        poll; send it again when the status has changed, for at most a minute
    no such route, or no right     poll; the server does not cancel, in whatever status
    taken                          poll until the run has ended, for at most a minute

A caller that leaves the watch wants nothing else any more: no call is handed out and nothing is submitted, even while a
refused cancel waits for another status; and all of this ends at the time when leaving does.
"""

from __future__ import annotations

import enum
import math
from typing import Final

from asyncruns.errors import APITimeoutError
from asyncruns.lifecycle.commands import End
from asyncruns.lifecycle.patience import backoff
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import AnySnapshot, Refusal, RefusalKind

CANCEL_TRIES: Final = 5
CANCEL_BOUND_S: Final = 60.0  # how long polls may show a run that goes on although the server took the cancel
CANCEL_HOLD_S: Final = 2.0  # how long a cancel waits for the answer to a pending submit
CANCEL_AGAIN_S: Final = 60.0  # how long a refused cancel is still wanted: after a minute, the caller has gone on
CANCEL_REFUSALS: Final = 5  # a status that changes with every poll must not make a cancel of each
LAST_TRY_S: Final = 1.0  # a caller that leaves has a last try this long before the end, whatever pause was asked for

# Refusals that have nothing to do with the status: there is no such route, or not with this credential.
_WHATEVER_STATUS: Final = frozenset(
    {RefusalKind.NOT_FOUND, RefusalKind.UNSUPPORTED, RefusalKind.UNAUTHORIZED, RefusalKind.QUOTA_SPENT}
)
_GOES_ON: Final = (Phase.PENDING, Phase.RUNNING, Phase.NEEDS_CALLER)


class CancelAnswer(enum.Enum):
    """What came of a cancel that was not taken as asked."""

    OVER = "over"  # the run is over, by the server's word: polls tell how
    AGAIN = "again"  # it is sent again after a pause
    REFUSED = "refused"


class Cancellation:
    """How far a cancel has come.

    Attributes:
        requested: The caller asked for it, and the server did not refuse; no call is handed out, nothing submitted. It
            stays so after a refusal when the caller leaves.
        active: It was sent, and not refused.
        confirm_by: From then on a poll that shows the run going on means that the cancel came to nothing.
        by: When the caller has left, and it is given up; infinity when the caller stays.
        may_have_acted: A try of it was lost, so that it may have had its effect, whatever a later one was told.
        refused: Why the server did not cancel, until the run asks for other calls than those that were stopped for it.
        error: Why the run is not cancelled, as far as is known: what the last try met.
        earlier: How the watch had ended before it was taken up again for the cancel; None where it had not.
        is_impossible: The server does not cancel, in whatever status.
    """

    __slots__ = (
        "_again_at",
        "_again_by",
        "_refusals",
        "_refused_in",
        "_was_refused",
        "active",
        "by",
        "confirm_by",
        "earlier",
        "error",
        "is_impossible",
        "is_refused",
        "may_have_acted",
        "refused",
        "requested",
        "tries",
    )

    def __init__(self, earlier: End | None = None) -> None:
        self.requested: bool = False
        self.active: bool = False
        self.confirm_by: float = math.inf
        self.by: float = math.inf
        self.may_have_acted: bool = False
        self.refused: Exception | None = None
        self.error: Exception | None = None
        self.tries: int = 0
        self.earlier: End | None = earlier
        self.is_refused: bool = False
        self.is_impossible: bool = False
        self._again_at = math.inf
        self._again_by = -math.inf
        self._was_refused = False
        self._refused_in: str | None = None
        self._refusals = 0

    @property
    def at(self) -> float:
        """When something is to be done: to send it, to send it again, or to give it up; infinity for not."""
        return min(self._again_at, self.by)

    @property
    def waits(self) -> bool:
        """Whether it is to be sent once the pending submit is answered."""
        return self.requested and not self.active and not self.is_refused

    @property
    def leaves(self) -> bool:
        """Whether the caller leaves, and wants nothing but the cancel."""
        return self.by < math.inf

    def leave_by(self, by: float) -> bool:
        """Note that the caller leaves the watch, and when; return whether it leaves earlier than was known."""
        if by >= self.by:
            return False
        self.by = by
        return True

    def forget_refusal(self) -> None:
        """Note that the run asks for other calls than those that were stopped for the cancel."""
        self.refused = None

    def send(self) -> None:
        """Note that it is being sent."""
        self.requested = self.active = True
        self.is_refused = self._was_refused = False
        self._again_at = math.inf
        self.tries += 1

    def ask(self, now: float, at: float = math.inf) -> None:
        """Note that the caller wants it, with all its tries; `at` when it has to wait."""
        self.requested = True
        self.is_refused = self._was_refused = self.is_impossible = False
        self.tries = self._refusals = 0
        self._again_at = at
        self._again_by = now + CANCEL_AGAIN_S

    def taken(self, now: float) -> None:
        """Note that the server took it, or says that the run is over."""
        self._again_at = math.inf
        self.error = None
        self.confirm_by = min(self.confirm_by, now + CANCEL_BOUND_S)

    def answered(self, refusal: Refusal, now: float, *, status: str | None, is_new: bool) -> CancelAnswer:
        """Note how the server answered a try that it did not take; return what that means.

        Args:
            refusal: The answer, or why there was none.
            now: When it came.
            status: Of the run; None where no poll has shown one.
            is_new: Whether the run is so new that the server may not know it yet.
        """
        if refusal.kind is RefusalKind.ALREADY_OVER and refusal.phase not in _GOES_ON:
            self.taken(now)
            if refusal.phase is None:  # it does not say how the run has ended, so it may not have
                self._refused_with(status)
            return CancelAnswer.OVER
        is_lagging = is_new and refusal.kind is RefusalKind.NOT_FOUND
        if (refusal.kind.passes or is_lagging) and self.tries < CANCEL_TRIES:
            self._failed(refusal, now)
            return CancelAnswer.AGAIN
        self._refuse(refusal, status)
        return CancelAnswer.REFUSED

    def _failed(self, refusal: Refusal, now: float) -> None:
        again_at = now + backoff(self.tries - 1, refusal)
        if again_at >= self.by and now < self.by - LAST_TRY_S:
            again_at = self.by - LAST_TRY_S
        self._again_at = again_at
        self.error = refusal.cause
        self.may_have_acted = self.may_have_acted or refusal.kind.may_have_acted

    def _refuse(self, refusal: Refusal, status: str | None) -> None:
        self.requested = self.leaves
        self.active = False
        self._again_at = self.confirm_by = math.inf
        self.refused = self.error = refusal.cause
        self.is_refused, self.is_impossible = True, refusal.kind in _WHATEVER_STATUS
        self.tries = 0
        self._refused_with(status)

    def _refused_with(self, status: str | None) -> None:
        self._was_refused = True
        self._refusals += 1
        self._refused_in = status

    def is_due(self, snapshot: AnySnapshot, now: float) -> bool:
        """Return whether it is to be sent: it waited for a submit, or the status is not the one that refused it."""
        return self.waits or (snapshot.phase is not Phase.CANCELLING and self._is_worth_another(snapshot.status, now))

    def _is_worth_another(self, status: str, now: float) -> bool:
        if not self._was_refused or self.is_impossible or status == self._refused_in:
            return False
        return self._refusals < CANCEL_REFUSALS and (self.leaves or now < self._again_by)

    def is_hopeless(self, phase: Phase) -> bool:
        """Return whether a caller that leaves waits in vain: what waits for outputs stays as it is."""
        if not self.leaves or not self.is_refused:
            return False
        return self.is_impossible or phase is Phase.NEEDS_CALLER

    def give_up(self) -> Exception:
        """Give why the run is not cancelled, at the end of the time that there was."""
        if self.error is None:
            self.error = APITimeoutError("No poll confirmed the cancel in time; the run may go on", sent=True)
        return self.error
