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


def test_a_cancel_waits_for_a_submit_on_its_way() -> None:
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


def test_a_cancel_is_asked_once_however_often_it_is_wanted() -> None:
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


def test_a_cancel_that_lost_against_completion_is_reported_as_it_was() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.cancels()
    assert pick(run.refused(RefusalKind.ALREADY_OVER, asked=Asked.CANCEL), PollAt)
    assert end_of(run.sees(Phase.SUCCEEDED)).kind is EndKind.COMPLETED
    assert run.machine.cancel_requested


def test_no_tool_runs_any_more_once_a_cancel_was_asked() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.cancels()
    run.sees(Phase.NEEDS_CALLER, A)
    assert run.of(RunTools) == []
    assert run.of(Submit) == []


def test_a_cancel_that_did_not_arrive_is_asked_again_some_times() -> None:
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


def test_calls_stopped_for_a_refused_cancel_are_the_callers_then() -> None:
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


def test_polls_at_a_stuck_cancellation_do_not_move_its_bound() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    run.now += 30.0
    run.refused(RefusalKind.ALREADY_OVER, asked=Asked.CANCEL)
    run.now += 30.0
    assert end_of(run.sees(Phase.CANCELLING)).reason is Reason.CANCEL_UNCONFIRMED


def test_a_run_that_is_over_by_the_servers_word_is_bounded_as_well() -> None:
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
    # The submit is answered after all: it is recorded, and the cancel is not sent again.
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    assert len(run.of(Cancel)) == 1
    assert any(isinstance(r.notice, OutputsSubmitted) for r in run.of(Report))


@pytest.mark.parametrize("kind", [RefusalKind.LOST, RefusalKind.REJECTED, RefusalKind.NOT_FOUND])
def test_a_submit_that_fails_after_the_cancel_went_out_is_no_second_cancel(kind: RefusalKind) -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.cancels()
    run.passes(2.0)
    run.refused(kind, asked=Asked.SUBMIT)
    assert len(run.of(Cancel)) == 1
    assert run.machine.state is State.CANCELLING


def test_a_cancel_takes_up_a_watch_that_gave_up_and_has_its_own_time() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.RUNNING)
    assert end_of(run.passes(5.0)).reason is Reason.TIMEOUT
    assert run.machine.wake_at == math.inf
    assert pick(run.cancels(), Cancel) == [Cancel()]
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    run.now += 59.0
    run.sees(Phase.CANCELLING)
    assert end_of(run.sees(Phase.CANCELLED)).kind is EndKind.CANCELLED


def test_a_cancel_that_was_given_up_can_be_asked_anew() -> None:
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


def test_a_cancel_waits_for_a_submit_that_was_on_its_way_when_the_watch_gave_up() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.passes(5.0)
    assert pick(run.cancels(), Cancel) == []
    assert pick(run.sees(Phase.PENDING, asked=Asked.SUBMIT), Cancel) == [Cancel()]


@pytest.mark.parametrize("answered", [True, False])
def test_a_submit_that_is_answered_after_the_watch_gave_up_is_not_waited_for(answered: bool) -> None:
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
def test_a_cancel_that_did_not_arrive_is_asked_again_after_a_pause(kind: RefusalKind) -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(kind, asked=Asked.CANCEL)
    assert run.machine.wake_at == run.now + 0.5
    assert run.passes(0.4) == []
    assert run.passes(0.2) == [Cancel()]
    run.refused(kind, asked=Asked.CANCEL, retry_after=7.0)
    assert run.machine.wake_at == run.now + 7.0


def test_a_cancel_that_was_taken_at_the_second_try_is_not_asked_a_third_time() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.LOST, asked=Asked.CANCEL)
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)  # the answer to the first came after all
    run.passes(10.0)
    assert len(run.of(Cancel)) == 1


def test_an_outage_while_a_cancel_is_tried_ends_the_watch_like_any() -> None:
    run = Driver(timeout=None, max_outage=30.0)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.LOST, asked=Asked.CANCEL)
    run.now += 30.0
    assert end_of(run.refused(RefusalKind.LOST, asked=Asked.CANCEL)).reason is Reason.UNREACHABLE


def test_a_refused_cancel_is_told_with_its_cause_and_polled_at_once() -> None:
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


def test_a_cancel_that_was_taken_and_then_refused_is_bounded_no_more() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.ALREADY_OVER, asked=Asked.CANCEL)
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert run.machine.wake_at == math.inf


def test_an_answer_to_a_cancel_that_nobody_asked_changes_nothing() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    assert run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL) == []
    run.sees(Phase.RUNNING, asked=Asked.CANCEL)
    assert run.machine.wake_at == math.inf
    assert run.machine.state is State.POLLING


