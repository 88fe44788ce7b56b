"""What subscribers cost: the polls of 50 runs with 200 subscribers, and the memory of a process over 1,000 such runs.

    python benchmarks/subscribers.py

The server is `asyncruns emulate` in a process of its own, whose runs take 3 s. In each of 20 waves, 50 runs are watched
in one fleet, with no subscriber, or with four for each run, as four tabs of a browser would be. After each wave the
memory of this process is taken. Writes `results/subscribers.json` beside this file; exits with 1 if a goal is missed.
"""

from __future__ import annotations

import asyncio
import gc
import json
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from asyncruns import Client, Completed, Ended, Fleet

HERE: Final = Path(__file__).parent
WAVES, RUNS, TABS = 20, 50, 4
SETTLED: Final = 5  # waves until the memory is compared: pools and caches fill up first
MOST_MORE_POLLS: Final = 1.05  # polls with subscribers, as a multiple of those without
MOST_GROWTH_KB: Final = 1024.0  # of the memory from then on, over 750 runs


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as scenario:
        json.dump({"queued": 0.5, "working": 2.5}, scenario)
        scenario.flush()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "asyncruns", "emulate", "--scenario", scenario.name),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        try:
            yield line.split()[-1]
        finally:
            process.kill()
            await process.wait()


def memory_kb() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4


async def read(watch: Any) -> int:
    count = 0
    async for event in watch.subscribe():
        count += 1
        if isinstance(event, Ended):
            return count
    raise AssertionError("no end")


async def wave(fleet: Fleet[Any], assistant: str, tabs: int) -> tuple[int, int]:
    """Watch 50 runs; return the number of polls, and of events that subscribers read."""
    watches = [fleet.run(assistant_id=assistant, message="Hello") for _ in range(RUNS)]
    readers = [asyncio.create_task(read(watch)) for watch in watches for _ in range(tabs)]
    outcomes = [await watch for watch in watches]
    assert all(isinstance(outcome, Completed) for outcome in outcomes), outcomes
    return sum(outcome.polls for outcome in outcomes), sum([await reader for reader in readers])


async def waves(tabs: int) -> dict[str, Any]:
    memory, polls, events = [], 0, 0
    async with server() as url, Client(url) as client, Fleet(client, requests_per_second=500) as fleet:
        assistant = (await client.assistants.create(model="any")).id
        for _ in range(SETTLED):
            await wave(fleet, assistant, tabs)
            memory.append(memory_kb())
        began = time.process_time()
        for _ in range(WAVES - SETTLED):
            more_polls, more_events = await wave(fleet, assistant, tabs)
            polls, events = polls + more_polls, events + more_events
            memory.append(memory_kb())
        took = time.process_time() - began
    runs = RUNS * (WAVES - SETTLED)
    return {
        "subscribers": tabs * RUNS,
        "polls_per_run": round(polls / runs, 2),
        "events_per_subscriber": round(events / (runs * tabs), 1) if tabs else 0,
        "cpu_ms_per_run": round(took / runs * 1000, 2),
        "memory_kb": memory,
        "growth_kb": memory[-1] - memory[SETTLED],
    }


def main() -> int:
    found = [asyncio.run(waves(tabs)) for tabs in (0, TABS)]
    none, some = found
    results = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "asyncruns": version("asyncruns"),
        "runs": WAVES * RUNS,
        "found": found,
    }
    (HERE / "results" / "subscribers.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    few_polls = some["polls_per_run"] <= MOST_MORE_POLLS * none["polls_per_run"]
    return 0 if few_polls and some["growth_kb"] <= MOST_GROWTH_KB else 1


if __name__ == "__main__":
    sys.exit(main())
