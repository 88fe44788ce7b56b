"""How faults change the effects of requests: performed or not, late, seen late, or delayed when the emulator stops."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario

Ask = Callable[..., Awaitable[tuple[int, Any]]]
TWO_ROUNDS = ((FunctionCall("f"), FunctionCall("g")), (FunctionCall("f"), FunctionCall("g")))


async def begin(emulator: Emulator, ask: Ask, scenario: Scenario) -> str:
    emulator.script(scenario, assistant_id="asst_1")
    _, run = await ask("POST", "/threads/runs", {"assistant_id": "asst_1"})
    return f"/threads/{run['thread_id']}/runs/{run['id']}"


def call_ids(run: dict[str, Any]) -> list[str]:
    return [call["id"] for call in run["required_action"]["submit_tool_outputs"]["tool_calls"]]


def outputs(ids: list[str]) -> dict[str, Any]:
    return {"tool_outputs": [{"tool_call_id": id, "output": "x"} for id in ids]}


@pytest.mark.parametrize(
    ("fault", "acted"),
    [
        (Fault(drop=True), False),
        (Fault(drop=True, acts=True), True),
        (Fault(drop=True, delay_before=3), False),
        (Fault(drop=True, acts=True, delay_after=3), True),
    ],
)
async def test_a_connection_is_dropped_before_or_after_the_effect(
    emulator: Emulator, ask: Ask, caplog: pytest.LogCaptureFixture, fault: Fault, acted: bool
) -> None:
    path = await begin(emulator, ask, Scenario(queued=math.inf, cancelling=math.inf))
    emulator.inject(fault)
    with caplog.at_level(logging.INFO), pytest.raises(aiohttp.ClientConnectionError):
        await ask("POST", f"{path}/cancel")
    assert caplog.records == []
    seen = emulator.requests[-1]
    assert (seen.status, seen.acted, seen.fault) == (0, acted, fault)
    assert (await ask("GET", path))[1]["status"] == ("cancelling" if acted else "queued")


@pytest.mark.parametrize("status", [500, 502])
@pytest.mark.parametrize("acts", [False, True])
@pytest.mark.parametrize("damage", [None, "html", "empty"])
async def test_an_error_is_answered_before_or_after_the_effect(
    emulator: Emulator, ask: Ask, status: int, acts: bool, damage: Any
) -> None:
    path = await begin(emulator, ask, Scenario(queued=math.inf, cancelling=math.inf))
    emulator.inject(Fault(on="cancel", status=status, acts=acts, damage=damage))
    async with aiohttp.ClientSession() as session, session.post(f"{emulator.base_url}{path}/cancel") as response:
        assert response.status == status
    assert emulator.requests[-1].acted is acts
    assert (await ask("GET", path))[1]["status"] == ("cancelling" if acts else "queued")


async def test_a_refused_request_has_no_effect(emulator: Emulator, ask: Ask) -> None:
    emulator.inject(Fault(status=500, acts=True))
    assert (await ask("GET", "/threads/thread_none"))[0] == 500
    assert not emulator.requests[0].acted


async def test_every_third_submit_is_accepted_and_its_answer_lost(emulator: Emulator, ask: Ask) -> None:
    emulator.inject(Fault(on="submit", drop=True, acts=True, every=3, times=None))
    for number in range(6):
        path = await begin(emulator, ask, Scenario(rounds=TWO_ROUNDS[:1]))
        await asyncio.sleep(1)
        _, run = await ask("GET", path)
        try:
            answered = (await ask("POST", f"{path}/submit_tool_outputs", outputs(call_ids(run))))[0]
        except aiohttp.ClientConnectionError:
            answered = 0
        assert answered == (0 if number % 3 == 2 else 200)
        assert len(emulator.submitted(run["id"])) == 1


async def test_a_request_that_arrives_late_acts_late(emulator: Emulator, ask: Ask) -> None:
    loop = asyncio.get_running_loop()
    emulator.inject(Fault(on="create_thread", delay_before=5), Fault(on="create_thread", delay_after=5))
    start = loop.time()
    _, before = await ask("POST", "/threads")
    assert loop.time() - start == pytest.approx(5, abs=0.01)
    _, after = await ask("POST", "/threads")
    assert loop.time() - start == pytest.approx(10, abs=0.01)
    # The second thread was created at the same moment as the first; then its answer was delayed.
    assert before["created_at"] == after["created_at"]
    assert [seen.at - start for seen in emulator.requests] == pytest.approx([0, 5], abs=0.01)


async def test_answers_may_arrive_out_of_order(emulator: Emulator, ask: Ask) -> None:
    path = await begin(emulator, ask, Scenario(queued=1, working=1))
    emulator.inject(Fault(on="poll", delay_after=4))
    got: list[str] = []

    async def poll(after: float) -> None:
        await asyncio.sleep(after)
        got.append((await ask("GET", path))[1]["status"])

    await asyncio.gather(poll(0), poll(1), poll(2))
    assert got == ["in_progress", "completed", "queued"]
    assert [seen.status for seen in emulator.requests[1:]] == [200, 200, 200]


@pytest.mark.parametrize("drop", [False, True])
async def test_a_request_takes_effect_although_its_client_has_gone(emulator: Emulator, drop: bool) -> None:
    emulator.inject(Fault(delay_before=5, drop=drop, acts=drop))
    async with aiohttp.ClientSession() as session:
        with pytest.raises(asyncio.TimeoutError):
            await session.post(f"{emulator.base_url}/threads", timeout=aiohttp.ClientTimeout(1))
        assert [(seen.acted, seen.status) for seen in emulator.requests] == [(False, 0)]
        await asyncio.sleep(5)
        assert emulator.requests[0].acted


@pytest.mark.parametrize("client_leaves", [False, True])
@pytest.mark.parametrize("fault", [Fault(delay_before=60), Fault(delay_after=math.inf)])
@pytest.mark.real_time
async def test_a_stop_does_not_wait_for_delayed_requests(
    caplog: pytest.LogCaptureFixture, fault: Fault, client_leaves: bool
) -> None:
    others = asyncio.all_tasks()
    emulator = Emulator()
    await emulator.start()
    emulator.inject(fault)
    async with aiohttp.ClientSession() as session:
        asking = asyncio.create_task(session.post(f"{emulator.base_url}/threads"))
        while not emulator.requests:
            await asyncio.sleep(0.001)
        if client_leaves:
            asking.cancel()
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        with caplog.at_level(logging.INFO):
            await emulator.stop()
        assert time.perf_counter() - began < 0.2
        with pytest.raises((aiohttp.ClientConnectionError, asyncio.CancelledError)):
            await asking
    assert asyncio.all_tasks() == others
    assert caplog.records == []
    assert (emulator.requests[0].status, emulator.requests[0].acted) == (0, fault.delay_after > 0)


async def test_a_stale_poll_shows_the_run_as_it_was(emulator: Emulator, ask: Ask) -> None:
    path = await begin(emulator, ask, Scenario(queued=2, working=2, rounds=TWO_ROUNDS))
    shown = []
    for second in range(9):
        emulator.inject(Fault(on="poll", stale=3))
        stale = await ask("GET", path)
        now = await ask("GET", path)
        shown.append((stale[1].get("status", stale[0]), now[1]["status"]))
        if second == 4:
            await ask("POST", f"{path}/submit_tool_outputs", outputs(call_ids(now[1])))
        await asyncio.sleep(1)
    assert shown == [
        (404, "queued"),
        (404, "queued"),
        (404, "in_progress"),
        ("queued", "in_progress"),
        ("queued", "requires_action"),  # just submitted
        ("in_progress", "queued"),
        ("in_progress", "in_progress"),
        ("queued", "in_progress"),
        ("queued", "requires_action"),
    ]


async def test_a_stale_poll_shows_the_calls_of_the_round_before(emulator: Emulator, ask: Ask) -> None:
    path = await begin(emulator, ask, Scenario(queued=0, working=1, rounds=TWO_ROUNDS))
    await asyncio.sleep(2)
    _, first = await ask("GET", path)
    await ask("POST", f"{path}/submit_tool_outputs", outputs(call_ids(first)))
    await asyncio.sleep(2)
    emulator.inject(Fault(on="poll", stale=2.5), Fault(on="steps", stale=2.5))
    (_, stale), (_, now) = [await ask("GET", path) for _ in range(2)]
    assert call_ids(stale) == call_ids(first) != call_ids(now)
    assert (stale["status"], stale["started_at"]) == ("requires_action", first["started_at"])
    steps = [(await ask("GET", f"{path}/steps"))[1]["data"] for _ in range(2)]
    assert [[step["status"] for step in listed] for listed in steps] == [["in_progress"], ["in_progress", "completed"]]
    with_old_ids = await ask("POST", f"{path}/submit_tool_outputs", outputs(call_ids(stale)))
    assert with_old_ids[0] == 400  # a stale poll has changed nothing


async def test_a_stale_poll_does_not_know_of_a_cancel(emulator: Emulator, ask: Ask) -> None:
    path = await begin(emulator, ask, Scenario(end="never", cancelling=0))
    await asyncio.sleep(5)
    await ask("POST", f"{path}/cancel")
    await asyncio.sleep(1)
    emulator.inject(Fault(on="poll", stale=2))
    assert [(await ask("GET", path))[1]["status"] for _ in range(2)] == ["in_progress", "cancelled"]


async def test_a_stale_list_lacks_what_is_new(emulator: Emulator, ask: Ask) -> None:
    path = await begin(emulator, ask, Scenario(queued=0.25, working=0.5))
    thread, run_id = path.split("/runs/")
    await asyncio.sleep(1)  # now it completed a quarter of a second ago
    emulator.inject(*(Fault(on=on, stale=0.5) for on in ("messages", "steps", "poll")), Fault(on="runs", stale=1.1))
    stale = {where: await ask("GET", where) for where in (f"{thread}/messages", f"{path}/steps", path)}
    assert [body.get("data", body.get("status")) for _, body in stale.values()] == [[], [], "in_progress"]
    assert (await ask("GET", f"{thread}/runs"))[0] == 404  # the thread does not exist yet either
    assert [run["id"] for run in (await ask("GET", f"{thread}/runs"))[1]["data"]] == [run_id]
    (message,) = (await ask("GET", f"{thread}/messages"))[1]["data"]
    emulator.inject(Fault(on="message", stale=0.5), Fault(on="thread", stale=2))
    where = f"{thread}/messages/{message['id']}"
    assert [(await ask("GET", where))[0] for _ in range(2)] == [404, 200]
    assert [(await ask("GET", thread))[0] for _ in range(2)] == [404, 200]


async def test_a_stale_list_of_runs_lacks_the_newest(emulator: Emulator, ask: Ask) -> None:
    path = await begin(emulator, ask, Scenario())
    runs, first = path.rsplit("/", 1)
    await asyncio.sleep(5)
    _, second = await ask("POST", runs, {"assistant_id": "asst_1"})
    emulator.inject(Fault(on="runs", stale=1))
    listed = [[run["id"] for run in (await ask("GET", runs))[1]["data"]] for _ in range(2)]
    assert listed == [[first], [second["id"], first]]


async def test_a_late_poll_into_the_past_changes_nothing(emulator: Emulator, ask: Ask) -> None:
    path = await begin(emulator, ask, Scenario())
    thread = path.split("/runs/")[0]
    await asyncio.sleep(10)
    emulator.inject(Fault(on="messages", stale=9.9, times=None))
    assert (await ask("GET", f"{thread}/messages"))[1]["data"] == []
    emulator.faults.clear()
    assert len((await ask("GET", f"{thread}/messages"))[1]["data"]) == 1


async def test_call_ids_may_be_the_same_in_every_round(emulator: Emulator, ask: Ask) -> None:
    path = await begin(emulator, ask, Scenario(rounds=TWO_ROUNDS, reuse_call_ids=True))
    for _ in TWO_ROUNDS:
        await asyncio.sleep(1)
        _, run = await ask("GET", path)
        assert call_ids(run) == ["call_0", "call_1"]
        assert (await ask("POST", f"{path}/submit_tool_outputs", outputs(call_ids(run))))[0] == 200
    assert len(emulator.submitted(path.rsplit("/", 1)[1])) == 2


async def test_it_starts_again_on_its_port_and_its_runs_have_continued() -> None:
    async with Emulator() as other:
        port = int(other.base_url.split(":")[2].split("/")[0])
    emulator = Emulator(port=port)
    emulator.script(Scenario(queued=5, working=5), assistant_id="asst_1")
    async with aiohttp.ClientSession() as session:
        async with emulator, session.post(f"{emulator.base_url}/threads/runs", json={"assistant_id": "asst_1"}) as made:
            run = await made.json()
        url = f"http://127.0.0.1:{port}/v1/threads/{run['thread_id']}/runs/{run['id']}"
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url)
        await asyncio.sleep(7)
        emulator.inject(Fault(on="poll", status=500))
        async with emulator:
            answers = []
            for _ in range(2):
                async with session.get(url) as response:
                    answers.append((response.status, await response.json()))
        assert [status for status, _ in answers] == [500, 200]
        assert (answers[1][1]["status"], answers[1][1]["created_at"]) == ("in_progress", run["created_at"])
        assert len(emulator.requests) == 3