@pytest.mark.parametrize("seen", [True, False])
def test_only_a_poll_tells_that_a_cancel_came_to_nothing(seen: bool) -> None:
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


def test_a_cancel_that_was_refused_outright_was_not_asked_for() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.THROTTLED, asked=Asked.CANCEL)
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert not run.machine.cancel_requested


def test_polls_that_succeed_do_not_hurry_the_tries_of_a_cancel() -> None:
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


def test_a_cancel_after_giving_up_has_the_whole_timeout_where_that_is_longer() -> None:
    run = Driver(timeout=300.0)
    run.sees(Phase.RUNNING)
    run.passes(300.0)
    run.cancels()
    assert run.machine.wake_at == run.now + 300.0


@pytest.mark.parametrize(("answered", "state"), [(True, State.POLLING), (False, State.SUBMITTING)])
def test_what_became_of_a_submit_after_giving_up_counts_when_the_watch_is_taken_up(
    answered: bool, state: State
) -> None:
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
    assert len(run.of(Submit)) == 2  # what was sent had no effect


@pytest.mark.parametrize("is_accepted", [True, False])
def test_leaving_cancels_only_what_a_submit_began_where_what_was_seen_is_final(is_accepted: bool) -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.NEEDS_CALLER, A, is_final=True)
    if is_accepted:
        run.answers(call_a="1")
    run.passes(5.0)
    if is_accepted:
        run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    commands = run.feed(CancelAsked(run.now, by=run.now + 5.0))
    assert bool(pick(commands, Cancel)) is is_accepted


def test_an_answer_to_no_submit_changes_nothing_after_the_end() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.NEEDS_CALLER, A)
    run.passes(5.0)
    assert run.sees(Phase.PENDING, asked=Asked.SUBMIT) == []
    assert run.refused(RefusalKind.LOST, asked=Asked.SUBMIT) == []
    assert run.machine.state is State.DONE


def test_a_refused_cancel_of_a_run_that_still_says_nothing_surfaces_it_again() -> None:
    run = Driver(timeout=None)
    for _ in range(4):
        run.sees(Phase.NEEDS_CALLER)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    for _ in range(3):
        run.sees(Phase.NEEDS_CALLER)
    assert end_of(run.sees(Phase.NEEDS_CALLER)).reason is Reason.NO_CALLS


def test_outputs_that_come_while_a_cancel_is_under_way_are_kept_and_not_sent() -> None:
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


def test_calls_that_nobody_answers_are_no_end_while_a_cancel_is_under_way() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.cancels()
    assert run.unanswered("call_a", cause=ValueError("stopped")) == []
    assert run.machine.state is State.CANCELLING


def test_a_cancel_stops_no_tools_where_none_run() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    assert pick(run.cancels(), Cancel) == [Cancel()]


def test_a_poll_is_no_answer_to_a_cancel_that_is_on_its_way() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    run.sees(Phase.RUNNING)
    assert run.machine.wake_at == math.inf
    assert run.machine.state is State.CANCELLING


def test_a_cancel_that_was_refused_is_not_why_later_calls_are_left_unanswered() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    run.now += 60.0  # the cancel is not wanted any more
    run.sees(Phase.NEEDS_CALLER, A)
    assert end_of(run.unanswered("call_a")).reason is Reason.UNANSWERED


def leaving(phase: Phase = Phase.PENDING, **policy: Any) -> Driver:
    """A run that was seen in this phase, and whose caller leaves within 5 s and wants it cancelled."""
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


def test_a_refused_cancel_of_a_run_that_no_poll_has_shown_is_sent_again_with_the_first_poll() -> None:
    run = Driver(timeout=None)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert pick(run.sees(Phase.RUNNING), Cancel) == [Cancel()]
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert pick(run.sees(Phase.RUNNING), Cancel) == []


@pytest.mark.parametrize("phase", [None, Phase.PENDING])
def test_a_cancel_of_a_run_that_is_not_over_as_the_server_says_is_sent_again(phase: Phase | None) -> None:
    run = Driver(timeout=None)
    run.sees(Phase.PENDING)
    run.cancels()
    run.refused(RefusalKind.ALREADY_OVER, asked=Asked.CANCEL, phase=phase)
    assert pick(run.sees(Phase.PENDING), Cancel) == []
    assert pick(run.sees(Phase.RUNNING), Cancel) == [Cancel()]


def test_a_cancel_is_not_sent_again_where_the_server_says_how_the_run_has_ended() -> None:
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


def test_a_status_that_changes_all_the_time_does_not_make_a_cancel_of_each_poll() -> None:
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


