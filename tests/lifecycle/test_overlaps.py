"""Rounds, submits, polls and cancels that overlap, as they do if requests take seconds."""

from __future__ import annotations

import math

import pytest
from driver import Driver, call, end_of, pick, snapshot

from asyncruns.lifecycle import (
    ActionRequired,
    Asked,
    CallKind,
    Cancel,
    EndKind,
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

A, B = call("call_a"), call("call_b", "g")
APPROVAL = call("call_c", "", kind=CallKind.OTHER)


def submitted(run: Driver) -> list[dict[str, str]]:
    return [dict(command.outputs) for command in run.of(Submit)]


def in_flight(*, policy_timeout: float | None = None) -> Driver:
    """Return a run whose first round is being submitted while a poll shows the second."""
    run = Driver(timeout=policy_timeout)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.sees(Phase.NEEDS_CALLER, B)
    return run


def test_an_accepted_submit_counts_for_the_round_that_was_sent() -> None:
    run = in_flight()
    run.sees(Phase.NEEDS_CALLER, B, asked=Asked.SUBMIT)
    run.now += 60.0
    run.sees(Phase.NEEDS_CALLER, B)
    run.answers(call_b="2")
    assert submitted(run) == [{"call_a": "1"}, {"call_b": "2"}]


@pytest.mark.parametrize("kind", [RefusalKind.LOST, RefusalKind.NOT_ACCEPTING, RefusalKind.REJECTED])
def test_a_failed_submit_counts_for_the_round_that_was_sent(kind: RefusalKind) -> None:
    run = in_flight()
    run.refused(kind, asked=Asked.SUBMIT)
    run.now += 60.0
    run.sees(Phase.NEEDS_CALLER, B)
    run.answers(call_b="2")
    assert submitted(run) == [{"call_a": "1"}, {"call_b": "2"}]


def test_the_second_submit_waits_for_the_first() -> None:
    run = in_flight()
    assert pick(run.answers(call_b="2"), Submit) == []
    assert [c.outputs for c in pick(run.sees(Phase.NEEDS_CALLER, B, asked=Asked.SUBMIT), Submit)] == [
        (("call_b", "2"),)
    ]


def test_a_submit_that_waits_to_be_repeated_is_dropped_when_the_run_asks_for_other_calls() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.refused(RefusalKind.THROTTLED, asked=Asked.SUBMIT, retry_after=3.0)
    run.sees(Phase.NEEDS_CALLER, B)
    run.passes(3.0)
    run.answers(call_b="2")
    assert submitted(run) == [{"call_a": "1"}, {"call_b": "2"}]


def test_the_age_of_a_slow_poll_counts_from_when_it_was_sent() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    asked_at = run.now + 0.3
    run.now += 20.0
    run.sees(Phase.NEEDS_CALLER, A, asked_at=asked_at)
    assert submitted(run) == [{"call_a": "1"}]


def test_a_repeated_submit_that_is_refused_leads_to_a_poll() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.refused(RefusalKind.LOST, asked=Asked.SUBMIT)
    run.now += 5.0
    run.sees_twice(Phase.NEEDS_CALLER, A)
    assert len(submitted(run)) == 2
    assert pick(run.refused(RefusalKind.REJECTED, asked=Asked.SUBMIT), PollAt)
    assert end_of(run.sees(Phase.SUCCEEDED)).kind is EndKind.COMPLETED


def test_outputs_that_wait_to_be_sent_survive_a_cancel_that_is_refused() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.refused(RefusalKind.THROTTLED, asked=Asked.SUBMIT)
    run.cancels()
    assert run.machine.wake_at == math.inf
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    run.passes(max(run.machine.wake_at - run.now, 0.0))
    assert submitted(run) == [{"call_a": "1"}] * 2


def test_a_cancel_that_waited_for_a_submit_is_sent_although_that_was_refused() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.cancels()
    assert pick(run.refused(RefusalKind.REJECTED, asked=Asked.SUBMIT), Cancel) == [Cancel()]


def test_a_run_with_unanswered_calls_can_be_cancelled() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A)
    run.unanswered("call_a")
    assert run.machine.state is State.DONE
    assert pick(run.cancels(), Cancel) == [Cancel()]
    run.sees(Phase.CANCELLING, asked=Asked.CANCEL)
    assert end_of(run.sees(Phase.CANCELLED)).kind is EndKind.CANCELLED


