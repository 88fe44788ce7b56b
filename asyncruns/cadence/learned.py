"""The cadence that learns how long runs take, and looks when they are likely to end.

It keeps the durations of each group and stage, and of all groups together, from which a new group begins. Groups of
which no run has ended for the longest are forgotten: what is kept is bounded, whatever names come.
"""

from __future__ import annotations

from typing import Final

from msgspec import field

from asyncruns.cadence.base import Cadence, Course
from asyncruns.cadence.durations import Durations
from asyncruns.cadence.grid import END_S
from asyncruns.cadence.late import Late, Told

GROUPS_KEPT: Final = 64  # each has 22 KB, and as much again where runs are said to be older than their watch

Key = tuple[tuple[str, ...], int]


class Learned(Cadence, frozen=True, kw_only=True, gc=False, eq=False):
    """Pauses by how long runs of the group took.

    Attributes:
        poll_worth: How many seconds of delay one look may cost.
        floor: The shortest pause in seconds.
        ceiling: The longest pause in seconds.
    """

    poll_worth: float
    floor: float
    ceiling: float
    _known: dict[Key, Durations] = field(default_factory=dict)
    _told: dict[tuple[str, ...], Told] = field(default_factory=dict)
    _usual: Durations = field(default_factory=Durations)

    def late(self, unseen: float) -> Cadence:
        """Return the view for a run that was so many seconds old when its watch began, as the server's clock says."""
        return Late(cadence=self, unseen=unseen)

    def pause(self, course: Course) -> float:
        """Give the pause after a look at the age `course.age`; a server's hint is the least pause."""
        return self.heeding(self.pause_of(self.durations(course.group, course.stage), course.age), course.hint)

    def pause_of(self, known: Durations, age: float) -> float:
        """Return the pause at an age by these durations, between floor and ceiling."""
        if age < END_S:
            return min(max(self.floor, known.pause(max(0.0, age), self.poll_worth, self.floor)), self.ceiling)
        return self.ceiling

    def heeding(self, pause: float, hint: float | None) -> float:
        """Return the pause, or the server's hint where that is longer."""
        return pause if hint is None or not hint > pause else min(hint, self.ceiling)

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

    def delay(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> float:
        """Give for how many seconds a run still in the stage at the age `after` is expected to have left it by `by`."""
        return self.durations(group, stage).delay(after, by)

    def age_of_delay(self, group: tuple[str, ...], stage: int, *, after: float, delay: float) -> float:
        """Give the age at which `delay` gives so much."""
        return self.durations(group, stage).age_of_delay(after, delay)

    def chance(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> float:
        """Give the probability that a run still in the stage at the age `after` has left it by the age `by`."""
        return self.durations(group, stage).chance(after, by)

    def age_at(self, group: tuple[str, ...], stage: int, *, after: float, chance: float) -> float:
        """Give the age at which a run still in the stage at the age `after` has left it with that probability."""
        return self.durations(group, stage).age_at(after, chance)

    def __repr__(self) -> str:
        known = self._known
        groups = len({group for group, _ in known if group})
        runs = sum(durations.runs for (group, _), durations in known.items() if not group)
        return (
            f"<Cadence.learned poll_worth={self.poll_worth} floor={self.floor} ceiling={self.ceiling}"
            f" groups={groups} runs={runs}>"
        )

    def durations(self, group: tuple[str, ...], stage: int) -> Durations:
        """Find what is known of a group; else of all; else what is usual."""
        known = self._known
        found = known.get((group, stage))
        if found is None:
            found = known.get(((), stage), self._usual)
            found.catch_up()
        return found

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

    def _touched(self, key: Key, base: Durations | None) -> Durations:
        """Find or begin the durations of a group, as the one that is forgotten last."""
        known = self._known
        found = known.pop(key, None) or Durations(base)
        known[key] = found
        if len(known) > GROUPS_KEPT:
            del known[next(iter(known))]
        return found
