"""The pauses between looks, as the strategies give them."""

from __future__ import annotations

import pytest

from asyncruns.cadence import Cadence
from asyncruns.errors import ConfigurationError


def pauses(cadence: Cadence, looks: int = 6, hint: float | None = None) -> list[float]:
    return [cadence.pause(look, hint) for look in range(1, looks + 1)]


def test_pauses_grow_by_half_from_the_start_to_the_interval() -> None:
    assert pauses(Cadence.hinted(2.0, start=0.5)) == pytest.approx([0.5, 0.75, 1.125, 1.6875, 2.0, 2.0])


def test_the_default_goes_from_a_quarter_second_to_a_second() -> None:
    assert pauses(Cadence.hinted()) == pytest.approx([0.25, 0.375, 0.5625, 0.84375, 1.0, 1.0])


def test_a_start_beyond_the_interval_is_the_interval() -> None:
    assert pauses(Cadence.hinted(0.1), looks=2) == [0.1, 0.1]


def test_a_fixed_pause_never_changes() -> None:
    assert pauses(Cadence.fixed(3.0), looks=100) == [3.0] * 100
    assert pauses(Cadence.fixed(3.0), hint=0.5) == [3.0] * 6


def test_before_the_first_look_the_pause_is_the_first() -> None:
    assert Cadence.hinted().pause(0, None) == 0.25


def test_a_watch_of_days_has_its_steady_pause() -> None:
    assert Cadence.hinted(60.0).pause(1_000_000, None) == 60.0


@pytest.mark.parametrize(
    ("hint", "pause"), [(7.5, 7.5), (0.05, 0.05), (0.049, 0.05), (-1.0, 0.05), (60.0, 60.0), (60.1, 60.0)]
)
def test_a_hint_is_followed_between_a_twentieth_of_a_second_and_a_minute(hint: float, pause: float) -> None:
    assert Cadence.hinted(600.0, start=600.0).pause(1, hint) == pause


@pytest.mark.parametrize("seconds", [0, 0.0, -1.0, float("nan")])
def test_a_pause_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="interval must be more than 0 seconds"):
        Cadence.fixed(seconds)
    with pytest.raises(ConfigurationError, match="interval must be more than 0 seconds"):
        Cadence.hinted(seconds)
    with pytest.raises(ConfigurationError, match="start must be more than 0 seconds"):
        Cadence.hinted(start=seconds)


def test_a_pause_may_be_as_short_as_one_likes() -> None:
    assert Cadence.fixed(0.001).pause(1, None) == 0.001
