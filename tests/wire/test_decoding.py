"""Decoding: absent, null and a value are distinct; values that do not fit are omitted, unknown objects are kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.wire import (
    Assistant,
    CodeInterpreterTool,
    ErrorBody,
    FileSearchTool,
    FunctionTool,
    Message,
    Page,
    RetrievalTool,
    Run,
    RunStep,
    TextContentBlock,
    Thread,
    ToolCallsStepDetails,
    Unknown,
    decode,
    encode,
)
from asyncruns.wire.codec import decoder


def run(**fields: Any) -> Run:
    return decode(msgspec.json.encode({"id": "run_1", "status": "queued", **fields}), Run)


@pytest.mark.parametrize(
    "name", [name for name in Run.__struct_fields__ if getattr(Run(id="", status=""), name) is UNSET]
)
def test_absent_and_null_are_distinct_and_both_are_false(name: str) -> None:
    absent, null = getattr(run(), name), getattr(run(**{name: None}), name)
    assert absent is UNSET
    assert null is None
    assert not absent
    assert name not in msgspec.json.decode(encode(run()))
    assert msgspec.json.decode(encode(run(**{name: None})))[name] is None


def test_a_temperature_is_kept_as_sent() -> None:
    assert run(temperature=None, top_p=None).temperature is None
    assert run(temperature=0, top_p=1).temperature == 0
    assert run(temperature=0.25).temperature == 0.25


@pytest.mark.parametrize(
    "value", ["none", "auto", {"type": "json_object"}, {"type": "json_schema", "json_schema": {"a": 1}}]
)
def test_a_response_format_is_a_string_or_an_object(value: object) -> None:
    assert run(response_format=value).response_format == value


@pytest.mark.parametrize("value", ["none", "auto", "required", {"type": "function", "function": {"name": "f"}}])
def test_a_tool_choice_is_a_string_or_an_object(value: object) -> None:
    assert run(tool_choice=value).tool_choice == value


@pytest.mark.parametrize("value", [1_770_000_000, 1_770_000_000.25, 1_770_000_000_000])
def test_a_time_is_kept_as_sent(value: float) -> None:
    assert run(created_at=value, expires_at=value).expires_at == value


def test_values_that_do_not_fit_are_omitted_and_all_others_kept() -> None:
    found = run(
        created_at={"no": "time"},
        temperature="hot",
        metadata=["a"],
        usage={"prompt_tokens": "many", "completion_tokens": 7.0, "total_tokens": 7.5},
        last_error="broken",
        truncation_strategy={"type": 5, "last_messages": 3},
        tools={"type": "function"},
        object=None,
        thread_id=None,
        model="m",
    )
    assert (found.created_at, found.temperature, found.metadata, found.last_error, found.tools) == (UNSET,) * 5
    assert found.usage
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (UNSET, 7, UNSET)
    assert found.truncation_strategy
    assert (found.truncation_strategy.type, found.truncation_strategy.last_messages) == (UNSET, 3)
    assert (found.object, found.thread_id, found.model) == ("thread.run", "", "m")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"run_1"',
        b"{}",
        b'{"id":"run_1"}',
        b'{"status":"queued"}',
        b'{"id":null,"status":"queued"}',
        b'{"id":"run_1","status":5}',
        b'{"id":"run_1","status":"queued"',
        b'{"id":"run_1","status":"queued"}}',
        b'{"id":"\xff","status":"queued"}',
        b'{"id":"run_1","status":"queued","x":' + b"[" * 200_000,
        b'{"id":"run_1","status":"queued","metadata":' + b'{"a":' * 200_000 + b"1" + b"}" * 200_001,
        b'{"id":"run_1","status":"queued","x":"\\ud800" ?',
        b"\xef\xbb\xbf{}",
        b"<html>",
    ],
)
def test_a_body_that_is_no_run_raises_a_decode_error_without_showing_it(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        decode(data, Run)
    assert "run_1" not in str(caught.value)
    assert "queued" not in str(caught.value)


def test_half_a_surrogate_pair_does_not_make_the_body_invalid() -> None:
    data = rb'{"id":"run_1","status":"queued","instructions":"cut off: \ud83d","model":"\ud83d\ude00 \\ud800"}'
    found = decode(data, Run)
    assert found.instructions == "cut off: ?"
    assert found.model == "\N{GRINNING FACE} \\ud800"
    assert encode(found)


def test_tools_of_both_versions_are_typed_and_others_kept() -> None:
    found = run(
        tools=[
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}},
            {"type": "code_interpreter"},
            {"type": "file_search", "file_search": {"max_num_results": 3}},
            {"type": "retrieval"},
            {"type": "bing_grounding", "bing_grounding": {"connections": [1]}},
            {"type": 5},
            {},
            None,
        ]
    )
    assert isinstance(found.tools, list)
    kinds = [type(tool) for tool in found.tools]
    assert kinds == [FunctionTool, CodeInterpreterTool, FileSearchTool, RetrievalTool, Unknown, Unknown, Unknown]
    assert [tool.type for tool in found.tools[:5]] == [
        "function",
        "code_interpreter",
        "file_search",
        "retrieval",
        "bing_grounding",
    ]


def test_an_object_without_a_type_is_recognized_by_its_contents() -> None:
    found = run(tools=[{"function": {"name": "f"}}])
    assert isinstance(found.tools, list)
    assert isinstance(found.tools[0], FunctionTool)
    assert found.tools[0].function.name == "f"


def test_a_message_has_its_text_whatever_other_parts_it_has() -> None:
    content = [
        {"type": "text", "text": {"value": "Hello, ", "annotations": [{"type": "new_kind", "text": "x"}]}},
        {"type": "hologram", "hologram": {}},
        {"type": "image_file", "image_file": {"file_id": "file_1"}},
        {"type": "text", "text": {"value": "world", "annotations": None}},
        {"type": "text", "text": "!"},
        {"type": "refusal", "refusal": "No."},
    ]
    found = decode(msgspec.json.encode({"id": "msg_1", "content": content}), Message)
    assert found.text == "Hello, world!"
    assert isinstance(found.content, list)
    assert isinstance(found.content[0], TextContentBlock)
    assert isinstance(found.content[1], Unknown)
    assert (Message(id="m").text, Message(id="m", content=None).text) == ("", "")


def test_a_step_keeps_its_calls_including_unknown_ones() -> None:
    calls = [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}, "output": None}},
        {"id": "call_2", "type": "mcp", "output": "x"},
    ]
    details = {"type": "tool_calls", "tool_calls": calls}
    found = decode(msgspec.json.encode({"id": "step_1", "status": "completed", "step_details": details}), RunStep)
    assert isinstance(found.step_details, ToolCallsStepDetails)
    assert isinstance(found.step_details.tool_calls, list)
    first, second = found.step_details.tool_calls
    assert (first.id, second.id, second.type) == ("call_1", "call_2", "mcp")
    assert (
        encode(first)
        == b'{"type":"function","id":"call_1","function":{"name":"f","arguments":"{\\"a\\":1}","output":null}}'
    )


@pytest.mark.parametrize("kind", ["submit_tool_outputs", "submit_tool_approval"])
def test_a_call_keeps_arguments_that_are_sent_as_an_object(kind: str) -> None:
    calls = [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}},
        {"id": "call_2", "type": "mcp", "name": "g", "server_label": "s", "arguments": {"a": 1}},
    ]
    found = run(status="requires_action", required_action={"type": kind, kind: {"tool_calls": calls}})
    assert [call.arguments for call in ThreadRunDialect().snapshot(found).calls] == ['{"a":1}'] * 2


def test_a_page_has_objects_of_its_type() -> None:
    data = b'{"data":[{"id":"asst_1","tools":[{"type":"new_kind"}]},{"id":"asst_2"}],"has_more":1}'
    page: Page[Assistant] = decode(data, Page[Assistant])
    assert [item.id for item in page.data] == ["asst_1", "asst_2"]
    assert page.has_more is UNSET
    with pytest.raises(msgspec.DecodeError):
        decode(b'{"data":[{"name":"no id"}]}', Page[Assistant])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"error":{"message":"No.","code":null}}', "No."),
        (b'{"error":{"message":"No.","code":17.0}}', "No."),
        (b'{"error":{"message":"No.","param":["a"]}}', "No."),
    ],
)
def test_an_error_object_is_decoded_whatever_its_code(data: bytes, message: str) -> None:
    error = decode(data, ErrorBody).error
    assert error
    assert not isinstance(error, str)
    assert error.message == message


def test_a_decoder_is_built_once() -> None:
    assert decoder(Run) is decoder(Run)
    assert decoder(Page[Thread]) is decoder(Page[Thread])


def test_objects_are_equal_by_value_and_immutable() -> None:
    assert run(model="m") == run(model="m")
    with pytest.raises(AttributeError):
        run().status = "completed"  # type: ignore[misc]  # the struct is frozen, which is tested here
