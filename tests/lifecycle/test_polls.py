"""When the machine polls again, and when it stops."""

from __future__ import annotations

import math
from typing import Any

import pytest
from driver import Driver, call, end_of, pause_of, pick, snapshot

from asyncruns.cadence import Cadence
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import (
    Asked,
    Begun,
    Connectivity,
    ConnectivityChanged,
    EndKind,
    Finish,
    Phase,
    Policy,
    PollAt,
    Reason,
    RefusalKind,
    Report,
    RunLifecycle,
    State,
    StatusChanged,
    Tick,
)

ENDS = {
    Phase.SUCCEEDED: EndKind.COMPLETED,
    Phase.FAILED: EndKind.FAILED,
    Phase.CANCELLED: EndKind.CANCELLED,
    Phase.EXPIRED: EndKind.EXPIRED,
    Phase.INCOMPLETE: EndKind.INCOMPLETE,
}


def statuses(run: Driver) -> list[str]:
    return [r.notice.status for r in run.of(Report) if isinstance(r.notice, StatusChanged)]


def connectivity(run: Driver) -> list[Connectivity]:
    return [r.notice.connectivity for r in run.of(Report) if isinstance(r.notice, ConnectivityChanged)]


def test_the_first_poll_is_at_once() -> None:
    run = Driver()
    assert run.began == [PollAt(run.now, run.now)]


@pytest.mark.parametrize(("phase", "kind"), ENDS.items())
def test_a_run_that_ended_ends_the_watch(phase: Phase, kind: EndKind) -> None:
    run = Driver()
    end = end_of(run.sees(phase))
    assert end.kind is kind
    assert end.reason is None
    assert run.machine.state is State.DONE


@pytest.mark.parametrize(("phase", "kind"), ENDS.items())
def test_an_object_that_has_ended_needs_no_poll(phase: Phase, kind: EndKind) -> None:
    run = Driver(snapshot(phase))
    assert end_of(run.began).kind is kind
    assert run.of(PollAt) == []
    assert statuses(run) == [phase.value]


def test_an_object_that_waits_for_outputs_is_polled_first() -> None:
    run = Driver(snapshot(Phase.NEEDS_CALLER))
    assert pick(run.began, PollAt) == [PollAt(run.now, run.now)]


def test_statuses_are_reported_once_each_time_they_change() -> None:
    run = Driver(snapshot(Phase.PENDING))
    for phase in (Phase.PENDING, Phase.RUNNING, Phase.RUNNING, Phase.PENDING, Phase.SUCCEEDED):
        run.sees(phase)
    assert statuses(run) == ["pending", "running", "pending", "succeeded"]


def test_pauses_grow_from_a_quarter_second_to_one() -> None:
    run = Driver()
    pauses = [pause_of(run.sees(Phase.RUNNING), run.now) for _ in range(8)]
    assert pauses[0] == pytest.approx(0.25)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(1.0)


def test_hints_are_read_on_every_poll_and_clamped() -> None:
    run = Driver(timeout=None)
    hints = [7.5, 0.0, -3.0, 7200.0, None]
    pauses = [pause_of(run.sees(Phase.RUNNING, hint=hint), run.now) for hint in hints]
    assert pauses[:4] == pytest.approx([7.5, 0.05, 0.05, 60.0])
    assert pauses[4] <= 1.0


def test_a_fixed_cadence_ignores_hints() -> None:
    run = Driver(cadence=Cadence.fixed(3.0))
    assert pause_of(run.sees(Phase.RUNNING, hint=0.1), run.now) == pytest.approx(3.0)


def test_a_pause_is_cut_so_that_the_last_poll_is_before_the_deadline() -> None:
    run = Driver(timeout=10.0)
    assert pause_of(run.sees(Phase.RUNNING, hint=60.0), run.now) == pytest.approx(9.0)


