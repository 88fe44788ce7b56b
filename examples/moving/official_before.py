"""A run with a tool, from assistant to answer."""

import asyncio
import json

import openai
from openai import AsyncOpenAI

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Return the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def get_weather(city: str) -> str:
    return f"21 degrees in {city}"


async def main() -> None:
    async with AsyncOpenAI() as client:
        assistant = await client.beta.assistants.create(model="gpt-4o", tools=[TOOL])
        thread = await client.beta.threads.create()
        await client.beta.threads.messages.create(thread.id, role="user", content="What is the weather in Paris?")
        run = await client.beta.threads.runs.create_and_poll(
            thread_id=thread.id, assistant_id=assistant.id, poll_interval_ms=100
        )
        while run.status == "requires_action":
            outputs = []
            for call in run.required_action.submit_tool_outputs.tool_calls:
                arguments = json.loads(call.function.arguments)
                outputs.append({"tool_call_id": call.id, "output": get_weather(**arguments)})
            run = await client.beta.threads.runs.submit_tool_outputs_and_poll(
                run_id=run.id, thread_id=thread.id, tool_outputs=outputs, poll_interval_ms=100
            )
        print("ended as", run.status)
        async for message in client.beta.threads.messages.list(thread.id, order="asc"):
            print(f"{message.role}: {message.content[0].text.value}")
        print(f"{run.to_dict()['usage']['total_tokens']} tokens")
        await client.beta.assistants.delete(assistant.id)
        try:
            await client.beta.assistants.retrieve(assistant.id)
        except openai.NotFoundError as error:
            print("deleted:", error.status_code)


asyncio.run(main())
