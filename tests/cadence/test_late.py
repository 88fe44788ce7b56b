"""Runs that the server says are older than their watch: which of their two ages a learned cadence uses."""

from __future__ import annotations

from random import Random

import pytest
from histories import GROUP, chance, learned
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncruns.cadence import Cadence
from asyncruns.cadence.cadence import strategy_of
from asyncruns.cadence.learned_durations import GROUPS_KEPT
from asyncruns.cadence.learned_pauses import LearnedPauses
from asyncruns.cadence.strategy import Course

YEARS_S = 9e7
STEP_S = 0.25  # between the two polls that an end lies between


def pause(cadence: LearnedPauses, unseen: float, *, seen: float = 0.0, hint: float | None = None) -> float:
    """Return the pause of a run whose watch began at the told age `unseen`, after it was watched for `seen` seconds."""
    return cadence.late(unseen).pause(Course(polls=1, age=unseen + seen, hint=hint, group=GROUP))


def end(cadence: LearnedPauses, unseen: float, lasts: float) -> None:
    """End a run `lasts` seconds after its watch began."""
    cadence.late(unseen).learn(GROUP, 0, after=unseen + max(lasts - STEP_S, 0.0), by=unseen + lasts)


def whole(cadence: LearnedPauses, lasts: float, runs: int = 50) -> LearnedPauses:
    """End runs that were watched from the start."""
    for _ in range(runs):
        cadence.learn(GROUP, 0, after=lasts - STEP_S, by=lasts)
    return cadence


def handed_over(cadence: LearnedPauses, lasts: float, runs: int = 40, wrong_by: float = 0.0) -> LearnedPauses:
    """End runs that all last equally long, and whose watches began at random ages."""
    random = Random(5)
    for _ in range(runs):
        age = random.uniform(1.0, lasts - 1.0)
        end(cadence, age + wrong_by, lasts - age)
    return cadence


def constant(cadence: LearnedPauses, lasts: float = 5.0, runs: int = 40, unseen: float = YEARS_S) -> LearnedPauses:
    """End runs whose watches all began at the same told age."""
    for _ in range(runs):
        end(cadence, unseen, lasts)
    return cadence


@pytest.mark.parametrize("cadence", [Cadence.hinted(), Cadence.fixed(2.0), Cadence.backoff()])
def test_a_cadence_that_does_not_learn_is_the_same_for_late_watches(cadence: Cadence) -> None:
    assert strategy_of(cadence).late(3600.0) is strategy_of(cadence)


@pytest.mark.parametrize("unseen", [3.0, 60.0, 300.0, 3600.0, 28_800.0, YEARS_S])
def test_before_any_run_ended_a_run_is_polled_as_if_it_began_with_its_watch(unseen: float) -> None:
    cadence = learned()
    for seen in (0.0, 1.0, 20.0, 100.0):
        fresh = cadence.pause(Course(polls=1, age=seen, group=GROUP))
        assert pause(cadence, unseen, seen=seen) == pytest.approx(fresh, rel=0.1)


@pytest.mark.parametrize("unseen", [30.0, 300.0, 3600.0, 28_800.0, YEARS_S])
def test_if_the_told_ages_are_wrong_the_durations_as_watched_are_learned(unseen: float) -> None:
    cadence = constant(learned(), unseen=unseen)
    assert pause(cadence, unseen) == pytest.approx(5.0, abs=0.4)
    assert pause(cadence, unseen, seen=5.0) < 1.0


def test_if_the_told_ages_are_random_the_durations_as_watched_are_learned() -> None:
    cadence, random = learned(), Random(7)
    for _ in range(60):
        end(cadence, random.uniform(1.0, 7200.0), 5.0)
    assert pause(cadence, 1800.0) == pytest.approx(5.0, abs=0.4)


def test_if_the_told_ages_are_right_they_are_learned() -> None:
    cadence = handed_over(learned(), 45.0)
    assert pause(cadence, 25.0) == pytest.approx(20.0, abs=2.0)
    assert pause(cadence, 40.0) == pytest.approx(5.0, abs=2.0)