def test_the_watch_gives_up_at_its_timeout_with_the_last_status() -> None:
    run = Driver(timeout=10.0)
    run.sees(Phase.RUNNING)
    assert run.machine.wake_at == 110.0
    assert run.passes(9.9) == []
    end = end_of(run.passes(0.1))
    assert (end.kind, end.reason) == (EndKind.GAVE_UP, Reason.TIMEOUT)
    assert end.snapshot is not None
    assert end.snapshot.status == "running"


def test_a_watch_that_slept_past_the_deadline_polls_once_more() -> None:
    run = Driver(timeout=10.0)
    run.sees(Phase.RUNNING)
    assert run.passes(3600.0) == [PollAt(run.now, run.now)]
    assert end_of(run.sees(Phase.SUCCEEDED)).kind is EndKind.COMPLETED


def test_the_one_poll_after_a_sleep_is_the_last() -> None:
    run = Driver(timeout=10.0)
    run.sees(Phase.RUNNING)
    run.passes(3600.0)
    assert end_of(run.sees(Phase.RUNNING)).reason is Reason.TIMEOUT


def test_a_failed_poll_after_a_sleep_is_the_last_too() -> None:
    run = Driver(timeout=10.0)
    run.sees(Phase.RUNNING)
    run.passes(3600.0)
    assert end_of(run.refused(RefusalKind.LOST)).reason is Reason.TIMEOUT


def test_a_timeout_of_zero_is_one_poll() -> None:
    run = Driver(timeout=0.0)
    assert run.passes(0.0) == [PollAt(run.now, run.now)]
    assert end_of(run.sees(Phase.RUNNING)).reason is Reason.TIMEOUT


def test_without_a_timeout_there_is_no_deadline() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING, expires_at=2000.0, server_time=1000.0)
    assert run.machine.wake_at == math.inf


def test_the_default_deadline_follows_the_expiry_by_the_servers_clock() -> None:
    run = Driver()
    assert run.machine.wake_at == pytest.approx(100.0 + 900.0)
    run.now += 50.0
    run.sees(Phase.RUNNING, expires_at=1600.0, server_time=1100.0)
    assert run.machine.wake_at == pytest.approx(150.0 + 500.0 + 60.0)


def test_a_run_that_outlives_its_expiry_is_not_watched_for_ever() -> None:
    run = Driver()
    for server_time in range(1000, 3000, 100):
        if run.machine.state is State.DONE:
            break
        run.sees(Phase.RUNNING, expires_at=1600.0, server_time=float(server_time))
        run.passes(100.0)
    assert run.now <= 900.0  # the expiry is at 700, and the polls are far between
    assert run.machine.end is not None
    assert run.machine.end.reason is Reason.TIMEOUT


def test_the_deadline_moves_with_an_expiry_that_the_server_moves() -> None:
    run = Driver()
    run.sees(Phase.RUNNING, expires_at=1600.0, server_time=1000.0)
    run.sees(Phase.RUNNING, expires_at=4600.0, server_time=1000.0)
    assert run.machine.wake_at == pytest.approx(100.0 + 3600.0 + 60.0)


def test_an_expiry_without_the_servers_clock_is_not_believed() -> None:
    run = Driver()
    run.sees(Phase.RUNNING, expires_at=1600.0)
    assert run.machine.wake_at == pytest.approx(1000.0)


def test_an_unknown_status_that_stays_ends_the_watch_after_a_minute() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.UNKNOWN, status="hibernating")
    run.now += 59.0
    assert run.sees(Phase.UNKNOWN, status="hibernating")
    assert run.machine.state is State.POLLING
    run.now += 1.0
    end = end_of(run.sees(Phase.UNKNOWN, status="hibernating"))
    assert (end.kind, end.reason) == (EndKind.GAVE_UP, Reason.UNKNOWN_STATUS)
    assert statuses(run) == ["hibernating"]


def test_an_unknown_status_that_changes_has_another_minute() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.UNKNOWN, status="hibernating")
    run.now += 59.0
    run.sees(Phase.UNKNOWN, status="waking")
    run.now += 59.0
    run.sees(Phase.UNKNOWN, status="waking")
    assert run.machine.state is State.POLLING


