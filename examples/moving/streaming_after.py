"""A run with a tool, with its events as a stream."""

import asyncio
import json

from asyncruns import AsyncAssistantEventHandler, Client

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


class Teller(AsyncAssistantEventHandler):
    def __init__(self, client):
        super().__init__()
        self.client = client

    async def on_event(self, event):
        if event.event == "thread.run.requires_action":
            await self.answer(event.data.required_action.submit_tool_outputs.tool_calls)

    async def answer(self, calls):
        outputs = []
        for call in calls:
            arguments = json.loads(call.function.arguments)
            outputs.append({"tool_call_id": call.id, "output": get_weather(**arguments)})
        async with self.client.beta.threads.runs.submit_tool_outputs_stream(
            thread_id=self.current_run.thread_id,
            run_id=self.current_run.id,
            tool_outputs=outputs,
            event_handler=Teller(self.client),
        ) as stream:
            await stream.until_done()

    async def on_tool_call_created(self, tool_call):
        print(f"calls {tool_call.function.name}", end=" ")

    async def on_tool_call_delta(self, delta, snapshot):
        print(delta.function.arguments, end="")

    async def on_text_created(self, text):
        print("\nassistant: ", end="")

    async def on_text_delta(self, delta, snapshot):
        print(delta.value, end="|")

    async def on_message_done(self, message):
        print(f"\n{message.status}: {message.content[0].text.value}")

    async def on_end(self):
        print("ended as", self.current_run.status)


async def main() -> None:
    async with Client.from_env() as client:
        assistant = await client.beta.assistants.create(model="gpt-4o", tools=[TOOL])
        thread = await client.beta.threads.create()
        await client.beta.threads.messages.create(thread.id, role="user", content="What is the weather in Paris?")
        async with client.beta.threads.runs.stream(
            thread_id=thread.id, assistant_id=assistant.id, event_handler=Teller(client)
        ) as stream:
            await stream.until_done()

        stream = await client.beta.threads.runs.create(
            thread.id, assistant_id=assistant.id, tool_choice="none", stream=True
        )
        async for event in stream:
            if event.event == "thread.message.delta":
                print(event.data.delta.content[0].text.value, end="|")
        print()
        async with client.beta.threads.create_and_run_stream(
            assistant_id=assistant.id, tool_choice="none", thread={"messages": [{"role": "user", "content": "Hi"}]}
        ) as stream:
            async for text in stream.text_deltas:
                print(text, end="|")
            print()
            run = await stream.get_final_run()
            print(run.status, [message.role for message in await stream.get_final_messages()])


asyncio.run(main())
