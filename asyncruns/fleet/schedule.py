"""Decides which runs are polled next. No I/O, no clock: the caller passes the time, and `plan(now)` returns what to do.

Theory of operation. A poll goes through these stages::

    PLANNED    it has a time, in a heap
    DUE        its time has come; it waits for its turn in one of 8 levels, by how much it is worth now
    IN FLIGHT  it was sent; the run's lifecycle plans the next one when the response arrives

A plan sends, as far as the budget allows: submits and cancels, in the order in which they were added; then polls, from
the highest level down, and within a level the first to enter goes first. The longer a poll is due, the more it is
worth (see `ranks.py`), and waiting alone leads to the highest level, so no run waits for ever. The times at which polls
rise are in a second heap. A third one holds the ticks, the times at which a lifecycle wants to be woken, for a
deadline, say.

For example, 20 requests per second are allowed, and 30 polls are due. They are ranked: 5 are on level 6, 25 on level 3.
The first plan sends one poll of level 6; the next plan, about 50 ms later, sends another. After a quarter of a second
the 25 others have their turns, unless polls that came due since are worth more.

If all due polls may be sent at once, which is the usual case, they are not ranked: they go in the order in which they
came due, and this costs almost nothing.

Entries of a heap are never searched for or removed. To change a time, another entry is added; an entry that no longer
agrees with its run is stale, and dropped when it comes up.
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

LEVELS: Final = 8  # 7 is the highest; `ranks.py` defines what each is worth
NEW: Final = LEVELS  # the level of due polls that are not ranked yet; it does not mean the highest
RUNS_AT_ONCE: Final = 256  # runs that one plan wakes, makes due, ranks or raises, at some microseconds each


class Slot:
    """A run, as the schedule sees it. A subclass ranks its polls and makes its requests.

    Attributes:
        poll_at: When the next poll is due; infinity if none is planned. Unchanged while the poll is due; infinity while
            it is in flight, unless the next one is planned already.
        tick_at: When the machine wants to be woken; infinity for never.
        level: The level on which its poll is due, from 0, or NEW; -1 if no poll is due.
        is_polling: Whether a poll is in flight.
        generation: Number of times that polls were discarded. A response to a poll that was sent in an earlier
            generation must not be used.
        number: The number of the run in the schedule, from 1; 0 if it never was in one.
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
        """Discard the response to the poll in flight, so that another poll may be sent."""
        self.generation += 1
        self.is_polling = False

    def rank(self, now: float) -> int:
        """Return the level of a due poll now, from 0 to LEVELS - 1."""
        raise NotImplementedError

    def rises_at(self, level: int) -> float:
        """Return when a due poll reaches a level, at the latest; infinity for never."""
        raise NotImplementedError


S = TypeVar("S", bound=Slot)


class Plan(Struct, Generic[S], gc=False):
    """What to do now.

    Attributes:
        ticks: Runs to wake. If there are any, the plan sends nothing: waking them may change the schedule.
        changes: Submits and cancels to send, as they were added.
        polls: Runs to poll.
        wake_at: When to plan again, unless something changes before; if that is not after now, at once.
    """

    ticks: list[S]
    changes: list[tuple[S, Any]]
    polls: list[S]
    wake_at: float


