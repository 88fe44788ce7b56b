"""The emulator streams runs as the official server does: our client and the official client read the streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from openai.types.beta import AssistantStreamEvent

from asyncruns import APIConnectionError, APITimeoutError, BearerAuth, Client, RunStream
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario
from asyncruns.testing.emulator.faults import StreamEnd
from asyncruns.wire import ErrorEvent, MessageDeltaEvent, ThreadStreamEvent, ToolCallsStepDetails

PLAIN = [
    "thread.run.created",
    "thread.run.queued",
    "thread.run.in_progress",
    "thread.run.step.created",
    "thread.run.step.in_progress",
    "thread.message.created",
    "thread.message.in_progress",
    "thread.message.delta",
    "thread.message.completed",
    "thread.run.step.completed",
    "thread.run.completed",
    "done",
]
CALLS = (FunctionCall("add", {"a": 1, "b": 2}), FunctionCall("add", {"a": 3, "b": 4}))


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    emulator.script(Scenario(answer="Hello from Paris, my friend"), assistant_id="asst_1")
    emulator.script(Scenario(rounds=(CALLS,), answer="Done"), assistant_id="asst_calls")
    async with Client(emulator.base_url, auth=BearerAuth("test")) as client:
        yield client


async def names(stream: RunStream) -> list[str]:
    """Return the names of the events, with consecutive deltas merged into one."""
    found: list[str] = []
    async for event in stream:
        if not found or found[-1] != event.event:
            found.append(event.event)
    return found


async def begin(client: Client, assistant_id: str = "asst_1") -> RunStream:
    thread = await client.threads.create(messages=[{"role": "user", "content": "Hi"}])
    return await client.threads.runs.create(thread.id, assistant_id=assistant_id, stream=True)


async def test_the_events_of_a_run_have_the_official_order(emulator: Emulator, client: Client) -> None:
    before = asyncio.get_running_loop().time()
    async with await begin(client) as stream:
        assert await names(stream) == PLAIN
    assert asyncio.get_running_loop().time() - before == pytest.approx(0.6, abs=0.05)
    assert stream.run is not None
    assert stream.message is not None
    assert (stream.run.status, stream.message.text) == ("completed", "Hello from Paris, my friend")
    assert (await client.threads.messages.retrieve(stream.message.id, thread_id=stream.run.thread_id)).text == (
        "Hello from Paris, my friend"
    )
    assert [step.status for step in stream.steps] == ["completed"]
    assert emulator.requests[1].operation == "create_run"


async def test_the_text_comes_piece_by_piece_while_the_run_works(client: Client) -> None:
    loop = asyncio.get_running_loop()
    times, texts = [], []
    async with await begin(client) as stream:
        async for event in stream:
            if isinstance(event, MessageDeltaEvent):
                times.append(loop.time())
                texts.append(event.data.text)
    assert texts == ["Hello", " from", " Paris,", " my", " friend"]
    assert times[-1] - times[0] > 0.3


async def test_a_thread_that_is_created_with_the_run_has_the_first_event(client: Client) -> None:
    thread: Any = {"messages": [{"role": "user", "content": "Hi"}]}
    async with await client.threads.create_and_run(assistant_id="asst_1", thread=thread, stream=True) as stream:
        assert await names(stream) == ["thread.created", *PLAIN]
    assert stream.thread is not None
    assert stream.run is not None
    assert stream.run.thread_id == stream.thread.id


async def test_a_stream_ends_at_the_calls_and_that_of_the_submit_continues(client: Client) -> None:
    async with await begin(client, "asst_calls") as stream:
        found = await names(stream)
    assert found[3:] == [
        "thread.run.step.created",
        "thread.run.step.in_progress",
        "thread.run.step.delta",
        "thread.run.requires_action",
        "done",
    ]
    run = stream.run
    assert run is not None
    assert run.required_action
    assert stream.step is not None
    details = stream.step.step_details
    assert isinstance(details, ToolCallsStepDetails)
    calls: Any = details.tool_calls
    assert [call.function.arguments for call in calls] == [call.text for call in CALLS]
    outputs = [{"tool_call_id": call.id, "output": "7"} for call in calls]
    async with await client.threads.runs.submit_tool_outputs(
        run.id, thread_id=run.thread_id, tool_outputs=outputs, stream=True
    ) as stream:
        assert await names(stream) == ["thread.run.step.completed", *PLAIN[1:]]
        assert stream.message is not None
        assert stream.message.text == "Done"


@pytest.mark.parametrize(("end", "last"), [("failed", "failed"), ("incomplete", "incomplete"), ("never", "expired")])
async def test_other_ends_are_streamed_as_well(emulator: Emulator, client: Client, end: str, last: str) -> None:
    emulator.script(Scenario(end=end, lifetime=30.0), assistant_id="asst_1")
    async with await begin(client) as stream:
        found = await names(stream)
    assert found[-2:] == [f"thread.run.{last}", "done"]
    assert stream.run is not None
    assert stream.run.status == last
    assert ("thread.message.incomplete" in found) is (end == "incomplete")


async def test_a_cancel_is_streamed(emulator: Emulator, client: Client) -> None:
    emulator.script(Scenario(working=60.0, answer="a b c d e f"), assistant_id="asst_1")
    async with await begin(client) as stream:
        async for event in stream:
            if isinstance(event, MessageDeltaEvent):
                break
        assert stream.run is not None
        await client.threads.runs.cancel(stream.run.id, thread_id=stream.run.thread_id)
        assert await names(stream) == [
            "thread.run.cancelling",
            "thread.message.incomplete",
            "thread.run.step.cancelled",
            "thread.run.cancelled",
            "done",
        ]


async def test_a_run_continues_when_its_stream_is_left(emulator: Emulator, client: Client) -> None:
    async with await begin(client) as stream:
        await anext(stream)
    assert stream.run is not None
    await asyncio.sleep(2)
    assert emulator.runs[stream.run.id]["status"] == "completed"


async def test_faults_strike_the_opening_of_a_stream(emulator: Emulator, client: Client) -> None:
    emulator.inject(Fault(on="create_run", drop=True, acts=True), Fault(on="create_run", delay_before=5.0))
    with pytest.raises(APIConnectionError):
        await begin(client)
    before = asyncio.get_running_loop().time()
    async with await begin(client) as stream:
        assert await names(stream) == PLAIN
    assert asyncio.get_running_loop().time() - before > 5


@pytest.mark.parametrize("end", ["break", "close", "error", "silence"])
@pytest.mark.parametrize("events", [0, 1, 8, 100])
async def test_a_stream_may_end_too_early_in_four_ways(
    emulator: Emulator, client: Client, end: StreamEnd, events: int
) -> None:
    emulator.inject(Fault(stream=end, events=events))
    found: list[ThreadStreamEvent] = []
    stream = await begin(client)  # the creation of the thread is not streamed, so it is not struck
    try:
        async for event in stream:
            found.append(event)
    except APITimeoutError:
        assert end == "silence"
    except APIConnectionError:
        assert end == "break"
    else:
        assert end in ("close", "error") or events == 100
    await stream.close()
    error = [event for event in found if isinstance(event, ErrorEvent)]
    assert len(error) == (end == "error" and events < 100)
    assert len(found) - len(error) == min(events, 16)
    assert stream.is_done is (events == 100)
    assert emulator.faults[0].struck == 1
    (run,) = emulator.runs.values()
    await asyncio.sleep(2)
    assert (await client.threads.runs.retrieve(run["id"], thread_id=run["thread_id"])).status == "completed"


async def test_the_emulator_stops_while_it_streams() -> None:
    async with Emulator(Scenario(end="never")) as emulator, Client(emulator.base_url) as client:
        emulator.script(Scenario(end="never"), assistant_id="asst_1")
        async with await begin(client) as stream:
            await anext(stream)
            await emulator.stop()
            with pytest.raises(APIConnectionError, match="goes on at the server"):
                await names(stream)


# The official client, in real time: it resolves names in a thread, and its timeouts use the real clock.


@pytest.fixture
async def official(emulator: Emulator) -> AsyncIterator[Any]:
    prompt = Scenario(queued=0.02, working=0.05, answer="Hello from Paris")
    emulator.script(prompt, assistant_id="asst_1")
    emulator.script(replace(prompt, rounds=(CALLS,), answer="Done"), assistant_id="asst_calls")
    async with openai.AsyncOpenAI(base_url=emulator.base_url, api_key="sk-test", max_retries=0) as client:
        yield client.beta.threads


@pytest.mark.real_time
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_official_client_reads_a_stream(official: Any) -> None:
    thread = await official.create(messages=[{"role": "user", "content": "Hi"}])
    found: list[str] = []
    stream = await official.runs.create(thread.id, assistant_id="asst_1", stream=True)
    async for event in stream:
        if not found or found[-1] != event.event:
            found.append(event.event)
    assert found == PLAIN[:-1]  # the official client does not yield `done`


@pytest.mark.real_time
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_official_client_streams_with_a_handler_and_submits(official: Any) -> None:
    class Handler(openai.AsyncAssistantEventHandler):
        def __init__(self) -> None:
            super().__init__()
            self.texts: list[str] = []
            self.names: list[str] = []

        async def on_event(self, event: AssistantStreamEvent) -> None:
            self.names.append(event.event)

        async def on_text_delta(self, delta: Any, snapshot: Any) -> None:
            self.texts.append(delta.value)

    thread = await official.create(messages=[{"role": "user", "content": "Hi"}])
    async with official.runs.stream(
        thread_id=thread.id, assistant_id="asst_calls", event_handler=(handler := Handler())
    ) as stream:
        await stream.until_done()
    run = handler.current_run
    assert run is not None
    assert run.status == "requires_action"
    assert run.required_action is not None
    (step,) = await stream.get_final_run_steps()
    assert [call.function.arguments for call in step.step_details.tool_calls] == [call.text for call in CALLS]
    calls = run.required_action.submit_tool_outputs.tool_calls
    async with official.runs.submit_tool_outputs_stream(
        thread_id=thread.id,
        run_id=run.id,
        tool_outputs=[{"tool_call_id": call.id, "output": "7"} for call in calls],
        event_handler=(handler := Handler()),
    ) as stream:
        (message,) = await stream.get_final_messages()
    assert message.content[0].text.value == "Done"
    assert handler.texts == ["Done"]
    assert handler.names[-1] == "thread.run.completed"
    async with official.create_and_run_stream(assistant_id="asst_1") as stream:
        assert "".join([text async for text in stream.text_deltas]) == "Hello from Paris"
