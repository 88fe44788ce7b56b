"""The schedule, compared with a model without heaps: whatever happens, in any order, both plan the same."""

from __future__ import annotations

import copy
import itertools
import math
import random
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from windows import BEGIN, check_windows

from asyncruns.fleet import schedule as module
from asyncruns.fleet.budget import Budget
from asyncruns.fleet.schedule import (
    BAR_STEP,
    LATEST_TURN_S,
    LEAD_S,
    LEAST_BAR_S,
    MEASURED,
    RUNS_AT_ONCE,
    Plan,
    Schedule,
    Slot,
)
from asyncruns.http import RateLimit

MANY = 4096


class Run(Slot):
    """A run whose delay begins to grow `wait` seconds after its last poll, by `slope` in each second, until it expires.

    Attributes:
        since: When its last poll was planned to be due.
        asked: The bars for which its turn was asked.
        measured: Number of times that its delay was asked.
    """

    __slots__ = ("asked", "expiry", "measured", "name", "since", "slope", "wait")

    def __init__(self, name: int = 0, wait: float = 0.0, slope: float = 1.0, expiry: float = math.inf) -> None:
        super().__init__()
        self.name, self.wait, self.slope, self.expiry = name, wait, slope, expiry
        self.since = BEGIN
        self.asked: list[float] = []
        self.measured = 0

    def delay_at(self, now: float) -> float:
        return max(now - self.since - self.wait, 0.0) * self.slope

    def turn_at(self, bar: float) -> float:
        return min(self.since + self.wait + bar / self.slope, self.expiry)

    def delay(self, now: float) -> float:
        self.measured += 1
        return self.delay_at(now)

    def delayed_at(self, delay: float) -> float:
        self.asked.append(delay)
        return self.turn_at(delay)

    def __repr__(self) -> str:
        return f"<Run {self.name}>"


class Known:
    """The state of a run in the model."""

    def __init__(self) -> None:
        self.poll_at = math.inf
        self.tick_at = math.inf
        self.is_polling = False
        self.came = 0  # the number of the plan in which its poll came due; 0 if it is not due
        self.turn: float | None = None


PAUSES = st.one_of(
    st.sampled_from([0.0, 1e-9, 0.001, 0.02, 0.25, 1.0, 1.0, 2.0, 10.0, 900.0]), st.floats(0.0, 20.0, width=32)
)
AHEAD = st.one_of(PAUSES, st.sampled_from([-5.0, -1000.0, math.inf]))
WAITS = st.sampled_from([0.0, 0.05, 0.5, 0.5, 1.0, 4.0, 60.0, 600.0])
SLOPES = st.sampled_from([1.0, 1.0, 0.5, 0.1, 0.01])
EXPIRES_IN = st.sampled_from([math.inf, math.inf, 600.0, 5.0, -5.0])
INDEX = st.integers(0, 10**6)


