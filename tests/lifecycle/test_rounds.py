"""Rounds of calls: handed out once, submitted whole, never lost."""

from __future__ import annotations

from typing import Any

import pytest
from driver import Driver, call, end_of, pause_of, pick

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import (
    ActionRequired,
    Asked,
    Call,
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

A, B = call("call_a"), call("call_b", "g", '{"x": 1}')


def asked(run: Driver) -> list[str]:
    return [one.id for command in run.of(RunTools) for one in command.calls]


def submitted(run: Driver) -> list[dict[str, str]]:
    return [dict(command.outputs) for command in run.of(Submit)]


def dispatching(*calls: Call, **policy: Any) -> Driver:
    run = Driver(**policy)
    run.sees(Phase.NEEDS_CALLER, *(calls or (A, B)))
    assert run.machine.state is State.DISPATCHING
    return run


def test_all_calls_of_a_round_are_handed_out_at_once_and_looks_slow_down() -> None:
    run = Driver()
    commands = run.sees(Phase.NEEDS_CALLER, A, B)
    assert pick(commands, RunTools) == [RunTools((A, B))]
    assert pause_of(commands, run.now) >= 2.0


def test_outputs_are_submitted_in_one_request_when_all_are_there() -> None:
    run = dispatching()
    assert pick(run.answers(call_b="2"), Submit) == []
    assert pick(run.answers(call_a="1"), Submit)[0].outputs == (("call_a", "1"), ("call_b", "2"))
    assert run.machine.state is State.SUBMITTING


def test_reads_that_show_the_same_calls_while_tools_run_change_nothing() -> None:
    run = dispatching()
    for _ in range(5):
        run.now += 2.0
        run.sees(Phase.NEEDS_CALLER, B, A)  # in any order: a round is a set
    assert asked(run) == ["call_a", "call_b"]
    assert len([r for r in run.of(Report) if isinstance(r.notice, ActionRequired)]) == 1


def test_an_accepted_submit_is_reported_and_looked_after_soon() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    commands = run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    assert Report(OutputsSubmitted(outputs=(("call_a", "1"),))) in commands
    assert pause_of(commands, run.now) == pytest.approx(0.25)
    assert run.machine.state is State.POLLING


def test_a_stale_read_after_a_submit_does_not_run_the_calls_again() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    for _ in range(4):
        run.now += 1.0
        run.sees(Phase.NEEDS_CALLER, A)
    assert asked(run) == ["call_a"]
    assert len(submitted(run)) == 1


def test_a_stale_read_long_after_the_run_went_on_is_no_reason_to_send_again() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    for _ in range(5):
        run.now += 4.0
        run.sees(Phase.RUNNING)
        run.now += 4.0
        run.sees(Phase.NEEDS_CALLER, A)
    assert len(submitted(run)) == 1


def test_outputs_that_did_not_arrive_are_sent_again_once_as_they_were() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.now += 5.0
    run.sees(Phase.NEEDS_CALLER, A)
    assert submitted(run) == [{"call_a": "1"}] * 2
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.now += 5.0
    end = end_of(run.sees(Phase.NEEDS_CALLER, A))
    assert (end.kind, end.reason) == (EndKind.NEEDS_CALLER, Reason.OUTPUTS_IGNORED)
    assert end.outputs == (("call_a", "1"),)


def test_a_second_round_with_the_ids_of_the_first_is_another_round() -> None:
    run = Driver()
    first, second = call("call_0", arguments='{"n":1}'), call("call_0", arguments='{"n":2}')
    run.sees(Phase.NEEDS_CALLER, first)
    run.answers(call_0="one")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.sees(Phase.NEEDS_CALLER, second)
    run.answers(call_0="two")
    assert asked(run) == ["call_0", "call_0"]
    assert submitted(run) == [{"call_0": "one"}, {"call_0": "two"}]


def test_an_old_read_of_the_round_before_does_not_disturb_the_one_at_work() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.sees(Phase.NEEDS_CALLER, B)
    run.now += 60.0
    run.sees(Phase.NEEDS_CALLER, A)  # a replica far behind
    run.answers(call_b="2")
    assert submitted(run) == [{"call_a": "1"}, {"call_b": "2"}]


@pytest.mark.parametrize("kind", [RefusalKind.LOST, RefusalKind.UNAVAILABLE])
def test_a_submit_without_an_answer_is_looked_up_and_not_repeated_when_it_was_taken(kind: RefusalKind) -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    commands = run.refused(kind, asked=Asked.SUBMIT)
    assert pause_of(commands, run.now) == 0.0
    run.sees(Phase.RUNNING)
    run.now += 10.0
    run.sees(Phase.SUCCEEDED)
    assert len(submitted(run)) == 1


@pytest.mark.parametrize("kind", [RefusalKind.LOST, RefusalKind.UNAVAILABLE])
def test_a_submit_without_an_answer_is_sent_again_when_reads_over_the_lag_say_so(kind: RefusalKind) -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.refused(kind, asked=Asked.SUBMIT)
    for _ in range(4):
        run.sees(Phase.NEEDS_CALLER, A)
        run.now += 1.0
    assert len(submitted(run)) == 1
    run.now += 1.0
    run.sees(Phase.NEEDS_CALLER, A)
    assert submitted(run) == [{"call_a": "1"}] * 2
    assert asked(run) == ["call_a"]


def test_other_calls_after_a_lost_answer_mean_that_it_was_taken() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.refused(RefusalKind.LOST, asked=Asked.SUBMIT)
    run.sees(Phase.NEEDS_CALLER, B)
    run.answers(call_b="2")
    assert submitted(run) == [{"call_a": "1"}, {"call_b": "2"}]


@pytest.mark.parametrize("kind", [RefusalKind.NOT_SENT, RefusalKind.THROTTLED])
def test_a_submit_that_surely_had_no_effect_is_sent_again_after_a_pause(kind: RefusalKind) -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.refused(kind, asked=Asked.SUBMIT, retry_after=3.0)
    assert run.machine.wake_at == pytest.approx(run.now + 3.0)
    assert [c.outputs for c in pick(run.passes(3.0), Submit)] == [(("call_a", "1"),)]


@pytest.mark.parametrize("phase", [Phase.EXPIRED, Phase.CANCELLED, Phase.SUCCEEDED])
def test_a_late_submit_leads_to_a_look_at_how_the_run_ended(phase: Phase) -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    commands = run.refused(RefusalKind.NOT_ACCEPTING, asked=Asked.SUBMIT, phase=phase)
    assert pick(commands, PollAt)
    assert end_of(run.sees(phase)).kind.value == {Phase.SUCCEEDED: "completed"}.get(phase, phase.value)


def test_a_submit_that_another_made_before_us_is_no_error() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.refused(RefusalKind.NOT_ACCEPTING, asked=Asked.SUBMIT, phase=Phase.PENDING)
    run.sees(Phase.RUNNING)
    assert end_of(run.sees(Phase.SUCCEEDED)).kind is EndKind.COMPLETED


def test_a_refused_submit_ends_the_watch_with_the_outputs_kept() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    end = end_of(run.refused(RefusalKind.REJECTED, asked=Asked.SUBMIT))
    assert (end.kind, end.reason) == (EndKind.NEEDS_CALLER, Reason.SUBMIT_REFUSED)
    assert end.outputs == (("call_a", "1"),)


def test_after_a_refused_submit_the_callers_outputs_take_the_place_of_ours() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.refused(RefusalKind.REJECTED, asked=Asked.SUBMIT)
    assert [c.outputs for c in pick(run.provides(call_a="better"), Submit)] == [(("call_a", "better"),)]


def test_calls_that_nobody_answers_end_the_watch_once_the_others_are_done() -> None:
    run = dispatching()
    assert run.unanswered("call_b") == []
    end = end_of(run.answers(call_a="1"))
    assert (end.kind, end.reason) == (EndKind.NEEDS_CALLER, Reason.UNANSWERED)
    assert end.calls == (B,)
    assert end.outputs == (("call_a", "1"),)


def test_outputs_from_the_caller_take_the_watch_up_again() -> None:
    run = dispatching(timeout=30.0)
    run.unanswered("call_a", "call_b")
    run.now += 3600.0  # a person thinks as long as a person thinks
    assert end_of(run.provides(call_a="1")).calls == (B,)
    assert [c.outputs for c in pick(run.provides(call_b="2"), Submit)] == [(("call_a", "1"), ("call_b", "2"))]
    assert run.machine.wake_at == pytest.approx(run.now + 30.0)
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    assert end_of(run.sees(Phase.SUCCEEDED)).kind is EndKind.COMPLETED


def test_a_handler_that_raises_ends_the_watch_with_the_cause() -> None:
    run = dispatching()
    cause = ValueError("mine")
    end = end_of(run.unanswered("call_a", "call_b", cause=cause))
    assert (end.reason, end.cause, end.calls) == (Reason.HANDLER_FAILED, cause, (A, B))


def test_an_output_for_a_call_that_does_not_exist_raises_and_changes_nothing() -> None:
    run = dispatching()
    with pytest.raises(InvalidRequestError, match="call_x"):
        run.provides(call_a="1", call_x="2")
    assert pick(run.answers(call_b="2"), Submit) == []
    assert [c.outputs for c in pick(run.answers(call_a="late"), Submit)] == [(("call_a", "late"), ("call_b", "2"))]


def test_the_first_output_of_a_call_is_the_one_that_is_kept() -> None:
    run = dispatching()
    run.answers(call_a="first")
    run.answers(call_a="second")
    run.answers(call_b="2")
    assert submitted(run) == [{"call_a": "first", "call_b": "2"}]


def test_before_the_expiry_open_calls_are_answered_so_that_the_run_lives() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, B, expires_at=1600.0, server_time=1000.0)
    run.answers(call_a="1")
    assert run.machine.wake_at == pytest.approx(run.now + 595.0)
    commands = run.passes(595.0)
    assert commands[0] == StopTools(approvals=False)
    (submit,) = pick(commands, Submit)
    assert dict(submit.outputs)["call_a"] == "1"
    assert "in time" in dict(submit.outputs)["call_b"]


def test_an_expiry_that_has_passed_already_cuts_no_call_short() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, expires_at=1000.0, server_time=5000.0)
    run.passes(10.0)
    assert run.machine.state is State.DISPATCHING


def test_a_run_that_waits_without_saying_for_what_is_read_again_and_then_surfaced() -> None:
    run = Driver()
    for _ in range(3):
        assert pick(run.sees(Phase.NEEDS_CALLER), PollAt)
    assert end_of(run.sees(Phase.NEEDS_CALLER)).reason is Reason.NO_CALLS


def test_a_run_that_ends_while_tools_run_ends_the_watch() -> None:
    run = dispatching()
    assert end_of(run.sees(Phase.EXPIRED)).kind is EndKind.EXPIRED


def test_a_run_that_seems_to_go_on_while_tools_run_does_not_lose_their_outputs() -> None:
    run = dispatching(A)
    run.sees(Phase.RUNNING)  # an old read: the round came after it
    assert pick(run.answers(call_a="1"), Submit)


def test_a_submit_refused_as_not_found_means_that_the_run_is_gone() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    assert end_of(run.refused(RefusalKind.NOT_FOUND, asked=Asked.SUBMIT)).reason is Reason.GONE
