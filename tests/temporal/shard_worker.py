"""A worker in a process of its own, which a test kills: `python shard_worker.py ADDRESS TASK_QUEUE BASE_URL FILE`.

It writes a line to the file for each call that it begins.
"""

from __future__ import annotations

import asyncio
import os
import sys

from dev_server import KEY, connected
from temporalio.worker import Worker

from asyncruns import Client, ToolContext, Toolset
from asyncruns.temporal import AsyncRunsPlugin

tools = Toolset()


@tools.tool
async def get_weather(city: str, context: ToolContext[None]) -> str:
    """Return the weather in a city, slowly."""
    descriptor = os.open(sys.argv[4], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{context.ref}/{context.call.id}\n".encode())
    os.close(descriptor)
    await asyncio.sleep(1.0)
    return f"sunny in {city}"


async def main(address: str, task_queue: str, base_url: str) -> None:
    async with Client(base_url, api_key=KEY) as client:
        temporal = await connected(address, AsyncRunsPlugin(client, tools=tools))
        async with Worker(temporal, task_queue=task_queue):
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
