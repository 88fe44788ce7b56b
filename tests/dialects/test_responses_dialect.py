"""The dialect of background responses: statuses, calls, windows, faults, requests, and the meaning of errors."""

from __future__ import annotations

import contextlib
from email.utils import formatdate
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncruns.dialects.responses import ANSWERED_BY, ECHOED, RESPONSE_PHASES, ResponsesDialect
from asyncruns.errors import (
    APIResponseValidationError,
    APIStatusError,
    BadRequestError,
    InvalidRequestError,
    status_error_class,
)
from asyncruns.http import Request, Response
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import Call, CallKind, Refusal, RefusalKind, RunFault, RunRef, Snapshot
from asyncruns.wire import ModelResponse, Run, decode

DIALECT = ResponsesDialect()
REF = RunRef("response", ("resp_1",))
POLL = Request("GET", "/responses/resp_1")
CREATE = Request("POST", "/responses", body=b"{}")
CANCEL = Request("POST", "/responses/resp_1/cancel")
NOW = 1_770_000_000


def read(
    headers: dict[str, str] | None = None,
    /,
    dialect: ResponsesDialect = DIALECT,
    request: Request = POLL,
    **fields: Any,
) -> Snapshot[ModelResponse]:
    body = msgspec.json.encode({"id": "resp_1", "status": "completed", **fields})
    return dialect.read(request, Response(200, headers or {}, body))


def submitted(
    *answers: tuple[Call, str], dialect: ResponsesDialect = DIALECT, ref: RunRef = REF, **fields: Any
) -> dict[str, Any]:
    request = dialect.submit(ref, read(dialect=dialect, **fields), answers)
    assert (request.method, request.path) == ("POST", "/responses")
    assert request.body is not None
    body: dict[str, Any] = msgspec.json.decode(request.body)
    return body


def item_for(call: Call, output: str) -> dict[str, Any]:
    (item,) = submitted((call, output))["input"]
    assert isinstance(item, dict)
    return item


# Statuses


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("queued", Phase.PENDING),
        ("in_progress", Phase.RUNNING),
        ("completed", Phase.SUCCEEDED),
        ("failed", Phase.FAILED),
        ("cancelled", Phase.CANCELLED),
        ("incomplete", Phase.INCOMPLETE),
        ("requires_action", Phase.UNKNOWN),
        ("Completed", Phase.UNKNOWN),
        ("", Phase.UNKNOWN),
    ],
)
def test_a_status_has_its_phase_and_is_kept_as_sent(status: str, phase: Phase) -> None:
    found = read(status=status)
    assert (found.phase, found.status, found.resource.status) == (phase, status, status)
    assert (found.calls, found.is_final, found.ref) == ((), False, REF)
    assert DIALECT.snapshot(ModelResponse(id="resp_1", status=status)).phase is phase


def test_a_follow_up_has_its_own_ref() -> None:
    assert read(request=CREATE, id="resp_2").ref == RunRef("response", ("resp_2",))


