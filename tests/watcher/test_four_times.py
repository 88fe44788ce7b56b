"""The times of a watch are independent: the server's hints, the watch, a request, a tool, and the run's own expiry."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import anyio
import pytest
from scripted import ok, run_body, scene
from shells import Shell

from asyncruns import Cadence, Client, Completed, Expired, GaveUp, Reason, Toolset
from asyncruns.http import Response
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario

NOON = 1_770_000_000
ROUNDING_S = 1e-6

HINTS: tuple[tuple[dict[str, str], float], ...] = (
    ({"openai-poll-after-ms": "7500.5"}, 7.5005),
    ({"retry-after": "0"}, 0.05),
    ({"retry-after-ms": "2500"}, 2.5),
    ({"retry-after": "-3"}, 0.05),
    ({"x-ms-retry-after-ms": "4000"}, 4.0),
    ({"retry-after": "86400"}, 60.0),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after": formatdate(NOON + 9, usegmt=True), "date": formatdate(NOON, usegmt=True)}, 9.0),
    ({}, 1.0),
)


async def test_each_poll_waits_for_as_long_as_the_answer_before_it_hinted(shell: Shell) -> None:
    body = json.dumps(run_body("in_progress")).encode()
    stage = scene(*[Response(200, headers, body) for headers, _ in HINTS], ok("completed"))
    async with shell(stage, stage.ref, timeout=None) as watcher:
        assert isinstance(await watcher.wait(), Completed)
    times = stage.transport.times("poll")
    for (_, pause), before, after in zip(HINTS, times, times[1:], strict=False):
        assert pause - ROUNDING_S <= after - before - 0.01 <= 1.1 * pause + 0.001
    assert len(times) == len(HINTS) + 1


async def test_a_watch_that_slept_past_the_deadline_polls_once_more(shell: Shell) -> None:
    asleep = False
    stage = scene(lambda: ok("completed" if asleep else "in_progress"))
    loop: Any = asyncio.get_running_loop()
    async with shell(stage, stage.ref, timeout=60.0) as watcher:
        await anyio.sleep(10.0)
        asleep = True
        loop._virtual.now += 10_000.0  # the laptop's lid was closed
        assert isinstance(await watcher.wait(), Completed)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    async with Client(emulator.base_url, request_timeout=5.0) as client:
        yield client


@pytest.mark.parametrize(("timeout", "end", "seconds"), [(None, Expired, 100.0), (50.0, GaveUp, 50.0)])
async def test_none_of_the_four_times_replaces_another(
    emulator: Emulator, client: Client, timeout: float | None, end: type[Any], seconds: float
) -> None:
    async def slow() -> None:
        await anyio.sleep(1000.0)

    emulator.script(Scenario(rounds=((FunctionCall("slow"),),), end="never", lifetime=100.0), assistant_id="asst_1")
    emulator.inject(Fault(on="poll", delay_before=60.0))  # ends this request after 5 s, but not the watch
    outcome = await client.run(
        assistant_id="asst_1", message="Go", tools=Toolset([slow], timeout=20.0), timeout=timeout
    )
    assert isinstance(outcome, end)
    assert outcome.elapsed == pytest.approx(seconds, abs=2.0)
    first, second = [seen.at for seen in emulator.requests if seen.operation == "poll"][:2]
    assert 5.0 <= second - first < 7.0
    assert outcome.run is not None
    (round_,) = emulator.submitted(outcome.run.id)
    assert all("did not finish within 20 seconds" in output for output in round_.values())


async def test_the_time_of_the_tools_counts_for_the_expiry(emulator: Emulator, client: Client) -> None:
    async def slow() -> str:
        await anyio.sleep(350.0)
        return "done"

    calls = (FunctionCall("slow"),)
    emulator.script(Scenario(rounds=(calls, calls)), assistant_id="asst_1")
    outcome = await client.run(assistant_id="asst_1", message="Go", tools=Toolset([slow]))
    assert isinstance(outcome, Completed)
    first, second = [list(round_.values()) for round_ in emulator.submitted(outcome.run.id)]
    assert first == ["done"]
    assert "in time" in second[0]
    assert outcome.elapsed == pytest.approx(595.0, abs=3.0)


@pytest.mark.parametrize("shown", [{}, {"expires_at": None}], ids=["absent", "null"])
async def test_a_run_without_an_expiry_is_watched_for_a_quarter_of_an_hour(
    emulator: Emulator, client: Client, shown: dict[str, None]
) -> None:
    def without(body: dict[str, Any]) -> dict[str, Any]:
        return {**{name: value for name, value in body.items() if name != "expires_at"}, **shown}

    emulator.script(Scenario(queued=math.inf, lifetime=5000.0), assistant_id="asst_1")
    emulator.inject(Fault(on="poll", rewrite=without, times=None))
    outcome = await client.run(assistant_id="asst_1", message="Go", cadence=Cadence.fixed(30.0))
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.TIMEOUT
    assert outcome.elapsed == pytest.approx(900.0, abs=1.0)
