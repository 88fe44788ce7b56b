"""The cadence that learns: when it polls after it has seen runs end."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from histories import GROUP, chance, delay, learned, lognormal, polls, teach, two_humps, watch

from asyncruns.cadence import Cadence
from asyncruns.cadence.learned_durations import GROUPS_KEPT
from asyncruns.cadence.strategy import Course
from asyncruns.errors import ConfigurationError


def test_before_any_run_ended_pauses_grow_with_age() -> None:
    ages = polls(learned(), 1000.0)
    pauses = [later - age for age, later in pairwise(ages)]
    assert 0.3 < ages[0] < 1.0
    assert pauses[0] < 1.0 < pauses[-1] < 20.0
    assert pauses == pytest.approx(sorted(pauses), rel=0.6)  # an age of the grid too early or too late


def test_the_gap_between_two_humps_is_skipped() -> None:
    cadence = learned()
    teach(cadence, two_humps(500))
    ages = polls(cadence, 60.0)
    assert [age for age in ages if 7.0 < age < 17.0] == []
    assert len([age for age in ages if age < 5.0]) > 3
    assert len([age for age in ages if 35.0 < age < 55.0]) > 9


def test_constant_durations_are_polled_just_after_their_end() -> None:
    cadence = learned()
    teach(cadence, [5.0] * 200)
    first = polls(cadence, 10.0)[0]
    assert 5.0 <= first < 5.5


def test_constant_durations_are_learned_from_its_own_polls() -> None:
    cadence = learned()
    watch(cadence, [20.0] * 200)
    ages = polls(cadence, 20.0)
    assert len(ages) < 8
    assert ages[-1] - 20.0 < 0.6


def test_runs_that_end_at_random_are_polled_nearly_evenly() -> None:
    random = Random(3)
    cadence = learned(0.05)
    teach(cadence, [random.expovariate(0.1) for _ in range(2000)])
    ages = polls(cadence, 20.0)
    pauses = [later - age for age, later in pairwise(ages)]
    assert all(0.7 < pause < 1.5 for pause in pauses)


def test_runs_of_minutes_are_polled_as_closely_as_their_ends_are_known() -> None:
    cadence = learned(0.05, ceiling=60.0)
    teach(cadence, lognormal(600.0, 0.03, 300))
    around = [age for age in polls(cadence, 700.0) if 580.0 < age < 620.0]
    assert all(0.5 < later - age < 3.0 for age, later in pairwise(around))


def test_few_runs_do_not_decide() -> None:
    cadence = learned()
    teach(cadence, [30.0, 30.0])
    assert len([age for age in polls(cadence, 30.0) if age < 20.0]) > 3


def test_the_more_a_poll_is_worth_the_fewer_polls_there_are() -> None:
    counts = []
    for poll_worth in (0.01, 0.1, 1.0):
        cadence = learned(poll_worth)
        teach(cadence, lognormal(20.0, 0.5, 200))
        counts.append(len(polls(cadence, 40.0)))
    assert counts[0] > 2 * counts[1] > 4 * counts[2]


def test_a_shift_is_followed_after_tens_of_runs() -> None:
    cadence, stationary = learned(), learned()
    new = lognormal(4.0, 0.8, 300, seed=2)
    teach(stationary, new)
    watch(cadence, lognormal(30.0, 0.3, 300))
    assert delay(cadence, new) > 5 * delay(stationary, new)
    watch(cadence, new[:60])
    assert delay(cadence, new) < 1.3 * delay(stationary, new)


def test_a_new_mode_within_a_gap_is_found() -> None:
    cadence = learned()
    watch(cadence, two_humps(300))
    watch(cadence, [12.0] * 200)
    assert min(abs(age - 12.0) for age in polls(cadence, 20.0)) < 1.0


def test_its_own_polls_teach_it_the_same_as_exact_durations() -> None:
    exact, seen = learned(), learned()
    ends = lognormal(20.0, 0.5, 400)
    teach(exact, ends)
    watch(seen, ends)
    for age in (10.0, 20.0, 40.0):
        known, found = chance(exact, after=0.0, by=age), chance(seen, after=0.0, by=age)
        assert found == pytest.approx(known, abs=0.05)


def test_each_group_has_its_own_durations() -> None:
    cadence = learned()
    teach(cadence, [3.0] * 100, ("asst_1", "small"))
    teach(cadence, [40.0] * 100, ("asst_1", "large"))
    assert polls(cadence, 60.0, ("asst_1", "small"))[0] < 4.0
    assert len([age for age in polls(cadence, 60.0, ("asst_1", "large")) if age < 35.0]) < 4


def test_a_new_group_starts_from_the_durations_of_all_groups() -> None:
    cadence = learned()
    teach(cadence, [20.0] * 100, ("asst_1",))
    assert polls(cadence, 30.0, ("asst_2",)) == polls(cadence, 30.0, ())
    assert polls(cadence, 30.0, ("asst_2",))[0] > 5.0
    teach(cadence, [20.0], ("asst_2",))
    assert polls(cadence, 30.0, ("asst_2",))[0] > 5.0


def test_each_stage_has_its_own_durations() -> None:
    cadence = learned()
    teach(cadence, [20.0] * 100)
    assert polls(cadence, 30.0, stage=1) == polls(learned(), 30.0)
    assert polls(cadence, 30.0)[0] > 5.0


def test_the_number_of_remembered_groups_is_bounded() -> None:
    cadence = learned()
    for number in range(2 * GROUPS_KEPT):
        teach(cadence, [1.0], ("always",))
        teach(cadence, [1.0], (f"asst_{number}",))
    assert f"groups={GROUPS_KEPT - 1} " in repr(cadence)
    # The oldest group was forgotten, and those with recent runs were not.
    assert chance(cadence, ("asst_0",), 0, after=0.0, by=2.0) == chance(cadence, (), 0, after=0.0, by=2.0)
    always, last = (
        chance(cadence, (name,), 0, after=0.0, by=2.0) for name in ("always", f"asst_{2 * GROUPS_KEPT - 1}")
    )
    assert len({always, last, chance(cadence, (), 0, after=0.0, by=2.0)}) == 3


def test_a_hint_is_the_shortest_pause() -> None:
    cadence = learned(ceiling=20.0)
    teach(cadence, lognormal(4.0, 0.8, 50))
    usual = cadence.pause(Course(polls=1, age=3.0, group=GROUP))
    assert usual < 1.0
    for hint, pause in ((0.01, usual), (-5.0, usual), (math.nan, usual), (7.5, 7.5), (3600.0, 20.0)):
        assert cadence.pause(Course(polls=1, age=3.0, group=GROUP, hint=hint)) == pause


def test_runs_older_than_the_grid_are_polled_at_the_ceiling() -> None:
    cadence = learned(ceiling=20.0)
    assert [cadence.pause(Course(polls=9, age=age)) for age in (3700.0, 1e9, math.inf, math.nan)] == [20.0] * 4


def test_a_run_older_than_all_others_is_polled() -> None:
    cadence = learned()
    teach(cadence, lognormal(2.0, 0.3, 1000))
    ages = polls(cadence, 120.0)
    assert len([age for age in ages if age > 20.0]) > 10


def test_its_repr_shows_how_much_it_has_learned() -> None:
    cadence = learned(0.1, ceiling=10.0)
    assert repr(cadence) == "<Cadence.learned poll_worth=0.1 floor=0.1 ceiling=10.0 groups=0 runs=0>"
    teach(cadence, [1.0, 2.0])
    teach(cadence, [1.0], stage=1)
    teach(cadence, [1.0], ("asst_2",))
    teach(cadence, [1.0], ())
    assert repr(cadence) == "<Cadence.learned poll_worth=0.1 floor=0.1 ceiling=10.0 groups=2 runs=5>"


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["poll_worth", "floor", "ceiling"])
def test_a_number_of_seconds_that_is_not_positive_and_finite_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be more than 0 seconds and finite, got {seconds}"):
        Cadence.learned(**{name: seconds})


def test_a_floor_above_the_ceiling_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"floor must not be more than the ceiling of 1\.0 seconds, got 2\.0"):
        Cadence.learned(floor=2.0, ceiling=1.0)
