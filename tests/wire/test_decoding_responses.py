"""Responses and their items: documented items are typed, values that do not fit are omitted, other items are kept."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import Any, Final, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from openai.types.responses import Response
from openai.types.responses.response_item import ResponseItem as TheirItem
from openai.types.responses.response_output_item import ResponseOutputItem
from test_unknown_objects import JSON, OBJECTS

from asyncruns import wire
from asyncruns.wire import (
    LocalShellCall,
    McpApprovalRequest,
    ModelResponse,
    Page,
    ResponseFileCitation,
    ResponseFunctionToolCall,
    ResponseInputFile,
    ResponseInputImage,
    ResponseInputText,
    ResponseItem,
    ResponseMessage,
    ResponseOutputRefusal,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseURLCitation,
    Unknown,
    decode,
    encode,
    epoch_seconds,
    status_names,
)
from asyncruns.wire.codec import decoder

CALL: Final = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"a":1}'}
TAGS: Final = {member.__struct_config__.tag for member in get_args(ResponseItem)} - {Unknown.__struct_config__.tag}
# Members of the official client's unions that have no struct here; kept as sent.
NOT_TYPED: Final = {"additional_tools", "configuration_update", "program", "program_output"}

FULL: Final[dict[str, Any]] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_790_000_000,
    "status": "completed",
    "background": True,
    "completed_at": 1_790_000_021.5,
    "error": None,
    "incomplete_details": None,
    "instructions": "Be brief.",
    "max_output_tokens": None,
    "max_tool_calls": None,
    "model": "gpt-6",
    "output": [
        {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "content": []},
        {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}},
        {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "phase": "final_answer",
            "content": [
                {
                    "type": "output_text",
                    "text": "It is 22 degrees",
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url": "https://a.example",
                            "title": "A",
                            "start_index": 0,
                            "end_index": 5,
                        },
                        {"type": "file_citation", "file_id": "file_1", "filename": "a.txt", "index": 3},
                        {"type": "hologram", "at": 7},
                    ],
                    "logprobs": [],
                },
                {"type": "output_text", "text": ".", "annotations": []},
                {"type": "refusal", "refusal": "Not the rest."},
            ],
        },
        {**CALL, "status": "completed"},
        {"id": "x_1", "type": "dream_call", "dream": {"deep": [1]}},
    ],
    "parallel_tool_calls": True,
    "previous_response_id": "resp_0",
    "conversation": {"id": "conv_1"},
    "prompt_cache_key": None,
    "reasoning": {"effort": "low", "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": False}, {"type": "web_search"}],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": {
        "input_tokens": 36,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 60},
        "total_tokens": 123,
    },
    "user": None,
    "metadata": {"a": "b"},
}


def response(**fields: Any) -> ModelResponse:
    return decode(msgspec.json.encode({"id": "resp_1", "status": "queued", **fields}), ModelResponse)


def item(**fields: Any) -> ResponseItem:
    (found,) = response(output=[fields]).output or []
    return found


def test_a_full_response_is_decoded_and_encoded_as_sent() -> None:
    found = decode(msgspec.json.encode(FULL), ModelResponse)
    assert (found.id, found.status, found.background, found.model) == ("resp_1", "completed", True, "gpt-6")
    assert (found.previous_response_id, epoch_seconds(found.completed_at)) == ("resp_0", 1_790_000_021.5)
    assert found.output_text == "It is 22 degrees."
    assert found.usage
    assert found.usage.input_tokens_details
    assert found.usage.output_tokens_details
    assert (found.usage.total_tokens, found.usage.input_tokens_details.cached_tokens) == (123, 4)
    assert found.usage.output_tokens_details.reasoning_tokens == 60
    assert found.conversation
    assert found.conversation.id == "conv_1"
    assert isinstance(found.output, list)
    reasoning, search, message, call, dream = found.output
    assert isinstance(reasoning, ResponseReasoningItem)
    assert isinstance(reasoning.summary, list)
    assert reasoning.summary[0].text == "Hm."
    assert search.type == "web_search_call"
    assert isinstance(message, ResponseMessage)
    assert (message.role, message.phase, message.text) == ("assistant", "final_answer", "It is 22 degrees.")
    assert isinstance(message.content, list)
    text, _, refusal = message.content
    assert isinstance(text, ResponseOutputText)
    assert isinstance(text.annotations, list)
    assert [type(each) for each in text.annotations] == [ResponseURLCitation, ResponseFileCitation, Unknown]
    assert isinstance(refusal, ResponseOutputRefusal)
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.call_id, call.name, call.arguments) == ("call_1", "f", '{"a":1}')
    assert isinstance(dream, Unknown)
    assert (dream.type, dream.id) == ("dream_call", "x_1")
    assert msgspec.json.decode(encode(found)) == FULL


def test_a_full_response_of_known_items_is_decoded_in_the_fast_way() -> None:
    known = {**FULL, "output": [FULL["output"][0], FULL["output"][1], FULL["output"][3]]}
    data = msgspec.json.encode(known)
    assert decoder(ModelResponse).decode(data) == decode(data, ModelResponse)


NAMES = dict(zip(ModelResponse.__struct_fields__, ModelResponse.__struct_encode_fields__, strict=True))


@pytest.mark.parametrize(
    ("field", "name"), [pair for pair in NAMES.items() if pair[0] not in ("id", "status", "object")]
)
def test_absent_and_null_are_distinct_and_both_are_false(field: str, name: str) -> None:
    absent, null = getattr(response(), field), getattr(response(**{name: None}), field)
    assert (absent, null) == (UNSET, None)
    assert not absent
    assert name not in msgspec.json.decode(encode(response()))
    assert msgspec.json.decode(encode(response(**{name: None})))[name] is None


def test_a_response_needs_an_id_and_a_status() -> None:
    for body in (b"{}", b'{"id":"resp_1"}', b'{"status":"queued"}', b'{"id":null,"status":"queued"}', b"[]"):
        with pytest.raises(msgspec.DecodeError):
            decode(body, ModelResponse)


def test_the_statuses_are_those_of_the_official_client() -> None:
    known = {value for name, value in vars(status_names).items() if name.isupper() and isinstance(value, str)}
    of_others = {"requires_action", "cancelling", "expired", "validating", "finalizing", "canceling", "ended"}
    ours = known - of_others  # statuses of runs and batches
    (status,) = (arg for arg in get_args(Response.model_fields["status"].annotation) if arg is not type(None))
    assert ours <= set(get_args(status))
    assert ours == {"queued", "in_progress", "completed", "failed", "cancelled", "incomplete"}
    assert response(status="pondering").status == "pondering"


def tags_of(union: Any) -> set[str]:
    """Return the types of the members of one of the official client's unions."""
    members = get_args(get_args(union)[0])
    return {get_args(member.model_fields["type"].annotation)[0] for member in members}


