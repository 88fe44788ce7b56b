"""What a watch in a workflow does besides tools: handlers, limits, expiry, and cancels."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import flows
import pytest
from dev_server import Stage
from temporalio import activity
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError, CancelledError

from asyncruns import Cancelled, Completed, GaveUp, NeedsCaller, Reason, RunRef, Toolset
from asyncruns.lifecycle.machine import TIMED_OUT_OUTPUT
from asyncruns.temporal import shard_fleet
from asyncruns.temporal.activities import Activities
from asyncruns.temporal.messages import CANCEL, RunReport
from asyncruns.temporal.reports import outcome_of_report
from asyncruns.temporal.rounds import round_of
from asyncruns.temporal.workflow_client import WorkflowClient
from asyncruns.testing import Fault, FunctionCall, Scenario

pytestmark = pytest.mark.real_time

CALL = FunctionCall("get_weather", {"city": "Paris"})
ONE = Scenario(queued=0.02, working=0.02, rounds=((CALL, CALL),))
TWO = Scenario(queued=0.02, working=0.02, rounds=((CALL,), (CALL,)))
ENDLESS = Scenario(queued=0.02, working=0.02, end="never", cancelling=0.05)


async def get_weather(city: str) -> str:
    return f"sunny in {city}"


TOOLS = Toolset([get_weather])


def sent(stage: Stage, operation: str) -> int:
    return sum(each.operation == operation for each in stage.emulator.requests)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


async def status_of(stage: Stage, run: Any) -> str:
    return str((await stage.client.threads.runs.retrieve(run.id, thread_id=run.thread_id)).status)


# Handlers


async def test_what_a_handler_leaves_out_goes_to_tools(stage: Stage) -> None:
    stage.emulator.script(ONE, assistant_id="asst_1")
    async with stage.worker(tools=TOOLS):
        run = await stage.new_run()
        assert isinstance(await stage.run(flows.Handled.run, RunRef.of(run), "partly", {}), Completed)
    assert list(stage.emulator.submitted(run.id)[0].values()) == ['{"from":"the handler"}', "sunny in Paris"]


async def test_a_handler_that_answers_nothing_leaves_all_to_tools(stage: Stage) -> None:
    stage.emulator.script(TWO, assistant_id="asst_1")
    async with stage.worker(tools=TOOLS):
        run = await stage.new_run()
        assert isinstance(await stage.run(flows.Handled.run, RunRef.of(run), "nothing", {}), Completed)
    assert [list(each.values()) for each in stage.emulator.submitted(run.id)] == [["sunny in Paris"]] * 2


async def test_a_handler_waits_for_a_signal_of_the_workflow(stage: Stage) -> None:
    stage.emulator.script(ONE, assistant_id="asst_1")
    async with stage.worker(tools=TOOLS):
        run = await stage.new_run()
        handle = await stage.start(flows.Handled.run, RunRef.of(run), "when_allowed", {})
        while len(await handle.query(flows.Handled.asked)) < 2:
            await asyncio.sleep(0.02)
        polls = sent(stage, "poll")
        await asyncio.sleep(0.2)
        assert sent(stage, "poll") == polls  # nothing is held, and nothing polls
        await handle.signal(flows.Handled.allow)
        assert isinstance(await handle.result(), Completed)
    assert list(stage.emulator.submitted(run.id)[0].values()) == ["allowed"] * 2


async def test_what_a_handler_raises_ends_the_watch(stage: Stage) -> None:
    stage.emulator.script(ONE, assistant_id="asst_1")
    async with stage.worker(tools=TOOLS):
        run = await stage.new_run()
        with pytest.raises(WorkflowFailureError) as failed:
            await stage.run(flows.Handled.run, RunRef.of(run), "raising", {"on_exit": "cancel"})
        assert "no answer to get_weather" in str(failed.value.cause)
        assert await status_of(stage, run) == "cancelled"
    assert stage.emulator.submitted(run.id) == []


# Limits


@pytest.mark.slow
async def test_max_rounds_leaves_the_next_round_to_the_caller(stage: Stage) -> None:
    stage.emulator.script(TWO, assistant_id="asst_1")
    stage.emulator.script(TWO, model="gpt")
    async with stage.worker(tools=TOOLS):
        for run in (await stage.new_run(), await stage.new_response()):
            found, plain = await asyncio.gather(
                stage.run(flows.Ask.run, RunRef.of(run), {"max_rounds": 1}),
                stage.client.watch(
                    await (stage.new_run() if "run" in run.id else stage.new_response()), tools=TOOLS, max_rounds=1
                ),
            )
            assert isinstance(found, NeedsCaller)
            assert found.reason is plain.reason is Reason.MAX_ROUNDS
            assert len(found.calls) == len(plain.calls) == 1
            again = await stage.run(flows.GoOn.run, found.token, {})
            assert isinstance(again, Completed)


async def test_a_timeout_ends_the_watch_and_the_run_goes_on(stage: Stage) -> None:
    stage.emulator.script(ENDLESS, assistant_id="asst_1")
    async with stage.worker(tools=TOOLS):
        run = await stage.new_run()
        found = await stage.run(flows.Ask.run, RunRef.of(run), {"timeout": 0.3})
        assert isinstance(found, GaveUp)
        assert found.reason is Reason.TIMEOUT
        assert 0.3 <= found.elapsed < 30.0
        assert await status_of(stage, run) == "in_progress"
        await stage.client.threads.runs.cancel(run.id, thread_id=run.thread_id)
        assert isinstance(await stage.run(flows.GoOn.run, found.token, {}), Cancelled)


async def test_a_timeout_while_a_handler_waits_ends_the_watch(stage: Stage) -> None:
    stage.emulator.script(ONE, assistant_id="asst_1")
    async with stage.worker():
        run = await stage.new_run()
        found = await stage.run(flows.Handled.run, RunRef.of(run), "when_allowed", {"timeout": 0.5})
    assert isinstance(found, GaveUp)
    assert found.reason is Reason.TIMEOUT
    assert stage.emulator.submitted(run.id) == []


@pytest.mark.slow
async def test_an_observer_answers_nothing(stage: Stage) -> None:
    stage.emulator.script(ONE, assistant_id="asst_1")
    async with stage.worker(tools=TOOLS):
        run = await stage.new_run()
        handle = await stage.start(flows.Ask.run, RunRef.of(run), {"observe_only": True})
        await until(lambda: sent(stage, "poll") > 1)
        plain = await stage.client.watch(run, tools=TOOLS)
        found = await handle.result()
    assert isinstance(found, Completed)
    assert isinstance(plain, Completed)
    assert sent(stage, "submit") == 1


@pytest.mark.slow
async def test_calls_without_an_output_are_told_to_be_late_before_the_run_expires(stage: Stage) -> None:
    tools = Toolset()

    @tools.tool
    async def get_weather(city: str) -> str:
        await asyncio.sleep(60)
        return city

    stage.emulator.script(Scenario(queued=0.02, working=0.02, rounds=((CALL,),), lifetime=4.0), assistant_id="asst_1")
    async with stage.worker(tools=tools):
        run = await stage.new_run()
        found = await stage.run(flows.Ask.run, RunRef.of(run), {"heartbeat_timeout": 0.5})
    assert isinstance(found, Completed)
    assert list(stage.emulator.submitted(run.id)[0].values()) == [TIMED_OUT_OUTPUT]


# Leaving


@pytest.mark.parametrize(("on_exit", "status"), [("cancel", "cancelled"), ("leave", "in_progress")])
async def test_a_cancelled_workflow_cancels_the_run_or_leaves_it(stage: Stage, on_exit: str, status: str) -> None:
    stage.emulator.script(ENDLESS, assistant_id="asst_1")
    async with stage.worker():
        run = await stage.new_run()
        handle = await stage.start(flows.Ask.run, RunRef.of(run), {"on_exit": on_exit})
        await until(lambda: sent(stage, "poll") > 0)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
        assert isinstance(failed.value.cause, CancelledError)
        assert await status_of(stage, run) == status


async def test_a_workflow_that_is_cancelled_before_its_watch_has_polled(stage: Stage) -> None:
    stage.emulator.script(ENDLESS, assistant_id="asst_1")
    run = await stage.new_run()
    stage.emulator.inject(Fault(on="poll", delay_before=0.3, times=1))
    async with stage.worker():
        handle = await stage.start(flows.Ask.run, RunRef.of(run), {"on_exit": "cancel"})
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert await status_of(stage, run) == "cancelled"


@pytest.mark.slow
@pytest.mark.parametrize("on_exit", ["cancel", "leave"])
async def test_wait_for_around_a_watch(stage: Stage, on_exit: str) -> None:
    stage.emulator.script(ENDLESS, assistant_id="asst_1")
    async with stage.worker():
        run = await stage.new_run()
        assert await stage.run(flows.Impatient.run, RunRef.of(run), 0.3, {"on_exit": on_exit}) == "TimeoutError"
        assert await status_of(stage, run) == ("cancelled" if on_exit == "cancel" else "in_progress")


@pytest.mark.slow
async def test_wait_for_while_a_tool_runs_cancels_the_tool(stage: Stage) -> None:
    tools, seen = Toolset(), list[str]()

    @tools.tool
    async def get_weather(city: str) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return city

    stage.emulator.script(ONE, assistant_id="asst_1")
    async with stage.worker(tools=tools):
        run = await stage.new_run()
        options = {"on_exit": "cancel", "heartbeat_timeout": 0.5}
        assert await stage.run(flows.Impatient.run, RunRef.of(run), 0.5, options) == "TimeoutError"
        assert await status_of(stage, run) == "cancelled"
        await until(lambda: len(seen) == 2)
    assert stage.emulator.submitted(run.id) == []


async def given_up(stage: Stage) -> Any:
    stage.emulator.script(ENDLESS, assistant_id="asst_1")
    return {"timeout": 0.2}


async def needing_the_caller(stage: Stage) -> Any:
    stage.emulator.script(ONE, assistant_id="asst_1")
    return {"tools": None}


@pytest.mark.parametrize("leave", [given_up, needing_the_caller])
async def test_a_watch_that_leaves_a_run_open_cancels_it(
    stage: Stage, leave: Callable[[Stage], Awaitable[dict[str, Any]]]
) -> None:
    options = await leave(stage)
    async with stage.worker():
        run = await stage.new_run()
        found = await stage.run(flows.Ask.run, RunRef.of(run), {**options, "on_exit": "cancel"})
        assert isinstance(found, Cancelled)
        assert found.cancel_requested
        assert found.polls >= 1


@pytest.mark.slow
async def test_two_watches_of_one_workflow(stage: Stage) -> None:
    stage.emulator.script(TWO, assistant_id="asst_1")
    async with stage.worker(tools=TOOLS):
        refs = [RunRef.of(await stage.new_run()) for _ in range(2)]
        assert await stage.run(flows.Both.run, refs) == ["Completed", "Completed"]
    assert sent(stage, "submit") == 4


async def test_a_workflow_watches_a_run_once(stage: Stage) -> None:
    stage.emulator.script(ENDLESS, assistant_id="asst_1")
    async with stage.worker(tools=TOOLS):
        ref = RunRef.of(await stage.new_run())
        with pytest.raises(WorkflowFailureError) as failed:
            await stage.run(flows.Both.run, [ref, ref])
    assert "watches" in str(failed.value.cause)
    assert "already" in str(failed.value.cause)


# A cancel that fails


async def test_a_refused_cancel_is_told_with_the_outcome(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_fleet, "REFUSED_S", 0.3)
    stage.emulator.script(ENDLESS, assistant_id="asst_1")
    stage.emulator.inject(Fault(on="cancel", status=403, times=None))
    async with stage.worker():
        run = await stage.new_run()
        found = await stage.run(flows.Ask.run, RunRef.of(run), {"timeout": 0.2, "on_exit": "cancel", "label": "A"})
    assert isinstance(found, GaveUp)
    assert "403" in str(found.cancel_error)
    assert found.label == "A"


@pytest.mark.slow
async def test_what_ended_a_workflow_is_not_hidden_by_a_cancel_that_fails(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancel(*_: object) -> None:
        raise ApplicationError("no cancel here", type="InvalidRequestError", non_retryable=True)

    monkeypatch.setattr(Activities, "cancel", activity.defn(name=CANCEL)(cancel))
    stage.emulator.script(ENDLESS, assistant_id="asst_1")
    async with stage.worker():
        ref = RunRef.of(await stage.new_run())
        found = await stage.run(flows.Ask.run, ref, {"timeout": 0.2, "on_exit": "cancel"})
        assert isinstance(found, GaveUp)
        assert "no cancel here" in str(found.cancel_error)
        handle = await stage.start(flows.Ask.run, ref, {"on_exit": "cancel"})
        await until(lambda: sent(stage, "poll") > 2)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
        assert isinstance(failed.value.cause, CancelledError)


async def test_the_calls_of_a_response_wait_for_days(stage: Stage) -> None:
    stage.emulator.script(ONE, model="gpt")
    async with stage.worker(tools=TOOLS) as temporal:
        handle = await stage.start(flows.Ask.run, RunRef.of(await stage.new_response()), {})
        assert isinstance(await handle.result(), Completed)
        history = await temporal.get_workflow_handle(handle.id).fetch_history()
    assert not any(b"answer_by" in event.SerializeToString() for event in history.events)


REF = RunRef("thread.run", ("t", "r"))


@pytest.mark.parametrize("times", [(None, None), (100.0, None), (None, 100.0), (100.0, 200.0), (200.0, 100.0)])
def test_calls_are_answered_by_the_earlier_of_two_limits(times: tuple[float | None, float | None]) -> None:
    expiry, timeout = times
    fields = {"outcome": "NeedsCaller", "ref": REF.to_dict(), "calls": [{"id": "c", "name": "f"}]}
    outcome = outcome_of_report(RunReport(outcome={**fields, "reason": "unanswered"}), WorkflowClient())
    round_ = round_of(outcome, RunReport(answer_by=expiry), give_up_at=timeout)
    assert round_ is not None
    assert round_.answer_by == (100.0 if 100.0 in times else math.inf)


# Follow-ups


async def test_a_follow_up_that_has_ended_when_it_is_submitted(stage: Stage) -> None:
    stage.emulator.script(Scenario(queued=0.0, working=0.0, rounds=((CALL,), (CALL,))), model="gpt")
    stage.emulator.inject(Fault(on="submit", delay_after=0.1, times=None))
    async with stage.worker(tools=TOOLS):
        found = await stage.run(flows.Ask.run, RunRef.of(await stage.new_response()), {})
    assert isinstance(found, Completed)
    assert len(found.refs) == 3
    assert sent(stage, "submit") == 2
    for ref in found.refs[1:]:
        assert "not known" not in str(stage.emulator.submitted(ref.ids[-1]))
