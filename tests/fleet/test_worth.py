"""What a poll is worth: the delay that it is expected to end, which grows, and brings each poll its turn."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncruns.cadence import Cadence
from asyncruns.cadence.cadence import strategy_of
from asyncruns.fleet.budget import Budget
from asyncruns.fleet.schedule import Schedule, Slot
from asyncruns.lifecycle import Begun, Call, Observed, Phase, Policy, RunLifecycle, Snapshot

BEGIN = 100.0
DELAY_S = 2.0
A = Call(id="call_a", name="f")


class Real(Slot):
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

    def delay(self, now: float) -> float:
        return self.machine.delay(now)

    def delayed_at(self, delay: float) -> float:
        return self.machine.delayed_at(delay)


class Other(Slot):
    """A run whose polls always end the same delay."""

    __slots__ = ()

    def delay(self, now: float) -> float:
        return DELAY_S

    def delayed_at(self, delay: float) -> float:
        return self.poll_at


def learned() -> Cadence:
    cadence = Cadence.learned()
    for number in range(60):
        strategy_of(cadence).learn((), 0, after=5.0 + number % 5, by=6.0 + number % 5)
    return cadence


CADENCES = st.sampled_from([Cadence.hinted(), Cadence.learned(), learned()])
POLLS = st.sampled_from([(), (Phase.RUNNING,), (Phase.NEEDS_CALLER,), (Phase.RUNNING, Phase.NEEDS_CALLER)])
CREATED = st.sampled_from([None, 1000.0, 990.0, -5000.0, -1.7e9, -6e10])


DELAYS = (0.0, 0.001, 0.05, 0.3, 1.0, 2.0, 10.0)


@settings(deadline=None, max_examples=150)  # a busy machine is no failure
@given(CADENCES, POLLS, CREATED, st.lists(st.floats(0.0, 60.0), min_size=2, max_size=20).map(sorted))
def test_a_delay_never_falls_and_is_reached_at_the_predicted_time(
    cadence: Cadence, polls: tuple[Phase, ...], created_at: float | None, waits: list[float]
) -> None:
    run = Real(cadence, *polls, created_at=created_at, server_time=1000.0)
    reached = list(map(run.delayed_at, DELAYS))
    assert reached == sorted(reached)
    last = 0.0
    for wait in waits:
        now = BEGIN + wait
        delay = run.delay(now)
        assert delay >= last - 1e-9
        last = delay
        for wanted, at in zip(DELAYS, reached, strict=True):
            if delay >= wanted * 1.02 + 1e-3:
                assert at <= now + 0.02 * wait + 1e-3, "it was reached before the predicted time"
            elif delay <= wanted * 0.98 - 1e-3:
                assert at >= now - 0.02 * wait - 1e-3, "it was not reached at the predicted time"


@settings(deadline=None, max_examples=100)  # a busy machine is no failure
@given(CADENCES, POLLS, CREATED)
def test_waiting_alone_leads_to_a_turn_without_spinning(
    cadence: Cadence, polls: tuple[Phase, ...], created_at: float | None
) -> None:
    run = Real(cadence, *polls, created_at=created_at, server_time=1000.0)
    schedule: Schedule[Slot] = Schedule(Budget(2.0, 10**6))
    for number in range(400):  # what is sent ends a delay of 2 s
        schedule.poll(Other(), BEGIN - 400.0 + number)
        assert schedule.plan(BEGIN - 400.0 + number, 8).polls
    schedule.poll(run, BEGIN)
    now, plans = BEGIN, 0
    while not run.is_polling:
        for _ in range(2):  # more than the rate allows
            schedule.poll(Other(), now)
        wake_at = schedule.plan(now, 8).wake_at
        assert wake_at > now
        now, plans = wake_at, plans + 1
        assert plans < 1000
    assert now <= BEGIN + 10 * DELAY_S / 0.1


def test_a_run_past_its_expiry_has_had_its_turn() -> None:
    run = Real(Cadence.hinted(), Phase.RUNNING, expires_at=1001.0, server_time=1000.0)
    assert run.delayed_at(0.1) == BEGIN + 0.2  # the expected delay is half of the time since the poll
    assert run.delayed_at(60.0) == BEGIN + 1.0
