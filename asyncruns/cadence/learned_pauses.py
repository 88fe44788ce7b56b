"""The strategy that learns how long runs take, and polls when they are likely to end."""

from __future__ import annotations

from asyncruns.cadence.late_pauses import LatePauses
from asyncruns.cadence.learned_durations import LearnedDurations
from asyncruns.cadence.strategy import Course, Strategy


class LearnedPauses(Strategy, frozen=True, kw_only=True, gc=False, eq=False):
    """Computes pauses from how long runs of the same group took.

    Attributes:
        learned: The durations learned so far, shared by all watches with this strategy.
    """

    learned: LearnedDurations

    def late(self, unseen: float) -> Strategy:
        """Return the strategy for a run that was `unseen` seconds old when its watch began, by the server's clock."""
        return LatePauses(learned=self.learned, unseen=unseen)

    def pause(self, course: Course) -> float:
        """Return the pause after a poll at the age `course.age`; a server's hint is the shortest pause."""
        learned = self.learned
        pause = learned.pause(learned.durations(course.group, course.stage), course.age)
        return learned.heeding(pause, course.hint, course.among)

    def learn(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> None:
        """Note that a run of this group left this stage when it was older than `after`, and at most `by`, in seconds.

        If the age was measured, `after` is just below `by`.
        """
        self.learned.learn(group, stage, after=after, by=by)

    def delay(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> float:
        """Return how many seconds before the age `by` a run older than `after` is expected to have left the stage."""
        return self.learned.durations(group, stage).delay(after, by)

    def age_of_delay(self, group: tuple[str, ...], stage: int, *, after: float, delay: float) -> float:
        """Return the age `by` at which `delay` reaches a number of seconds."""
        return self.learned.durations(group, stage).age_of_delay(after, delay)

    def __repr__(self) -> str:
        learned = self.learned
        return (
            f"<Cadence.learned poll_worth={learned.poll_worth} floor={learned.floor} ceiling={learned.ceiling}"
            f" groups={learned.groups} runs={learned.runs}>"
        )
