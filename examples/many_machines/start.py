"""Starts the watches of many runs, and prints how they end; worker.py is what watches them.

python examples/many_machines/start.py 200
python examples/many_machines/start.py --file RUNS

A line of RUNS is a thread id and a run id. Without it, as many runs as asked for are created first, and noted in the
file ID.runs. Start it again after Ctrl-C, or after a crash, with the --id that it has printed: runs that were created
and watches that were started are found, and all outcomes are printed again. See worker.py for what has to run.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path

from temporalio.client import Client as TemporalClient
from worker import TASK_QUEUE, TEMPORAL_ADDRESS, tools

from asyncruns import Client, RunRef
from asyncruns.temporal import AsyncRunsPlugin, start_shards

AT_ONCE = 20


def lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


async def create_runs(file: Path, number: int) -> None:
    """Create what is missing of so many runs, and append their ids to a file."""
    created = len(lines_of(file))
    async with Client.from_env() as client:
        assistant = await client.assistants.create(model="gpt-4o", tools=tools.definitions())

        async def create(city: int) -> str:
            messages = [{"role": "user", "content": f"Weather in city {city}?"}]
            run = await client.threads.create_and_run(assistant_id=assistant.id, thread={"messages": messages})
            return f"{run.thread_id} {run.id}\n"

        with file.open("a") as lines:
            for first in range(created, number, AT_ONCE):
                some = range(first, min(first + AT_ONCE, number))
                lines.writelines(await asyncio.gather(*map(create, some)))
                lines.flush()


async def watch_runs(file: Path, id_: str, size: int) -> None:
    """Start the watches of the runs in a file, and print how they end."""
    runs = [RunRef("thread.run", tuple(line.split())) for line in lines_of(file)]
    temporal = await TemporalClient.connect(TEMPORAL_ADDRESS, plugins=[AsyncRunsPlugin()])
    shards = await start_shards(temporal, runs, id=id_, task_queue=TASK_QUEUE, size=size, requests_per_second=100)
    began, ends = time.monotonic(), Counter[str]()
    async for ended in shards.outcomes():
        ends[ended.outcome] += 1
        print(ended.outcome, "/".join(ended.ref.ids), flush=True)
    found = ", ".join(f"{count} {end}" for end, count in ends.items())
    print(f"{ends.total()} runs in {time.monotonic() - began:.1f} s: {found}")


async def main() -> None:
    parser = ArgumentParser(description="Watch many runs with the workers of worker.py.")
    parser.add_argument("number", nargs="?", type=int, default=20, help="how many runs to create (default 20)")
    parser.add_argument("--file", type=Path, help="watch these runs; a line is a thread id and a run id")
    parser.add_argument("--id", default=f"many-machines-{uuid.uuid4().hex[:8]}", help="names the shards")
    parser.add_argument("--size", type=int, default=1000, help="the most runs of a shard (default 1000)")
    given = parser.parse_args()
    print(f"--id {given.id}", flush=True)
    if given.file is None:
        given.file = Path(f"{given.id}.runs")
        await create_runs(given.file, given.number)
    await watch_runs(given.file, given.id, given.size)
    await asyncio.sleep(0.1)  # else Python may abort at its end: github.com/temporalio/sdk-python/issues/300


if __name__ == "__main__":
    asyncio.run(main())
