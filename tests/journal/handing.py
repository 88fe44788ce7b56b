"""Runs that ask for payments, and several processes that watch them one after the other, or at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from worlds import ROUNDS, WireName

from asyncruns import Client, MemoryJournal, SQLiteJournal, ToolContext, Toolset
from asyncruns.abc import Journal
from asyncruns.journal.memory import MemoryStore
from asyncruns.testing import InMemoryTransport, Scenario


class Bank:
    """A server, a place for journals, and a tool that counts how often each call began.

    Attributes:
        pays: Set while payments go on; otherwise they hang.
        began: How often each call began, by its argument.
    """

    def __init__(
        self, wire: WireName, path: Path | None = None, rounds: Any = ROUNDS[:1], working: float = 0.1
    ) -> None:
        self.wire, self._path = wire, path
        self.transport = InMemoryTransport(latency=0.01)
        scenario = Scenario(rounds=rounds, working=working, answer="Paid")
        if wire == "threads":
            self.transport.script(scenario, assistant_id="asst_1")
        else:
            self.transport.script(scenario, model="gpt-test")
        self.store = MemoryStore()
        self.pays = asyncio.Event()
        self.pays.set()
        self.began: Counter[str] = Counter()
        self.tools = Toolset()

        @self.tools.tool
        async def pay(to: str, context: ToolContext[Any]) -> str:
            self.began[to] += 1
            if to == "a":
                await self.pays.wait()
            return f"paid {to}"

    def journal(self) -> Journal:
        """Return a journal that is not open, as that of another process."""
        return MemoryJournal(self.store) if self._path is None else SQLiteJournal(self._path)

    def client(self, journal: Journal | None = None) -> Client:
        """Return a client, as that of another process."""
        return Client(transport=self.transport, journal=journal)

    async def run(self) -> Any:
        """Create a run."""
        client = self.client()
        if self.wire == "responses":
            return await client.responses.create(model="gpt-test", input="Pay", background=True)
        thread = await client.threads.create(messages=[{"role": "user", "content": "Pay"}])
        return await client.threads.runs.create(thread.id, assistant_id="asst_1")

    async def until_it_pays(self) -> None:
        """Wait until both calls have begun."""
        while len(self.began) < 2:
            await asyncio.sleep(0.01)

    def submits(self) -> list[bytes]:
        """Return the bodies of the submits that the server took."""
        return [seen.body for seen in self.transport.requests if seen.operation == "submit" and seen.acted]
