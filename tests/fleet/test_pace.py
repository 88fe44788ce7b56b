"""The pace: refusals slow it down only if the refused share falls with the rate."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusing import Server, play
from windows import BEGIN

from asyncruns.fleet.budget import Budget
from asyncruns.fleet.pace import (
    FORGOTTEN_AT,
    LEAST_ASKED_PER_S,
    LEAST_CUT,
    MOST_CUT,
    NOISE_FOR_S,
    SLOWEST_PER_S,
    Pace,
)
from asyncruns.fleet.pace_trial import TRIAL_ANSWERS, WINDOW_S

ENDLESS = math.inf


class AnsweredPace:
    """A pace whose requests are all sent as soon as allowed, and answered at once."""

    def __init__(self, limit: float) -> None:
        self.pace = Pace(limit)
        self.now = BEGIN
        self._to_refuse = 0.0

    def go_on(self, seconds: float, share: float = 0.0, rate: float = math.inf) -> float:
        """Send for some seconds, with a share refused at even intervals; return the mean rate."""
        end, sent, pace = self.now + seconds, 0, self.pace
        while self.now < end:
            self.now += 1.0 / min(pace.at(self.now), rate, 1000.0)
            pace.send(self.now)
            pace.answer()
            sent += 1
            self._to_refuse += share
            if self._to_refuse >= 1.0:
                self._to_refuse -= 1.0
                pace.refuse(self.now)
        return sent / seconds


# A limit


@pytest.mark.parametrize(("takes", "most_refused"), [(5.0, 0.1), (20.0, 0.04), (80.0, 0.03)])
@pytest.mark.parametrize("ours", [0.2, 1.0, 2.0, 25.0, None])
def test_the_rate_that_a_server_accepts_is_used_and_little_is_refused(
    takes: float, most_refused: float, ours: float | None
) -> None:
    server = Server(takes)
    rate = None if ours is None else ours * takes
    taken = play(Budget(rate, 100), server, 400.0)
    assert server.refused <= most_refused * server.sent
    assert taken >= 0.9 * min(takes, rate or math.inf)
    assert server.refused == 0 or rate is None or rate > takes


def test_the_rate_is_cut_to_what_the_server_accepted() -> None:
    answering = AnsweredPace(50.0)
    answering.go_on(60.0)
    answering.go_on(1.3, 0.6)  # a second of a trial that began with the first refusal
    assert answering.pace.rate == pytest.approx(20.0, rel=0.1)
    answering.go_on(8.0)
    assert 15.0 <= answering.pace.rate < 23.0
    answering.go_on(30.0)
    assert answering.pace.rate == 50.0  # no more refusals: the limit is gone


def test_one_refusal_is_one_small_cut_which_is_held_until_it_is_judged() -> None:
    answering = AnsweredPace(50.0)
    answering.go_on(10.0)
    answering.pace.refuse(answering.now)
    assert answering.pace.rate == pytest.approx(50.0 * (1.0 - LEAST_CUT))
    answering.go_on(TRIAL_ANSWERS / 50.0 - 0.5)
    assert answering.pace.rate == pytest.approx(50.0 * (1.0 - LEAST_CUT))
    answering.go_on(10.0)
    assert answering.pace.rate == 50.0


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
def test_the_rate_follows_a_limit_that_falls_within_seconds_and_one_that_rises(noise: float) -> None:
    server = Server(100.0, share=noise)
    budget = Budget(100.0, 100)
    play(budget, server, 300.0)
    server.takes = 20.0
    play(budget, server, 10.0, begin=BEGIN + 300.0)
    server.sent = server.refused = 0
    assert play(budget, server, 100.0, begin=BEGIN + 310.0) >= 0.7 * 20.0
    assert server.refused <= (0.03 + 3.5 * noise) * server.sent
    server.takes = 100.0
    play(budget, server, 60.0, begin=BEGIN + 410.0)
    assert play(budget, server, 100.0, begin=BEGIN + 470.0) >= 0.7 * 100.0 * (1.0 - noise)


def test_a_slow_server_is_not_taken_for_one_that_refuses_at_random() -> None:
    server = Server(50.0)
    assert play(Budget(100.0, 100), server, 600.0, latency=1.5) >= 0.85 * 50.0
    assert server.refused <= 0.08 * server.sent


def test_a_fleet_that_sends_less_than_it_may_is_cut_from_what_it_sends() -> None:
    answering = AnsweredPace(1000.0)
    answering.go_on(10.0, rate=40.0)
    answering.go_on(3.0, 0.5, rate=40.0)
    assert answering.pace.rate <= 25.0


# No limit


@pytest.mark.parametrize("share", [0.02, 0.07, 0.15, 0.3, 0.45, 0.6])
@pytest.mark.parametrize("rate", [5.0, 50.0, 100.0])
def test_refusals_that_have_nothing_to_do_with_the_rate_do_not_slow_the_fleet(rate: float, share: float) -> None:
    for seed in range(2):
        server = Server(ENDLESS, share, seed=seed)
        play(Budget(rate, 100), server, 200.0)
        assert server.sent / 200.0 >= (0.4 if rate < 30.0 else 0.8) * rate


@pytest.mark.parametrize("share", [0.07, 0.15, 0.3])
def test_without_a_limit_of_ours_the_first_refusal_is_not_taken_for_the_servers_limit(share: float) -> None:
    server = Server(ENDLESS, share)
    play(Budget(None, 64), server, 30.0)
    assert server.sent / 30.0 >= 0.15 * 57 / 0.05  # a part of what 57 places in flight and 50 ms each allow


@pytest.mark.parametrize("rate", [20.0, 50.0, 200.0])
def test_periods_in_which_all_is_refused_do_not_slow_the_rest(rate: float) -> None:
    server = Server(ENDLESS, closed=2.0)
    assert play(Budget(rate, 100), server, 300.0) >= 0.6 * rate


@pytest.mark.parametrize(("takes", "share"), [(20.0, 0.07), (20.0, 0.3), (40.0, 0.15)])
@pytest.mark.parametrize("rate", [50.0, 200.0, None])
def test_a_limit_is_found_among_refusals_that_have_nothing_to_do_with_it(
    rate: float | None, takes: float, share: float
) -> None:
    server = Server(takes, share)
    taken = play(Budget(rate, 64), server, 300.0)
    assert taken >= 0.8 * takes
    assert server.refused <= (share + 0.25) * server.sent


def test_a_share_that_does_not_fall_is_noise_for_a_minute_and_is_then_tested_again() -> None:
    answering = AnsweredPace(50.0)
    answering.go_on(20.0, 0.3)
    assert answering.pace.noise == pytest.approx(0.3, abs=0.1)
    assert answering.go_on(NOISE_FOR_S - 25.0, 0.3) == pytest.approx(50.0, rel=0.03)
    rates = []
    for _ in range(40):
        answering.go_on(0.5, 0.3)
        rates.append(answering.pace.rate)
    assert min(rates) < 40.0
    assert answering.pace.rate == 50.0


def test_a_share_above_the_noise_cuts_the_rate() -> None:
    answering = AnsweredPace(50.0)
    answering.go_on(20.0, 0.1)
    assert answering.pace.rate == 50.0
    answering.go_on(WINDOW_S + 2.0, 0.7)
    assert answering.pace.rate < 25.0


# Recovery


@pytest.mark.parametrize("rate", [1.0, 50.0, 10_000.0])
def test_after_a_minute_in_which_all_is_refused_the_full_rate_comes_back_within_a_minute(rate: float) -> None:
    answering = AnsweredPace(rate)
    answering.go_on(60.0, 1.0)
    assert answering.pace.rate <= max(0.1 * rate, LEAST_ASKED_PER_S)
    answering.go_on(60.0)
    assert answering.pace.rate == rate


def test_a_rate_below_the_slowest_is_kept() -> None:
    pace = Pace(0.02)
    pace.send(BEGIN)
    pace.answer()
    pace.refuse(BEGIN)
    assert pace.rate == 0.02


def test_without_a_limit_of_ours_there_is_none_before_a_refusal_and_none_some_time_later() -> None:
    answering = AnsweredPace(math.inf)
    answering.go_on(5.0, rate=100.0)
    answering.pace.refuse(answering.now)
    cut = answering.pace.rate
    assert cut <= 110.0 * (1.0 - LEAST_CUT)
    while answering.pace.rate < math.inf:
        assert cut <= answering.pace.rate <= 110.0 * FORGOTTEN_AT
        answering.go_on(0.5, rate=100.0)
        assert answering.now < BEGIN + 60.0


@settings(deadline=None, max_examples=30)
@given(
    limit=st.sampled_from([1.0, 7.7, 50.0, 200.0, math.inf]),
    parts=st.lists(st.tuples(st.floats(0.1, 20.0), st.floats(0.0, 1.0)), max_size=6),
)
def test_whatever_was_refused_the_rate_is_in_its_bounds_and_comes_back(
    limit: float, parts: list[tuple[float, float]]
) -> None:
    answering = AnsweredPace(limit)
    pace = answering.pace
    for seconds, share in parts:
        before = pace.at(answering.now)
        answering.go_on(seconds, share, rate=100.0)
        assert min(SLOWEST_PER_S, limit) <= pace.rate <= limit
        assert share > 0.0 or pace.rate >= before * (1.0 - MOST_CUT)
    answering.go_on(180.0, rate=100.0)
    assert pace.rate == limit
