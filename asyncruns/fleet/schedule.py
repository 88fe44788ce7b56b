"""Decides which runs are polled next. No I/O, no clock: the caller passes the time, and `plan(now)` returns what to do.

Theory of operation. A poll goes through these stages::

    PLANNED    it has a time, in a heap
    DUE        its time has come; if not all due polls may be sent now, it gets a turn, in a second heap
    IN FLIGHT  it was sent; the run's lifecycle plans the next one when the response arrives

A plan sends, as far as the budget allows: submits and cancels, in the order in which they were added; then polls, those
with the earliest turn first, alternating with *permits*, in the order in which they were asked for. A permit is for one
request that is not planned here, such as a create: ten thousand of them do not hold up the polls, nor the reverse.
Since a create may take long, permits take more than half of the places in flight only while no poll is due.

The longer a poll is due, the more it is worth: the delay that it ends, which is how long the run is expected to have
been over, grows. To send first what is worth most, one would have to compute all delays again and again. Instead, the
turn of a poll is computed once, when it comes due: the time at which its delay reaches the *bar*, the median delay of
the polls that are being sent, or the run's expiry if that is earlier. A turn is at most 2 s before the time at which
the poll came due, however much that is worth, and at most an hour away, however little. So a crowd of polls that keep
coming back does not make another one wait for ever: those that come due 2 s after its turn go after it.

For example, 20 requests per second are allowed, 30 polls are due, and half of the polls that are sent end a delay of
more than 0.5 s. One run will probably have been over for 0.5 s at 10:00:03, so that is its turn. Another one probably
was at 09:59:58 already, but its poll came due at 10:00:01, so its turn is 09:59:59: it is polled before.

A poll may show other runs as well, if their server has a list. Then those are in flight with it, as its *companions*:
they are not due, and need no request of their own.

If all due polls may be sent at once, which is the usual case, they get no turns: they go in the order in which they
came due, and this costs almost nothing.

To change a time, another entry is added; the old one is not searched for. An entry that no longer agrees with its run
is stale, and dropped when it comes up or when the heap is tidied.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar, cast

from msgspec import Struct

from asyncruns.fleet.budget import Budget

RUNS_AT_ONCE: Final = 256  # runs that one plan wakes, makes due, or gives a turn, at some microseconds each
MEASURED: Final = 0.25  # the share of the polls that are sent whose delays are measured for the bar
BAR_STEP: Final = 1.05  # by which each of them raises or lowers the bar: as many do one as the other at the median
LEAST_BAR_S: Final = 0.001
LEAD_S: Final = 2.0  # by which a turn may be before the time at which the poll came due
LATEST_TURN_S: Final = 3600.0  # by which it may be after the time at which it is computed


class Slot:
    """A run, as the schedule sees it. A subclass says what its polls are worth, and makes its requests.

    Attributes:
        poll_at: When the next poll is due; infinity if none is planned. While the poll is due, when it came due;
            infinity while it is in flight, unless the next one is planned already.
        tick_at: When the machine wants to be woken; infinity for never.
        is_due: Whether a poll is due, and waits for its turn.
        is_polling: Whether a poll is in flight.
        generation: Number of times that polls were discarded. A response to a poll that was sent in an earlier
            generation must not be used.
        number: The number of the run in the schedule, from 1; 0 if it never was in one.
    """

    __slots__ = ("_comes_at", "_turn_at", "generation", "is_due", "is_polling", "number", "poll_at", "tick_at")

    def __init__(self) -> None:
        self.poll_at: float = math.inf
        self.tick_at: float = math.inf
        self.is_due: bool = False
        self.is_polling: bool = False
        self.generation: int = 0
        self.number: int = 0
        self._comes_at = math.inf  # `poll_at` while a poll is planned but not due; otherwise infinity
        self._turn_at = math.inf  # the turn of a due poll; infinity if it has none

    def discard_poll(self) -> None:
        """Discard the response to the poll in flight, so that another poll may be sent."""
        self.generation += 1
        self.is_polling = False

    def companions(self, now: float) -> Iterable[Slot]:
        """Return the runs that the poll of this run, which is sent now, is expected to show besides."""
        return ()

    def delay(self, now: float) -> float:
        """Return the delay that a poll now is expected to end, in seconds."""
        raise NotImplementedError

    def delayed_at(self, delay: float) -> float:
        """Return when a poll will end a delay of so many seconds; or, if that is earlier, when the run expires."""
        raise NotImplementedError


S = TypeVar("S", bound=Slot)


class Plan(Struct, Generic[S], gc=False):
    """What to do now.

    Attributes:
        ticks: Runs to wake. If there are any, the plan sends nothing: waking them may change the schedule.
        changes: Submits and cancels to send, as they were added.
        polls: Runs to poll.
        permits: Permits to grant, as they were asked for.
        wake_at: When to plan again, unless something changes before; if that is not after now, at once.
    """

    ticks: list[S]
    changes: list[tuple[S, Any]]
    polls: list[S]
    permits: list[Any]
    wake_at: float


class Schedule(Generic[S]):
    """The runs of a fleet, and the requests to send for them."""

    def __init__(self, budget: Budget) -> None:
        self.budget: Budget = budget
        self._slots: dict[int, S] = {}
        self._count = 0
        self._polls: _Times[S] = _Times(self._slots, "_comes_at")
        self._ticks: _Times[S] = _Times(self._slots, "tick_at")
        self._turns: _Times[S] = _Times(self._slots, "_turn_at")
        # The due polls without a turn. Not a plain dict: one that is emptied from its front searches through all
        # removed entries each time.
        self._new: OrderedDict[S, None] = OrderedDict()
        self._with_turn = 0  # number of due polls with a turn
        self._bar = LEAST_BAR_S  # about the median delay that the polls sent lately have ended, in seconds
        self._draw = random.Random(1)  # noqa: S311 - only picks polls to measure, so that no pattern of theirs matters
        self._changes: deque[tuple[S, Any]] = deque()
        self._permits: OrderedDict[Any, None] = OrderedDict()  # permits that are waited for
        self._permitted = 0  # number of requests in flight that have a permit
        self._permit_is_next = True  # whether a permit goes before the next poll

    # What the members want

    def poll(self, slot: S, at: float) -> None:
        """Plan the next poll of a run, instead of any planned before; infinity for none."""
        if slot.is_due:
            self._leave(slot)
        self._know(slot)
        slot.poll_at = at
        if not slot.is_polling:
            slot._comes_at = at
            if at < math.inf:
                self._polls.add(at, slot)

    def poll_first(self, slot: S, now: float) -> None:
        """Make a planned poll due now, before all others; if none is planned, or one is in flight, do nothing."""
        if slot.is_polling or slot.poll_at == math.inf:
            return
        if slot.is_due:
            self._leave(slot)
        slot.poll_at, slot.is_due = now, True
        slot._comes_at, slot._turn_at = math.inf, -math.inf
        self._turns.add(-math.inf, slot)
        self._with_turn += 1

    def tick(self, slot: S, at: float) -> None:
        """Plan the next tick of a run, instead of any planned before; infinity for none."""
        self._know(slot)
        slot.tick_at = at
        if at < math.inf:
            self._ticks.add(at, slot)

    def change(self, slot: S, job: Any) -> None:
        """Queue a submit or a cancel of a run; these go before all polls."""
        self._changes.append((slot, job))

    def permit(self, permit: Any) -> None:
        """Queue a permit for one request; these alternate with polls. It is any object, which the plan returns."""
        self._permits[permit] = None

    def withdraw(self, permit: Any) -> None:
        """Forget a permit that is not waited for any more; if it was granted, do nothing."""
        self._permits.pop(permit, None)

    def remove(self, slot: S) -> None:
        """Forget the polls and ticks of a run; its queued submits and cancels are still sent."""
        if slot.is_due:
            self._leave(slot)
        slot.poll_at = slot.tick_at = slot._comes_at = math.inf
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
            self.companion_landed(slot)

    def companion_landed(self, slot: S) -> None:
        """Note that the poll that was to show a run is no longer in flight; it was not discarded for this run."""
        slot.is_polling = False
        if slot.poll_at < math.inf:  # the next poll was planned while this one was in flight
            self.poll(slot, slot.poll_at)

    def permit_landed(self) -> None:
        """Note that a request that had a permit is no longer in flight."""
        self.budget.landed()
        self._permitted -= 1

    # Planning

    def plan(self, now: float, at_most: int) -> Plan[S]:
        """Return what to do now; the requests in the plan count as sent from here on.

        Args:
            now: The time.
            at_most: The most requests in this plan.
        """
        ticks = self._ticks.until(now)
        for slot in self._polls.until(now):
            slot.is_due = True
            self._new[slot] = None
        changes: list[tuple[S, Any]] = []
        polls: list[S] = []
        permits: list[Any] = []
        if not ticks:
            changes = self._send_changes(now, at_most)
            if not self._changes:
                self._send_others(now, at_most - len(changes), polls, permits)
        return Plan(ticks, changes, polls, permits, now if ticks else self._wake_at(now))

    def _send_changes(self, now: float, at_most: int) -> list[tuple[S, Any]]:
        """Return the submits and cancels that were added first, as many as may be sent now; these count as sent."""
        changes: list[tuple[S, Any]] = []
        room = min(self.budget.places(for_poll=False), at_most)
        while self._changes and len(changes) < room and self.budget.ready_at(now) <= now:
            changes.append(self._changes.popleft())
            self.budget.take(now)
        return changes

    def _send_others(self, now: float, at_most: int, polls: list[S], permits: list[Any]) -> None:
        """Add the runs whose polls are worth most, alternating with permits, as many as may be sent now.

        These count as sent.
        """
        room = min(self.budget.places(for_poll=True), at_most)
        if not room or not (self.due or self._permits) or self.budget.ready_at(now) > now:
            return
        self._set_turns(now, room)
        while len(polls) + len(permits) < room and (self.due or self._permits):
            if self._permits and self._sends_permit():
                permits.append(self._permits.popitem(last=False)[0])
                self._permitted += 1
            else:
                polls.append(self._send_next(now))
            self.budget.take(now)
            if self.budget.ready_at(now) > now:
                break

    def _sends_permit(self) -> bool:
        """Return whether the next request is one with a permit, not a poll; there must be a permit."""
        if not self.due:
            return True
        is_next = self._permit_is_next and 2 * self._permitted < self.budget.max_in_flight
        self._permit_is_next = not is_next
        return is_next

    def _set_turns(self, now: float, room: int) -> None:
        """Compute the turns of the due polls, unless all of them can be sent now."""
        # With a finite rate, or alternating with permits, a plan may send one poll only, so of two due polls it matters
        # which is worth more.
        sends_all = self.budget.rate == math.inf and not self._permits
        if not self._with_turn and len(self._new) <= (room if sends_all else 1):
            return
        latest = now + LATEST_TURN_S
        for _ in range(min(len(self._new), RUNS_AT_ONCE)):
            slot, _ = self._new.popitem(last=False)
            turn = slot.delayed_at(self._bar)
            slot._turn_at = max(slot.poll_at - LEAD_S, turn if turn < latest else latest)
            self._turns.add(slot._turn_at, slot)
            self._with_turn += 1

    def _send_next(self, now: float) -> S:
        if self._with_turn:
            slot = self._turns.take()
            self._with_turn -= 1
        else:
            slot, _ = self._new.popitem(last=False)
        slot.is_due = False
        slot.poll_at, slot.is_polling = math.inf, True
        for other in slot.companions(now):
            self._take_along(cast("S", other))
        if self._draw.random() < MEASURED:
            is_over = slot.delay(now) > self._bar
            self._bar = max(self._bar * (BAR_STEP if is_over else 1 / BAR_STEP), LEAST_BAR_S)
        return slot

    def _take_along(self, slot: S) -> None:
        if slot.is_due:
            self._leave(slot)
        slot.poll_at = slot._comes_at = math.inf
        slot.is_polling = True

    def _leave(self, slot: S) -> None:
        slot.is_due = False
        if slot in self._new:
            del self._new[slot]
        else:
            self._with_turn -= 1
            slot._turn_at = math.inf

    def _wake_at(self, now: float) -> float:
        """Return when the next thing is to be done, unless a response comes first."""
        at = self._ticks.first()
        if self._changes or self._permits or self.due:  # other polls that come due do not change what is sent next
            # Without a free place nothing can be sent until a response arrives, and then the caller plans again.
            has_place = self.budget.places(for_poll=not self._changes)
            return min(at, max(self.budget.ready_at(now), now)) if has_place else at
        return min(at, self._polls.first())

    # State

    @property
    def due(self) -> int:
        """Number of polls that are due and wait for their turn."""
        return self._with_turn + len(self._new)

    @property
    def changes(self) -> int:
        """Number of submits and cancels that wait for their turn."""
        return len(self._changes)

    @property
    def permits(self) -> int:
        """Number of permits that are waited for."""
        return len(self._permits)

    def before(self, slot: S) -> int:
        """Return how many requests go before the poll of this run, as things stand; the poll must be due."""
        if slot in self._new:
            place = self._with_turn + next(place for place, other in enumerate(self._new) if other is slot)
        else:
            turn = slot._turn_at, slot.number
            place = sum((other._turn_at, other.number) < turn for other in self.waiting())
        return self.changes + place + min(self.permits, place + self._permit_is_next)

    def waiting(self) -> Iterator[S]:
        """Yield the runs whose polls are due."""
        yield from self._turns.slots()
        yield from self._new


class _Times(Generic[S]):
    """A heap of runs by time, earliest first; at the same time, in the order in which the schedule learned of the runs.

    An entry holds the number of a run, not the run: tuples of numbers are not scanned by the garbage collector, which
    matters with ten thousand entries.

    Args:
        slots: The runs by their numbers.
        name: The name of the attribute that has the time of a run. An entry with another time is stale, and skipped.
            When a run is taken, its time becomes infinity.
    """

    def __init__(self, slots: dict[int, S], name: str) -> None:
        self._slots = slots
        self._name = name
        self._time_of = attrgetter(name)
        self._heap: list[tuple[float, int]] = []
        self._tidy_at = 64

    def add(self, at: float, slot: S) -> None:
        """Add an entry for a run; the time must not be infinity."""
        heapq.heappush(self._heap, (at, slot.number))
        # Without this, a run whose poll is moved a thousand times would leave a thousand stale entries. The heap is
        # tidied when it has twice the valid entries of last time, so the cost per entry stays constant.
        if len(self._heap) >= self._tidy_at:
            # A sorted list is a valid heap.
            self._heap = sorted({entry for entry in self._heap if self._is_new(*entry)})
            self._tidy_at = max(2 * len(self._heap), 64)

    def until(self, now: float) -> list[S]:
        """Take the runs whose time has come, at most as many as one plan takes."""
        taken: list[S] = []
        heap = self._heap
        while heap and heap[0][0] <= now and len(taken) < RUNS_AT_ONCE:
            at, number = heapq.heappop(heap)
            slot = self._slots.get(number)
            if slot is not None and self._time_of(slot) == at:
                setattr(slot, self._name, math.inf)
                taken.append(slot)
        return taken

    def first(self) -> float:
        """Return the earliest time of a valid entry, or infinity."""
        heap = self._heap
        while heap and not self._is_new(*heap[0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def take(self) -> S:
        """Take the run with the earliest time; there must be one."""
        self.first()
        slot = self._slots[heapq.heappop(self._heap)[1]]
        setattr(slot, self._name, math.inf)
        return slot

    def slots(self) -> Iterator[S]:
        """Yield the runs that have a valid entry, each once."""
        for _, number in {entry for entry in self._heap if self._is_new(*entry)}:
            yield self._slots[number]

    def _is_new(self, at: float, number: int) -> bool:
        slot = self._slots.get(number)
        return slot is not None and bool(self._time_of(slot) == at)