def test_a_second_cancel_has_all_its_tries() -> None:
    run = Driver(timeout=None, max_outage=None)
    run.sees(Phase.RUNNING)
    for _ in range(2):
        run.cancels()
        for _ in range(5):
            run.refused(RefusalKind.UNAVAILABLE, asked=Asked.CANCEL)
            if run.machine.wake_at < math.inf:
                run.passes(run.machine.wake_at - run.now)
    assert len(run.of(Cancel)) == 10


def test_a_late_output_of_an_old_round_is_not_used_for_the_new_one() -> None:
    run = Driver(timeout=None)
    first, second = call("call_0", arguments='{"n":1}'), call("call_0", arguments='{"n":2}')
    run.sees(Phase.NEEDS_CALLER, first)
    run.provides(call_0="by the caller")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.sees(Phase.NEEDS_CALLER, second)
    run.calls["call_0"] = first
    run.answers(call_0="late, for n=1")
    run.unanswered("call_0")
    run.calls["call_0"] = second
    run.answers(call_0="for n=2")
    assert submitted(run) == [{"call_0": "by the caller"}, {"call_0": "for n=2"}]


def test_a_call_that_appears_twice_in_a_round_is_run_once() -> None:
    run = Driver()
    (tools,) = pick(run.sees(Phase.NEEDS_CALLER, A, A), RunTools)
    assert tools.calls == (A,)


def test_approvals_are_not_answered_automatically_at_the_expiry() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, APPROVAL, expires_at=1600.0, server_time=1000.0)
    run.unanswered("call_c")
    end = end_of(run.passes(run.machine.wake_at - run.now))
    assert (end.reason, end.calls) == (Reason.UNANSWERED, (APPROVAL,))
    assert dict(end.outputs).keys() == {"call_a"}


def test_an_unanswered_call_stays_unanswered_in_the_next_round() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A, APPROVAL)
    run.unanswered("call_c")
    run.sees(Phase.NEEDS_CALLER, APPROVAL, B)
    assert end_of(run.answers(call_b="2")).calls == (APPROVAL,)


def test_a_handler_that_fails_after_its_round_was_submitted_does_not_end_the_watch() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A)
    run.provides(call_a="1")
    assert run.unanswered("call_a", cause=ValueError("too late")) == []
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    assert end_of(run.sees(Phase.SUCCEEDED)).kind is EndKind.COMPLETED


def test_a_round_that_repeats_after_the_run_went_on_gets_the_recorded_outputs_each_time() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    for _ in range(4):
        run.sees(Phase.RUNNING)
        run.now += 6.0
        run.sees_twice(Phase.NEEDS_CALLER, A)
        run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    assert submitted(run) == [{"call_a": "1"}] * 5
    assert len(run.of(RunTools)) == 1


def test_one_answer_with_a_wrong_clock_does_not_cut_calls_short() -> None:
    run = Driver()
    for server_time in (1000.0, 1595.0, 1001.0):
        run.sees(Phase.RUNNING, expires_at=1600.0, server_time=server_time)
    run.sees(Phase.NEEDS_CALLER, A, expires_at=1600.0, server_time=1002.0)
    assert run.machine.wake_at > run.now + 500.0


def test_calls_of_a_run_that_expires_soon_get_most_of_the_time_that_is_left() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, expires_at=1004.0, server_time=1000.0)
    assert run.machine.wake_at == pytest.approx(run.now + 3.0)


