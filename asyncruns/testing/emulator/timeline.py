"""The position of a run at a given time: a pure function of its scenario and of its submits and cancel.

::

    queued -> in_progress -> requires_action -(submit)-> queued -> in_progress -> ... -> completed | failed | incomplete
    any of these -(cancel)-> cancelling -> cancelled;  any of these, `lifetime` after creation -> expired

A leg begins at creation and at each submit: `queued` seconds, then `working` seconds, then the leg's round or the end.
For example, with `queued=0.1`, `working=0.5` and one round, a run that is created at 1000 s is `in_progress` at 1000.1
and `requires_action` at 1000.6; if the outputs come at 1002, it completes at 1002.6.

There is no task and no timer: the caller passes the time, in the server's epoch seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from asyncruns.testing.emulator.scenario import Scenario

TERMINAL_STATUSES: Final = frozenset({"completed", "failed", "cancelled", "expired", "incomplete"})

# An epoch time near 1.8e9 is exact to 2.4e-7 s; without a tolerance, a poll exactly at a change may see either side.
_TOLERANCE_S: Final = 1e-6


def reached(now: float, moment: float) -> bool:
    """Return whether a moment has come."""
    return now >= moment - _TOLERANCE_S


def whole(moment: float) -> int:
    """Return a time as it is on the wire: whole seconds, rounded down."""
    return math.floor(moment + _TOLERANCE_S)


@dataclass(frozen=True, slots=True)
class Position:
    """The position of a run at a given time.

    Attributes:
        started: Time at which it last changed to `in_progress`, or None; a submit sets it again when that leg starts.
        ended: Time at which it reached its terminal status, or None.
        asked: Times at which the rounds so far changed the run to `requires_action`.
    """

    status: str
    started: float | None
    ended: float | None
    asked: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RunCourse:
    """The submits and the cancel of a run; everything else follows from the scenario and the time."""

    scenario: Scenario
    created: float
    submitted: Sequence[float]
    cancelled: float | None

    def at(self, now: float) -> Position:
        """Return the run's position at a time."""
        end, ended = self._end()
        over = reached(now, ended)
        # A cancel and the end stop the progress of the run: later changes of its legs do not happen.
        seen = min(now, ended, math.inf if self.cancelled is None else self.cancelled)
        return Position(
            status=end if over else self._open_status(seen),
            started=self._started(seen),
            ended=ended if over else None,
            asked=tuple(moment for moment in self._rounds() if reached(seen, moment)),
        )

    def changes_after(self, now: float) -> float:
        """Return a time until which nothing changes, or infinity, assuming no further submit or cancel.

        It may be earlier than the next change: the moments of legs that a cancel or the end cuts off count as well.
        """
        legs = self._legs()
        queued = (leg + self.scenario.queued for leg in legs)
        worked = (self._working_until(leg) for leg in legs)
        moments = (*queued, *worked, self._end()[1])
        return min((moment for moment in moments if not reached(now, moment)), default=math.inf)

    def _legs(self) -> list[float]:
        return [self.created, *self.submitted]

    def _working_until(self, leg: float) -> float:
        return leg + self.scenario.queued + self.scenario.working

    def _rounds(self) -> list[float]:
        return [self._working_until(leg) for leg in self._legs()[: len(self.scenario.rounds)]]

    def _end(self) -> tuple[str, float]:
        """Return the terminal status and its time: the run's own end, a cancel's or expiry, whichever is first."""
        own, cancelled = math.inf, math.inf
        # A run ends by itself only after all its rounds were answered; until then it waits and may expire.
        if len(self.submitted) == len(self.scenario.rounds) and self.scenario.end != "never":
            own = self._working_until(self._legs()[-1])
        if self.cancelled is not None:
            cancelled = self.cancelled + self.scenario.cancelling
        ends = (
            (own, self.scenario.end),
            (cancelled, "cancelled"),
            (self.created + self.scenario.lifetime, "expired"),
        )
        moment, status = min(ends, key=lambda end: end[0])
        return status, moment

    def _open_status(self, seen: float) -> str:
        leg = self._legs()[-1]
        if self.cancelled is not None:  # and not over, or `at` would have returned the end
            return "cancelling"
        if not reached(seen, leg + self.scenario.queued):
            return "queued"
        rounds_open = len(self.submitted) < len(self.scenario.rounds)
        return "requires_action" if rounds_open and reached(seen, self._working_until(leg)) else "in_progress"

    def _started(self, seen: float) -> float | None:
        starts = [leg + self.scenario.queued for leg in self._legs()]
        return max((start for start in starts if reached(seen, start)), default=None)
