"""`to_dict` and `to_json`, compared with those of the official client."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.types.beta import Assistant as TheirAssistant
from openai.types.beta import Thread as TheirThread
from openai.types.beta.threads import Message as TheirMessage
from openai.types.beta.threads import Run as TheirRun

from asyncruns import wire
from asyncruns.wire import Assistant, Message, Object, Page, Run, Thread, decode

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
RUN: dict[str, Any] = {
    "id": "run_1",
    "object": "thread.run",
    "created_at": 1,
    "thread_id": "thread_1",
    "assistant_id": "asst_1",
    "status": "requires_action",
    "required_action": {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [CALL]}},
    "last_error": None,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"default": None}}}],
    "metadata": {"a": "ä"},
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
CONTENT = [{"type": "text", "text": {"value": "Hi", "annotations": []}}]
MESSAGE = {"id": "msg_1", "object": "thread.message", "thread_id": "t", "role": "user", "content": CONTENT}
THREAD = {"id": "thread_1", "object": "thread", "created_at": 1, "metadata": {}, "tool_resources": None}
ASSISTANT = {"id": "asst_1", "object": "assistant", "name": None, "tools": [{"type": "code_interpreter"}]}


@pytest.mark.parametrize(
    ("ours", "theirs", "body"),
    [
        (Run, TheirRun, RUN),
        (Message, TheirMessage, MESSAGE),
        (Thread, TheirThread, THREAD),
        (Assistant, TheirAssistant, ASSISTANT),
    ],
    ids=["run", "message", "thread", "assistant"],
)
def test_dicts_and_json_equal_those_of_the_official_client(
    ours: type[Object], theirs: Any, body: dict[str, Any]
) -> None:
    found, expected = decode(msgspec.json.encode(body), ours), theirs.construct(**body)
    assert found.to_dict() == expected.to_dict() == body
    assert found.to_dict(exclude_none=True) == expected.to_dict(exclude_none=True)
    for text, theirs_text in (
        (found.to_json(), expected.to_json()),
        (found.to_json(indent=None), expected.to_json(indent=None)),
    ):
        assert msgspec.json.decode(text) == msgspec.json.decode(theirs_text) == body
        assert text.count("\n") == theirs_text.count("\n")


def test_the_method_names_of_pydantic_exist() -> None:
    run = decode(msgspec.json.encode(RUN), Run)
    assert run.model_dump() == run.model_dump(mode="json") == RUN
    assert "last_error" not in run.model_dump(exclude_none=True)
    assert run.model_dump_json() == run.to_json(indent=None)


def test_the_dict_of_a_part_can_be_modified() -> None:
    run = decode(msgspec.json.encode(RUN), Run)
    assert run.required_action
    written = run.required_action.to_dict()
    assert written == RUN["required_action"]
    written.clear()
    run.to_dict()["metadata"].clear()
    assert run.to_dict() == RUN


def test_the_dict_of_an_unknown_object_is_as_sent() -> None:
    body = {"id": "r", "status": "completed", "tools": [{"type": "telepathy", "range": None}]}
    run = decode(msgspec.json.encode(body), Run)
    assert run.to_dict()["tools"] == body["tools"]
    assert isinstance(run.tools, list)
    assert run.tools[0].to_dict() == {"type": "telepathy", "range": None}
    assert run.tools[0].to_dict(exclude_none=True) == {"type": "telepathy", "range": None}


def test_every_object_of_the_wire_has_these_methods() -> None:
    found = [getattr(wire, name) for name in wire.__all__]
    structs = [each for each in found if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    assert len(structs) > 40
    assert [each for each in structs if not issubclass(each, Object)] == []


def test_a_page_can_be_converted_to_a_dict() -> None:
    page = decode(b'{"object": "list", "data": [{"id": "t", "object": "thread"}], "has_more": false}', Page[Thread])
    assert page.to_dict() == {"object": "list", "data": [{"id": "t", "object": "thread"}], "has_more": False}


def test_unknown_fields_are_not_kept() -> None:
    assert "surprise" not in decode(b'{"id": "r", "status": "queued", "surprise": 1}', Run).to_dict()