def test_a_watch_reopened_after_an_hour_has_its_whole_time_again() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, expires_at=1600.0, server_time=1000.0)
    run.refused(RefusalKind.LOST)
    run.unanswered("call_a")
    run.now += 3600.0
    run.provides(call_a="1")
    assert run.machine.wake_at == pytest.approx(run.now + 900.0)
    run.refused(RefusalKind.NOT_SENT, asked=Asked.SUBMIT)
    assert run.machine.state is State.SUBMITTING


def test_a_run_that_is_not_found_with_a_timeout_of_zero_is_reported_at_once() -> None:
    run = Driver(snapshot(Phase.PENDING), timeout=0.0)
    run.passes(0.0)
    assert end_of(run.refused(RefusalKind.NOT_FOUND)).reason is Reason.NOT_FOUND


@pytest.mark.parametrize("polls", [1, 3])
def test_a_throttled_submit_is_not_sent_early_whatever_polls_show(polls: int) -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.refused(RefusalKind.THROTTLED, asked=Asked.SUBMIT, retry_after=30.0)
    for _ in range(polls):
        run.now += 9.0
        run.sees(Phase.NEEDS_CALLER, A)
    assert len(submitted(run)) == 1
    run.passes(30.0 - 9.0 * polls)
    assert len(submitted(run)) == 2


def test_a_round_that_was_sent_is_not_sent_again_while_the_next_submit_takes_long() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.sees(Phase.NEEDS_CALLER, B)
    run.answers(call_b="2")
    run.now += 60.0
    run.sees(Phase.NEEDS_CALLER, A)
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    assert submitted(run) == [{"call_a": "1"}, {"call_b": "2"}]


def test_a_subset_of_the_known_calls_is_a_round_of_its_own_and_runs_no_tool_again() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A, B)
    run.now += 5.0
    commands = run.sees(Phase.NEEDS_CALLER, A)
    assert [r.notice for r in pick(commands, Report)] == [ActionRequired(calls=(A,))]
    assert pick(commands, RunTools) == []
    assert [dict(c.outputs) for c in pick(run.answers(call_a="1"), Submit)] == [{"call_a": "1"}]


def test_calls_of_a_run_that_has_outlived_its_expiry_are_not_cut_short() -> None:
    run = Driver(timeout=None)
    for _ in range(3):
        run.sees(Phase.RUNNING, expires_at=1000.0, server_time=5000.0)
        run.now += 10.0
    run.sees(Phase.NEEDS_CALLER, A, expires_at=1000.0, server_time=5000.0)
    assert run.machine.wake_at == math.inf


@pytest.mark.parametrize("kind", [RefusalKind.LOST, RefusalKind.NOT_ACCEPTING, RefusalKind.REJECTED])
def test_the_second_submit_follows_the_first_although_that_failed(kind: RefusalKind) -> None:
    run = in_flight()
    run.answers(call_b="2")
    assert [c.outputs for c in pick(run.refused(kind, asked=Asked.SUBMIT), Submit)] == [(("call_b", "2"),)]


def test_a_submit_that_was_refused_before_a_refused_cancel_is_surfaced() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.SUBMIT)
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    run.now += 5.0
    assert end_of(run.sees_twice(Phase.NEEDS_CALLER, A)).reason is Reason.SUBMIT_REFUSED


def test_an_outage_that_is_over_budget_after_a_sleep_is_reported_as_unreachable() -> None:
    run = Driver(timeout=10.0, max_outage=5.0)
    run.refused(RefusalKind.LOST)
    run.passes(3600.0)
    assert end_of(run.refused(RefusalKind.LOST)).reason is Reason.UNREACHABLE


def test_a_submit_that_was_dropped_is_sent_when_the_run_asks_for_it_after_all() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.refused(RefusalKind.THROTTLED, asked=Asked.SUBMIT, retry_after=3.0)
    run.sees(Phase.NEEDS_CALLER, B)
    run.answers(call_b="2")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.now += 5.0
    run.sees_twice(Phase.NEEDS_CALLER, A)
    assert submitted(run) == [{"call_a": "1"}, {"call_b": "2"}, {"call_a": "1"}]
    assert len(run.of(RunTools)) == 2


