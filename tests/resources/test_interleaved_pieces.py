"""Deltas whose pieces are interleaved, have gaps in their indexes or none at all, or are of unknown types."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asyncruns.streams.callbacks import Callbacks
from asyncruns.streams.response_accumulator import ResponseAccumulator
from asyncruns.streams.run_accumulator import RunAccumulator
from asyncruns.wire import Unknown, decode_response_event, decode_thread_event

STEP = {
    "id": "step_1",
    "object": "thread.run.step",
    "type": "tool_calls",
    "status": "in_progress",
    "step_details": {"type": "tool_calls", "tool_calls": []},
}
MESSAGE = {"id": "msg_1", "object": "thread.message", "role": "assistant", "content": [], "status": "in_progress"}
ENDED_RUN = ("thread.run.requires_action", {"id": "run_1", "object": "thread.run", "status": "requires_action"})


class Heard:
    """The calls of a handler's methods, with their snapshots at that time."""

    def __init__(self) -> None:
        accumulator: Any = RunAccumulator()
        self._accumulator = accumulator
        self._callbacks = Callbacks(accumulator, lambda name: True)
        self.created: list[str] = []
        self.done: list[tuple[str, str]] = []
        self.grown: list[str] = []

    def hear(self, name: str, data: dict[str, Any]) -> Heard:
        event = decode_thread_event(name, json.dumps(data))
        self._accumulator.receive(event)
        for called, arguments in self._callbacks.of(event):
            snapshot = arguments[-1]
            match called:
                case "on_tool_call_created":
                    self.created.append(snapshot.id)
                case "on_tool_call_done":
                    self.done.append((snapshot.id, arguments_of(snapshot)))
                case "on_tool_call_delta":
                    self.grown.append(snapshot.id)
                case "on_text_created":
                    self.created.append("text")
                case "on_text_done":
                    self.done.append(("text", snapshot.value))
                case "on_image_file_done":
                    self.done.append(("image", snapshot.file_id))
                case _:
                    pass
        return self

    def calls(self, *deltas: list[dict[str, Any]], step_id: str = "step_1") -> Heard:
        for each in deltas:
            details = {"type": "tool_calls", "tool_calls": each}
            self.hear("thread.run.step.delta", {"id": step_id, "delta": {"step_details": details}})
        return self

    def parts(self, *deltas: list[dict[str, Any]], message_id: str = "msg_1") -> Heard:
        for each in deltas:
            self.hear("thread.message.delta", {"id": message_id, "delta": {"content": each}})
        return self


def arguments_of(call: Any) -> str:
    found = call.raw.get("arguments", "") if isinstance(call, Unknown) else call.function.arguments
    return str(found)


def function(arguments: str, name: str | None = None, **fields: Any) -> dict[str, Any]:
    named = {} if name is None else {"name": name}
    return {"type": "function", "function": {**named, "arguments": arguments}, **fields}


def mcp(arguments: str, **fields: Any) -> dict[str, Any]:
    return {"type": "mcp", "arguments": arguments, **fields}


WHOLE = [("call_0", '{"a":1}'), ("call_1", '{"b":2}')]


@pytest.mark.parametrize(
    "deltas",
    [
        pytest.param(
            [
                [mcp("", index=0, id="call_0")],
                [mcp("", index=1, id="call_1")],
                [mcp('{"a":1}', index=0)],
                [mcp('{"b":2}', index=1)],
            ],
            id="calls of an unknown type",
        ),
        pytest.param(
            [
                [function("", "f", index=0, id="call_0"), mcp('{"b"', index=1, id="call_1")],
                [function('{"a"', index=0)],
                [mcp(":2}", index=1), function(":1}", index=0)],
            ],
            id="both kinds in one delta",
        ),
        pytest.param(
            [
                [function('{"a"', "f", index=3, id="call_0")],
                [function("", "g", index=7, id="call_1")],
                [function(":1}", index=3)],
                [function('{"b":2}', index=7)],
            ],
            id="gaps in the indexes",
        ),
        pytest.param(
            [
                [function("", "f", id="call_0")],
                [function('{"a":1}')],
                [function("", "g", id="call_1")],
                [function('{"b":2}')],
            ],
            id="no index, an id at the beginning",
        ),
        pytest.param(
            [
                [mcp("", id="call_0")],
                [mcp("", id="call_1")],
                [mcp('{"a":1}', id="call_0")],
                [mcp('{"b":2}', id="call_1")],
            ],
            id="no index, always an id",
        ),
        pytest.param(
            [
                [function("", "f", id="call_0"), function("", "g", id="call_1")],
                [function('{"a":1}'), function('{"b":2}')],
            ],
            id="no index, whole lists",
        ),
    ],
)
def test_each_call_begins_once_and_ends_once_with_complete_arguments(deltas: list[list[dict[str, Any]]]) -> None:
    heard = Heard().hear("thread.run.step.created", STEP).calls(*deltas).hear(*ENDED_RUN)
    assert heard.created == ["call_0", "call_1"]
    assert sorted(heard.done) == WHOLE


def test_a_call_ends_when_another_begins_only_if_its_arguments_are_complete() -> None:
    heard = Heard().calls([function('{"a":1}', "f", index=0, id="call_0")], [mcp('{"b"', index=1, id="call_1")])
    assert heard.done == WHOLE[:1]
    heard.calls([mcp("{}", index=2, id="call_2")], [mcp(":2}", index=1)])
    assert heard.done == WHOLE[:1]
    heard.hear("thread.run.step.completed", {**STEP, "status": "completed"}).hear(*ENDED_RUN)
    assert heard.done == [*WHOLE, ("call_2", "{}")]
    assert heard.grown == ["call_1"]