@pytest.mark.parametrize("id_", ["", " ", "..", "a/../b"])
def test_a_follow_up_with_an_invalid_id_is_a_validation_error(id_: str) -> None:
    with pytest.raises(APIResponseValidationError, match="POST /responses answered 200"):
        read(request=CREATE, id=id_)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"id":"resp_1"}', b'{"status":"queued"}', b'{"id":"\xff"'])
def test_a_body_that_is_no_response_is_a_validation_error(body: bytes) -> None:
    with pytest.raises(APIResponseValidationError, match="GET /responses/resp_1 answered 200"):
        DIALECT.read(POLL, Response(200, {}, body))


# Calls

FUNCTION = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"a":'}
CUSTOM = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": "f", "input": "any text"}
COMPUTER = {"type": "computer_call", "id": "cu_1", "call_id": "call_1", "action": {"type": "screenshot"}}
SHELL = {"type": "shell_call", "id": "sh_1", "call_id": "call_1", "action": {"commands": ["ls"]}}
LOCAL_SHELL = {"type": "local_shell_call", "id": "lsh_1", "call_id": "call_1", "action": {"command": ["ls"]}}
PATCH = {"type": "apply_patch_call", "id": "apc_1", "call_id": "call_1", "operation": {"type": "delete_file"}}
SEARCH = {"type": "tool_search_call", "id": "tsc_1", "call_id": "call_1", "execution": "client", "arguments": {"q": 1}}
APPROVAL = {"type": "mcp_approval_request", "id": "mcpr_1", "name": "f", "server_label": "x", "arguments": "{}"}
CALLS: list[dict[str, Any]] = [FUNCTION, CUSTOM, COMPUTER, SHELL, LOCAL_SHELL, PATCH, SEARCH, APPROVAL]


def of_type(item: dict[str, Any]) -> str:
    return str(item["type"])


def test_every_kind_of_call_is_tested_once() -> None:
    assert {of_type(item) for item in CALLS} == {*ANSWERED_BY}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (FUNCTION, Call(id="call_1", name="f", arguments='{"a":', type="function_call")),
        (CUSTOM, Call(id="call_1", name="f", arguments="any text", kind=CallKind.OTHER, type="custom_tool_call")),
        (
            APPROVAL,
            Call(
                id="mcpr_1",
                name="f",
                arguments="{}",
                kind=CallKind.APPROVAL,
                type="mcp_approval_request",
                server_label="x",
            ),
        ),
    ],
    ids=["function", "custom", "approval"],
)
def test_a_call_is_kept_as_sent(item: dict[str, Any], expected: Call) -> None:
    found = read(output=[item])
    assert (found.phase, found.is_final, found.status) == (Phase.NEEDS_CALLER, True, "completed")
    assert found.calls == (expected,)


@pytest.mark.parametrize("item", [COMPUTER, SHELL, LOCAL_SHELL, PATCH, SEARCH], ids=of_type)
def test_a_call_that_no_function_can_answer_has_the_item_as_its_arguments(item: dict[str, Any]) -> None:
    found = read(output=[item])
    assert (found.phase, found.is_final) == (Phase.NEEDS_CALLER, True)
    (call,) = found.calls
    assert (call.id, call.name, call.kind, call.type) == ("call_1", "", CallKind.OTHER, item["type"])
    assert msgspec.json.decode(call.arguments) == item


def test_calls_keep_their_order_among_other_items() -> None:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]}
    second = {**FUNCTION, "call_id": "call_2"}
    found = read(output=[{"type": "reasoning", "summary": []}, FUNCTION, message, APPROVAL, second, {"type": "new"}])
    assert [call.id for call in found.calls] == ["call_1", "mcpr_1", "call_2"]


@pytest.mark.parametrize("item", CALLS, ids=of_type)
def test_a_call_with_an_output_item_is_not_open(item: dict[str, Any]) -> None:
    type_, field = ANSWERED_BY[item["type"]]
    answer = {"type": type_, field: item.get("call_id", item["id"])}
    for items in ([item, answer], [answer, item]):
        found = read(output=items)
        assert (found.phase, found.calls, found.is_final) == (Phase.SUCCEEDED, (), False)
    assert len(read(output=[item, {**answer, field: "other"}]).calls) == 1
    assert len(read(output=[item, {"type": type_}]).calls) == 1


def test_an_output_item_closes_only_its_own_call() -> None:
    found = read(
        output=[FUNCTION, {**FUNCTION, "call_id": "call_2"}, {"type": "function_call_output", "call_id": "call_1"}]
    )
    assert [call.id for call in found.calls] == ["call_2"]


def test_an_approval_whose_call_has_run_is_not_open() -> None:
    done = {"type": "mcp_call", "id": "mcp_1", "approval_request_id": "mcpr_1", "output": "x"}
    assert read(output=[APPROVAL, done]).phase is Phase.SUCCEEDED
    assert read(output=[APPROVAL, {**done, "approval_request_id": None}]).phase is Phase.NEEDS_CALLER