@pytest.mark.parametrize("kind", [RefusalKind.NOT_SENT, RefusalKind.LOST, RefusalKind.UNAVAILABLE])
def test_ten_failed_polls_in_a_row_are_connectivity_and_not_the_end(kind: RefusalKind) -> None:
    run = Driver()
    pauses = []
    for _ in range(10):
        commands = run.refused(kind)
        pauses.append(pause_of(commands, run.now))
        run.now += pauses[-1]
    assert pauses[0] == pytest.approx(0.5)
    assert pauses == sorted(pauses)
    assert max(pauses) == pytest.approx(10.0)
    run.sees(Phase.RUNNING)
    assert connectivity(run) == [Connectivity.DEGRADED, Connectivity.LOST, Connectivity.HEALTHY]


def test_an_outage_that_is_too_long_ends_the_watch_with_its_cause() -> None:
    run = Driver(max_outage=30.0)
    cause = RuntimeError("no route")
    run.refused(RefusalKind.NOT_SENT, cause=cause)
    run.now += 30.0
    end = end_of(run.refused(RefusalKind.NOT_SENT, cause=cause))
    assert (end.reason, end.cause) == (Reason.UNREACHABLE, cause)


def test_a_successful_poll_resets_the_outage_budget() -> None:
    run = Driver(max_outage=30.0)
    for _ in range(4):
        run.refused(RefusalKind.UNAVAILABLE)
        run.now += 20.0
        run.sees(Phase.RUNNING)
    assert run.machine.state is State.POLLING


def test_being_throttled_is_not_an_outage() -> None:
    run = Driver(max_outage=30.0, timeout=None)
    for _ in range(10):
        run.refused(RefusalKind.THROTTLED)
        run.now += 30.0
    assert run.machine.state is State.POLLING


def test_retry_after_is_heeded_and_clamped() -> None:
    run = Driver(timeout=None)
    assert pause_of(run.refused(RefusalKind.THROTTLED, retry_after=7.0), run.now) == pytest.approx(7.0)
    assert pause_of(run.refused(RefusalKind.UNAVAILABLE, retry_after=7200.0), run.now) == pytest.approx(60.0)


def test_retry_after_does_not_block_past_the_deadline() -> None:
    run = Driver(timeout=20.0)
    assert pause_of(run.refused(RefusalKind.THROTTLED, retry_after=7200.0), run.now) == pytest.approx(19.0)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (RefusalKind.UNAUTHORIZED, Reason.UNAUTHORIZED),
        (RefusalKind.QUOTA_SPENT, Reason.QUOTA_SPENT),
        (RefusalKind.REJECTED, Reason.REJECTED),
        (RefusalKind.UNREACHABLE, Reason.UNREACHABLE),
    ],
)
def test_some_refusals_are_fatal_at_once(kind: RefusalKind, reason: Reason) -> None:
    run = Driver()
    end = end_of(run.refused(kind))
    assert (end.kind, end.reason) == (EndKind.GAVE_UP, reason)


def test_a_run_that_is_not_there_yet_has_some_seconds_of_grace() -> None:
    run = Driver(snapshot(Phase.PENDING))
    run.now += 4.9
    assert pick(run.refused(RefusalKind.NOT_FOUND), PollAt)
    run.now += 0.2
    assert end_of(run.refused(RefusalKind.NOT_FOUND)).reason is Reason.NOT_FOUND


def test_a_run_that_was_seen_and_is_not_there_is_gone() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.now += 4.9
    assert not pick(run.refused(RefusalKind.NOT_FOUND), Finish)  # one replica may have a new run while another does not
    run.now += 0.1
    assert end_of(run.refused(RefusalKind.NOT_FOUND)).reason is Reason.GONE


def test_events_after_the_end_change_nothing() -> None:
    run = Driver()
    run.sees(Phase.SUCCEEDED)
    assert run.sees(Phase.RUNNING) == []
    assert run.refused(RefusalKind.LOST) == []
    assert run.cancels() == []
    assert run.passes(1000.0) == []
    assert run.machine.end is not None
    assert run.machine.end.kind is EndKind.COMPLETED


