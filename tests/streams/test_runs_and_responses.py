"""Accumulators: objects include all deltas so far, until the server sends them whole."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asyncruns.streams.response_accumulator import ResponseAccumulator
from asyncruns.streams.run_accumulator import RunAccumulator
from asyncruns.wire import (
    CodeInterpreterToolCall,
    FunctionToolCall,
    Message,
    ResponseFunctionToolCall,
    ResponseMessage,
    ResponseReasoningItem,
    RunStep,
    TextContentBlock,
    ToolCallsStepDetails,
    Unknown,
    decode_response_event,
    decode_thread_event,
)

BEGUN = {"id": "msg_1", "object": "thread.message", "role": "assistant", "content": [], "status": "in_progress"}
STEP = {"id": "step_1", "object": "thread.run.step", "status": "in_progress", "step_details": None}


def fed(accumulator: RunAccumulator, *data: dict[str, Any]) -> RunAccumulator:
    for each in data:
        accumulator.receive(decode_thread_event("message", json.dumps(each)))
    return accumulator


def message_delta(*content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": "msg_1", "object": "thread.message.delta", "delta": {"content": list(content), **fields}}


def text(value: str | None, index: int | None = 0, **fields: Any) -> dict[str, Any]:
    place = {} if index is None else {"index": index}
    return {**place, "type": "text", "text": {"value": value, **fields}}


def step_delta(*calls: dict[str, Any]) -> dict[str, Any]:
    details = {"type": "tool_calls", "tool_calls": list(calls)}
    return {"id": "step_1", "object": "thread.run.step.delta", "delta": {"step_details": details}}


def message_of(accumulator: RunAccumulator) -> Message:
    assert accumulator.message is not None
    return accumulator.message


def calls_of(accumulator: RunAccumulator) -> list[Any]:
    assert accumulator.step is not None
    assert isinstance(accumulator.step.step_details, ToolCallsStepDetails)
    return list(accumulator.step.step_details.tool_calls or [])


def test_a_new_accumulator_is_empty() -> None:
    accumulator = RunAccumulator()
    assert (accumulator.run, accumulator.thread, accumulator.message, accumulator.step) == (None, None, None, None)
    assert (accumulator.messages, accumulator.steps) == ([], [])


def test_run_and_thread_are_the_last_ones_seen() -> None:
    accumulator = fed(
        RunAccumulator(),
        {"id": "thread_1", "object": "thread"},
        {"id": "run_1", "object": "thread.run", "status": "queued"},
        {"id": "run_1", "object": "thread.run", "status": "completed"},
    )
    assert accumulator.thread is not None
    assert accumulator.run is not None
    assert (accumulator.thread.id, accumulator.run.status) == ("thread_1", "completed")


def test_a_message_grows_with_each_delta() -> None:
    accumulator = fed(RunAccumulator(), BEGUN)
    assert message_of(accumulator).text == ""
    seen = [message_of(fed(accumulator, message_delta(text(piece)))).text for piece in ("Hel", "lo", " é", "")]
    assert seen == ["Hel", "Hello", "Hello é", "Hello é"]
    assert (message_of(accumulator).role, message_of(accumulator).status) == ("assistant", "in_progress")


def test_parts_are_identified_by_index_in_any_order() -> None:
    image = {"index": 1, "type": "image_file", "image_file": {"file_id": "file_1"}}
    accumulator = fed(RunAccumulator(), BEGUN, message_delta(text("c", 2)), message_delta(image, text("a", 0)))
    fed(accumulator, message_delta(text("d", 2)), message_delta(text("b", 0)))
    content = message_of(accumulator).content
    assert content
    assert [part.type for part in content] == ["text", "image_file", "text"]
    assert message_of(accumulator).text == "abcd"


def test_parts_without_an_index_are_identified_by_their_place() -> None:
    accumulator = fed(RunAccumulator(), BEGUN, message_delta(text("a", None)), message_delta(text("b", None)))
    assert message_of(accumulator).text == "ab"


def test_annotations_are_merged_by_index_and_null_changes_nothing() -> None:
    citation = {"index": 0, "type": "file_citation", "text": "[1]", "file_citation": {"file_id": "file_1"}}
    accumulator = fed(
        RunAccumulator(),
        BEGUN,
        message_delta(text("a", annotations=[])),
        message_delta(text(None, annotations=[citation])),
        message_delta(text("b", annotations=None)),
        message_delta(text(None, annotations=[{"index": 0, "type": "file_citation", "start_index": 4}])),
    )
    (part,) = message_of(accumulator).content or []
    assert isinstance(part, TextContentBlock)
    (annotation,) = part.text.annotations or []
    assert not isinstance(annotation, Unknown)
    assert (part.text.value, annotation.text, annotation.start_index) == ("ab", "[1]", 4)


def test_a_part_of_an_unknown_type_is_kept() -> None:
    part = {"index": 0, "type": "hologram", "hologram": {"value": "x"}}
    (kept,) = message_of(fed(RunAccumulator(), BEGUN, message_delta(part), message_delta(part))).content or []
    assert isinstance(kept, Unknown)
    assert kept.raw == {"type": "hologram", "hologram": {"value": "xx"}}


def test_a_whole_message_replaces_its_deltas_and_late_deltas_are_ignored() -> None:
    whole = {**BEGUN, "status": "completed", "content": [{"type": "text", "text": {"value": "All", "annotations": []}}]}
    accumulator = fed(RunAccumulator(), BEGUN, message_delta(text("A")), whole, message_delta(text("late")))
    assert message_of(accumulator).text == "All"


def test_a_delta_of_an_unknown_message_begins_it() -> None:
    accumulator = fed(RunAccumulator(), message_delta(text("a")), {**message_delta(text("b")), "id": "msg_2"})
    assert [(message.id, message.text) for message in accumulator.messages] == [("msg_1", "a"), ("msg_2", "b")]
    assert message_of(accumulator).id == "msg_2"


def test_thousands_of_deltas_become_one_text() -> None:
    accumulator = fed(RunAccumulator(), BEGUN, *(message_delta(text(f"{n} ")) for n in range(3000)))
    assert message_of(accumulator).text == "".join(f"{n} " for n in range(3000))


def test_arguments_of_calls_are_joined_by_index() -> None:
    accumulator = fed(RunAccumulator(), STEP)
    first = {"index": 0, "type": "function", "id": "call_1", "function": {"name": "f", "arguments": "", "output": None}}
    second = {"index": 1, "type": "function", "id": "call_2", "function": {"name": "g", "arguments": "{"}}
    fed(accumulator, step_delta(first), step_delta(second))
    fed(accumulator, step_delta({"index": 0, "type": "function", "function": {"arguments": '{"a'}}))
    fed(accumulator, step_delta({"index": 1, "type": "function", "function": {"arguments": "}"}}))
    fed(accumulator, step_delta({"index": 0, "type": "function", "function": {"arguments": '":1}'}}))
    # An id that is repeated replaces itself; it is not a further piece of the id.
    fed(accumulator, step_delta({"index": 0, "type": "function", "id": "call_1", "function": {"output": "5"}}))
    calls = calls_of(accumulator)
    assert all(isinstance(call, FunctionToolCall) for call in calls)
    assert [(call.id, call.function.name, call.function.arguments, call.function.output or None) for call in calls] == [
        ("call_1", "f", '{"a":1}', "5"),
        ("call_2", "g", "{}", None),
    ]


def test_code_and_its_logs_are_joined() -> None:
    accumulator = fed(RunAccumulator(), STEP)
    for code in ("", "1+", "1"):
        fed(accumulator, step_delta({"index": 0, "type": "code_interpreter", "code_interpreter": {"input": code}}))
    for output in (
        {"index": 0, "type": "logs", "logs": "2"},
        {"index": 1, "type": "image", "image": {"file_id": "file_1"}},
        {"index": 0, "type": "logs", "logs": "\n"},
    ):
        fed(
            accumulator, step_delta({"index": 0, "type": "code_interpreter", "code_interpreter": {"outputs": [output]}})
        )
    (call,) = calls_of(accumulator)
    assert isinstance(call, CodeInterpreterToolCall)
    assert call.code_interpreter.to_dict() == {
        "input": "1+1",
        "outputs": [{"type": "logs", "logs": "2\n"}, {"type": "image", "image": {"file_id": "file_1"}}],
    }


def test_a_delta_of_an_unknown_step_begins_it_and_a_whole_step_replaces_it() -> None:
    accumulator = fed(RunAccumulator(), step_delta({"index": 0, "type": "file_search", "file_search": {}}))
    assert isinstance(accumulator.step, RunStep)
    fed(accumulator, {**STEP, "status": "completed"}, step_delta({"index": 0, "type": "function"}))
    assert [(step.status, step.step_details) for step in accumulator.steps] == [("completed", None)]


JSON = st.recursive(
    st.none() | st.integers(-2, 2) | st.sampled_from(["a", "text", "logs", "function", "tool_calls"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["content", "index", "type", "text", "value", "annotations", "step_details", "tool_calls", "function"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(st.lists(st.tuples(st.sampled_from([BEGUN, STEP, message_delta(), step_delta()]), JSON), max_size=6))
def test_no_delta_raises(data: list[tuple[dict[str, Any], Any]]) -> None:
    accumulator = RunAccumulator()
    for base, drawn in data:
        name = "delta" if "delta" in base else "step_details" if base is STEP else "content"
        fed(accumulator, {**base, name: drawn})
        assert all(isinstance(message, Message) for message in accumulator.messages)
        assert all(isinstance(step, RunStep) for step in accumulator.steps)


# Responses


def response_fed(accumulator: ResponseAccumulator, *events: dict[str, Any]) -> ResponseAccumulator:
    for event in events:
        accumulator.receive(decode_response_event("message", json.dumps({"output_index": 0, **event})))
    return accumulator


CREATED = {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1", "status": "queued"}}


def test_a_response_grows_with_each_delta() -> None:
    accumulator = response_fed(ResponseAccumulator(), {"type": "response.output_text.delta", "delta": "lost"})
    assert accumulator.response is None
    response_fed(
        accumulator,
        CREATED,
        {"type": "response.output_item.added", "item": {"type": "message", "id": "msg_1", "content": []}},
        {"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}, "content_index": 0},
        {"type": "response.output_text.delta", "delta": "Hel", "content_index": 0, "sequence_number": 3},
        {"type": "response.output_text.delta", "delta": "lo", "content_index": 0, "sequence_number": 4},
        {"type": "response.in_progress", "response": {"id": "resp_1", "status": "in_progress", "output": []}},
    )
    assert accumulator.response is not None
    assert (accumulator.response.output_text, accumulator.response.status) == ("Hello", "in_progress")
    assert accumulator.sequence_number == 4
    response_fed(
        accumulator,
        {"type": "response.output_text.done", "text": "Hello!", "content_index": 0},
        {"type": "response.output_text.annotation.added", "annotation": {"type": "file_path", "file_id": "file_1"}},
    )
    assert accumulator.response.output_text == "Hello!"
    whole = {"id": "resp_1", "status": "completed", "output": [{"type": "message", "content": "Whole"}]}
    response_fed(accumulator, {"type": "response.completed", "response": whole})
    assert accumulator.response.output_text == "Whole"


def test_arguments_and_reasoning_of_a_response_grow_with_each_delta() -> None:
    accumulator = response_fed(
        ResponseAccumulator(),
        CREATED,
        {"type": "response.output_item.added", "item": {"type": "function_call", "call_id": "call_1", "name": "f"}},
        {"type": "response.function_call_arguments.delta", "delta": '{"a'},
        {"type": "response.function_call_arguments.delta", "delta": '":1}'},
        {"type": "response.reasoning_summary_text.delta", "delta": "Hm", "output_index": 1, "summary_index": 0},
        {"type": "response.output_text.delta", "delta": "Yes", "output_index": 2, "content_index": 0},
        {"type": "response.shell_call_command.delta", "delta": "ls", "output_index": 3},
    )
    assert accumulator.response is not None
    call, reasoning, message, *_ = accumulator.response.output or []
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, call.arguments) == ("f", '{"a":1}')
    assert isinstance(reasoning, ResponseReasoningItem)
    assert reasoning.summary
    assert reasoning.summary[0].text == "Hm"
    assert isinstance(message, ResponseMessage)
    assert message.text == "Yes"
    response_fed(accumulator, {"type": "response.function_call_arguments.done", "arguments": "{}"})
    item = (accumulator.response.output or [])[0]
    assert isinstance(item, ResponseFunctionToolCall)
    assert item.arguments == "{}"
