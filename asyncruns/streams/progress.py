"""How far a stream has come: whether it told all, and how long more may follow. Without I/O, and without a clock."""

from __future__ import annotations

import math
from typing import Final

from asyncruns.wire.common import ErrorObject
from asyncruns.wire.statuses import ENDED_STATUSES, REQUIRES_ACTION

_END_GRACE_S: Final = 0.25  # for what follows the run's end: `done`, and the connection's own end
_PAUSE_GRACE_S: Final = 1.0  # the same where the run waits for the caller, or after an error: more may follow


class StreamProgress:
    """What the events of one stream have told of the stream itself.

    Attributes:
        error: What the server said when it gave the stream up, or None.
        is_done: Whether the server said that the stream is over. Some never say it.
        is_whole: Whether the stream told all: the end of the run, or that it waits for the caller.
        has_ended: Whether the end of the run was told.
        grace: For how many seconds more may follow what was told last; None where that is not bounded.
    """

    def __init__(self) -> None:
        self.error: ErrorObject | None = None
        self.is_done: bool = False
        self.is_whole: bool = False
        self.has_ended: bool = False
        self.grace: float | None = None
        self._grace_ends = math.inf

    def told_status(self, status: str) -> None:
        """Note the status of the run."""
        if status in ENDED_STATUSES:
            self.is_whole = self.has_ended = True
            self.grace = _END_GRACE_S
        elif status == REQUIRES_ACTION and not self.has_ended:
            self.is_whole = True
            self.grace = _PAUSE_GRACE_S
        else:
            self.goes_on()

    def goes_on(self) -> None:
        """Note an event after which more is to come, unless the run has ended."""
        if not self.has_ended:
            self.is_whole, self.grace, self._grace_ends = False, None, math.inf

    def told_error(self, error: ErrorObject) -> None:
        """Note that the server gave the stream up."""
        self.error = error
        self.grace = _PAUSE_GRACE_S if self.grace is None else self.grace

    def told_done(self, *, is_whole: bool) -> None:
        """Note that the server said that the stream is over, and whether it has told all."""
        self.is_done = True
        self.is_whole = is_whole

    def lacks_text(self) -> None:
        """Note that the text that was told does not fit that of the run."""
        self.is_whole = False

    def seconds_left(self, now: float) -> float:
        """Return for how many seconds more may follow: `grace` at first, and less each time when reading goes on."""
        if self.grace is not None:
            self._grace_ends = min(self._grace_ends, now + self.grace)
        return self._grace_ends - now
