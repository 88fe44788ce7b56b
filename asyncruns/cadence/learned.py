"""The strategy that learns how long runs take, and polls when they are likely to end."""

from __future__ import annotations

from asyncruns.cadence.late import LatePauses
from asyncruns.cadence.learned_durations import LearnedDurations
from asyncruns.cadence.strategy import Course, Strategy


class LearnedPauses(Strategy, frozen=True, kw_only=True, gc=False, eq=False):
    """Pauses by how long runs of the group took.

    Attributes:
        learned: What was learned, shared by all the watches that have this strategy.
    """

    learned: LearnedDurations

    def late(self, unseen: float) -> Strategy:
        """Return the view for a run that was so many seconds old when its watch began, as the server's clock says."""
        return LatePauses(learned=self.learned, unseen=unseen)

    def pause(self, course: Course) -> float:
        """Return the pause after a poll at the age `course.age`; a server's hint is the least pause."""
        learned = self.learned
        return learned.heeding(learned.pause(learned.durations(course.group, course.stage), course.age), course.hint)

    def learn(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> None:
        """Note that a run of this group left this stage when it was older than `after`, and at most `by`, in seconds.

        Where the age was measured, `after` is just below `by`.
        """
        self.learned.learn(group, stage, after=after, by=by)

    def delay(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> float:
        """Return for how many seconds a run older than `after` is expected to have left the stage at the age `by`."""
        return self.learned.durations(group, stage).delay(after, by)

    def age_of_delay(self, group: tuple[str, ...], stage: int, *, after: float, delay: float) -> float:
        """Return the age at which `delay` returns so much."""
        return self.learned.durations(group, stage).age_of_delay(after, delay)

    def __repr__(self) -> str:
        learned = self.learned
        return (
            f"<Cadence.learned poll_worth={learned.poll_worth} floor={learned.floor} ceiling={learned.ceiling}"
            f" groups={learned.groups} runs={learned.runs}>"
        )
