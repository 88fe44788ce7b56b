"""One agent loop for both kinds of servers: those with threads and runs, and those with responses.

    ASYNCRUNS_BASE_URL=... ASYNCRUNS_API_KEY=... python examples/agent_loop.py threads
    ASYNCRUNS_BASE_URL=... ASYNCRUNS_API_KEY=... python examples/agent_loop.py responses

The tools, the watch and the outcome are the same; only how a conversation continues is not.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from asyncruns import AnyOutcome, Client, Completed, Toolset

MODEL = "gpt-4o"
INSTRUCTIONS = "Answer in one sentence."
QUESTIONS = ("Is it warmer in Paris or in Oslo?", "What shall I wear there?")

Ask = Callable[[str], Awaitable[AnyOutcome[Any]]]
tools = Toolset()


@tools.tool
async def get_weather(city: str) -> str:
    """Return the weather in a city."""
    await anyio.sleep(0.2)  # a request to a weather service
    return f"21 degrees in {city}"


@asynccontextmanager
async def on_threads(client: Client) -> AsyncIterator[Ask]:
    """Ask an assistant; the thread remembers what was said."""
    assistant = await client.assistants.create(model=MODEL, instructions=INSTRUCTIONS, tools=tools.definitions())
    thread = await client.threads.create()

    async def ask(question: str) -> AnyOutcome[Any]:
        return await client.run(
            assistant_id=assistant.id, thread_id=thread.id, message=question, tools=tools, timeout=120
        )

    try:
        yield ask
    finally:
        await client.assistants.delete(assistant.id)


@asynccontextmanager
async def on_responses(client: Client) -> AsyncIterator[Ask]:
    """Ask a model; each response names the one before it."""
    previous: str | None = None

    async def ask(question: str) -> AnyOutcome[Any]:
        nonlocal previous
        outcome = await client.run(
            model=MODEL,
            message=question,
            parameters={"instructions": INSTRUCTIONS, "previous_response_id": previous},
            tools=tools,
            timeout=120,
        )
        (previous,) = outcome.ref.ids
        return outcome

    yield ask


async def main(wire: str) -> None:
    conversation = {"threads": on_threads, "responses": on_responses}[wire]
    async with Client.from_env() as client, conversation(client) as ask:
        for question in QUESTIONS:
            outcome = await ask(question)
            if not isinstance(outcome, Completed):
                print("No answer:", outcome.status, outcome.error or outcome.reason)
                break
            print(await outcome.text())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:] or ["threads"]))
