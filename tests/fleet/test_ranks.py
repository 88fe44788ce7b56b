"""The levels of polls, by the delay that a poll is expected to end; waiting raises them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncruns.cadence import Cadence
from asyncruns.cadence.cadence import strategy_of
from asyncruns.fleet.budget import Budget
from asyncruns.fleet.ranks import TOP_DELAY_S, rank_of, reaches_at
from asyncruns.fleet.schedule import LEVELS, Schedule, Slot
from asyncruns.lifecycle import Begun, Call, Observed, Phase, Policy, RunLifecycle, Snapshot

TOP = LEVELS - 1
BEGIN = 100.0
A = Call(id="call_a", name="f")


class Ranked(Slot):
    """A run with a real lifecycle, in a given state."""

    __slots__ = ("machine",)

    def __init__(self, cadence: Cadence, *polls: Phase, **facts: Any) -> None:
        super().__init__()
        self.machine = RunLifecycle(Policy(cadence=cadence, timeout=None))
        self.machine.receive(Begun(BEGIN))
        for phase in polls:
            calls = (A,) if phase is Phase.NEEDS_CALLER else ()
            shown: Snapshot[None] = Snapshot(phase=phase, status=phase.value, resource=None, calls=calls, **facts)
            self.machine.receive(Observed(BEGIN, shown))

    def rank(self, now: float) -> int:
        return rank_of(self.machine, now)

    def rises_at(self, level: int) -> float:
        return reaches_at(self.machine, level)


class Fixed(Slot):
    """A run that stays on its level."""

    __slots__ = ("worth",)

    def __init__(self, worth: int) -> None:
        super().__init__()
        self.worth = worth

    def rank(self, now: float) -> int:
        return self.worth

    def rises_at(self, level: int) -> float:
        return math.inf


def learned() -> Cadence:
    cadence = Cadence.learned()
    for number in range(60):
        strategy_of(cadence).learn((), 0, after=5.0 + number % 5, by=6.0 + number % 5)
    return cadence


CADENCES = st.sampled_from([Cadence.hinted(), Cadence.learned(), learned()])
POLLS = st.sampled_from([(), (Phase.RUNNING,), (Phase.NEEDS_CALLER,), (Phase.RUNNING, Phase.NEEDS_CALLER)])
CREATED = st.sampled_from([None, 1000.0, 990.0, -5000.0, -1.7e9, -6e10])


@settings(deadline=None, max_examples=150)  # a busy machine is no failure
@given(CADENCES, POLLS, CREATED, st.lists(st.floats(0.0, 60.0), min_size=2, max_size=20).map(sorted))
def test_a_rank_never_falls_and_rises_at_the_predicted_time(
    cadence: Cadence, polls: tuple[Phase, ...], created_at: float | None, waits: list[float]
) -> None:
    run = Ranked(cadence, *polls, created_at=created_at, server_time=1000.0)
    last, rises_at = 0, [-math.inf, *map(run.rises_at, range(1, LEVELS))]
    assert rises_at == sorted(rises_at)
    for wait in waits:
        now = BEGIN + wait
        level = run.rank(now)
        assert last <= level <= TOP
        assert rises_at[level] <= now * 1.02 - BEGIN * 0.02 + 1e-3, "it rose before the predicted time"
        assert level == TOP or rises_at[level + 1] >= now - 0.02 * wait - 1e-3, "it did not rise at the predicted time"
        last = level


@settings(deadline=None, max_examples=100)  # a busy machine is no failure
@given(CADENCES, POLLS, CREATED)
def test_waiting_alone_leads_to_the_top_without_spinning(
    cadence: Cadence, polls: tuple[Phase, ...], created_at: float | None
) -> None:
    run = Ranked(cadence, *polls, created_at=created_at, server_time=1000.0)
    budget = Budget(2.0, 10**6)
    schedule: Schedule[Slot] = Schedule(budget)
    schedule.poll(run, BEGIN)
    now, levels, plans = BEGIN, [0], 0
    while not run.is_polling:
        for _ in range(2):  # on the second highest level, more than the rate allows
            schedule.poll(Fixed(TOP - 1), now)
        wake_at = schedule.plan(now, 8).wake_at
        assert wake_at > now
        now, plans = wake_at, plans + 1
        assert plans < 1000
        if run.level in range(LEVELS):
            levels.append(run.level)
    assert levels == sorted(levels)
    assert now <= BEGIN + 10 * TOP_DELAY_S / 0.1


@pytest.mark.parametrize("level", range(1, LEVELS))
def test_each_level_begins_at_twice_the_delay_of_the_one_below(level: int) -> None:
    run = Ranked(Cadence.hinted(), Phase.RUNNING)
    seconds = 2 * TOP_DELAY_S * 2.0 ** (level - TOP)  # the expected delay is half of the time since the poll
    assert run.rank(BEGIN) == 0
    assert run.rank(BEGIN + seconds * 0.999) == level - 1
    assert run.rank(BEGIN + seconds * 1.001) == level
    assert run.rises_at(level) == pytest.approx(BEGIN + seconds)


def test_a_run_past_its_expiry_is_polled_before_all_others() -> None:
    run = Ranked(Cadence.hinted(), Phase.RUNNING, expires_at=1001.0, server_time=1000.0)
    assert run.rank(BEGIN + 0.9) < TOP
    assert run.rises_at(TOP) == BEGIN + 1.0
    assert run.rank(BEGIN + 1.0) == TOP
