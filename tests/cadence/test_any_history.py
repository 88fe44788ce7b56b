"""Whatever a learned cadence learns, its pauses are bounded, and its chances are probabilities."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from histories import GROUP, chance, learned, teach
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncruns.cadence.age_grid import AGES, CELLS, END_S, PER_FOLD, SCALE_S, position, smooth
from asyncruns.cadence.cheapest_polls import plan
from asyncruns.cadence.learned_pauses import LearnedPauses
from asyncruns.cadence.strategy import Course

GROUPS = st.sampled_from([GROUP, (), ("asst_2",)])
STAGES = st.integers(0, 1)
ANY = st.floats() | st.sampled_from([0.0, END_S, math.nextafter(END_S, 0.0), AGES[1], AGES[100]])
ENDS = st.lists(st.tuples(GROUPS, STAGES, ANY, ANY), max_size=12)


def taught(ends: list[tuple[tuple[str, ...], int, float, float]], **limits: float) -> LearnedPauses:
    cadence = learned(**limits)
    for group, stage, after, by in ends:
        cadence.learn(group, stage, after=after, by=by)
    return cadence


@given(ENDS, GROUPS, STAGES, st.integers(), ANY, ANY | st.none())
@settings(max_examples=50, deadline=None)
def test_a_pause_is_from_the_floor_to_the_ceiling(
    ends: Any, group: tuple[str, ...], stage: int, polls: int, age: float, hint: float | None
) -> None:
    cadence = taught(ends, floor=0.2, ceiling=5.0)
    assert 0.2 <= cadence.pause(Course(polls=polls, age=age, hint=hint, group=group, stage=stage)) <= 5.0


@given(ENDS, ANY, st.lists(ANY, min_size=2, max_size=5))
@settings(max_examples=50, deadline=None)
def test_a_chance_is_a_probability_and_grows_with_time(ends: Any, after: float, ages: list[float]) -> None:
    cadence = taught(ends)
    ordered = sorted(age for age in ages if not math.isnan(age))
    chances = [chance(cadence, after=after, by=age) for age in ordered]
    assert all(0.0 <= probability <= 1.0 for probability in chances)
    assert chances == sorted(chances)
    assert 0.0 <= chance(cadence, after=after, by=math.nan) <= 1.0


def test_by_an_infinite_age_a_run_has_ended_with_certainty() -> None:
    assert chance(learned(), after=5.0, by=math.inf) == 1.0


def test_a_duration_of_nan_is_ignored() -> None:
    cadence = learned()
    cadence.learn(GROUP, 0, after=1.0, by=math.nan)
    assert "runs=0" in repr(cadence)


def test_after_a_thousand_runs_earlier_ones_hardly_count() -> None:
    cadence, other = learned(), learned()
    teach(cadence, [100.0] * 500)
    for some in (cadence, other):
        teach(some, [2.0, 3.0, 4.0] * 400)
    for age in (2.5, 10.0, 99.0):
        known, lately = (chance(some, after=0.0, by=age) for some in (cadence, other))
        assert known == pytest.approx(lately, abs=0.05)


@given(st.floats(0.0, END_S, exclude_max=True))
def test_a_position_leads_back_to_its_age(age: float) -> None:
    assert 0.0 <= position(age) < CELLS
    assert SCALE_S * math.expm1(position(age) / PER_FOLD) == pytest.approx(age, rel=1e-9, abs=1e-9)


def test_smoothing_keeps_shares() -> None:
    masses = [0.0] * (CELLS + 1)
    masses[50], masses[200] = 1.0, 3.0
    smoothed = smooth(masses, 7)
    assert sum(smoothed) == pytest.approx(1.0)
    assert min(smoothed) == pytest.approx(0.0, abs=1e-15)
    assert smoothed[200] == max(smoothed)
    assert sum(smoothed[186:215]) == pytest.approx(0.75)
    assert smoothed[:36] == smoothed[215:251] == pytest.approx([0.0] * 36, abs=1e-15)


@given(st.integers(), st.floats(0.01, 1.0), st.floats(0.01, 3.0))
@settings(max_examples=10, deadline=None)
def test_no_other_polls_at_ages_of_the_grid_are_cheaper(seed: int, poll_worth: float, floor: float) -> None:
    random = Random(seed)
    left = sorted([1.0, *(random.random() ** 3 for _ in range(CELLS))], reverse=True)
    found = plan(left, poll_worth, floor)
    costs, best = [0.0] * (CELLS + 1), [0.0] * (CELLS + 1)
    where = {age: cell for cell, age in enumerate(AGES)}
    for cell in range(CELLS - 1, -1, -1):
        then = where[found[cell]] if found[cell] > 0.0 else cell + 1  # a pause within a cell counts as one cell
        costs[cell] = left[cell] * (poll_worth + AGES[then] - AGES[cell]) + costs[then]
        may = [n for n in range(cell + 1, CELLS) if AGES[n] >= AGES[cell] + floor]
        best[cell] = min(left[cell] * (poll_worth + AGES[n] - AGES[cell]) + best[n] for n in [*may, CELLS])
    assert costs[0] == pytest.approx(best[0], rel=1e-9)
