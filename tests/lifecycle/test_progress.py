"""How far a run has come in its stage, what the cadence learns from it, and what a poll is worth."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from driver import Driver, call, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import field

from asyncruns.cadence import Cadence
from asyncruns.cadence.age_grid import PER_FOLD
from asyncruns.cadence.cadence import strategy_of
from asyncruns.cadence.strategy import Course, Strategy
from asyncruns.lifecycle import Asked, CallKind, Phase, RefusalKind
from asyncruns.lifecycle.machine import DISPATCHING_SHARE
from asyncruns.lifecycle.progress import Progress

A, B = call("call_a"), call("call_b")
GROUP = ("asst_1", "model")

Learned = tuple[tuple[str, ...], int, float, float]


class Recording(Strategy, frozen=True, kw_only=True):
    """A strategy that polls every second and records what it receives."""

    courses: list[Course] = field(default_factory=list)
    learns: list[Learned] = field(default_factory=list)

    def pause(self, course: Course) -> float:
        self.courses.append(course)
        return 1.0

    def learn(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> None:
        self.learns.append((group, stage, after, by))


class Watched(Driver):
    """A driver with a recording cadence. The server's clock starts at 1000 when ours starts at 100."""

    def __init__(self, given: Any = None, *, created_at: float | None = 1000.0, **policy: Any) -> None:
        self.strategy = Recording()
        self.created_at = created_at
        super().__init__(given, cadence=Cadence(self.strategy), **policy)

    def shows(self, phase: Phase, *calls: Any, after: float = 0.0, **facts: Any) -> None:
        """Feed a poll after this many seconds, of a server that sends times in whole seconds."""
        self.now += after
        shown: dict[str, Any] = {"group": GROUP, "created_at": self.created_at}
        shown["server_time"] = math.floor(900.0 + self.now)
        self.sees(phase, *calls, **(shown | facts))

    @property
    def course(self) -> Course:
        return self.strategy.courses[-1]

    @property
    def learns(self) -> list[tuple[int, float, float]]:
        """What was learned, as stage, after, by; rounded to the microsecond."""
        assert all(group == GROUP for group, *_ in self.strategy.learns)
        return [(stage, round(after, 6), round(by, 6)) for _, stage, after, by in self.strategy.learns]

    def asks(self, *calls: Any) -> None:
        """Ask for calls, answer them, and accept the outputs a second later."""
        self.shows(Phase.NEEDS_CALLER, *calls)
        self.answers(**{one.id: "1" for one in calls})
        self.shows(Phase.PENDING, asked=Asked.SUBMIT, after=1.0)


# The age


def test_the_age_is_since_the_run_was_created_by_the_servers_clock() -> None:
    run = Watched(created_at=970.0)
    run.shows(Phase.RUNNING)
    assert run.course.age == pytest.approx(30.0)
    run.shows(Phase.RUNNING, after=2.5)
    assert run.course.age == pytest.approx(32.5, abs=0.5)


@pytest.mark.parametrize(
    ("after", "server_time", "age"),
    [
        pytest.param(0.2, 1000.0, 0.2, id="the same second"),
        pytest.param(0.2, 1001.0, 0.2, id="a second has turned"),
        pytest.param(0.2, 1001.5, 1.5, id="more than the grain of the clock"),
        pytest.param(0.2, 1002.0, 2.0, id="created before the watch began"),
        pytest.param(5.0, 1006.0, 5.0, id="the first poll is late"),
        pytest.param(5.0, 1007.0, 7.0, id="the first poll is late, and the run older"),
        pytest.param(5.0, 1001.0, 5.0, id="younger than the watch, which is impossible"),
        pytest.param(5.0, 400.0, 5.0, id="the clock is behind the creation"),
        pytest.param(5.0, -1e12, 5.0, id="the clock is nonsense"),
        pytest.param(5.0, 87_400.0, 86_400.0, id="created a day before"),
    ],
)
def test_a_run_as_old_as_the_watch_is_distinguished_from_an_older_one(
    after: float, server_time: float, age: float
) -> None:
    run = Watched()
    run.shows(Phase.RUNNING, after=after, server_time=server_time)
    assert run.course.age == pytest.approx(age)


def test_several_polls_narrow_the_age_down() -> None:
    """The run was created 1.3 s before the watch began; the server sends both times in whole seconds."""
    run = Watched(created_at=math.floor(998.7))
    for _ in range(6):
        run.shows(Phase.RUNNING, after=0.7)
    assert run.course.age == pytest.approx(1.3 + 6 * 0.7, abs=0.5)


