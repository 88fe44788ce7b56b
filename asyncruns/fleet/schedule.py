"""Which run is asked next: sans-I/O; the shell tells the time, `plan(now)` says what to do.

Theory of operation. Each run has the time of its next look and that of its next tick. One heap holds, for each run, the
time when something about it changes; entries that are old are found so when they come up. A look whose time has come
waits in one of some levels. The level says how much the look is worth, and a run rises from one to the next while it
waits: that, too, is a time in the heap. What is sent, as the budget allows: submits and cancels, in their order; then
looks from the highest level down, in their order. Waiting alone leads to the highest level, so no run waits for ever.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from asyncruns.fleet.budget import Budget

LEVELS: Final = 8
WOKEN_AT_ONCE: Final = 500  # in one plan, of some hundredths of a millisecond each: after a laptop's sleep all are due


class Slot:
    """A run, as the schedule knows it. What is asked for it is a subclass's matter.

    Attributes:
        look_at: When the next look is due; infinity for none.
        tick_at: When the machine wants to be woken; infinity for never.
        level: Where its look waits, from 0; -1 where it does not wait.
        is_looking: Whether a look is on its way.
    """

    __slots__ = ("_at", "is_looking", "level", "look_at", "tick_at")

    def __init__(self) -> None:
        self.look_at = math.inf
        self.tick_at = math.inf
        self.level = -1
        self.is_looking = False
        self._at = math.inf  # of its newest entry in the heap

    def rank(self, now: float) -> tuple[int, float]:
        """Say how much a look that is due is worth now, from 0 to LEVELS - 1, and when that grows, or infinity."""
        raise NotImplementedError


S = TypeVar("S", bound=Slot)


class Plan(Struct, Generic[S], gc=False):
    """What to do now.

    Attributes:
        ticks: Runs to be woken. When there are any, nothing is to be sent before the next plan: they may change it.
        changes: Submits and cancels to send, as they were added.
        looks: Runs to look at.
        wake_at: When to plan again, unless something changes before; at once, where that is not after now.
    """

    ticks: list[S]
    changes: list[tuple[S, Any]]
    looks: list[S]
    wake_at: float


class Schedule(Generic[S]):
    """The runs of a fleet, and what is to be sent for them."""

    def __init__(self, budget: Budget) -> None:
        self.budget: Budget = budget
        self._heap: list[tuple[float, int, S]] = []
        self._count = 0
        # A plain dict, taken from at its front again and again, looks through all that was there before.
        self._levels: tuple[OrderedDict[S, None], ...] = tuple(OrderedDict() for _ in range(LEVELS))
        self._changes: deque[tuple[S, Any]] = deque()

    # What is wanted

    def look(self, slot: S, at: float) -> None:
        """Have this run looked at, at this time instead of another that was given before; infinity for not."""
        if slot.level >= 0:
            self._leave(slot)
        slot.look_at = at
        if not slot.is_looking:
            self._expect(slot, at)

    def tick(self, slot: S, at: float) -> None:
        """Have this run woken at this time instead of another that was given before; infinity for not."""
        slot.tick_at = at
        self._expect(slot, at)

    def change(self, slot: S, job: Any) -> None:
        """Have this sent for the run, before all looks."""
        self._changes.append((slot, job))

    def remove(self, slot: S) -> None:
        """Forget the looks and ticks of a run; changes that are not sent yet stay."""
        if slot.level >= 0:
            self._leave(slot)
        slot.look_at = slot.tick_at = slot._at = math.inf

    def landed(self, slot: S, *, was_look: bool) -> None:
        """Note that a request of this run was answered, or given up."""
        self.budget.landed()
        if was_look:
            slot.is_looking = False
            self._expect(slot, slot.look_at)

    # What to do

    def plan(self, now: float, at_most: int) -> Plan[S]:
        """Say what to do now; what is to be sent counts as sent.

        Args:
            now: The time.
            at_most: So many requests in this plan.
        """
        ticks = self._wake(now)
        if ticks:
            return Plan(ticks, [], [], now)
        changes: list[tuple[S, Any]] = []
        looks: list[S] = []
        while len(changes) + len(looks) < at_most and self.budget.ready_at(now) <= now:
            if self._changes:
                if not self.budget.places(for_look=False):
                    break
                changes.append(self._changes.popleft())
            elif (slot := self._best()) is not None and self.budget.places(for_look=True):
                self._leave(slot)
                slot.look_at, slot.is_looking = math.inf, True
                looks.append(slot)
            else:
                break
            self.budget.take(now)
        return Plan([], changes, looks, self._wake_at(now))

    def _wake(self, now: float) -> list[S]:
        """Take what is due from the heap: looks begin to wait or rise, ticks are given."""
        ticks: list[S] = []
        for _ in range(WOKEN_AT_ONCE):
            if not self._heap or self._heap[0][0] > now:
                break
            at, _, slot = heapq.heappop(self._heap)
            if at != slot._at:
                continue
            slot._at = math.inf
            if slot.tick_at <= now:
                slot.tick_at = math.inf
                ticks.append(slot)
            rises_at = math.inf
            if slot.look_at <= now and not slot.is_looking:
                rises_at = self._rise(slot, now)
            elif not slot.is_looking:
                rises_at = slot.look_at
            self._expect(slot, min(rises_at, slot.tick_at))
        return ticks

    def _rise(self, slot: S, now: float) -> float:
        level, rises_at = slot.rank(now)
        level = min(max(level, slot.level, 0), LEVELS - 1)
        if level != slot.level:
            if slot.level >= 0:
                self._leave(slot)
            slot.level = level
            self._levels[level][slot] = None
        return max(rises_at, math.nextafter(now, math.inf))

    def _leave(self, slot: S) -> None:
        del self._levels[slot.level][slot]
        slot.level = -1

    def _best(self) -> S | None:
        for level in reversed(self._levels):
            if level:
                return next(iter(level))
        return None

    def _expect(self, slot: S, at: float) -> None:
        """See to it that the run comes up at this time at the latest."""
        if at < slot._at:
            slot._at = at
            self._count += 1
            heapq.heappush(self._heap, (at, self._count, slot))
            if self._count % 4096 == 0:
                self._tidy()

    def _tidy(self) -> None:
        """Drop old entries, where they are most.

        A run leaves some: with each look before its tick another entry for the tick, and its last ones when it goes.
        """
        newest = {entry[2]: entry for entry in self._heap if entry[0] == entry[2]._at}
        if len(newest) < len(self._heap) // 2:
            self._heap = list(newest.values())
            heapq.heapify(self._heap)

    def _wake_at(self, now: float) -> float:
        """Say when something is to be done, as far as that does not hang on an answer."""
        at = self._heap[0][0] if self._heap else math.inf
        has_place = self.budget.places(for_look=not self._changes)
        if has_place and (self._changes or self._best() is not None):
            at = min(at, max(self.budget.ready_at(now), now))
        return at

    # What there is

    @property
    def due(self) -> int:
        """How many looks wait for their turn."""
        return sum(map(len, self._levels))

    @property
    def changes(self) -> int:
        """How many submits and cancels wait for their turn."""
        return len(self._changes)

    def before(self, slot: S) -> int:
        """How many requests go before the look of this run, which waits."""
        higher = sum(len(level) for level in self._levels[slot.level + 1 :])
        return (
            self.changes + higher + next(place for place, other in enumerate(self._levels[slot.level]) if other is slot)
        )

    def waiting(self) -> Iterator[S]:
        """Give the runs whose looks wait, those that are worth most first."""
        for level in reversed(self._levels):
            yield from level
