"""The pauses of the strategies that only count polls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncruns.cadence import Cadence
from asyncruns.cadence.cadence import strategy_of
from asyncruns.cadence.strategy import Course, Strategy
from asyncruns.errors import ConfigurationError


def pauses(cadence: Cadence, polls: int = 6, hint: float | None = None) -> list[float]:
    return [strategy_of(cadence).pause(Course(polls=poll, hint=hint)) for poll in range(1, polls + 1)]


def test_pauses_grow_by_half_from_the_start_to_the_interval() -> None:
    assert pauses(Cadence.hinted(2.0, start=0.5)) == pytest.approx([0.5, 0.75, 1.125, 1.6875, 2.0, 2.0])


def test_the_default_goes_from_a_quarter_second_to_a_second() -> None:
    assert pauses(Cadence.hinted()) == pytest.approx([0.25, 0.375, 0.5625, 0.84375, 1.0, 1.0])


def test_a_start_beyond_the_interval_is_the_interval() -> None:
    assert pauses(Cadence.hinted(0.1), polls=2) == [0.1, 0.1]


def test_a_fixed_pause_never_changes() -> None:
    assert pauses(Cadence.fixed(3.0), polls=100) == [3.0] * 100
    assert pauses(Cadence.fixed(3.0), hint=0.5) == [3.0] * 6


def test_backoff_grows_to_its_ceiling() -> None:
    assert pauses(Cadence.backoff()) == pytest.approx([0.5, 0.75, 1.125, 1.6875, 2.53125, 3.796875])
    assert pauses(Cadence.backoff(1.0, growth=4.0, ceiling=5.0), polls=4) == [1.0, 4.0, 5.0, 5.0]


def test_in_a_backoff_a_hint_is_the_shortest_pause() -> None:
    assert pauses(Cadence.backoff(1.0, growth=2.0), hint=3.0) == [3.0, 3.0, 4.0, 8.0, 10.0, 10.0]
    assert pauses(Cadence.backoff(), hint=3600.0) == [60.0] * 6
    assert pauses(Cadence.backoff(100.0, ceiling=100.0), hint=3600.0) == [100.0] * 6


def test_before_the_first_poll_the_pause_is_the_first_one() -> None:
    assert strategy_of(Cadence.hinted()).pause(Course(polls=0)) == 0.25


@pytest.mark.parametrize("cadence", [Cadence.hinted(60.0), Cadence.backoff(ceiling=60.0), Cadence.fixed(60.0)])
def test_a_watch_of_days_has_its_steady_pause(cadence: Cadence) -> None:
    assert strategy_of(cadence).pause(Course(polls=1_000_000)) == 60.0


@pytest.mark.parametrize(
    ("hint", "pause"), [(7.5, 7.5), (0.05, 0.05), (0.049, 0.05), (-1.0, 0.05), (60.0, 60.0), (60.1, 60.0)]
)
def test_a_hint_is_clamped_to_a_twentieth_of_a_second_and_a_minute(hint: float, pause: float) -> None:
    assert strategy_of(Cadence.hinted(600.0, start=600.0)).pause(Course(polls=1, hint=hint)) == pause


@given(polls=st.integers(), hint=st.floats() | st.none())
def test_a_pause_is_positive_and_at_most_a_minute(polls: int, hint: float | None) -> None:
    for cadence in (Cadence.hinted(), Cadence.backoff(), Cadence.fixed(1.0)):
        assert 0.05 <= strategy_of(cadence).pause(Course(polls=polls, hint=hint)) <= 60.0


@pytest.mark.parametrize("seconds", [0, 0.0, -1.0, float("nan"), float("inf")])
def test_a_pause_that_is_not_positive_and_finite_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="interval must be more than 0 seconds"):
        Cadence.fixed(seconds)
    with pytest.raises(ConfigurationError, match="interval must be more than 0 seconds"):
        Cadence.hinted(seconds)
    with pytest.raises(ConfigurationError, match="start must be more than 0 seconds"):
        Cadence.hinted(start=seconds)
    with pytest.raises(ConfigurationError, match="start must be more than 0 seconds"):
        Cadence.backoff(seconds)
    with pytest.raises(ConfigurationError, match="ceiling must be more than 0 seconds"):
        Cadence.backoff(ceiling=seconds)


@pytest.mark.parametrize("growth", [0.99, -2.0, float("nan"), float("inf")])
def test_a_backoff_that_does_not_grow_is_refused(growth: float) -> None:
    with pytest.raises(ConfigurationError, match=f"a finite factor of at least 1, got {growth}"):
        Cadence.backoff(growth=growth)


def test_a_pause_may_be_a_millisecond() -> None:
    assert strategy_of(Cadence.fixed(0.001)).pause(Course(polls=1)) == 0.001


@pytest.mark.parametrize("cadence", [Cadence.hinted(), Cadence.backoff(), Cadence.fixed(1.0)])
def test_a_cadence_that_does_not_learn_ignores_durations(cadence: Cadence) -> None:
    before = pauses(cadence)
    strategy_of(cadence).learn(("asst_1",), 0, after=1.0, by=2.0)
    assert pauses(cadence) == before


def test_a_strategy_must_implement_pause() -> None:
    with pytest.raises(NotImplementedError):
        Strategy().pause(Course(polls=1))
