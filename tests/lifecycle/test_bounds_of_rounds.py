"""Submits that are too early for the server, endless rounds, final snapshots, and the last error in an outcome."""

from __future__ import annotations

import math
from typing import Any

import pytest
from driver import Driver, call, end_of, pick, snapshot

from asyncruns import Reason
from asyncruns.lifecycle import Asked, EndKind, Phase, RefusalKind, RunTools, State, Submit
from asyncruns.lifecycle.ledger import SUBMIT_GRACE_S

A = call("call_a")


def submitting(**policy: Any) -> Driver:
    """Return a watch of a response whose one call is answered and whose outputs are being sent."""
    run = Driver(**policy)
    run.sees(Phase.NEEDS_CALLER, A, is_final=True)
    run.answers(call_a="1")
    assert len(run.of(Submit)) == 1
    return run


@pytest.mark.parametrize("kind", [RefusalKind.NOT_FOUND, RefusalKind.NOT_READY])
@pytest.mark.parametrize("lag", [0.3, 2.0, 8.0])
def test_a_submit_that_is_too_early_is_sent_again_as_it_was(kind: RefusalKind, lag: float) -> None:
    run = submitting(on_lost_submit="give_up")
    began = run.now
    while run.now - began < lag:
        run.refused(kind, asked=Asked.SUBMIT)
        assert run.machine.state is State.SUBMITTING
        run.passes(run.machine.wake_at - run.now)
    assert run.now - began < lag + 2.1
    assert len(run.of(Submit)) > 1
    assert len({submit.outputs for submit in run.of(Submit)}) == 1
    assert len(run.of(RunTools)) == 1
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    assert run.machine.state is State.POLLING


def test_the_pause_after_an_early_submit_is_at_most_two_seconds_or_what_the_server_asks_for() -> None:
    run = submitting()
    pauses = []
    for retry_after in (None, None, None, None, 5.0):
        run.refused(RefusalKind.NOT_READY, asked=Asked.SUBMIT, retry_after=retry_after)
        pauses.append(run.machine.wake_at - run.now)
        run.passes(pauses[-1])
    assert pauses == [0.5, 1.0, 2.0, 2.0, 5.0]


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        (RefusalKind.NOT_FOUND, (EndKind.GAVE_UP, Reason.GONE)),
        (RefusalKind.NOT_READY, (EndKind.NEEDS_CALLER, Reason.SUBMIT_REFUSED)),
    ],
)
def test_a_refusal_as_too_early_is_believed_after_the_grace_period(
    kind: RefusalKind, end: tuple[EndKind, Reason]
) -> None:
    run = submitting()
    began, cause = run.now, RuntimeError("not there")
    while run.machine.end is None:
        run.refused(kind, asked=Asked.SUBMIT, cause=cause)
        if run.machine.end is None:
            run.passes(run.machine.wake_at - run.now)
    assert SUBMIT_GRACE_S <= run.now - began < SUBMIT_GRACE_S + 2.0
    assert (run.machine.end.kind, run.machine.end.reason, run.machine.end.cause) == (*end, cause)
    assert run.machine.end.outputs == (("call_a", "1"),)


def test_outputs_from_the_caller_have_the_whole_grace_period_again() -> None:
    run = submitting()
    run.refused(RefusalKind.NOT_READY, asked=Asked.SUBMIT)
    run.passes(SUBMIT_GRACE_S)
    assert end_of(run.refused(RefusalKind.NOT_READY, asked=Asked.SUBMIT)).reason is Reason.SUBMIT_REFUSED
    assert pick(run.provides(call_a="2"), Submit)
    run.refused(RefusalKind.NOT_READY, asked=Asked.SUBMIT)
    assert run.machine.end is None


def test_a_failed_submit_is_not_the_cause_when_the_next_round_is_unanswered() -> None:
    run = submitting()
    run.refused(RefusalKind.REJECTED, asked=Asked.SUBMIT)
    run.sees(Phase.NEEDS_CALLER, call("call_b"))
    end = end_of(run.unanswered("call_b"))
    assert (end.reason, end.cause) == (Reason.UNANSWERED, None)


def test_a_cancel_is_sent_instead_of_repeating_an_early_submit() -> None:
    run = submitting()
    run.cancels()
    run.refused(RefusalKind.NOT_READY, asked=Asked.SUBMIT)
    assert run.machine.state is State.CANCELLING
    run.passes(1.0)
    assert len(run.of(Submit)) == 1


# Endless rounds


def answered(run: Driver, number: int) -> list[Any]:
    """Show a new round, answer it if it is handed out, and have the outputs accepted."""
    shown = run.sees(Phase.NEEDS_CALLER, call(f"call_{number}"))
    if run.machine.end is not None:
        return shown
    run.answers(**{f"call_{number}": "1"})
    return [*shown, *run.sees(Phase.RUNNING, asked=Asked.SUBMIT)]


def rounds_until_the_end(run: Driver, at_most: int = 60) -> int:
    return next(number for number in range(at_most) if answered(run, number) and run.machine.end is not None)


def test_a_watch_leaves_the_round_after_fifty_to_the_caller() -> None:
    run = Driver(timeout=None)
    assert rounds_until_the_end(run) == 50
    end = run.machine.end
    assert end is not None
    assert (end.kind, end.reason) == (EndKind.NEEDS_CALLER, Reason.MAX_ROUNDS)
    assert [open_.id for open_ in end.calls] == ["call_50"]
    assert sum(len(command.calls) for command in run.of(RunTools)) == 50


def test_the_caller_sets_the_bound_of_rounds() -> None:
    assert rounds_until_the_end(Driver(timeout=None, max_rounds=1)) == 1
    unbounded = Driver(timeout=None, max_rounds=None)
    for number in range(200):
        answered(unbounded, number)
    assert unbounded.machine.end is None


