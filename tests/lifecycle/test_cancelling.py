"""Cancels: when they are sent, repeated, given up and reported, also by a caller that leaves."""

from __future__ import annotations

import math
from typing import Any

import pytest
from driver import Driver, call, end_of, pick

from asyncruns.errors import APITimeoutError
from asyncruns.lifecycle import (
    Asked,
    Cancel,
    CancelAsked,
    CancelRefused,
    Connectivity,
    EndKind,
    OutputsSubmitted,
    Phase,
    PollAt,
    Reason,
    RefusalKind,
    Report,
    RunTools,
    State,
    StopTools,
    Submit,
)

A = call("call_a")


def test_a_cancel_stops_the_tools_first() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A)
    assert run.cancels() == [StopTools(), Cancel()]
    assert run.machine.state is State.CANCELLING


def test_a_cancel_waits_for_a_submit_in_flight() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    assert run.cancels() == []
    assert pick(run.sees(Phase.PENDING, asked=Asked.SUBMIT), Cancel) == [Cancel()]


def test_a_cancel_follows_a_submit_whose_answer_was_lost() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.cancels()
    assert pick(run.refused(RefusalKind.LOST, asked=Asked.SUBMIT), Cancel) == [Cancel()]


def test_a_cancel_is_sent_once_however_often_it_is_requested() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.cancels()
    run.cancels()
    assert run.of(Cancel) == [Cancel()]


def test_a_run_under_cancellation_is_polled_until_it_ends() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.cancels()
    assert pick(run.sees(Phase.CANCELLING, asked=Asked.CANCEL), PollAt)
    assert end_of(run.sees(Phase.CANCELLED)).kind is EndKind.CANCELLED
    assert run.machine.cancel_requested


def test_a_run_that_completed_before_its_cancel_is_reported_as_completed() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.cancels()
    assert pick(run.refused(RefusalKind.ALREADY_OVER, asked=Asked.CANCEL), PollAt)
    assert end_of(run.sees(Phase.SUCCEEDED)).kind is EndKind.COMPLETED
    assert run.machine.cancel_requested


def test_no_tool_runs_after_a_cancel_was_requested() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.cancels()
    run.sees(Phase.NEEDS_CALLER, A)
    assert run.of(RunTools) == []
    assert run.of(Submit) == []


def test_a_cancel_that_fails_is_sent_five_times() -> None:
    run = Driver(timeout=None, max_outage=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    for _ in range(4):
        run.refused(RefusalKind.UNAVAILABLE, asked=Asked.CANCEL)
        run.passes(run.machine.wake_at - run.now)
    assert len(run.of(Cancel)) == 5
    commands = run.refused(RefusalKind.UNAVAILABLE, asked=Asked.CANCEL)
    assert any(isinstance(r.notice, CancelRefused) for r in pick(commands, Report))
    assert run.machine.state is State.POLLING


def test_a_server_that_cannot_cancel_says_so_and_the_watch_goes_on() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.cancels()
    commands = run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert any(isinstance(r.notice, CancelRefused) for r in pick(commands, Report))
    assert end_of(run.sees(Phase.SUCCEEDED)).kind is EndKind.COMPLETED


def test_calls_stopped_for_a_refused_cancel_are_left_to_the_caller() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    end = end_of(run.sees(Phase.NEEDS_CALLER, A))
    assert (end.kind, end.reason, end.calls) == (EndKind.NEEDS_CALLER, Reason.CANCEL_REFUSED, (A,))


def test_a_cancel_that_was_taken_is_confirmed_within_a_minute_or_given_up() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    run.now += 59.9
    (poll,) = pick(run.sees(Phase.CANCELLING, hint=60.0), PollAt)
    assert poll.not_before == pytest.approx(run.now + 0.1)
    run.now += 0.1
    end = end_of(run.sees(Phase.CANCELLING))
    assert (end.kind, end.reason) == (EndKind.GAVE_UP, Reason.CANCEL_UNCONFIRMED)
    assert run.machine.cancel_requested


def test_a_second_answer_to_a_stuck_cancel_does_not_move_its_bound() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    run.now += 30.0
    run.refused(RefusalKind.ALREADY_OVER, asked=Asked.CANCEL)
    run.now += 30.0
    assert end_of(run.sees(Phase.CANCELLING)).reason is Reason.CANCEL_UNCONFIRMED


def test_a_cancel_is_bounded_too_if_the_server_says_that_the_run_is_over() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.ALREADY_OVER, asked=Asked.CANCEL)
    run.sees(Phase.RUNNING)
    run.now += 60.0
    assert end_of(run.sees(Phase.RUNNING)).reason is Reason.CANCEL_UNCONFIRMED


