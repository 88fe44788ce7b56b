"""The strategy that learns, for a run that the server says is older than its watch.

Only the age since the watch began is certain. By the server's clock it may be greater, and it is not known whether
that is true: `created_at` may be a constant, in another time zone, or real. So such a run has two ages, and each
predicts when the run ends:

as watched  from the start of the watch, with the durations of all runs as watched
as told     from the creation by the server's clock, with the durations of the runs that were said to be older

Each end that is seen shows which of the two predicted it better. Until that is clear, the run is polled as soon as
either age suggests it, and a pause is at most 1 s, or as long as the run was watched if that is more.

For example, a watch begins at a told age of 60 s. If most runs of the group take 65 s and the told age is true, the end
is 5 s away; if the told age is false, it is 65 s away. The pauses suit both: at most 1 s at first, and at most 5 s when
the run was watched for 5 s.
"""

from __future__ import annotations

from typing import Final

from asyncruns.cadence.durations import Durations
from asyncruns.cadence.learned_durations import LearnedDurations
from asyncruns.cadence.strategy import Course, Strategy

DECIDING_SCORE: Final = 4.0  # a logarithm: one age has made the ends that were seen 50 times as probable as the other
REACHED_SHARE: Final = 0.01  # if fewer runs reached an age, nothing is known about runs of that age
UNPROVEN_PAUSE_S: Final = 1.0  # the longest pause while it is unclear which age counts; or the time watched, if more

Reading = tuple[Durations, float]
"""Durations, and the told age at which they start to count: when the watch began, or 0."""


class LatePauses(Strategy, frozen=True, kw_only=True, gc=False, eq=False):
    """Computes learned pauses for one run that the server says is older than its watch. All ages are told ones.

    Attributes:
        learned: The durations learned so far, shared by all watches.
        unseen: The told age at which the watch began, in seconds.
    """

    learned: LearnedDurations
    unseen: float

    def pause(self, course: Course) -> float:
        """Return the pause after a poll at the told age `course.age`; a server's hint is the shortest pause."""
        readings = self._readings(course.group, course.stage)
        pause = min(self.learned.pause(known, course.age - before) for known, before in readings)
        # Two readings: it is unclear which one counts. `course.age - self.unseen` is the time watched.
        if len(readings) > 1:
            pause = min(pause, max(UNPROVEN_PAUSE_S, course.age - self.unseen))
        return self.learned.heeding(pause, course.hint, course.among)

    def learn(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> None:
        """Note that the run left the stage between two told ages.

        It does not count for the ages as watched once the told ages have proved to be better: runs that were watched
        only from their middle on would blur what is known about whole runs.
        """
        # Judge first: durations must be scored on a run that they have not learned yet.
        told = self.learned.begin_told(group)
        told.judge(self.learned.durations(group, stage), self.unseen, after, by)
        if told.score < DECIDING_SCORE:
            self.learned.learn(group, stage, after=max(after - self.unseen, 0.0), by=max(by - self.unseen, 0.0))
        told.durations.learn(after, by)

    def delay(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> float:
        """Return the longer of the delays by both ages, in seconds."""
        return max(known.delay(after - before, by - before) for known, before in self._readings(group, stage))

    def age_of_delay(self, group: tuple[str, ...], stage: int, *, after: float, delay: float) -> float:
        """Return the told age `by` at which `delay` reaches a number of seconds."""
        readings = self._readings(group, stage)
        return min(before + known.age_of_delay(after - before, delay) for known, before in readings)

    def _readings(self, group: tuple[str, ...], stage: int) -> tuple[Reading, ...]:
        """Return the age that has proved to be better, or both."""
        watched, told = self.learned.durations(group, stage), self.learned.told(group)
        if told is None:  # no such run has ended yet: what is known about whole runs is used for either age
            return ((watched, self.unseen), (watched, 0.0)) if watched.runs else ((watched, self.unseen),)
        if told.score <= -DECIDING_SCORE:
            return ((watched, self.unseen),)
        # The told age alone is used only if enough runs were that old; otherwise its durations do not show the rest.
        if told.score >= DECIDING_SCORE and told.durations.chance(0.0, self.unseen) <= 1.0 - REACHED_SHARE:
            return ((told.durations, 0.0),)
        return (watched, self.unseen), (told.durations, 0.0)