class AnySchedule(RuleBasedStateMachine):
    """Its rules are what a fleet does with a schedule."""

    @initialize(
        rate=st.sampled_from([None, 0.5, 1.0, 3.0, 50.0, 200.0, 10_000.0]),
        max_in_flight=st.sampled_from([1, 2, 3, 10, 64]),
        at_once=st.sampled_from([1, 2, 5, RUNS_AT_ONCE]),
    )
    def begin(self, rate: float | None, max_in_flight: int, at_once: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "RUNS_AT_ONCE", at_once)
        self.at_once = at_once
        self.bar, self.draw = LEAST_BAR_S, random.Random(1)
        self.rate = rate
        self.max_in_flight = max_in_flight
        self.kept = 0 if max_in_flight == 1 else math.ceil(max_in_flight / 10)
        self.now = BEGIN
        self.schedule: Schedule[Run] = Schedule(Budget(rate, max_in_flight))
        self.runs: dict[Run, Known] = {}
        self.changes: list[tuple[Run, int]] = []
        self.permits: list[str] = []
        self.permit_is_next = True
        self.permitted = 0
        self.in_flight: list[tuple[Run, bool]] = []
        self.taken: list[float] = []
        self.plans = 0
        self.jobs = 0

    def any_run(self, index: int) -> Run:
        return list(self.runs)[index % len(self.runs)]

    # What the members want

    @rule(wait=WAITS, slope=SLOPES, expires_in=EXPIRES_IN, ahead=AHEAD)
    def a_run_comes(self, wait: float, slope: float, expires_in: float, ahead: float) -> None:
        run = Run(len(self.runs), wait, slope, self.now + expires_in)
        self.runs[run] = Known()
        self.poll(run, ahead)

    @rule(number=st.integers(2, 12), ahead=AHEAD)
    def many_runs_come(self, number: int, ahead: float) -> None:
        for _ in range(number):
            self.a_run_comes(0.0, 1.0, math.inf, ahead)

    @precondition(lambda self: self.runs)
    @rule(index=INDEX, ahead=AHEAD)
    def a_poll_is_moved(self, index: int, ahead: float) -> None:
        self.poll(self.any_run(index), ahead)

    def poll(self, run: Run, ahead: float) -> None:
        known = self.runs[run]
        known.poll_at, known.came, known.turn = self.now + ahead, 0, None
        run.since = min(self.now, self.now + ahead)
        self.schedule.poll(run, self.now + ahead)

    @precondition(lambda self: self.runs)
    @rule(index=INDEX, ahead=AHEAD)
    def a_tick_is_moved(self, index: int, ahead: float) -> None:
        run = self.any_run(index)
        self.runs[run].tick_at = self.now + ahead
        self.schedule.tick(run, self.now + ahead)

    @precondition(lambda self: self.runs)
    @rule(index=INDEX, number=st.integers(1, 5))
    def changes_are_wanted(self, index: int, number: int) -> None:
        run = self.any_run(index)
        for _ in range(number):
            self.jobs += 1
            self.changes.append((run, self.jobs))
            self.schedule.change(run, self.jobs)

    @rule(number=st.integers(1, 12))
    def permits_are_wanted(self, number: int) -> None:
        for _ in range(number):
            self.jobs += 1
            self.permits.append(f"permit {self.jobs}")
            self.schedule.permit(self.permits[-1])

    @precondition(lambda self: self.permits)
    @rule(index=INDEX)
    def a_permit_is_wanted_no_more(self, index: int) -> None:
        permit = self.permits.pop(index % len(self.permits))
        self.schedule.withdraw(permit)
        self.schedule.withdraw(permit)

    @precondition(lambda self: self.runs)
    @rule(index=INDEX)
    def a_run_goes(self, index: int) -> None:
        run = self.any_run(index)
        known = self.runs[run]
        known.poll_at = known.tick_at = math.inf
        known.came, known.turn = 0, None
        self.schedule.remove(run)

    @precondition(lambda self: self.runs)
    @rule(index=INDEX)
    def a_poll_is_wanted_first(self, index: int) -> None:
        run = self.any_run(index)
        known = self.runs[run]
        self.schedule.poll_first(run, self.now)
        if not known.is_polling and known.poll_at < math.inf:
            known.poll_at, known.came, known.turn = self.now, max(self.plans, 1), -math.inf

    # Responses

    @precondition(lambda self: self.in_flight)
    @rule(index=INDEX)
    def an_answer_comes(self, index: int) -> None:
        run, was_poll = self.in_flight.pop(index % len(self.in_flight))
        if was_poll:
            self.runs[run].is_polling = False
        self.schedule.landed(run, was_poll=was_poll)

    @precondition(lambda self: self.permitted)
    @rule()
    def an_answer_to_a_request_with_a_permit_comes(self) -> None:
        self.permitted -= 1
        self.schedule.permit_landed()

    @precondition(lambda self: self.in_flight)
    @rule(ahead=AHEAD)
    def all_answers_come_and_each_asks_for_a_poll(self, ahead: float) -> None:
        while self.in_flight:
            run, was_poll = self.in_flight[-1]
            self.an_answer_comes(-1)
            if was_poll:
                self.poll(run, ahead)

    @precondition(lambda self: any(was_poll for _, was_poll in self.in_flight))
    @rule(index=INDEX, ahead=AHEAD)
    def a_change_makes_a_poll_old(self, index: int, ahead: float) -> None:
        polls = [number for number, (_, was_poll) in enumerate(self.in_flight) if was_poll]
        number = polls[index % len(polls)]
        run = self.in_flight[number][0]
        self.in_flight[number] = (run, False)
        run.discard_poll()
        self.runs[run].is_polling = False
        self.poll(run, ahead)

    @rule(retry_after=st.sampled_from([None, 0.0, 0.5, 3.0]))
    def a_request_is_refused(self, retry_after: float | None) -> None:
        self.schedule.budget.refused(self.now, retry_after)

    @rule(remaining=st.sampled_from([0.0, 5.0, 1000.0]), reset=st.sampled_from([None, 1.0, 60.0]))
    def a_server_says_what_is_left(self, remaining: float, reset: float | None) -> None:
        self.schedule.budget.heard(self.now, RateLimit(remaining, 1000.0, reset))

    # Time

    @rule(seconds=st.one_of(PAUSES, st.just(1e6)), at_most=st.integers(1, 20))
    def time_passes(self, seconds: float, at_most: int) -> None:
        self.now += seconds
        self.plan(at_most)

    @rule(at_most=st.integers(1, 8), late=st.sampled_from([0.0, 0.0, 0.001, 0.01]))
    def it_is_planned_until_nothing_is_to_be_done(self, at_most: int, late: float) -> None:
        begun = len(self.taken)
        limit = 20 * len(self.runs) + len(self.permits) + 10  # plans with nothing to send
        for plans in itertools.count():
            assert plans <= limit + len(self.taken) - begun, "plans without an end"
            wake_at = self.plan(at_most).wake_at
            if wake_at == math.inf or len(self.taken) - begun > 200:
                break
            self.now = max(self.now, wake_at) + late

    def plan(self, at_most: int) -> Plan[Run]:
        now = self.now
        self.plans += 1
        ticks = {run for run, known in self.runs.items() if known.tick_at <= now}
        due = {run for run, known in self.runs.items() if self.is_to_come(known) and known.poll_at <= now}
        waited = set(self.waiting())
        for run in self.runs:
            run.asked.clear()
            run.measured = 0
        waiting = len(waited) + min(len(due), self.at_once)
        changes, others = self.allowed(at_most, waiting) if not ticks else (0, "")
        plan = self.schedule.plan(now, at_most)
        self.check_some(plan.ticks, ticks, lambda run: self.runs[run].tick_at)
        for run in plan.ticks:
            self.runs[run].tick_at = math.inf
        woken = [run for run in due if run.is_due or run in plan.polls]
        self.check_some(woken, due, lambda run: self.runs[run].poll_at)
        for run in woken:
            self.runs[run].came = self.plans
        assert (len(plan.changes), len(plan.polls), len(plan.permits)) == (changes, *map(others.count, "ab"))
        assert plan.changes == self.changes[: len(plan.changes)]
        del self.changes[: len(plan.changes)]
        self.in_flight += [(run, False) for run, _ in plan.changes]
        self.check_turns(len(others) and min(self.room, at_most - len(plan.changes)))
        assert plan.permits == self.permits[: len(plan.permits)]
        del self.permits[: len(plan.permits)]
        self.permitted += len(plan.permits)
        for run in plan.polls:
            self.check_is_first(run)
            self.sends(run)
            self.in_flight.append((run, True))
        assert self.schedule._bar == pytest.approx(self.bar)
        self.taken += [now] * (len(plan.changes) + len(others))
        in_flight = len(self.in_flight) + self.permitted
        assert not others or (not self.changes and in_flight <= self.max_in_flight - self.kept)
        self.check_wake_at(plan)
        assert {run for run in self.runs if run.is_due} == set(self.waiting())
        return plan

    def sends(self, run: Run) -> None:
        known = self.runs[run]
        known.poll_at, known.came, known.turn, known.is_polling = math.inf, 0, None, True
        if self.draw.random() < MEASURED:
            over = run.delay_at(self.now) > self.bar
            self.bar = max(self.bar * BAR_STEP if over else self.bar / BAR_STEP, LEAST_BAR_S)

    def check_some(self, some: list[Run], those: set[Run], time: Callable[[Run], float]) -> None:
        """Check that `some` are the first of `those`, as many as one plan takes."""
        assert set(some) <= those
        assert len(set(some)) == len(some), "a run came twice"
        assert len(some) == min(len(those), self.at_once)
        rest = those.difference(some)
        assert not some or not rest or max(map(time, some)) <= min(map(time, rest))

    def check_turns(self, room: int) -> None:
        """Check that the first runs, as many as one plan takes, were given a turn, if they needed one."""
        new = {run for run in self.waiting() if self.runs[run].turn is None}
        asked = [run for run in self.runs for _ in run.asked]
        at_once = room if self.schedule.budget.rate == math.inf and not self.permits else 1
        if not room or (len(new) == len(self.waiting()) and len(new) <= at_once):
            assert not asked, "a turn was computed without need"
            return
        self.check_some(asked, new, lambda run: self.runs[run].came)
        for run in asked:
            assert run.asked == [pytest.approx(self.bar)]
            turn = min(run.turn_at(run.asked[0]), self.now + LATEST_TURN_S)
            self.runs[run].turn = max(turn, self.runs[run].poll_at - LEAD_S)

    def check_wake_at(self, plan: Plan[Run]) -> None:
        if plan.ticks:
            assert plan.wake_at == self.now
            return
        next_thing = self.next_thing()
        assert plan.wake_at <= next_thing, "the next plan comes too late"
        if not (plan.changes or plan.polls):
            assert plan.wake_at >= min(next_thing, math.nextafter(self.now, math.inf)), "plans without an end"

    def allowed(self, at_most: int, waiting: int) -> tuple[int, str]:
        """Return how many changes the budget allows now, and what then: "a" for each poll, "b" for each permit."""
        budget = copy.deepcopy(self.schedule.budget)
        changes = self.room = 0
        others = ""
        while changes + len(others) < at_most and budget.ready_at(self.now) <= self.now:
            if changes < len(self.changes) and budget.places(for_poll=False):
                changes += 1
            elif changes == len(self.changes) and budget.places(for_poll=True):
                self.room = self.room or budget.places(for_poll=True)
                polls, permits = waiting - others.count("a"), len(self.permits) - others.count("b")
                if not polls and not permits:
                    break
                is_permit = not polls
                if polls and permits:
                    out = self.permitted + others.count("b")
                    is_permit = self.permit_is_next and out < self.max_in_flight / 2
                    self.permit_is_next = not is_permit
                others += "b" if is_permit else "a"
            else:
                break
            budget.take(self.now)
        return changes, others

    def is_to_come(self, known: Known) -> bool:
        return not known.is_polling and not known.came

    def waiting(self) -> list[Run]:
        return [run for run, known in self.runs.items() if known.came]

    def check_is_first(self, run: Run) -> None:
        known = self.runs[run]
        assert known.came, "this poll was not due, or was planned twice"
        others = [self.runs[other] for other in self.waiting()]
        turns = [other.turn for other in others if other.turn is not None]
        if known.turn is None:
            assert not turns, "a poll with a turn waits"
            assert known.came == min(other.came for other in others), "an earlier poll waits"
        else:
            assert known.turn == min(turns), "a poll with an earlier turn waits"

    def next_thing(self) -> float:
        """Return when the next thing is to be done, unless a response comes first."""
        times = [known.tick_at for known in self.runs.values()]
        budget = self.schedule.budget
        if self.changes or self.permits or self.waiting():
            if budget.places(for_poll=not self.changes):
                times.append(max(budget.ready_at(self.now), self.now))
        else:
            times += [known.poll_at for known in self.runs.values() if self.is_to_come(known)]
        return min(times, default=math.inf)

    # Invariants

    @invariant()
    def it_tells_what_waits(self) -> None:
        if not hasattr(self, "schedule"):
            return
        schedule, waiting = self.schedule, list(self.schedule.waiting())
        assert schedule.due == len(waiting)
        assert set(waiting) == set(self.waiting())
        assert schedule.changes == len(self.changes)
        assert schedule.permits == len(self.permits)
        assert schedule.budget.in_flight == len(self.in_flight) + self.permitted <= self.max_in_flight
        turns = {run: (known.turn, run.number) for run, known in self.runs.items() if known.turn is not None}
        new = [run for run in waiting if run not in turns]
        for run in waiting:
            before = len(turns) + new.index(run) if run in new else sum(turn < turns[run] for turn in turns.values())
            permits = min(len(self.permits), before + self.permit_is_next)
            assert schedule.before(run) == len(self.changes) + before + permits
        for times in (schedule._polls, schedule._ticks, schedule._turns):
            assert len(times._heap) <= 2 * len(self.runs) + 64

    def teardown(self) -> None:
        if not hasattr(self, "schedule"):
            return
        try:
            self.end()
        finally:
            self.patch.undo()

    def end(self) -> None:
        if self.rate is not None:
            check_windows(self.taken, self.rate)
        # If all requests are answered and nothing new comes, everything that is due is sent.
        for _ in range(10_000):
            while self.in_flight:
                self.an_answer_comes(-1)
            while self.permitted:
                self.an_answer_to_a_request_with_a_permit_comes()
            wake_at = self.plan(20).wake_at
            if wake_at < math.inf:
                self.now = max(self.now, wake_at)
            elif not self.in_flight and not self.permitted:
                break
        assert not self.waiting()
        assert not self.permits
        assert not self.changes
        assert self.next_thing() == math.inf


