"""What was learned: how long the runs of each group took, and the pauses that follow from that.

It keeps the durations of each group and stage, and of all groups together, from which a new group begins. Groups of
which no run has ended for the longest are forgotten: what is kept is bounded, whatever names come.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct, field

from asyncruns.cadence.durations import LEAST_FORETOLD, Durations
from asyncruns.cadence.grid import END_S

GROUPS_KEPT: Final = 64  # each has 22 KB, and as much again where runs are said to be older than their watch
AGES_MEMORY_RUNS: Final = 50.0
MOST_PER_RUN: Final = 2.5  # of the score of the told ages: one run decides nothing

GroupStage = tuple[tuple[str, ...], int]


class Told:
    """What the runs of one group that are said to be older than their watch have shown.

    Attributes:
        durations: Of these runs, by the ages that the server's clock tells.
        score: By how much the told ages have foretold the ends better than the ages as watched, as a logarithm.
    """

    __slots__ = ("durations", "score")

    def __init__(self, base: Durations) -> None:
        self.durations: Durations = Durations(base)
        self.score: float = 0.0

    def judge(self, watched: Durations, unseen: float, after: float, by: float) -> None:
        """Compare the two ages by the probability that each gave to an end between two polls."""
        of_told = _chance_between(self.durations, unseen, after, by)
        of_watched = _chance_between(watched, 0.0, after - unseen, by - unseen)
        news = min(max(math.log(of_told / of_watched), -MOST_PER_RUN), MOST_PER_RUN)
        self.score = self.score * (1.0 - 1.0 / AGES_MEMORY_RUNS) + news


class LearnedDurations(Struct, frozen=True, kw_only=True, gc=False, eq=False):
    """The durations of all groups, and the pauses by them.

    Attributes:
        poll_worth: How many seconds of delay one poll may cost.
        floor: The shortest pause in seconds.
        ceiling: The longest pause in seconds.
    """

    poll_worth: float
    floor: float
    ceiling: float
    _known: dict[GroupStage, Durations] = field(default_factory=dict)
    _told: dict[tuple[str, ...], Told] = field(default_factory=dict)
    _usual: Durations = field(default_factory=Durations)

    @property
    def groups(self) -> int:
        """Of how many groups a run has ended, as far as they are remembered."""
        return len({group for group, _ in self._known if group})

    @property
    def runs(self) -> int:
        """How many runs have ended."""
        return sum(durations.runs for (group, _), durations in self._known.items() if not group)

    def durations(self, group: tuple[str, ...], stage: int) -> Durations:
        """Find what is known of a group; else of all; else what is usual."""
        known = self._known
        found = known.get((group, stage))
        if found is None:
            found = known.get(((), stage), self._usual)
            found.catch_up()
        return found

    def learn(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> None:
        """Note that a run of this group left this stage when it was older than `after`, and at most `by`, in seconds.

        Where the age was measured, `after` is just below `by`.
        """
        if by != by:  # no number
            return
        all_groups = self._touched(((), stage), None)
        all_groups.learn(after, by)
        if group:
            self._touched((group, stage), all_groups).learn(after, by)

    def pause(self, known: Durations, age: float) -> float:
        """Return the pause at an age by these durations, between floor and ceiling."""
        if age < END_S:
            return min(max(self.floor, known.pause(max(0.0, age), self.poll_worth, self.floor)), self.ceiling)
        return self.ceiling

    def heeding(self, pause: float, hint: float | None) -> float:
        """Return the pause, or the server's hint where that is longer."""
        return pause if hint is None or not hint > pause else min(hint, self.ceiling)

    def told(self, group: tuple[str, ...]) -> Told | None:
        """Return what the runs of a group that are said to be older than their watch have shown, if any has ended."""
        return self._told.get(group)

    def begin_told(self, group: tuple[str, ...]) -> Told:
        """Return the same, begun where there is none, as the one that is forgotten last."""
        found = self._told.pop(group, None)
        if found is None:
            all_groups = self._touched(((), 0), None)
            found = Told(self._touched((group, 0), all_groups) if group else all_groups)
        self._told[group] = found
        if len(self._told) > GROUPS_KEPT:
            del self._told[next(iter(self._told))]
        return found

    def _touched(self, key: GroupStage, base: Durations | None) -> Durations:
        """Find or begin the durations of a group, as the one that is forgotten last."""
        known = self._known
        found = known.pop(key, None) or Durations(base)
        known[key] = found
        if len(known) > GROUPS_KEPT:
            del known[next(iter(known))]
        return found


def _chance_between(known: Durations, since: float, after: float, by: float) -> float:
    """Return how probable it was, at the age `since`, that the run would end between two later ages."""
    return max(known.chance(since, by) - known.chance(since, after), LEAST_FORETOLD)
