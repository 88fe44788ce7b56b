"""The emulator streams responses: our client reads and resumes the stream, and the official client reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from asyncruns import APIConnectionError, APITimeoutError, BadRequestError, Client
from asyncruns.streams.response_stream import ResponseStream
from asyncruns.testing import Emulator, Fault, FunctionCall, InMemoryTransport, Scenario
from asyncruns.testing.emulator.backend import Backend
from asyncruns.wire import ResponseEvent, ResponseStreamEvent, ResponseTextDeltaEvent

MODEL = "gpt-test"
CALLS = (FunctionCall("add", {"a": 1, "b": 22}), FunctionCall("poll"))
BEGUN = ["response.created", "response.queued", "response.in_progress"]
TEXT = [
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]


@pytest.fixture(params=["socket", "memory"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    if request.param == "memory":
        yield InMemoryTransport()
    else:
        async with Emulator() as emulator:
            yield emulator


@pytest.fixture
async def client(server: Backend) -> AsyncIterator[Client]:
    server.script(Scenario(answer="Hello from Paris, my friend"), model=MODEL)
    options: Any = {"base_url": server.base_url} if isinstance(server, Emulator) else {"transport": server}
    async with Client(**options) as client:
        yield client


async def begin(client: Client, **fields: Any) -> ResponseStream:
    parameters: dict[str, Any] = {"model": MODEL, "input": "Hi", "background": True, **fields}
    stream: ResponseStream = await client.responses.create(stream=True, **parameters)
    return stream


async def read(stream: ResponseStream) -> list[ResponseStreamEvent]:
    async with stream:
        return [event async for event in stream]


def names(events: list[ResponseStreamEvent]) -> list[str]:
    """Return the names of the events, with consecutive equal names merged into one."""
    found = [event.event for event in events]
    return [name for place, name in enumerate(found) if found[place - 1 : place] != [name]]


def numbers(events: list[ResponseStreamEvent]) -> list[Any]:
    return [getattr(event, "sequence_number", None) for event in events]


async def test_the_events_of_a_response_have_the_official_order(client: Client) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    stream = await begin(client)
    events = await read(stream)
    assert names(events) == [*BEGUN, *TEXT, "response.completed"]
    assert numbers(events) == list(range(len(events)))
    assert loop.time() - began == pytest.approx(0.6, abs=0.05)
    assert stream.response
    assert stream.response == await client.responses.retrieve(stream.response.id)
    assert stream.response.output_text == "Hello from Paris, my friend"


async def test_the_text_comes_piece_by_piece_while_the_response_works(client: Client) -> None:
    loop = asyncio.get_running_loop()
    times = []
    async with await begin(client) as stream:
        async for event in stream:
            if isinstance(event, ResponseTextDeltaEvent):
                times.append(loop.time())
    assert len(times) == 5
    assert times[-1] - times[0] > 0.3


async def test_calls_come_with_their_arguments_in_pieces(server: Backend, client: Client) -> None:
    server.script(Scenario(rounds=(CALLS,), answer="Done"), model=MODEL)
    stream = await begin(client)
    call = [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    assert names(await read(stream)) == [*BEGUN, *call, *call, "response.completed"]
    assert stream.response
    calls_made: list[Any] = list(stream.response.output or [])
    assert [each.arguments for each in calls_made] == [each.text for each in CALLS]
    outputs = [{"type": "function_call_output", "call_id": each.call_id, "output": "1"} for each in calls_made]
    stream = await begin(client, input=outputs, previous_response_id=stream.response.id)
    assert names(await read(stream)) == [*BEGUN, *TEXT, "response.completed"]
    assert stream.response
    assert stream.response.output_text == "Done"


@pytest.mark.parametrize("end", ["failed", "incomplete"])
async def test_other_ends_are_streamed(server: Backend, client: Client, end: str) -> None:
    server.script(Scenario(end=end, answer="Too long"), model=MODEL)
    stream = await begin(client)
    text = TEXT if end == "incomplete" else []
    assert names(await read(stream)) == [*BEGUN, *text, f"response.{end}"]
    assert stream.response
    assert stream.response == await client.responses.retrieve(stream.response.id)


async def test_in_the_foreground_all_events_come_at_once(client: Client) -> None:
    stream = await begin(client, background=False)
    assert names(await read(stream)) == ["response.created", "response.in_progress", *TEXT, "response.completed"]
    assert stream.response
    with pytest.raises(BadRequestError, match="not created with background=true"):
        await client.responses.retrieve(stream.response.id, stream=True)


async def test_a_response_that_was_created_without_a_stream_has_none(client: Client) -> None:
    response = await client.responses.create(model=MODEL, input="Hi", background=True)
    with pytest.raises(BadRequestError, match="stream=true"):
        await client.responses.retrieve(response.id, stream=True)
    stream = await begin(client)
    await read(stream)
    assert stream.response
    with pytest.raises(BadRequestError, match="starting_after"):
        await client.responses.retrieve(stream.response.id, extra_query={"stream": "true", "starting_after": "soon"})


async def test_a_stream_can_be_resumed_after_every_event(client: Client) -> None:
    stream = await begin(client)
    events = await read(stream)
    assert stream.response
    for known in numbers(events):
        rest = await client.responses.retrieve(stream.response.id, stream=True, starting_after=known)
        assert await read(rest) == events[known + 1 :]
        assert rest.sequence_number == numbers(events)[-1]
    assert await read(await client.responses.retrieve(stream.response.id, stream=True)) == events


@pytest.mark.parametrize("end", ["break", "silence", "close"])
async def test_a_stream_that_breaks_is_resumed_without_repeating_an_event(
    server: Backend, client: Client, end: Any
) -> None:
    server.inject(
        Fault(on="create_response", stream=end, events=4),
        *(Fault(on="poll", stream=end, events=events) for events in (3, 0, 1)),
    )
    events: list[ResponseStreamEvent] = []
    errors: list[APIConnectionError] = []
    stream = await begin(client, timeout=2)
    while not events or events[-1].event != "response.completed":
        if events:
            assert isinstance(events[0], ResponseEvent)
            response_id, known = events[0].response.id, numbers(events)[-1]
            stream = await client.responses.retrieve(response_id, stream=True, starting_after=known, timeout=2)
        try:
            async with stream:
                async for event in stream:
                    events.append(event)
        except APIConnectionError as error:
            errors.append(error)
    assert len(server.requests) == 5
    assert [isinstance(error, APITimeoutError) for error in errors] == [end == "silence"] * (0 if end == "close" else 4)
    assert [str(error).split("starting_after=")[1].split(")")[0] for error in errors] == ["3", "6", "6", "7"][
        : len(errors)
    ]
    assert numbers(events) == list(range(len(events)))
    assert names(events) == [*BEGUN, *TEXT, "response.completed"]
    deltas = [event.delta for event in events if isinstance(event, ResponseTextDeltaEvent)]
    assert "".join(deltas) == "Hello from Paris, my friend"


async def test_the_stream_of_a_cancelled_response_is_the_same_when_it_is_resumed(
    server: Backend, client: Client
) -> None:
    events: list[ResponseStreamEvent] = []
    async with await begin(client) as stream:
        async for event in stream:
            events.append(event)
            if isinstance(event, ResponseTextDeltaEvent) and event.delta == "Hello":
                assert stream.response
                await client.responses.cancel(stream.response.id)
    assert names(events) == [*BEGUN, *TEXT[:3], "response.cancelled"]
    assert stream.response
    assert stream.response.status == "cancelled"
    again = await read(await client.responses.retrieve(stream.response.id, stream=True))
    assert again == events


@pytest.mark.real_time
async def test_the_official_client_reads_it(emulator: Emulator) -> None:
    emulator.script(Scenario(queued=0.02, working=0.05, answer="Hello from Paris"), model=MODEL)
    async with openai.AsyncOpenAI(base_url=emulator.base_url, api_key="test", max_retries=0) as client:
        stream = await client.responses.create(model=MODEL, input="Hi", background=True, stream=True)
        events = [event async for event in stream]
        types = list(dict.fromkeys(event.type for event in events))
        assert types == [*BEGUN, *TEXT, "response.completed"]
        last = events[-1]
        assert last.type == "response.completed"
        assert last.response.output_text == "Hello from Paris"
        rest = await client.responses.retrieve(last.response.id, stream=True, starting_after=3)
        assert [event.sequence_number async for event in rest] == [event.sequence_number for event in events[4:]]
        async with client.responses.stream(model=MODEL, input="Hi") as helper:
            assert (await helper.get_final_response()).output_text == "Hello from Paris"