def test_the_first_polls_after_a_cancel_are_quick_again() -> None:
    run = Driver()
    for _ in range(10):
        run.sees(Phase.RUNNING)
    run.cancels()
    (poll,) = pick(run.sees(Phase.CANCELLING, asked=Asked.CANCEL), PollAt)
    assert poll.not_before - run.now == pytest.approx(0.25)


def test_a_cancel_does_not_wait_for_a_submit_for_ever() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.cancels()
    assert pick(run.sees(Phase.RUNNING), Cancel) == []
    assert run.machine.wake_at == run.now + 2.0
    assert pick(run.passes(2.0), Cancel) == [Cancel()]
    # The submit is answered after all: this is recorded, and the cancel is not sent again.
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    assert len(run.of(Cancel)) == 1
    assert any(isinstance(r.notice, OutputsSubmitted) for r in run.of(Report))


@pytest.mark.parametrize("kind", [RefusalKind.LOST, RefusalKind.REJECTED, RefusalKind.NOT_FOUND])
def test_a_submit_that_fails_after_the_cancel_was_sent_causes_no_second_one(kind: RefusalKind) -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.cancels()
    run.passes(2.0)
    run.refused(kind, asked=Asked.SUBMIT)
    assert len(run.of(Cancel)) == 1
    assert run.machine.state is State.CANCELLING


def test_a_cancel_reopens_a_watch_that_gave_up_and_has_a_time_of_its_own() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.RUNNING)
    assert end_of(run.passes(5.0)).reason is Reason.TIMEOUT
    assert run.machine.wake_at == math.inf
    assert pick(run.cancels(), Cancel) == [Cancel()]
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    run.now += 59.0
    run.sees(Phase.CANCELLING)
    assert end_of(run.sees(Phase.CANCELLED)).kind is EndKind.CANCELLED


def test_a_cancel_that_was_given_up_can_be_requested_again() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    run.now += 60.0
    end_of(run.sees(Phase.CANCELLING))
    assert pick(run.cancels(), Cancel) == [Cancel()]
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    run.now += 59.0
    run.sees(Phase.CANCELLING)
    assert run.machine.end is None


def test_a_cancel_waits_for_a_submit_that_was_in_flight_when_the_watch_gave_up() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.passes(5.0)
    assert pick(run.cancels(), Cancel) == []
    assert pick(run.sees(Phase.PENDING, asked=Asked.SUBMIT), Cancel) == [Cancel()]


@pytest.mark.parametrize("answered", [True, False])
def test_a_cancel_does_not_wait_for_a_submit_that_was_answered_after_the_watch_gave_up(answered: bool) -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.passes(5.0)
    if answered:
        assert run.sees(Phase.PENDING, asked=Asked.SUBMIT) == []
    else:
        assert run.refused(RefusalKind.LOST, asked=Asked.SUBMIT) == []
    assert pick(run.cancels(), Cancel) == [Cancel()]


@pytest.mark.parametrize(
    "kind", [RefusalKind.NOT_SENT, RefusalKind.LOST, RefusalKind.UNAVAILABLE, RefusalKind.THROTTLED]
)
def test_a_cancel_that_fails_is_sent_again_after_a_pause(kind: RefusalKind) -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(kind, asked=Asked.CANCEL)
    assert run.machine.wake_at == run.now + 0.5
    assert run.passes(0.4) == []
    assert run.passes(0.2) == [Cancel()]
    run.refused(kind, asked=Asked.CANCEL, retry_after=7.0)
    assert run.machine.wake_at == run.now + 7.0


