"""Rounds of calls: each is handed out once, submitted in one request, and never lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from driver import Driver, call, end_of, pause_of, pick

from asyncruns.cadence import Cadence
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import (
    ActionRequired,
    Asked,
    Call,
    CallKind,
    CallsAnswered,
    CallsUnanswered,
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
from asyncruns.lifecycle.ledger import Ledger
from asyncruns.lifecycle.machine import NO_CALLS

A, B = call("call_a"), call("call_b", "g", '{"x": 1}')


def handed_out(run: Driver) -> list[str]:
    return [one.id for command in run.of(RunTools) for one in command.calls]


def submitted(run: Driver) -> list[dict[str, str]]:
    return [dict(command.outputs) for command in run.of(Submit)]


def dispatching(*calls: Call, **policy: Any) -> Driver:
    run = Driver(**policy)
    run.sees(Phase.NEEDS_CALLER, *(calls or (A, B)))
    assert run.machine.state is State.DISPATCHING
    return run


def test_all_calls_of_a_round_are_handed_out_at_once_and_polls_slow_down() -> None:
    run = Driver()
    commands = run.sees(Phase.NEEDS_CALLER, A, B)
    assert pick(commands, RunTools) == [RunTools((A, B))]
    assert pause_of(commands, run.now) >= 2.0


def test_outputs_are_submitted_in_one_request_when_all_are_there() -> None:
    run = dispatching()
    assert pick(run.answers(call_b="2"), Submit) == []
    assert pick(run.answers(call_a="1"), Submit)[0].outputs == (("call_a", "1"), ("call_b", "2"))
    assert run.machine.state is State.SUBMITTING


def test_polls_that_show_the_same_calls_while_tools_run_change_nothing() -> None:
    run = dispatching()
    for _ in range(5):
        run.now += 2.0
        run.sees(Phase.NEEDS_CALLER, B, A)  # in any order: a round is a set
    assert handed_out(run) == ["call_a", "call_b"]
    assert len([r for r in run.of(Report) if isinstance(r.notice, ActionRequired)]) == 1


def test_an_accepted_submit_is_reported_and_polled_soon() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    commands = run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    assert Report(OutputsSubmitted(outputs=(("call_a", "1"),))) in commands
    assert pause_of(commands, run.now) == pytest.approx(0.25)
    assert run.machine.state is State.POLLING


def test_a_stale_poll_after_a_submit_does_not_run_the_calls_again() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    for _ in range(4):
        run.now += 1.0
        run.sees(Phase.NEEDS_CALLER, A)
    assert handed_out(run) == ["call_a"]
    assert len(submitted(run)) == 1


def test_a_stale_poll_long_after_the_run_went_on_does_not_cause_a_second_submit() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    for _ in range(5):
        run.now += 4.0
        run.sees(Phase.RUNNING)
        run.now += 4.0
        run.sees(Phase.NEEDS_CALLER, A)
    assert len(submitted(run)) == 1


@pytest.mark.parametrize("is_lost", [False, True])
def test_one_old_answer_of_a_proxy_does_not_cause_a_second_submit(is_lost: bool) -> None:
    """If a server uses the same ids in each round, the outputs would be taken for those of the next."""
    run = dispatching(A)
    run.answers(call_a="1")
    if is_lost:
        run.refused(RefusalKind.LOST, asked=Asked.SUBMIT)
    else:
        run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.now += 5.0
    run.sees(Phase.NEEDS_CALLER, A)
    run.sees(Phase.NEEDS_CALLER, call(A.id, A.name, '{"n": 2}'))
    run.answers(call_a="2")
    assert submitted(run) == [{"call_a": "1"}, {"call_a": "2"}]


def test_outputs_that_did_not_arrive_are_sent_again_once_as_they_were() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.now += 5.0
    run.sees_twice(Phase.NEEDS_CALLER, A)
    assert submitted(run) == [{"call_a": "1"}] * 2
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.now += 5.0
    end = end_of(run.sees_twice(Phase.NEEDS_CALLER, A))
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
    assert handed_out(run) == ["call_0", "call_0"]
    assert submitted(run) == [{"call_0": "one"}, {"call_0": "two"}]


def test_an_old_poll_of_the_previous_round_does_not_disturb_the_current_one() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.sees(Phase.NEEDS_CALLER, B)
    run.now += 60.0
    run.sees(Phase.NEEDS_CALLER, A)  # from a replica that is far behind
    run.answers(call_b="2")
    assert submitted(run) == [{"call_a": "1"}, {"call_b": "2"}]


@pytest.mark.parametrize("kind", [RefusalKind.LOST, RefusalKind.UNAVAILABLE])
def test_a_lost_submit_that_polls_show_to_be_accepted_is_not_repeated(kind: RefusalKind) -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    commands = run.refused(kind, asked=Asked.SUBMIT)
    assert pause_of(commands, run.now) == 0.0
    run.sees(Phase.RUNNING)
    run.now += 10.0
    run.sees(Phase.SUCCEEDED)
    assert len(submitted(run)) == 1


@pytest.mark.parametrize("kind", [RefusalKind.LOST, RefusalKind.UNAVAILABLE])
def test_a_lost_submit_is_sent_again_if_polls_still_show_the_calls_after_the_lag(kind: RefusalKind) -> None:
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
    assert handed_out(run) == ["call_a"]


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
def test_a_late_submit_leads_to_a_poll_that_shows_how_the_run_ended(phase: Phase) -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    commands = run.refused(RefusalKind.NOT_ACCEPTING, asked=Asked.SUBMIT, phase=phase)
    assert pick(commands, PollAt)
    assert end_of(run.sees(phase)).kind.value == {Phase.SUCCEEDED: "completed"}.get(phase, phase.value)


def test_a_submit_that_another_process_made_first_is_not_an_error() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.refused(RefusalKind.NOT_ACCEPTING, asked=Asked.SUBMIT, phase=Phase.PENDING)
    run.sees(Phase.RUNNING)
    assert end_of(run.sees(Phase.SUCCEEDED)).kind is EndKind.COMPLETED


def test_a_refused_submit_ends_the_watch_with_the_outputs_kept() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    assert run.refused(RefusalKind.REJECTED, asked=Asked.SUBMIT) == [PollAt(run.now, run.now)]
    run.now += 4.9
    assert run.machine.end is None
    run.sees(Phase.NEEDS_CALLER, A)
    run.now += 0.1
    end = end_of(run.sees(Phase.NEEDS_CALLER, A))
    assert (end.kind, end.reason) == (EndKind.NEEDS_CALLER, Reason.SUBMIT_REFUSED)
    assert end.outputs == (("call_a", "1"),)
    assert submitted(run) == [{"call_a": "1"}]


@pytest.mark.parametrize("kind", [RefusalKind.UNAUTHORIZED, RefusalKind.QUOTA_SPENT])
def test_a_submit_refused_for_lack_of_rights_or_quota_ends_the_watch_at_once(kind: RefusalKind) -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    assert end_of(run.refused(kind, asked=Asked.SUBMIT)).reason is Reason.SUBMIT_REFUSED


def test_a_submit_that_cannot_reach_the_server_leaves_its_outputs_to_the_caller() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    end = end_of(run.refused(RefusalKind.UNREACHABLE, asked=Asked.SUBMIT))
    assert (end.kind, end.reason) == (EndKind.NEEDS_CALLER, Reason.UNREACHABLE)
    assert end.outputs == (("call_a", "1"),)


@pytest.mark.parametrize("kind", [RefusalKind.REJECTED, RefusalKind.BUSY, RefusalKind.ALREADY_OVER])
def test_a_refused_submit_does_not_end_the_watch_if_the_run_has_gone_on(kind: RefusalKind) -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.refused(kind, asked=Asked.SUBMIT)
    run.sees(Phase.RUNNING)
    run.now += 10.0
    assert pick(run.sees_twice(Phase.NEEDS_CALLER, A), Submit)  # the run asks for them again


def test_after_a_refused_submit_outputs_from_the_caller_replace_the_refused_ones() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.refused(RefusalKind.REJECTED, asked=Asked.SUBMIT)
    run.now += 5.0
    run.sees_twice(Phase.NEEDS_CALLER, A)
    assert [c.outputs for c in pick(run.provides(call_a="better"), Submit)] == [(("call_a", "better"),)]


def test_unanswered_calls_end_the_watch_once_the_others_are_done() -> None:
    run = dispatching()
    assert run.unanswered("call_b") == []
    end = end_of(run.answers(call_a="1"))
    assert (end.kind, end.reason) == (EndKind.NEEDS_CALLER, Reason.UNANSWERED)
    assert end.calls == (B,)
    assert end.outputs == (("call_a", "1"),)


def test_outputs_from_the_caller_reopen_the_watch() -> None:
    run = dispatching(timeout=30.0)
    run.unanswered("call_a", "call_b")
    run.now += 3600.0  # a person may take an hour
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


def test_an_expiry_that_has_already_passed_does_not_cut_calls_short() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, expires_at=1000.0, server_time=5000.0)
    run.passes(10.0)
    assert run.machine.state is State.DISPATCHING


def test_a_run_that_waits_but_names_no_calls_is_polled_again_and_then_surfaced() -> None:
    run = Driver()
    for _ in range(3):
        assert pick(run.sees(Phase.NEEDS_CALLER), PollAt)
    assert end_of(run.sees(Phase.NEEDS_CALLER)).reason is Reason.NO_CALLS


def test_a_run_that_ends_while_tools_run_ends_the_watch() -> None:
    run = dispatching()
    assert end_of(run.sees(Phase.EXPIRED)).kind is EndKind.EXPIRED


def test_a_run_that_seems_to_go_on_while_tools_run_does_not_lose_their_outputs() -> None:
    run = dispatching(A)
    run.sees(Phase.RUNNING)  # an old poll, from before the round
    assert pick(run.answers(call_a="1"), Submit)


def test_a_submit_refused_as_not_found_means_that_the_run_is_gone() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    assert run.refused(RefusalKind.NOT_FOUND, asked=Asked.SUBMIT)  # a replica may not have it yet
    run.passes(20.0)
    cause = RuntimeError("not found")
    end = end_of(run.refused(RefusalKind.NOT_FOUND, asked=Asked.SUBMIT, cause=cause))
    assert (end.kind, end.reason, end.cause) == (EndKind.GAVE_UP, Reason.GONE, cause)


@pytest.mark.parametrize(("hint", "pause"), [(None, 2.0), (0.1, 2.0), (7.0, 7.0)])
def test_polls_while_tools_run_are_at_least_two_seconds_apart(hint: float | None, pause: float) -> None:
    run = dispatching(timeout=None)
    assert pause_of(run.sees(Phase.NEEDS_CALLER, A, B, hint=hint), run.now) == pause
    assert pause_of(run.refused(RefusalKind.THROTTLED, retry_after=30.0), run.now) == 30.0


def test_polls_while_tools_run_are_as_far_apart_as_the_caller_wants() -> None:
    run = dispatching(cadence=Cadence.fixed(30.0))
    assert pause_of(run.sees(Phase.NEEDS_CALLER, A, B), run.now) == 30.0


@pytest.mark.parametrize(("phase", "calls"), [(Phase.RUNNING, ()), (Phase.NEEDS_CALLER, (A,))])
def test_polls_without_calls_count_only_in_a_row(phase: Phase, calls: tuple[Call, ...]) -> None:
    run = Driver(timeout=None)
    for _ in range(3):
        run.sees(Phase.NEEDS_CALLER)
    run.sees(phase, *calls)
    for _ in range(3):
        assert pick(run.sees(Phase.NEEDS_CALLER), PollAt)
    assert end_of(run.sees(Phase.NEEDS_CALLER)).reason is Reason.NO_CALLS


def test_only_the_new_calls_of_a_larger_round_are_run() -> None:
    run = dispatching(A)
    (tools,) = pick(run.sees(Phase.NEEDS_CALLER, A, B), RunTools)
    assert tools.calls == (B,)
    assert run.answers(call_a="1")
    assert [dict(c.outputs) for c in pick(run.answers(call_b="2"), Submit)] == [{"call_a": "1", "call_b": "2"}]


def test_a_run_that_asks_for_an_earlier_round_again_gets_its_recorded_outputs() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.sees(Phase.NEEDS_CALLER, B)
    run.answers(call_b="2")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    run.now += 4.9
    run.sees(Phase.NEEDS_CALLER, A)  # this poll may show the state before the second submit
    assert len(submitted(run)) == 2
    run.now += 0.1
    run.sees(Phase.NEEDS_CALLER, A)
    assert submitted(run) == [{"call_a": "1"}, {"call_b": "2"}, {"call_a": "1"}]
    assert handed_out(run) == ["call_a", "call_b"]


def test_outputs_from_the_caller_after_ignored_ones_are_a_fresh_start() -> None:
    run = dispatching(A, timeout=None)
    run.answers(call_a="1")
    for _ in range(2):
        run.sees(Phase.PENDING, asked=Asked.SUBMIT)
        run.now += 5.0
        run.sees_twice(Phase.NEEDS_CALLER, A)
    assert end_of(run.all).reason is Reason.OUTPUTS_IGNORED
    run.provides(call_a="other")
    cause = RuntimeError("bad output")
    run.refused(RefusalKind.REJECTED, asked=Asked.SUBMIT, cause=cause)
    run.now += 5.0
    end = end_of(run.sees_twice(Phase.NEEDS_CALLER, A))
    assert (end.reason, end.cause) == (Reason.SUBMIT_REFUSED, cause)


APPROVAL = call("call_p", "delete", kind=CallKind.APPROVAL)


@pytest.mark.parametrize("output", ["true", "false", '{"approve": true, "headers": {}}'])
def test_an_approval_is_submitted_as_the_caller_wrote_it(output: str) -> None:
    run = dispatching(APPROVAL)
    shown = run.machine.snapshot
    assert shown is not None
    assert pick(run.provides(call_p=output), Submit) == [Submit(((APPROVAL, output),), shown)]


def test_an_output_that_is_not_an_approval_raises_and_changes_nothing() -> None:
    run = dispatching(A, APPROVAL)
    with pytest.raises(InvalidRequestError, match="'call_p' waits for an approval"):
        run.provides(call_a="1", call_p="go ahead")
    assert run.machine.state is State.DISPATCHING
    assert pick(run.provides(call_p="true"), Submit) == []
    assert [dict(c.outputs) for c in pick(run.provides(call_a="go ahead"), Submit)] == [
        {"call_a": "go ahead", "call_p": "true"}
    ]


def test_an_approval_alone_may_take_until_the_deadline_and_not_only_until_the_expiry() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, APPROVAL, expires_at=1600.0, server_time=1000.0)
    assert run.machine.wake_at == run.now + 660.0
    run.passes(600.0)
    assert run.machine.state is State.DISPATCHING


def test_the_error_for_a_call_that_is_not_open_lists_the_open_ones() -> None:
    run = dispatching()
    with pytest.raises(InvalidRequestError, match=r"no call 'call_x'; open calls: 'call_a', 'call_b'$"):
        run.provides(call_x="1")
    run.provides(call_a="1", call_b="2")
    with pytest.raises(InvalidRequestError, match=r"open calls: none$"):
        run.provides(call_x="1")


def test_the_error_for_an_output_before_any_call_says_that_none_is_open() -> None:
    run = Driver()
    with pytest.raises(InvalidRequestError, match=r"open calls: none$"):
        run.provides(call_a="1")


def test_the_pauses_of_a_submit_that_was_not_sent_are_those_of_polls() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.refused(RefusalKind.NOT_SENT, asked=Asked.SUBMIT)
    assert run.machine.wake_at == run.now + 0.5
    assert run.passes(0.4) == []
    assert pick(run.passes(0.2), Submit)
    run.refused(RefusalKind.NOT_SENT, asked=Asked.SUBMIT)
    assert run.machine.wake_at == run.now + 1.0


def test_calls_that_are_late_are_answered_once() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, expires_at=1600.0, server_time=1000.0)
    assert run.passes(594.9) == []
    assert pick(run.passes(0.2), Submit)
    assert run.passes(0.2) == []
    run.answers(call_a="too late")
    run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    assert len(submitted(run)) == 1


@pytest.mark.parametrize(("left", "given"), [(1000.0, 995.0), (20.0, 15.0), (19.0, 14.25), (8.0, 6.0)])
def test_calls_have_until_shortly_before_the_expiry(left: float, given: float) -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, expires_at=2000.0, server_time=2000.0 - left)
    assert run.machine.wake_at == pytest.approx(run.now + given)


def test_the_output_of_a_late_call_is_an_error_that_the_model_can_read() -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, expires_at=1600.0, server_time=1000.0)
    (submit,) = pick(run.passes(595.0), Submit)
    assert json.loads(dict(submit.outputs)["call_a"]) == {"error": "The call did not finish in time."}


@pytest.mark.parametrize("accepted", [True, False])
def test_the_first_polls_after_a_submit_are_quick_again(accepted: bool) -> None:
    run = Driver()
    for _ in range(10):
        run.sees(Phase.RUNNING)
    run.sees(Phase.NEEDS_CALLER, A)
    run.answers(call_a="1")
    if accepted:
        commands = run.sees(Phase.PENDING, asked=Asked.SUBMIT)
    else:
        run.refused(RefusalKind.LOST, asked=Asked.SUBMIT)
        commands = run.sees(Phase.RUNNING)
    assert pause_of(commands, run.now) == pytest.approx(0.25)
    assert pause_of(run.sees(Phase.RUNNING), run.now) == pytest.approx(0.375)


def test_an_unanswered_call_ends_the_watch_at_once_when_the_run_waits_for_it_alone() -> None:
    run = dispatching()
    run.unanswered("call_b")
    run.now += 5.0
    end = end_of(run.sees(Phase.NEEDS_CALLER, B))
    assert (end.reason, end.calls) == (Reason.UNANSWERED, (B,))


def test_outputs_that_were_not_accepted_are_sent_again_if_the_run_still_asks_for_them() -> None:
    run = dispatching(A)
    run.answers(call_a="1")
    run.refused(RefusalKind.NOT_ACCEPTING, asked=Asked.SUBMIT, phase=Phase.PENDING)
    run.now += 4.9
    run.sees(Phase.NEEDS_CALLER, A)
    assert len(submitted(run)) == 1
    run.now += 0.1
    run.sees(Phase.NEEDS_CALLER, A)
    assert submitted(run) == [{"call_a": "1"}] * 2


def test_a_watch_that_gives_up_lists_the_open_calls_and_the_outputs() -> None:
    run = dispatching(timeout=10.0)
    run.answers(call_a="1")
    end = end_of(run.passes(10.0))
    assert (end.kind, end.calls, end.outputs) == (EndKind.GAVE_UP, (B,), (("call_a", "1"),))


def test_a_run_that_ended_has_no_open_calls() -> None:
    run = dispatching()
    run.answers(call_a="1")
    end = end_of(run.sees(Phase.EXPIRED))
    assert (end.calls, end.outputs) == ((), ())


def test_hints_are_heeded_while_the_server_answers_its_own_calls() -> None:
    run = Driver(timeout=None)
    own = call("call_s", kind=CallKind.SERVER)
    assert pause_of(run.sees(Phase.NEEDS_CALLER, own, hint=7.0), run.now) == 7.0


@pytest.mark.parametrize("is_final", [False, True])
def test_the_calls_of_a_final_snapshot_are_not_cut_short_by_an_expiry(is_final: bool) -> None:
    run = Driver()
    run.sees(Phase.NEEDS_CALLER, A, expires_at=run.now + 100, server_time=run.now, is_final=is_final)
    assert bool(pick(run.passes(97), Submit)) is not is_final


def test_a_poll_without_calls_follows_the_hint_of_the_server() -> None:
    run = Driver()
    assert pause_of(run.sees(Phase.NEEDS_CALLER, hint=7.0), run.now) == pytest.approx(7.0)


def test_what_is_recorded_for_a_watch_without_calls_does_not_reach_other_watches() -> None:
    """All watches without calls share one ledger, which must stay empty."""
    odd = Driver()
    odd.sees(Phase.RUNNING)
    odd.feed(CallsAnswered(odd.now, ((A, "output"),)))
    Driver().feed(CallsUnanswered(odd.now, (B,)))
    odd.sees(Phase.NEEDS_CALLER, call("call_c", kind=CallKind.SERVER))
    run = dispatching()
    assert handed_out(run) == ["call_a", "call_b"]
    run.answers(call_a="1", call_b="2")
    assert submitted(run) == [{"call_a": "1", "call_b": "2"}]
    assert not any(getattr(NO_CALLS, name) for name in Ledger.__struct_fields__)