def test_a_watch_begins_once_and_first() -> None:
    with pytest.raises(InvalidRequestError, match="begins once"):
        RunLifecycle().receive(Tick(0.0))
    run = Driver()
    with pytest.raises(InvalidRequestError, match="begins once"):
        run.feed(Begun(run.now))
    assert run.machine.state is State.POLLING


def test_polls_spread_over_a_tenth_of_their_pause() -> None:
    run = Driver(cadence=Cadence.fixed(4.0))
    assert pick(run.sees(Phase.RUNNING), PollAt) == [PollAt(run.now + 4.0, run.now + 4.4)]


def test_the_spread_ends_before_the_deadline_too() -> None:
    run = Driver(timeout=5.2, cadence=Cadence.fixed(4.0))
    (poll,) = pick(run.sees(Phase.RUNNING), PollAt)
    assert (poll.not_before, poll.not_after) == pytest.approx((104.0, 104.2))


def test_the_last_poll_before_the_deadline_is_not_repeated_at_once() -> None:
    run = Driver(timeout=10.0, cadence=Cadence.fixed(4.0))
    run.now += 9.0
    assert pause_of(run.sees(Phase.RUNNING), run.now) == 4.0


def test_a_clock_may_begin_anywhere() -> None:
    machine = RunLifecycle(Policy(timeout=10.0))
    machine.receive(Begun(-5000.0))
    assert machine.wake_at == -4990.0


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_a_timeout_of_zero_or_less_is_one_poll_and_its_answer(timeout: float) -> None:
    run = Driver(timeout=timeout)
    assert run.passes(0.0) == [PollAt(run.now, run.now)]
    assert run.machine.wake_at == run.now + 5.0
    assert run.passes(4.9) == []
    assert end_of(run.passes(0.1)).reason is Reason.TIMEOUT


def test_the_poll_after_a_sleep_has_five_seconds() -> None:
    run = Driver(timeout=10.0)
    run.sees(Phase.RUNNING)
    run.passes(3600.0)
    assert run.machine.wake_at == run.now + 5.0
    end = end_of(run.passes(5.0))
    assert (end.kind, end.reason) == (EndKind.GAVE_UP, Reason.TIMEOUT)


def test_a_tick_that_is_a_second_late_causes_no_extra_poll() -> None:
    run = Driver(timeout=10.0)
    run.sees(Phase.RUNNING)
    assert end_of(run.passes(11.0)).reason is Reason.TIMEOUT


def test_a_wait_that_ends_during_failures_names_their_cause() -> None:
    run = Driver(timeout=10.0)
    cause = RuntimeError("no route")
    run.refused(RefusalKind.LOST, cause=cause)
    assert end_of(run.passes(10.0)).cause is cause
    run = Driver(timeout=10.0)
    run.refused(RefusalKind.LOST, cause=cause)
    run.sees(Phase.RUNNING)
    assert end_of(run.passes(10.0)).cause is None


def test_a_run_that_was_not_found_before_the_timeout_has_that_as_its_cause() -> None:
    run = Driver(timeout=2.0)
    cause = RuntimeError("not found")
    run.refused(RefusalKind.NOT_FOUND, cause=cause)
    end = end_of(run.passes(2.0))
    assert (end.reason, end.cause) == (Reason.TIMEOUT, cause)


def test_the_grace_of_a_run_that_is_not_there_yet_ends_after_five_seconds() -> None:
    run = Driver()
    run.now += 5.0
    assert end_of(run.refused(RefusalKind.NOT_FOUND)).reason is Reason.NOT_FOUND
    run = Driver()
    run.now += 3600.0
    assert end_of(run.refused(RefusalKind.NOT_FOUND)).reason is Reason.NOT_FOUND


def test_the_pauses_after_failed_polls_double_up_to_ten_seconds() -> None:
    run = Driver(timeout=None)
    pauses = [pause_of(run.refused(RefusalKind.THROTTLED), run.now) for _ in range(7)]
    assert pauses == pytest.approx([0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0])


