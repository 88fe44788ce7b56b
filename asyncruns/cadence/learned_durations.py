"""What was learned: how long the runs of each group took, and the pauses computed from that.

Durations are kept for each group and stage, and for all groups together, from which a new group starts. The groups
whose last ended run is the longest ago are forgotten, so memory is bounded however many group names come.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct, field

from asyncruns.cadence.age_grid import END_S
from asyncruns.cadence.durations import LEAST_FORETOLD, Durations

# Groups and stages kept: each takes 46 KB once it was used, so 3 MB in all. Groups with runs that the server says are
# older than their watch are kept in a second store of the same size.
GROUPS_KEPT: Final = 64
AGES_MEMORY_RUNS: Final = 50.0  # runs over which the score of the told ages fades
POOL_BATCHES: Final = 4.0
POOL_RUNS: Final = 400
POOL_SHARE: Final = 0.25
GOLDEN_RATIO: Final = (math.sqrt(5.0) - 1.0) / 2.0
MOST_PER_RUN: Final = 2.5  # the most that one run changes the score: below DECIDING_SCORE (4), so no run decides alone

GroupStage = tuple[tuple[str, ...], int]


class Told:
    """What was learned from the runs of one group that the server says are older than their watch.

    A *told* age is an age by the server's clock; an age *as watched* counts from the start of the watch.

    Attributes:
        durations: The durations of these runs, by their told ages.
        score: How much better the told ages predicted the ends than the ages as watched, as a logarithm; negative if
            worse.
    """

    __slots__ = ("durations", "score")

    def __init__(self, base: Durations) -> None:
        self.durations: Durations = Durations(base)
        self.score: float = 0.0

    def judge(self, watched: Durations, unseen: float, after: float, by: float) -> None:
        """Update the score by the probability that each kind of age gave to an end between two polls.

        Args:
            watched: The durations as watched.
            unseen: The told age at which the watch began, in seconds.
            after: The told age of the last poll before the end.
            by: The told age of the poll that saw the end.
        """
        # For example, 0.3 by the told age and 0.1 by the other change the score by log(3) = 1.1. After four such runs
        # it is above DECIDING_SCORE.
        of_told = _chance_between(self.durations, unseen, after, by)
        of_watched = _chance_between(watched, 0.0, after - unseen, by - unseen)
        news = min(max(math.log(of_told / of_watched), -MOST_PER_RUN), MOST_PER_RUN)
        self.score = self.score * (1.0 - 1.0 / AGES_MEMORY_RUNS) + news


class LearnedDurations(Struct, frozen=True, kw_only=True, gc=False, eq=False):
    """The durations of all groups, and the pauses computed from them.

    Attributes:
        poll_worth: How many seconds of delay one poll is worth.
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
        """Number of groups that are remembered: at least one run of each has ended."""
        return len({group for group, _ in self._known if group})

    @property
    def runs(self) -> int:
        """Number of times that a run left a stage: it ended, or called tools."""
        return sum(durations.runs for (group, _), durations in self._known.items() if not group)

    def durations(self, group: tuple[str, ...], stage: int) -> Durations:
        """Return the durations of a group if known, otherwise those of all groups, otherwise the usual ones."""
        known = self._known
        found = known.get((group, stage))
        if found is None:
            found = known.get(((), stage), self._usual)
            found.catch_up()
        return found

    def learn(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> None:
        """Note that a run of this group left this stage when it was older than `after`, and at most `by`, in seconds.

        If the age was measured, `after` is just below `by`.
        """
        if by != by:  # NaN
            return
        all_groups = self._touched(((), stage), None)
        if not group:
            all_groups.learn(after, by)
            return
        # All groups together only start new ones, so they are updated less often, and after some hundred runs a quarter
        # of them will do: by a multiple of the golden ratio, so that no pattern of the caller's runs matters.
        if all_groups.runs <= POOL_RUNS or all_groups.runs * GOLDEN_RATIO % 1.0 < POOL_SHARE:
            all_groups.learn(after, by, POOL_BATCHES)
        else:
            all_groups.skip()
        self._touched((group, stage), all_groups).learn(after, by)

    def pause(self, known: Durations, age: float) -> float:
        """Return the pause at an age for these durations, between floor and ceiling."""
        if age < END_S:
            return min(max(self.floor, known.pause(max(0.0, age), self.poll_worth, self.floor)), self.ceiling)
        return self.ceiling

    def heeding(self, pause: float, hint: float | None, among: int = 1) -> float:
        """Return the pause, or the server's hint if that is longer; a hint counts for at most the ceiling.

        If a poll shows `among` runs, it costs each of them that much less, and the best pause grows with the square
        root of the cost.
        """
        if among > 1:
            pause = max(pause / math.sqrt(among), self.floor)
        return pause if hint is None or not hint > pause else min(hint, self.ceiling)

    def told(self, group: tuple[str, ...]) -> Told | None:
        """Return what was learned by told ages about a group; None if no such run has ended."""
        return self._told.get(group)

    def begin_told(self, group: tuple[str, ...]) -> Told:
        """Return the same, create it if there is none, and mark it as the most recently used."""
        found = self._told.pop(group, None)
        if found is None:
            all_groups = self._touched(((), 0), None)
            found = Told(self._touched((group, 0), all_groups) if group else all_groups)
        self._told[group] = found
        if len(self._told) > GROUPS_KEPT:
            del self._told[next(iter(self._told))]
        return found

    def _touched(self, key: GroupStage, base: Durations | None) -> Durations:
        """Return the durations of a group, create them if needed, and mark them as the most recently used."""
        # A dict keeps the order of insertion: the key is moved to the end, and the first one is the oldest.
        known = self._known
        found = known.pop(key, None) or Durations(base)
        known[key] = found
        if len(known) > GROUPS_KEPT:
            del known[next(iter(known))]
        return found


def _chance_between(known: Durations, since: float, after: float, by: float) -> float:
    """Return the probability, at the age `since`, that the run ends between two later ages."""
    return max(known.chance(since, by) - known.chance(since, after), LEAST_FORETOLD)
