"""Which run is asked next: sans-I/O; the shell tells the time, `plan(now)` says what to do.

Theory of operation. Each run has the time of its next poll, and that of its next tick, each in a heap. A poll that has
come due waits, in one of some levels: the level says how much the poll is worth, and a run rises while it waits, at
times that are in a third heap. Only when there are more polls than may be sent are they ranked at all. What is sent, as
the budget allows: submits and cancels, in their order; then polls from the highest level down, in their order. Waiting
alone leads to the highest level, so no run waits for ever.

Entries of a heap are never searched for: one that does not say any more what its run says is dropped when it comes up.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from asyncruns.fleet.budget import Budget

LEVELS: Final = 8
NEW: Final = LEVELS  # the level of polls that are due and were not ranked yet
RUNS_AT_ONCE: Final = 256  # so many runs are woken, ranked or raised in one plan: of some microseconds each


class Slot:
    """A run, as the schedule knows it. What is asked for it is a subclass's matter.

    Attributes:
        poll_at: When the next poll is due; infinity for none.
        tick_at: When the machine wants to be woken; infinity for never.
        level: Where its poll waits, from 0, or NEW; -1 where it does not wait.
        is_polling: Whether a poll is on its way.
        generation: Of its polls; another begins when the poll in flight is discarded.
        number: Of the schedule, while that knows the run.
    """

    __slots__ = ("_rises_at", "generation", "is_polling", "level", "number", "poll_at", "tick_at")

    def __init__(self) -> None:
        self.poll_at: float = math.inf
        self.tick_at: float = math.inf
        self.level: int = -1
        self.is_polling: bool = False
        self.generation: int = 0
        self.number: int = 0
        self._rises_at = math.inf

    def discard_poll(self) -> None:
        """Note that the answer to the poll in flight is of no use any more, so that another poll may be sent."""
        self.generation += 1
        self.is_polling = False

    def rank(self, now: float) -> int:
        """Say how much a poll that is due is worth now, from 0 to LEVELS - 1."""
        raise NotImplementedError

    def rises_at(self, level: int) -> float:
        """Say when a poll that waits is worth that much, at the latest; infinity for never."""
        raise NotImplementedError


S = TypeVar("S", bound=Slot)


class Plan(Struct, Generic[S], gc=False):
    """What to do now.

    Attributes:
        ticks: Runs to be woken. When there are any, nothing is to be sent before the next plan: they may change it.
        changes: Submits and cancels to send, as they were added.
        polls: Runs to poll.
        wake_at: When to plan again, unless something changes before; at once, where that is not after now.
    """

    ticks: list[S]
    changes: list[tuple[S, Any]]
    polls: list[S]
    wake_at: float


class Schedule(Generic[S]):
    """The runs of a fleet, and what is to be sent for them."""

    def __init__(self, budget: Budget) -> None:
        self.budget: Budget = budget
        self._slots: dict[int, S] = {}
        self._count = 0
        self._polls: _Times[S] = _Times(
            self._slots, lambda slot, at: slot.poll_at == at and slot.level < 0 and not slot.is_polling
        )
        self._ticks: _Times[S] = _Times(self._slots, lambda slot, at: slot.tick_at == at)
        self._rises: _Times[S] = _Times(self._slots, lambda slot, at: slot._rises_at == at and slot.level >= 0)
        # A plain dict, taken from at its front again and again, looks through all that was there before.
        self._levels: tuple[OrderedDict[S, None], ...] = tuple(OrderedDict() for _ in range(LEVELS + 1))
        self._ranked = 0
        self._served = 0  # the level that was come to last: it is no use to raise polls to those below
        self._changes: deque[tuple[S, Any]] = deque()

    # What is wanted

    def poll(self, slot: S, at: float) -> None:
        """Have this run polled, at this time instead of another that was given before; infinity for not."""
        if slot.level >= 0:
            self._leave(slot)
        self._know(slot)
        slot.poll_at = at
        if not slot.is_polling:
            self._polls.add(at, slot)

    def tick(self, slot: S, at: float) -> None:
        """Have this run woken at this time instead of another that was given before; infinity for not."""
        self._know(slot)
        slot.tick_at = at
        self._ticks.add(at, slot)

    def change(self, slot: S, job: Any) -> None:
        """Have this sent for the run, before all polls."""
        self._changes.append((slot, job))

    def remove(self, slot: S) -> None:
        """Forget the polls and ticks of a run; changes that are not sent yet stay."""
        if slot.level >= 0:
            self._leave(slot)
        slot.poll_at = slot.tick_at = math.inf
        self._slots.pop(slot.number, None)

    def _know(self, slot: S) -> None:
        if slot.number not in self._slots:
            self._count += 1
            slot.number = self._count
            self._slots[self._count] = slot

    def landed(self, slot: S, *, was_poll: bool) -> None:
        """Note that a request of this run was answered, or given up."""
        self.budget.landed()
        if was_poll:
            slot.is_polling = False
            self._polls.add(slot.poll_at, slot)

    # What to do

    def plan(self, now: float, at_most: int) -> Plan[S]:
        """Say what to do now; what is to be sent counts as sent.

        Args:
            now: The time.
            at_most: So many requests in this plan.
        """
        ticks: list[S] = []
        for slot in self._ticks.until(now):
            slot.tick_at = math.inf
            ticks.append(slot)
        for slot in self._polls.until(now):
            self._enter(slot, NEW)
        changes: list[tuple[S, Any]] = []
        polls: list[S] = []
        while not ticks and len(changes) + len(polls) < at_most and self.budget.ready_at(now) <= now:
            if self._changes:
                if not self.budget.places(for_poll=False):
                    break
                changes.append(self._changes.popleft())
            elif self.due and (room := self.budget.places(for_poll=True)):
                if not polls:
                    self._order(now, min(room, at_most - len(changes)))
                slot = self._best()
                self._leave(slot)
                slot.poll_at, slot.is_polling = math.inf, True
                polls.append(slot)
            else:
                break
            self.budget.take(now)
        return Plan(ticks, changes, polls, now if ticks else self._wake_at(now))

    def _order(self, now: float, room: int) -> None:
        """Rank the polls that wait, unless all will have their turn now."""
        new = self._levels[NEW]
        if not self._ranked and len(new) <= (room if self.budget.rate == math.inf else 1):
            self._served = 0
            return
        for slot in list(itertools.islice(new, RUNS_AT_ONCE)):
            self._leave(slot)
            self._enter(slot, min(max(slot.rank(now), 0), LEVELS - 1))
        rising: list[S] = []
        for slot in self._rises.until(now):
            slot._rises_at = math.inf
            rising.append(slot)
        for slot in rising:
            level = min(max(slot.rank(now), slot.level + 1), LEVELS - 1)
            self._leave(slot)
            self._enter(slot, level)

    def _best(self) -> S:
        """Give the run whose poll is worth most; some wait."""
        if not self._ranked:
            return next(iter(self._levels[NEW]))
        self._served = max(level for level in range(LEVELS) if self._levels[level])
        return next(iter(self._levels[self._served]))

    def _enter(self, slot: S, level: int) -> None:
        slot.level = level
        self._levels[level][slot] = None
        if level == NEW:
            return
        self._ranked += 1
        if level < LEVELS - 1:
            slot._rises_at = slot.rises_at(max(level + 1, self._served))
            self._rises.add(slot._rises_at, slot)

    def _leave(self, slot: S) -> None:
        del self._levels[slot.level][slot]
        self._ranked -= slot.level != NEW
        slot.level = -1
        slot._rises_at = math.inf

    def _wake_at(self, now: float) -> float:
        """Say when something is to be done, as far as that does not hang on an answer."""
        at = self._ticks.first()
        if self._changes or self.due:  # other polls that come due change nothing
            has_place = self.budget.places(for_poll=not self._changes)
            return min(at, max(self.budget.ready_at(now), now)) if has_place else at
        return min(at, self._polls.first())

    # What there is

    @property
    def due(self) -> int:
        """How many polls wait for their turn."""
        return self._ranked + len(self._levels[NEW])

    @property
    def changes(self) -> int:
        """How many submits and cancels wait for their turn."""
        return len(self._changes)

    def before(self, slot: S) -> int:
        """How many requests go before the poll of this run, which waits, as it stands."""
        higher = self._ranked if slot.level == NEW else sum(map(len, self._levels[slot.level + 1 : LEVELS]))
        place = next(place for place, other in enumerate(self._levels[slot.level]) if other is slot)
        return self.changes + higher + place

    def waiting(self) -> Iterator[S]:
        """Give the runs whose polls wait."""
        for level in self._levels:
            yield from level


class _Times(Generic[S]):
    """Runs by a time, the next one first; those of the same time in the order in which they were first known.

    An entry holds no object, but the number of one, as the garbage collector would go through ten thousand of them.

    Args:
        slots: The runs by their numbers.
        holds: Whether an entry is not old.
    """

    def __init__(self, slots: dict[int, S], holds: Callable[[S, float], bool]) -> None:
        self._slots = slots
        self._holds = holds
        self._heap: list[tuple[float, int]] = []
        self._tidy_at = 64

    def add(self, at: float, slot: S) -> None:
        """Let a run come up at a time; infinity for not."""
        if at == math.inf:
            return
        heapq.heappush(self._heap, (at, slot.number))
        if len(self._heap) >= self._tidy_at:
            self._heap = sorted({entry for entry in self._heap if self._is_new(*entry)})
            self._tidy_at = max(2 * len(self._heap), 64)

    def until(self, now: float) -> Iterator[S]:
        """Take those whose time has come, as many as one plan takes; they are to be changed at once."""
        for _ in range(RUNS_AT_ONCE):
            if self.first() > now:
                return
            yield self._slots[heapq.heappop(self._heap)[1]]

    def first(self) -> float:
        """Give the next time, or infinity."""
        while self._heap and not self._is_new(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def _is_new(self, at: float, number: int) -> bool:
        slot = self._slots.get(number)
        return slot is not None and self._holds(slot, at)
