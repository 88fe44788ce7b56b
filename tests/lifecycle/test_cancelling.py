from __future__ import annotations

from driver import Driver, call, end_of, pick

from asyncruns.lifecycle import (
    Asked,
    Cancel,
    CancelRefused,
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


def test_a_run_under_cancellation_is_looked_at_until_it_ends() -> None:
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
