"""The dialect of thread runs: statuses, calls, times and faults of a run; identifying a run; requests."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from asyncruns.dialects.thread_run import RUN_PHASES, ThreadRunDialect
from asyncruns.errors import APIResponseValidationError, InvalidRequestError
from asyncruns.http import Request, Response
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import Call, CallKind, RunFault, RunRef, Snapshot
from asyncruns.wire import Run, decode

DIALECT = ThreadRunDialect()
REF = RunRef("thread.run", ("thread_1", "run_1"))
POLL = Request("GET", "/threads/thread_1/runs/run_1")


def read(headers: dict[str, str] | None = None, /, **fields: Any) -> Snapshot[Run]:
    body = msgspec.json.encode({"id": "run_1", "status": "queued", **fields})
    return DIALECT.read(POLL, Response(200, headers or {}, body))


def test_an_unreadable_answer_with_a_request_id_that_is_not_utf_8_is_reported() -> None:
    headers = {"x-request-id": b"req_\x9b1".decode("utf-8", "surrogateescape")}
    with pytest.raises(APIResponseValidationError) as caught:
        DIALECT.read(POLL, Response(200, headers, b"<html>", redact=lambda body: body))
    assert caught.value.request_id == "req_\ufffd1"


def calls(*tool_calls: object, action: str = "submit_tool_outputs") -> tuple[Call, ...]:
    required = {"type": action, action: {"tool_calls": tool_calls}}
    return read(status="requires_action", required_action=required).calls


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("queued", Phase.PENDING),
        ("in_progress", Phase.RUNNING),
        ("requires_action", Phase.NEEDS_CALLER),
        ("cancelling", Phase.CANCELLING),
        ("cancelled", Phase.CANCELLED),
        ("failed", Phase.FAILED),
        ("completed", Phase.SUCCEEDED),
        ("incomplete", Phase.INCOMPLETE),
        ("expired", Phase.EXPIRED),
        ("warming_up", Phase.UNKNOWN),
        ("Completed", Phase.UNKNOWN),
        ("", Phase.UNKNOWN),
    ],
)
def test_a_status_has_its_phase_and_is_kept_as_sent(status: str, phase: Phase) -> None:
    found = read(status=status)
    assert (found.phase, found.status, found.resource.status) == (phase, status, status)
    assert DIALECT.snapshot(Run(id="run_1", status=status)).phase is phase


def test_every_phase_except_unknown_has_a_status() -> None:
    assert {*RUN_PHASES.values()} == {*Phase} - {Phase.UNKNOWN}


@pytest.mark.parametrize("action", [None, {}, [], "", 5, {"type": "submit_tool_outputs"}])
def test_an_action_without_calls_has_none(action: object) -> None:
    assert read(status="requires_action", required_action=action).calls == ()
    assert read(status="requires_action").calls == ()


@pytest.mark.parametrize("listed", [None, [], {}, [None]])
def test_a_list_of_calls_may_be_empty_or_odd(listed: object) -> None:
    action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": listed}}
    assert read(status="requires_action", required_action=action).calls == ()


def test_calls_only_count_while_the_run_waits_for_them() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [call]}}
    assert len(read(status="requires_action", required_action=action).calls) == 1
    assert read(status="in_progress", required_action=action).calls == ()


def test_function_calls_are_kept_as_sent_in_their_order() -> None:
    found = calls(
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":'}},
        {"id": "call_2", "type": "function", "function": {"name": "multi_tool_use.parallel", "arguments": ""}},
    )
    assert found == (
        Call(id="call_1", name="f", arguments='{"a":'),
        Call(id="call_2", name="multi_tool_use.parallel"),
    )
    assert [call.kind for call in found] == [CallKind.FUNCTION] * 2


@pytest.mark.parametrize(
    ("function", "name", "arguments"),
    [
        ({"name": "f"}, "f", ""),
        ({"name": "f", "arguments": None}, "f", ""),
        ({}, "", ""),
        (None, "", ""),
        # Lenient servers send the object itself; without this the tool would run without its arguments.
        (
            {"name": "f", "arguments": {"city": "Paris", "days": [1, 2.5, None]}},
            "f",
            '{"city":"Paris","days":[1,2.5,null]}',
        ),
        ({"name": "f", "arguments": ["Paris"]}, "f", '["Paris"]'),
        ({"name": "f", "arguments": {}}, "f", "{}"),
    ],
)
def test_a_function_call_may_be_incomplete_or_lenient(function: object, name: str, arguments: str) -> None:
    assert calls({"id": "call_1", "type": "function", "function": function}) == (
        Call(id="call_1", name=name, arguments=arguments),
    )


def test_a_function_call_needs_no_type() -> None:
    assert calls({"id": "call_1", "function": {"name": "f", "arguments": "{}"}}) == (
        Call(id="call_1", name="f", arguments="{}"),
    )


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            {"id": "call_1", "type": "mcp", "name": "search", "server_label": "x", "arguments": '{"q":1}'},
            Call(id="call_1", name="search", arguments='{"q":1}', kind=CallKind.SERVER, type="mcp", server_label="x"),
        ),
        (
            {"id": "call_1", "type": "azure_function"},
            Call(id="call_1", name="", kind=CallKind.SERVER, type="azure_function"),
        ),
        ({"id": "call_1"}, Call(id="call_1", name="", kind=CallKind.OTHER, type="")),
        (
            {"id": "call_1", "type": 5, "name": 5, "arguments": 5},
            Call(id="call_1", name="", kind=CallKind.OTHER, type=""),
        ),
        ({"type": "function", "function": {}}, Call(id="", name="", kind=CallKind.OTHER, type="function")),
        (
            {"id": "c", "type": "asyncruns.unknown"},
            Call(id="c", name="", kind=CallKind.OTHER, type="asyncruns.unknown"),
        ),
    ],
)
def test_a_call_that_is_no_function_call_is_listed_with_its_id(call: object, expected: Call) -> None:
    assert calls(call) == (expected,)
    assert calls(call, action="submit_tool_approval") == (replace(expected, kind=CallKind.APPROVAL),)


NOW = 1_770_000_000


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (NOW, float(NOW)),
        (NOW + 0.5, NOW + 0.5),
        (NOW * 1000, float(NOW)),
        (NOW * 1000 + 0.5, NOW + 0.0005),
        (None, None),
        ("soon", None),
        (str(NOW), None),
        (True, None),
        (0, None),  # servers written in Go send this for "no time"
        (-1, None),
        (1e300, None),
        pytest.param(10**400, None, id="absurd"),
    ],
)
def test_an_expiry_may_be_in_seconds_fractions_or_milliseconds(value: object, seconds: float | None) -> None:
    assert read(expires_at=value).expires_at == pytest.approx(seconds)
    assert read().expires_at is None


def test_the_servers_time_and_its_hint_come_from_the_headers() -> None:
    found = read({"date": formatdate(NOW, usegmt=True), "openai-poll-after-ms": "1500"})
    assert (found.server_time, found.hint) == (NOW, 1.5)
    assert (read().server_time, read().hint) == (None, None)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, None),
        ({"last_error": None, "incomplete_details": None}, None),
        ({"last_error": {"code": "server_error", "message": "Sorry."}}, RunFault("server_error", "Sorry.")),
        ({"last_error": {"code": None}}, RunFault("", "")),
        ({"last_error": {"code": 5, "message": "Sorry."}}, RunFault("", "Sorry.")),
        ({"incomplete_details": {"reason": "max_prompt_tokens"}}, RunFault("max_prompt_tokens", "")),
        ({"incomplete_details": {}}, RunFault("", "")),
    ],
)
def test_a_fault_has_the_servers_words(fields: dict[str, Any], fault: RunFault | None) -> None:
    assert read(status="failed", **fields).fault == fault


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"id":"run_1"}', b'{"status":"queued"}', b'{"id":"\xff"'])
def test_a_body_that_is_no_run_is_a_validation_error(body: bytes) -> None:
    with pytest.raises(APIResponseValidationError, match="GET /threads/thread_1/runs/run_1 answered 200"):
        DIALECT.read(POLL, Response(200, {}, body))


def test_a_run_is_identified_by_an_object_a_ref_or_ids() -> None:
    ids = {"thread_id": "thread_1", "run_id": "run_1"}
    assert DIALECT.identify(None, ids) == REF
    assert DIALECT.identify(REF, {}) == REF
    assert DIALECT.identify(Run(id="run_1", status="queued", thread_id="thread_1"), {}) == REF
    assert DIALECT.identify(Run(id="run_1", status="queued"), {"thread_id": "thread_1"}) == REF


@pytest.mark.parametrize(
    ("run", "ids", "message"),
    [
        (None, {}, "thread_id"),
        (None, {"thread_id": "thread_1"}, "run_id"),
        (None, {"thread_id": "..", "run_id": "run_1"}, "thread_id"),
        (None, {"thread_id": "thread_1", "run_id": "a/../b"}, "run_id"),
        (Run(id="run_1", status="queued"), {}, "thread_id"),
        (Run(id="", status="queued", thread_id="thread_1"), {}, "run_id"),
        (RunRef("response", ("resp_1",)), {}, "thread"),
        (RunRef("thread.run", ("run_1",)), {}, "thread"),
        ("run_1", {}, "got str"),
        ({"id": "run_1"}, {}, "got dict"),
    ],
)
def test_arguments_that_identify_no_run_are_refused(run: object, ids: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        DIALECT.identify(run, ids)


def test_requests_are_those_of_the_api() -> None:
    assert DIALECT.poll(REF) == POLL
    assert DIALECT.cancel(REF) == Request("POST", "/threads/thread_1/runs/run_1/cancel")
    answers = ((Call(id="call_1", name="f"), "22°"), (Call(id="call_2", name="f"), ""))
    assert DIALECT.submit(REF, read(), answers) == Request(
        "POST",
        "/threads/thread_1/runs/run_1/submit_tool_outputs",
        body='{"tool_outputs":[{"tool_call_id":"call_1","output":"22°"},{"tool_call_id":"call_2","output":""}]}'.encode(),
    )
    odd = RunRef("thread.run", ("a/b", "ü"))
    assert DIALECT.poll(odd).path == "/threads/a%2Fb/runs/%C3%BC"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)  # a busy machine must not fail the test
@given(
    st.dictionaries(st.sampled_from(Run.__struct_encode_fields__[2:]), JSON, max_size=6),
    st.sampled_from([*RUN_PHASES, "x"]),
)
def test_no_run_makes_the_dialect_raise(fields: dict[str, Any], status: str) -> None:
    found = DIALECT.snapshot(decode(msgspec.json.encode({**fields, "id": "run_1", "status": status}), Run))
    assert found.phase is RUN_PHASES.get(status, Phase.UNKNOWN)