@pytest.mark.parametrize(
    "item",
    [
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "file_search_call", "id": "fs_1", "queries": []},
        {"type": "code_interpreter_call", "id": "ci_1", "code": "1"},
        {"type": "image_generation_call", "id": "ig_1"},
        {"type": "mcp_call", "id": "mcp_1", "name": "f", "arguments": "{}"},
        {"type": "mcp_list_tools", "id": "mcpl_1", "tools": []},
        {"type": "new_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {"call_id": "call_1"},
        {**SEARCH, "execution": "server"},
        {**SEARCH, "execution": None},
        {**SHELL, "environment": {"type": "container_reference", "container_id": "cntr_1"}},
        {**SHELL, "environment": {"type": "container_auto"}},
    ],
    ids=str,
)
def test_calls_that_the_server_runs_itself_are_not_open(item: dict[str, Any]) -> None:
    assert read(output=[item]).phase is Phase.SUCCEEDED


@pytest.mark.parametrize("environment", [None, {}, {"type": "local"}, "odd"])
def test_a_shell_call_without_a_container_is_the_callers(environment: object) -> None:
    assert read(output=[{**SHELL, "environment": environment}]).phase is Phase.NEEDS_CALLER


@pytest.mark.parametrize("item", [item for item in CALLS if item is not SHELL], ids=of_type)
def test_a_call_that_cannot_be_answered_is_listed_and_never_run(item: dict[str, Any]) -> None:
    without = {name: value for name, value in item.items() if name not in ("call_id", "id")}
    found = read(output=[without])
    assert found.phase is Phase.NEEDS_CALLER
    (call,) = found.calls
    assert (call.id, call.name, call.kind, call.type) == ("", "", CallKind.OTHER, item["type"])
    assert msgspec.json.decode(call.arguments).items() >= without.items()


@pytest.mark.parametrize("status", ["queued", "in_progress", "failed", "cancelled", "incomplete", "new"])
def test_calls_only_count_if_the_response_is_completed(status: str) -> None:
    found = read(status=status, output=CALLS)
    assert (found.phase, found.calls, found.is_final) == (RESPONSE_PHASES.get(status, Phase.UNKNOWN), (), False)


@pytest.mark.parametrize("output", [None, [], {}, "text", [None], [5], [[]]])
def test_the_output_may_be_empty_or_odd(output: object) -> None:
    assert read(output=output).phase is Phase.SUCCEEDED


# Faults, times


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, None),
        ({"error": None, "incomplete_details": None}, None),
        ({"error": {"code": "server_error", "message": "Sorry."}}, RunFault("server_error", "Sorry.")),
        ({"error": {"code": None}}, RunFault("", "")),
        ({"error": {"code": 5, "message": "Sorry."}}, RunFault("", "Sorry.")),
        ({"incomplete_details": {"reason": "max_output_tokens"}}, RunFault("max_output_tokens", "")),
        ({"incomplete_details": {}}, RunFault("", "")),
        (
            {"error": {"code": "a", "message": "b"}, "incomplete_details": {"reason": "content_filter"}},
            RunFault("a", "b"),
        ),
    ],
)
def test_a_fault_has_the_servers_words(fields: dict[str, Any], fault: RunFault | None) -> None:
    assert read(status="failed", **fields).fault == fault


def test_a_fault_does_not_show_the_credential() -> None:
    body = b'{"id":"resp_1","status":"failed","error":{"code":"x","message":"Bad key sk-1."}}'
    found = DIALECT.read(POLL, Response(200, {}, body, redact=lambda text: text.replace(b"sk-1", b"***")))
    assert found.fault == RunFault("x", "Bad key ***.")


