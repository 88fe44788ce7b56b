"""What the handler of a workflow may return, and what the outcome of a round has; without a server."""

from __future__ import annotations

from typing import Any

import pytest

from asyncruns import Call, InvalidRequestError, RunRef
from asyncruns.lifecycle import CallKind
from asyncruns.temporal.messages import RunReport
from asyncruns.temporal.reports import outcome_of_report
from asyncruns.temporal.rounds import Answering, CallRound, RoundResult, answer_round, unanswered
from asyncruns.temporal.workflow_client import WorkflowClient

REF = RunRef("thread.run", ("t", "r"))
APPROVAL = Call(id="a", name="drop", arguments="{}", kind=CallKind.APPROVAL)
FUNCTION = Call(id="f", name="get_weather", arguments="{}")


async def answered(call: Call, given: Any) -> RoundResult:
    round_ = CallRound(ref=REF, calls=(call,), metadata={})
    return await answer_round(round_, Answering(handler=lambda calls: given))


async def test_a_handler_approves_or_denies() -> None:
    for given, text in ((True, "true"), (False, "false"), ({"approve": True}, '{"approve":true}')):
        assert (await answered(APPROVAL, {"a": given})).outputs == ((APPROVAL, text, False),)


@pytest.mark.parametrize("given", ["yes", {"approved": True}, 1, None])
async def test_what_is_no_approval_is_no_denial(given: Any) -> None:
    with pytest.raises(InvalidRequestError, match="waits for an approval"):
        await answered(APPROVAL, {"a": given})


async def test_outputs_for_other_calls_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"was not given: ..F.."):
        await answered(FUNCTION, {"F": "sunny"})


def test_the_outputs_that_existed_before_a_round_are_in_its_outcome() -> None:
    fields = {"outcome": "NeedsCaller", "ref": REF.to_dict(), "reason": "unanswered", "outputs": [("e", "early")]}
    outcome = outcome_of_report(RunReport(outcome=fields), WorkflowClient())
    done = RoundResult(outputs=((FUNCTION, "sunny", False),), left=(APPROVAL,))
    assert unanswered(outcome, done).outputs == (("e", "early"), ("f", "sunny"))
    assert unanswered(unanswered(outcome, done), done).outputs == (("e", "early"), ("f", "sunny"))