def test_a_cancel_that_was_accepted_after_all_is_not_sent_again() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.LOST, asked=Asked.CANCEL)
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)  # the answer to the first try arrived after all
    run.passes(10.0)
    assert len(run.of(Cancel)) == 1


def test_an_outage_during_a_cancel_ends_the_watch_like_any_other() -> None:
    run = Driver(timeout=None, max_outage=30.0)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.LOST, asked=Asked.CANCEL)
    run.now += 30.0
    assert end_of(run.refused(RefusalKind.LOST, asked=Asked.CANCEL)).reason is Reason.UNREACHABLE


def test_a_refused_cancel_is_reported_with_its_cause_and_followed_by_a_poll() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    cause = RuntimeError("no")
    assert run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL, cause=cause) == [
        Report(CancelRefused(cause=cause)),
        PollAt(run.now, run.now),
    ]
    assert not run.machine.cancel_requested
    assert run.machine.wake_at == math.inf


def test_a_cancel_that_was_accepted_and_then_refused_is_no_longer_bounded() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.ALREADY_OVER, asked=Asked.CANCEL)
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert run.machine.wake_at == math.inf


def test_an_answer_to_a_cancel_that_was_not_sent_changes_nothing() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    assert run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL) == []
    run.sees(Phase.RUNNING, asked=Asked.CANCEL)
    assert run.machine.wake_at == math.inf
    assert run.machine.state is State.POLLING


@pytest.mark.parametrize("seen", [True, False])
def test_only_a_poll_shows_that_a_cancel_failed(seen: bool) -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    run.passes(50.0)
    run.refused(RefusalKind.LOST)
    run.passes(50.0)
    run.refused(RefusalKind.LOST)
    assert run.machine.state is State.CANCELLING
    end = end_of(run.sees(Phase.CANCELLED if seen else Phase.CANCELLING))
    assert end.reason is (None if seen else Reason.CANCEL_UNCONFIRMED)


def test_a_cancel_whose_answer_was_lost_may_be_why_the_run_is_cancelled() -> None:
    run = Driver(timeout=None, max_outage=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.LOST, asked=Asked.CANCEL)
    run.passes(1.0)
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert run.machine.state is State.POLLING
    assert run.machine.cancel_requested
    assert end_of(run.sees(Phase.CANCELLED)).kind is EndKind.CANCELLED


def test_a_cancel_that_was_definitely_refused_does_not_count_as_requested() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.THROTTLED, asked=Asked.CANCEL)
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert not run.machine.cancel_requested


def test_successful_polls_do_not_shorten_the_pauses_of_a_cancel() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    pauses = []
    for _ in range(4):
        run.refused(RefusalKind.UNAVAILABLE, asked=Asked.CANCEL)
        run.sees(Phase.RUNNING)
        pauses.append(run.machine.wake_at - run.now)
        run.passes(pauses[-1])
    assert pauses == pytest.approx([0.5, 1.0, 2.0, 4.0])


def test_a_cancel_after_giving_up_has_a_minute_however_short_the_timeout_was() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.RUNNING)
    run.passes(5.0)
    run.cancels()
    assert run.machine.wake_at == run.now + 60.0
    assert end_of(run.passes(60.0)).reason is Reason.TIMEOUT


def test_a_cancel_after_giving_up_has_the_whole_timeout_if_that_is_longer() -> None:
    run = Driver(timeout=300.0)
    run.sees(Phase.RUNNING)
    run.passes(300.0)
    run.cancels()
    assert run.machine.wake_at == run.now + 300.0


@pytest.mark.parametrize(("answered", "state"), [(True, State.POLLING), (False, State.SUBMITTING)])
def test_the_answer_to_a_submit_after_giving_up_counts_when_the_watch_is_reopened(answered: bool, state: State) -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.passes(5.0)
    if answered:
        run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    else:
        run.refused(RefusalKind.LOST, asked=Asked.SUBMIT)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert run.machine.state is state
    run.now += 5.0
    run.sees_twice(Phase.NEEDS_CALLER, A)
    assert len(run.of(Submit)) == 2  # the first submit had no effect