@pytest.mark.parametrize(("window", "seconds"), [("2h", 7200), ("8h", 28800)])
@pytest.mark.parametrize("is_echoed", [True, False])
def test_a_window_sets_the_expiry_and_the_wait_hint(window: str, seconds: int, is_echoed: bool) -> None:
    options = {"background_options": {"completion_window": window}}
    dialect = DIALECT if is_echoed else ResponsesDialect(options)
    fields: Any = {"status": "queued", "created_at": NOW, **(options if is_echoed else {"background_options": None})}
    found = read(dialect=dialect, **fields)
    assert (found.expires_at, found.hint) == (NOW + seconds, 30.0)
    assert read(dialect=dialect, **{**fields, "created_at": NOW * 1000}).expires_at == NOW + seconds
    asked_to_wait = read({"retry-after": "7"}, dialect=dialect, **fields)
    assert (asked_to_wait.expires_at, asked_to_wait.hint) == (NOW + seconds, 7.0)
    at_once = read({"openai-poll-after-ms": "0"}, dialect=dialect, **fields)
    assert at_once.hint == 0.0


@pytest.mark.parametrize("created_at", [None, 0, "soon", True])
def test_a_window_without_a_creation_time_has_no_expiry(created_at: object) -> None:
    found = read(created_at=created_at, background_options={"completion_window": "2h"})
    assert (found.expires_at, found.hint) == (None, 30.0)


@pytest.mark.parametrize(
    "options", [None, {}, [], "2h", {"completion_window": None}, {"completion_window": "soonest"}, {"window": ["2h"]}]
)
def test_without_a_window_there_is_neither_expiry_nor_hint(options: object) -> None:
    found = read(status="queued", created_at=NOW, background_options=options)
    assert (found.expires_at, found.hint) == (None, None)


def test_the_window_that_the_server_echoes_overrides_the_requested_one() -> None:
    requested = ResponsesDialect({"background_options": {"completion_window": "8h"}})
    found = read(dialect=requested, created_at=NOW, background_options={"completion_window": "soonest"})
    assert (found.expires_at, found.hint) == (None, None)


def test_the_servers_time_and_its_hint_come_from_the_headers() -> None:
    found = read({"date": formatdate(NOW, usegmt=True), "openai-poll-after-ms": "1500"})
    assert (found.server_time, found.hint) == (NOW, 1.5)
    assert (read().server_time, read().hint) == (None, None)


# Requests


def test_requests_are_those_of_the_api() -> None:
    assert DIALECT.poll(REF) == POLL
    assert DIALECT.cancel(REF) == Request("POST", "/responses/resp_1/cancel")
    odd = RunRef("response", ("a/ü",))
    assert DIALECT.poll(odd).path == "/responses/a%2F%C3%BC"
    assert not DIALECT.shows_submits


def a(type_: str, id_: str = "call_1", kind: CallKind = CallKind.OTHER) -> Call:
    return Call(id=id_, name="", kind=kind, type=type_)


SCREENSHOT = '{"type":"computer_screenshot","image_url":"data:x"}'


@pytest.mark.parametrize(
    ("type_", "output", "expected"),
    [
        ("function_call", "22°", {"type": "function_call_output", "output": "22°"}),
        ("function_call", '{"a": 1}', {"type": "function_call_output", "output": '{"a": 1}'}),
        ("function_call", "", {"type": "function_call_output", "output": ""}),
        (
            "function",
            "x",
            {"type": "function_call_output", "output": "x"},
        ),  # the default type of a `Call`
        ("custom_tool_call", "[1]", {"type": "custom_tool_call_output", "output": "[1]"}),
        ("local_shell_call", '{"exit": 0}', {"type": "local_shell_call_output", "output": '{"exit": 0}'}),
        (
            "computer_call",
            SCREENSHOT,
            {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "data:x"}},
        ),
        (
            "computer_call",
            '{"output":' + SCREENSHOT + ',"acknowledged_safety_checks":[{"id":"cu_sc_1"}]}',
            {
                "type": "computer_call_output",
                "output": {"type": "computer_screenshot", "image_url": "data:x"},
                "acknowledged_safety_checks": [{"id": "cu_sc_1"}],
            },
        ),
        ("shell_call", '[{"stdout":"x"}]', {"type": "shell_call_output", "output": [{"stdout": "x"}]}),
        (
            "shell_call",
            '{"output":[{"stdout":"x"}],"max_output_length":9}',
            {"type": "shell_call_output", "output": [{"stdout": "x"}], "max_output_length": 9},
        ),
        ("apply_patch_call", '{"status":"failed"}', {"type": "apply_patch_call_output", "status": "failed"}),
        ("apply_patch_call", "done", {"type": "apply_patch_call_output", "output": "done"}),
        ("apply_patch_call", "5", {"type": "apply_patch_call_output", "output": "5"}),
        ("tool_search_call", "[]", {"type": "tool_search_output", "execution": "client", "tools": []}),
        ("tool_search_call", '{"tools":[]}', {"type": "tool_search_output", "execution": "client", "tools": []}),
    ],
)
def test_each_call_is_answered_by_its_type_of_item(type_: str, output: str, expected: dict[str, Any]) -> None:
    field = "id" if type_ == "local_shell_call" else "call_id"
    assert item_for(a(type_), output) == {**expected, field: "call_1"}


