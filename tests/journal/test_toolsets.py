"""Watches whose tools differ find them again by the names of their toolsets."""

from __future__ import annotations

from typing import Any

import pytest
from worlds import ROUNDS

from asyncruns import Client, Completed, Fleet, RunWatcher, Toolset
from asyncruns.journal.memory import MemoryJournal, MemoryStore
from asyncruns.testing import InMemoryTransport, Scenario


class Shop:
    """Two runs that ask for a payment, of two banks."""

    def __init__(self) -> None:
        self.transport = InMemoryTransport(latency=0.01)
        self.transport.script(Scenario(rounds=ROUNDS[1:], queued=5.0, working=0.1), assistant_id="asst_1")
        self.store = MemoryStore()
        self.paid: list[str] = []

    def tools(self, name: str) -> Toolset:
        tools = Toolset(name=name)

        @tools.tool
        async def pay(to: str) -> str:
            self.paid.append(f"{name} to {to}")
            return "paid"

        return tools

    def client(self, journal: MemoryJournal | None = None) -> Client:
        return Client(transport=self.transport, journal=journal)

    async def leave(self) -> None:
        """Watch a run with each bank, and leave them in the journal."""
        async with (
            MemoryJournal(self.store) as journal,
            self.client() as client,
            Fleet(client, journal=journal, tools=self.tools("first"), on_exit="leave") as fleet,
        ):
            thread = await client.threads.create()
            run: Any = await client.threads.runs.create(thread.id, assistant_id="asst_1")
            await fleet.watch(run, label="watched").recorded()
            asked = fleet.run(assistant_id="asst_1", message="Pay", tools=self.tools("second"), label="asked")
            await asked.recorded()


async def test_a_watch_finds_its_toolset_by_name() -> None:
    shop = Shop()
    await shop.leave()
    async with (
        MemoryJournal(shop.store) as journal,
        shop.client() as client,
        Fleet(client, journal=journal, tools=shop.tools("first")) as fleet,
    ):
        watches = await fleet.resume(toolsets=[shop.tools("second")])
        outcomes = [await watch for watch in watches]
    assert all(isinstance(outcome, Completed) for outcome in outcomes)
    assert sorted(shop.paid) == ["first to c", "second to c"]


async def test_a_watch_whose_toolset_is_not_there_stays_in_the_journal(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    await shop.leave()
    async with MemoryJournal(shop.store) as journal, shop.client() as client:
        async with Fleet(client, journal=journal, tools=shop.tools("first")) as fleet:
            (watch,) = await fleet.resume()
            assert isinstance(await watch, Completed)
        assert [record.label for record in await journal.read()] == ["asked"]
    assert "answered by the toolset 'second', which is not here: pass it as resume(toolsets=" in caplog.text
    assert shop.paid == ["first to c"]


async def test_a_client_finds_them_as_well() -> None:
    shop = Shop()
    await shop.leave()
    async with MemoryJournal(shop.store) as journal, shop.client(journal) as client:
        for watcher in await client.resume(tools=shop.tools("first"), toolsets=[shop.tools("second")]):
            async with watcher:
                assert isinstance(await watcher.wait(), Completed)
    assert sorted(shop.paid) == ["first to c", "second to c"]


@pytest.mark.parametrize("shell", ["fleet", "single"])
async def test_a_watch_that_goes_on_from_a_token_finds_them_as_well(shell: str) -> None:
    shop = Shop()
    tools = shop.tools("second")
    async with MemoryJournal(shop.store) as journal, shop.client(journal) as client:
        thread = await client.threads.create()
        run: Any = await client.threads.runs.create(thread.id, assistant_id="asst_1")
        token = (await client.watch(run, tools=tools, timeout=0)).token
        if shell == "single":
            async with RunWatcher(client, token=token, tools=tools):
                pass
        else:
            async with Fleet(client, on_exit="leave") as fleet:
                watch = fleet.watch(token=token, tools=tools)
                await watch.created()
                await watch.recorded()
        assert [record.toolset for record in await journal.read()] == ["second"]
