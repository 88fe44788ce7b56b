"""200 runs at once in a fleet, under one budget of requests, with a line of statistics each second.

ASYNCRUNS_BASE_URL=... ASYNCRUNS_API_KEY=... python examples/many_runs.py
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator

import anyio

from asyncruns import APIError, Client, Fleet, Toolset
from asyncruns.wire import Run

RUNS = 200

tools = Toolset(timeout=30)


@tools.tool
async def get_weather(city: str) -> str:
    """Return the weather in a city."""
    return f"21 degrees in {city}"


async def begin(client: Client, assistant_id: str) -> AsyncGenerator[Run]:
    for number in range(RUNS):
        message = {"role": "user", "content": f"Weather in city {number}?"}
        try:
            yield await client.threads.create_and_run(assistant_id=assistant_id, thread={"messages": [message]})
        except APIError as error:
            print("not begun:", error)


async def report(fleet: Fleet[Run]) -> None:
    while True:
        await asyncio.sleep(1)
        now = fleet.statistics()
        print(f"{now.active} active, {now.ended} ended, {now.due} due, {now.lag:.1f} s late, {now.polls} polls")


async def main() -> None:
    ends: Counter[str] = Counter()
    async with Client.from_env() as client, anyio.create_task_group() as group:
        assistant = await client.assistants.create(model="gpt-4o", tools=tools.definitions())
        async with Fleet(client, tools=tools, requests_per_second=200) as fleet:
            group.start_soon(report, fleet)
            group.start_soon(fleet.add_many, begin(client, assistant.id))
            async for outcome in fleet:
                ends[outcome.status] += 1
        await client.assistants.delete(assistant.id)
        group.cancel_scope.cancel()
    print(", ".join(f"{count} {end}" for end, count in ends.items()))


if __name__ == "__main__":
    asyncio.run(main())
