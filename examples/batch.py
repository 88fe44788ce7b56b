"""Asks a hundred questions as one batch, and asks again what was not answered.

Reads ASYNCRUNS_BASE_URL and ASYNCRUNS_API_KEY; see README.md in this folder.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable, Iterator
from typing import Any

from asyncruns import BatchGroup, Client, Outcome

MODEL = "gpt-4o-mini"
ENDPOINT = "/v1/chat/completions"
ROUNDS = 3


def questions() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the custom id and the body of each request."""
    for number in range(1, 101):
        message = {"role": "user", "content": f"What is the square of {number}?"}
        yield f"square-{number}", {"model": MODEL, "messages": [message]}


async def ask(client: Client, requests: Iterable[Any] | AsyncIterable[Any]) -> Outcome[Any]:
    """Create a batch of requests, and watch it to its end."""
    batch = await client.batches.create(requests=requests, endpoint=ENDPOINT)
    if isinstance(batch, BatchGroup):
        raise SystemExit("More requests than one batch takes: see guides/batches.md")
    print("created", batch.id)
    outcome: Outcome[Any] = await client.watch(batch)
    return outcome


async def main() -> None:
    """Ask the questions, and print the answers as they are read."""
    async with Client.from_env() as client:
        requests: Iterable[Any] | AsyncIterable[Any] = questions()
        asked = [custom_id for custom_id, _ in questions()]
        for _ in range(ROUNDS):
            outcome = await ask(client, requests)
            async for result in outcome.results():
                if result.kind == "answered":
                    print(f"{result.custom_id}: {result.text}")
            found = await outcome.reconcile(asked)
            print(outcome.status, found)
            if found.is_complete:
                return
            asked = [custom_id for custom_id in asked if custom_id not in found.answered]
            requests = outcome.unanswered()


if __name__ == "__main__":
    asyncio.run(main())