def test_a_cancel_that_the_server_does_not_know_is_sent_again_only_while_replicas_may_lag() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.PENDING)
    run.cancels()
    run.refused(RefusalKind.NOT_FOUND, asked=Asked.CANCEL)
    run.now += 5.0
    assert pick(run.passes(0.0), Cancel) == [Cancel()]
    commands = run.refused(RefusalKind.NOT_FOUND, asked=Asked.CANCEL)
    assert any(isinstance(r.notice, CancelRefused) for r in pick(commands, Report))
    assert pick(run.sees(Phase.RUNNING), Cancel) == []  # such a server has no cancel at all
    assert run.machine.connectivity is Connectivity.HEALTHY


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_caller_that_leaves_has_a_refused_cancel_sent_again_and_nothing_else_done(kind: RefusalKind) -> None:
    run = leaving(timeout=None)
    commands = run.refused(kind, asked=Asked.CANCEL)
    assert pick(commands, PollAt) == [PollAt(run.now, run.now)]
    assert run.machine.is_cancelling
    assert not run.machine.cancel_requested
    assert pick(run.sees(Phase.NEEDS_CALLER, A), Cancel) == [Cancel()]
    assert (run.of(RunTools), run.of(Submit)) == ([], [])
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    assert end_of(run.sees(Phase.CANCELLED)).kind is EndKind.CANCELLED


def test_leaving_ends_in_time_and_tells_why_the_run_was_not_cancelled() -> None:
    run = leaving(timeout=None)
    cause = RuntimeError("no")
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL, cause=cause)
    run.sees(Phase.PENDING)
    assert run.machine.wake_at == run.now + 5.0
    end = end_of(run.passes(5.0))
    assert (end.kind, end.reason, end.cause) == (EndKind.GAVE_UP, Reason.NOT_CANCELLED, cause)
    assert run.machine.cancel_error is cause
    assert not run.machine.is_cancelling


def test_a_cancel_that_no_poll_confirms_before_the_caller_has_left_is_told_as_such() -> None:
    run = leaving(timeout=None)
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    assert end_of(run.passes(5.0)).reason is Reason.NOT_CANCELLED
    assert isinstance(run.machine.cancel_error, APITimeoutError)
    assert run.machine.cancel_requested


def test_a_sleep_of_hours_while_leaving_ends_it_at_once() -> None:
    run = leaving()
    assert end_of(run.passes(10_000.0)).reason is Reason.NOT_CANCELLED


def test_a_caller_that_leaves_has_a_last_try_whatever_pause_the_server_asks_for() -> None:
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


def test_a_caller_that_leaves_after_asking_for_a_cancel_asks_once_and_within_its_time() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.cancels()
    assert run.feed(CancelAsked(run.now, by=run.now + 5.0)) == []
    assert run.feed(CancelAsked(run.now, by=run.now + 50.0)) == []
    assert end_of(run.passes(5.0)).reason is Reason.NOT_CANCELLED
    assert len(run.of(Cancel)) == 1


def test_who_leaves_a_run_that_waits_for_outputs_does_not_wait_after_a_refusal() -> None:
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
def test_who_leaves_does_not_wait_where_the_server_cancels_in_no_status(kind: RefusalKind) -> None:
    run = Driver(timeout=None)
    run.sees(Phase.RUNNING)
    run.now += 10.0
    run.feed(CancelAsked(run.now, by=run.now + 5.0))
    run.refused(kind, asked=Asked.CANCEL)
    assert end_of(run.sees(Phase.RUNNING)).reason is Reason.NOT_CANCELLED


def test_leaving_a_watch_that_had_ended_keeps_why_it_had_ended() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.RUNNING)
    run.passes(5.0)
    run.feed(CancelAsked(run.now, by=run.now + 5.0))
    cause = RuntimeError("no")
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL, cause=cause)
    end = end_of(run.passes(5.0))
    assert (end.kind, end.reason) == (EndKind.GAVE_UP, Reason.TIMEOUT)
    assert run.machine.cancel_error is cause


def test_who_leaves_a_run_that_is_gone_cancels_nothing() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    run.now += 10.0
    assert end_of(run.refused(RefusalKind.NOT_FOUND)).reason is Reason.GONE
    assert run.feed(CancelAsked(run.now, by=run.now + 5.0)) == []
    assert run.machine.cancel_error is None


def test_what_is_final_needs_no_cancel_so_nothing_is_wrong_when_that_is_refused() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A, is_final=True)
    run.feed(CancelAsked(run.now, by=run.now + 5.0))
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert end_of(run.sees(Phase.NEEDS_CALLER, A, is_final=True)).kind is EndKind.NEEDS_CALLER
    assert run.machine.cancel_error is None
