"""200 runs at once in a fleet, under one budget of requests, with a line of statistics each second.

ASYNCRUNS_BASE_URL=... ASYNCRUNS_API_KEY=... python examples/many_runs.py
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import anyio

from asyncruns import Client, CreateRequest, Fleet, Toolset
from asyncruns.wire import Run

RUNS = 200

tools = Toolset(timeout=30)


@tools.tool
async def get_weather(city: str) -> str:
    """Return the weather in a city."""
    return f"21 degrees in {city}"


async def report(fleet: Fleet[Run]) -> None:
    while True:
        await asyncio.sleep(1)
        now = fleet.statistics()
        print(f"{now.active} active, {now.ended} ended, {now.due} due, {now.lag:.1f} s late, {now.polls} polls")


async def main() -> None:
    ends: Counter[str] = Counter()
    questions: list[CreateRequest] = [{"message": f"Weather in city {number}?"} for number in range(RUNS)]
    async with Client.from_env() as client, anyio.create_task_group() as group:
        assistant = await client.assistants.create(model="gpt-4o", tools=tools.definitions())
        async with Fleet(client, tools=tools, requests_per_second=200) as fleet:
            group.start_soon(report, fleet)
            group.start_soon(partial(fleet.run_many, questions, assistant_id=assistant.id))
            async for outcome in fleet:
                ends[outcome.status or "not created"] += 1
        await client.assistants.delete(assistant.id)
        group.cancel_scope.cancel()
    print(", ".join(f"{count} {end}" for end, count in ends.items()))


if __name__ == "__main__":
    asyncio.run(main())
