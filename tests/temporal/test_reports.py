"""Reports: outcomes as values that a history can hold."""

from __future__ import annotations

from typing import Any

from asyncruns import Call, GaveUp, NeedsCaller, Reason, RunRef
from asyncruns.lifecycle.records import CallRecord, WatchRecord, key_of_call
from asyncruns.temporal.messages import RunReport
from asyncruns.temporal.reports import (
    begun_in,
    outcome_of_report,
    report_of,
    report_of_error,
    with_begun,
    without_begun,
)
from asyncruns.temporal.sizes import json_size
from asyncruns.temporal.workflow_client import WorkflowClient
from asyncruns.watch.handover import Token, with_outputs

REF = RunRef("thread.run", ("t", "r"))
LARGE = "x" * 1_000_000


def outcome_with(outputs: list[tuple[str, str]], token: Token | None) -> NeedsCaller[Any]:
    fields = {"outcome": "NeedsCaller", "ref": REF.to_dict(), "reason": "unanswered", "outputs": outputs}
    outcome = outcome_of_report(RunReport(outcome=fields, token=token), WorkflowClient())
    assert isinstance(outcome, NeedsCaller)
    return outcome


def test_outputs_are_in_a_report_once() -> None:
    token = with_outputs(Token(ref=REF), [(Call(id="c", name="f", arguments="{}"), LARGE, False)])
    report = report_of(outcome_with([("c", LARGE)], token))
    assert json_size(report) < 1_100_000
    assert outcome_of_report(report, WorkflowClient()).outputs == (("c", LARGE),)


def test_outputs_that_differ_from_those_of_the_token_are_kept() -> None:
    token = with_outputs(Token(ref=REF), [(Call(id="c", name="f", arguments="{}"), "of the token", False)])
    for outputs in ([], [("c", "another")]):
        report = report_of(outcome_with(outputs, token))
        assert outcome_of_report(report, WorkflowClient()).outputs == tuple(outputs)
    report = report_of(outcome_with([("c", "without a token")], None))
    assert outcome_of_report(report, WorkflowClient()).outputs == (("c", "without a token"),)


def test_an_error_has_the_time_that_it_is_given() -> None:
    report = report_of_error(REF, ValueError("no"), Reason.BROKE, 5.0)
    outcome = outcome_of_report(report, WorkflowClient())
    assert isinstance(outcome, GaveUp)
    assert (outcome.at, outcome.reason) == (5.0, Reason.BROKE)


def test_calls_that_had_begun_are_kept_from_the_fleet() -> None:
    done, begun = CallRecord(key="d", call_id="d", output="done"), CallRecord(key="b", call_id="b")
    record = WatchRecord(key="w", ref=REF, refs=(REF,), calls=(done, begun))
    token = Token(ref=REF, record=record)
    assert begun_in(token) == (begun,)
    bare = without_begun(token)
    assert bare.record is not None
    assert bare.record.calls == (done,)
    assert set((with_begun(bare, token).record or record).calls) == {done, begun}
    assert begun_in(Token(ref=REF)) == ()
    assert without_begun(Token(ref=REF)) == Token(ref=REF)


def test_calls_that_a_tool_has_left_may_run_again() -> None:
    call = Call(id="c", name="f", arguments="{}")
    calls = (CallRecord(key=key_of_call(call), call_id="c"),)
    outcome = {"calls": [{"id": "c", "name": "f", "arguments": "{}"}]}
    token = Token(ref=REF, record=WatchRecord(key="w", ref=REF, refs=(REF,), calls=calls, outcome=outcome))
    assert begun_in(token) == ()
    bare = without_begun(token)
    assert bare.record is not None
    assert bare.record.calls == ()