@pytest.mark.parametrize("is_accepted", [True, False])
def test_leaving_a_final_snapshot_cancels_only_the_run_that_a_submit_began(is_accepted: bool) -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.NEEDS_CALLER, A, is_final=True)
    if is_accepted:
        run.answers(call_a="1")
    run.passes(5.0)
    if is_accepted:
        run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    commands = run.feed(CancelAsked(run.now, by=run.now + 5.0))
    assert bool(pick(commands, Cancel)) is is_accepted


def test_an_answer_without_a_submit_changes_nothing_after_the_end() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.NEEDS_CALLER, A)
    run.passes(5.0)
    assert run.sees(Phase.PENDING, asked=Asked.SUBMIT) == []
    assert run.refused(RefusalKind.LOST, asked=Asked.SUBMIT) == []
    assert run.machine.state is State.DONE


def test_a_run_that_still_names_no_calls_after_a_refused_cancel_is_surfaced_again() -> None:
    run = Driver(timeout=None)
    for _ in range(4):
        run.sees(Phase.NEEDS_CALLER)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    for _ in range(3):
        run.sees(Phase.NEEDS_CALLER)
    assert end_of(run.sees(Phase.NEEDS_CALLER)).reason is Reason.NO_CALLS


def test_outputs_that_arrive_during_a_cancel_are_kept_and_not_sent() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.cancels()
    run.answers(call_a="1")
    assert run.of(Submit) == []
    commands = run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert [dict(submit.outputs) for submit in pick(commands, Submit)] == [{"call_a": "1"}]
    assert run.machine.state is State.SUBMITTING
    run.sees(Phase.NEEDS_CALLER, A)
    assert len(run.of(Submit)) == 1


def test_unanswered_calls_do_not_end_the_watch_during_a_cancel() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.cancels()
    assert run.unanswered("call_a", cause=ValueError("stopped")) == []
    assert run.machine.state is State.CANCELLING


def test_a_cancel_stops_no_tools_if_none_run() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    assert pick(run.cancels(), Cancel) == [Cancel()]


def test_a_poll_does_not_count_as_the_answer_to_a_cancel_in_flight() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.sees(Phase.RUNNING)
    assert run.machine.wake_at == math.inf
    assert run.machine.state is State.CANCELLING


def test_a_refused_cancel_is_not_the_reason_for_later_unanswered_calls() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    run.now += 60.0  # from now on, the cancel is no longer wanted
    run.sees(Phase.NEEDS_CALLER, A)
    assert end_of(run.unanswered("call_a")).reason is Reason.UNANSWERED


def leaving(phase: Phase = Phase.PENDING, **policy: Any) -> Driver:
    """Return a watch that saw the run in this phase and whose caller leaves within 5 s and wants it cancelled."""
    run = Driver(**policy)
    run.sees(phase)
    run.feed(CancelAsked(run.now, by=run.now + 5.0))
    return run


REFUSALS = [RefusalKind.REJECTED, RefusalKind.BUSY, RefusalKind.NOT_ACCEPTING]


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize("after", [Phase.RUNNING, Phase.NEEDS_CALLER, Phase.UNKNOWN])
def test_a_refused_cancel_is_sent_again_when_the_status_has_changed(kind: RefusalKind, after: Phase) -> None:
    run = Driver(timeout=None)
    run.sees(Phase.PENDING)
    run.cancels()
    run.refused(kind, asked=Asked.CANCEL)
    assert pick(run.sees(Phase.PENDING), Cancel) == []
    assert pick(run.sees(after), Cancel) == [Cancel()]
    assert run.machine.cancel_requested
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    run.sees(Phase.CANCELLED)
    assert run.machine.cancel_error is None


def test_no_tool_runs_when_a_refused_cancel_is_sent_again_instead() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert run.sees(Phase.NEEDS_CALLER, A)[1:2] == [Cancel()]
    assert run.of(RunTools) == []


def test_a_refused_cancel_of_a_run_that_no_poll_has_shown_is_sent_again_after_the_first_poll() -> None:
    run = Driver(timeout=None)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert pick(run.sees(Phase.RUNNING), Cancel) == [Cancel()]
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert pick(run.sees(Phase.RUNNING), Cancel) == []


