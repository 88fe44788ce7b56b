"""How far a stream has come: whether it is complete, and how long to wait for more. Without I/O and without a clock."""

from __future__ import annotations

import math
from typing import Final

from asyncruns.wire.common import ErrorObject
from asyncruns.wire.status_names import ENDED_STATUSES, REQUIRES_ACTION

# Servers may leave the connection open after the last event, so reading must end by itself.
_END_GRACE_S: Final = 0.25  # after the run's end only `done` and the connection's end follow
_PAUSE_GRACE_S: Final = 1.0  # when the run waits for the caller, or after an error: other events may follow


class StreamProgress:
    """What the events of one stream show about the stream itself.

    Attributes:
        error: The error with which the server ended the stream, or None.
        is_done: Whether the server marked the stream as over. Some servers never do.
        is_whole: Whether the stream is complete: it reported the end of the run, or that the run waits for the caller.
        has_ended: Whether the end of the run was reported.
        grace: Seconds to wait for more after the last event; None is no limit.
    """

    def __init__(self) -> None:
        self.error: ErrorObject | None = None
        self.is_done: bool = False
        self.is_whole: bool = False
        self.has_ended: bool = False
        self.grace: float | None = None
        self._grace_ends = math.inf  # on the loop's clock

    def told_status(self, status: str) -> None:
        """Note the status of the run that an event reports."""
        if status in ENDED_STATUSES:
            self.is_whole = self.has_ended = True
            self.grace = _END_GRACE_S
        elif status == REQUIRES_ACTION and not self.has_ended:
            self.is_whole = True
            self.grace = _PAUSE_GRACE_S
        else:
            self.goes_on()

    def goes_on(self) -> None:
        """Note an event that shows that the run is in progress; it has no effect once the run has ended."""
        if not self.has_ended:
            self.is_whole, self.grace, self._grace_ends = False, None, math.inf

    def told_error(self, error: ErrorObject) -> None:
        """Note that the server ended the stream with an error."""
        self.error = error
        self.grace = _PAUSE_GRACE_S if self.grace is None else self.grace

    def told_done(self, *, is_whole: bool) -> None:
        """Note that the server marked the stream as over, and whether it is complete."""
        self.is_done = True
        self.is_whole = is_whole

    def lacks_text(self) -> None:
        """Note that the text of the stream is not the text of the run."""
        self.is_whole = False

    def seconds_left(self, now: float) -> float:
        """Return how many seconds to wait for more: `grace` at the first call, then what is left of it."""
        # The end never moves to a later time, so a server that only sends comments cannot keep the stream open.
        if self.grace is not None:
            self._grace_ends = min(self._grace_ends, now + self.grace)
        return self._grace_ends - now
