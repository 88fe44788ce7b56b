"""Lines of results are read as servers send them, and a line that cannot be read is a result that says so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncruns.dialects.result_lines import MALFORMED_LINE, BatchResult, read_result
from asyncruns.lifecycle import RunFault
from asyncruns.wire import ModelResponse

COMPLETION = {"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"message": {"content": "Hello"}}]}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}],
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}],
}


def read(line: Any) -> BatchResult:
    return read_result(json.dumps(line).encode(), "file-1, line 3,")


def answered(body: Any, status: Any = 200) -> BatchResult:
    response = {"status_code": status, "request_id": "req_1", "body": body}
    return read({"id": "batch_req_1", "custom_id": "a", "response": response, "error": None})


def test_a_chat_completion_is_a_dict_with_a_text() -> None:
    result = answered(COMPLETION)
    assert (result.custom_id, result.kind, result.status_code, result.request_id) == ("a", "answered", 200, "req_1")
    assert result.response == COMPLETION
    assert result.error is None
    assert result.text == "Hello"


def test_a_response_is_typed() -> None:
    result = answered(RESPONSE)
    assert isinstance(result.response, ModelResponse)
    assert result.text == "Hello"


def test_a_body_that_is_a_json_string_is_read() -> None:
    assert answered(json.dumps(COMPLETION)).response == COMPLETION


def test_an_embedding_has_no_text() -> None:
    result = answered({"object": "list", "data": [{"embedding": [0.5]}]})
    assert result.kind == "answered"
    assert result.text == ""


def test_a_refused_request_has_the_error_of_its_body() -> None:
    result = answered({"error": {"message": "No such model", "type": "invalid_request_error", "code": "404"}}, 404)
    assert (result.kind, result.status_code) == ("failed", 404)
    assert result.error == RunFault("404", "No such model")
    assert result.response is None


def test_a_response_that_failed_is_failed_though_its_status_is_200() -> None:
    result = answered({**RESPONSE, "status": "failed", "error": {"code": "server_error", "message": "Broke"}})
    assert result.kind == "failed"
    assert result.error == RunFault("server_error", "Broke")
    assert isinstance(result.response, ModelResponse)


@pytest.mark.parametrize(
    ("code", "kind"), [("batch_expired", "expired"), ("batch_cancelled", "cancelled"), ("anything_new", "failed")]
)
def test_a_request_that_was_not_executed_says_why(code: str, kind: str) -> None:
    result = read({"id": "1", "custom_id": "a", "response": None, "error": {"code": code, "message": "Too late"}})
    assert result.kind == kind
    assert result.error == RunFault(code, "Too late")


def test_a_line_with_neither_answer_nor_error_is_failed() -> None:
    assert read({"custom_id": "a"}).kind == "failed"
    assert read({"custom_id": "a", "result": {"type": "succeeded"}}).kind == "failed"
    assert answered(None, 500).error == RunFault("500", "HTTP 500, without a body")


def test_the_results_of_anthropic_are_read() -> None:
    succeeded = read({"custom_id": "a", "result": {"type": "succeeded", "message": MESSAGE}})
    assert (succeeded.kind, succeeded.response, succeeded.text) == ("answered", MESSAGE, "Hello")
    error = {"type": "error", "request_id": "req_2", "error": {"type": "invalid_request_error", "message": "Bad"}}
    errored = read({"custom_id": "a", "result": {"type": "errored", "error": error}})
    assert (errored.kind, errored.error, errored.request_id) == (
        "failed",
        RunFault("invalid_request_error", "Bad"),
        "req_2",
    )
    assert read({"custom_id": "a", "result": {"type": "expired"}}).kind == "expired"
    assert read({"custom_id": "a", "result": {"type": "canceled"}}).kind == "cancelled"
    assert read({"custom_id": "a", "result": {"type": "new"}}).kind == "failed"


@pytest.mark.parametrize(
    "line", [b'{"custom_id": "a", "resp', b"[]", b"{}", b'{"custom_id": 3}', b"\xff\xfe", b"\x1b[2J"]
)
def test_a_line_that_is_no_result_says_where(line: bytes) -> None:
    result = read_result(line, "file-1, line 3,")
    assert (result.custom_id, result.kind) == ("", "failed")
    assert result.error is not None
    assert result.error.code == MALFORMED_LINE
    assert "file-1, line 3," in result.error.message
    assert "\x1b" not in result.error.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["response", "body", "error", "result", "type", "message", "status_code", "choices", "object"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(json_values, json_values, json_values)
def test_no_line_raises(response: Any, error: Any, result: Any) -> None:
    for line in ({"response": response, "error": error}, {"result": result}, {"response": {"body": result}}):
        found = read({"custom_id": "a", **line})
        assert (found.error is None) is (found.kind == "answered")
        assert isinstance(found.text, str)
        found.to_json()


@given(st.binary(max_size=60))
def test_no_bytes_raise(data: bytes) -> None:
    read_result(data, "file-1")


@pytest.mark.parametrize(("status", "found"), [("429", 429), (429.0, 429), ("many", None), (True, None), (1.5, None)])
def test_a_status_may_be_written_in_other_ways(status: Any, found: int | None) -> None:
    result = answered({"message": "slow down"}, status)
    assert result.status_code == found
    assert result.kind == ("failed" if found else "answered")


def test_a_response_that_was_cancelled_is_no_answer() -> None:
    result = answered({"object": "response", "id": "r", "status": "cancelled", "output": []})
    assert result.kind == "failed"
    assert result.error is not None
    assert result.error.code == "cancelled"