def test_a_poll_whose_clock_contradicts_earlier_ones_does_not_count() -> None:
    run = Watched()
    run.shows(Phase.RUNNING, after=1.0, created_at=None)
    run.shows(Phase.RUNNING, after=1.0, server_time=None)
    assert run.course.age == pytest.approx(2.0)
    run.shows(Phase.RUNNING, after=1.0, server_time=1063.0)
    assert run.course.age == pytest.approx(63.0)
    run.shows(Phase.RUNNING, after=1.0, server_time=5000.0)
    run.shows(Phase.RUNNING, after=1.0, created_at=1.0)
    assert run.course.age == pytest.approx(65.0)


def test_without_clocks_the_age_is_that_of_the_watch() -> None:
    run = Watched(created_at=None)
    run.shows(Phase.PENDING, after=3.0, server_time=None)
    assert run.course.age == pytest.approx(3.0)


def test_a_given_object_does_not_count_as_a_poll() -> None:
    run = Watched(snapshot(Phase.RUNNING, created_at=1.0, server_time=5000.0, group=("other",)))
    run.shows(Phase.RUNNING, after=1.0)
    assert run.course.age == pytest.approx(1.0)
    assert run.course.group == GROUP


def test_accepted_outputs_begin_a_new_stage() -> None:
    run = Watched(created_at=500.0)
    run.shows(Phase.RUNNING, after=1.0)
    assert run.course.stage == 0
    run.asks(A)
    assert run.course == Course(polls=1, age=0.0, group=GROUP, stage=1)
    run.shows(Phase.RUNNING, after=4.0)
    assert run.course == Course(polls=2, age=4.0, group=GROUP, stage=1)


def test_clocks_that_come_in_the_second_stage_do_not_move_its_beginning() -> None:
    run = Watched(created_at=None)
    run.asks(A)
    run.shows(Phase.RUNNING, after=3.0, created_at=500.0)
    assert run.course.age == pytest.approx(3.0)


# What is learned


@pytest.mark.parametrize("end", [Phase.SUCCEEDED, Phase.FAILED, Phase.INCOMPLETE])
def test_the_end_is_learned_between_the_last_poll_that_showed_it_at_work_and_the_one_that_showed_it(end: Phase) -> None:
    run = Watched()
    run.shows(Phase.PENDING, after=0.5)
    run.shows(Phase.RUNNING, after=2.0)
    assert run.learns == []
    run.shows(end, after=4.0)
    assert run.learns == [(0, 2.5, 6.5)]


@pytest.mark.parametrize("end", [Phase.CANCELLED, Phase.EXPIRED])
def test_a_run_that_did_not_end_by_itself_teaches_nothing(end: Phase) -> None:
    run = Watched()
    run.shows(Phase.RUNNING)
    run.shows(end, after=4.0)
    assert run.learns == []


def test_a_watch_that_gives_up_teaches_nothing() -> None:
    run = Watched(timeout=10.0)
    run.shows(Phase.RUNNING)
    run.passes(10.0)
    run.shows(Phase.SUCCEEDED, after=1.0)
    assert run.learns == []


def test_a_cancel_that_came_too_late_teaches_when_the_run_ended() -> None:
    run = Watched()
    run.shows(Phase.RUNNING, after=1.0)
    run.cancels()
    run.shows(Phase.CANCELLING, asked=Asked.CANCEL, after=1.0)
    run.shows(Phase.SUCCEEDED, after=1.0)
    assert run.learns == [(0, 1.0, 3.0)]


def test_calls_of_a_run_that_is_being_cancelled_teach_nothing() -> None:
    run = Watched()
    run.shows(Phase.RUNNING)
    run.cancels()
    run.shows(Phase.NEEDS_CALLER, A, after=2.0)
    run.shows(Phase.CANCELLED, after=2.0)
    assert run.learns == []


def test_a_new_run_that_has_ended_at_the_first_poll_ended_before_it() -> None:
    run = Watched()
    run.shows(Phase.SUCCEEDED, after=0.7)
    assert run.learns == [(0, 0.0, 0.7)]


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.NEEDS_CALLER])
@pytest.mark.parametrize("facts", [{}, {"created_at": None}, {"server_time": None}])
def test_an_old_run_that_has_ended_at_the_first_poll_teaches_nothing(phase: Phase, facts: dict[str, Any]) -> None:
    run = Watched(created_at=500.0)
    run.shows(phase, *[A][: phase is Phase.NEEDS_CALLER], after=0.7, **facts)
    assert run.learns == []


