"""Some dozens of runs at once, each watched to its end; what fails does not disturb the others.

ASYNCRUNS_BASE_URL=... ASYNCRUNS_API_KEY=... python examples/many_runs.py
"""

from __future__ import annotations

import asyncio
from collections import Counter

import anyio

from asyncruns import APIError, Client

QUESTIONS = [f"What is {n} times {n}?" for n in range(24)]


async def ask(client: Client, assistant_id: str, question: str, ends: Counter[str]) -> None:
    try:
        outcome = await client.run(assistant_id=assistant_id, message=question, timeout=120)
    except APIError as error:  # the run could not be created
        ends[type(error).__name__] += 1
    else:
        ends[type(outcome).__name__] += 1


async def main() -> None:
    ends: Counter[str] = Counter()
    async with Client.from_env() as client:
        assistant = await client.assistants.create(model="gpt-4o", instructions="Answer with a number.")
        async with anyio.create_task_group() as group:
            for question in QUESTIONS:
                group.start_soon(ask, client, assistant.id, question, ends)
        await client.assistants.delete(assistant.id)
    print(", ".join(f"{count} {end}" for end, count in ends.items()))


if __name__ == "__main__":
    asyncio.run(main())