TestAnySchedule = AnySchedule.TestCase
TestAnySchedule.settings = settings(
    max_examples=20 if sys.flags.dev_mode else 100,
    stateful_step_count=40,
    deadline=None,  # a busy machine is no failure
    suppress_health_check=[HealthCheck.too_slow],
)


# Single cases


def of(runs: int, *, rate: float | None = None, at: float = BEGIN) -> tuple[Schedule[Run], list[Run]]:
    """Return a schedule, and runs whose polls are due at the same time."""
    schedule: Schedule[Run] = Schedule(Budget(rate, 10**6))
    made = [Run(number) for number in range(runs)]
    for run in made:
        schedule.poll(run, at)
    return schedule, made


def names(plan: Plan[Run]) -> list[int]:
    return [run.name for run in plan.polls]


def test_without_runs_there_is_nothing_to_do() -> None:
    schedule: Schedule[Run] = Schedule(Budget(50.0, 10))
    assert schedule.plan(BEGIN, 4) == Plan([], [], [], [], math.inf)


def test_polls_go_in_the_order_in_which_they_came_due() -> None:
    schedule, runs = of(0)
    for number, late in enumerate([3.0, 1.0, 2.0, 1.0]):
        runs.append(Run(number))
        schedule.poll(runs[-1], BEGIN + late)
    assert names(schedule.plan(BEGIN + 3600.0, 10)) == [1, 3, 2, 0]