def test_an_old_run_that_was_seen_at_work_teaches_with_its_true_age() -> None:
    run = Watched(created_at=500.0)
    run.shows(Phase.RUNNING)
    run.shows(Phase.SUCCEEDED, after=3.0)
    assert run.learns == [(0, 500.0, 503.0)]


def test_an_object_that_had_ended_teaches_nothing() -> None:
    assert Watched(snapshot(Phase.SUCCEEDED, created_at=999.0, server_time=1000.0)).learns == []


def test_a_round_of_calls_ends_the_stage_once() -> None:
    run = Watched()
    run.shows(Phase.RUNNING, after=1.0)
    run.shows(Phase.NEEDS_CALLER, A, after=2.0)
    for calls in [(A,), (A, B), (B,), (A, B)]:
        run.shows(Phase.NEEDS_CALLER, *calls, after=2.0)
    assert run.learns == [(0, 1.0, 3.0)]


def test_each_round_is_learned_and_the_end() -> None:
    run = Watched()
    run.shows(Phase.RUNNING, after=1.0)
    run.asks(A)
    run.shows(Phase.RUNNING, after=3.0)
    run.now += 2.0
    run.asks(B)
    run.now += 4.0
    run.asks(call("call_c"))
    run.shows(Phase.SUCCEEDED, after=7.0)
    assert run.learns == [(0, 1.0, 1.0), (1, 3.0, 5.0), (1, 0.0, 4.0), (1, 0.0, 7.0)]


def test_a_run_that_is_over_when_its_outputs_are_accepted_took_no_time() -> None:
    run = Watched()
    run.shows(Phase.NEEDS_CALLER, A, after=1.0)
    run.answers(call_a="1")
    run.shows(Phase.SUCCEEDED, after=1.0, asked=Asked.SUBMIT)
    assert run.learns == [(0, 0.0, 1.0), (1, 0.0, 0.0)]


def test_a_poll_from_before_a_submit_teaches_nothing() -> None:
    run = Watched()
    run.shows(Phase.RUNNING, after=1.0)
    run.asks(A)
    learned = run.learns
    for after in (0.1, 2.0, 2.0, 2.0):  # after the lag, the same outputs are sent again
        run.shows(Phase.NEEDS_CALLER, A, after=after)
    assert run.learns == learned
    run.shows(Phase.PENDING, asked=Asked.SUBMIT, after=1.0)
    run.shows(Phase.NEEDS_CALLER, A, after=0.1)
    run.shows(Phase.SUCCEEDED, after=0.4)
    assert run.learns == [*learned, (1, 0.0, 0.5)]


def test_polls_that_show_the_run_at_work_without_a_submit_do_not_count_for_the_stage_that_ended() -> None:
    run = Watched()
    run.shows(Phase.RUNNING, after=1.0)
    run.shows(Phase.NEEDS_CALLER, A, after=1.0)
    run.shows(Phase.RUNNING, after=0.1)  # an old poll, or another process answered the calls
    run.shows(Phase.NEEDS_CALLER, A, after=1.0)
    assert run.learns == [(0, 1.0, 2.0)]


@pytest.mark.parametrize("is_ours", [True, False], ids=["a submit whose answer was lost", "a submit of others"])
def test_work_after_a_submit_without_an_answer_is_in_the_next_stage(is_ours: bool) -> None:
    run = Watched()
    run.shows(Phase.RUNNING, after=1.0)
    run.shows(Phase.NEEDS_CALLER, A, after=1.0)
    run.now += 600.0
    if is_ours:
        run.answers(call_a="1")
        run.refused(RefusalKind.LOST, asked=Asked.SUBMIT)
    run.shows(Phase.RUNNING, after=0.5)
    assert run.course.stage == 1
    run.shows(Phase.RUNNING, after=3.0)
    run.shows(Phase.SUCCEEDED, after=1.0)
    assert run.learns == [(0, 1.0, 2.0), (1, 3.0, 4.0)]


def test_calls_that_the_server_answers_do_not_end_a_stage() -> None:
    run = Watched()
    run.shows(Phase.RUNNING, after=1.0)
    run.shows(Phase.NEEDS_CALLER, call("call_s", kind=CallKind.SERVER), after=2.0)
    run.shows(Phase.RUNNING, after=2.0)
    run.shows(Phase.SUCCEEDED, after=1.0)
    assert run.learns == [(0, 5.0, 6.0)]


def test_durations_are_learned_for_the_group_that_was_seen_last() -> None:
    run = Watched()
    run.shows(Phase.RUNNING, group=())
    run.shows(Phase.SUCCEEDED, after=1.0)
    assert run.strategy.learns[0][0] == GROUP


