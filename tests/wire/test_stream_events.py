"""The events of streams: documented events are typed, others are kept, and nothing raises."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.beta import AssistantStreamEvent
from openai.types.responses import ResponseStreamEvent as OfficialResponseEvent

from asyncruns.wire import (
    DoneEvent,
    ErrorEvent,
    FunctionToolCallDelta,
    MessageDeltaEvent,
    MessageEvent,
    ModelResponse,
    ResponseContentPartEvent,
    ResponseDeltaEvent,
    ResponseDoneEvent,
    ResponseEvent,
    ResponseOutputItemEvent,
    ResponseTextDeltaEvent,
    ResponseToolEvent,
    RunEvent,
    RunStepDeltaEvent,
    RunStepEvent,
    TextDeltaBlock,
    ThreadEvent,
    ToolCallsDeltaDetails,
    UndecodableEvent,
    Unknown,
    UnknownEvent,
    decode_response_event,
    decode_thread_event,
)

RUN = {"id": "run_1", "object": "thread.run", "status": "queued"}
MESSAGE = {"id": "msg_1", "object": "thread.message", "content": [], "status": "in_progress"}
STEP = {"id": "step_1", "object": "thread.run.step", "status": "in_progress"}
MESSAGE_DELTA = {
    "id": "msg_1",
    "object": "thread.message.delta",
    "delta": {"content": [{"index": 0, "type": "text", "text": {"value": "Hi"}}]},
}
STEP_DELTA = {
    "id": "step_1",
    "object": "thread.run.step.delta",
    "delta": {"step_details": {"type": "tool_calls", "tool_calls": [{"index": 0, "type": "function", "id": "call_1"}]}},
}
THREAD = {"id": "thread_1", "object": "thread"}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "thread.created": (ThreadEvent, THREAD),
    "thread.message.delta": (MessageDeltaEvent, MESSAGE_DELTA),
    "thread.run.step.delta": (RunStepDeltaEvent, STEP_DELTA),
    "thread.run.step": (RunStepEvent, STEP),
    "thread.run": (RunEvent, RUN),
    "thread.message": (MessageEvent, MESSAGE),
}
RESPONSE = {"id": "resp_1", "status": "in_progress", "output": []}


def thread_event(name: str, data: object) -> Any:
    return decode_thread_event(name, data if isinstance(data, str) else json.dumps(data))


def response_event(name: str, data: object) -> Any:
    return decode_response_event(name, data if isinstance(data, str) else json.dumps(data))


def official(union: Any, field: str) -> list[str]:
    """Return the names of the official client's events."""
    members = get_args(get_args(union)[0])
    return [name for member in members for name in get_args(member.model_fields[field].annotation)]


@pytest.mark.parametrize("name", official(AssistantStreamEvent, "event"))
def test_every_event_of_a_run_is_typed(name: str) -> None:
    if name == "error":
        assert isinstance(thread_event(name, {"message": "Sorry"}), ErrorEvent)
        return
    kind, data = next(KINDS[prefix] for prefix in KINDS if name.startswith(prefix))
    event = thread_event(name, data)
    assert type(event) is kind
    assert (event.event, event.data.id, event.data.object) == (name, data["id"], data["object"])


@pytest.mark.parametrize("name", official(OfficialResponseEvent, "type"))
def test_every_event_of_a_response_is_typed(name: str) -> None:
    data = {
        "type": name,
        "sequence_number": 3,
        "response": RESPONSE,
        "item": {"type": "message", "id": "msg_1"},
        "part": {"type": "output_text", "text": ""},
        "item_id": "msg_1",
        "output_index": 0,
        "delta": "x",
        "message": "Sorry",
    }
    event = response_event(name, data)
    assert not isinstance(event, UnknownEvent | UndecodableEvent)
    assert event.event == name
    if name != "error":
        assert (event.type, event.sequence_number) == (name, 3)
        assert response_event("message", data) == event


def test_a_delta_is_typed_to_its_last_part() -> None:
    event = thread_event("thread.message.delta", MESSAGE_DELTA)
    block = event.data.delta.content[0]
    assert isinstance(block, TextDeltaBlock)
    assert block.text
    assert (block.index, block.text.value, event.data.text) == (0, "Hi", "Hi")
    details = thread_event("thread.run.step.delta", STEP_DELTA).data.delta.step_details
    assert isinstance(details, ToolCallsDeltaDetails)
    assert details.tool_calls
    assert isinstance(details.tool_calls[0], FunctionToolCallDelta)


def test_an_unknown_part_of_a_delta_is_kept() -> None:
    data = {**MESSAGE_DELTA, "delta": {"content": [{"index": 0, "type": "hologram", "hologram": {"x": 1}}]}}
    (block,) = thread_event("thread.message.delta", data).data.delta.content
    assert isinstance(block, Unknown)
    assert block.raw["hologram"] == {"x": 1}


