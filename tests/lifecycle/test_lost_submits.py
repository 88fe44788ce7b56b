"""Submits whose answer was lost when no poll can show whether they worked, and cancels of final snapshots."""

from __future__ import annotations

from typing import Any

import pytest
from driver import Driver, call, end_of, pick

from asyncruns.lifecycle import (
    Asked,
    Cancel,
    EndKind,
    Finish,
    Phase,
    PollAt,
    Reason,
    RefusalKind,
    State,
    Submit,
)

A = call("call_a")
LOST = pytest.mark.parametrize("kind", [RefusalKind.LOST, RefusalKind.UNAVAILABLE])


def in_flight(**policy: Any) -> Driver:
    run = Driver(timeout=None, **policy)
    run.sees(Phase.NEEDS_CALLER, A, is_final=True)
    run.answers(call_a="1")
    return run


@LOST
def test_if_no_poll_can_show_the_result_the_watch_gives_up_and_keeps_the_outputs(kind: RefusalKind) -> None:
    run = in_flight(on_lost_submit="give_up")
    cause = RuntimeError("dropped")
    end = end_of(run.refused(kind, asked=Asked.SUBMIT, cause=cause))
    assert (end.kind, end.reason, end.cause) == (EndKind.GAVE_UP, Reason.SUBMIT_LOST, cause)
    assert end.outputs == (("call_a", "1"),)


@LOST
def test_a_cancel_that_fails_afterwards_sends_nothing_again(kind: RefusalKind) -> None:
    run = in_flight(on_lost_submit="give_up")
    run.refused(kind, asked=Asked.SUBMIT)
    sent = len(run.of(Submit))
    run.cancels()
    assert run.machine.end is None
    run.refused(RefusalKind.REJECTED, asked=Asked.CANCEL)
    run.passes(10.0)
    end = end_of(run.sees_twice(Phase.NEEDS_CALLER, A, is_final=True))
    assert (end.kind, end.reason) == (EndKind.GAVE_UP, Reason.SUBMIT_LOST)
    assert len(run.of(Submit)) == sent


@LOST
def test_under_resend_the_same_outputs_are_sent_again_after_a_pause(kind: RefusalKind) -> None:
    run = in_flight(on_lost_submit="resend")
    assert pick(run.refused(kind, asked=Asked.SUBMIT), Submit) == []
    assert run.machine.state is State.SUBMITTING
    (again,) = pick(run.passes(0.5), Submit)
    assert again.outputs == (("call_a", "1"),)
    assert again.answers[0][0] == A


@pytest.mark.parametrize("policy", ["give_up", "resend"])
@pytest.mark.parametrize("kind", [RefusalKind.NOT_SENT, RefusalKind.THROTTLED])
def test_a_submit_that_surely_had_no_effect_is_sent_again_under_every_policy(kind: RefusalKind, policy: str) -> None:
    run = in_flight(on_lost_submit=policy)
    run.refused(kind, asked=Asked.SUBMIT)
    assert pick(run.passes(0.5), Submit)


def test_a_lost_submit_that_spends_the_outage_budget_ends_as_unreachable() -> None:
    run = in_flight(on_lost_submit="give_up", max_outage=0.0)
    assert end_of(run.refused(RefusalKind.LOST, asked=Asked.SUBMIT)).reason is Reason.UNREACHABLE


def test_a_submit_carries_the_snapshot_that_asked_for_it() -> None:
    run = in_flight()
    (submit,) = run.of(Submit)
    assert submit.snapshot.calls == (A,)


@pytest.mark.parametrize("refused", [True, False])
def test_a_cancel_of_a_final_snapshot_ends_when_the_server_shows_it_again(refused: bool) -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A, is_final=True)
    run.cancels()
    if refused:
        commands = run.refused(RefusalKind.ALREADY_OVER, asked=Asked.CANCEL)
        assert pick(commands, PollAt) == [PollAt(run.now, run.now)]
        commands = run.sees(Phase.NEEDS_CALLER, A, is_final=True)
    else:  # some servers answer with the response as it is
        commands = run.sees(Phase.NEEDS_CALLER, A, asked=Asked.CANCEL, is_final=True)
    end = end_of(commands)
    assert (end.kind, end.reason, end.calls) == (EndKind.NEEDS_CALLER, Reason.CANCEL_REFUSED, (A,))


def test_a_cancel_of_a_final_snapshot_waits_for_the_run_that_a_submit_begins() -> None:
    run = in_flight()
    run.cancels()
    assert pick(run.passes(20.0), Cancel) == []
    run.sees(Phase.NEEDS_CALLER, A, is_final=True)
    assert run.machine.end is None  # the submit is in flight
    assert pick(run.sees(Phase.PENDING, asked=Asked.SUBMIT), Cancel) == [Cancel()]
    assert end_of(run.sees(Phase.CANCELLED)).kind is EndKind.CANCELLED


def test_a_poll_before_the_cancel_was_answered_does_not_end_the_watch() -> None:
    run = Driver(timeout=None)
    run.sees(Phase.NEEDS_CALLER, A, is_final=True)
    run.cancels()
    run.sees(Phase.NEEDS_CALLER, A, is_final=True)
    assert run.machine.end is None


def test_the_run_that_a_submit_began_may_not_be_found_yet() -> None:
    run = in_flight()
    run.now += 60.0
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.now += 4.9
    assert not pick(run.refused(RefusalKind.NOT_FOUND), Finish)
    run.now += 0.1
    assert end_of(run.refused(RefusalKind.NOT_FOUND)).reason is Reason.GONE


def test_a_late_poll_of_a_run_that_was_final_takes_nothing_back() -> None:
    """A replica that lags shows the response at work, while its tools run; the submit is made from the final one."""
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, is_final=True)
    final = run.machine.snapshot
    run.sees(Phase.RUNNING)
    run.machine.forget_resource()
    assert run.machine.snapshot is final
    (submit,) = pick(run.answers(call_a="1"), Submit)
    assert submit.snapshot is final
