#!/usr/bin/env python3
"""A worker that `kill_temporal.py` kills: it writes down each call as it begins, and each outcome that it is told.

python .ci/campaigns/kill_temporal_worker.py BASE_URL TEMPORAL_ADDRESS FOLDER VERSION
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from kill_temporal_flows import Ask, PoliteAsk, line_of
from temporalio.client import Client as TemporalClient
from temporalio.worker import Worker

from asyncruns import AnyOutcome, Client, ToolContext, Toolset
from asyncruns.temporal import AsyncRunsPlugin


def write(path: Path, line: str) -> None:
    """Append a line to a file, in one step."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{line}\n".encode())
    os.close(file)


def tools_of(folder: Path, version: int) -> Toolset:
    """Return the tools: `pay` must run at most once, `look_up` may run again after an interruption."""
    tools = Toolset()

    @tools.tool
    async def pay(to: str, context: ToolContext[Any]) -> str:
        write(folder / "called", f"{context.call.id} pay {to}")
        await asyncio.sleep(random.uniform(0.0, 2.0))
        return f"paid {to}"

    @tools.tool(idempotent=True)
    def look_up(name: str, context: ToolContext[Any]) -> str:
        write(folder / "called", f"{context.call.id} look_up {name}")
        return f"{name} is in Paris"

    if version > 1:

        @tools.tool
        def thank(name: str) -> str:
            return f"thanks, {name}"

    return tools


async def connected(address: str, plugin: AsyncRunsPlugin) -> TemporalClient:
    """Return a client of Temporal, as soon as its server is there."""
    while True:
        try:
            return await TemporalClient.connect(address, plugins=[plugin])
        except RuntimeError:
            await asyncio.sleep(0.2)


async def main(base_url: str, address: str, folder: Path, version: int) -> None:
    """Work until SIGTERM."""
    leaving = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)

    def told(outcome: AnyOutcome[Any]) -> None:
        write(folder / "told", line_of(outcome))

    async with Client(base_url, api_key="secret-word") as client:
        plugin = AsyncRunsPlugin(client, tools=tools_of(folder, version), on_outcome=told)
        temporal = await connected(address, plugin)
        ask = Ask if version == 1 else PoliteAsk
        async with Worker(temporal, task_queue="campaign", workflows=[ask], max_cached_workflows=50):
            await leaving.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])))