def test_a_server_that_is_away_for_days_is_still_polled() -> None:
    run = Driver(timeout=None, max_outage=None)
    pauses = [pause_of(run.refused(RefusalKind.NOT_SENT), run.now) for _ in range(2000)]
    assert pauses[-1] == pytest.approx(10.0)


def test_a_successful_poll_resets_the_pauses_after_failures() -> None:
    run = Driver()
    for _ in range(4):
        run.refused(RefusalKind.LOST)
    run.sees(Phase.RUNNING)
    assert pause_of(run.refused(RefusalKind.LOST), run.now) == pytest.approx(0.5)


def test_a_server_does_not_shorten_the_pause_after_a_failure() -> None:
    run = Driver()
    pauses = [pause_of(run.refused(RefusalKind.UNAVAILABLE, retry_after=0.1), run.now) for _ in range(3)]
    assert pauses == pytest.approx([0.5, 1.0, 2.0])


def test_connectivity_is_lost_after_fifteen_seconds_of_failures() -> None:
    run = Driver()
    run.refused(RefusalKind.LOST)
    run.now += 14.9
    run.refused(RefusalKind.LOST)
    assert connectivity(run) == [Connectivity.DEGRADED]
    run.now += 0.1
    run.refused(RefusalKind.LOST)
    assert connectivity(run) == [Connectivity.DEGRADED, Connectivity.LOST]


def test_a_change_of_connectivity_is_reported_with_its_cause() -> None:
    run = Driver()
    cause = RuntimeError("no route")
    run.refused(RefusalKind.LOST, cause=cause)
    run.sees(Phase.RUNNING)
    reported = [r.notice for r in run.of(Report) if isinstance(r.notice, ConnectivityChanged)]
    assert reported == [
        ConnectivityChanged(connectivity=Connectivity.DEGRADED, cause=cause),
        ConnectivityChanged(connectivity=Connectivity.HEALTHY),
    ]


def test_an_outage_of_two_minutes_is_too_long_by_default() -> None:
    run = Driver()
    run.refused(RefusalKind.LOST)
    run.now += 119.9
    run.refused(RefusalKind.LOST)
    assert run.machine.state is State.POLLING
    run.now += 0.1
    assert end_of(run.refused(RefusalKind.LOST)).reason is Reason.UNREACHABLE


def test_an_outage_that_is_far_too_long_ends_the_watch_too() -> None:
    run = Driver(max_outage=30.0)
    run.refused(RefusalKind.LOST)
    run.now += 31.0
    assert end_of(run.refused(RefusalKind.LOST)).reason is Reason.UNREACHABLE


def test_a_throttled_poll_shows_that_the_server_is_there() -> None:
    run = Driver(max_outage=30.0)
    run.refused(RefusalKind.LOST)
    run.now += 20.0
    run.refused(RefusalKind.THROTTLED)
    run.now += 20.0
    run.refused(RefusalKind.LOST)
    assert run.machine.state is State.POLLING


@pytest.mark.parametrize("wrong_at", range(3))
@pytest.mark.parametrize("wrong_by", [-400.0, 400.0])
def test_one_answer_with_a_wrong_clock_does_not_move_the_deadline(wrong_at: int, wrong_by: float) -> None:
    run = Driver()
    for poll in range(3):
        server_time = 1000.0 + (wrong_by if poll == wrong_at else 0.0)
        run.sees(Phase.RUNNING, expires_at=1600.0, server_time=server_time)
    assert run.machine.wake_at == pytest.approx(100.0 + 600.0 + 60.0)


@pytest.mark.parametrize("moved_to", [1200.0, 4600.0])
def test_the_deadline_moves_at_once_when_a_well_known_expiry_moves(moved_to: float) -> None:
    run = Driver()
    for _ in range(5):
        run.sees(Phase.RUNNING, expires_at=1600.0, server_time=1000.0)
    run.sees(Phase.RUNNING, expires_at=moved_to, server_time=1000.0)
    assert run.machine.wake_at == pytest.approx(100.0 + moved_to - 1000.0 + 60.0)


