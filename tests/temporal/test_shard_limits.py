"""What would end a shard, or hold it up: large values, many calls at a time, long histories, runs that break."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from dev_server import Stage
from shard_bench import TWO_ROUNDS, Bench, opened, start
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowFailureError

from asyncruns import AnyOutcome, InvalidRequestError, Reason, RunRef, ToolContext, Toolset
from asyncruns.temporal import EndedRun, Shards, answer_call, desk, open_calls, running, shard, shard_fleet
from asyncruns.temporal.activities import Activities
from asyncruns.temporal.messages import STATE, WATCH_SHARD, Shard, ShardState
from asyncruns.temporal.sizes import LARGEST_OUTPUTS
from asyncruns.testing import Fault, FunctionCall, Scenario

pytestmark = pytest.mark.real_time

WEATHER = FunctionCall("get_weather", {"city": "Rome"})
REFUND = FunctionCall("refund", {"order": "7"})
ENDS = Scenario(queued=0.0, working=0.05)


async def result_of(shards: Shards, within: float = 60.0) -> list[EndedRun]:
    async with asyncio.timeout(within):
        return await shards.result()


async def number_of(activity: str, shards: Shards) -> int:
    """Return how often an activity was scheduled in the last history of a shard."""
    history = await shards.handles[0].fetch_history()
    return sum(
        event.activity_task_scheduled_event_attributes.activity_type.name == activity for event in history.events
    )


# Ends


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"tools": None}, {"max_rounds": 1}])
async def test_a_shard_ends_whose_last_runs_need_the_caller(
    stage: Stage, bench: Bench, options: dict[str, Any]
) -> None:
    stage.emulator.script(TWO_ROUNDS, assistant_id="asst_1")
    runs = [await stage.new_run() for _ in range(2)]
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        ended = await result_of(await start(stage, temporal, runs, **options))
    assert [each.outcome for each in ended] == ["NeedsCaller"] * 2
    assert all(each.token is not None for each in ended)
    assert bench.told == Counter(map(RunRef.of, runs))


@pytest.mark.slow
async def test_a_follow_up_that_fails_ends_the_watch_of_its_run_alone(
    stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.emulator.script(Scenario(queued=0.0, working=0.05, rounds=((WEATHER,),)), model="gpt")
    made = [await stage.new_response(tools=bench.tools.definitions(wire="responses")) for _ in range(3)]
    followed_up = Activities._followed_up

    async def failing(activities: Activities, job: Any) -> Any:
        if job.token.ref == RunRef.of(made[0]):
            raise InvalidRequestError("x" * 1_000)
        return await followed_up(activities, job)

    monkeypatch.setattr(Activities, "_followed_up", failing)
    outcomes: list[AnyOutcome[Any]] = []
    async with stage.worker(tools=bench.tools, on_outcome=outcomes.append) as temporal:
        ended = await result_of(await start(stage, temporal, made))
    assert Counter(each.outcome for each in ended) == {"Completed": 2, "GaveUp": 1}
    (broken,) = [each for each in ended if each.reason]
    assert (broken.reason, "xxx" in broken.cause) == (Reason.BROKE.value, True)
    assert len(broken.cause) < 250
    assert len(outcomes) == 3


async def test_a_worker_that_can_t_watch_does_not_end_the_shard(
    stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch_shard = Activities._new_shard
    failed = 0

    async def failing(activities: Activities, job: Any) -> Any:
        nonlocal failed
        if failed < 2:
            failed += 1
            raise InvalidRequestError("the client is closed")
        return await watch_shard(activities, job)

    monkeypatch.setattr(Activities, "_new_shard", failing)
    stage.emulator.script(ENDS, assistant_id="asst_1")
    run = await stage.new_run()
    async with stage.worker(tools=bench.tools) as temporal:
        assert [each.outcome for each in await result_of(await start(stage, temporal, [run]))] == ["Completed"]
    assert failed == 2


@pytest.mark.slow
async def test_a_shard_waits_for_a_worker_with_its_toolset(
    stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "NOT_BEGUN_S", 0.2)
    monkeypatch.setattr(shard, "TO_START", timedelta(seconds=1))
    stage.emulator.script(Scenario(queued=0.0, working=0.05, rounds=((WEATHER,),)), assistant_id="asst_1")
    stage.emulator.script(ENDS, assistant_id="asst_2")
    runs = [await stage.new_run(), await stage.new_run("asst_2")]
    async with stage.worker(on_outcome=bench.tell) as temporal:
        shards = await start(stage, temporal, runs, tools="weather")
        async with asyncio.timeout(60):
            while not bench.told:
                await asyncio.sleep(0.05)
    weather = Toolset([bench.get_weather], name="weather")
    async with stage.worker(toolsets=[weather], on_outcome=bench.tell):
        assert {each.outcome for each in await result_of(shards, 40)} == {"Completed"}
    assert set(bench.begun.values()) == {1}


async def test_observers_answer_nothing(stage: Stage, bench: Bench) -> None:
    stage.emulator.script(Scenario(queued=0.0, working=0.05, rounds=((WEATHER,),)), assistant_id="asst_1")
    stage.emulator.script(Scenario(queued=0.0, working=0.05, rounds=((WEATHER,),)), model="gpt")
    run, response = await stage.new_run(), await stage.new_response()
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        shards = await start(stage, temporal, [run, response], observe_only=True)
        async with asyncio.timeout(60):
            while RunRef.of(response) not in bench.told:
                await asyncio.sleep(0.05)
        found: Any = await stage.client.threads.runs.retrieve(run.id, thread_id=run.thread_id)
        action = found.required_action
        call_id = action.submit_tool_outputs.tool_calls[0].id
        await stage.client.threads.runs.submit_tool_outputs(
            run.id, thread_id=run.thread_id, tool_outputs=[{"tool_call_id": call_id, "output": "sunny"}]
        )
        ended = {each.ref: each.outcome for each in await result_of(shards)}
    assert ended == {RunRef.of(run): "Completed", RunRef.of(response): "NeedsCaller"}
    assert not bench.begun


# Large values


@pytest.mark.slow
async def test_a_run_with_large_calls_ends_alone(stage: Stage, bench: Bench) -> None:
    large = FunctionCall("get_weather", {"city": "x" * 800_000})
    stage.emulator.script(Scenario(queued=0.0, working=0.05, rounds=((large,),)), assistant_id="asst_1")
    stage.emulator.script(TWO_ROUNDS, assistant_id="asst_2")
    runs = [await stage.new_run(), await stage.new_run("asst_2")]
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        ended = {each.ref: each for each in await result_of(await start(stage, temporal, runs))}
    assert ended[RunRef.of(runs[1])].outcome == "Completed"
    broken = ended[RunRef.of(runs[0])]
    assert (broken.outcome, broken.reason) == ("GaveUp", Reason.BROKE.value)
    assert "can be passed on in a shard" in broken.cause


@pytest.mark.slow
async def test_the_outputs_of_a_round_share_a_payload(stage: Stage) -> None:
    tools = Toolset()

    @tools.tool
    async def get_weather(city: str) -> str:
        """Return a long text."""
        return "x" * (LARGEST_OUTPUTS // 2 - 100 if city == "Rome" else LARGEST_OUTPUTS // 2 + 100)

    asked = ((WEATHER, FunctionCall("get_weather", {"city": "Oslo"})), (WEATHER, WEATHER))
    stage.emulator.script(Scenario(queued=0.0, working=0.05, rounds=asked), assistant_id="asst_1")
    runs = [await stage.new_run() for _ in range(2)]
    async with stage.worker(tools=tools) as temporal:
        ended = await result_of(await start(stage, temporal, runs))
    assert [each.outcome for each in ended] == ["Completed"] * 2
    for run in runs:
        first, second = stage.emulator.submitted(run.id)
        assert sorted(map(len, first.values()))[1] == LARGEST_OUTPUTS // 2 - 100
        assert any("more than the 300000 that can be passed on" in text for text in first.values())
        assert sum(map(len, second.values())) == LARGEST_OUTPUTS - 200


async def test_large_outputs_that_are_left_to_the_caller_are_told(stage: Stage) -> None:
    tools = Toolset(if_unknown_tool="surface")
    told: list[AnyOutcome[Any]] = []

    @tools.tool
    async def get_weather(city: str) -> str:
        """Return a long text."""
        return "x" * (LARGEST_OUTPUTS // 2 - 100)

    elsewhere = FunctionCall("elsewhere", {"text": "x" * 100_000})
    stage.emulator.script(Scenario(queued=0.0, working=0.05, rounds=((WEATHER, elsewhere),)), assistant_id="asst_1")
    run = await stage.new_run()
    async with stage.worker(tools=tools, on_outcome=told.append) as temporal:
        (ended,) = await result_of(await start(stage, temporal, [run]))
    assert (ended.outcome, ended.token) == ("NeedsCaller", None)
    assert [len(text) for _, text in told[0].outputs] == [LARGEST_OUTPUTS // 2 - 100]
    assert told[0].token  # it is too large for the shard to keep


@pytest.mark.slow
async def test_a_person_s_answer_that_is_too_large_is_refused(stage: Stage, bench: Bench) -> None:
    stage.emulator.script(Scenario(queued=0.0, working=0.05, rounds=((REFUND, WEATHER),)), assistant_id="asst_1")
    run = await stage.new_run()
    async with stage.worker(tools=bench.tools) as temporal:
        shards = await start(stage, temporal, [run], people=["refund"])
        (call,) = await opened(temporal, shards.handles[0].id)
        with pytest.raises(InvalidRequestError, match="may have 300000: shorten it"):
            await answer_call(temporal, shards.handles[0].id, call, "x" * 300_001)
        await answer_call(temporal, shards.handles[0].id, call, "x" * 200_000)
        assert [each.outcome for each in await result_of(shards)] == ["Completed"]


# Many calls


@pytest.mark.slow
async def test_a_workflow_runs_so_many_tools_at_a_time(
    stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "MOST_TOOLS_AT_ONCE", 2)
    tools, running, most = Toolset(), 0, 0

    @tools.tool
    async def get_weather(city: str, context: ToolContext[None]) -> str:
        """Return the weather in a city."""
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1
        return f"sunny in {city}"

    asked = ((WEATHER, WEATHER), (WEATHER,))
    stage.emulator.script(Scenario(queued=0.0, working=0.05, rounds=asked), assistant_id="asst_1")
    runs = [await stage.new_run() for _ in range(3)]
    async with stage.worker(tools=tools) as temporal:
        assert [each.outcome for each in await result_of(await start(stage, temporal, runs))] == ["Completed"] * 3
    assert most == 2


# Long histories


@pytest.mark.slow
async def test_a_slow_tool_holds_up_a_new_history_and_no_other_run(
    stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard.ShardWorkflow, "_is_long", lambda workflow: True)
    monkeypatch.setattr(shard.ShardWorkflow, "_may_begin_anew", lambda workflow: False)  # so that all is in one
    monkeypatch.setattr(shard, "PAUSE_S", 0.3)
    bench.pause = 6.0
    stage.emulator.script(Scenario(queued=0.0, working=0.0, rounds=((WEATHER,),)), assistant_id="asst_1")
    stage.emulator.script(Scenario(queued=0.0, working=1.0, rounds=((WEATHER,),)), assistant_id="asst_2")
    runs = [await stage.new_run(), await stage.new_run("asst_2")]
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        shards = await start(stage, temporal, runs)
        async with asyncio.timeout(60):
            while len(bench.begun) < 2:
                await asyncio.sleep(0.05)
        assert not bench.told  # the first tool has not ended
        assert [each.outcome for each in await result_of(shards)] == ["Completed"] * 2
        assert await number_of(WATCH_SHARD, shards) < 10


async def lengths(temporal: TemporalClient, shards: Shards) -> list[int]:
    """Return how many events each history of a shard has."""
    name = shards.handles[0].id
    found = [each async for each in temporal.list_workflows(f'WorkflowId="{name}"')]
    histories = [temporal.get_workflow_handle(name, run_id=each.run_id).fetch_history() for each in found]
    return [len((await history).events) for history in histories]


@pytest.mark.slow
async def test_calls_begin_only_if_their_history_has_room_for_what_they_add(
    stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "MOST_EVENTS", 60)
    stage.emulator.script(Scenario(queued=0.0, working=0.1, rounds=((WEATHER, WEATHER),)), assistant_id="asst_1")
    runs = [await stage.new_run() for _ in range(20)]
    async with stage.worker(tools=bench.tools) as temporal:
        shards = await start(stage, temporal, runs)
        assert [each.outcome for each in await result_of(shards)] == ["Completed"] * 20
        assert max(await lengths(temporal, shards)) < 100
    assert len(bench.begun) == 40
    assert set(bench.begun.values()) == {1}


@pytest.mark.slow
async def test_a_full_history_that_can_have_no_next_one_gives_runs_up(
    stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "MOST_EVENTS", 20)
    monkeypatch.setattr(shard, "LARGEST_HISTORY_INPUT", 0)
    stage.emulator.script(Scenario(queued=0.0, working=0.1, rounds=((REFUND, WEATHER),)), assistant_id="asst_1")
    runs = [await stage.new_run() for _ in range(3)]
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        shards = await start(stage, temporal, runs, people=["refund"])
        async with asyncio.timeout(60):
            while len(bench.told) + len(waiting := await open_calls(temporal, shards.handles[0].id)) < 3:
                await asyncio.sleep(0.1)
        for each in waiting:
            await answer_call(temporal, shards.handles[0].id, each, "done")
        ended = await result_of(shards)
    given_up = [each for each in ended if each.outcome == "GaveUp"]
    assert 1 <= len(given_up) <= 2
    assert given_up[0].reason == "broke"
    assert "too large" in given_up[0].cause
    assert given_up[0].token is not None
    assert given_up[0].token.record is not None
    assert [call.output for call in given_up[0].token.record.calls] == ["sunny in Rome"]  # it need not run again
    assert set(bench.told) == set(map(RunRef.of, runs))


@pytest.mark.slow
async def test_a_full_history_begins_no_calls(stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "MOST_EVENTS", 30)
    bench.pause = 0.5
    for number in range(4):
        scenario = Scenario(queued=0.0, working=0.2 * number, rounds=((WEATHER,),))
        stage.emulator.script(scenario, assistant_id=f"asst_{number}")
    runs = [await stage.new_run(f"asst_{number}") for number in range(4)]
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        shards = await start(stage, temporal, runs)
        assert [each.outcome for each in await result_of(shards)] == ["Completed"] * 4
        assert len([each async for each in temporal.list_workflows(f'WorkflowId="{shards.handles[0].id}"')]) > 1
    assert len(bench.begun) == 4
    assert set(bench.begun.values()) == {1}
    assert set(bench.told) == set(map(RunRef.of, runs))


# Leaving


@pytest.mark.slow
async def test_a_shard_that_is_cancelled_cancels_runs_in_every_state(stage: Stage, bench: Bench) -> None:
    bench.pause = 60.0
    never = Scenario(end="never", cancelling=0.05)
    asks = Scenario(queued=0.0, working=0.05, cancelling=0.05, rounds=((WEATHER,),))
    asks_people = Scenario(queued=0.0, working=0.05, cancelling=0.05, rounds=((REFUND, WEATHER),))
    for number, scenario in enumerate((never, asks, asks_people)):
        stage.emulator.script(scenario, assistant_id=f"asst_{number}")
    runs = [await stage.new_run(f"asst_{number}") for number in range(3)]
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell) as temporal:
        shards = await start(stage, temporal, runs, people=["refund"], on_exit="cancel", heartbeat_timeout=1.0)
        await opened(temporal, shards.handles[0].id)
        async with asyncio.timeout(60):
            while len(bench.begun) < 2:
                await asyncio.sleep(0.05)
        await shards.cancel()
        with pytest.raises(WorkflowFailureError):
            await result_of(shards)
        ended = (await shards.handles[0].query(STATE, result_type=ShardState)).ended
    for run in runs:
        found = await stage.client.threads.runs.retrieve(run.id, thread_id=run.thread_id)
        assert found.status == "cancelled"
    assert [each.outcome for each in ended] == ["Cancelled"] * 3
    assert set(bench.told) == set(map(RunRef.of, runs))


async def test_a_shard_that_is_cancelled_while_only_people_are_waited_for(stage: Stage, bench: Bench) -> None:
    asks = Scenario(queued=0.0, working=0.05, cancelling=0.05, rounds=((REFUND,),))
    stage.emulator.script(asks, assistant_id="asst_1")
    run = await stage.new_run()
    async with stage.worker(tools=bench.tools) as temporal:
        shards = await start(stage, temporal, [run], people=["refund"], on_exit="cancel")
        await opened(temporal, shards.handles[0].id)
        await asyncio.sleep(0.3)
        await shards.cancel()
        with pytest.raises(WorkflowFailureError):
            await result_of(shards)
    assert (await stage.client.threads.runs.retrieve(run.id, thread_id=run.thread_id)).status == "cancelled"


async def test_a_refused_cancel_does_not_hold_up_a_shard(
    stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_fleet, "REFUSED_S", 0.3)
    stage.emulator.inject(Fault(on="cancel", status=403, times=None))
    stage.emulator.script(Scenario(end="never"), assistant_id="asst_1")
    run = await stage.new_run()
    async with stage.worker(tools=bench.tools) as temporal:
        shards = await start(stage, temporal, [run], on_exit="cancel", heartbeat_timeout=1.0)
        await until_polled(stage)
        await shards.cancel()
        with pytest.raises(WorkflowFailureError):
            await result_of(shards)
        (ended,) = (await shards.handles[0].query(STATE, result_type=ShardState)).ended
    assert ended.outcome == "GaveUp"
    assert "403" in ended.cause


@pytest.mark.slow
async def test_a_shard_that_is_cancelled_is_polled_no_more(stage: Stage, bench: Bench) -> None:
    stage.emulator.script(Scenario(end="never"), assistant_id="asst_1")
    run = await stage.new_run()
    async with stage.worker(tools=bench.tools) as temporal:
        shards = await start(stage, temporal, [run], heartbeat_timeout=1.0)
        await until_polled(stage)
        await shards.cancel()
        with pytest.raises(WorkflowFailureError):
            await result_of(shards)
        await asyncio.sleep(1.5)  # the worker learns of it by a heartbeat
        polls = await until_polled(stage)
        await asyncio.sleep(2.0)
        assert await until_polled(stage) == polls


async def until_polled(stage: Stage) -> int:
    """Wait until runs were polled, and return how often."""
    async with asyncio.timeout(60):
        while not (polls := sum(each.operation == "poll" for each in stage.emulator.requests)):
            await asyncio.sleep(0.05)
    return polls


def test_the_runs_of_a_cancelled_shard_share_its_budget() -> None:
    workflow = shard.ShardWorkflow()
    workflow._begin_with(Shard(runs=[], per_second=80.0))
    workflow._name = "s"
    assert workflow._job_to_cancel(0, 8, []).per_second == 10.0


# Responses


@pytest.mark.slow
@pytest.mark.parametrize("grace", [10.0, 0.001])
async def test_responses_lose_nothing_when_their_worker_is_replaced(
    stage: Stage, bench: Bench, monkeypatch: pytest.MonkeyPatch, grace: float
) -> None:
    monkeypatch.setattr(shard, "TO_START", timedelta(seconds=1))
    bench.pause = 0.3
    asked = ((WEATHER, WEATHER), (WEATHER,), (WEATHER,))
    stage.emulator.script(Scenario(queued=0.0, working=0.1, rounds=asked), model="gpt")
    made = [await stage.new_response(tools=bench.tools.definitions(wire="responses")) for _ in range(4)]
    options = {"graceful_shutdown_timeout": timedelta(seconds=grace)}
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell, worker=options) as temporal:
        shards = await start(stage, temporal, made, heartbeat_timeout=1.0, on_lost_submit="resend")
        async with asyncio.timeout(60):
            while len(bench.begun) < 8:  # all have begun the first round, and some perhaps the second
                await asyncio.sleep(0.02)
    async with stage.worker(tools=bench.tools, on_outcome=bench.tell):
        ended = await result_of(shards, 60)
    assert [each.outcome for each in ended] == ["Completed"] * 4
    assert len(bench.begun) == 4 * 4
    assert set(bench.begun.values()) == {1}
    assert len(bench.told) == 4