def sent_one_by_one(schedule: Schedule[Run], now: float, polls: int) -> list[int]:
    """Return the names of the runs that are polled, with as little time in between as possible."""
    sent: list[int] = []
    while len(sent) < polls:
        plan = schedule.plan(now, 1)
        sent += names(plan)
        now = max(now, plan.wake_at)
    return sent


def test_a_single_due_poll_needs_no_turn() -> None:
    schedule, (run,) = of(1, rate=50.0)
    assert schedule.plan(BEGIN, 5).polls == [run]
    assert run.asked == []


def test_polls_that_can_all_be_sent_need_no_turns() -> None:
    schedule, runs = of(20)
    assert schedule.plan(BEGIN, 20).polls == runs
    assert [run.asked for run in runs] == [[]] * 20


def test_polls_that_come_due_while_nothing_can_be_sent_get_turns_when_something_can() -> None:
    schedule, runs = of(0, rate=0.1)
    runs += [Run(0, 3.0), Run(1, 4.0), Run(2, 2.0), Run(3, 1.0)]
    schedule.budget.take(BEGIN)
    for run in runs:
        schedule.poll(run, BEGIN)
    assert schedule.plan(BEGIN + 0.5, 1).polls == []
    assert [run.asked for run in runs] == [[]] * 4
    assert sent_one_by_one(schedule, BEGIN + 11.0, 4) == [3, 2, 0, 1]
    assert [len(run.asked) for run in runs] == [1] * 4, "a turn is computed once"