WRONG_EXPIRIES = [
    pytest.param({"expires_at": 1000.0, "server_time": 5000.0}, None, id="past"),
    pytest.param({"expires_at": 1000.0, "server_time": 1001.0}, None, id="past, a moment ago"),
    pytest.param({"expires_at": 1.0, "server_time": 5000.0}, None, id="a constant"),
    pytest.param({"expires_at": 1000.0, "server_time": 1000.0}, None, id="now"),
    pytest.param({"expires_at": 400.0, "created_at": 500.0, "server_time": 500.0}, None, id="before its creation"),
    pytest.param({"expires_at": 1600.0, "created_at": 1000.0, "server_time": 29_800.0}, 600.0, id="8 h behind"),
    pytest.param(
        {"expires_at": 4600.0, "created_at": 1000.0, "server_time": 5000.0}, 3600.0, id="past, but the run goes on"
    ),
    pytest.param({"expires_at": 1600.0, "created_at": 1000.0}, 600.0, id="no clock of the server"),
    pytest.param({"expires_at": 1e9 + 600.0, "created_at": 1.0, "server_time": 2e9}, None, id="a life of years"),
    pytest.param({"expires_at": 5600.0, "created_at": 90_000.0, "server_time": 5000.0}, 600.0, id="created tomorrow"),
    pytest.param({"expires_at": 5600.0, "created_at": 1.0, "server_time": 5000.0}, 600.0, id="created long ago"),
]


@pytest.mark.parametrize(("times", "expires_after"), WRONG_EXPIRIES)
def test_an_expiry_that_cannot_be_true_does_not_end_the_wait(
    times: dict[str, Any], expires_after: float | None
) -> None:
    run = Driver()
    run.sees(Phase.RUNNING, **times)
    waits = 900.0 if expires_after is None else expires_after + 60.0
    assert run.machine.wake_at == pytest.approx(100.0 + waits)


def test_an_expiry_that_passes_while_the_first_answers_come_is_believed() -> None:
    run = Driver()
    for server_time in (998.0, 1000.0, 1002.0):
        run.sees(Phase.RUNNING, expires_at=1001.0, created_at=401.0, server_time=server_time)
        run.now += 2.0
    assert run.machine.wake_at == pytest.approx(100.0 + 3.0 + 60.0)


@pytest.mark.parametrize("off", [(-7000.0, 3000.0, -5000.0), (-3600.0, 3600.0, 0.0), (-900.0, -600.0, -300.0)])
def test_clocks_of_which_no_two_agree_are_not_used(off: tuple[float, ...]) -> None:
    run = Driver()
    for clock in off:
        run.sees(Phase.RUNNING, expires_at=10_600.0, created_at=10_000.0, server_time=10_000.0 + clock)
    assert run.machine.wake_at == pytest.approx(100.0 + 600.0 + 60.0)


@pytest.mark.parametrize(("created_at", "over_at"), [(None, 900.0), (1150.0, 300.0 + 50.0 + 60.0)])
def test_an_expiry_that_moves_into_the_past_does_not_end_the_wait_at_once(
    created_at: float | None, over_at: float
) -> None:
    run = Driver()
    run.sees(Phase.RUNNING, expires_at=1600.0, server_time=1000.0)
    run.now += 300.0
    run.sees(Phase.RUNNING, expires_at=1200.0, created_at=created_at, server_time=1300.0)
    assert run.machine.wake_at == pytest.approx(100.0 + over_at)


def test_the_life_of_a_run_that_a_submit_began_counts_from_its_first_answer() -> None:
    """The follow-up response has the same life of two hours; the server's times are eight hours behind its clock."""
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, call(), is_final=True, expires_at=8200.0, created_at=1000.0, server_time=29_800.0)
    run.now += 10_000.0
    run.answers(call_1="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT, expires_at=18_200.0, created_at=11_000.0, server_time=39_800.0)
    assert run.machine.wake_at == pytest.approx(run.now + 7200.0 + 60.0)


def test_calls_of_a_run_whose_expiry_is_hours_behind_have_the_life_of_the_run() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, call(), expires_at=1600.0, created_at=1000.0, server_time=29_800.0)
    assert run.machine.wake_at == pytest.approx(100.0 + 600.0 - 5.0)


