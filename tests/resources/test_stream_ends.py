"""How streams end: with the run's end, whatever the connection does then; and with an error if they broke off."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from scripted_stream import BREAK, DONE, END, RUN, STOP, Piece, StreamServer, delta, event, message, run

from asyncruns import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    AssistantEventHandler,
    Client,
    Completed,
    RunWatcher,
)
from asyncruns.sse import BodyKind, body_kind
from asyncruns.streams.event_stream import source_of

HELLO = [run("queued"), message("in_progress"), delta("Hel"), delta("lo"), message("completed"), run("completed")]
RESPONSE: dict[str, Any] = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
TEXT = [{"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}]
IDS: dict[str, Any] = {"thread_id": "thread_1", "assistant_id": "asst_1"}


def response_event(kind: str, number: int, **fields: object) -> bytes:
    return event(kind, {"type": kind, "sequence_number": number, **fields})


def response(status: str, **fields: object) -> dict[str, Any]:
    return {**RESPONSE, "status": status, **fields}


HELLO_RESPONSE = [
    response_event("response.created", 0, response=RESPONSE),
    response_event("response.output_text.delta", 1, output_index=0, content_index=0, item_id="m", delta="Hel"),
    response_event("response.output_text.delta", 2, output_index=0, content_index=0, item_id="m", delta="lo"),
    response_event("response.completed", 3, response=response("completed", output=TEXT)),
]


def now() -> float:
    return asyncio.get_running_loop().time()


async def stream_of(client: Client, wire: str) -> Any:
    if wire == "threads":
        return await client.threads.runs.create("thread_1", assistant_id="asst_1", stream=True)
    return await client.responses.create(model="m", input="Hi", background=True, stream=True)


async def texts_of(stream: Any) -> str:
    return "".join([text async for text in stream.text_deltas()])


# The end


@pytest.mark.parametrize("wire", ["threads", "responses"])
@pytest.mark.parametrize("after", [[STOP], [0.1, BREAK], [b": ping\n\n", 1.0] * 40, [END]], ids=str)
async def test_the_event_of_the_runs_end_ends_a_stream_whatever_follows(wire: str, after: list[Piece]) -> None:
    script = HELLO if wire == "threads" else HELLO_RESPONSE
    async with StreamServer(*script, *after) as server, Client(server.base_url) as client:
        before = now()
        stream = await stream_of(client, wire)
        assert await texts_of(stream) == "Hello"
        assert now() - before < 0.5
        connection: Any = client.responses.continued() if wire == "responses" else client
        async with RunWatcher(connection, await stream_of(client, wire)) as watcher:
            assert "".join([text async for text in watcher.text_deltas()]) == "Hello"
            assert isinstance(await watcher.wait(), Completed)
            assert watcher.polls == 0
        assert now() - before < 1.0


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete", "cancelled", "expired"])
async def test_a_handlers_stream_ends_with_the_run(status: str) -> None:
    class Ends(AssistantEventHandler):
        ended = 0

        async def on_end(self) -> None:
            Ends.ended += 1

    async with StreamServer(run("queued"), run(status), STOP) as server, Client(server.base_url) as client:
        before = now()
        async with client.threads.runs.stream(**IDS, event_handler=Ends()) as stream:
            await stream.until_done()
            assert (await stream.get_final_run()).status == status
        assert (Ends.ended, now() - before < 0.5) == (1, True)


async def test_a_stream_that_is_left_open_while_the_run_waits_ends_soon() -> None:
    script = (run("queued"), run("requires_action"), STOP)
    async with StreamServer(*script) as server, Client(server.base_url) as client:
        before = now()
        assert await texts_of(await stream_of(client, "threads")) == ""
        assert now() - before < 2.0


async def test_a_stream_is_read_on_if_the_run_stops_waiting_by_itself() -> None:
    script = (run("requires_action"), 0.5, run("in_progress"), 20.0, delta("Hi"), run("completed"), STOP)
    async with StreamServer(*script) as server, Client(server.base_url) as client:
        assert await texts_of(await stream_of(client, "threads")) == "Hi"


async def test_a_stream_that_is_left_open_after_an_error_ends_soon() -> None:
    script = (run("queued"), event("error", {"message": "overloaded"}), STOP)
    async with StreamServer(*script) as server, Client(server.base_url) as client:
        before = now()
        assert len([found async for found in await stream_of(client, "threads")]) == 2
        assert now() - before < 2.0


async def test_events_that_follow_the_end_at_once_are_still_delivered() -> None:
    step = {"id": "step_1", "object": "thread.run.step", "status": "completed"}
    late = (0.1, event("thread.run.step.completed", step), 0.1, DONE, STOP)
    async with StreamServer(*HELLO, *late) as server, Client(server.base_url) as client:
        stream = await stream_of(client, "threads")
        names = [found.event async for found in stream]
        assert names[-3:] == ["thread.run.completed", "thread.run.step.completed", "done"]
        assert stream.is_done


# Streams that break off


@pytest.mark.parametrize("how", [END, BREAK])
@pytest.mark.parametrize("wire", ["threads", "responses"])
async def test_text_deltas_raise_if_the_text_broke_off(wire: str, how: str) -> None:
    script = HELLO[:3] if wire == "threads" else HELLO_RESPONSE[:2]
    async with StreamServer(*script, how) as server, Client(server.base_url) as client:
        texts = []
        with pytest.raises(APIConnectionError, match=r"(run_1|resp_1) goes on at the server"):
            async for text in (await stream_of(client, wire)).text_deltas():
                texts.append(text)
        assert texts == ["Hel"]


async def test_the_text_deltas_of_a_handler_raise_if_the_text_broke_off() -> None:
    async with StreamServer(*HELLO[:3], END) as server, Client(server.base_url) as client:
        async with client.threads.runs.stream(**IDS) as stream:
            with pytest.raises(APIConnectionError, match="may be incomplete"):
                assert [text async for text in stream.text_deltas] == []
        async with client.threads.runs.stream(**IDS) as stream:
            with pytest.raises(APIConnectionError, match="may be incomplete"):
                await stream.get_final_messages()
        async with client.threads.runs.stream(**IDS) as stream:
            assert (await stream.get_final_run()).status == "queued"  # the status shows that it has not ended


async def test_a_done_that_a_gateway_adds_to_a_broken_stream_does_not_make_the_text_complete() -> None:
    for wire, script in (("threads", HELLO[:3]), ("responses", HELLO_RESPONSE[:2])):
        async with StreamServer(*script, DONE, END) as server, Client(server.base_url) as client:
            with pytest.raises(APIConnectionError, match="may be incomplete"):
                await texts_of(await stream_of(client, wire))
    async with StreamServer(*HELLO[:5], DONE, END) as server, Client(server.base_url) as client:
        assert await texts_of(await stream_of(client, "threads")) == "Hello"  # its message is completed


async def test_a_stream_that_the_caller_closes_ends_without_an_error() -> None:
    async with StreamServer(*HELLO[:3], STOP) as server, Client(server.base_url) as client:
        stream = await stream_of(client, "threads")
        async for _ in stream.text_deltas():
            await stream.close()


async def test_text_that_no_delta_contained_is_delivered_with_the_event_that_contains_it() -> None:
    whole = message("completed", content=[{"type": "text", "text": {"value": "Hello, you", "annotations": []}}])
    for script in (HELLO[:2], HELLO[:3], HELLO[:4]):
        async with StreamServer(*script, whole, run("completed"), END) as server, Client(server.base_url) as client:
            assert await texts_of(await stream_of(client, "threads")) == "Hello, you"
            async with client.threads.runs.stream(**IDS) as stream:
                assert "".join([text async for text in stream.text_deltas]) == "Hello, you"
    for count in range(1, 4):
        async with (
            StreamServer(*HELLO_RESPONSE[:count], HELLO_RESPONSE[-1], END) as server,
            Client(server.base_url) as client,
        ):
            assert await texts_of(await stream_of(client, "responses")) == "Hello"


# Events of another run


@pytest.mark.parametrize("wire", ["threads", "responses"])
async def test_an_event_of_another_run_raises(wire: str) -> None:
    if wire == "threads":
        script = [*HELLO[:3], event("thread.run.completed", {**RUN, "id": "run_9", "status": "completed"}), *HELLO[3:]]
    else:
        script = [
            *HELLO_RESPONSE[:2],
            response_event("response.completed", 2, response=response("completed", id="resp_9")),
            *HELLO_RESPONSE[2:],
        ]
    async with StreamServer(*script, END) as server, Client(server.base_url) as client:
        stream = await stream_of(client, wire)
        texts = []
        with pytest.raises(APIResponseValidationError, match=r"_9'.*(run_1|resp_1)"):
            async for text in stream.text_deltas():
                texts.append(text)
        assert texts == ["Hel"]
        assert (stream.run if wire == "threads" else stream.response).id in ("run_1", "resp_1")
        assert [found async for found in stream] == []


async def test_the_first_event_must_be_of_the_run_that_was_asked_for() -> None:
    stranger = event("thread.message.delta", {"id": "msg_9", "delta": {"content": []}})
    begun = event(
        "thread.message.created", {"id": "msg_9", "object": "thread.message", "role": "assistant", "run_id": "run_9"}
    )
    for script in ((run("queued"),), (begun, stranger)):
        async with StreamServer(*script, END) as server, Client(server.base_url) as client:
            outputs = [{"tool_call_id": "call_1", "output": "5"}]
            stream: Any = await client.threads.runs.submit_tool_outputs(
                "run_5", thread_id="thread_1", tool_outputs=outputs, stream=True
            )
            with pytest.raises(APIResponseValidationError, match=r"event of 'run_[19]', but belongs to 'run_5'"):
                await texts_of(stream)
    async with StreamServer(*HELLO_RESPONSE, END) as server, Client(server.base_url) as client:
        reopened: Any = await client.responses.retrieve("resp_5", stream=True)
        with pytest.raises(APIResponseValidationError, match="event of 'resp_1'"):
            await texts_of(reopened)


async def test_an_event_of_another_run_after_the_end_changes_nothing() -> None:
    other = event("thread.run.failed", {**RUN, "id": "run_9", "status": "failed"})
    async with StreamServer(*HELLO, other, END) as server, Client(server.base_url) as client:
        stream = await stream_of(client, "threads")
        assert await texts_of(stream) == "Hello"
        assert stream.run.id == "run_1"


# Answers with a misleading content type, and objects instead of events


KINDS = ["application/json", "text/event-stream", "text/plain", "application/octet-stream"]


@pytest.mark.parametrize(("kind", "after"), [*((kind, END) for kind in KINDS), *((kind, STOP) for kind in KINDS[1:])])
async def test_a_run_that_is_sent_instead_of_a_stream_is_an_event(kind: str, after: str) -> None:
    for wire, found in (("threads", {**RUN, "status": "queued"}), ("responses", RESPONSE)):
        body = json.dumps(found, indent=1).encode()
        async with StreamServer(body[:9], 0.1, body[9:], after, kind=kind) as server, Client(server.base_url) as client:
            stream = await stream_of(client, wire)
            (only,) = [found async for found in stream]
            contained: Any = source_of(stream).run_in(only)
            assert contained.status == found["status"]
            assert (stream.run if wire == "threads" else stream.response).id == found["id"]
            stream = await stream_of(client, wire)
            with pytest.raises(APIConnectionError, match=r"not with a stream.*(run_1|resp_1) goes on"):
                await texts_of(stream)


@pytest.mark.parametrize("kind", KINDS)
async def test_events_are_a_stream_whatever_their_content_type(kind: str) -> None:
    for wire, script in (("threads", HELLO), ("responses", HELLO_RESPONSE)):
        async with (
            StreamServer(b": hello", b"\n\n", *script, END, kind=kind) as server,
            Client(server.base_url) as client,
        ):
            assert await texts_of(await stream_of(client, wire)) == "Hello"


async def test_events_that_are_labelled_as_json_arrive_as_they_are_sent() -> None:
    async with (
        StreamServer(*HELLO[:3], 1000.0, END, kind="application/json") as server,
        Client(server.base_url) as client,
    ):
        stream = await stream_of(client, "threads")
        before = now()
        assert (await anext(stream)).event == "thread.run.queued"
        assert now() - before < 1.0
        await stream.close()


async def test_a_response_that_is_sent_instead_of_a_stream_has_its_text() -> None:
    body = json.dumps(response("completed", output=TEXT)).encode()
    for kind in KINDS:
        async with StreamServer(body, END, kind=kind) as server, Client(server.base_url) as client:
            assert await texts_of(await stream_of(client, "responses")) == "Hello"


async def test_an_error_that_is_sent_as_a_stream_is_an_error() -> None:
    for body in (b'{"error": {"message": "No such model"}}', b'{"type": "error", "message": "No such model"}'):
        async with StreamServer(body, END) as server, Client(server.base_url) as client:
            with pytest.raises(APIError, match="No such model"):
                await texts_of(await stream_of(client, "responses"))


async def test_half_a_json_body_is_an_event_and_not_an_empty_stream() -> None:
    async with StreamServer(b'{"id": "run_1", "sta', END) as server, Client(server.base_url) as client:
        (only,) = [found async for found in await stream_of(client, "threads")]
        assert only.data == '{"id": "run_1", "sta'


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"", None),
        (b"\xef\xbb\xbf \r\n", None),
        (b"dat", None),
        (b"data:", BodyKind.EVENTS),
        (b"event\n", BodyKind.EVENTS),
        (b"\n\n: ping", BodyKind.EVENTS),
        (b"\xef\xbb\xbfid: 1", BodyKind.EVENTS),
        (b" {", BodyKind.JSON),
        (b"[", BodyKind.JSON),
        (b"<html>", BodyKind.OTHER),
        (b"Hi: you", BodyKind.OTHER),
    ],
)
def test_the_first_bytes_decide_what_a_body_is(start: bytes, kind: BodyKind | None) -> None:
    assert body_kind(start) is kind
