"""Findings of `test_stateful.py` in their shortest form: one more poll shows that the run has not ended."""

from __future__ import annotations

import asyncio
import math

from shells import Shell, watched

from asyncruns import Client, Completed, Expired, Toolset
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario


async def test_a_round_that_another_client_answered_does_not_end_the_watch(shell: Shell, emulator: Emulator) -> None:
    """The server asks for the calls of the next round: `Expected tool outputs for call_ids [...], got [...]`."""

    def taking(*seconds: float) -> Toolset:
        async def f(n: int) -> str:
            await asyncio.sleep(seconds[n])
            return str(n)

        return Toolset([f])

    emulator.script(Scenario(rounds=tuple((FunctionCall("f", {"n": n}),) for n in range(2))), assistant_id="asst_1")
    async with Client(emulator.base_url) as client:
        thread = await client.threads.create()
        run = await client.threads.runs.create(thread.id, assistant_id="asst_1")
        await asyncio.sleep(1.0)  # both see the first round at once
        first, second = await asyncio.gather(
            watched(shell, client, run, tools=taking(0.0, 10.0)), watched(shell, client, run, tools=taking(1.8, 0.0))
        )
    assert isinstance(first, Completed)
    assert isinstance(second, Completed)


async def test_a_replica_that_lags_does_not_end_the_watch_if_another_has_the_run(emulator: Emulator) -> None:
    emulator.script(Scenario(), assistant_id="asst_1")
    emulator.inject(Fault(on="poll", stale=2.0, skip=1))
    async with Client(emulator.base_url) as client:
        assert isinstance(await client.run(assistant_id="asst_1", message="Go"), Completed)


async def test_a_late_submit_whose_refusal_was_cut_does_not_end_the_watch_before_a_poll(
    shell: Shell, emulator: Emulator
) -> None:
    async def f() -> str:
        return "out"

    emulator.script(Scenario(rounds=((FunctionCall("f"),),), lifetime=8.0), assistant_id="asst_1")
    async with Client(emulator.base_url) as client:
        thread = await client.threads.create()
        run = await client.threads.runs.create(thread.id, assistant_id="asst_1")
        await asyncio.sleep(1.0)
        emulator.inject(Fault(on="submit", damage="half", delay_before=10.0))
        emulator.inject(Fault(on="poll", delay_after=math.inf, skip=1))  # otherwise a poll shows the end first
        assert isinstance(await watched(shell, client, run, tools=Toolset([f])), Expired)
