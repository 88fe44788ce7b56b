"""The expected delay between the end of a run and a poll: the integral of the chance that it has ended."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from histories import GROUP, chance, learned
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncruns.cadence import Cadence
from asyncruns.cadence.age_grid import END_S, PER_FOLD
from asyncruns.cadence.cadence import strategy_of
from asyncruns.cadence.learned_pauses import LearnedPauses

CELL = 1.02 * math.expm1(1.0 / PER_FOLD)  # a step of the grid, as a share of (1 s + age)


def taught(durations: list[float], *, within: float = 0.5) -> LearnedPauses:
    """Return a cadence that has seen runs of these durations end, each between two polls."""
    cadence = learned()
    for duration in durations:
        cadence.learn(GROUP, 0, after=max(duration - within, 0.0), by=duration)
    return cadence


def lognormal(median: float, sigma: float, seed: int = 7) -> list[float]:
    dice = random.Random(seed)
    return [median * math.exp(dice.gauss(0.0, sigma)) for _ in range(200)]


CADENCES = {
    "of nothing": taught([]),
    "of one run": taught([12.0]),
    "of short runs": taught(lognormal(2.0, 0.3)),
    "of long runs": taught(lognormal(40.0, 0.5)),
    "of two kinds": taught(lognormal(2.0, 0.3) + lognormal(45.0, 0.3)),
    "of runs that all take the same": taught([10.0] * 500, within=0.001),
    "of runs that end at once": taught([0.0] * 300),
    "of runs of hours": taught([20_000.0] * 300, within=60.0),
}
EACH = pytest.mark.parametrize("cadence", CADENCES.values(), ids=CADENCES)
ANY = st.sampled_from(list(CADENCES.values()))

AGES = st.one_of(st.floats(0.0, 100.0), st.floats(0.0, 2 * END_S), st.sampled_from([0.0, 1e-9, END_S, 1e6, 1e9]))
ODD = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, -1e300, 1e300, 5e-324])


def delay_of(cadence: LearnedPauses, after: float, by: float) -> float:
    delay = cadence.delay(GROUP, 0, after=after, by=by)
    assert delay is not None
    return delay


def age_of(cadence: LearnedPauses, after: float, delay: float) -> float:
    age = cadence.age_of_delay(GROUP, 0, after=after, delay=delay)
    assert age is not None
    return age


def integral(cadence: LearnedPauses, after: float, by: float, steps: int = 4000) -> float:
    """Sum up the chance that a run older than `after` has ended, over the ages up to `by`."""
    width = (by - after) / steps
    chances = [chance(cadence, after=after, by=after + width * (step + 0.5)) for step in range(steps)]
    return sum(chances) * width


@EACH
@pytest.mark.parametrize(("after", "by"), [(0.0, 0.3), (0.0, 8.0), (1.5, 3.0), (5.0, 90.0), (30.0, 31.0), (300.0, 2e3)])
def test_the_delay_is_the_integral_of_the_chance(cadence: LearnedPauses, after: float, by: float) -> None:
    wanted = integral(cadence, after, by)
    assert delay_of(cadence, after, by) == pytest.approx(wanted, rel=0.01, abs=0.003 * (by - after))


@settings(deadline=None, max_examples=200)  # a busy machine is no failure
@given(ANY, AGES, st.lists(AGES, min_size=2, max_size=8).map(sorted))
def test_the_delay_never_falls_and_grows_no_faster_than_time(
    cadence: LearnedPauses, after: float, ages: list[float]
) -> None:
    delays = [delay_of(cadence, after, by) for by in ages]
    for (early, one), (late, other) in pairwise(zip(ages, delays, strict=True)):
        rounding = 1e-6 + 1e-9 * late
        assert one - rounding <= other <= one + (late - early) + rounding
    assert all(0.0 <= delay <= max(by - after, 0.0) + 1e-6 for by, delay in zip(ages, delays, strict=True))


@settings(deadline=None, max_examples=200)  # a busy machine is no failure
@given(ANY, AGES, st.one_of(st.floats(1e-3, 100.0), st.floats(0.0, 1e5)))
def test_the_age_of_a_delay_is_its_inverse_to_a_step_of_the_grid(
    cadence: LearnedPauses, after: float, delay: float
) -> None:
    age = age_of(cadence, after, delay)
    assert after <= age < math.inf
    again = delay_of(cadence, after, age)
    assert again >= delay - 1e-6 * (1.0 + delay + after * 1e-3)
    # A step of the grid earlier, there was less.
    step = CELL * (1.0 + age)
    assert age - step <= after or delay_of(cadence, after, age - step) <= delay + 1e-6 * (1.0 + age)


@settings(deadline=None, max_examples=100)  # a busy machine is no failure
@given(ANY, AGES, st.lists(st.floats(0.0, 1e5), min_size=2, max_size=8).map(sorted))
def test_the_age_of_a_delay_never_falls(cadence: LearnedPauses, after: float, delays: list[float]) -> None:
    ages = [age_of(cadence, after, delay) for delay in delays]
    assert ages == sorted(ages)


@EACH
@pytest.mark.parametrize("after", [0.0, 3.0, 100.0, END_S - 1e-3, END_S, END_S + 1.0, 1e5, 1e9])
@pytest.mark.parametrize("delay", [0.0, 0.0625, 4.0, 1e3, 1e6])
def test_the_age_of_a_delay_is_always_finite(cadence: LearnedPauses, after: float, delay: float) -> None:
    age = age_of(cadence, after, delay)
    assert after <= age < math.inf
    # Beyond the grid all runs count as ended.
    assert age <= max(after, END_S) + delay + 0.01


@EACH
def test_beyond_the_grid_all_runs_count_as_ended(cadence: LearnedPauses) -> None:
    assert delay_of(cadence, END_S + 5.0, END_S + 12.0) == pytest.approx(7.0)
    assert age_of(cadence, END_S + 5.0, 7.0) == pytest.approx(END_S + 12.0)
    at_end = delay_of(cadence, 2.0, END_S)
    assert delay_of(cadence, 2.0, END_S + 9.0) == pytest.approx(at_end + 9.0)
    assert age_of(cadence, 2.0, at_end + 9.0) == pytest.approx(END_S + 9.0)


@settings(deadline=None, max_examples=300)  # a busy machine is no failure
@given(ANY, st.one_of(AGES, ODD), st.one_of(AGES, ODD), st.one_of(AGES, ODD))
@example(CADENCES["of nothing"], 1e300, math.inf, 1.0)
@example(CADENCES["of nothing"], math.inf, math.inf, math.inf)
def test_no_number_makes_delays_raise(cadence: LearnedPauses, after: float, by: float, delay: float) -> None:
    found = delay_of(cadence, after, by)
    assert found >= 0.0
    age = age_of(cadence, after, delay)
    assert age >= 0.0
    assert math.isfinite(age) or not (math.isfinite(after) and math.isfinite(delay))


@pytest.mark.parametrize("after", [-1.0, -math.inf])
def test_a_negative_age_counts_as_zero(after: float) -> None:
    for cadence in CADENCES.values():
        assert delay_of(cadence, after, 5.0) == delay_of(cadence, 0.0, 5.0)
        assert age_of(cadence, after, 2.0) == age_of(cadence, 0.0, 2.0)


def test_a_group_that_nobody_knows_has_the_delay_of_all() -> None:
    cadence = CADENCES["of short runs"]
    assert cadence.delay(("new",), 0, after=0.0, by=9.0) == pytest.approx(delay_of(cadence, 0.0, 9.0), rel=0.1)
    usual = CADENCES["of nothing"].delay((), 1, after=0.0, by=9.0)
    assert cadence.delay(GROUP, 1, after=0.0, by=9.0) == usual


@pytest.mark.parametrize("cadence", [Cadence.hinted(), Cadence.fixed(2.0), Cadence.backoff()])
def test_who_learns_nothing_knows_of_no_delay(cadence: Cadence) -> None:
    assert strategy_of(cadence).delay(GROUP, 0, after=0.0, by=9.0) is None
    assert strategy_of(cadence).age_of_delay(GROUP, 0, after=0.0, delay=9.0) is None
