"""The strategy that learns, for runs that are said to be older than their watch.

What was watched is the only age that is certain. The server's clock may tell a greater one, and there is no way to see
whether that is true: `created_at` may be a constant, in another time zone, or real. So there are two ages of such a
run, and each foretells when the run ends: the age as watched, by the durations of all runs since they were first
watched, and the age as told, by the durations of those that were said to be older, since they were said to be created.
Each end that is seen shows which of the two foretold it better. Until that is clear, the run is polled as soon as
either age asks for it, and after no pause of more than a second that is longer than the run has been watched.
"""

from __future__ import annotations

from typing import Final

from asyncruns.cadence.durations import Durations
from asyncruns.cadence.learned_durations import LearnedDurations
from asyncruns.cadence.strategy import Course, Strategy

DECIDING_SCORE: Final = 4.0  # a logarithm: one age has foretold the ends that were seen 50 times as well as the other
REACHED_SHARE: Final = 0.01  # of the runs must have come to an age, or nothing is known of runs of that age
UNPROVEN_PAUSE_S: Final = 1.0  # the longest pause while nothing is clear; or the time watched, where that is more

Reading = tuple[Durations, float]
"""Durations, and for how many seconds of the told age they do not count: those before the watch, or none."""


class LatePauses(Strategy, frozen=True, kw_only=True, gc=False, eq=False):
    """Learned pauses for one run that is said to be older than its watch. All ages are the told ones.

    Attributes:
        learned: What was learned of all runs.
        unseen: How many seconds old the run is said to have been when its watch began.
    """

    learned: LearnedDurations
    unseen: float

    def pause(self, course: Course) -> float:
        """Return the pause after a poll at the told age `course.age`; a server's hint is the least pause."""
        readings = self._readings(course.group, course.stage)
        pause = min(self.learned.pause(known, course.age - before) for known, before in readings)
        if len(readings) > 1:
            pause = min(pause, max(UNPROVEN_PAUSE_S, course.age - self.unseen))
        return self.learned.heeding(pause, course.hint)

    def learn(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> None:
        """Note that the run left the stage between two told ages.

        It does not count for the ages as watched where the told ages have proved to be better: what is seen of a run
        from its middle on would only blur what is known of whole runs.
        """
        told = self.learned.begin_told(group)
        told.judge(self.learned.durations(group, stage), self.unseen, after, by)
        if told.score < DECIDING_SCORE:
            self.learned.learn(group, stage, after=max(after - self.unseen, 0.0), by=max(by - self.unseen, 0.0))
        told.durations.learn(after, by)

    def delay(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> float:
        """Return the longer one of the delays by both ages."""
        return max(known.delay(after - before, by - before) for known, before in self._readings(group, stage))

    def age_of_delay(self, group: tuple[str, ...], stage: int, *, after: float, delay: float) -> float:
        """Return the told age at which `delay` returns so much."""
        readings = self._readings(group, stage)
        return min(before + known.age_of_delay(after - before, delay) for known, before in readings)

    def _readings(self, group: tuple[str, ...], stage: int) -> tuple[Reading, ...]:
        """Return the ages to go by: the one that has proved to be better, or both."""
        watched, told = self.learned.durations(group, stage), self.learned.told(group)
        if told is None:  # what whole runs have shown holds for either age
            return ((watched, self.unseen), (watched, 0.0)) if watched.runs else ((watched, self.unseen),)
        if told.score <= -DECIDING_SCORE:
            return ((watched, self.unseen),)
        if told.score >= DECIDING_SCORE and told.durations.chance(0.0, self.unseen) <= 1.0 - REACHED_SHARE:
            return ((told.durations, 0.0),)
        return (watched, self.unseen), (told.durations, 0.0)
