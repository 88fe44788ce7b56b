"""A run that was to be cancelled when the process died is cancelled by the one that goes on with it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import pytest

from asyncruns import Cancelled, Client, Fleet, RunWatcher
from asyncruns.journal.memory import MemoryJournal, MemoryStore
from asyncruns.lifecycle.records import CANCEL_STEP
from asyncruns.testing import Fault, InMemoryTransport, Scenario

ShellName = Literal["fleet", "single"]
shells = pytest.mark.parametrize("shell", ["fleet", "single"])
wires = pytest.mark.parametrize("wire", ["threads", "responses"])


class Setting:
    """A run that goes on for long, and a server whose answers to cancels are lost."""

    def __init__(self, wire: str) -> None:
        self.wire = wire
        self.transport = InMemoryTransport(latency=0.01)
        scenario = Scenario(working=300.0)
        self.transport.script(scenario, assistant_id="asst_1")
        self.transport.script(scenario, model="gpt-test")
        self.store = MemoryStore()

    def client(self, journal: MemoryJournal) -> Client:
        return Client(transport=self.transport, journal=journal)

    async def run(self, client: Client) -> Any:
        if self.wire == "responses":
            return await client.responses.create(model="gpt-test", input="Hi", background=True)
        thread = await client.threads.create()
        return await client.threads.runs.create(thread.id, assistant_id="asst_1")

    async def die_while_it_is_cancelled(self, shell: ShellName) -> None:
        """Ask for a cancel that the server does not get, and end the process."""
        self.transport.inject(Fault(on="cancel", status=503, times=None))
        async with MemoryJournal(self.store) as journal, self.client(journal) as client:
            run = await self.run(client)
            if shell == "single":
                async with RunWatcher(client, run) as watcher:
                    await asyncio.sleep(1)
                    cancelling = asyncio.ensure_future(watcher.cancel_run())
                    await self.wait_for_cancel()
                    self.store.crash()
            else:
                async with Fleet(client, journal=journal, on_exit="leave") as fleet:
                    watch = fleet.watch(run)
                    await asyncio.sleep(1)
                    cancelling = asyncio.ensure_future(watch.cancel_run())
                    await self.wait_for_cancel()
                    self.store.crash()
            cancelling.cancel()
        self.transport.faults.clear()

    async def wait_for_cancel(self) -> None:
        while not any(seen.operation == "cancel" for seen in self.transport.requests):
            await asyncio.sleep(0.1)

    def cancels(self) -> int:
        return sum(seen.operation == "cancel" for seen in self.transport.requests)


@wires
@shells
async def test_the_next_process_cancels_the_run(shell: ShellName, wire: str) -> None:
    setting = Setting(wire)
    await setting.die_while_it_is_cancelled(shell)
    async with MemoryJournal(setting.store) as journal, setting.client(journal) as client:
        assert [record.submitting for record in await journal.read()] == [CANCEL_STEP]
        if shell == "single":
            (watcher,) = await client.resume()
            async with watcher:
                outcome = await watcher.wait()
        else:
            async with Fleet(client, journal=journal) as fleet:
                (watch,) = await fleet.resume()
                outcome = await watch
    assert isinstance(outcome, Cancelled)
    assert outcome.cancel_requested
    assert len(setting.store) == 0


class StuckJournal(MemoryJournal):
    """Never writes that something is to be submitted or cancelled."""

    async def submitting(self, watch: str, calls: Sequence[str]) -> None:
        await asyncio.Event().wait()


@wires
@shells
async def test_a_cancel_does_not_wait_for_a_journal_that_is_stuck(shell: ShellName, wire: str) -> None:
    setting = Setting(wire)
    async with StuckJournal(setting.store) as journal, setting.client(journal) as client:
        run = await setting.run(client)
        began = asyncio.get_running_loop().time()
        if shell == "single":
            async with RunWatcher(client, run, on_exit="cancel") as watcher:
                await asyncio.sleep(1)
            outcome: Any = watcher.outcome
        else:
            async with Fleet(client, journal=journal, on_exit="cancel") as fleet:
                watch = fleet.watch(run)
                await asyncio.sleep(1)
            outcome = watch.outcome
        assert asyncio.get_running_loop().time() - began < 5.0
    assert isinstance(outcome, Cancelled)


async def test_a_run_that_is_over_by_then_is_told_as_it_ended() -> None:
    setting = Setting("threads")
    await setting.die_while_it_is_cancelled("fleet")
    await asyncio.sleep(400)
    cancels = setting.cancels()
    journal = MemoryJournal(setting.store)
    async with journal, setting.client(journal) as client, Fleet(client, journal=journal) as fleet:
        (watch,) = await fleet.resume()
        assert not isinstance(await watch, Cancelled)
    assert setting.cancels() <= cancels + 1
