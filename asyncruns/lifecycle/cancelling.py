"""A cancel that the caller asked for, and what came of it so far.

The server may refuse it, take long, stick in `cancelling`, or be overtaken by the run's own end
(https://platform.openai.com/docs/api-reference/runs/cancelRun). So it is asked some times, confirmed by looks, bounded,
and reported as it was.
"""

from __future__ import annotations

import math
from typing import Final

CANCEL_TRIES: Final = 5
CANCEL_BOUND_S: Final = 60.0  # so long looks may show a run that goes on although the server took the cancel
CANCEL_HOLD_S: Final = 2.0  # so long a cancel waits for the answer to a submit that is on its way


class Cancellation:
    """How far a cancel has come.

    Attributes:
        requested: The caller asked for it, and the server did not refuse; no call is handed out, nothing submitted.
        active: It was sent.
        at: When it is to be sent, or sent again; infinity for not.
        confirm_by: From then on a look that shows the run going on means that the cancel came to nothing.
        may_have_acted: A try of it was lost, so that it may have had its effect, whatever a later one was told.
        refused: Why the server did not cancel, until the run asks for other calls than those that were stopped for it.
    """

    __slots__ = ("active", "at", "confirm_by", "may_have_acted", "refused", "requested", "tries")

    def __init__(self) -> None:
        self.requested: bool = False
        self.active: bool = False
        self.at: float = math.inf
        self.confirm_by: float = math.inf
        self.may_have_acted: bool = False
        self.refused: Exception | None = None
        self.tries: int = 0

    @property
    def waits(self) -> bool:
        """Whether it is to be sent once the submit is answered that is on its way."""
        return self.requested and not self.active

    def send(self) -> None:
        """Note that it is being sent."""
        self.active = True
        self.at = math.inf
        self.tries += 1

    def ask(self, at: float = math.inf) -> None:
        """Note that the caller wants it, with all its tries; `at` when it has to wait."""
        self.requested = True
        self.tries = 0
        self.at = at

    def taken(self, now: float) -> None:
        """Note that the server took it, or says that the run is over."""
        self.at = math.inf
        self.confirm_by = min(self.confirm_by, now + CANCEL_BOUND_S)

    def failed(self, again_at: float, *, acted: bool) -> None:
        """Note that a try was not answered; `acted` says whether it may have had its effect all the same."""
        self.at = again_at
        self.may_have_acted = self.may_have_acted or acted

    def may_be_tried_again(self) -> bool:
        """Tell whether one more try is due after one that did not arrive."""
        return self.tries < CANCEL_TRIES

    def refuse(self, cause: Exception) -> None:
        """Note that the server does not cancel."""
        self.requested = self.active = False
        self.at = self.confirm_by = math.inf
        self.refused = cause
