"""Workflows that go on with the watch of another process, whose calls may have begun; and observers."""

from __future__ import annotations

from typing import Any

import flows
import pytest
from dev_server import Stage
from msgspec.structs import replace
from temporalio.client import WorkflowFailureError

from asyncruns import Call, Completed, NeedsCaller, RunRef, Toolset
from asyncruns.lifecycle.records import CallRecord, key_of_call
from asyncruns.testing import FunctionCall, Scenario
from asyncruns.watch.handover import Token, token_in, token_text

pytestmark = pytest.mark.real_time

CALL = FunctionCall("pay", {"city": "Paris"})
ONE = Scenario(queued=0.0, working=0.02, rounds=((CALL,),))
UNKNOWN = "The outcome of this call is not known"


def look_it_up(call: Call, error: Exception) -> str:
    return f"looked up after: {type(error).__name__}"


async def begun(stage: Stage) -> str:
    """Return the token of a process that ended while the tool of a call ran."""
    outcome = await stage.client.watch(await stage.new_run(), on_exit="leave")
    assert isinstance(outcome, NeedsCaller)
    token = token_in(outcome.token)
    assert token.record is not None
    calls = tuple(CallRecord(key=key_of_call(call), call_id=call.id) for call in outcome.calls)
    return token_text(replace(token, record=replace(token.record, calls=calls)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "options", "runs", "output"),
    [
        ("tell", {}, 0, UNKNOWN),
        ("rerun", {}, 1, "paid"),
        (look_it_up, {}, 0, "looked up after: RuntimeError"),
        (look_it_up, {"tools": None}, 0, UNKNOWN),
        ("surface", {}, 0, None),
    ],
    ids=["tell", "rerun", "function", "no tools", "surface"],
)
async def test_a_call_that_had_begun_elsewhere_is_decided_by_its_policy(
    stage: Stage, policy: Any, options: dict[str, Any], runs: int, output: str | None
) -> None:
    called: list[str] = []

    async def pay(city: str) -> str:
        called.append(city)
        return "paid"

    stage.emulator.script(ONE, assistant_id="asst_1")
    token = await begun(stage)
    async with stage.worker(tools=Toolset([pay], if_interrupted=policy)):
        found = await stage.run(flows.GoOn.run, token, options)
        if output is None:
            assert isinstance(found, NeedsCaller)
            again = await stage.run(flows.GoOn.run, found.token, options)  # it had begun, still
            assert isinstance(again, NeedsCaller)
        else:
            assert isinstance(found, Completed)
            assert output in next(iter(stage.emulator.submitted(found.ref.ids[-1])[0].values()))
    assert len(called) == runs


async def test_a_call_that_had_begun_is_not_passed_to_the_handler(stage: Stage) -> None:
    stage.emulator.script(ONE, assistant_id="asst_1")
    token = await begun(stage)
    async with stage.worker():
        found = await stage.run(flows.Handled.run, None, "largely", {"token": token})
    assert isinstance(found, Completed)
    assert UNKNOWN in next(iter(stage.emulator.submitted(found.ref.ids[-1])[0].values()))


async def test_a_token_of_a_journal_is_refused(stage: Stage) -> None:
    stage.emulator.script(ONE, assistant_id="asst_1")
    token = token_text(Token(ref=RunRef.of(await stage.new_run()), key="the key in the journal"))
    async with stage.worker():
        with pytest.raises(WorkflowFailureError) as failed:
            await stage.run(flows.GoOn.run, token, {})
    assert "is of a watch in a journal" in str(failed.value.cause)


@pytest.mark.slow
async def test_observers_of_a_run_leave_each_other_alone(stage: Stage) -> None:
    stage.emulator.script(Scenario(queued=0.0, working=1.5), assistant_id="asst_1")
    ref = RunRef.of(await stage.new_run())
    async with stage.worker():
        handle = await stage.start(flows.Both.run, [ref, ref], {"observe_only": True})
        assert await handle.result() == ["Completed"] * 2
        history = await handle.fetch_history()
    started = [each for each in history.events if each.HasField("activity_task_started_event_attributes")]
    assert [each.activity_task_started_event_attributes.attempt for each in started] == [1, 1]