class Schedule(Generic[S]):
    """The runs of a fleet, and the requests to send for them."""

    def __init__(self, budget: Budget) -> None:
        self.budget: Budget = budget
        self._slots: dict[int, S] = {}
        self._count = 0
        # The functions return whether an entry is still valid. A due poll has come up already, and while a poll is in
        # flight the next one has no entry: `landed` adds it.
        self._polls: _Times[S] = _Times(
            self._slots, lambda slot, at: slot.poll_at == at and slot.level < 0 and not slot.is_polling
        )
        self._ticks: _Times[S] = _Times(self._slots, lambda slot, at: slot.tick_at == at)
        self._rises: _Times[S] = _Times(self._slots, lambda slot, at: slot._rises_at == at and slot.level >= 0)
        # Do not use plain dicts: one that is emptied from its front searches through all removed entries each time.
        self._levels: tuple[OrderedDict[S, None], ...] = tuple(OrderedDict() for _ in range(LEVELS + 1))
        self._ranked = 0  # due polls on all levels but NEW
        self._served = 0  # the level of the last poll that was sent; polls need not rise to levels below it
        self._changes: deque[tuple[S, Any]] = deque()

    # What the members want

    def poll(self, slot: S, at: float) -> None:
        """Plan the next poll of a run, instead of any planned before; infinity for none."""
        if slot.level >= 0:
            self._leave(slot)
        self._know(slot)
        slot.poll_at = at
        if not slot.is_polling:
            self._polls.add(at, slot)

    def tick(self, slot: S, at: float) -> None:
        """Plan the next tick of a run, instead of any planned before; infinity for none."""
        self._know(slot)
        slot.tick_at = at
        self._ticks.add(at, slot)

    def change(self, slot: S, job: Any) -> None:
        """Queue a submit or a cancel of a run; these go before all polls."""
        self._changes.append((slot, job))

    def remove(self, slot: S) -> None:
        """Forget the polls and ticks of a run; its queued submits and cancels are still sent."""
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
        """Note that a request of a run is no longer in flight.

        Args:
            slot: The run.
            was_poll: Whether it was a poll that was not discarded.
        """
        self.budget.landed()
        if was_poll:
            slot.is_polling = False
            # Its next poll may have been planned while this one was in flight; such an entry did not count until now.
            self._polls.add(slot.poll_at, slot)

    # Planning

    def plan(self, now: float, at_most: int) -> Plan[S]:
        """Return what to do now; the requests in the plan count as sent from here on.

        Args:
            now: The time.
            at_most: The most requests in this plan.
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
            # Every request takes from the budget, so its rate and its places are checked again before the next one.
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
        """Rank the due polls, unless all of them can be sent now."""
        new = self._levels[NEW]
        # With a finite rate, a plan may send one poll only, so of two due polls it matters which is worth more.
        if not self._ranked and len(new) <= (room if self.budget.rate == math.inf else 1):
            self._served = 0
            return
        for slot in list(itertools.islice(new, RUNS_AT_ONCE)):
            self._leave(slot)
            self._enter(slot, min(max(slot.rank(now), 0), LEVELS - 1))
        # Collected first: entering a level adds entries to the heap that `until` takes from.
        rising: list[S] = []
        for slot in self._rises.until(now):
            slot._rises_at = math.inf
            rising.append(slot)
        for slot in rising:
            # Up at least one level, even if rounding gives the old rank again; otherwise this could repeat for ever.
            level = min(max(slot.rank(now), slot.level + 1), LEVELS - 1)
            self._leave(slot)
            self._enter(slot, level)

    def _best(self) -> S:
        """Return the run whose poll is worth most; at least one poll must be due."""
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
        # A poll that is below the level being served has no turn before it reaches that level. So it needs no entry for
        # each level between: with polls of level 6 being served, one on level 2 rises next when it is worth level 6.
        if level < LEVELS - 1:
            slot._rises_at = slot.rises_at(max(level + 1, self._served))
            self._rises.add(slot._rises_at, slot)

    def _leave(self, slot: S) -> None:
        del self._levels[slot.level][slot]
        self._ranked -= slot.level != NEW
        slot.level = -1
        slot._rises_at = math.inf

    def _wake_at(self, now: float) -> float:
        """Return when the next thing is to be done, unless a response comes first."""
        at = self._ticks.first()
        if self._changes or self.due:  # other polls that come due do not change what is sent next
            # Without a free place nothing can be sent until a response arrives, and then the caller plans again.
            has_place = self.budget.places(for_poll=not self._changes)
            return min(at, max(self.budget.ready_at(now), now)) if has_place else at
        return min(at, self._polls.first())

    # State

    @property
    def due(self) -> int:
        """Number of polls that are due and wait for their turn."""
        return self._ranked + len(self._levels[NEW])

    @property
    def changes(self) -> int:
        """Number of submits and cancels that wait for their turn."""
        return len(self._changes)

    def before(self, slot: S) -> int:
        """Return how many requests go before the poll of this run, as things stand; the poll must be due."""
        higher = self._ranked if slot.level == NEW else sum(map(len, self._levels[slot.level + 1 : LEVELS]))
        place = next(place for place, other in enumerate(self._levels[slot.level]) if other is slot)
        return self.changes + higher + place

    def waiting(self) -> Iterator[S]:
        """Yield the runs whose polls are due."""
        for level in self._levels:
            yield from level


class _Times(Generic[S]):
    """A heap of runs by time, earliest first; of the same time, the run comes first that the schedule knew first.

    An entry holds the number of a run, not the run: tuples of numbers are not scanned by the garbage collector, which
    matters with ten thousand entries.

    Args:
        slots: The runs by their numbers.
        holds: Returns whether an entry for a run at a time is valid; stale entries are skipped.
    """

    def __init__(self, slots: dict[int, S], holds: Callable[[S, float], bool]) -> None:
        self._slots = slots
        self._holds = holds
        self._heap: list[tuple[float, int]] = []
        self._tidy_at = 64

    def add(self, at: float, slot: S) -> None:
        """Add an entry for a run; infinity adds none."""
        if at == math.inf:
            return
        heapq.heappush(self._heap, (at, slot.number))
        # Without this, a run whose poll is moved a thousand times would leave a thousand stale entries. The heap is
        # tidied when it has twice the valid entries of last time, so the cost per entry stays constant.
        if len(self._heap) >= self._tidy_at:
            # A sorted list is a valid heap.
            self._heap = sorted({entry for entry in self._heap if self._is_new(*entry)})
            self._tidy_at = max(2 * len(self._heap), 64)

    def until(self, now: float) -> Iterator[S]:
        """Yield the runs whose time has come, at most as many as one plan takes, and remove their entries.

        The caller must make any other entry with the same time stale before it takes the next run, by changing this
        run's time or level; otherwise the run may come up twice.
        """
        for _ in range(RUNS_AT_ONCE):
            if self.first() > now:
                return
            yield self._slots[heapq.heappop(self._heap)[1]]

    def first(self) -> float:
        """Return the earliest time of a valid entry, or infinity."""
        while self._heap and not self._is_new(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def _is_new(self, at: float, number: int) -> bool:
        slot = self._slots.get(number)
        return slot is not None and self._holds(slot, at)
