"""Pauses that only count polls: of a steady length, or growing to one."""

from __future__ import annotations

from typing import Final, Literal

from asyncruns.cadence.strategy import Course, Strategy

HINT_FLOOR_S: Final = 0.05
HINT_CEILING_S: Final = 60.0

Hints = Literal["replace", "least", "ignore"]
_CADENCES: Final[dict[Hints, str]] = {"replace": "hinted", "least": "backoff", "ignore": "fixed"}


class GrowingPauses(Strategy, frozen=True, kw_only=True, gc=False):
    """Pauses by the number of polls alone, and by what the server hints.

    Attributes:
        start: The first pause.
        growth: The factor from one pause to the next.
        interval: Where the growth ends.
        hints: Whether a server's hint replaces all of that, is the least pause, or is ignored.
    """

    start: float
    growth: float
    interval: float
    hints: Hints

    def pause(self, course: Course) -> float:
        """Return the pause after the poll number `course.polls`, in seconds.

        A hint is clamped to 0.05 to 60 s: servers send zero, negative ones and hours.
        """
        hint = course.hint
        if hint is not None and self.hints == "replace":
            return min(max(HINT_FLOOR_S, hint), HINT_CEILING_S)
        # Growth is an overflow after days of polls, or at once with an absurd factor.
        try:
            pause = min(self.start * self.growth ** max(course.polls - 1, 0), self.interval)
        except OverflowError:
            pause = self.interval
        if hint is None or self.hints == "ignore" or not hint > pause:
            return pause
        return max(pause, min(hint, HINT_CEILING_S))

    def __repr__(self) -> str:
        return f"<Cadence.{_CADENCES[self.hints]} start={self.start} growth={self.growth} interval={self.interval}>"