# What a poll is worth


def learned_cadence() -> Cadence:
    cadence = Cadence.learned()
    for number in range(60):
        strategy_of(cadence).learn(GROUP, 0, after=2.0 + number % 5, by=3.0 + number % 5)
        strategy_of(cadence).learn(GROUP, 1, after=20.0, by=21.0 + number % 3)
    return cadence


CADENCES = {
    "learned": learned_cadence(),
    "learned, of nothing": Cadence.learned(),
    "hinted": Cadence.hinted(),
    "fixed": Cadence.fixed(3.0),
}


def driven(cadence: Cadence, situation: str, created_at: float | None = 999.0) -> Driver:
    run = Driver(cadence=cadence, timeout=None)
    facts: dict[str, Any] = {"group": GROUP, "created_at": created_at, "server_time": 1000.0}
    if situation == "not seen yet":
        return run
    run.sees(Phase.RUNNING, **facts)
    if situation == "at work":
        return run
    run.now += 2.0
    run.sees(Phase.NEEDS_CALLER, A, **facts)
    if situation == "waiting for calls":
        return run
    run.answers(call_a="1")
    if situation == "submitting":
        return run
    if situation == "its outputs were refused":
        run.now += 300.0
        run.sees(Phase.NEEDS_CALLER, A, **facts)
        run.refused(RefusalKind.NOT_ACCEPTING, asked=Asked.SUBMIT)
        return run
    if situation == "its cancel was taken":
        run.now += 300.0
        run.cancels()
        run.refused(RefusalKind.LOST, asked=Asked.SUBMIT)
        run.sees(Phase.CANCELLING, asked=Asked.CANCEL, **facts)
        return run
    run.sees(Phase.PENDING, asked=Asked.SUBMIT, **facts)
    return run


SITUATIONS = [
    "not seen yet",
    "at work",
    "waiting for calls",
    "submitting",
    "its outputs were refused",
    "its cancel was taken",
]
SITUATIONS += ["in its second stage"]
CELL = 1.02 * math.expm1(1.0 / PER_FOLD)  # width of the steps in which ages are returned, as a share of (1 s + age)
PAUSES = st.one_of(st.floats(0.0, 100.0), st.sampled_from([0.0, 1e-9, 1e4, 1e7]))


@settings(deadline=None, max_examples=300)  # no deadline: a busy machine must not fail it
@given(
    cadence=st.sampled_from(list(CADENCES.values())),
    situation=st.sampled_from(SITUATIONS),
    created_at=st.sampled_from([999.0, 980.0, None, -5000.0, -1.7e9]),
    delays=st.lists(PAUSES, min_size=2, max_size=6).map(sorted),
)
def test_the_delay_and_its_time_are_inverse_and_never_fall(
    cadence: Cadence, situation: str, created_at: float | None, delays: list[float]
) -> None:
    run = driven(cadence, situation, created_at)
    age = 0.0 if created_at is None else 1000.0 - created_at
    times = [run.machine.delayed_at(delay) for delay in delays]
    assert times == sorted(times)
    assert all(run.now - 2.0 <= at < math.inf for at in times)
    found = [run.machine.delay(at) for at in times]
    assert found == sorted(found)
    for delay, at, again in zip(delays, times, found, strict=True):
        assert delay * (1.0 - 1e-6) - 1e-5 <= again <= delay + CELL * (1.0 + age + at - run.now) + 1e-5


@pytest.mark.parametrize("cadence", CADENCES.values(), ids=CADENCES)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_delay_begins_at_zero_and_grows_no_faster_than_time(cadence: Cadence, situation: str) -> None:
    run = driven(cadence, situation)
    assert run.machine.delay(run.now) == pytest.approx(0.0, abs=1e-9)
    delays = [run.machine.delay(run.now + 0.1 * step) for step in range(2000)]
    steps = [late - early for early, late in pairwise(delays)]
    assert min(steps) >= 0.0
    assert max(steps) <= 0.1 + 1e-9
    assert delays[-1] > 5.0


def test_without_known_durations_the_delay_is_half_the_time_since_the_last_poll() -> None:
    run = driven(Cadence.hinted(), "at work")
    assert run.machine.delay(run.now + 8.0) == pytest.approx(4.0)
    assert run.machine.delayed_at(4.0) == pytest.approx(run.now + 8.0)
    run.now += 5.0
    run.sees(Phase.RUNNING)
    assert run.machine.delay(run.now + 1.0) == pytest.approx(0.5)