def after_polls(delays: list[float]) -> tuple[Schedule[Run], float]:
    """Return a schedule whose polls have ended these delays, one after the other, and the time."""
    schedule, _ = of(0, rate=1.0)
    now = BEGIN
    for number, delay in enumerate(delays):
        now += 5.0
        run = Run(number)
        schedule.poll(run, now)
        run.since = now - delay
        assert schedule.plan(now, 1).polls == [run]
        schedule.landed(run, was_poll=True)
    return schedule, now + 5.0


def test_the_bar_is_about_the_median_delay_of_the_last_polls() -> None:
    schedule, _ = after_polls([2.0] * 1000)
    assert schedule._bar == pytest.approx(2.0, rel=0.06)
    schedule, _ = after_polls([2.0] * 1000 + [0.5, 0.4, 0.3, 90.0, 0.3] * 200)
    assert schedule._bar == pytest.approx(0.4, rel=0.3)


def test_the_poll_that_was_over_the_bar_first_goes_first() -> None:
    schedule, now = after_polls([1.0] * 1000)
    waits = {0: (5.0, 1.0), 1: (3.0, 1.0), 2: (0.0, 0.01), 3: (0.0, 0.5), 4: (50.0, 1.0)}
    for name, (wait, slope) in waits.items():
        run = Run(name, wait, slope, expiry=now + 1.0 if name == 4 else math.inf)
        schedule.poll(run, now)
        run.since = now
    # They end a delay of 1 s from 6 s, 4 s, 100 s and 2 s after their last poll on, and the last one expires after 1 s.
    assert sent_one_by_one(schedule, now, 5) == [4, 3, 1, 0, 2]