def test_an_output_item_names_its_own_call_whatever_the_output_holds() -> None:
    output = '{"type":"message","call_id":"call_9","status":"completed"}'
    expected = {"type": "apply_patch_call_output", "call_id": "call_1", "status": "completed"}
    assert item_for(a("apply_patch_call"), output) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("true", {"approve": True}),
        ("false", {"approve": False}),
        ('{"approve":false,"reason":"No."}', {"approve": False, "reason": "No."}),
        ('{"approve":true,"headers":{"x":"y"}}', {"approve": True}),
        ("yes", {"approve": False}),
        ("1", {"approve": False}),
    ],
)
def test_an_approval_is_true_or_false(output: str, expected: dict[str, Any]) -> None:
    call = a("mcp_approval_request", "mcpr_1", CallKind.APPROVAL)
    assert item_for(call, output) == {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", **expected}


def test_the_input_of_a_follow_up_is_all_outputs_in_their_order() -> None:
    body = submitted((a("function_call", "call_b"), "1"), (a("function_call", "call_a"), "2"), output=[FUNCTION])
    assert body == {
        "previous_response_id": "resp_1",
        "background": True,
        "input": [
            {"type": "function_call_output", "call_id": "call_b", "output": "1"},
            {"type": "function_call_output", "call_id": "call_a", "output": "2"},
        ],
    }


ECHO: dict[str, Any] = {
    "model": "gpt-x",
    "instructions": "Be short.",
    "tools": [{"type": "function", "name": "f"}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "low"},
    "text": {"format": {"type": "text"}},
    "temperature": 0.5,
    "top_p": 0.9,
    "max_output_tokens": 100,
    "max_tool_calls": 3,
    "truncation": "disabled",
    "metadata": {"a": "b"},
}


def test_parameters_that_the_response_echoes_are_repeated() -> None:
    assert ECHO.keys() == {*ECHOED}
    body = submitted(**ECHO, output=[FUNCTION], usage={"total_tokens": 5}, user="u", id="resp_1", store=True)
    assert body == {**ECHO, "previous_response_id": "resp_1", "background": True, "input": []}
    nothing: Any = dict.fromkeys(ECHOED)
    assert submitted(**nothing) == {"previous_response_id": "resp_1", "background": True, "input": []}


@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_a_parameter_of_zero_is_repeated(name: str) -> None:
    fields: Any = {name: 0.0}
    assert submitted(**fields)[name] == 0.0


def test_given_parameters_replace_the_echoed_ones_except_the_model() -> None:
    given = {"tools": [], "include": ["x"], "background": False, "user": "u", "temperature": None}
    body = submitted(dialect=ResponsesDialect(given), **ECHO)
    rest = {"model": ECHO["model"], "previous_response_id": "resp_1", "background": True, "input": []}
    assert body == {**given, **rest}
    assert submitted(dialect=ResponsesDialect({"model": "mine"}), **ECHO)["model"] == "mine"


@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_a_default_that_the_server_filled_in_is_not_repeated(name: str) -> None:
    fields: Any = {name: 1.0}
    assert name not in submitted(**fields)


def test_the_instructions_of_a_template_are_not_repeated() -> None:
    fields: Any = {"instructions": [{"type": "message", "role": "developer", "content": "x"}]}
    assert "instructions" not in submitted(**fields)


def test_all_requests_have_the_options_of_the_given_request() -> None:
    like = Request("POST", "/", query=(("q", "1"),), headers=(("x-tenant", "7"),), timeout=3.0)
    dialect = ResponsesDialect({}, like=like)
    for request in (dialect.poll(REF), dialect.cancel(REF)):
        assert (request.query, request.headers, request.timeout) == (like.query, like.headers, like.timeout)
    assert dialect.poll(REF).method == "GET"


def test_a_given_input_or_previous_response_is_not_repeated() -> None:
    dialect = ResponsesDialect({"input": "Hi", "previous_response_id": "resp_0"})
    body = submitted((a("function_call"), "1"), dialect=dialect, previous_response_id="resp_0")
    assert body["previous_response_id"] == "resp_1"
    assert body["input"] == [{"type": "function_call_output", "call_id": "call_1", "output": "1"}]


@pytest.mark.parametrize("conversation", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_replaces_the_previous_response(conversation: object) -> None:
    dialect = ResponsesDialect({"conversation": conversation, "previous_response_id": None})
    body = submitted(dialect=dialect, conversation={"id": "conv_1"})
    assert body["conversation"] == conversation
    assert "previous_response_id" not in body


def test_a_conversation_that_the_response_echoes_is_continued() -> None:
    body = submitted(conversation={"id": "conv_1"})
    assert body == {"conversation": "conv_1", "background": True, "input": []}
    assert submitted(conversation={})["previous_response_id"] == "resp_1"
    own = submitted(conversation={"id": "conv_1"}, dialect=ResponsesDialect({"conversation": None}))
    assert "conversation" not in own
    assert own["previous_response_id"] == "resp_1"
    assert submitted(conversation=None)["previous_response_id"] == "resp_1"


@pytest.mark.parametrize(
    ("given", "echoed", "sent"),
    [
        (None, None, None),
        (None, {}, None),
        (None, {"continuation_id": "c"}, {"continuation_id": "c"}),
        (
            None,
            {"completion_window": "8h", "continuation_id": "c", "new": 1},
            {"completion_window": "8h", "continuation_id": "c"},
        ),
        ({"completion_window": "2h"}, None, {"completion_window": "2h"}),
        (
            {"completion_window": "2h"},
            {"continuation_id": "c"},
            {"completion_window": "2h", "continuation_id": "c"},
        ),
        ({"continuation_id": "mine"}, {"continuation_id": "c"}, {"continuation_id": "mine"}),
        ({"continuation_id": "mine"}, "odd", {"continuation_id": "mine"}),
    ],
)
def test_the_window_and_the_continuation_id_are_repeated(given: object, echoed: object, sent: object) -> None:
    dialect = ResponsesDialect(None if given is None else {"background_options": given})
    assert submitted(dialect=dialect, background_options=echoed).get("background_options") == sent


def test_the_parameters_of_the_caller_are_not_changed() -> None:
    given = {"background_options": {"completion_window": "2h"}}
    submitted(dialect=ResponsesDialect(given), background_options={"continuation_id": "c"})
    assert given == {"background_options": {"completion_window": "2h"}}


# Identifying a response


def test_a_response_is_identified_by_an_object_or_a_ref() -> None:
    assert DIALECT.identify(REF, {}) == REF
    assert DIALECT.identify(ModelResponse(id="resp_1", status="queued"), {}) == REF
    assert DIALECT.ref("resp_1") == REF


@pytest.mark.parametrize(
    ("run", "ids", "message"),
    [
        (None, {}, "got None"),
        (None, {"thread_id": "thread_1", "run_id": "run_1"}, "its own id"),
        (ModelResponse(id="resp_1", status="queued"), {"run_id": "run_1"}, "its own id"),
        (ModelResponse(id="", status="queued"), {}, "response_id"),
        (ModelResponse(id="..", status="queued"), {}, "'..' is not an id"),
        (RunRef("thread.run", ("thread_1", "run_1")), {}, "does not name a response"),
        (RunRef("response", ("resp_1", "resp_2")), {}, "does not name a response"),
        (RunRef("response", ("a/../b",)), {}, "is not an id"),
        (Run(id="run_1", status="queued"), {}, "got Run"),
        ("resp_1", {}, "got str"),
        ({"id": "resp_1"}, {}, "got dict"),
    ],
)
def test_arguments_that_identify_no_response_are_refused(run: object, ids: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        DIALECT.identify(run, ids)


# Errors


def refused(
    status: int, body: object = None, headers: dict[str, str] | None = None, *, request: Request = POLL
) -> Refusal:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return DIALECT.refusal(request, Response(status, headers or {}, data))


def refused_with(message: str, status: int = 400, *, request: Request = POLL, **more: Any) -> Refusal:
    return refused(status, {"error": {"message": message, "type": "invalid_request_error", **more}}, request=request)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, RefusalKind.REJECTED),
        (400, RefusalKind.REJECTED),
        (401, RefusalKind.UNAUTHORIZED),
        (403, RefusalKind.UNAUTHORIZED),
        (404, RefusalKind.NOT_FOUND),
        (408, RefusalKind.UNAVAILABLE),
        (409, RefusalKind.UNAVAILABLE),
        (410, RefusalKind.NOT_FOUND),
        (422, RefusalKind.REJECTED),
        (429, RefusalKind.THROTTLED),
        (500, RefusalKind.UNAVAILABLE),
        (502, RefusalKind.UNAVAILABLE),
        (599, RefusalKind.UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("body", [{}, b"", b"<html>", b"\xff", b"[" * 10_000], ids=str)
def test_a_status_means_the_same_whatever_the_body(status: int, kind: RefusalKind, body: object) -> None:
    for request in (POLL, CREATE):
        found = refused(status, body, request=request)
        meant = RefusalKind.NOT_READY if status == 409 and request is CREATE else kind
        assert (found.kind, found.phase, found.active_run, found.retry_after) == (meant, None, None, None)
        assert type(found.cause) is status_error_class(status)


@pytest.mark.parametrize(
    "text",
    [
        "Cannot cancel a completed response.",
        "Cannot cancel a synchronous response.",  # vLLM's text for a response that has ended
        "Response resp_1 has already been completed",
        "The response was already cancelled.",
        "already canceled",
        "This response is not cancellable",
    ],
)
def test_a_cancel_of_an_ended_response_is_too_late(text: str) -> None:
    for status in (400, 409, 422):
        found = refused_with(text, status, request=CANCEL)
        assert (found.kind, found.phase) == (RefusalKind.ALREADY_OVER, None)
        assert isinstance(found.cause, APIStatusError)
    assert refused_with(text, 500, request=CANCEL).kind is RefusalKind.UNAVAILABLE
    assert refused_with(text, 429, request=CANCEL).kind is RefusalKind.THROTTLED


def test_a_cancel_refused_with_409_is_too_late_whatever_the_text() -> None:
    assert refused(409, {}, request=CANCEL).kind is RefusalKind.ALREADY_OVER
    assert refused(400, {}, request=CANCEL).kind is RefusalKind.REJECTED
    assert refused(404, {}, request=CANCEL).kind is RefusalKind.NOT_FOUND


@pytest.mark.parametrize("sent", [POLL, CREATE])
def test_only_a_cancel_can_be_too_late(sent: Request) -> None:
    assert refused_with("The batch was already completed", 400, request=sent).kind is RefusalKind.REJECTED


@pytest.mark.parametrize("status", [400, 409, 422])
@pytest.mark.parametrize("sent", [CREATE, CANCEL])
def test_a_locked_conversation_is_a_temporary_refusal(status: int, sent: Request) -> None:
    assert refused_with("Busy.", status, code="conversation_locked", request=sent).kind is RefusalKind.THROTTLED
    text = "The conversation is currently locked by another response."
    found = refused(status, {"error": {"message": text}}, {"retry-after": "3"}, request=sent)
    assert (found.kind, found.retry_after) == (RefusalKind.THROTTLED, 3.0)


def test_a_previous_response_that_is_no_longer_stored_is_not_found() -> None:
    text = "Previous response with id 'resp_1' not found."
    found = refused_with(text, 400, code="previous_response_not_found", request=CREATE)
    assert found.kind is RefusalKind.NOT_FOUND
    assert isinstance(found.cause, BadRequestError)


def test_other_error_texts_are_rejections() -> None:
    for text in ("No tool output found for function call call_1.", ""):
        assert refused_with(text, request=CREATE).kind is RefusalKind.REJECTED


def test_a_spent_quota_is_distinguished_from_throttling() -> None:
    assert refused_with("You exceeded your current quota", 429).kind is RefusalKind.QUOTA_SPENT
    assert refused_with("", 429, code="insufficient_quota").kind is RefusalKind.QUOTA_SPENT
    assert refused_with("Rate limit reached", 429).kind is RefusalKind.THROTTLED


# Any JSON at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TYPES = st.sampled_from([*ANSWERED_BY, *(type_ for type_, _ in ANSWERED_BY.values()), "message", "mcp_call", "new"])
ITEM_FIELDS = ["id", "call_id", "approval_request_id", "name", "arguments", "input", "action", "environment"]
ITEMS = st.builds(
    lambda type_, fields: {**fields, "type": type_},
    TYPES | JSON,
    st.dictionaries(st.sampled_from([*ITEM_FIELDS, "execution", "output"]), JSON, max_size=5),
)


@settings(deadline=None)  # a busy machine must not fail the test
@given(
    st.dictionaries(st.sampled_from(ModelResponse.__struct_encode_fields__[2:]), JSON, max_size=6),
    st.lists(ITEMS | JSON, max_size=4),
    st.sampled_from([*RESPONSE_PHASES, "x"]),
    JSON,
)
def test_no_response_makes_the_dialect_raise(
    fields: dict[str, Any], items: list[Any], status: str, answer: object
) -> None:
    body = msgspec.json.encode({"output": items, **fields, "id": "resp_1", "status": status})
    found = DIALECT.read(POLL, Response(200, {}, body))
    assert (found.phase is Phase.NEEDS_CALLER) == bool(found.calls)
    if not found.calls:
        assert found.phase is RESPONSE_PHASES.get(status, Phase.UNKNOWN)
    assert DIALECT.snapshot(decode(body, ModelResponse)).calls == found.calls
    output = msgspec.json.encode(answer).decode()
    request = DIALECT.submit(REF, found, tuple((call, output) for call in found.calls))
    assert len(msgspec.json.decode(request.body or b"")["input"]) == len(found.calls)


@settings(deadline=None)
@given(JSON.map(msgspec.json.encode) | st.binary())
def test_no_body_raises_anything_but_a_validation_error(body: bytes) -> None:
    with contextlib.suppress(APIResponseValidationError):
        DIALECT.read(CREATE, Response(200, {}, body))


@settings(deadline=None)
@given(
    st.sampled_from([POLL, CREATE, CANCEL]),
    st.integers(100, 999),
    st.binary() | JSON.map(msgspec.json.encode) | JSON.map(lambda error: msgspec.json.encode({"error": error})),
    st.dictionaries(st.sampled_from(["retry-after", "location", "date"]), st.text()),
)
def test_no_response_makes_a_refusal_raise(request: Request, status: int, body: bytes, headers: dict[str, str]) -> None:
    found = DIALECT.refusal(request, Response(status, headers, body))
    assert isinstance(found.cause, APIStatusError)
