"""Events that arrive after the watch has finished."""

from __future__ import annotations

import pytest
from driver import Driver, call, end_of, pause_of, pick, snapshot

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import (
    Asked,
    Cancel,
    EndKind,
    EndRevoked,
    Finish,
    Phase,
    PollAt,
    Reason,
    RefusalKind,
    Report,
    RunRef,
    RunTools,
    State,
    TokenUsage,
)

A, B = call("call_a"), call("call_b")


def revoked(run: Driver) -> list[EndRevoked]:
    return [report.notice for report in run.of(Report) if isinstance(report.notice, EndRevoked)]


@pytest.mark.parametrize("end", [phase for phase in Phase if phase.is_terminal])
@pytest.mark.parametrize("later", list(Phase))
def test_another_status_after_the_end_is_reported_once_and_changes_nothing(end: Phase, later: Phase) -> None:
    run = Driver()
    run.sees(end)
    before = run.machine.end
    run.now += 1.0
    run.sees(later)
    run.now += 1.0
    run.sees(later)
    expected = [] if later is end else [EndRevoked(status=later.value, previous=end.value)]
    assert revoked(run) == expected
    assert run.machine.end is before
    assert run.machine.snapshot == snapshot(end)


def test_a_poll_sent_before_the_end_was_seen_revokes_nothing() -> None:
    run = Driver()
    run.sees(Phase.RUNNING)
    asked_at = run.now
    run.now += 1.0
    run.sees(Phase.SUCCEEDED)
    run.now += 1.0
    run.sees(Phase.RUNNING, asked_at=asked_at)
    assert revoked(run) == []
    run.sees(Phase.RUNNING, asked_at=run.now)
    assert len(revoked(run)) == 1


def test_the_end_of_a_watch_that_gave_up_is_not_revoked() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.RUNNING)
    run.passes(5.0)
    run.now += 1.0
    assert run.sees(Phase.SUCCEEDED) == []
    assert revoked(run) == []


def test_the_end_of_a_given_object_can_be_revoked_too() -> None:
    run = Driver(snapshot(Phase.CANCELLED))
    run.now += 1.0
    run.sees(Phase.RUNNING)
    assert revoked(run) == [EndRevoked(status="running", previous="cancelled")]


def test_outputs_for_a_watch_that_gave_up_are_refused_and_change_nothing() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.NEEDS_CALLER, A)
    end_of(run.passes(5.0))
    with pytest.raises(InvalidRequestError, match="gave up"):
        run.provides(call_a="1")
    assert run.machine.state is State.DONE


def test_a_watch_that_a_refused_cancel_reopened_goes_on() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.RUNNING)
    run.passes(5.0)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert run.machine.state is State.POLLING
    assert end_of(run.sees(Phase.SUCCEEDED)).kind is EndKind.COMPLETED


def test_an_unknown_status_may_stay_for_as_long_as_the_policy_allows() -> None:
    run = Driver(max_unknown_status=10.0, timeout=None)
    run.sees(Phase.UNKNOWN, status="paused")
    run.now += 9.9
    assert not pick(run.sees(Phase.UNKNOWN, status="paused"), Finish)
    run.now += 0.1
    assert end_of(run.sees(Phase.UNKNOWN, status="paused")).reason is Reason.UNKNOWN_STATUS
    run = Driver(max_unknown_status=None, timeout=None)
    run.sees(Phase.UNKNOWN, status="paused")
    run.now += 100_000.0
    assert not pick(run.sees(Phase.UNKNOWN, status="paused"), Finish)


def test_a_long_hint_does_not_postpone_the_limit_of_an_unknown_status() -> None:
    run = Driver(max_unknown_status=10.0, timeout=None)
    poll = pick(run.sees(Phase.UNKNOWN, status="paused", hint=60.0), PollAt)[-1]
    assert poll.not_before == run.now + 10.0


def test_outputs_for_a_run_that_named_no_calls_raise() -> None:
    run = Driver()
    for _ in range(4):
        run.sees(Phase.NEEDS_CALLER)
    with pytest.raises(InvalidRequestError, match="no call 'call_a'"):
        run.provides(call_a="1")
    assert run.provides() == []
    assert run.machine.end is not None
    assert run.machine.end.reason is Reason.NO_CALLS


def test_a_reopened_watch_does_not_wait_for_tools_that_were_stopped_when_it_finished() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, B)
    for _ in range(4):
        run.sees(Phase.NEEDS_CALLER)
    assert run.machine.state is State.DONE
    end = end_of(run.provides(call_a="1"))
    assert (end.reason, end.calls) == (Reason.UNANSWERED, (B,))