@pytest.mark.parametrize("phase", [None, Phase.PENDING])
def test_a_cancel_is_sent_again_if_the_run_is_not_over_although_the_server_says_so(phase: Phase | None) -> None:
    run = Driver(timeout=None)
    run.sees(Phase.PENDING)
    run.cancels()
    run.refused(RefusalKind.ALREADY_OVER, asked=Asked.CANCEL, phase=phase)
    assert pick(run.sees(Phase.PENDING), Cancel) == []
    assert pick(run.sees(Phase.RUNNING), Cancel) == [Cancel()]


def test_a_cancel_is_not_sent_again_if_the_server_says_how_the_run_has_ended() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.PENDING)
    run.cancels()
    run.refused(RefusalKind.ALREADY_OVER, asked=Asked.CANCEL, phase=Phase.SUCCEEDED)
    assert pick(run.sees(Phase.RUNNING), Cancel) == []


def test_a_refused_cancel_is_not_sent_again_while_the_run_is_being_cancelled() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert pick(run.sees(Phase.CANCELLING), Cancel) == []


def test_a_refused_cancel_is_wanted_for_a_minute_only() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.PENDING)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    run.now += 60.0
    assert pick(run.sees(Phase.RUNNING), Cancel) == []
    assert pick(run.cancels(), Cancel) == [Cancel()]


def test_a_status_that_keeps_changing_does_not_cause_a_cancel_after_each_poll() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.UNKNOWN, status="0%")
    run.cancels()
    for percent in range(20):
        run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
        run.sees(Phase.UNKNOWN, status=f"{percent + 1}%")
    assert len(run.of(Cancel)) == 5


def test_a_refused_cancel_waits_for_a_pending_submit_before_it_is_sent_again() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.cancels()
    run.answers(call_a="1")
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert pick(run.sees(Phase.RUNNING), Cancel) == []
    assert pick(run.sees(Phase.PENDING, asked=Asked.SUBMIT), Cancel) == [Cancel()]


def test_a_cancel_that_is_not_found_is_sent_again_only_while_replicas_may_lag() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.PENDING)
    run.cancels()
    run.refused(RefusalKind.NOT_FOUND, asked=Asked.CANCEL)
    run.now += 5.0
    assert pick(run.passes(0.0), Cancel) == [Cancel()]
    commands = run.refused(RefusalKind.NOT_FOUND, asked=Asked.CANCEL)
    assert any(isinstance(r.notice, CancelRefused) for r in pick(commands, Report))
    assert pick(run.sees(Phase.RUNNING), Cancel) == []  # this server has no cancel at all
    assert run.machine.connectivity is Connectivity.HEALTHY


@pytest.mark.parametrize("kind", REFUSALS)
def test_for_a_caller_that_leaves_a_refused_cancel_is_sent_again_and_nothing_else_is_done(kind: RefusalKind) -> None:
    run = leaving(timeout=None)
    commands = run.refused(kind, asked=Asked.CANCEL)
    assert pick(commands, PollAt) == [PollAt(run.now, run.now)]
    assert run.machine.is_cancelling
    assert not run.machine.cancel_requested
    assert pick(run.sees(Phase.NEEDS_CALLER, A), Cancel) == [Cancel()]
    assert (run.of(RunTools), run.of(Submit)) == ([], [])
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    assert end_of(run.sees(Phase.CANCELLED)).kind is EndKind.CANCELLED


def test_leaving_ends_in_time_and_reports_why_the_run_was_not_cancelled() -> None:
    run = leaving(timeout=None)
    cause = RuntimeError("no")
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL, cause=cause)
    run.sees(Phase.PENDING)
    assert run.machine.wake_at == run.now + 5.0
    end = end_of(run.passes(5.0))
    assert (end.kind, end.reason, end.cause) == (EndKind.GAVE_UP, Reason.NOT_CANCELLED, cause)
    assert run.machine.cancel_error is cause
    assert not run.machine.is_cancelling


