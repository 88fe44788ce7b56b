"""A run with a tool, from assistant to answer."""

import asyncio
import os

from azure.ai.agents.aio import AgentsClient
from azure.ai.agents.models import AsyncFunctionTool, AsyncToolSet
from azure.core.credentials import AzureKeyCredential
from azure.core.pipeline.policies import AzureKeyCredentialPolicy


async def get_weather(city: str) -> str:
    """Return the weather in a city.

    :param city: The city's name.
    """
    return f"21 degrees in {city}"


toolset = AsyncToolSet()
toolset.add(AsyncFunctionTool({get_weather}))
credential = AzureKeyCredential(os.environ["PROJECT_KEY"])


async def main() -> None:
    async with AgentsClient(
        endpoint=os.environ["PROJECT_ENDPOINT"],
        credential=credential,
        authentication_policy=AzureKeyCredentialPolicy(credential, "api-key"),
    ) as client:
        client.enable_auto_function_calls(toolset)
        agent = await client.create_agent(model="gpt-4o", name="Weather", toolset=toolset)
        thread = await client.threads.create()
        await client.messages.create(thread_id=thread.id, role="user", content="What is the weather in Paris?")
        run = await client.runs.create_and_process(thread_id=thread.id, agent_id=agent.id, polling_interval=1)
        print("ended as", run.status.value)
        async for message in client.messages.list(thread_id=thread.id, order="asc"):
            print(f"{message.role.value}: {message.text_messages[-1].text.value}")
        await client.delete_agent(agent.id)


asyncio.run(main())