def test_the_items_are_those_of_the_official_client() -> None:
    theirs = tags_of(TheirItem) | tags_of(ResponseOutputItem)  # later versions may have more
    assert theirs >= TAGS | NOT_TYPED
    assert len(TAGS) == 25


@pytest.mark.parametrize("tag", sorted(TAGS))
def test_an_item_is_recognized_by_its_type_and_keeps_its_fields(tag: str) -> None:
    needed = {"id": "x_1", "call_id": "call_1"}
    found = item(type=tag, **needed, status="failed")
    assert (found.type, found.id) == (tag, "x_1")
    assert type(found).__struct_config__.tag == tag
    sent = msgspec.json.decode(encode(found))
    assert sent["type"] == tag
    assert sent["id"] == "x_1"
    for name in ("call_id", "status"):
        assert sent.get(name) == ({**needed, "status": "failed"}[name] if hasattr(found, name) else None)


@pytest.mark.parametrize(
    "tag", sorted(tag for tag in TAGS if str(tag).endswith("_call") or tag == "mcp_approval_request")
)
def test_a_call_that_cannot_be_answered_is_kept_as_sent(tag: str) -> None:
    found = item(type=tag, weight=7)
    if isinstance(found, Unknown):
        assert found.raw == {"type": tag, "weight": 7}
    else:
        assert not getattr(found, "call_id", None)


def test_arguments_that_are_sent_as_an_object_are_kept() -> None:
    call = item(**{**CALL, "arguments": {"a": 1}})
    assert isinstance(call, ResponseFunctionToolCall)
    assert call.arguments == '{"a":1}'
    request = item(type="mcp_approval_request", id="mcpr_1", name="g", server_label="s", arguments={"a": [1]})
    assert isinstance(request, McpApprovalRequest)
    assert request.arguments == '{"a":[1]}'


def test_values_that_do_not_fit_are_omitted_and_all_others_kept() -> None:
    found = response(
        created_at=["no"],
        output=[{**CALL, "id": None, "status": 5}, None, {"type": "local_shell_call", "call_id": "c", "action": "ls"}],
        usage={"input_tokens": 7.0, "output_tokens": "many", "input_tokens_details": "none"},
        error="broken",
        instructions={"text": "no"},
        tools="all",
        model="m",
    )
    assert (found.created_at, found.error, found.instructions, found.tools) == (UNSET,) * 4
    assert found.usage
    assert (found.usage.input_tokens, found.usage.output_tokens) == (7, UNSET)
    assert found.usage.input_tokens_details is UNSET
    assert isinstance(found.output, list)
    call, shell = found.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.id, call.call_id, call.status, found.model) == ("", "call_1", UNSET, "m")
    assert isinstance(shell, LocalShellCall)
    assert shell.action is UNSET


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, ""),
        ({"output": None}, ""),
        ({"output": [CALL]}, ""),
        ({"output": [{"type": "message", "id": "m", "content": "plain"}]}, "plain"),
        ({"output": [{"type": "message", "id": "m", "content": None}]}, ""),
        (
            {
                "output": [
                    {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "a"}]},
                    CALL,
                    {"type": "message", "id": "n", "content": [{"type": "new"}, {"type": "output_text", "text": "b"}]},
                ]
            },
            "ab",
        ),
    ],
)
def test_the_text_of_the_output_is_that_of_all_messages(fields: dict[str, Any], text: str) -> None:
    assert response(**fields).output_text == text


