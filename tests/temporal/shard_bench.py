"""What the tests of shards have in common: tools that count their calls, and shards that gather for a moment only."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import Any

from dev_server import Stage
from temporalio.client import Client as TemporalClient

from asyncruns import AnyOutcome, RunRef, ToolContext, Toolset
from asyncruns.temporal import EndedRun, OpenCall, Shards, open_calls, start_shards
from asyncruns.testing import FunctionCall, Scenario

CALL = FunctionCall("get_weather", {"city": "Paris"})
TWO_ROUNDS = Scenario(queued=0.02, working=0.05, rounds=((CALL, CALL), (CALL,)))


class Bench:
    """A toolset that counts how often each call was begun."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.tools = Toolset()
        self.told: Counter[RunRef] = Counter()
        self.pause: float = 0.0
        self.tools.tool(self.get_weather)

    async def get_weather(self, city: str, context: ToolContext[None]) -> str:
        """Return the weather in a city."""
        self.begun[f"{context.ref}/{context.call.id}"] += 1
        await asyncio.sleep(self.pause)
        return f"sunny in {city}"

    def tell(self, outcome: AnyOutcome[Any]) -> None:
        self.told[outcome.ref] += 1


async def start(stage: Stage, temporal: TemporalClient, refs: list[Any], **options: Any) -> Shards:
    options = {"id": f"s-{uuid.uuid4().hex[:12]}", "gather": 0.05, **options}
    return await start_shards(temporal, refs, task_queue=stage.task_queue, **options)


async def read(shards: Shards) -> list[EndedRun]:
    return [ended async for ended in shards.outcomes()]


async def opened(temporal: TemporalClient, workflow_id: str, number: int = 1) -> list[OpenCall]:
    """Wait until so many calls of a workflow wait for people, and return them."""
    async with asyncio.timeout(60):
        while len(calls := await open_calls(temporal, workflow_id)) < number:
            await asyncio.sleep(0.05)
    return calls