def test_an_unknown_status_that_is_seen_long_after_its_minute_ends_the_watch_too() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.UNKNOWN, status="hibernating")
    run.now += 3600.0
    assert end_of(run.sees(Phase.UNKNOWN, status="hibernating")).reason is Reason.UNKNOWN_STATUS


def test_an_unknown_status_that_is_left_for_a_known_one_is_forgotten() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.UNKNOWN, status="hibernating")
    run.sees(Phase.RUNNING)
    run.now += 3600.0
    assert pause_of(run.sees(Phase.RUNNING), run.now) > 0.0
    assert run.machine.state is State.POLLING


@pytest.mark.parametrize("after", [60.0, 61.0, 3600.0])
def test_failed_polls_keep_their_pauses_after_the_limit_of_an_unknown_status(after: float) -> None:
    run = Driver(timeout=None)
    run.sees(Phase.UNKNOWN, status="hibernating")
    run.now += after
    assert pause_of(run.refused(RefusalKind.THROTTLED, retry_after=30.0), run.now) == 30.0


def test_a_watch_needs_no_policy() -> None:
    machine = RunLifecycle()
    assert machine.receive(Begun(0.0)) == [PollAt(0.0, 0.0)]
    assert machine.wake_at == 900.0


def test_the_cadence_begins_at_its_start() -> None:
    run = Driver()
    assert [pause_of(run.sees(Phase.RUNNING), run.now) for _ in range(3)] == pytest.approx([0.25, 0.375, 0.5625])


def test_only_the_first_three_answers_decide_the_expiry() -> None:
    run = Driver()
    for server_time in (1010.0, 1000.0, 990.0):
        run.sees(Phase.RUNNING, expires_at=1600.0, server_time=server_time)
    assert run.machine.wake_at == pytest.approx(100.0 + 600.0 + 60.0)
    for server_time in (980.0, 970.0, 960.0):
        run.sees(Phase.RUNNING, expires_at=1600.0, server_time=server_time)
    assert run.machine.wake_at == pytest.approx(100.0 + 600.0 + 60.0)


def test_of_two_answers_the_one_that_leaves_more_time_is_believed() -> None:
    run = Driver()
    run.sees(Phase.RUNNING, expires_at=1600.0, server_time=1000.0)
    run.sees(Phase.RUNNING, expires_at=1600.0, server_time=1500.0)
    assert run.machine.wake_at == pytest.approx(100.0 + 600.0 + 60.0)


def test_an_answer_without_an_expiry_does_not_change_it() -> None:
    run = Driver()
    run.sees(Phase.RUNNING, server_time=1000.0)
    assert run.machine.wake_at == 100.0 + 900.0
    run.sees(Phase.RUNNING, expires_at=1600.0, server_time=1000.0)
    run.sees(Phase.RUNNING, server_time=1000.0)
    assert run.machine.wake_at == pytest.approx(100.0 + 600.0 + 60.0)


# Polls that a shell puts off


def test_a_poll_may_be_put_off_to_just_before_the_deadline() -> None:
    run = Driver(timeout=100.0)
    began = run.now
    run.sees(Phase.RUNNING)
    assert run.machine.poll_by == began + 99.0


def test_a_poll_may_be_put_off_as_far_as_a_known_status_allows() -> None:
    run = Driver(timeout=None, max_unknown_status=30.0)
    run.sees(Phase.RUNNING)
    assert run.machine.poll_by == math.inf
    run.now += 5.0
    run.sees(Phase.UNKNOWN, status="of_tomorrow")
    assert run.machine.poll_by == run.now + 30.0


def test_a_poll_may_not_be_put_off_while_calls_or_a_cancel_are_open() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, call("call_a"))
    assert run.machine.poll_by == -math.inf
    run.answers(call_a="1")
    assert run.machine.poll_by == -math.inf
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    assert run.machine.poll_by > run.now
    run.cancels()
    assert run.machine.poll_by == -math.inf