def test_unknown_error_codes_and_reasons_are_kept() -> None:
    found = response(status="failed", error={"code": "new_code", "message": "No.", "param": None, "misalignment": {}})
    assert found.error
    assert (found.error.code, found.error.message, found.error.param) == ("new_code", "No.", None)
    found = response(status="incomplete", incomplete_details={"reason": "steered"})
    assert found.incomplete_details
    assert found.incomplete_details.reason == "steered"


def test_a_page_of_input_items_is_decoded() -> None:
    content = [
        {"type": "input_text", "text": "Hi"},
        {"type": "input_image", "detail": "auto", "image_url": "https://a.example/i.png"},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_smell", "smell": "x"},
    ]
    data = [
        {"type": "message", "id": "msg_1", "role": "user", "status": "completed", "content": content},
        {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": "22"},
        {"type": "mcp_approval_response", "id": "mcpa_1", "approval_request_id": "mcpr_1", "approve": False},
        {"role": "user", "content": "no type"},
    ]
    page: Page[ResponseItem] = decode(msgspec.json.encode({"data": data, "has_more": False}), Page[ResponseItem])
    message, output, approval, odd = page.data
    assert isinstance(message, ResponseMessage)
    assert message.text == "Hi"
    assert isinstance(message.content, list)
    kinds = [ResponseInputText, ResponseInputImage, ResponseInputFile, Unknown]
    assert [type(part) for part in message.content] == kinds
    assert (output.type, approval.type, odd.type) == ("function_call_output", "mcp_approval_response", "")
    assert msgspec.json.decode(encode(page.data)) == data


# Any JSON at all

FIELDS: Final = sorted(set(ModelResponse.__struct_encode_fields__) - {"id", "status"})
ITEMS: Final = st.builds(
    lambda kind, more: {**more, "type": kind},
    st.sampled_from(sorted(map(str, TAGS))) | st.text(max_size=6),
    OBJECTS | st.dictionaries(st.sampled_from(["id", "call_id", "content", "status", "arguments", "output"]), JSON),
)


@settings(deadline=None)  # a busy machine must not fail the test
@given(fields=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=6), JSON, max_size=6), status=st.text())
def test_any_object_with_an_id_and_a_status_is_a_response(fields: dict[str, Any], status: str) -> None:
    found = decode(msgspec.json.encode({**fields, "id": "resp_1", "status": status}), ModelResponse)
    assert (found.id, found.status) == ("resp_1", status)
    assert isinstance(found.output_text, str)
    assert decode(encode(found), ModelResponse) == found


@settings(deadline=None)  # a busy machine must not fail the test
@given(items=st.lists(ITEMS, max_size=4))
def test_any_list_of_objects_is_an_output(items: list[dict[str, Any]]) -> None:
    found = response(output=items)
    assert isinstance(found.output, list)
    for sent, came in zip(items, found.output, strict=True):
        if isinstance(came, Unknown):
            assert came.raw == sent
            assert msgspec.json.decode(encode(came)) == sent
        else:
            assert came.type == sent["type"]
    assert isinstance(found.output_text, str)


@settings(deadline=None)  # a busy machine must not fail the test
@given(data=st.data(), place=st.integers(0, 2000))
def test_no_damaged_body_raises_anything_but_a_decode_error(data: st.DataObject, place: int) -> None:
    whole = msgspec.json.encode(FULL)
    cut = data.draw(st.binary(max_size=3))
    with suppress(msgspec.DecodeError):
        decode(whole[:place] + cut + whole[place + 1 :], ModelResponse)


def test_all_names_exist_and_are_loaded_on_first_use() -> None:
    assert all(getattr(wire, name) is not None for name in wire.__all__)
    assert set(wire.__all__) <= set(dir(wire))
    assert wire.__all__ == sorted(wire.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        getattr(wire, "Nothing")  # noqa: B009 - mypy refuses the attribute
    code = (
        "import sys, asyncruns\n"
        "[getattr(asyncruns, name) for name in asyncruns.__all__ if name != 'BatchResult']\n"  # which may hold one
        "assert 'asyncruns.wire.responses' not in sys.modules\n"
        "assert asyncruns.wire.ModelResponse is sys.modules['asyncruns.wire.responses'].ModelResponse"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