def test_a_submit_whose_answers_get_lost_is_sent_again_each_time_that_the_run_still_asks() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    for _ in range(4):
        run.refused(RefusalKind.LOST, asked=Asked.SUBMIT)
        run.now += 5.0
        run.sees_twice(Phase.NEEDS_CALLER, A)
    assert submitted(run) == [{"call_a": "1"}] * 5


def test_a_subset_of_the_known_calls_must_be_answered_before_the_expiry_too() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, B, expires_at=1600.0, server_time=1000.0)
    run.now += 5.0
    run.sees(Phase.NEEDS_CALLER, A, expires_at=1600.0, server_time=1005.0)
    assert run.machine.wake_at == pytest.approx(run.now + 590.0)
    assert [c.outputs[0][0] for c in pick(run.passes(590.0), Submit)] == ["call_a"]


def test_the_same_arguments_for_another_function_are_another_call() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, call("call_0", "f"))
    run.answers(call_0="of f")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    (tools,) = pick(run.sees(Phase.NEEDS_CALLER, call("call_0", "g")), RunTools)
    assert [one.name for one in tools.calls] == ["g"]
    run.answers(call_0="of g")
    assert submitted(run) == [{"call_0": "of f"}, {"call_0": "of g"}]


def test_a_poll_from_before_more_calls_were_added_does_not_submit_the_first_ones() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A)
    run.now += 1.0
    run.sees(Phase.NEEDS_CALLER, A, B)
    run.now += 1.0
    run.sees(Phase.NEEDS_CALLER, A)
    assert pick(run.answers(call_a="1"), Submit) == []
    assert [dict(c.outputs) for c in pick(run.answers(call_b="2"), Submit)] == [{"call_a": "1", "call_b": "2"}]


def test_outputs_that_are_refused_when_sent_again_end_the_watch_with_that_refusal() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.refused(RefusalKind.LOST, asked=Asked.SUBMIT)
    run.now += 6.0
    assert pick(run.sees_twice(Phase.NEEDS_CALLER, A), PollAt)
    cause = RuntimeError("string too long")
    run.refused(RefusalKind.REJECTED, asked=Asked.SUBMIT, cause=cause)
    run.now += 6.0
    end = end_of(run.sees_twice(Phase.NEEDS_CALLER, A))
    assert (end.kind, end.reason, end.cause) == (EndKind.NEEDS_CALLER, Reason.SUBMIT_REFUSED, cause)


def test_successful_polls_do_not_shorten_the_pauses_of_a_throttled_submit() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    pauses = []
    for _ in range(4):
        run.refused(RefusalKind.THROTTLED, asked=Asked.SUBMIT)
        run.sees(Phase.NEEDS_CALLER, A)
        pauses.append(run.machine.wake_at - run.now)
        run.passes(pauses[-1])
    assert pauses == pytest.approx([0.5, 1.0, 2.0, 4.0])


def test_a_call_that_was_left_to_the_server_and_then_waits_for_an_approval_is_handed_out() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, call("call_m", kind=CallKind.SERVER))
    approval = call("call_m", kind=CallKind.APPROVAL)
    assert [c.calls for c in pick(run.sees(Phase.NEEDS_CALLER, approval), RunTools)] == [(approval,)]


def test_fewer_calls_are_believed_when_the_lag_is_over() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, B)
    run.now += 6.0
    commands = run.sees(Phase.NEEDS_CALLER, A)
    assert any(isinstance(r.notice, ActionRequired) and r.notice.calls == (A,) for r in pick(commands, Report))


def test_outputs_from_the_caller_that_had_no_effect_are_sent_again_once_too() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.unanswered("call_a")
    run.provides(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.now += 6.0
    assert pick(run.sees_twice(Phase.NEEDS_CALLER, A), Submit)


def test_a_cancel_stops_pending_approvals_too() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, call("call_p", kind=CallKind.APPROVAL))
    assert [stop.approvals for stop in pick(run.cancels(), StopTools)] == [True]
