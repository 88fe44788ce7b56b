"""Faults as in a user's test: a client watches in spite of them, and the emulator counts what the server did."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import pytest

from asyncruns import (
    APIConnectionError,
    Cancelled,
    Client,
    Completed,
    Expired,
    GaveUp,
    NeedsCaller,
    RunWatcher,
    Toolset,
)
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario

ROUND = (FunctionCall("f", {"n": 1}), FunctionCall("f", {"n": 2}))


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    async with Client(emulator.base_url) as client:
        yield client


def done(emulator: Emulator, operation: str) -> int:
    """Return how often the server performed an operation, whatever the answer was."""
    return sum(seen.acted for seen in emulator.requests if seen.operation == operation)


def counting() -> tuple[Toolset, list[int]]:
    ran: list[int] = []

    async def f(n: int) -> str:
        ran.append(n)
        return str(n)

    return Toolset([f]), ran


@pytest.mark.parametrize(
    "fault",
    [
        Fault(on="poll", status=500, times=10),
        Fault(on="poll", status=502, times=10),
        Fault(on="poll", status=429, headers={"Retry-After": "2"}, times=10),
        Fault(on="poll", status=429, headers={"Retry-After": "1"}, every=2, times=None),
        Fault(on="poll", status=404, times=1),
        Fault(on="poll", drop=True, times=10),
        Fault(on="poll", drop=True, every=2, times=None),
        Fault(on="poll", damage="html", times=10),
        Fault(on="poll", damage="empty", times=10),
        Fault(on="poll", damage="half", times=10),
        Fault(on="poll", damage="cut", times=10),
        Fault(on="poll", damage="repeat", times=10),
        Fault(on="poll", body=b"\xff\xfe", times=10),
        Fault(on="poll", stale=2, times=10),
        Fault(on="poll", delay_before=5, delay_after=5, times=2),
        Fault(on="poll", rewrite=lambda body: {**body, "status": "thinking"}, times=2),
        Fault(on="poll", rewrite=lambda body: {**body, "required_action": {}}, times=3),
        Fault(headers={"Date": "Thu, 01 Jan 1970 00:00:00 GMT"}, times=None),
    ],
    ids=lambda fault: "-".join(f"{k}={v}" for k, v in vars(fault).items() if k in ("status", "damage", "times") and v),
)
async def test_a_watch_gets_through_and_runs_each_call_once(emulator: Emulator, client: Client, fault: Fault) -> None:
    emulator.script(Scenario(rounds=(ROUND, ROUND), reuse_call_ids=False), assistant_id="asst_1")
    emulator.inject(fault)
    tools, ran = counting()
    outcome = await client.run(assistant_id="asst_1", message="Go", tools=tools)
    assert isinstance(outcome, Completed)
    assert sorted(ran) == [1, 1, 2, 2]
    assert done(emulator, "submit") == 2
    assert emulator.faults[0].struck > 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault(on="submit", drop=True),
        Fault(on="submit", drop=True, acts=True),
        Fault(on="submit", status=500),
        Fault(on="submit", status=500, acts=True),
        Fault(on="submit", status=502, acts=True),
        Fault(on="submit", status=429),
        Fault(on="submit", damage="html", acts=True),
        Fault(on="submit", damage="cut"),
        Fault(on="submit", delay_after=3),
    ],
)
async def test_a_submit_whose_answer_went_wrong_takes_effect_once(
    emulator: Emulator, client: Client, fault: Fault
) -> None:
    emulator.script(Scenario(rounds=(ROUND,)), assistant_id="asst_1")
    emulator.inject(fault)
    tools, ran = counting()
    outcome = await client.run(assistant_id="asst_1", message="Go", tools=tools)
    assert isinstance(outcome, Completed)
    assert sorted(ran) == [1, 2]
    assert done(emulator, "submit") == 1
    assert len(emulator.submitted(outcome.run.id)) == 1


async def test_a_lost_answer_to_a_create_leaves_a_run(emulator: Emulator, client: Client) -> None:
    emulator.script(Scenario(), assistant_id="asst_1")
    emulator.inject(Fault(on="create_run", drop=True, acts=True, times=2))
    with pytest.raises(APIConnectionError):
        await client.run(assistant_id="asst_1", message="Go", adopt=False)
    assert (len(emulator.runs), done(emulator, "create_run")) == (1, 1)
    assert isinstance(await client.run(assistant_id="asst_1", message="Go"), Completed)
    assert (len(emulator.runs), done(emulator, "create_run")) == (2, 2)


async def test_a_cancel_may_be_refused(emulator: Emulator, client: Client) -> None:
    emulator.script(Scenario(queued=5, working=5), assistant_id="asst_1")
    emulator.inject(Fault(on="cancel", status=400, message="Cannot cancel run with status 'completed'."))
    thread = await client.threads.create()
    run = await client.threads.runs.create(thread.id, assistant_id="asst_1")
    async with RunWatcher(client, run) as watcher:
        await asyncio.sleep(1)
        await watcher.cancel_run()
        assert isinstance(await watcher.wait(), Completed)
    assert done(emulator, "cancel") == 0


async def test_a_cancel_may_take_a_while(emulator: Emulator, client: Client) -> None:
    emulator.script(Scenario(end="never", cancelling=3), assistant_id="asst_1")
    emulator.inject(Fault(on="cancel", delay_before=2, delay_after=2))
    thread = await client.threads.create()
    run = await client.threads.runs.create(thread.id, assistant_id="asst_1")
    async with RunWatcher(client, run) as watcher:
        await asyncio.sleep(1)
        await watcher.cancel_run()
        assert isinstance(await watcher.wait(), Cancelled)
    assert done(emulator, "cancel") == 1


async def test_a_worker_may_never_start(emulator: Emulator, client: Client) -> None:
    emulator.script(Scenario(queued=math.inf), assistant_id="asst_1")
    assert isinstance(await client.run(assistant_id="asst_1", message="Go", timeout=60), GaveUp)
    emulator.script(Scenario(queued=math.inf, lifetime=30), assistant_id="asst_1")
    assert isinstance(await client.run(assistant_id="asst_1", message="Go"), Expired)


async def test_a_call_of_another_type_is_for_the_caller(emulator: Emulator, client: Client) -> None:
    def ask_for_approval(body: dict[str, object]) -> dict[str, object]:
        if body["status"] != "requires_action":
            return body
        approval = {"id": "call_1", "type": "mcp", "name": "drop_table", "arguments": "{}", "server_label": "db"}
        return {
            **body,
            "required_action": {
                "type": "submit_tool_approval",
                "submit_tool_approval": {"tool_calls": [approval]},
            },
        }

    emulator.script(Scenario(rounds=(ROUND,)), assistant_id="asst_1")
    emulator.inject(Fault(on="poll", rewrite=ask_for_approval, times=None))
    tools, ran = counting()
    outcome = await client.run(assistant_id="asst_1", message="Go", tools=tools)
    assert isinstance(outcome, NeedsCaller)
    assert ran == []


@pytest.mark.parametrize("skew", [-86400.0, 86400.0])
async def test_a_servers_wrong_clock_does_not_end_the_watch(skew: float) -> None:
    async with Emulator(Scenario(working=300), clock_skew=skew) as emulator, Client(emulator.base_url) as client:
        emulator.script(Scenario(working=300), assistant_id="asst_1")
        outcome = await client.run(assistant_id="asst_1", message="Go")
    assert isinstance(outcome, Completed)
    assert outcome.elapsed == pytest.approx(300, rel=0.2)


async def test_a_watch_outlives_a_restart_of_the_server() -> None:
    async with Emulator() as other:
        port = int(other.base_url.split(":")[2].split("/")[0])
    emulator = Emulator(port=port)
    emulator.script(Scenario(working=20, rounds=(ROUND,)), assistant_id="asst_1")
    tools, ran = counting()
    await emulator.start()
    async with Client(emulator.base_url) as client:
        waiting = asyncio.create_task(client.run(assistant_id="asst_1", message="Go", tools=tools))
        for _ in range(3):
            await asyncio.sleep(7)
            await emulator.stop()
            await asyncio.sleep(7)
            await emulator.start()
        assert isinstance(await waiting, Completed)
    await emulator.stop()
    assert sorted(ran) == [1, 2]
