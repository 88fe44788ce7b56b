"""Event handlers: the same methods are called as in the official client, with the same arguments, in the same order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from handlers import heard_by_both
from scripted_stream import BREAK, DONE, STOP, StreamServer, delta, event, message, run

from asyncruns import APIConnectionError, APIError, AssistantEventHandler, BearerAuth, Client, InvalidRequestError
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario
from asyncruns.wire import FunctionToolCall, Run, Text, TextDelta

PROMPT: dict[str, Any] = {"queued": 0.02, "working": 0.05, "cancelling": 0.0}
CALLS = (FunctionCall("add", {"a": 1, "b": 2}), FunctionCall("add", {"a": 3, "b": 4}))
IDS: dict[str, Any] = {"thread_id": "thread_1", "assistant_id": "asst_1"}

of_both_clients = [
    pytest.mark.real_time,  # the other HTTP client resolves names and counts timeouts by real time
    pytest.mark.filterwarnings("ignore:(The Assistants API is )?deprecated:DeprecationWarning"),
]


def named(heard: list[tuple[Any, ...]]) -> list[str]:
    """Return the names of the calls except `on_event`; equal ones that follow one another count as one."""
    names = [call[0] for call in heard if call[0] != "on_event"]
    return [name for place, name in enumerate(names) if names[place - 1 : place] != [name]]


class TestBothClients:
    """The same handler, run by our client and the official one."""

    pytestmark = of_both_clients

    @pytest.fixture
    async def emulator(self, emulator: Emulator) -> Emulator:
        emulator.script(Scenario(**PROMPT, answer="Hello from Paris"), assistant_id="asst_1")
        emulator.script(Scenario(**PROMPT, rounds=(CALLS,), answer="Seven"), assistant_id="asst_calls")
        emulator.script(Scenario(**PROMPT, end="failed"), assistant_id="asst_fails")
        emulator.script(Scenario(**PROMPT, end="incomplete", answer="Too long"), assistant_id="asst_long")
        return emulator

    @pytest.mark.parametrize("assistant_id", ["asst_1", "asst_calls", "asst_fails", "asst_long"])
    async def test_both_clients_call_the_same_methods_for_a_run(self, emulator: Emulator, assistant_id: str) -> None:
        thread = {"messages": [{"role": "user", "content": "Hi"}]}

        async def read(client: Any, handler: Any) -> None:
            async with client.beta.threads.create_and_run_stream(
                assistant_id=assistant_id, thread=thread, event_handler=handler
            ) as stream:
                assert stream is handler
                await stream.until_done()

        ours, theirs = await heard_by_both(emulator.base_url, read)
        assert [call[0] for call in ours] == [call[0] for call in theirs]
        assert len(ours) > 5

    async def test_a_handler_can_submit_the_outputs_of_the_calls_that_it_handles(self, emulator: Emulator) -> None:
        texts: list[str] = []
        runs: list[str] = []

        async def read(client: Any, handler: Any) -> None:
            class CallAnswerer(type(handler)):  # type: ignore[misc]  # the class of either client
                async def on_event(self, event: Any) -> None:
                    await super().on_event(event)
                    if event.event == "thread.run.requires_action":
                        calls = event.data.required_action.submit_tool_outputs.tool_calls
                        outputs = [{"tool_call_id": call.id, "output": "7"} for call in calls]
                        async with client.beta.threads.runs.submit_tool_outputs_stream(
                            thread_id=self.current_run.thread_id,
                            run_id=self.current_run.id,
                            tool_outputs=outputs,
                            event_handler=type(handler)(),
                        ) as stream:
                            texts.append("".join([text async for text in stream.text_deltas]))
                            final = await stream.get_final_run()
                            runs.append(final.status)
                            assert (await stream.get_final_run_steps())[-1].type == "message_creation"
                            (found,) = await stream.get_final_messages()
                            assert found.content[0].text.value == "Seven"

            thread = await client.beta.threads.create(messages=[{"role": "user", "content": "Hi"}])
            async with client.beta.threads.runs.stream(
                thread_id=thread.id, assistant_id="asst_calls", event_handler=CallAnswerer()
            ) as stream:
                await stream.until_done()

        ours, theirs = await heard_by_both(emulator.base_url, read)
        assert [call[0] for call in ours] == [call[0] for call in theirs]
        assert (texts, runs) == (["Seven"] * 2, ["completed"] * 2)
        assert len(ours) > 40

    async def test_both_clients_pass_the_same_arguments(self) -> None:
        async with StreamServer(*parts_of_all_kinds()) as server:
            ours, theirs = await heard_by_both(server.base_url, read_to_the_end)
        assert ours == theirs
        assert named(ours) == [
            "on_run_step_created",
            "on_tool_call_created",
            "on_run_step_delta",
            "on_tool_call_delta",
            "on_run_step_delta",
            "on_tool_call_done",
            "on_tool_call_created",
            "on_run_step_delta",
            "on_message_created",
            "on_text_created",
            "on_text_delta",
            "on_message_delta",
            "on_text_delta",
            "on_message_delta",
            "on_text_done",
            "on_message_delta",
            "on_text_created",
            "on_text_delta",
            "on_image_file_done",
            "on_message_delta",
            "on_text_done",
            "on_message_done",
            "on_tool_call_done",
            "on_end",
        ]

    @pytest.mark.parametrize("end", [BREAK, event("error", {"error": {"message": "Sorry"}})], ids=["break", "error"])
    async def test_both_clients_call_the_same_methods_for_a_stream_that_fails(self, end: Any) -> None:
        script = (run("created"), message("created"), delta("Hel"), 0.05, end)

        async def read(client: Any, handler: Any) -> None:
            with pytest.raises(Exception):  # noqa: B017, PT011 - each client has its own exceptions
                await read_to_the_end(client, handler)

        async with StreamServer(*script, "end the body") as server:
            ours, theirs = await heard_by_both(server.base_url, read)
        assert named(ours) == named(theirs)
        assert named(ours)[-2:] == ["on_exception", "on_end"]

    async def test_both_clients_call_the_same_methods_for_a_silent_stream(self) -> None:
        async def read(client: Any, handler: Any) -> None:
            with pytest.raises(Exception):  # noqa: B017, PT011 - as above
                await read_to_the_end(client, handler, timeout=1.0)  # enough to connect on a busy machine

        async with StreamServer(run("created"), STOP) as server:
            ours, theirs = await heard_by_both(server.base_url, read)
        assert named(ours) == named(theirs) == ["on_timeout", "on_exception", "on_end"]


async def read_to_the_end(client: Any, handler: Any, **options: Any) -> None:
    async with client.beta.threads.runs.stream(**IDS, event_handler=handler, **options) as stream:
        await stream.until_done()


def parts_of_all_kinds() -> list[Any]:
    """Return the script of a run that calls two tools, then writes a text, an image and a text."""

    def step(status: str) -> bytes:
        details = {"type": "tool_calls", "tool_calls": []}
        body = {"id": "step_1", "object": "thread.run.step", "type": "tool_calls", "step_details": details}
        return event(f"thread.run.step.{status}", {**body, "status": status.replace("created", "in_progress")})

    def call(index: int, **fields: Any) -> bytes:
        details = {"type": "tool_calls", "tool_calls": [{"index": index, "type": "function", **fields}]}
        body = {"id": "step_1", "object": "thread.run.step.delta", "delta": {"step_details": details}}
        return event("thread.run.step.delta", body)

    def part(index: int, **fields: Any) -> bytes:
        body = {"id": "msg_1", "object": "thread.message.delta", "delta": {"content": [{"index": index, **fields}]}}
        return event("thread.message.delta", body)

    def text(value: str) -> dict[str, Any]:
        return {"type": "text", "text": {"value": value, "annotations": []}}

    def function(arguments: str) -> dict[str, str]:
        return {"name": "add", "arguments": arguments}

    image = {"type": "image_file", "image_file": {"file_id": "file_1"}}
    begun = message("in_progress").replace(b"message.in_progress", b"message.created")
    whole = [text("Hello"), image, text("there")]
    return [
        *(run("queued", "thread.run.created"), run("in_progress"), step("created"), step("in_progress")),
        *(call(0, id="call_0", function=function("")), call(0, function={"arguments": "{}"})),
        call(1, id="call_1", function=function("{}")),
        *(begun, message("in_progress"), part(0, **text("Hel")), part(0, **text("lo"))),
        *(part(1, **image), part(2, **text("there")), message("completed", content=whole)),
        *(run("completed"), DONE, "end the body"),
    ]


async def stream_of(server: StreamServer, handler: AssistantEventHandler, **options: Any) -> list[str]:
    async with (
        Client(server.base_url, auth=BearerAuth("test")) as client,
        client.threads.runs.stream(**IDS, event_handler=handler, **options) as stream,
    ):
        return [event.event async for event in stream]


class Ends(AssistantEventHandler):
    """Counts the calls of `on_end`; its `__init__` does not call that of its base class."""

    def __init__(self) -> None:
        self.ends = 0
        self.errors: list[Exception] = []

    async def on_end(self) -> None:
        self.ends += 1

    async def on_exception(self, exception: Exception) -> None:
        assert self.ends == 0
        self.errors.append(exception)


PLAIN = (run("created"), run("completed"), DONE, "end the body")


async def test_iteration_yields_all_events_except_done() -> None:
    async with StreamServer(*PLAIN) as server, Client(server.base_url) as client:
        assert client.threads.runs.create_and_stream.__name__ == "stream"
        async with client.beta.threads.runs.stream(**IDS, temperature=0.5) as stream:
            assert [event.event async for event in stream] == ["thread.run.created", "thread.run.completed"]
            assert stream.current_run
            assert stream.current_run.status == "completed"
            assert (stream.current_event, stream.current_message_snapshot) == (None, None)
            assert (await stream.get_final_messages(), await stream.get_final_run_steps()) == ([], [])
        assert server.body() == {"assistant_id": "asst_1", "temperature": 0.5, "stream": True}


async def test_an_exception_of_a_method_ends_the_stream_and_is_raised() -> None:
    class Raising(Ends):
        async def on_event(self, event: Any) -> None:
            raise ValueError(event.event)

    handler = Raising()
    async with StreamServer(*PLAIN) as server:
        with pytest.raises(ValueError, match=r"thread\.run\.created"):
            await stream_of(server, handler)
    assert [str(error) for error in handler.errors] == ["thread.run.created"]
    assert handler.ends == 1
    assert [event async for event in handler] == []


async def test_on_end_is_called_when_the_stream_is_left_early() -> None:
    handler = Ends()
    async with StreamServer(run("created"), STOP) as server, Client(server.base_url) as client:
        async with client.threads.runs.stream(**IDS, event_handler=handler) as stream:
            await anext(stream)
            assert handler.ends == 0
        await server.left.wait()
        await stream.close()
    assert (handler.ends, handler.errors) == (1, [])


async def test_on_end_is_not_called_for_a_stream_that_was_never_read() -> None:
    handler = Ends()
    async with (
        StreamServer(*PLAIN) as server,
        Client(server.base_url) as client,
        client.threads.runs.stream(**IDS, event_handler=handler),
    ):
        pass
    assert handler.ends == 0


async def test_a_cancelled_read_loses_no_event_and_repeats_no_call() -> None:
    class Slow(Ends):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[str] = []

        async def on_event(self, event: Any) -> None:
            self.heard.append(event.event)
            await asyncio.sleep(0.5)

        async def on_message_created(self, message: Any) -> None:
            self.heard.append("on_message_created")

    handler = Slow()
    found: list[str] = []
    async with (
        StreamServer(run("created"), 1.0, message("created"), DONE, "end the body") as server,
        Client(server.base_url) as client,
        client.threads.runs.stream(**IDS, event_handler=handler) as stream,
    ):
        while handler.ends == 0:
            try:
                async with asyncio.timeout(0.3):
                    async for event in stream:
                        found.append(event.event)
            except TimeoutError:
                pass
    assert found == ["thread.run.created", "thread.message.created"]
    assert handler.heard == [*found, "on_message_created"]


async def test_an_error_of_the_server_is_handled_and_raised() -> None:
    handler = Ends()
    async with StreamServer(run("created"), event("error", {"message": "Sorry"}), DONE, "end the body") as server:
        with pytest.raises(APIError, match=r"gave up the stream.*Sorry.*run_1 goes on"):
            await stream_of(server, handler)
    assert (len(handler.errors), handler.ends) == (1, 1)


async def test_a_handler_is_for_one_stream() -> None:
    handler = Ends()
    with pytest.raises(InvalidRequestError, match="no stream yet"):
        await handler.until_done()
    await handler.close()
    async with StreamServer(*PLAIN) as server:
        await stream_of(server, handler)
        with pytest.raises(InvalidRequestError, match="make a new one"):
            await stream_of(server, handler)
        assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["on_event", "on_end"])
async def test_a_method_that_is_not_async_is_named(name: str) -> None:
    heard: list[object] = []

    class Printer(AssistantEventHandler):
        locals()[name] = lambda self, *event: heard.append(event)

    async with StreamServer(*PLAIN) as server:
        with pytest.raises(TypeError, match=f"^{name} of Printer must be `async def`$"):
            await stream_of(server, Printer())
    assert len(heard) == 1


async def test_a_class_is_refused_as_a_handler(emulator: Emulator) -> None:
    made: Any = Ends
    async with Client(emulator.base_url) as client:
        with pytest.raises(InvalidRequestError, match=r"must be an instance: event_handler=Ends\(\)$"):
            client.threads.runs.stream(**IDS, event_handler=made)


async def test_a_handler_can_be_used_again_if_its_stream_could_not_begin(emulator: Emulator) -> None:
    handler = Ends()
    emulator.script(Scenario(), assistant_id="asst_1")
    emulator.inject(Fault(on="create_run", status=503))
    async with Client(emulator.base_url, max_retries=0) as client:
        thread = await client.threads.create()
        for status in ("failed", "completed"):
            try:
                async with client.threads.runs.stream(
                    thread_id=thread.id, assistant_id="asst_1", event_handler=handler
                ) as stream:
                    assert (await stream.get_final_run()).status == status == "completed"
            except APIError:
                assert status == "failed"
    assert (handler.ends, handler.errors) == (1, [])


async def test_a_stream_without_an_event_of_its_run_has_no_final_run() -> None:
    async with (
        StreamServer(DONE, "end the body") as server,
        Client(server.base_url) as client,
        client.threads.runs.stream(**IDS) as stream,
    ):
        with pytest.raises(APIError, match="list the runs"):
            await stream.get_final_run()


async def test_a_broken_stream_says_what_to_do_next() -> None:
    handler = Ends()
    async with StreamServer(run("created"), 0.1, BREAK) as server:
        with pytest.raises(APIConnectionError, match=r"watch it with client\.watch"):
            await stream_of(server, handler)
    assert isinstance(handler.errors[0], APIConnectionError)


async def test_on_event_is_called_for_unknown_events() -> None:
    heard: list[str] = []

    class Hears(AssistantEventHandler):
        async def on_event(self, event: Any) -> None:
            heard.append(event.event)

    odd = (event("thread.run.dreaming", {"id": "run_1", "object": "thread.run", "status": "dreaming"}), event("x", "?"))
    async with StreamServer(*odd, delta("Hi"), *PLAIN) as server:
        found = await stream_of(server, Hears())
    assert heard == found
    assert found[:3] == ["thread.run.dreaming", "x", "thread.message.delta"]


async def test_a_call_is_done_once() -> None:
    done: list[str] = []

    class Hears(AssistantEventHandler):
        async def on_tool_call_done(self, tool_call: Any) -> None:
            assert isinstance(tool_call, FunctionToolCall)
            done.append(tool_call.id)

    script = parts_of_all_kinds()
    ended = {"id": "step_1", "object": "thread.run.step", "status": "completed"}
    async with StreamServer(*script[:7], event("thread.run.step.completed", ended), *script[7:]) as server:
        await stream_of(server, Hears())
    assert done == ["call_0", "call_1"]


async def test_methods_are_called_for_deltas_without_a_beginning_or_an_index() -> None:
    heard: list[str] = []

    class Hears(AssistantEventHandler):
        async def on_text_created(self, text: Text) -> None:
            heard.append(f"+{text.value}")

        async def on_text_delta(self, delta: TextDelta, snapshot: Text) -> None:
            heard.append(f"{delta.value}:{snapshot.value}")

        async def on_text_done(self, text: Text) -> None:
            heard.append(f"={text.value}")

    def piece(message_id: str, text: str) -> bytes:
        content = [{"type": "text", "text": {"value": text}}]
        return event("thread.message.delta", {"id": message_id, "delta": {"content": content}})

    whole = message("completed", content=[{"type": "text", "text": {"value": "ab", "annotations": []}}])
    async with StreamServer(piece("msg_1", "a"), piece("msg_1", "b"), whole, piece("msg_2", "c"), *PLAIN) as server:
        await stream_of(server, Hears())
    assert heard == ["+a", "a:a", "b:ab", "=ab", "+c", "c:c"]


async def test_snapshots_that_no_method_uses_are_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from asyncruns.streams.merging import Growing

    async with StreamServer(run("created"), message("created"), *([delta("a")] * 50), *PLAIN) as server:
        monkeypatch.setattr(Growing, "whole", property(lambda self: pytest.fail("put together")))
        assert len(await stream_of(server, Ends())) == 54


async def test_the_text_deltas_of_a_handler_are_the_text_alone(emulator: Emulator) -> None:
    emulator.script(Scenario(answer="Hello from Paris"), assistant_id="asst_1")
    async with (
        Client(emulator.base_url) as client,
        client.threads.create_and_run_stream(assistant_id="asst_1") as stream,
    ):
        assert [text async for text in stream.text_deltas] == ["Hello", " from", " Paris"]
        assert isinstance(stream.current_run, Run)