def test_interleaved_calls_of_two_steps_are_kept_apart() -> None:
    heard = Heard()
    heard.calls([mcp('{"a"', index=0, id="call_0")]).calls([mcp('{"b"', index=0, id="call_1")], step_id="step_2")
    heard.calls([mcp(":1}", index=0)]).calls([mcp(":2}", index=0)], step_id="step_2")
    heard.hear("thread.run.step.completed", {**STEP, "id": "step_2", "status": "completed"})
    assert (heard.created, heard.done) == (["call_0", "call_1"], WHOLE[1:])
    assert heard.hear(*ENDED_RUN).done == [WHOLE[1], WHOLE[0]]


def test_calls_that_were_complete_in_their_step_keep_their_places() -> None:
    calls = [mcp("{}", id="call_x"), mcp('{"b"', id="call_1")]
    begun = {**STEP, "step_details": {"type": "tool_calls", "tool_calls": calls}}
    heard = Heard().hear("thread.run.step.created", begun).calls([mcp(":2}", index=1)]).hear(*ENDED_RUN)
    assert heard.done == WHOLE[1:]


def test_interleaved_texts_begin_once_and_end_complete() -> None:
    def text(index: int, value: str) -> dict[str, Any]:
        return {"index": index, "type": "text", "text": {"value": value}}

    image = {"index": 1, "type": "image_file", "image_file": {"file_id": "file_1"}}
    heard = Heard().hear("thread.message.created", MESSAGE)
    heard.parts([text(0, "a")], [image], [text(4, "x")], [text(6, "y")], [text(4, "x")], [text(6, "y")])
    assert heard.created == ["text"] * 3
    assert heard.done == [("text", "a"), ("image", "file_1")]
    heard.hear("thread.message.incomplete", {**MESSAGE, "status": "incomplete", "content": None})
    assert len(heard.done) == 2  # the message has no content any more, so there is no text to report

    heard = Heard().parts([text(0, "a")], [text(5, "b")], [text(0, "c")], [text(5, "d")])
    content = [{"type": "text", "text": {"value": value, "annotations": []}} for value in ("ac", "bd")]
    heard.hear("thread.message.completed", {**MESSAGE, "status": "completed", "content": content})
    assert (heard.created, heard.done) == (["text"] * 2, [("text", "ac"), ("text", "bd")])


def test_interleaved_messages_are_kept_apart() -> None:
    text = {"index": 0, "type": "text", "text": {"value": "a"}}
    heard = Heard().parts([text]).parts([text], message_id="msg_2").parts([text]).parts([text], message_id="msg_2")
    assert heard.created == ["text"] * 2


# Accumulated


def test_annotations_and_outputs_without_ids_are_joined_by_index() -> None:
    accumulator = RunAccumulator()
    for outputs in ([{"index": 1, "type": "table", "text": "b"}], [{"index": 0, "type": "table", "text": "a"}]) * 2:
        call = {"index": 0, "type": "code_interpreter", "code_interpreter": {"outputs": outputs}}
        details = {"type": "tool_calls", "tool_calls": [call]}
        event = {"id": "step_1", "delta": {"step_details": details}}
        accumulator.receive(decode_thread_event("thread.run.step.delta", json.dumps(event)))
    assert accumulator.step is not None
    (call,) = accumulator.step.to_dict()["step_details"]["tool_calls"]
    assert call["code_interpreter"]["outputs"] == [{"type": "table", "text": "aa"}, {"type": "table", "text": "bb"}]


def test_pieces_without_an_index_belong_to_the_call_with_the_same_id() -> None:
    accumulator = RunAccumulator()
    for pieces in ([mcp("{", id="a")], [mcp("[", id="b")], [mcp("}", id="a")], [mcp("]", id="b")]):
        event = {"id": "step_1", "delta": {"step_details": {"type": "tool_calls", "tool_calls": pieces}}}
        accumulator.receive(decode_thread_event("thread.run.step.delta", json.dumps(event)))
    assert accumulator.step is not None
    calls = accumulator.step.to_dict()["step_details"]["tool_calls"]
    assert [(call["id"], call["arguments"]) for call in calls] == [("a", "{}"), ("b", "[]")]


def test_items_of_a_response_without_an_index_are_identified_by_their_ids() -> None:
    accumulator = ResponseAccumulator()
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
        {"type": "response.output_item.added", "item": {"type": "message", "id": "a", "content": []}},
        {"type": "response.output_item.added", "item": {"type": "message", "id": "b", "content": []}},
        *({"type": "response.output_text.delta", "item_id": item, "delta": item * 2} for item in "abab"),
        *({"type": "response.output_text.annotation.added", "item_id": "a", "annotation": {"type": t}} for t in "xy"),
    ]
    for event in events:
        accumulator.receive(decode_response_event("message", json.dumps(event)))
    assert accumulator.response is not None
    first, second = accumulator.response.to_dict()["output"]
    assert [part["text"] for item in (first, second) for part in item["content"]] == ["aaaa", "bbbb"]
    assert [each["type"] for each in first["content"][0]["annotations"]] == ["x", "y"]
