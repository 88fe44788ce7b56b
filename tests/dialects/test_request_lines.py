"""Requests for a batch become lines, and a request that cannot be in the batch is named by its number."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from asyncruns.dialects.request_lines import RequestLines, custom_id_of
from asyncruns.errors import InvalidRequestError

ENDPOINT = "/v1/chat/completions"
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}


def lines_of(*requests: Any, endpoint: str | None = ENDPOINT) -> list[dict[str, Any]]:
    lines = RequestLines(endpoint)
    return [json.loads(lines.add(request).data) for request in requests]


def refusal_of(*requests: Any, endpoint: str | None = ENDPOINT) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        lines_of(*requests, endpoint=endpoint)
    return str(caught.value)


@pytest.mark.parametrize(
    ("request_", "custom_id"),
    [
        (BODY, "request-1"),
        (("mine", BODY), "mine"),
        (["mine", BODY], "mine"),
        ({"custom_id": "mine", "method": "POST", "url": ENDPOINT, "body": BODY}, "mine"),
        ({"custom_id": "mine", "body": BODY}, "mine"),
        ({"url": ENDPOINT, "body": BODY}, "request-1"),
    ],
)
def test_each_form_of_a_request_is_a_line(request_: Any, custom_id: str) -> None:
    assert lines_of(request_) == [{"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": BODY}]
    assert custom_id_of(request_, 1) == custom_id


def test_a_line_ends_with_its_only_newline() -> None:
    body = {**BODY, "messages": [{"role": "user", "content": "two\nlines\u2028and more"}]}
    data = RequestLines(ENDPOINT).add(body).data
    assert data.count(b"\n") == 1
    assert data.endswith(b"}\n")
    assert json.loads(data)["body"] == body


def test_the_endpoint_may_come_from_the_first_line() -> None:
    lines = RequestLines()
    lines.add({"custom_id": "a", "url": "/v1/embeddings", "body": {"model": "m", "input": "Hi"}})
    assert lines.endpoint == "/v1/embeddings"
    assert b'"url":"/v1/embeddings"' in lines.add({"model": "m", "input": "Ho"}).data


def test_tokens_are_a_quarter_of_the_body_and_the_limit_of_the_output() -> None:
    lines = RequestLines(ENDPOINT)
    size = len(json.dumps(BODY, separators=(",", ":")))
    assert lines.add(BODY).tokens == size // 4
    assert lines.add({**BODY, "max_completion_tokens": 1000}).tokens >= 1000 + size // 4


@pytest.mark.parametrize(
    ("requests", "text"),
    [
        ([("a", BODY), ("a", BODY)], "Request 2 has the custom_id 'a'"),
        ([BODY, ("request-1", BODY)], "Request 2 has the custom_id 'request-1'"),
        ([("", BODY)], "Request 1 has an empty custom_id"),
        ([(7, BODY)], "Request 1 has a custom_id of the type int"),
        ([BODY, "text"], "Request 2 is of the type str"),
        ([("a", BODY, 3)], "Request 1 is of the type tuple"),
        ([BODY, ("b", "text")], "Request 2 has no body"),
        ([{"custom_id": "a", "messages": []}], "Request 1 has no body"),
        ([{"custom_id": "a", "params": BODY}], "client.message_batches.create"),
        ([{"custom_id": "a", "url": "/v1/embeddings", "body": BODY}], "Request 1 is for '/v1/embeddings'"),
        ([{"custom_id": "a", "method": "GET", "body": BODY}], "Request 1 has the method 'GET'"),
        ([BODY, {**BODY, "model": "o3"}], "Request 2 has the model 'o3'"),
        ([BODY, {"messages": []}], "Request 2 has no model, but"),
        ([{**BODY, "stream": True}], "Request 1 has stream=True"),
        ([BODY, {**BODY, "user": object()}], "Request 2 can't be written as JSON"),
        ([{**BODY, "user": "\ud800"}], "Request 1 can't be written as JSON"),
    ],
)
def test_a_request_that_cannot_be_in_the_batch_is_told_by_its_number(requests: list[Any], text: str) -> None:
    refusal = refusal_of(*requests)
    assert text in refusal
    assert "Nothing was sent" in refusal


def test_without_an_endpoint_the_message_says_what_to_pass() -> None:
    assert "endpoint=" in refusal_of(BODY, endpoint=None)


def test_a_refusal_shows_no_request_and_no_control_character() -> None:
    cyclic: dict[str, Any] = {"secret": "sk-1"}
    cyclic["self"] = cyclic
    assert "sk-1" not in refusal_of(cyclic)
    long = "\x1b]0;" + "x" * 500
    refusal = refusal_of((long, BODY), (long, BODY))
    assert "\x1b" not in refusal
    assert len(refusal) < 250


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "the number nan"),
        ([{"deep": (1.0, -math.inf)}], "the number -inf"),
        (b"text", "bytes, which must be"),
        (bytearray(b"text"), "bytearray, which must be"),
        ("\ud800", "surrogates"),
    ],
)
def test_a_value_that_json_would_change_is_refused(value: Any, message: str) -> None:
    lines = RequestLines("/v1/embeddings")
    lines.add({"model": "m", "input": [1, 2.5, None, True, "text"]})
    with pytest.raises(InvalidRequestError, match=rf"Request 2 can't be written as JSON: .*{message}"):
        lines.add({"model": "m", "input": value})


def test_half_a_character_in_an_id_or_a_url_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="Request 1 can't be written as JSON"):
        RequestLines("/v1/embeddings").add(("\ud800", {"model": "m"}))
    with pytest.raises(InvalidRequestError, match="Request 1 can't be written as JSON"):
        RequestLines().add({"custom_id": "a", "url": "/\ud800", "body": {}})


def test_a_url_is_a_path() -> None:
    with pytest.raises(InvalidRequestError, match="Request 1 has the url 'v1/embeddings'; it must be a path"):
        RequestLines().add({"custom_id": "a", "url": "v1/embeddings", "body": {}})
