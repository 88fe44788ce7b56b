"""The emulator without sockets streams the same as the server on a port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncruns import APIConnectionError, APITimeoutError, Client, RunStream
from asyncruns.abc import ByteStream
from asyncruns.http import Request
from asyncruns.testing import Emulator, Fault, FunctionCall, InMemoryTransport, Scenario
from asyncruns.testing.emulator.backend import Backend
from asyncruns.wire import ErrorEvent, ThreadStreamEvent
from asyncruns.wire.codec import encode

CALLS = (FunctionCall("add", {"a": 1, "b": 2}),)
SCENARIO = Scenario(rounds=(CALLS,), answer="Hello from Paris")


@pytest.fixture
def transport() -> InMemoryTransport:
    transport = InMemoryTransport()
    transport.script(SCENARIO, assistant_id="asst_1")
    return transport


@pytest.fixture
async def client(transport: InMemoryTransport) -> AsyncIterator[Client]:
    async with Client(transport=transport) as client:
        yield client


async def begin(client: Client, **options: Any) -> RunStream:
    thread = await client.threads.create(messages=[{"role": "user", "content": "Hi"}])
    stream: RunStream = await client.threads.runs.create(thread.id, assistant_id="asst_1", stream=True, **options)
    return stream


async def whole_course(server: Backend, client: Client) -> list[tuple[float, str, bytes]]:
    """Return the events of a run with a round of calls: the time of each, and its data without ids and times."""
    loop = asyncio.get_running_loop()
    began, found = loop.time(), []

    def noted(event: ThreadStreamEvent) -> None:
        data = event.data if isinstance(event.data, str) else getattr(event.data, "delta", None)
        found.append((round(loop.time() - began, 1), event.event, encode(data) if "message" in event.event else b""))

    async with await begin(client) as stream:
        async for event in stream:
            noted(event)
    run = stream.run
    assert run
    assert run.required_action
    calls = run.required_action.submit_tool_outputs
    assert calls
    outputs = [{"tool_call_id": call.id, "output": "3"} for call in calls.tool_calls or []]
    async with await client.threads.runs.submit_tool_outputs(
        run.id, thread_id=run.thread_id, tool_outputs=outputs, stream=True
    ) as stream:
        async for event in stream:
            noted(event)
    assert server.submitted(run.id) == [{each["tool_call_id"]: "3" for each in outputs}]
    assert stream.message
    assert stream.message.text == "Hello from Paris"
    return found


async def test_it_streams_the_same_as_the_server_on_a_port(transport: InMemoryTransport, client: Client) -> None:
    async with Emulator() as emulator, Client(emulator.base_url) as other:
        emulator.script(SCENARIO, assistant_id="asst_1")
        assert await whole_course(transport, client) == await whole_course(emulator, other)


@pytest.mark.parametrize("end", ["close", "error", "break", "silence"])
async def test_a_fault_ends_a_stream_too_early(transport: InMemoryTransport, client: Client, end: Any) -> None:
    transport.inject(Fault(on="create_run", stream=end, events=2))
    found: list[ThreadStreamEvent] = []

    async def read() -> None:
        async with await begin(client, timeout=5) as stream:
            found.extend([event async for event in stream])

    if end in ("close", "error"):
        await read()
        assert [event.event for event in found][2:] == ["error"] * (end == "error")
        assert isinstance(found[-1], ErrorEvent) is (end == "error")
    else:
        with pytest.raises(APIConnectionError, match=r"run_\w+ goes on at the server") as caught:
            await read()
        assert isinstance(caught.value, APITimeoutError) is (end == "silence")


async def test_a_cancelled_read_loses_nothing(client: Client) -> None:
    names = []
    async with await begin(client) as stream:
        while True:
            try:
                async with asyncio.timeout(0.03):
                    names.append((await anext(stream)).event)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
    async with await begin(client) as stream:
        assert [event.event async for event in stream] == names


async def test_send_returns_a_whole_stream(transport: InMemoryTransport, client: Client) -> None:
    thread = await client.threads.create()
    body = encode({"assistant_id": "asst_1", "stream": True})
    response = await transport.send(Request("POST", f"/threads/{thread.id}/runs", body=body))
    assert response.headers["content-type"] == "text/event-stream"
    assert response.body.startswith(b"event: thread.run.created\ndata: {")
    assert response.body.endswith(b"event: done\ndata: [DONE]\n\n")


async def test_a_closed_stream_returns_no_more_events(transport: InMemoryTransport, client: Client) -> None:
    thread = await client.threads.create()
    body = encode({"assistant_id": "asst_1", "stream": True})
    stream = await transport.stream(Request("POST", f"/threads/{thread.id}/runs", body=body))
    assert isinstance(stream, ByteStream)
    assert await stream.read()
    await stream.aclose()
    assert await stream.read() == b""