def test_a_cancel_that_no_poll_confirms_before_the_caller_has_left_is_reported_as_that() -> None:
    run = leaving(timeout=None)
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    assert end_of(run.passes(5.0)).reason is Reason.NOT_CANCELLED
    assert isinstance(run.machine.cancel_error, APITimeoutError)
    assert run.machine.cancel_requested


def test_a_sleep_of_hours_while_leaving_ends_it_at_once() -> None:
    run = leaving()
    assert end_of(run.passes(10_000.0)).reason is Reason.NOT_CANCELLED


def test_a_caller_that_leaves_gets_a_last_try_whatever_pause_the_server_asks_for() -> None:
    run = leaving(timeout=None)
    run.refused(RefusalKind.THROTTLED, asked=Asked.CANCEL, retry_after=30.0)
    assert run.machine.wake_at == run.now + 4.0
    assert run.passes(4.0) == [Cancel()]
    run.refused(RefusalKind.THROTTLED, asked=Asked.CANCEL, retry_after=30.0)
    assert end_of(run.passes(1.0)).reason is Reason.NOT_CANCELLED


def test_the_timeout_of_the_wait_does_not_cut_leaving_short() -> None:
    run = Driver(timeout=10.0)
    run.sees(Phase.RUNNING)
    run.now += 9.0
    run.feed(CancelAsked(run.now, by=run.now + 5.0))
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    assert run.passes(4.0) == []
    assert end_of(run.sees(Phase.CANCELLED)).kind is EndKind.CANCELLED


def test_leaving_after_a_cancel_sends_no_second_one_and_keeps_the_earlier_limit() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    assert run.feed(CancelAsked(run.now, by=run.now + 5.0)) == []
    assert run.feed(CancelAsked(run.now, by=run.now + 50.0)) == []
    assert end_of(run.passes(5.0)).reason is Reason.NOT_CANCELLED
    assert len(run.of(Cancel)) == 1


def test_leaving_a_run_that_waits_for_outputs_does_not_wait_after_a_refusal() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.feed(CancelAsked(run.now, by=run.now + 5.0))
    cause = RuntimeError("no")
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL, cause=cause)
    end = end_of(run.sees(Phase.NEEDS_CALLER, A))
    assert (end.kind, end.reason, end.cause, end.calls) == (EndKind.NEEDS_CALLER, Reason.CANCEL_REFUSED, cause, (A,))
    assert run.machine.cancel_error is cause


@pytest.mark.parametrize(
    "kind", [RefusalKind.NOT_FOUND, RefusalKind.UNSUPPORTED, RefusalKind.UNAUTHORIZED, RefusalKind.QUOTA_SPENT]
)
def test_leaving_does_not_wait_if_the_server_never_cancels(kind: RefusalKind) -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.now += 10.0
    run.feed(CancelAsked(run.now, by=run.now + 5.0))
    run.refused(kind, asked=Asked.CANCEL)
    assert end_of(run.sees(Phase.RUNNING)).reason is Reason.NOT_CANCELLED


def test_leaving_a_finished_watch_keeps_its_reason() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.RUNNING)
    run.passes(5.0)
    run.feed(CancelAsked(run.now, by=run.now + 5.0))
    cause = RuntimeError("no")
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL, cause=cause)
    end = end_of(run.passes(5.0))
    assert (end.kind, end.reason) == (EndKind.GAVE_UP, Reason.TIMEOUT)
    assert run.machine.cancel_error is cause


def test_leaving_a_run_that_is_gone_cancels_nothing() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.now += 10.0
    assert end_of(run.refused(RefusalKind.NOT_FOUND)).reason is Reason.GONE
    assert run.feed(CancelAsked(run.now, by=run.now + 5.0)) == []
    assert run.machine.cancel_error is None


def test_a_refused_cancel_of_a_final_snapshot_is_not_an_error() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A, is_final=True)
    run.feed(CancelAsked(run.now, by=run.now + 5.0))
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert end_of(run.sees(Phase.NEEDS_CALLER, A, is_final=True)).kind is EndKind.NEEDS_CALLER
    assert run.machine.cancel_error is None