def test_a_refused_cancel_is_no_longer_the_reason_once_the_caller_has_answered() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, B)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert end_of(run.sees(Phase.NEEDS_CALLER, A, B)).reason is Reason.CANCEL_REFUSED
    assert end_of(run.provides(call_a="1")).reason is Reason.UNANSWERED


def test_a_late_poll_does_not_count_as_the_answer_to_a_submit_in_flight() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.passes(5.0)
    run.sees(Phase.NEEDS_CALLER, A)
    run.refused(RefusalKind.LOST)
    assert pick(run.cancels(), Cancel) == []  # it waits for the submit
    assert pick(run.sees(Phase.PENDING, asked=Asked.SUBMIT), Cancel)


def test_no_command_follows_when_a_failed_submit_exceeds_the_outage_budget() -> None:
    run = Driver(max_outage=30.0, timeout=None)
    run.sees(Phase.NEEDS_CALLER, A)
    run.refused(RefusalKind.LOST)
    run.answers(call_a="1")
    run.now += 30.0
    (*reports, finish) = run.refused(RefusalKind.NOT_SENT, asked=Asked.SUBMIT)
    assert end_of([finish]).reason is Reason.UNREACHABLE
    assert all(isinstance(report, Report) for report in reports)


def test_the_minute_of_an_unknown_status_of_a_given_object_counts_from_the_start() -> None:
    run = Driver(snapshot(Phase.UNKNOWN, status="paused"), timeout=None)
    run.now += 60.0
    assert end_of(run.sees(Phase.UNKNOWN, status="paused")).reason is Reason.UNKNOWN_STATUS


def test_a_reopened_watch_polls_as_often_as_a_new_one() -> None:
    run = Driver(timeout=5.0)
    for _ in range(10):
        run.sees(Phase.RUNNING)
    run.passes(5.0)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    assert pause_of(run.sees(Phase.RUNNING), run.now) == pytest.approx(0.25)


def test_a_reopened_watch_reads_the_expiry_again() -> None:
    run = Driver()
    for _ in range(3):
        run.sees(Phase.NEEDS_CALLER, A, expires_at=1600.0, server_time=1000.0)
    run.unanswered("call_a")
    run.now += 300.0
    run.provides(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT, expires_at=1600.0, server_time=1200.0)
    assert run.machine.wake_at == pytest.approx(run.now + 400.0 + 60.0)


def test_an_unknown_status_does_not_end_a_cancel_that_followed_it() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.UNKNOWN, status="paused")
    run.now += 60.0
    assert end_of(run.sees(Phase.UNKNOWN, status="paused")).reason is Reason.UNKNOWN_STATUS
    run.cancels()
    run.sees(Phase.UNKNOWN, status="paused", asked=Asked.CANCEL)
    assert end_of(run.sees(Phase.CANCELLED)).kind is EndKind.CANCELLED


def test_a_reopened_watch_polls_while_it_waits_for_answers() -> None:
    run = Driver(timeout=5.0)
    run.sees(Phase.NEEDS_CALLER, A)
    run.passes(5.0)
    assert pick(run.cancels(), PollAt) == [PollAt(run.now, run.now)]
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A)
    run.unanswered("call_a")
    assert pick(run.provides(call_a="1"), PollAt)


def test_a_short_timeout_stays_short_when_outputs_reopen_the_watch() -> None:
    run = Driver(timeout=0.5)
    run.sees(Phase.NEEDS_CALLER, A)
    run.unanswered("call_a")
    run.provides(call_a="1")
    assert run.machine.wake_at == run.now + 0.5


def test_a_submit_that_was_accepted_after_the_end_counts_as_a_round() -> None:
    run = Driver(timeout=5.0, max_rounds=1)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.passes(5.0)
    run.refused(RefusalKind.LOST)  # the last poll: the watch has given up
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.cancels()
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    commands = run.sees(Phase.NEEDS_CALLER, B)
    assert pick(commands, RunTools) == []
    assert end_of(commands).reason is Reason.MAX_ROUNDS


def test_tokens_of_a_response_count_although_the_next_one_begins_after_the_watch_has_finished() -> None:
    run = Driver(timeout=10.0, on_lost_submit="resend")
    ref, used = RunRef("response", ("resp_1",)), TokenUsage(total_tokens=100)
    run.sees(Phase.NEEDS_CALLER, A, ref=ref, usage=used, is_final=True)
    run.answers(call_a="output")
    assert end_of(run.passes(10.0)).usage.total_tokens == 100
    run.now += 1.0
    run.sees(Phase.RUNNING, asked=Asked.SUBMIT, ref=RunRef("response", ("resp_2",)))
    run.cancels()
    ended = run.sees(Phase.CANCELLED, ref=RunRef("response", ("resp_2",)), usage=TokenUsage(total_tokens=7))
    assert end_of(ended).usage.total_tokens == 107
