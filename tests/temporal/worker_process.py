"""A worker in a process of its own, which a test kills: its tool never returns.

python worker_process.py ADDRESS TASK_QUEUE BASE_URL FILE
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from typing import Any

import flows
from temporalio.client import Client as TemporalClient
from temporalio.worker import Worker

from asyncruns import Client, ToolContext, Toolset
from asyncruns.temporal import AsyncRunsPlugin


async def main(address: str, task_queue: str, base_url: str, file: str) -> None:
    tools = Toolset()

    @tools.tool
    async def get_weather(city: str, context: ToolContext[Any]) -> str:
        called = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(called, f"{context.call.id}\n".encode())
        os.close(called)
        await asyncio.sleep(3600)
        return city

    async with Client(base_url) as client:
        temporal = await TemporalClient.connect(address, plugins=[AsyncRunsPlugin(client, tools=tools)])
        sticky = timedelta(seconds=0.5)  # after which other workers get the tasks of its workflows
        await Worker(
            temporal, task_queue=task_queue, workflows=flows.WORKFLOWS, sticky_queue_schedule_to_start_timeout=sticky
        ).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
