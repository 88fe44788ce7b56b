"""Calls that people answer: they wait in the workflow, and one function sends the answer."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

import flows
import pytest
from dev_server import Stage, temporal_program
from shard_bench import Bench, opened, start
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError

from asyncruns import Completed, InvalidRequestError, NeedsCaller, RunRef
from asyncruns.lifecycle import CallKind
from asyncruns.temporal import WAITS_FOR_RUNS, add_search_attributes, answer_call, open_calls
from asyncruns.testing import Fault, FunctionCall, Scenario

pytestmark = pytest.mark.real_time

REFUND = FunctionCall("refund", {"order": "7"})
ASKS = Scenario(queued=0.0, working=0.02, rounds=((REFUND, FunctionCall("get_weather", {"city": "Rome"})),))
PEOPLE: dict[str, Any] = {"people": ["refund"]}


@pytest.mark.slow
async def test_a_person_answers_a_call_once(stage: Stage, bench: Bench) -> None:
    stage.emulator.script(ASKS, assistant_id="asst_1")
    run = await stage.new_run()
    async with stage.worker(tools=bench.tools) as temporal:
        handle = await stage.start(flows.Ask.run, RunRef.of(run), {**PEOPLE, "label": {"of": "Ann"}})
        (call,) = await opened(temporal, handle.id)
        assert (call.call.name, call.ref, call.label) == ("refund", RunRef.of(run), {"of": "Ann"})
        with pytest.raises(InvalidRequestError, match="No call with the id 'call_0' waits"):
            await answer_call(temporal, handle.id, "call_0", "yes")
        await answer_call(temporal, handle.id, call, {"paid": 3})
        with pytest.raises(InvalidRequestError, match="answered already"):
            await answer_call(temporal, handle.id, call, {"paid": 3})
        outcome = await handle.result()
        assert isinstance(outcome, Completed)
        assert await open_calls(temporal, handle.id) == []  # by a query of the history
        with pytest.raises(RPCError):
            await answer_call(temporal, handle.id, call, "late")
        with pytest.raises(RPCError):
            await open_calls(temporal, "no-such-workflow")
    assert stage.emulator.submitted(run.id)[0][call.call.id] == '{"paid":3}'
    assert set(bench.begun.values()) == {1}


async def test_an_update_in_the_first_task_is_refused_by_the_desk_not_by_the_sdk(stage: Stage) -> None:
    stage.emulator.script(ASKS, assistant_id="asst_1")
    run = await stage.new_run()
    async with stage.worker() as temporal:
        pass
    handle = await stage.start(flows.Ask.run, RunRef.of(run), PEOPLE)
    answering = asyncio.create_task(answer_call(temporal, handle.id, "call_0", "yes"))
    await asyncio.sleep(0.3)
    async with stage.worker():
        with pytest.raises(InvalidRequestError, match="No call with the id"):
            await answering
        await handle.terminate()


@pytest.mark.slow
async def test_two_runs_whose_calls_have_the_same_id(stage: Stage, bench: Bench) -> None:
    rounds = ((REFUND,), (FunctionCall("refund", {"order": "8"}),))
    stage.emulator.script(Scenario(queued=0.0, working=0.02, rounds=rounds, reuse_call_ids=True), assistant_id="asst_1")
    runs = [await stage.new_run() for _ in range(2)]
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        shards = await start(stage, temporal, runs, people=["refund"])
        name = shards.handles[0].id
        calls = await opened(temporal, name, 2)
        assert calls[0].call.id == calls[1].call.id
        with pytest.raises(InvalidRequestError, match="pass run="):
            await answer_call(temporal, name, calls[0].call.id, "first")
        for number in (0, 1):
            for call in await opened(temporal, name, 2):
                await answer_call(temporal, name, call.call.id, f"round {number}", run=call.ref)
            if number == 0:
                await asyncio.sleep(0.3)
        async with asyncio.timeout(60):
            assert {each.outcome for each in await shards.result()} == {"Completed"}
    for run in runs:
        assert [list(each.values()) for each in stage.emulator.submitted(run.id)] == [["round 0"], ["round 1"]]


@pytest.mark.slow
async def test_search_attributes_find_what_waits_for_people(stage: Stage, bench: Bench) -> None:
    def listed(state: str) -> str:
        command = [temporal_program(), "--address", stage.address, "workflow", "list", "--query"]
        found = subprocess.run(
            [*command, f'AsyncRunsWaitsFor="{state}" AND TaskQueue="{stage.task_queue}"'],
            capture_output=True,
            text=True,
            check=True,
        )
        return found.stdout

    async def until_listed(state: str, name: str) -> None:
        async with asyncio.timeout(60):
            while name not in await asyncio.to_thread(listed, state):
                await asyncio.sleep(0.2)

    stage.emulator.script(ASKS, assistant_id="asst_1")
    runs = [await stage.new_run() for _ in range(3)]
    async with stage.worker(tools=bench.tools) as temporal:
        await add_search_attributes(temporal)
        await add_search_attributes(temporal)  # no harm
        await asyncio.sleep(1.0)  # the server reads them anew
        shards = await start(stage, temporal, runs[:2], people=["refund"], search_attributes=True)
        handle = await stage.start(flows.Ask.run, RunRef.of(runs[2]), PEOPLE, search_attributes=WAITS_FOR_RUNS)
        name = shards.handles[0].id
        calls = await opened(temporal, name, 2)
        await until_listed("people", name)
        await until_listed("people", handle.id)
        await answer_call(temporal, name, calls[0], "yes")
        await answer_call(temporal, name, calls[1], "yes")
        await answer_call(temporal, handle.id, (await opened(temporal, handle.id))[0], "yes")
        await shards.result()
        await handle.result()
        await until_listed("runs", name)
        await until_listed("runs", handle.id)


async def test_a_workflow_without_the_attribute_does_not_set_it(stage: Stage, bench: Bench) -> None:
    stage.emulator.script(ASKS, assistant_id="asst_1")
    run = await stage.new_run()
    async with stage.worker(tools=bench.tools) as temporal:
        handle = await stage.start(flows.Ask.run, RunRef.of(run), PEOPLE)
        await answer_call(temporal, handle.id, (await opened(temporal, handle.id))[0], "yes")
        await handle.result()
        description = await handle.describe()
    assert description.typed_search_attributes.get(SearchAttributeKey.for_keyword("AsyncRunsWaitsFor")) is None


def with_approval(body: dict[str, Any]) -> dict[str, Any] | None:
    """Let a response that has ended ask for an approval, which the emulator does not do."""
    if body.get("status") != "completed" or body.get("previous_response_id"):
        return None
    request = {"type": "mcp_approval_request", "id": "mcpr_1", "name": "drop", "arguments": "{}", "server_label": "db"}
    return {**body, "output": [request]}


@pytest.mark.parametrize("output", [True, False])
async def test_approvals_of_responses(stage: Stage, output: bool) -> None:
    stage.emulator.script(Scenario(queued=0.0, working=0.02), model="gpt")
    stage.emulator.inject(Fault(on="poll", rewrite=with_approval, times=None))
    response = await stage.new_response()
    async with stage.worker() as temporal:
        handle = await stage.start(flows.Ask.run, RunRef.of(response), {"people": ["drop"]})
        (call,) = await opened(temporal, handle.id)
        assert call.call.kind is CallKind.APPROVAL
        with pytest.raises(InvalidRequestError, match="waits for an approval"):
            await answer_call(temporal, handle.id, call, {"approved": output})
        await answer_call(temporal, handle.id, call, output)
        await asyncio.wait([asyncio.ensure_future(handle.result())], timeout=3)
    (sent,) = [each for each in stage.emulator.requests if each.operation in ("submit", "create_response")][1:]
    assert b"mcp_approval_response" in sent.body
    assert (b'"approve":true' in sent.body) is output


async def test_a_late_approval_is_left_to_the_caller(stage: Stage) -> None:
    stage.emulator.script(Scenario(queued=0.0, working=0.02), model="gpt")
    stage.emulator.inject(Fault(on="poll", rewrite=with_approval, times=None))
    ref = RunRef.of(await stage.new_response())
    async with stage.worker():
        found = await stage.run(flows.Ask.run, ref, {"people": ["drop"], "timeout": 0.3})
    assert isinstance(found, NeedsCaller)
    assert [call.name for call in found.calls] == ["drop"]
    assert not [each for each in stage.emulator.requests if each.operation == "submit"]


@pytest.mark.slow
async def test_open_calls_that_no_payload_can_hold_come_in_pieces(stage: Stage) -> None:
    large = FunctionCall("refund", {"order": "x" * 800_000})
    stage.emulator.script(Scenario(queued=0.0, working=0.02, rounds=((large,),)), assistant_id="asst_1")
    refs = [RunRef.of(await stage.new_run()) for _ in range(3)]
    async with stage.worker() as temporal:
        handle = await stage.start(flows.Both.run, refs, PEOPLE)
        calls = await opened(temporal, handle.id, 3)
        assert sorted(str(each.ref) for each in calls) == sorted(map(str, refs))
        for call in calls:
            await answer_call(temporal, handle.id, call, "yes")
        assert await handle.result() == ["Completed"] * 3
