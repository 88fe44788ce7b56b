"""How much a look is worth: levels by the delay that it is expected to end, which a run reaches by waiting."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncruns.cadence import Cadence
from asyncruns.fleet.budget import Budget
from asyncruns.fleet.member import STEP, TOP_DELAY_S, Member
from asyncruns.fleet.schedule import LEVELS, Schedule
from asyncruns.lifecycle import Begun, Call, Observed, Phase, Policy, RunLifecycle, Snapshot

TOP = LEVELS - 1
BEGIN = 100.0
A = Call(id="call_a", name="f")


class Ranked(Member):
    """A run of which only the rank matters."""

    __slots__ = ()

    def __init__(self, cadence: Cadence, *looks: Phase, **facts: Any) -> None:
        super(Member, self).__init__()
        self.machine = RunLifecycle(Policy(cadence=cadence, timeout=None))
        self.machine.receive(Begun(BEGIN))
        for phase in looks:
            calls = (A,) if phase is Phase.NEEDS_CALLER else ()
            shown: Snapshot[None] = Snapshot(phase=phase, status=phase.value, resource=None, calls=calls, **facts)
            self.machine.receive(Observed(BEGIN, shown))


def learned() -> Cadence:
    cadence = Cadence.learned()
    for number in range(60):
        cadence.learn((), 0, after=5.0 + number % 5, by=6.0 + number % 5)
    return cadence


CADENCES = st.sampled_from([Cadence.hinted(), Cadence.learned(), learned()])
LOOKS = st.sampled_from([(), (Phase.RUNNING,), (Phase.NEEDS_CALLER,), (Phase.RUNNING, Phase.NEEDS_CALLER)])
CREATED = st.sampled_from([None, 1000.0, 990.0, -5000.0, -1.7e9, -6e10])


@settings(deadline=None, max_examples=150)  # a busy machine is no failure
@given(CADENCES, LOOKS, CREATED, st.lists(st.floats(0.0, 60.0), min_size=2, max_size=20).map(sorted))
def test_a_rank_never_falls_and_rises_when_it_says(
    cadence: Cadence, looks: tuple[Phase, ...], created_at: float | None, waits: list[float]
) -> None:
    run = Ranked(cadence, *looks, created_at=created_at, server_time=1000.0)
    last = (0, -math.inf)
    for wait in waits:
        now = BEGIN + wait
        level, rises_at = run.rank(now)
        assert 0 <= level <= TOP
        assert level >= last[0]
        assert level == last[0] or now >= last[1] - 1e-3, "it rose before it said"
        assert rises_at > now - 1e-3
        assert (rises_at == math.inf) is (level == TOP)
        last = (level, rises_at)


@settings(deadline=None, max_examples=100)  # a busy machine is no failure
@given(CADENCES, LOOKS, CREATED)
def test_waiting_alone_leads_to_the_top_without_spinning(
    cadence: Cadence, looks: tuple[Phase, ...], created_at: float | None
) -> None:
    run = Ranked(cadence, *looks, created_at=created_at, server_time=1000.0)
    budget = Budget(0.0001, 10)
    budget.take(BEGIN)
    schedule: Schedule[Ranked] = Schedule(budget)
    schedule.look(run, BEGIN)
    now, wake_at, levels = BEGIN, BEGIN, [-1]
    while levels[-1] < TOP and len(levels) < 3 * LEVELS:
        now = max(now, wake_at)
        wake_at = schedule.plan(now, 1).wake_at
        levels.append(run.level)
    assert levels == sorted(levels)
    assert levels[-1] == TOP
    assert now <= BEGIN + 10 * TOP_DELAY_S / 0.1


@pytest.mark.parametrize("level", range(1, LEVELS))
def test_each_level_is_of_some_times_the_delay_of_the_one_below(level: int) -> None:
    run = Ranked(Cadence.hinted(), Phase.RUNNING)
    seconds = 2 * TOP_DELAY_S * STEP ** (level - TOP)  # half of the time since the look is its delay
    assert run.rank(BEGIN)[0] == 0
    assert run.rank(BEGIN + seconds * 0.999)[0] == level - 1
    assert run.rank(BEGIN + seconds * 1.001)[0] == level
    assert run.rank(BEGIN + seconds * 0.999)[1] == pytest.approx(BEGIN + seconds)


def test_a_run_past_its_expiry_is_looked_at_before_all_others() -> None:
    run = Ranked(Cadence.hinted(), Phase.RUNNING, expires_at=1001.0, server_time=1000.0)
    level, rises_at = run.rank(BEGIN + 0.9)
    assert level < TOP
    assert rises_at <= BEGIN + 1.0
    assert run.rank(BEGIN + 1.0) == (TOP, math.inf)
