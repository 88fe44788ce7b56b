"""The text of an outcome: what a run holds is read from it, and nothing is fetched that it has already."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest
from scripted import scene
from shells import Shell, watched

from asyncruns import Client, Completed, Failed, RunFailedError, RunRef
from asyncruns.abc import ByteStream, Transport
from asyncruns.http import Request, Response
from asyncruns.testing import FunctionCall, InMemoryTransport, Scenario
from asyncruns.wire import decode
from asyncruns.wire.responses import ModelResponse

MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant"}
HI = {"type": "output_text", "text": "Hi"}


class Stateless(Transport):
    """Answers the first request about a response, and no other, like a server that does not store responses."""

    def __init__(self, **fields: Any) -> None:
        self.body = {"id": "resp_1", "object": "response", "status": "completed", **fields}
        self.asked: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.asked.append(request)
        if len(self.asked) > 1:
            return Response(404, {}, b'{"error":{"message":"No response found with id resp_1."}}')
        return Response(200, {}, msgspec.json.encode(self.body))

    async def aclose(self) -> None:
        pass


async def watched_response(shell: Shell, transport: Transport) -> Any:
    client = Client(transport=transport)
    return await watched(shell, client.responses.continued(), RunRef("response", ("resp_1",)))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        pytest.param({"output": [{**MESSAGE, "content": [HI]}]}, "Hi", id="as documented"),
        pytest.param({"output": [{**MESSAGE, "content": "Hi"}]}, "Hi", id="content is a string"),
        pytest.param({"output": [{**MESSAGE, "content": HI}]}, "Hi", id="content is the only part"),
        pytest.param({"output": [{**MESSAGE, "content": ["Hi"]}]}, "Hi", id="a part is a string"),
        pytest.param({"output": [{**MESSAGE, "content": [{**HI, "text": {"value": "Hi"}}]}]}, "Hi", id="as threads"),
        pytest.param({"output": [{**MESSAGE, "content": [{"type": "text", "text": "Hi"}]}]}, "Hi", id="another type"),
        pytest.param({"output": [{**MESSAGE, "content": [{"text": "Hi"}]}]}, "Hi", id="no type"),
        pytest.param({"output": [{**MESSAGE, "content": [{**HI, "annotations": None}]}]}, "Hi", id="annotations"),
        pytest.param({"output": [{**MESSAGE, "content": [None, HI, 5, {**HI, "text": None}]}]}, "Hi", id="nulls"),
        pytest.param(
            {"output": [{**MESSAGE, "content": [{"type": "refusal", "refusal": None}, HI]}]}, "Hi", id="a null refusal"
        ),
        pytest.param({"output": [{**MESSAGE, "content": [{"type": "refusal", "refusal": "No."}]}]}, "", id="refused"),
        pytest.param({"output": "Hi"}, "Hi", id="output is a string"),
        pytest.param({"output": None, "output_text": "Hi"}, "Hi", id="output_text alone"),
        pytest.param({"output": [{**MESSAGE, "content": [HI]}], "output_text": "Hi"}, "Hi", id="output_text, too"),
        pytest.param({"output": [{"type": "reasoning", "summary": []}]}, "", id="no message"),
        pytest.param({"output": None}, "", id="output is null"),
        pytest.param({}, "", id="no output"),
        pytest.param({"output": [{**MESSAGE, "content": None}]}, "", id="content is null"),
    ],
)
async def test_the_text_of_a_response_is_what_its_outcome_holds(shell: Shell, fields: Any, text: str) -> None:
    transport = Stateless(**fields)
    outcome = await watched_response(shell, transport)
    began = anyio.current_time()
    assert await outcome.text() == text
    assert [message.text for message in await outcome.messages() if message.text] == ([text] if text else [])
    assert (len(transport.asked), anyio.current_time()) == (1, began)


async def test_an_incomplete_response_has_its_text_so_far(shell: Shell) -> None:
    transport = Stateless(status="incomplete", output=[{**MESSAGE, "content": [HI]}])
    outcome = await watched_response(shell, transport)
    assert [message.text for message in await outcome.messages()] == ["Hi"]
    assert len(transport.asked) == 1


async def test_the_text_after_a_round_is_that_of_the_last_response(shell: Shell) -> None:
    transport = InMemoryTransport(Scenario(rounds=((FunctionCall("add", {}),),), answer="Seven"))
    async with Client(transport=transport) as client:
        first = await client.responses.create(model="gpt-test", input="Hello", background=True)
        handler: dict[str, Any] = {"on_requires_action": lambda calls: {call.id: "7" for call in calls}}
        outcome = await watched(shell, client.responses.continued(), first, **handler)
    before = len(transport.requests)
    assert await outcome.text() == "Seven"
    assert (len(outcome.refs), len(transport.requests)) == (2, before)


async def test_a_response_that_was_complete_when_it_was_given_needs_no_request(shell: Shell) -> None:
    transport = Stateless()
    body = {"id": "resp_1", "status": "completed", "output": [{**MESSAGE, "content": [HI]}]}
    given = decode(msgspec.json.encode(body), ModelResponse)
    outcome = await watched(shell, Client(transport=transport).responses.continued(), given)
    assert await outcome.text() == "Hi"


async def test_messages_are_fetched_again_only_for_a_completed_run_of_a_thread(shell: Shell) -> None:
    for status, kind, asks in (("completed", Completed, 5), ("failed", Failed, 1)):
        stage = scene(_run(status))
        outcome = await watched(shell, stage, stage.ref)
        assert isinstance(outcome, kind)
        asked = 0

        async def answer(ref: RunRef) -> list[Any]:
            nonlocal asked
            asked += 1
            return []

        stage.answer = answer  # type: ignore[method-assign]
        began = anyio.current_time()
        assert await outcome.messages() == []
        assert (asked, anyio.current_time() > began) == (asks, asks > 1)


async def test_the_text_of_a_failed_run_is_not_waited_for(shell: Shell) -> None:
    stage = scene(_run("failed"))
    outcome = await watched(shell, stage, stage.ref)
    began = anyio.current_time()
    with pytest.raises(RunFailedError):
        await outcome.text()
    assert anyio.current_time() == began


def _run(status: str) -> Response:
    body = {"id": "run_1", "thread_id": "thread_1", "status": status}
    return Response(200, {}, msgspec.json.encode(body))


class Streamed(Transport):
    """Answers with a stream of these events, and nothing afterwards."""

    def __init__(self, *events: bytes) -> None:
        self.events = list(events)

    async def stream(self, request: Request) -> Response | ByteStream:
        return _Bytes(self.events)

    async def send(self, request: Request) -> Response:
        return Response(404, {}, b"{}")

    async def aclose(self) -> None:
        pass


class _Bytes(ByteStream):
    def __init__(self, events: list[bytes]) -> None:
        self.status, self.headers = 200, {"content-type": "text/event-stream"}
        self._events = events

    async def read(self) -> bytes:
        return self._events.pop(0) if self._events else b""

    async def aclose(self) -> None:
        self._events.clear()


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + msgspec.json.encode({"type": kind, **fields}) + b"\n\n"


async def test_a_stream_whose_last_event_lacks_the_output_keeps_the_text_of_its_deltas() -> None:
    head = {"id": "resp_1", "object": "response"}
    transport = Streamed(
        event("response.created", response={**head, "status": "in_progress", "output": []}),
        event("response.output_item.added", output_index=0, item={**MESSAGE, "content": []}),
        event("response.content_part.added", output_index=0, content_index=0, part={"type": "output_text", "text": ""}),
        event("response.output_text.delta", output_index=0, content_index=0, delta="Hi"),
        event("response.completed", response={**head, "status": "completed"}),
    )
    client = Client(transport=transport)
    stream = await client.responses.create(model="gpt-test", input="Hello", background=True, stream=True)
    outcome = await client.watch(stream)
    assert await outcome.text() == "Hi"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([{"type": "text", "text": "Hi"}], id="text is a string"),
        pytest.param("Hi", id="content is a string"),
        pytest.param([None, "Hi", {"type": "text", "text": None}], id="a part is a string, others null"),
        pytest.param([{"type": "output_text", "text": "Hi"}, {"type": "refusal", "refusal": None}], id="as responses"),
        pytest.param([{"type": "text", "text": {"value": "Hi", "annotations": None}}], id="annotations are null"),
    ],
)
async def test_the_text_of_a_thread_is_read_however_it_is_written(shell: Shell, content: Any) -> None:
    class Thread(Transport):
        async def send(self, request: Request) -> Response:
            if not request.path.endswith("/messages"):
                return _run("completed")
            message = {"id": "msg_1", "role": "assistant", "run_id": "run_1", "content": content}
            return Response(200, {}, msgspec.json.encode({"data": [message], "has_more": False}))

        async def aclose(self) -> None:
            pass

    outcome = await watched(shell, Client(transport=Thread()), RunRef("thread.run", ("thread_1", "run_1")))
    assert await outcome.text() == "Hi"