@pytest.mark.parametrize("expired", [True, False])
def test_a_crowd_that_is_worth_much_and_keeps_coming_back_holds_no_other_up(expired: bool) -> None:
    """Runs past their expiry, or runs whose polls fail, so that what was seen last does not change."""
    schedule, now = after_polls([1.0] * 400)
    schedule.budget._next_at = now
    crowd = [Run(number, expiry=now - 60.0 if expired else math.inf) for number in range(40)]
    late = Run(-1, 20.0)
    for run in [*crowd, late]:
        schedule.poll(run, now)
        run.since = now if run is late else now - 600.0
    sent: dict[int, int] = {}
    until = now + 200.0
    while now < until and not late.is_polling:
        plan = schedule.plan(now, 8)
        for run in plan.polls:
            sent[run.name] = sent.get(run.name, 0) + 1
            if run is not late:
                schedule.landed(run, was_poll=True)
                schedule.poll(run, now + 0.5)
        now = max(now, plan.wake_at)
    assert late.is_polling, "it waited for ever"
    assert now < until - 100.0
    others = [sent.get(run.name, 0) for run in crowd]
    assert max(others) - min(others) <= 1, "some of the crowd held the others up"


def test_no_more_turns_are_given_in_a_plan_than_it_takes_at_once_however_many_are_sent() -> None:
    schedule, runs = of(8 * RUNS_AT_ONCE)
    for _ in range(8):
        schedule.plan(BEGIN, 0)
    assert len(schedule.plan(BEGIN, 8).polls) == 8
    assert sum(len(run.asked) for run in runs) == RUNS_AT_ONCE
    assert schedule.due == 8 * RUNS_AT_ONCE - 8


def test_polls_without_a_turn_cause_no_early_plan_while_nothing_can_be_sent() -> None:
    schedule, runs = of(4 * RUNS_AT_ONCE, rate=1.0)
    plan = schedule.plan(BEGIN, 8)
    assert len(plan.polls) == 1
    assert plan.wake_at == pytest.approx(BEGIN + 1.0)
    for number in range(1, 5):
        plan = schedule.plan(BEGIN + number / 10, 8)
        assert plan.polls == []
        assert plan.wake_at == pytest.approx(BEGIN + 1.0)
    assert schedule.due == 4 * RUNS_AT_ONCE - 1
    schedule.plan(plan.wake_at, 8)
    assert sum(len(run.asked) for run in runs) == 2 * RUNS_AT_ONCE
    assert max(len(run.asked) for run in runs) == 1