def test_told_ages_that_were_right_are_given_up_when_they_become_wrong() -> None:
    cadence = handed_over(learned(), 45.0)
    constant(cadence, runs=60, unseen=3600.0)
    assert 2.0 < pause(cadence, 3600.0) < 5.5


def test_a_run_that_is_said_to_be_nearly_over_is_polled_in_time() -> None:
    cadence = whole(learned(), 60.0)
    assert cadence.pause(Course(polls=1, age=0.0, group=GROUP)) > 10.0
    assert pause(cadence, 57.0, seen=1.5) < 2.0


@pytest.mark.parametrize("seen", [0.0, 0.5, 1.0, 3.0, 10.0])
def test_no_pause_is_longer_than_the_run_was_watched_until_it_is_clear_which_age_counts(seen: float) -> None:
    cadence = whole(learned(), 60.0)
    for unseen in (3.0, 3600.0, YEARS_S):
        assert pause(cadence, unseen, seen=seen) <= max(1.0, seen) + 1e-6


def test_a_told_age_that_no_known_run_has_reached_is_not_believed() -> None:
    cadence = handed_over(whole(learned(), 45.0), 45.0)
    assert pause(cadence, 20.0) > 20.0  # the told ages are right here
    assert pause(cadence, 28_800.0) <= 1.0


def test_if_the_told_ages_are_right_runs_watched_from_their_middle_do_not_blur_whole_ones() -> None:
    cadence = handed_over(learned(), 45.0)
    before = chance(whole(cadence, 45.0, runs=400), after=0.0, by=30.0)
    handed_over(cadence, 45.0)
    assert chance(cadence, after=0.0, by=30.0) == before


def test_one_run_does_not_decide() -> None:
    cadence = handed_over(learned(), 45.0, runs=2)
    end(cadence, YEARS_S, 5.0)
    assert pause(cadence, YEARS_S, seen=2.0) <= 2.0


def test_a_hint_is_the_shortest_pause_for_a_late_watch_too() -> None:
    cadence = constant(learned(ceiling=20.0))
    usual = pause(cadence, YEARS_S, seen=5.0)
    assert pause(cadence, YEARS_S, seen=5.0, hint=0.01) == usual
    assert pause(cadence, YEARS_S, seen=5.0, hint=7.5) == 7.5
    assert pause(cadence, YEARS_S, seen=5.0, hint=3600.0) == 20.0


def test_the_number_of_groups_with_told_ages_is_bounded() -> None:
    cadence = learned()
    for number in range(GROUPS_KEPT + 5):
        cadence.late(100.0).learn((f"asst_{number}",), 0, after=101.0, by=102.0)
    assert "groups=63 " in repr(cadence)
    assert len(cadence.learned._told) == GROUPS_KEPT  # there is no other way to see it


LATE = {
    "nothing known": learned(),
    "whole runs known": whole(learned(), 8.0),
    "nothing clear": handed_over(learned(), 45.0, runs=1),
    "watched ages": constant(learned()),
    "told ages": handed_over(learned(), 45.0),
}


@settings(deadline=None, max_examples=200)  # a busy machine is no failure
@given(
    name=st.sampled_from(list(LATE)),
    unseen=st.sampled_from([2.0, 20.0, 3000.0, 28_800.0]),
    seen=st.floats(0.0, 50.0),
    delay=st.floats(0.01, 100.0),
)
def test_the_age_of_a_delay_is_its_inverse(name: str, unseen: float, seen: float, delay: float) -> None:
    late = LATE[name].late(unseen)
    after = unseen + seen
    age = late.age_of_delay(GROUP, 0, after=after, delay=delay)
    assert age is not None
    assert after <= age <= after + 3600.0 + delay
    again = late.delay(GROUP, 0, after=after, by=age)
    assert again is not None
    assert delay * (1.0 - 1e-6) - 1e-5 <= again <= delay + 0.02 * (1.0 + age)
