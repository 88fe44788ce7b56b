"""Text that a server sends as a plain string, instead of the documented object or list, is decoded."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from asyncruns.streams.run_accumulator import RunAccumulator
from asyncruns.wire import Message, ModelResponse, RunStep, decode
from asyncruns.wire.deltas import MessageDelta
from asyncruns.wire.stream_events import decode_thread_event


def message(content: Any) -> Message:
    return decode(msgspec.json.encode({"id": "msg_1", "content": content}), Message)


@pytest.mark.parametrize(
    "content",
    [
        "Hi",
        ["Hi"],
        {"type": "text", "text": "Hi"},
        [{"type": "text", "text": "Hi"}],
        [{"text": "Hi"}],
        [{"text": {"value": "Hi"}}],
        [{"type": "output_text", "text": "Hi"}],
        [{"type": "output_text", "text": {"value": "Hi"}}],
        [None, 5, {"type": "text", "text": {"value": "Hi", "annotations": None}}],
        [{"type": "text", "text": None}, {"type": "text"}, {"type": "text", "text": "Hi"}],
    ],
    ids=repr,
)
def test_a_message_has_its_text(content: Any) -> None:
    assert message(content).text == "Hi"


@pytest.mark.parametrize("content", [None, [], [None], {}, 5, [{"type": "refusal", "refusal": "No."}]], ids=repr)
def test_a_message_without_text_has_an_empty_text(content: Any) -> None:
    assert message(content).text == ""


def test_plain_content_is_encoded_as_documented() -> None:
    written = message("Hi").to_dict()["content"]
    assert written == [{"type": "text", "text": {"value": "Hi"}}]


@pytest.mark.parametrize("content", ["Hi", [{"index": 0, "type": "text", "text": "Hi"}], ["Hi"]], ids=repr)
def test_deltas_of_a_message_have_their_text_and_are_joined(content: Any) -> None:
    body = {"id": "msg_1", "object": "thread.message.delta", "delta": {"content": content}}
    text = msgspec.json.encode(body).decode()
    assert decode(text.encode(), MessageDelta).text == "Hi"
    accumulator = RunAccumulator()
    for _ in range(2):
        accumulator.receive(decode_thread_event("thread.message.delta", text))
    assert accumulator.message is not None
    assert accumulator.message.text == "HiHi"


def test_the_final_message_of_a_stream_has_its_text() -> None:
    body = {"id": "msg_1", "object": "thread.message", "status": "completed", "content": "Hi"}
    accumulator = RunAccumulator()
    accumulator.receive(decode_thread_event("thread.message.completed", msgspec.json.encode(body).decode()))
    assert accumulator.message is not None
    assert accumulator.message.text == "Hi"


def step(details: Any) -> Any:
    return decode(
        msgspec.json.encode({"id": "step_1", "status": "completed", "step_details": details}), RunStep
    ).to_dict()["step_details"]


def test_a_step_keeps_plain_text() -> None:
    made = {"type": "message_creation", "message_creation": "msg_1"}
    assert step(made) == {"type": "message_creation", "message_creation": {"message_id": "msg_1"}}
    code = {"id": "c", "type": "code_interpreter", "code_interpreter": {"input": "1", "outputs": ["a", None]}}
    function = {"id": "f", "type": "function", "function": {"name": "f", "arguments": "{}", "output": {"a": 1}}}
    calls = step({"type": "tool_calls", "tool_calls": [code, function]})["tool_calls"]
    assert calls[0]["code_interpreter"]["outputs"] == [{"type": "logs", "logs": "a"}]
    assert calls[1]["function"]["output"] == '{"a":1}'


def test_a_response_has_the_text_that_is_only_in_output_text() -> None:
    body = b'{"id":"resp_1","status":"completed","output":null,"output_text":"Hi"}'
    found = decode(body, ModelResponse)
    assert found.output_text == "Hi"
    assert [item.text for item in found.messages] == ["Hi"]
    assert msgspec.json.decode(found.to_json()) == {**msgspec.json.decode(body), "object": "response"}
