"""Streams of runs and of responses, read by the client: good ones, and everything that can go wrong."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from scripted_stream import BREAK, DONE, END, FLOOD, RUN, STOP, Piece, StreamServer, delta, event, message, run

from asyncruns import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APITimeoutError,
    BadRequestError,
    BearerAuth,
    Client,
    ConfigurationError,
    EventTooLargeError,
    InvalidRequestError,
    NotFoundError,
    ThreadBusyError,
)
from asyncruns.abc import Transport
from asyncruns.http import Request, Response
from asyncruns.resources.base import Server
from asyncruns.resources.runs import Runs
from asyncruns.streams.event_stream import source_of
from asyncruns.streams.response_stream import ResponseStream
from asyncruns.streams.run_stream import RunStream
from asyncruns.wire import DoneEvent, ErrorEvent, MessageDeltaEvent, RunEvent, UndecodableEvent

KEY = "sk-hidden-0123456789abcdef"
HELLO = [run("queued"), message("in_progress"), delta("Hel"), delta("lo"), message("completed"), run("completed")]


def client_of(server: StreamServer, **options: Any) -> Client:
    return Client(server.base_url, auth=BearerAuth(KEY), **options)


async def create(client: Client, **more: Any) -> RunStream:
    stream: RunStream = await client.threads.runs.create("thread_1", assistant_id="asst_1", stream=True, **more)
    return stream


async def test_a_stream_yields_typed_events_to_its_end() -> None:
    async with StreamServer(*HELLO, DONE, END) as server, client_of(server) as client:
        async with await create(client, temperature=1) as stream:
            assert stream.run is None
            events = [event async for event in stream]
        assert [event.event for event in events] == [
            "thread.run.queued",
            "thread.message.in_progress",
            "thread.message.delta",
            "thread.message.delta",
            "thread.message.completed",
            "thread.run.completed",
            "done",
        ]
        assert isinstance(events[0], RunEvent)
        assert stream.run is not None
        assert (stream.run.status, stream.is_done, stream.error, stream.request_id) == (
            "completed",
            True,
            None,
            "req_1",
        )
        assert server.body() == {"assistant_id": "asst_1", "temperature": 1, "stream": True}
        head = server.requests[0][0]
        assert "Accept: text/event-stream" in head
        assert KEY in head


async def test_the_message_includes_all_deltas_so_far() -> None:
    async with StreamServer(*HELLO, DONE, END) as server, client_of(server) as client:
        seen = []
        async with await create(client) as stream:
            async for found in stream:
                if isinstance(found, MessageDeltaEvent):
                    assert stream.message is not None
                    seen.append(stream.message.text)
        assert seen == ["Hel", "Hello"]
        assert [found.id for found in stream.messages] == ["msg_1"]
        assert (stream.steps, stream.step, stream.thread) == ([], None, None)
        assert repr(stream) == "<RunStream run_1 completed>"


async def test_text_deltas_yield_the_text_alone() -> None:
    async with StreamServer(*HELLO, DONE, END) as server, client_of(server) as client:
        stream = await client.threads.create_and_run(assistant_id="asst_1", thread={"messages": []}, stream=True)
        assert [text async for text in stream.text_deltas()] == ["Hel", "lo"]
        await stream.close()
        assert server.requests[0][0].startswith("POST /v1/threads/runs ")


async def test_the_connection_of_a_stream_that_was_read_to_its_end_is_reused() -> None:
    async with StreamServer(*HELLO, DONE, 0.1, END) as server, client_of(server) as client:
        outputs = [{"tool_call_id": "call_1", "output": "5"}]
        for _ in range(3):
            async with await client.threads.runs.submit_tool_outputs(
                "run_1", thread_id="thread_1", tool_outputs=outputs, stream=True
            ) as stream:
                assert [type(event) for event in [event async for event in stream]][-1] is DoneEvent
        assert server.connections == 1
        assert server.body() == {"tool_outputs": outputs, "stream": True}


async def test_a_stream_ends_with_done_without_waiting() -> None:
    async with StreamServer(*HELLO, DONE, delta("late"), STOP) as server, client_of(server) as client:
        before = asyncio.get_running_loop().time()
        async with await create(client) as stream:
            events = [event async for event in stream]
        assert isinstance(events[-1], DoneEvent)
        assert asyncio.get_running_loop().time() - before < 1
        await server.left.wait()


async def test_a_stream_may_end_without_done() -> None:
    async with StreamServer(run("queued"), delta("Hel"), END) as server, client_of(server) as client:
        async with await create(client) as stream:
            assert len([event async for event in stream]) == 2
            assert [event async for event in stream] == []
        assert stream.run is not None
        assert (stream.run.status, stream.is_done) == ("queued", False)


async def test_data_counts_over_the_name_of_an_event() -> None:
    ended = run("in_progress", "thread.run.completed")
    async with StreamServer(ended, DONE, END) as server, client_of(server) as client:
        async with await create(client) as stream:
            async for _ in stream:
                pass
        assert stream.run is not None
        assert stream.run.status == "in_progress"


async def test_an_error_in_the_middle_is_an_event() -> None:
    error = event("error", {"message": f"Sorry, {KEY}", "type": "server_error", "param": None, "code": None})
    async with StreamServer(run("queued"), error, END) as server, client_of(server) as client:
        async with await create(client) as stream:
            events = [event async for event in stream]
        assert isinstance(events[-1], ErrorEvent)
        assert stream.error is not None
        assert stream.error == events[-1].data
        assert stream.error.message == "Sorry, ***"
        async with await create(client) as stream:
            with pytest.raises(APIError, match=r"gave up the stream .* Sorry, \*\*\*\. The run run_1 goes on"):
                assert [text async for text in stream.text_deltas()] == []


async def test_an_event_that_is_not_json_is_delivered_undecoded() -> None:
    broken = event("thread.run.queued", '{"id": "run_1", ')
    async with StreamServer(broken, DONE, END) as server, client_of(server) as client:
        async with await create(client) as stream:
            first, last = [event async for event in stream]
        assert isinstance(first, UndecodableEvent)
        assert first.data == '{"id": "run_1", '
        assert isinstance(last, DoneEvent)


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_a_stream_in_small_pieces_is_the_same(size: int) -> None:
    whole = b"".join([*HELLO, DONE])
    pieces = [whole[begin : begin + size] for begin in range(0, len(whole), size)]
    async with StreamServer(*pieces, END) as server, client_of(server) as client, await create(client) as stream:
        events = [event async for event in stream]
    assert len(events) == 7


# Errors while reading


async def test_a_stream_that_breaks_raises_and_the_message_says_what_to_do() -> None:
    async with (
        StreamServer(run("queued"), delta("Hel"), b"event: thread", BREAK) as server,
        client_of(server) as client,
    ):
        stream = await create(client)
        events = []
        with pytest.raises(
            APIConnectionError, match=r"broke off .* run run_1 goes on at the server: watch it"
        ) as caught:
            async for found in stream:
                events.append(found)
        assert len(events) == 2
        assert caught.value.sent
        assert (caught.value.method, caught.value.path) == ("POST", "/threads/thread_1/runs")
        assert KEY not in str(caught.value)
        assert [event async for event in stream] == []
        assert len(server.requests) == 1


async def test_a_slow_reader_gets_all_events_before_the_break() -> None:
    script = (run("queued"), 0.5, delta("Hel"), 0.1, delta("lo"), BREAK)
    async with StreamServer(*script) as server, client_of(server) as client:
        stream = await create(client)
        await anext(stream)
        await asyncio.sleep(5)
        for text in ("Hel", "Hello"):
            await anext(stream)
            assert stream.message is not None
            assert stream.message.text == text
        with pytest.raises(APIConnectionError, match="broke off"):
            await anext(stream)


async def test_the_error_of_a_stream_that_breaks_before_any_run_says_to_list_the_runs() -> None:
    async with StreamServer(b": hello\n\n", BREAK) as server, client_of(server) as client:
        with pytest.raises(APIConnectionError, match="may exist and go on on the thread thread_1"):
            await anext(await create(client))


async def test_a_stream_that_falls_silent_times_out() -> None:
    async with StreamServer(run("queued"), STOP) as server, client_of(server, request_timeout=20) as client:
        stream = await create(client)
        assert isinstance(await anext(stream), RunEvent)
        before = asyncio.get_running_loop().time()
        with pytest.raises(APITimeoutError, match=r"no byte in 20 s.* The run run_1 goes on"):
            await anext(stream)
        assert asyncio.get_running_loop().time() - before == pytest.approx(20, abs=0.1)
        await server.left.wait()


async def test_a_stream_lasts_as_long_as_bytes_arrive() -> None:
    script = [piece for _ in range(30) for piece in (b": ping\n\n", 9.0)]
    async with StreamServer(*script, DONE, END) as server, client_of(server, request_timeout=10) as client:
        async with await create(client) as stream:
            assert len([event async for event in stream]) == 1
        assert asyncio.get_running_loop().time() > 250


async def test_a_slow_reader_does_not_cause_a_timeout() -> None:
    async with StreamServer(*HELLO, 1.0, DONE, END) as server, client_of(server, request_timeout=5) as client:
        events = []
        async with await create(client) as stream:
            async for found in stream:
                events.append(found)
                await asyncio.sleep(60)
        assert len(events) == 7


async def test_without_a_timeout_a_silent_stream_is_waited_for() -> None:
    async with (
        StreamServer(run("queued"), 10_000.0, DONE, END) as server,
        client_of(server) as client,
        await create(client, request_timeout=None) as stream,
    ):
        assert len([event async for event in stream]) == 2


async def test_opening_a_stream_times_out_if_the_server_never_answers() -> None:
    async with StreamServer(STOP) as server, client_of(server, request_timeout=20) as client:
        with pytest.raises(APITimeoutError, match="No answer in time") as caught:
            await create(client)
        assert caught.value.sent
        await server.left.wait()


async def test_a_slow_reader_makes_the_server_pause() -> None:
    async with (
        StreamServer(run("queued"), delta("x" * 1000), FLOOD) as server,
        client_of(server) as client,
        await create(client) as stream,
    ):
        for _ in range(10):
            await anext(stream)
        before = -1
        while server.sent != before:  # until the server can send no more
            before = server.sent
            await asyncio.sleep(1)
        assert server.sent < 16_000_000  # what the kernel buffers on both sides
        source = source_of(stream)
        assert sum(map(len, source._reader._decoder._rest)) + len(source.ready) * 1200 < 1_000_000


async def test_an_endless_line_is_refused() -> None:
    async with StreamServer(run("queued"), b"data: ", b"x" * 1_000_000, FLOOD) as server, client_of(server) as client:
        stream = await create(client)
        await anext(stream)
        with pytest.raises(EventTooLargeError, match=r"more than 16777216 bytes.* run run_1 goes on") as caught:
            await anext(stream)
        assert caught.value.path == "/threads/thread_1/runs"
        assert caught.value.request_id == "req_1"
        await server.left.wait()
        assert server.sent < 40_000_000
        assert [event async for event in stream] == []


async def test_leaving_early_closes_the_connection() -> None:
    async with StreamServer(*HELLO, STOP) as server, client_of(server) as client:
        async with await create(client) as stream:
            await anext(stream)
        await server.left.wait()
        assert [event async for event in stream] == []
        await stream.close()


async def test_cancelling_a_read_loses_no_event() -> None:
    async with (
        StreamServer(run("queued"), 5.0, delta("Hel"), DONE, END) as server,
        client_of(server) as client,
        await create(client) as stream,
    ):
        await anext(stream)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(stream)
        assert len([event async for event in stream]) == 2


# Errors at the opening


async def test_an_error_answer_raises_the_same_exception_as_without_streaming() -> None:
    busy = "Thread thread_1 already has an active run run_9."
    for status, text, kind in (
        (404, "No thread", NotFoundError),
        (400, busy, ThreadBusyError),
        (400, KEY, BadRequestError),
    ):
        body = json.dumps({"error": {"message": text}}).encode()
        async with (
            StreamServer(body, END, status=status, kind="application/json") as server,
            client_of(server) as client,
        ):
            with pytest.raises(kind) as caught:
                await create(client)
            assert caught.value.status == status
            assert KEY not in str(caught.value)


async def test_an_answer_that_is_neither_a_stream_nor_a_run_raises() -> None:
    for body, kind in ((b'{"data": []}', "application/json; charset=utf-8"), (b"<html>id</html>", "text/html")):
        async with StreamServer(body, END, kind=kind) as server, client_of(server) as client:
            with pytest.raises(APIResponseValidationError, match=r"no stream of events"):
                await create(client)
    async with StreamServer(*HELLO, END, kind="text/plain") as server, client_of(server) as client:
        assert len([event async for event in await create(client)]) == 6


async def test_a_transport_may_return_a_whole_answer_instead_of_a_stream() -> None:
    class Whole(Transport):
        def __init__(self, answer: Response) -> None:
            self.answer = answer

        async def send(self, request: Request) -> Response:
            raise AssertionError("the client must call stream()")

        async def stream(self, request: Request) -> Response:
            return self.answer

        async def aclose(self) -> None:
            pass

    for status, kind in ((200, APIResponseValidationError), (404, NotFoundError)):
        threads = Runs(cast("Any", None), Server(Whole(Response(status, {}, b"{}"))))
        with pytest.raises(kind):
            await threads.create("thread_1", assistant_id="asst_1", stream=True)


async def test_headers_of_the_call_replace_those_of_the_stream() -> None:
    async with StreamServer(*HELLO, DONE, END) as server, client_of(server) as client:
        async with await create(client, extra_headers={"accept": "text/plain"}, extra_query={"x": "y"}) as stream:
            await anext(stream)
        head = server.requests[0][0]
        assert head.startswith("POST /v1/threads/thread_1/runs?x=y ")
        assert "text/event-stream" not in head


async def test_a_connection_that_breaks_after_done_raises_nothing() -> None:
    script: list[Piece] = [*HELLO, DONE, 0.1, BREAK]
    async with StreamServer(*script) as server, client_of(server) as client, await create(client) as stream:
        assert len([event async for event in stream]) == 7


async def test_an_event_that_is_not_json_shows_no_credential() -> None:
    broken = event("thread.run.queued", f"Wrong key {KEY}")
    async with (
        StreamServer(broken, broken.replace(KEY.encode(), b"of yours"), END) as server,
        client_of(server) as client,
        await create(client) as stream,
    ):
        assert [event.data async for event in stream] == ["Wrong key ***", "Wrong key of yours"]


async def test_only_the_opening_of_a_stream_is_retried() -> None:
    async with StreamServer(b"{}", END, status=429, kind="application/json") as server, client_of(server) as client:
        with pytest.raises(APIError, match="429"):
            await create(client)
        assert len(server.requests) == 3
    async with StreamServer(b"{}", END, status=500, kind="application/json") as server, client_of(server) as client:
        with pytest.raises(APIError, match="500"):
            await create(client)
        assert len(server.requests) == 1  # the run may exist


async def test_calls_that_can_not_stream_are_refused_before_sending() -> None:
    async with StreamServer(*HELLO, END) as server, client_of(server) as client:
        with pytest.raises(InvalidRequestError, match="adopt"):
            await create(client, adopt=True)
        with pytest.raises(InvalidRequestError, match="with_raw_response"):
            await client.threads.runs.with_raw_response.create("thread_1", assistant_id="asst_1", stream=True)
        assert server.requests == []


async def test_a_transport_without_streaming_raises() -> None:
    class Plain(Transport):
        async def send(self, request: Request) -> Response:
            raise AssertionError("nothing must be sent")

        async def aclose(self) -> None:
            pass

    with pytest.raises(ConfigurationError, match="Plain does not stream, so POST /threads was not sent"):
        await Plain().stream(Request("POST", "/threads"))


async def test_without_stream_no_stream_is_requested() -> None:
    body = json.dumps({**RUN, "status": "queued"}).encode()
    async with StreamServer(body, END, kind="application/json") as server, client_of(server) as client:
        created = await client.threads.runs.create("thread_1", assistant_id="asst_1", stream=False)
        assert created.id == "run_1"
        assert "stream" not in server.body()


# Responses


def response_event(kind: str, number: int, **fields: object) -> bytes:
    return event(kind, {"type": kind, "sequence_number": number, **fields})


RESPONSE = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
HELLO_RESPONSE = [
    response_event("response.created", 0, response=RESPONSE),
    response_event("response.output_item.added", 1, output_index=0, item={"type": "message", "id": "m", "content": []}),
    response_event("response.output_text.delta", 2, output_index=0, content_index=0, item_id="m", delta="Hel"),
    response_event("response.output_text.delta", 3, output_index=0, content_index=0, item_id="m", delta="lo"),
]


async def test_a_response_streams_its_text() -> None:
    completed = response_event("response.completed", 4, response={**RESPONSE, "status": "completed"})
    async with StreamServer(*HELLO_RESPONSE, completed, END) as server, client_of(server) as client:
        async with await client.responses.create(model="m", input="Hi", stream=True) as stream:
            assert [text async for text in stream.text_deltas()] == ["Hel", "lo"]
        assert stream.response is not None
        assert (stream.response.status, stream.response.output_text) == ("completed", "Hello")
        assert stream.sequence_number == 4
        assert server.body() == {"model": "m", "input": "Hi", "stream": True}
        assert repr(stream) == "<ResponseStream resp_1 completed>"


async def test_the_stream_of_a_response_is_reopened_where_it_broke() -> None:
    async with StreamServer(*HELLO_RESPONSE, BREAK) as server, client_of(server) as client:
        stream = await client.responses.create(model="m", input="Hi", background=True, stream=True)
        with pytest.raises(APIConnectionError, match=r"retrieve\('resp_1', stream=True, starting_after=3\)"):
            async for _ in stream:
                pass
        server.script = (response_event("response.output_text.delta", 4, delta="!"), STOP)
        again = await client.responses.retrieve("resp_1", stream=True, starting_after=stream.sequence_number)
        assert isinstance(again, ResponseStream)
        async for text in again.text_deltas():
            assert text == "!"
            break
        await again.close()
        assert server.requests[-1][0].startswith("GET /v1/responses/resp_1?stream=true&starting_after=3 ")
        assert again.response is None
        assert again.sequence_number == 4


async def test_the_error_of_a_response_is_an_event() -> None:
    error = event("error", {"type": "error", "code": "x", "message": "Sorry", "param": None, "sequence_number": 1})
    async with StreamServer(error, END) as server, client_of(server) as client:
        async with await client.responses.create(model="m", input="Hi", stream=True) as stream:
            (found,) = [event async for event in stream]
        assert isinstance(found, ErrorEvent)
        async with await client.responses.create(model="m", input="Hi", stream=True) as stream:
            with pytest.raises(APIError, match=r"Sorry\. The response may exist"):
                assert [text async for text in stream.text_deltas()] == []
