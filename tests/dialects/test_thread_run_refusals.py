"""The dialect of thread runs: the meaning of each error response, as one of a closed set."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncruns.dialects.responses import ResponsesDialect
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.errors import APIStatusError, BadRequestError, NotFoundError, ThreadBusyError, status_error_class
from asyncruns.http import Request, Response
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import Refusal, RefusalKind

DIALECT = ThreadRunDialect(host="host.example")
SUBMIT = Request("POST", "/threads/thread_1/runs/run_1/submit_tool_outputs", body=b"{}")


def refused(status: int, body: object = None, headers: dict[str, str] | None = None) -> Refusal:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return DIALECT.refusal(SUBMIT, Response(status, headers or {}, data))


def refused_with(message: str, status: int = 400, **more: Any) -> Refusal:
    return refused(status, {"error": {"message": message, "type": "invalid_request_error", **more}})


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RefusalKind.REJECTED),
        (401, RefusalKind.UNAUTHORIZED),
        (403, RefusalKind.UNAUTHORIZED),
        (404, RefusalKind.NOT_FOUND),
        (405, RefusalKind.REJECTED),
        (408, RefusalKind.UNAVAILABLE),
        (409, RefusalKind.UNAVAILABLE),
        (410, RefusalKind.NOT_FOUND),
        (413, RefusalKind.REJECTED),
        (422, RefusalKind.REJECTED),
        (425, RefusalKind.UNAVAILABLE),
        (429, RefusalKind.THROTTLED),
        (302, RefusalKind.REJECTED),
        (500, RefusalKind.UNAVAILABLE),
        (502, RefusalKind.UNAVAILABLE),
        (599, RefusalKind.UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("body", [{}, b"", b"<html>", b"\xff", b"[" * 10_000], ids=str)
def test_a_status_means_the_same_whatever_the_body(status: int, kind: RefusalKind, body: object) -> None:
    found = refused(status, body)
    assert (found.kind, found.phase, found.active_run, found.retry_after) == (kind, None, None, None)
    assert type(found.cause) is status_error_class(status)


@pytest.mark.parametrize(
    "error",
    [
        {"code": "insufficient_quota"},
        {"code": None, "type": "insufficient_quota"},
        {"code": None, "message": "You exceeded your current quota, please check your plan and billing details."},
    ],
)
def test_a_spent_quota_is_distinguished_from_throttling(error: dict[str, Any]) -> None:
    assert refused(429, {"error": error}).kind is RefusalKind.QUOTA_SPENT
    assert refused(500, {"error": error}).kind is RefusalKind.UNAVAILABLE
    assert refused_with("Rate limit reached", 429).kind is RefusalKind.THROTTLED


@pytest.mark.parametrize(
    ("word", "phase"),
    [
        ("expired", Phase.EXPIRED),
        ("cancelled", Phase.CANCELLED),
        ("queued", Phase.PENDING),
        ("in_progress", Phase.RUNNING),
        ("completed", Phase.SUCCEEDED),
        ("warming_up", None),
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        'Runs in status "{}" do not accept tool outputs.',
        "Runs in status '{}' do not accept tool outputs.",
        'A run in status "{}" does not accept tool outputs',
    ],
)
def test_the_refusal_of_a_late_submit_has_the_phase_of_the_run(text: str, word: str, phase: Phase | None) -> None:
    found = refused_with(text.format(word))
    assert (found.kind, found.phase, found.active_run) == (RefusalKind.NOT_ACCEPTING, phase, None)


@pytest.mark.parametrize("status", [400, 409, 422])
def test_the_refusal_of_a_late_cancel_has_the_phase_of_the_run(status: int) -> None:
    found = refused_with("Cannot cancel run with status 'completed'.", status)
    assert (found.kind, found.phase) == (RefusalKind.ALREADY_OVER, Phase.SUCCEEDED)


@pytest.mark.parametrize(
    "text",
    [
        "Thread thread_1 already has an active run run_7.",
        "Can't add messages to thread_1 while a run run_7 is active.",
        "thread thread_1 ALREADY HAS AN ACTIVE RUN run_7",
    ],
)
def test_the_refusal_of_a_locked_thread_has_the_active_run(text: str) -> None:
    found = refused_with(text)
    assert (found.kind, found.active_run, found.phase) == (RefusalKind.BUSY, "run_7", None)


@pytest.mark.parametrize("status", [400, 409, 422])
def test_a_locked_thread_has_its_own_error_class(status: int) -> None:
    text = "Thread thread_1 already has an active run run_7."
    body = msgspec.json.encode({"error": {"message": text, "code": "c"}})
    request = Request("POST", "/threads/thread%5F1/runs", body=b"{}")
    error = DIALECT.refusal(request, Response(status, {"X-Request-Id": "req_1"}, body)).cause
    assert isinstance(error, ThreadBusyError)
    assert isinstance(error, BadRequestError)
    assert (error.active_run_id, error.thread_id, error.status, error.code) == ("run_7", "thread_1", status, "c")
    assert (error.detail, error.body) == (text, body)
    assert 'watch it to its end, cancel it with client.threads.runs.cancel(), or pass on_busy="wait"' in str(error)
    assert (pickle.loads(pickle.dumps(error)).active_run_id, str(pickle.loads(pickle.dumps(error)))) == (
        "run_7",
        str(error),
    )


def test_a_lock_without_a_thread_in_the_path_has_no_thread_id() -> None:
    body = msgspec.json.encode({"error": "already has an active run run_7"})
    error = DIALECT.refusal(Request("POST", "/threads/runs"), Response(400, {}, body)).cause
    assert isinstance(error, ThreadBusyError)
    assert error.thread_id == ""


def test_error_texts_are_found_in_any_shape_of_error() -> None:
    text = "Cannot cancel run with status 'completed'."
    for body in ({"error": text}, {"detail": text}, {"code": "x", "message": text}, {"detail": [{"msg": text}]}):
        assert refused(400, body).kind is RefusalKind.ALREADY_OVER


def test_error_texts_are_ignored_under_other_statuses() -> None:
    text = "Cannot cancel run with status 'completed'."
    assert refused_with(text, 500).kind is RefusalKind.UNAVAILABLE
    assert refused_with(text, 429).kind is RefusalKind.THROTTLED
    assert refused_with(text, 404).kind is RefusalKind.NOT_FOUND


def test_other_error_texts_are_rejections() -> None:
    for text in ("Expected tool outputs for call_ids ['a', 'b'], got ['a']", "Duplicate call_ids submitted: ['a']", ""):
        found = refused_with(text)
        assert found.kind is RefusalKind.REJECTED
        assert isinstance(found.cause, BadRequestError)


@pytest.mark.parametrize(
    ("headers", "seconds"), [({}, None), ({"retry-after": "7"}, 7.0), ({"retry-after-ms": "70"}, 0.07)]
)
def test_a_refusal_has_the_servers_wait_hint(headers: dict[str, str], seconds: float | None) -> None:
    assert refused(429, {}, headers).retry_after == seconds
    assert refused(503, {}, headers).retry_after == seconds


def test_the_cause_is_the_exception_that_a_caller_would_get() -> None:
    found = refused(404, {"error": {"message": "No run found with id 'run_1'."}}, {"x-request-id": "req_1"})
    assert isinstance(found.cause, NotFoundError)
    assert "POST /threads/thread_1/runs/run_1/submit_tool_outputs answered 404: No run found" in str(found.cause)
    assert found.cause.request_id == "req_1"


def test_a_404_of_the_retired_host_is_explained() -> None:
    retired = ThreadRunDialect(host="api.openai.com")
    assert "2026-08-26" in str(retired.refusal(SUBMIT, Response(404, {}, b"")).cause)
    assert "2026-08-26" not in str(refused(404).cause)


@settings(deadline=None)  # a busy machine must not fail the test
@given(
    st.integers(100, 999),
    st.binary() | st.text().map(str.encode),
    st.dictionaries(st.sampled_from(["retry-after", "location", "date"]), st.text()),
)
def test_no_response_makes_a_refusal_raise(status: int, body: bytes, headers: dict[str, str]) -> None:
    found = DIALECT.refusal(SUBMIT, Response(status, headers, body))
    assert isinstance(found.cause, APIStatusError)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (405, "Method Not Allowed", RefusalKind.UNSUPPORTED),
        (501, "", RefusalKind.UNSUPPORTED),
        (400, "Cancelling runs is not supported.", RefusalKind.UNSUPPORTED),
        (422, "cancel: unsupported operation", RefusalKind.UNSUPPORTED),
        (400, "Cancelling is not supported while the run is queued", RefusalKind.REJECTED),
        (400, "Not supported in status in_progress", RefusalKind.REJECTED),
        (400, "No", RefusalKind.REJECTED),
        (404, "Not Found", RefusalKind.NOT_FOUND),
        (503, "not supported", RefusalKind.UNAVAILABLE),
    ],
)
def test_a_server_that_cannot_cancel_is_distinguished_from_one_that_cannot_cancel_now(
    status: int, text: str, kind: RefusalKind
) -> None:
    body = msgspec.json.encode({"error": {"message": text, "type": "invalid_request_error"}})
    for dialect, path in (
        (DIALECT, "/threads/thread_1/runs/run_1/cancel"),
        (ResponsesDialect(), "/responses/resp_1/cancel"),
    ):
        assert dialect.refusal(Request("POST", path), Response(status, {}, body)).kind is kind