def test_data_counts_over_the_name() -> None:
    ended = thread_event("thread.run.completed", {**RUN, "status": "incomplete"})
    assert (type(ended), ended.data.status) == (RunEvent, "incomplete")
    assert type(thread_event("thread.run.completed", MESSAGE)) is MessageEvent
    assert type(thread_event("thread.run.paused", RUN)) is RunEvent
    assert type(thread_event("message", MESSAGE_DELTA)) is MessageDeltaEvent
    assert type(thread_event("message", {"error": {"message": "Sorry"}})) is ErrorEvent
    assert type(thread_event("thread.run.queued", {"id": "run_1", "status": "queued"})) is RunEvent
    other = {"type": "response.output_text.delta", "delta": "x"}
    assert type(response_event("response.completed", other)) is ResponseTextDeltaEvent
    assert response_event("response.created", {"response": RESPONSE}).type == "response.created"


def test_an_unknown_event_is_kept_as_sent() -> None:
    assert thread_event("thread.run.moved", '{"to":1}') == UnknownEvent("thread.run.moved", '{"to":1}')
    assert thread_event("ping", "") == UnknownEvent("ping", "")
    assert thread_event("message", "[1]") == UnknownEvent("message", "[1]")
    assert response_event("response.moved", '{"type":"response.moved"}').data == '{"type":"response.moved"}'
    assert response_event("ping", "x") == UnknownEvent("ping", "x")


@pytest.mark.parametrize("text", ["", "{", "nonsense", '{"id":', "[]", "null", "1", "{}", '{"id":1,"status":2}'])
@pytest.mark.parametrize("name", ["thread.run.completed", "thread.message.delta"])
def test_data_that_does_not_fit_is_undecodable(name: str, text: str) -> None:
    event = thread_event(name, text)
    assert type(event) is UndecodableEvent
    assert (event.event, event.data) == (name, text)
    assert event.error


def test_data_without_a_name_that_is_no_json_is_undecodable() -> None:
    assert type(thread_event("message", "{")) is UndecodableEvent
    assert type(response_event("message", "{")) is UndecodableEvent
    assert type(response_event("response.created", "[]")) is UndecodableEvent
    assert type(response_event("response.created", "{}")) is UndecodableEvent


def test_the_end_is_recognized_by_its_name_or_its_data() -> None:
    for decode in (thread_event, response_event):
        assert decode("done", "[DONE]") == DoneEvent("done")
        assert decode("message", " [DONE]") == DoneEvent("message", " [DONE]")


@pytest.mark.parametrize(
    ("text", "message", "code"),
    [
        ('{"message":"Sorry","type":"server_error","param":null,"code":null}', "Sorry", None),
        ('{"error":{"message":"Sorry","type":"server_error","code":"x"}}', "Sorry", "x"),
        ('{"error":"Sorry","code":500}', "Sorry", 500),
        ("Sorry", "Sorry", None),
        ("[1]", "[1]", None),
        ('{"detail":"Sorry"}', '{"detail":"Sorry"}', None),
    ],
)
def test_an_error_of_any_shape_has_a_message(text: str, message: str, code: object) -> None:
    for event in (thread_event("error", text), response_event("error", text)):
        assert type(event) is ErrorEvent
        assert event.data.message == message
        assert (event.data.code or None) == code


def test_an_error_of_a_response_is_recognized_by_its_type() -> None:
    event = response_event("message", {"type": "error", "code": "x", "message": "Sorry", "sequence_number": 2})
    assert type(event) is ErrorEvent
    assert (event.data.message, event.data.code) == ("Sorry", "x")


def test_the_parts_of_a_response_are_typed() -> None:
    item = response_event("response.output_item.added", {"item": {"type": "function_call", "call_id": "call_1"}})
    assert isinstance(item, ResponseOutputItemEvent)
    part = response_event("response.content_part.done", {"part": {"type": "reasoning_text", "text": "x"}})
    assert isinstance(part, ResponseContentPartEvent)
    assert isinstance(part.part, Unknown)
    arguments = response_event("response.function_call_arguments.delta", {"delta": '{"a', "item_id": "fc_1"})
    assert isinstance(arguments, ResponseDeltaEvent)
    whole = response_event("response.function_call_arguments.done", {"arguments": "{}", "item_id": "fc_1"})
    assert isinstance(whole, ResponseDoneEvent)
    assert isinstance(response_event("response.web_search_call.searching", {"item_id": "ws_1"}), ResponseToolEvent)
    ended = response_event("response.completed", {"response": {**RESPONSE, "status": "incomplete"}})
    assert isinstance(ended, ResponseEvent)
    assert isinstance(ended.response, ModelResponse)
    assert ended.response.status == "incomplete"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "object", "status", "delta", "content", "type", "error"]), inner)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from([*KINDS, "thread.run.completed", "response.created", "error", "done", "message", "", "x"])


@given(NAMES, st.text(max_size=20) | JSON.map(json.dumps))
def test_nothing_raises(name: str, text: str) -> None:
    assert thread_event(name, text).event == name
    assert isinstance(response_event(name, text).event, str)


def test_deep_nesting_and_half_characters_do_not_raise() -> None:
    assert type(thread_event("thread.run.created", "[" * 100_000)) is UndecodableEvent
    half = '{"id":"msg_1","delta":{"content":[{"type":"text","text":{"value":"\\ud83d"}}]}}'
    assert type(thread_event("thread.message.delta", half)) is MessageDeltaEvent
    assert type(thread_event("thread.message.delta", "\ud83d")) is UndecodableEvent