def test_outputs_from_the_caller_are_sent_after_the_last_round() -> None:
    run = Driver(timeout=None, max_rounds=1)
    assert rounds_until_the_end(run) == 1
    assert pick(run.provides(call_1="by hand"), Submit)
    run.sees(Phase.RUNNING, asked=Asked.SUBMIT)
    assert end_of(run.sees(Phase.SUCCEEDED)).kind is EndKind.COMPLETED


def test_rounds_whose_submit_was_lost_but_worked_are_counted() -> None:
    run = Driver(timeout=None, max_rounds=2)
    for number in range(2):
        run.sees(Phase.NEEDS_CALLER, call(f"call_{number}"))
        run.answers(**{f"call_{number}": "1"})
        run.refused(RefusalKind.LOST, asked=Asked.SUBMIT)
        run.sees(Phase.RUNNING)
        run.sees(Phase.RUNNING)  # this poll does not count the round again
    assert end_of(run.sees(Phase.NEEDS_CALLER, call("call_2"))).reason is Reason.MAX_ROUNDS


def test_a_model_that_repeats_one_call_for_ever_is_bounded_too() -> None:
    run = Driver(timeout=None, max_rounds=3)
    for _ in range(10):
        run.passes(1.0)
        run.sees(Phase.NEEDS_CALLER, A)
        run.passes(6.0)
        run.sees(Phase.NEEDS_CALLER, A)  # the lag is over, so this poll is not stale
        if run.machine.end is not None:
            break
        if not run.of(Submit):
            run.answers(call_a="1")
        run.sees(Phase.RUNNING, asked=Asked.SUBMIT)
        run.sees(Phase.RUNNING)
    assert run.machine.end is not None
    assert run.machine.end.reason is Reason.MAX_ROUNDS
    assert len(run.of(Submit)) == 4
    assert len(run.of(RunTools)) == 1


def test_outputs_that_had_no_effect_are_sent_again_within_the_bound() -> None:
    run = Driver(timeout=None, max_rounds=1)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.sees(Phase.RUNNING, asked=Asked.SUBMIT)
    run.passes(6.0)
    assert pick(run.sees_twice(Phase.NEEDS_CALLER, A), Submit)


@pytest.mark.parametrize("keep", [True, False])
def test_a_submit_says_whether_to_keep_a_forcing_tool_choice(keep: bool) -> None:
    assert submitting(keep_tool_choice=keep).of(Submit)[0].keep_tool_choice is keep


# Final snapshots


def test_a_final_object_is_acted_on_without_a_poll() -> None:
    run = Driver(snapshot(Phase.NEEDS_CALLER, A, is_final=True))
    assert pick(run.began, RunTools) == [RunTools((A,))]
    assert run.machine.state is State.DISPATCHING


@pytest.mark.parametrize(
    "kind",
    [
        RefusalKind.NOT_FOUND,
        RefusalKind.REJECTED,
        RefusalKind.UNAUTHORIZED,
        RefusalKind.UNAVAILABLE,
        RefusalKind.NOT_SENT,
    ],
)
def test_polls_of_a_final_snapshot_may_fail_for_ever(kind: RefusalKind) -> None:
    run = Driver(snapshot(Phase.NEEDS_CALLER, A, is_final=True), timeout=None)
    for _ in range(300):
        run.now += 1.0
        run.refused(kind)
    assert run.machine.state is State.DISPATCHING
    run.calls["call_a"] = A
    assert pick(run.answers(call_a="1"), Submit)


def test_failed_polls_of_a_final_snapshot_do_not_postpone_the_deadline() -> None:
    run = Driver(snapshot(Phase.NEEDS_CALLER, A, is_final=True), timeout=10.0)
    run.refused(RefusalKind.NOT_FOUND)
    run.now += 10.0
    assert end_of(run.passes(0.0)).reason is Reason.TIMEOUT


# The last error


def test_an_outcome_says_why_submits_failed_although_polls_succeeded() -> None:
    run = Driver(timeout=30.0)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    cause = RuntimeError("500")
    while run.machine.end is None:
        if run.machine.state is State.SUBMITTING:
            run.refused(RefusalKind.UNAVAILABLE, asked=Asked.SUBMIT, cause=cause)
        run.now += 6.0
        run.passes(0.0)
        if run.machine.end is None:
            run.sees(Phase.NEEDS_CALLER, A)
    assert (run.machine.end.reason, run.machine.end.cause) == (Reason.TIMEOUT, cause)


@pytest.mark.parametrize("phase", [Phase.EXPIRED, Phase.CANCELLED, Phase.FAILED])
def test_the_end_of_a_run_without_its_outputs_says_why_their_submit_failed(phase: Phase) -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    cause = RuntimeError("500")
    run.refused(RefusalKind.UNAVAILABLE, asked=Asked.SUBMIT, cause=cause)
    assert end_of(run.sees(phase)).cause is cause


def test_an_error_that_has_passed_is_not_in_the_outcome() -> None:
    run = Driver(timeout=30.0)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    run.refused(RefusalKind.UNAVAILABLE, asked=Asked.SUBMIT)
    run.sees(Phase.RUNNING)  # the submit had its effect
    assert end_of(run.sees(Phase.FAILED)).cause is None


def test_without_an_expiry_the_wait_is_as_long_as_the_policy_says() -> None:
    assert Driver().machine.wake_at == 100.0 + 900.0
    assert Driver(without_expiry=86400.0).machine.wake_at == 100.0 + 86400.0
    assert Driver(without_expiry=math.inf).machine.wake_at == math.inf
