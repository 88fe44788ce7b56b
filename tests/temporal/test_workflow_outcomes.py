"""What `watch` returns in a workflow: the same as `Client.watch`, for every outcome."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import flows
import pytest
from dev_server import Stage
from recorded import opened
from temporalio import workflow
from temporalio.client import WorkflowFailureError

from asyncruns import (
    AnyOutcome,
    Cancelled,
    Completed,
    Expired,
    Failed,
    GaveUp,
    Incomplete,
    InvalidRequestError,
    NeedsCaller,
    Reason,
    RunRef,
    Toolset,
)
from asyncruns.temporal import watch
from asyncruns.temporal.messages import RunReport
from asyncruns.temporal.reports import outcome_of_report
from asyncruns.temporal.workflow_client import WorkflowClient
from asyncruns.testing import Fault, FunctionCall, Scenario

pytestmark = pytest.mark.real_time

CALL = FunctionCall("get_weather", {"city": "Paris"})
QUICK: dict[str, Any] = {"queued": 0.02, "working": 0.05}
SCENARIOS: dict[type[Any], Scenario] = {
    Completed: Scenario(**QUICK),
    Failed: Scenario(**QUICK, end="failed", error_code="rate_limit_exceeded"),
    Expired: Scenario(**QUICK, end="never", lifetime=1.0),
    Incomplete: Scenario(**QUICK, end="incomplete"),
    Cancelled: Scenario(**QUICK, end="never", cancelling=0.05),
    NeedsCaller: Scenario(**QUICK, rounds=((CALL,),)),
}


async def get_weather(city: str) -> str:
    return f"sunny in {city}"


async def both(stage: Stage, run: Any, **options: Any) -> tuple[AnyOutcome[Any], AnyOutcome[Any]]:
    """Return the outcome in a workflow, and the outcome of `Client.watch`."""
    ref = RunRef.of(run)
    found, plain = await asyncio.gather(
        stage.run(flows.Ask.run, ref, options),
        stage.client.watch(ref, on_exit="leave", **{name: options[name] for name in options if name != "tools"}),
    )
    return found, plain


async def test_each_outcome_is_that_of_a_plain_watch(stage: Stage) -> None:
    async def check(number: int, kind: type[Any]) -> None:
        name = f"asst_{number}"
        stage.emulator.script(SCENARIOS[kind], assistant_id=name)
        run = await stage.new_run(name)
        if kind is Cancelled:
            await stage.client.threads.runs.cancel(run.id, thread_id=run.thread_id)
        found, plain = await both(stage, run, tools=None, label={"number": number})
        assert type(found) is kind
        assert type(plain) is kind
        said, expected = found.to_dict(), plain.to_dict()
        for each in (said, expected):
            for name in ("polls", "elapsed", "at"):
                assert each.pop(name) > 0
        assert said == expected
        assert bool(found.token) is (kind is NeedsCaller)

    async with stage.worker():
        await asyncio.gather(*(check(number, kind) for number, kind in enumerate(SCENARIOS)))


async def test_a_watch_that_is_refused_gives_up(stage: Stage) -> None:
    stage.emulator.script(Scenario(**QUICK), assistant_id="asst_1")
    stage.emulator.inject(Fault(on="poll", status=401, times=None))
    async with stage.worker():
        run = await stage.new_run()
        found, plain = await both(stage, run)
    assert isinstance(found, GaveUp)
    assert found.reason is plain.reason is Reason.UNAUTHORIZED
    assert "answered 401" in str(found.cause)
    assert found.token


async def test_the_outcome_of_a_response_is_that_of_a_plain_watch(stage: Stage) -> None:
    stage.emulator.script(Scenario(**QUICK, answer="Sunny."), model="gpt")
    async with stage.worker():
        response = await stage.new_response()
        found, plain = await both(stage, response)
        assert isinstance(found, Completed)
        assert found.usage == plain.usage
        assert found.ref == plain.ref
        assert await found.text() == "Sunny."  # a response holds its messages


@pytest.mark.slow
async def test_sums_and_refs_are_those_of_the_whole_watch(stage: Stage) -> None:
    tools = Toolset([get_weather])
    scenario = Scenario(**QUICK, rounds=((CALL, CALL), (CALL,)))
    stage.emulator.script(scenario, assistant_id="asst_1")
    stage.emulator.script(scenario, model="gpt")
    async with stage.worker(tools=tools):
        run, other = await stage.new_run(), await stage.new_run()
        response, like_it = await stage.new_response(), await stage.new_response()
        found, of_response, plain, plain_response = await asyncio.gather(
            stage.run(flows.Ask.run, RunRef.of(run), {}),
            stage.run(flows.Ask.run, RunRef.of(response), {}),
            stage.client.watch(other, tools=tools),
            stage.client.watch(like_it, tools=tools),
        )
    for got, expected in ((found, plain), (of_response, plain_response)):
        assert isinstance(got, Completed)
        assert isinstance(expected, Completed)
        assert got.usage == expected.usage
        assert len(got.refs) == len(expected.refs)
        assert got.refs[-1] == got.ref
    assert found.refs == (RunRef.of(run),)
    assert of_response.refs[0] == RunRef.of(response)
    assert len(of_response.refs) == 3
    polls = [each for each in stage.emulator.requests if each.operation == "poll" and each.run_id == run.id]
    assert found.polls == len(polls)


async def test_a_workflow_reads_text_values_and_messages(stage: Stage) -> None:
    answer = {"city": "Paris", "degrees": 21}
    stage.emulator.script(Scenario(**QUICK, answer=answer), assistant_id="asst_1")
    stage.emulator.script(Scenario(**QUICK, answer=answer), model="gpt")
    async with stage.worker():
        run, response = await stage.new_run(), await stage.new_response()
        found = await asyncio.gather(*(stage.run(flows.Read.run, RunRef.of(each)) for each in (run, response)))
    for text, city, degrees, messages in found:
        assert '"Paris"' in text
        assert (city, degrees, messages) == ("Paris", 21, 1)


async def test_a_run_is_named_by_ids_or_a_ref(stage: Stage) -> None:
    stage.emulator.script(Scenario(**QUICK), assistant_id="asst_1")
    stage.emulator.script(Scenario(**QUICK), model="gpt")
    async with stage.worker():
        run, response = await stage.new_run(), await stage.new_response()
        ways: list[dict[str, Any]] = [
            {"run_id": run.id, "thread_id": run.thread_id},
            {"run": RunRef.of(run).to_dict()},
            {"response_id": response.id},
        ]
        assert await asyncio.gather(*(stage.run(flows.ByIds.run, way) for way in ways)) == ["Completed"] * 3


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "thread_id"),
    ({"run_id": "run_1"}, "thread_id"),
    ({"run": {"dialect": "runs", "ids": ["t", "r"]}, "run_id": "r"}, "Pass a run"),
    ({"token": "nonsense"}, "token must be"),
    ({"response_id": "resp_1", "tools": ["f"]}, "tools must be the name of a toolset"),
    ({"response_id": "resp_1", "people": "approve"}, "people must be a list of names"),
    ({"response_id": "resp_1", "timout": 1.0}, "did you mean 'timeout'"),
    ({"response_id": "resp_1", "timeout": -1.0}, "timeout must be"),
    ({"response_id": "resp_1", "on_exit": "stop"}, "on_exit must be"),
    ({"response_id": "resp_1", "max_rounds": 0}, "max_rounds must be"),
    ({"response_id": "resp_1", "cadence": 1.0}, "no option 'cadence'; the worker decides"),
    ({"response_id": "resp_1", "context": 1}, "no option 'context'; pass AsyncRunsPlugin.context_factory"),
    ({"response_id": "resp_1", "on_approval": print}, "no option 'on_approval'; on_requires_action gets"),
    ({"response_id": "resp_1", "on_event": print}, "no option 'on_event'; a workflow gets the outcome only"),
    ({"response_id": "resp_1", "on_status": print}, "no option 'on_status'; a workflow gets the outcome only"),
    ({"response_id": "resp_1", "on_terminal": print}, "no option 'on_terminal'; a workflow gets the outcome only"),
    ({"response_id": "resp_1", "max_concurrent_calls": 1}, "no option 'max_concurrent_calls'; Worker.max_conc"),
    ({"token": "asyncruns1.e30", "run": RunRef("response", ("r",))}, "A token names a watch by itself"),
    ({"token": "asyncruns1.e30", "thread_id": "t"}, "A token names a watch by itself"),
    ({"response_id": "resp_1", "heartbeat_timeout": 0}, "heartbeat_timeout must be"),
    ({"response_id": "resp_1", "heartbeat_timeout": math.inf}, "heartbeat_timeout must be"),
    ({"response_id": "resp_1", "cold": "yes"}, "cold must be"),
    ({"response_id": "resp_1", "observe_only": True, "people": ["f"]}, "observe_only=True answers nothing"),
    ({"response_id": "resp_1", "label": {1, 2}}, "label must be"),
]


@pytest.mark.parametrize(("given", "part"), WRONG)
async def test_bad_arguments_are_refused_with_what_to_pass(given: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidRequestError, match=part):  # before the workflow is asked for anything
        await watch(**given)


async def test_bad_arguments_end_a_workflow(stage: Stage) -> None:
    async with stage.worker():
        with pytest.raises(WorkflowFailureError) as failed:
            await stage.run(flows.Ask.run, RunRef("runs", ("t", "r")), {"timeout": -1.0})
    assert "timeout must be" in str(failed.value.cause)


async def test_an_infinite_timeout_is_none(stage: Stage) -> None:
    stage.emulator.script(Scenario(**QUICK), assistant_id="asst_1")
    async with stage.worker():
        handle = await stage.start(flows.Ask.run, RunRef.of(await stage.new_run()), {"timeout": math.inf})
        assert isinstance(await handle.result(), Completed)
        assert '"options":{"timeout":null}' in opened(await handle.fetch_history())


async def test_the_results_of_a_batch_are_not_for_workflows(monkeypatch: pytest.MonkeyPatch) -> None:
    ref = RunRef("batch", ("batch_1",))
    report = RunReport(outcome={"outcome": "Completed", "ref": ref.to_dict(), "status": "completed"})
    outcome = outcome_of_report(report, WorkflowClient())
    for in_workflow, said in ((True, "A workflow sends no requests"), (False, "This outcome was unpickled")):
        monkeypatch.setattr(workflow, "in_workflow", lambda found=in_workflow: found)
        for read in (outcome.results, outcome.unanswered):
            with pytest.raises(InvalidRequestError, match=said):
                read()
        with pytest.raises(InvalidRequestError, match=said):
            await outcome.reconcile(["1"])
