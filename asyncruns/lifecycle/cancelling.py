"""The state of a cancel that the caller asked for.

The server may refuse a cancel, take long over it, leave the run in `cancelling`, or the run may end first
(https://platform.openai.com/docs/api-reference/runs/cancelRun). Some servers cancel only in some statuses, so a refusal
does not predict the next one. A cancel is therefore sent several times, confirmed by polls, limited in time, and
reported as it turned out::

    answer lost, or may pass       send it again after a pause; at most 5 tries
    refused                        poll; send it again when the status has changed, for at most a minute, unless the
                                   caller leaves and has a limit of its own; give up at the fifth refusal
    no such route, no permission   poll; this server does not cancel, whatever the status
    accepted                       poll until the run has ended, for at most a minute (`Policy.cancel_bound`)

A caller that leaves the watch wants nothing but the cancel: no call is handed out and nothing is submitted, even while
a refused cancel waits for another status. All of this stops when the time limit of leaving is reached.
"""

from __future__ import annotations

import enum
import math
from typing import Final

from asyncruns.errors import APITimeoutError
from asyncruns.lifecycle.commands import End
from asyncruns.lifecycle.patience import backoff
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.policy import CANCEL_BOUND_S
from asyncruns.lifecycle.values import AnySnapshot, Refusal, RefusalKind

CANCEL_TRIES: Final = 5  # with pauses of 0.5, 1, 2 and 4 s, unless the server asks for longer ones
CANCEL_HOLD_S: Final = 2.0  # how long a cancel waits for the answer to a pending submit
CANCEL_AGAIN_S: Final = 60.0  # how long a refused cancel is still wanted: after a minute, the caller has moved on
CANCEL_REFUSALS: Final = 5  # refusals until the cancel is given up: the status may change with every poll ("1%", "2%")
LAST_TRY_S: Final = 1.0  # a caller that leaves gets a last try this long before its limit, whatever the server asks for

# These refusals do not depend on the status: the route does not exist, or not for this credential.
_WHATEVER_STATUS: Final = frozenset(
    {RefusalKind.NOT_FOUND, RefusalKind.UNSUPPORTED, RefusalKind.UNAUTHORIZED, RefusalKind.QUOTA_SPENT}
)
_GOES_ON: Final = (Phase.PENDING, Phase.RUNNING, Phase.NEEDS_CALLER)


class CancelAnswer(enum.Enum):
    """What the answer to a cancel means, if it was not accepted."""

    OVER = "over"  # the server says that the run is over: poll to see how it ended
    AGAIN = "again"  # send it again after a pause
    REFUSED = "refused"


class Cancellation:
    """How far a cancel has come.

    Attributes:
        requested: The caller asked for it and the server has not refused it: no call is handed out, nothing is
            submitted. Stays true after a refusal if the caller leaves.
        active: Whether it was sent and not refused.
        confirm_by: Time from which a poll that shows the run going on means that the cancel failed.
        by: Time limit of a caller that leaves, when the cancel is given up; infinity for a caller that stays.
        may_have_acted: Whether the answer to a try was lost, so that it may have worked, whatever a later answer was.
        refused: Why the server did not cancel, until the run asks for calls other than those stopped for the cancel.
        error: Why the run is not cancelled, as far as is known: the error of the last try.
        tries: How often it was sent since it was last asked for or refused.
        earlier: How the watch had finished before the cancel reopened it; None if it had not finished.
        is_refused: Whether the server has refused it, and it was not sent or asked for since.
        is_impossible: Whether the server does not cancel, whatever the status.
    """

    __slots__ = (
        "_again_at",
        "_again_by",
        "_bound",
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

    def __init__(self, earlier: End | None = None, bound: float = CANCEL_BOUND_S) -> None:
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
        self._bound = bound  # see `Policy.cancel_bound`
        self._was_refused = False
        self._refused_in: str | None = None
        self._refusals = 0

    @property
    def at(self) -> float:
        """Time of the next step: to send it, to send it again, or to give it up; infinity for none."""
        return min(self._again_at, self.by)

    @property
    def waits(self) -> bool:
        """Whether it waits to be sent until the pending submit is answered."""
        return self.requested and not self.active and not self.is_refused

    @property
    def leaves(self) -> bool:
        """Whether the caller is leaving and wants nothing but the cancel."""
        return self.by < math.inf

    def leave_by(self, by: float) -> bool:
        """Record the time limit of a caller that leaves; return whether it is earlier than any before."""
        if by >= self.by:
            return False
        self.by = by
        return True

    def forget_refusal(self) -> None:
        """Record that the run asks for calls other than those stopped for the cancel."""
        self.refused = None

    def send(self) -> None:
        """Record that it is being sent."""
        self.requested = self.active = True
        self.is_refused = self._was_refused = False
        self._again_at = math.inf
        self.tries += 1

    def ask(self, now: float, at: float = math.inf) -> None:
        """Record that the caller asks for it, with all its tries again; `at` is when to send it if it has to wait."""
        self.requested = True
        self.is_refused = self._was_refused = self.is_impossible = False
        self.tries = self._refusals = 0
        self._again_at = at
        self._again_by = now + CANCEL_AGAIN_S

    def taken(self, now: float) -> None:
        """Record that the server accepted it, or says that the run is over."""
        self._again_at = math.inf
        self.error = None
        # The earliest bound stays: an answer that repeats every 30 s must not postpone it for ever.
        self.confirm_by = min(self.confirm_by, now + self._bound)

    def answered(self, refusal: Refusal, now: float, *, status: str | None, is_new: bool) -> CancelAnswer:
        """Record the answer to a try that was not accepted; return what it means.

        Args:
            refusal: The answer, or why there was none.
            now: When it arrived.
            status: Last known status of the run; None if there is none.
            is_new: Whether the run is so new that a replica may not have it yet.
        """
        if refusal.kind is RefusalKind.ALREADY_OVER and refusal.phase not in _GOES_ON:
            self.taken(now)
            if refusal.phase is None:  # the server does not say how the run ended, so it may not be over
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
        # Leaving by 5.0 with a `Retry-After` of 30 s: the last try is at 4.0, and not after the caller has left.
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
        """Return whether to send it now: it waited for a submit, or the status has changed since it was refused."""
        return self.waits or (snapshot.phase is not Phase.CANCELLING and self._is_worth_another(snapshot.status, now))

    def _is_worth_another(self, status: str, now: float) -> bool:
        if not self._was_refused or self.is_impossible or status == self._refused_in:
            return False
        return self._refusals < CANCEL_REFUSALS and (self.leaves or now < self._again_by)

    def is_hopeless(self, phase: Phase) -> bool:
        """Return whether a caller that leaves would wait in vain.

        It would if the server never cancels, or if the run waits for outputs, since its status does not change then.
        """
        if not self.leaves or not self.is_refused:
            return False
        return self.is_impossible or phase is Phase.NEEDS_CALLER

    def give_up(self) -> Exception:
        """Return why the run is not cancelled, when the time limit of leaving is reached."""
        if self.error is None:
            self.error = APITimeoutError("No poll confirmed the cancel in time; the run may go on", sent=True)
        return self.error
