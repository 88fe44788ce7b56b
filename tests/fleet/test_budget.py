"""The budget: no window has more requests than the rate allows, and refusals slow it down while they last."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from windows import BEGIN, ROUNDING_S, check_windows

from asyncruns.fleet.budget import (
    CATCH_UP_S,
    LEAST_TOLD_PER_S,
    LONGEST_PAUSE_S,
    MORE_THAN_TOLD,
    NOT_BELIEVED_FOR_S,
    PAUSE_AFTER,
    Budget,
)
from asyncruns.fleet.pace import SLOWEST_PER_S
from asyncruns.http import RateLimit

RATES = [0.1, 0.3, 1.0, 1.5, 3.0, 7.7, 50.0, 200.0, 3333.3, 10_000.0]
MOST_TAKEN = 25_000  # requests in one example


class Clocked:
    """A budget with a clock, and the times of its requests; all are answered at once."""

    def __init__(self, per_second: float | None, max_in_flight: int = 10**9) -> None:
        self.now = BEGIN
        self.budget = Budget(per_second, max_in_flight)
        self.taken: list[float] = []

    def take_all(self, at_most: int = MOST_TAKEN) -> int:
        """Take all requests that are allowed now, up to a limit; return how many."""
        before = len(self.taken)
        while self.budget.ready_at(self.now) <= self.now and len(self.taken) - before < at_most:
            self.budget.take(self.now)
            self.budget.landed()
            self.taken.append(self.now)
        return len(self.taken) - before

    def take_for(self, seconds: float, late: float) -> None:
        """Take all requests that are allowed for some seconds, with a timer that is late."""
        end = self.now + seconds
        while len(self.taken) < MOST_TAKEN:
            self.take_all()
            ready_at = max(self.budget.ready_at(self.now), self.now) + late
            if ready_at > end:
                break
            self.now = max(ready_at, math.nextafter(self.now, math.inf))
        self.now = max(self.now, end)


Step = Callable[[Clocked], object]

ABSURD = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e-12, 1e12, 1e300])
SECONDS = st.one_of(st.floats(0.0, 3.0), st.sampled_from([0.0, 1e-4, 0.02, 0.0204, 0.98, 1.0, 1.02, 61.0, 1e5]))
NUMBERS = st.one_of(ABSURD, st.floats(0.0, 1e4))
OPTIONAL = st.one_of(st.none(), NUMBERS)


def pass_time(seconds: float) -> Step:
    def step(clocked: Clocked) -> None:
        clocked.now += seconds

    return step


def wait_for_the_next(late: float) -> Step:
    def step(clocked: Clocked) -> None:
        clocked.now = max(clocked.now, min(clocked.budget.ready_at(clocked.now), clocked.now + 61.0)) + late

    return step


def refuse(retry_after: float | None) -> Step:
    return lambda clocked: clocked.budget.refused(clocked.now, retry_after)


def hear(limit: RateLimit) -> Step:
    return lambda clocked: clocked.budget.heard(clocked.now, limit)


LATE = st.sampled_from([0.0, 0.0, 1e-5, 0.001, 0.005, 0.019, 0.02, 0.021, 0.3])
TAKES: st.SearchStrategy[Step] = st.one_of(
    st.integers(1, 300).map(lambda most: lambda clocked: clocked.take_all(most)),
    st.tuples(st.floats(0.0, 3.0), LATE).map(lambda both: lambda clocked: clocked.take_for(*both)),
)
TIMES: st.SearchStrategy[Step] = st.one_of(SECONDS.map(pass_time), LATE.map(wait_for_the_next))
SERVER_SAYS: st.SearchStrategy[Step] = st.one_of(
    OPTIONAL.map(refuse), st.builds(RateLimit, remaining=NUMBERS, limit=OPTIONAL, reset=OPTIONAL).map(hear)
)
STEPS = st.lists(st.one_of(TAKES, TAKES, TIMES, SERVER_SAYS), max_size=30)


@settings(deadline=None, max_examples=150)  # a busy machine is no failure
@given(st.one_of(st.sampled_from(RATES), st.floats(0.1, 10_000.0)), STEPS)
def test_no_window_has_more_than_the_rate_whatever_happens(rate: float, steps: list[Step]) -> None:
    clocked = Clocked(rate)
    for step in steps:
        step(clocked)
        assert 0.0 < clocked.budget.rate <= rate
    check_windows(clocked.taken, rate)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("late", [0.0, 0.001, CATCH_UP_S * 0.99, 0.1, 1.0])
def test_no_window_has_more_than_the_rate_after_a_pause_either(rate: float, late: float) -> None:
    clocked = Clocked(rate)
    for pause in (0.0, CATCH_UP_S * 0.99, 0.5, 1.0, 100.0):
        clocked.now += pause
        clocked.take_for(max(1.5, 3 / rate), late)
    check_windows(clocked.taken, rate)


@pytest.mark.parametrize("rate", [1.0, 3.0, 50.0, 200.0, 2000.0])
@pytest.mark.parametrize("late", [0.0, 0.001, CATCH_UP_S / 2, CATCH_UP_S * 0.9])
def test_the_rate_is_used_although_timers_come_late(rate: float, late: float) -> None:
    clocked = Clocked(rate)
    clocked.take_for(10.0, late)
    assert len(clocked.taken) >= math.floor(rate * 10.0 * 0.965)


@pytest.mark.parametrize("rate", RATES)
def test_at_most_a_hundredth_of_a_second_is_caught_up_at_once(rate: float) -> None:
    clocked = Clocked(rate)
    for pause in (0.0, 1.0, 1000.0):
        clocked.now += max(pause, 2 / rate)
        assert clocked.take_all() <= math.floor(CATCH_UP_S * rate) + 1


# In flight


@pytest.mark.parametrize(("most", "for_polls"), [(1, 1), (2, 1), (3, 2), (10, 9), (11, 9), (64, 57), (100, 90)])
def test_a_tenth_of_the_places_is_kept_from_polls(most: int, for_polls: int) -> None:
    budget = Budget(None, most)
    assert budget.places(for_poll=True) == for_polls
    assert budget.places(for_poll=False) == most
    for _ in range(most):
        budget.take(BEGIN)
    assert budget.in_flight == budget.taken == most
    assert budget.places(for_poll=True) == budget.places(for_poll=False) == 0
    budget.landed()
    assert budget.places(for_poll=False) == 1
    assert budget.places(for_poll=True) == (1 if most == 1 else 0)


# Refusals


def answer(clocked: Clocked, *, refused: bool, retry_after: float | None = None) -> None:
    """Send one request, which is answered at once."""
    clocked.budget.take(clocked.now)
    clocked.budget.landed()
    if refused:
        clocked.budget.refused(clocked.now, retry_after)


@pytest.mark.parametrize("rate", [None, 50.0])
@pytest.mark.parametrize("retry_after", [1.0, 60.0, 3600.0])
def test_a_retry_after_of_some_requests_does_not_hold_back_the_others(rate: float | None, retry_after: float) -> None:
    clocked, other = Clocked(rate), Clocked(rate)
    for number in range(1000):
        clocked.now = other.now = clocked.now + 0.02
        refused = number % PAUSE_AFTER > 0  # one less than needed in a row
        answer(clocked, refused=refused, retry_after=retry_after)
        answer(other, refused=refused)
        assert clocked.budget.ready_at(clocked.now) == other.budget.ready_at(clocked.now)


@pytest.mark.parametrize(("retry_after", "pause"), [(7.0, 7.0), (60.0, 60.0), (86400.0, LONGEST_PAUSE_S)])
@pytest.mark.parametrize("rate", [None, 50.0])
def test_many_refusals_in_a_row_hold_back_all_for_the_shortest_of_their_times(
    retry_after: float, pause: float, rate: float | None
) -> None:
    clocked = Clocked(rate)
    for number in range(PAUSE_AFTER):
        assert clocked.budget.ready_at(clocked.now) < clocked.now + 6.0
        answer(clocked, refused=True, retry_after=86400.0 if number % 2 else retry_after)
    assert clocked.budget.ready_at(clocked.now) == pytest.approx(clocked.now + pause)
    clocked.now += pause
    assert clocked.take_all(1) == 1
    answer(clocked, refused=True, retry_after=2.0)  # the row goes on
    assert clocked.budget.ready_at(clocked.now) >= clocked.now + min(pause, 2.0)
    clocked.now += 10.0
    answer(clocked, refused=False)
    answer(clocked, refused=True, retry_after=5.0)  # a new row
    assert clocked.budget.ready_at(clocked.now) < clocked.now + 5.0


@pytest.mark.parametrize("retry_after", [None, 0.0, -1.0, -math.inf, math.nan])
def test_a_retry_after_that_is_not_positive_is_ignored(retry_after: float | None) -> None:
    clocked = Clocked(50.0)
    for _ in range(PAUSE_AFTER + 5):
        clocked.now = max(clocked.budget.ready_at(clocked.now), clocked.now)
        answer(clocked, refused=True, retry_after=retry_after)
    assert clocked.budget.ready_at(clocked.now) <= clocked.now + 1.1


# What is left


@pytest.mark.parametrize("rate", [None, 50.0])
def test_what_is_left_is_spread_over_the_time_to_the_reset(rate: float | None) -> None:
    clocked = Clocked(rate)
    budget = clocked.budget
    budget.heard(clocked.now, RateLimit(500.0, 1000.0, 10.0))
    assert budget.rate == (math.inf if rate is None else rate)  # half is left
    budget.heard(clocked.now, RateLimit(100.0, 1000.0, 10.0))
    assert budget.rate == pytest.approx(10.0)
    budget.heard(clocked.now, RateLimit(20.0, 1000.0, 10.0))
    assert budget.rate == pytest.approx(2.0)
    clocked.now += 9.9
    budget.ready_at(clocked.now)
    assert budget.rate == pytest.approx(2.0)
    clocked.now += 0.2  # past the reset
    budget.ready_at(clocked.now)
    assert budget.rate == (math.inf if rate is None else rate)
    budget.heard(clocked.now, RateLimit(20.0, 1000.0, 10.0))
    budget.heard(clocked.now, RateLimit(201.0, 1000.0, 10.0))  # another window has begun
    assert budget.rate == (math.inf if rate is None else rate)


@pytest.mark.parametrize(
    ("limit", "rate"),
    [
        pytest.param(RateLimit(300.0), 5.0, id="only what is left: a limit per minute"),
        pytest.param(RateLimit(30.0, None, 10.0), 3.0, id="no limit in the response"),
        pytest.param(RateLimit(0.0, 1000.0, 2.0), LEAST_TOLD_PER_S, id="nothing left, reset soon"),
        pytest.param(RateLimit(0.0, 1000.0, 60.0), LEAST_TOLD_PER_S, id="nothing left"),
        pytest.param(RateLimit(-5.0, 1000.0, 2.0), LEAST_TOLD_PER_S, id="less than nothing left"),
        pytest.param(RateLimit(100.0, 1000.0, 0.0), 50.0, id="a reset now"),
        pytest.param(RateLimit(100.0, 1000.0, -3.0), 50.0, id="a reset in the past"),
        pytest.param(RateLimit(10_000.0), 50.0, id="more than we send"),
    ],
)
def test_little_left_is_a_low_rate(limit: RateLimit, rate: float) -> None:
    clocked = Clocked(50.0)
    clocked.budget.heard(clocked.now, limit)
    assert clocked.budget.rate == pytest.approx(rate)


@pytest.mark.parametrize("rate", [None, 50.0])
@pytest.mark.parametrize("limit", [RateLimit(0.0), RateLimit(0.0, 1.0, 86400.0), RateLimit(200.0, 1000.0, 3600.0)])
def test_what_a_server_says_is_left_is_not_believed_when_it_takes_more(limit: RateLimit, rate: float | None) -> None:
    clocked = Clocked(rate)
    full = clocked.budget.rate
    clocked.budget.heard(clocked.now, limit)
    for _ in range(MORE_THAN_TOLD + 2):
        clocked.now = max(clocked.budget.ready_at(clocked.now), clocked.now)
        answer(clocked, refused=False)
        clocked.budget.heard(clocked.now, limit)  # the same again
    assert clocked.now <= BEGIN + (MORE_THAN_TOLD + 2) / LEAST_TOLD_PER_S
    assert clocked.budget.rate == full
    clocked.now += NOT_BELIEVED_FOR_S + 1.0
    clocked.budget.heard(clocked.now, limit)
    assert clocked.budget.rate < 50.0


def test_one_response_that_says_nothing_is_left_slows_the_fleet_for_a_few_requests_only() -> None:
    clocked = Clocked(50.0)
    clocked.budget.heard(clocked.now, RateLimit(0.0, 1000.0, 3600.0))
    for _ in range(MORE_THAN_TOLD + 1):
        clocked.now += 1.0
        answer(clocked, refused=False)
    clocked.budget.ready_at(clocked.now)
    assert clocked.budget.rate == 50.0


def test_a_number_of_requests_left_that_falls_as_we_send_is_believed() -> None:
    clocked = Clocked(50.0)
    left = 20.0
    while left > 0.0:
        clocked.now = max(clocked.budget.ready_at(clocked.now), clocked.now)
        clocked.budget.heard(clocked.now, RateLimit(left, 1000.0, 10.0 - (clocked.now - BEGIN)))
        answer(clocked, refused=False)
        left -= 1.0
        assert clocked.budget.rate < 4.0
    assert clocked.now - BEGIN > 6.0


@settings(deadline=None, max_examples=200)  # a busy machine is no failure
@given(st.sampled_from([None, *RATES]), st.lists(st.one_of(SERVER_SAYS, SERVER_SAYS, TIMES, TAKES), max_size=12))
@example(None, [hear(RateLimit(0.0))])
@example(None, [hear(RateLimit(0.0, 1e12, 1e-3)), pass_time(3.0), refuse(math.inf)])
def test_nothing_that_a_server_says_stops_the_fleet_for_more_than_a_minute(
    rate: float | None, steps: list[Step]
) -> None:
    clocked = Clocked(rate)
    budget = clocked.budget
    for step in steps:
        if len(clocked.taken) < MOST_TAKEN or rate is not None:
            step(clocked)
        assert budget.ready_at(clocked.now) - clocked.now <= LONGEST_PAUSE_S + ROUNDING_S
        assert budget.rate >= SLOWEST_PER_S
    for _ in range(1200):  # at most four accepted requests per second
        clocked.now += 0.25
        clocked.take_all(1)
    assert budget.rate == (math.inf if rate is None else rate)
