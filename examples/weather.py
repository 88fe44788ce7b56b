"""A run with tools, from a question to its answer.

    ASYNCRUNS_BASE_URL=... ASYNCRUNS_API_KEY=... python examples/weather.py "Is it warmer in Paris or in Oslo?"

`asyncruns emulate` starts a server to try it on.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Literal

import anyio
from msgspec import Meta, Struct

from asyncruns import Client, Completed, StatusChanged, ToolError, Toolset

tools = Toolset()


class Weather(Struct):
    """The return value of a tool is sent to the model as JSON."""

    city: str
    degrees: float
    unit: str


@tools.tool
async def get_weather(
    city: Annotated[str, Meta(description="The city's name, in English")], unit: Literal["c", "f"] = "c"
) -> Weather:
    """Return the weather in a city."""
    await anyio.sleep(0.2)  # a request to a weather service
    if city == "Atlantis":
        raise ToolError("There is no weather under water.")  # the model reads this
    return Weather(city, 21.0 if unit == "c" else 69.8, unit)


@tools.tool
def nearest_station(city: str) -> str:
    """Return the weather station nearest to a city."""  # plain functions run in threads
    return f"{city} Central"


def show(change: StatusChanged[object]) -> None:
    print(f"  {change.status}")


async def main(question: str) -> None:
    async with Client.from_env() as client:
        assistant = await client.assistants.create(
            model="gpt-4o", instructions="Answer in one sentence.", tools=tools.definitions()
        )
        try:
            outcome = await client.run(
                assistant_id=assistant.id, message=question, tools=tools, timeout=120, on_status=show
            )
            if isinstance(outcome, Completed):
                print(await outcome.text())
            else:
                print("No answer:", outcome.status, outcome.error or outcome.reason)
        finally:
            await client.assistants.delete(assistant.id)


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "What is the weather in Paris?"))