def test_polls_without_a_free_place_wait_for_a_response_only() -> None:
    schedule: Schedule[Run] = Schedule(Budget(None, 10))
    runs = [Run(number) for number in range(20)]
    for number, run in enumerate(runs):
        schedule.poll(run, BEGIN + number / 100)
    sent = schedule.plan(BEGIN + 0.15, 20)
    assert len(sent.polls) == 9
    assert sent.wake_at == math.inf
    schedule.tick(runs[0], BEGIN + 5.0)
    assert schedule.plan(BEGIN + 0.16, 20).wake_at == BEGIN + 5.0
    schedule.landed(sent.polls[0], was_poll=True)
    assert len(schedule.plan(BEGIN + 0.16, 20).polls) == 1


def test_a_tick_that_is_moved_there_and_back_comes_once() -> None:
    schedule, (run,) = of(1, at=math.inf)
    for at in (1.0, 2.0, 1.0):
        schedule.tick(run, BEGIN + at)
    assert schedule.plan(BEGIN + 3.0, 1).ticks == [run]
    assert schedule.plan(BEGIN + 3.0, 1) == Plan([], [], [], [], math.inf)


def test_a_moved_poll_is_planned_at_its_new_time_only() -> None:
    schedule, (run,) = of(1, at=BEGIN + 10.0)
    schedule.poll(run, BEGIN + 5.0)
    assert schedule.plan(BEGIN + 4.9, 1).wake_at == BEGIN + 5.0
    schedule.poll(run, BEGIN + 20.0)
    assert schedule.plan(BEGIN + 19.9, 1).polls == []
    assert schedule.plan(BEGIN + 20.0, 1).polls == [run]
    assert schedule.plan(BEGIN + 1e6, 1) == Plan([], [], [], [], math.inf)


def test_a_poll_planned_while_another_is_in_flight_waits_for_that_one() -> None:
    schedule, (run,) = of(1)
    assert schedule.plan(BEGIN, 1).polls == [run]
    schedule.poll(run, BEGIN)
    assert schedule.plan(BEGIN + 1.0, 1) == Plan([], [], [], [], math.inf)
    schedule.landed(run, was_poll=True)
    assert schedule.plan(BEGIN + 1.0, 1).polls == [run]


def test_changes_of_a_removed_run_are_still_sent() -> None:
    schedule, (run,) = of(1)
    schedule.change(run, "submit")
    schedule.tick(run, BEGIN)
    schedule.remove(run)
    assert schedule.plan(BEGIN, 5) == Plan([], [(run, "submit")], [], [], math.inf)


def test_permits_are_granted_in_order_and_alternating_with_polls() -> None:
    schedule, runs = of(6)
    for permit in "abcdef":
        schedule.permit(permit)
    schedule.withdraw("c")
    plans = [schedule.plan(BEGIN, 1) for _ in range(11)]
    assert [plan.permits for plan in plans] == [["a"], [], ["b"], [], ["d"], [], ["e"], [], ["f"], [], []]
    assert [run for plan in plans for run in plan.polls] == runs
    assert schedule.plan(BEGIN, 1).wake_at == math.inf


def test_slow_requests_with_a_permit_leave_half_of_the_places_to_due_polls() -> None:
    schedule: Schedule[Run] = Schedule(Budget(None, 20))
    for permit in range(100):
        schedule.permit(permit)
    for number in range(100):
        schedule.poll(Run(number), BEGIN)
    granted = 0
    for _ in range(60):
        plan = schedule.plan(BEGIN, 1)
        granted += len(plan.permits)
        for run in plan.polls:
            schedule.landed(run, was_poll=True)
    assert (granted, schedule.due) == (10, 50)


def test_requests_with_a_permit_may_have_all_places_while_no_poll_is_due_but_those_of_changes() -> None:
    schedule: Schedule[Run] = Schedule(Budget(None, 20))
    for permit in range(100):
        schedule.permit(permit)
    assert len(schedule.plan(BEGIN, 50).permits) == 18
    schedule.poll(Run(), BEGIN)
    schedule.permit_landed()
    assert len(schedule.plan(BEGIN, 50).polls) == 1


