"""A run with a tool, from assistant to answer."""

import asyncio
import os

from asyncruns import Client, Toolset


async def get_weather(city: str) -> str:
    """Return the weather in a city.

    :param city: The city's name.
    """
    return f"21 degrees in {city}"


toolset = Toolset([get_weather])


async def main() -> None:
    async with Client.azure(
        os.environ["PROJECT_ENDPOINT"], api_key=os.environ["PROJECT_KEY"], api_version="v1"
    ) as client:
        agent = await client.assistants.create(model="gpt-4o", name="Weather", tools=toolset.definitions())
        thread = await client.threads.create()
        await client.messages.create(thread_id=thread.id, role="user", content="What is the weather in Paris?")
        run = await client.runs.create_and_process(
            thread_id=thread.id, agent_id=agent.id, toolset=toolset, polling_interval=1
        )
        print("ended as", run.status)
        async for message in client.messages.list(thread_id=thread.id, order="asc"):
            print(f"{message.role}: {message.text}")
        await client.assistants.delete(agent.id)


asyncio.run(main())