def test_durations_of_the_second_stage_count_from_its_beginning() -> None:
    run = driven(CADENCES["learned"], "in its second stage")  # a stage that takes 20 s
    assert run.machine.delay(run.now + 15.0) < 1.0
    assert run.machine.delay(run.now + 40.0) > 15.0


def test_a_failed_poll_does_not_end_the_delay() -> None:
    run = driven(CADENCES["learned"], "at work")
    run.now += 5.0
    before = run.machine.delay(run.now)
    run.refused(RefusalKind.LOST)
    assert run.machine.delay(run.now) == before > 0.5


def test_a_poll_of_a_run_that_waits_for_outputs_is_worth_little() -> None:
    run = driven(Cadence.hinted(), "waiting for calls")
    assert run.machine.delay(run.now + 8.0) == pytest.approx(4.0 * DISPATCHING_SHARE)
    assert run.machine.delayed_at(0.4) == pytest.approx(run.now + 8.0)


def test_a_poll_shows_the_run_at_work_when_it_was_sent_and_not_when_the_answer_came() -> None:
    progress = Progress()
    progress.begin(100.0)
    progress.see(snapshot(Phase.RUNNING), 105.0, 103.0)
    assert (progress.at_work, progress.seen_at) == (103.0, 105.0)
    assert progress.leave(107.0) == (3.0, 7.0)


def test_a_poll_sent_before_the_stage_began_shows_its_beginning_at_the_earliest() -> None:
    progress = Progress()
    progress.begin(100.0)
    progress.go_on(104.0)
    progress.see(snapshot(Phase.RUNNING), 105.0, 103.0)
    assert progress.at_work == 104.0


# The time that the server says a run took


@pytest.mark.parametrize(
    ("ended_at", "learned"),
    [
        pytest.param(1040.0, (39.0, 41.0), id="between two polls that are far apart"),
        pytest.param(1001.0, (1.0, 2.0), id="just after a poll"),
        pytest.param(1100.0, (99.0, 100.0), id="just before the poll that saw it"),
        pytest.param(1500.0, (1.0, 100.0), id="after it was seen, which is impossible"),
        pytest.param(990.0, (1.0, 100.0), id="before it was created, which is impossible"),
        pytest.param(math.nan, (1.0, 100.0), id="nonsense"),
        pytest.param(None, (1.0, 100.0), id="not sent"),
    ],
)
def test_an_announced_end_is_learned_as_exactly_as_the_server_says_when_it_was(
    ended_at: float | None, learned: tuple[float, float]
) -> None:
    run = Watched()
    run.shows(Phase.RUNNING, after=1.0)
    run.shows(Phase.SUCCEEDED, after=99.0, ended_at=ended_at, is_announced=True)
    assert run.learns == [(0, *learned)]


def test_the_time_that_one_round_took_is_not_taken_for_the_next() -> None:
    run = Watched()
    run.shows(Phase.RUNNING, after=1.0)
    run.shows(Phase.NEEDS_CALLER, A, after=9.0, ended_at=1005.0, is_announced=True)
    run.answers(call_a="1")
    run.shows(Phase.PENDING, asked=Asked.SUBMIT)
    run.shows(Phase.FAILED, after=10.0)
    assert run.learns == [(0, 4.0, 6.0), (1, 0.0, 10.0)]


@pytest.mark.parametrize(
    ("created_at", "learned"),
    [
        pytest.param(1000.0, (0.0, 60.0), id="the same run: 30 s are since its creation"),
        pytest.param(1012.0, (29.0, 31.0), id="another run, begun by the submit"),
    ],
)
def test_a_time_since_the_creation_counts_for_a_later_stage_only_of_another_run(
    created_at: float, learned: tuple[float, float]
) -> None:
    run = Watched()
    run.shows(Phase.RUNNING, after=1.0)
    run.shows(Phase.NEEDS_CALLER, A, after=9.0)
    run.answers(call_a="1")
    run.shows(Phase.PENDING, asked=Asked.SUBMIT, after=2.0, created_at=created_at)
    run.shows(Phase.SUCCEEDED, after=60.0, created_at=created_at, ended_at=created_at + 30.0, is_announced=True)
    assert run.learns[1] == (1, *learned)


def test_an_end_that_a_poll_found_by_itself_lies_between_two_polls() -> None:
    run = Watched()
    run.shows(Phase.RUNNING, after=1.0)
    run.shows(Phase.SUCCEEDED, after=99.0, ended_at=1040.0)
    assert run.learns == [(0, 1.0, 100.0)]