def test_a_change_goes_before_earlier_polls_and_has_a_place_kept_for_it() -> None:
    schedule: Schedule[Run] = Schedule(Budget(None, 10))
    runs = [Run(number) for number in range(20)]
    for run in runs:
        schedule.poll(run, BEGIN)
    assert len(schedule.plan(BEGIN, 20).polls) == 9
    schedule.change(runs[0], "cancel")
    assert schedule.plan(BEGIN, 20) == Plan([], [(runs[0], "cancel")], [], [], math.inf)


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(
    st.lists(st.tuples(st.integers(1, 3), WAITS), min_size=1, max_size=4),
    st.sampled_from([1.0, 3.0]),
    st.sampled_from([0.0, 1.0, 30.0]),
    st.sampled_from([1.0, 0.1]),
)
def test_a_due_poll_is_sent_although_others_keep_coming(
    crowd: list[tuple[int, float]], rate: float, wait: float, slope: float
) -> None:
    schedule: Schedule[Run] = Schedule(Budget(rate, 10**6))
    last = Run(-1, wait, slope)
    schedule.poll(last, BEGIN)
    now = BEGIN
    for step in range(10_000):
        for number, pause in crowd:  # more than the rate allows
            for _ in range(number):
                run = Run(step, pause)
                run.since = now
                schedule.poll(run, now)
        if last in schedule.plan(now, 1).polls:
            break
        now += 0.5 / rate
    assert last.is_polling
    assert schedule.plan(now, 1).polls != [last]


def test_very_many_runs_with_the_same_time_are_woken_in_several_plans() -> None:
    schedule, runs = of(10 * RUNS_AT_ONCE)
    for run in runs[::2]:
        schedule.tick(run, BEGIN + 1.0)
    plans = [schedule.plan(BEGIN + 3600.0, 1) for _ in range(10)]
    assert {run for plan in plans for run in plan.ticks} == set(runs[::2])
    assert max(len(plan.ticks) for plan in plans) <= RUNS_AT_ONCE
    assert [plan.wake_at <= BEGIN + 3600.0 for plan in plans] == [True] * 10
    assert names(schedule.plan(BEGIN + 3600.0, 10**6)) == list(range(5, 10 * RUNS_AT_ONCE))


def test_very_many_polls_are_all_sent_by_plans_that_say_when_to_come_back() -> None:
    schedule, _ = of(10 * RUNS_AT_ONCE)
    sent: list[int] = []
    while (plan := schedule.plan(BEGIN, 100)).polls:
        sent += names(plan)
        assert plan.wake_at == (BEGIN if len(sent) < 10 * RUNS_AT_ONCE else math.inf)
    assert sorted(sent) == list(range(10 * RUNS_AT_ONCE))


# Memory


def entries(schedule: Schedule[Run]) -> int:
    return sum(len(times._heap) for times in (schedule._polls, schedule._ticks, schedule._turns))


def played(schedule: Schedule[Run], times: Iterator[float], run: Run) -> None:
    """Poll a run at these times."""
    for at in times:
        schedule.poll(run, at)
        assert schedule.plan(at, 1).polls == [run]
        schedule.landed(run, was_poll=True)


@pytest.mark.parametrize("parity", [0, 1])
def test_the_heaps_do_not_grow_with_the_polls_of_a_run(parity: int) -> None:
    schedule, (run,) = of(1)
    for number in range(parity):
        schedule.poll(Run(number), BEGIN + 1e9)
    schedule.tick(run, BEGIN + 1e8)
    played(schedule, (BEGIN + number for number in range(5 * MANY)), run)
    assert entries(schedule) <= 3 * 64


def test_the_heaps_do_not_grow_with_times_that_are_moved() -> None:
    schedule, runs = of(10, at=math.inf)
    for number in range(3 * MANY):
        for run in runs[:2]:
            schedule.poll(run, BEGIN + 1e6 - number)
            schedule.tick(run, BEGIN + 2e6 - number)
    assert entries(schedule) <= 3 * 64
    assert schedule.plan(BEGIN, 1).wake_at == BEGIN + 1e6 - 3 * MANY + 1


def test_removed_runs_are_forgotten_long_before_their_times() -> None:
    schedule, _ = of(0)
    for number in range(5 * MANY):
        run = Run(number)
        schedule.tick(run, BEGIN + 900.0 + number / 7)
        schedule.poll(run, BEGIN + number / 1000)
        assert schedule.plan(BEGIN + number / 1000, 1).polls == [run]
        schedule.remove(run)
        schedule.landed(run, was_poll=True)
    assert entries(schedule) <= 3 * 64
