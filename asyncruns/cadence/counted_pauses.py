"""Strategies that only count polls: their pauses are steady, or grow to a steady length."""

from __future__ import annotations

from typing import Final, Literal

from asyncruns.cadence.strategy import Course, Strategy

# Servers send hints of zero, negative ones and hours.
HINT_FLOOR_S: Final = 0.05
HINT_CEILING_S: Final = 60.0

Hints = Literal["replace", "least", "ignore"]
_CADENCES: Final[dict[Hints, str]] = {"replace": "hinted", "least": "backoff", "ignore": "fixed"}


class GrowingPauses(Strategy, frozen=True, kw_only=True, gc=False):
    """Computes pauses from the number of polls and the server's hints alone.

    Attributes:
        start: The first pause.
        growth: The factor from one pause to the next.
        interval: The longest pause, at which the growth ends.
        hints: Whether a server's hint replaces the pause, is the shortest pause, or is ignored.
    """

    start: float
    growth: float
    interval: float
    hints: Hints

    def pause(self, course: Course) -> float:
        """Return the pause after poll number `course.polls`, in seconds.

        A hint that replaces the pause is clamped to 0.05 to 60 s; one that is the shortest pause counts for at most
        60 s.
        """
        hint = course.hint
        if hint is not None and self.hints == "replace":
            return min(max(HINT_FLOOR_S, hint), HINT_CEILING_S)
        # For example 0.5, 0.75, 1.13, 1.69 s, ... with a start of 0.5 and a growth of 1.5. The power overflows after
        # days of polls, or at once with an absurd factor.
        try:
            pause = min(self.start * self.growth ** max(course.polls - 1, 0), self.interval)
        except OverflowError:
            pause = self.interval
        if hint is None or self.hints == "ignore" or not hint > pause:  # "not >" also ignores a hint of NaN
            return pause
        return max(pause, min(hint, HINT_CEILING_S))

    def __repr__(self) -> str:
        return f"<Cadence.{_CADENCES[self.hints]} start={self.start} growth={self.growth} interval={self.interval}>"
