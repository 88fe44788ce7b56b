"""Functions that read headers: wait hints, the server's time, the request id."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from asyncruns.http import request_id, server_time, wait_hint

NOW = 1_770_000_000
DATE = formatdate(NOW, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"openai-poll-after-ms": "1500"}, 1.5, id="openai"),
        pytest.param({"openai-poll-after-ms": "1500.5"}, 1.5005, id="a fraction of a millisecond"),
        pytest.param({"retry-after-ms": "250"}, 0.25, id="retry-after-ms"),
        pytest.param({"x-ms-retry-after-ms": "0"}, 0.0, id="zero"),
        pytest.param({"retry-after": "3"}, 3.0, id="seconds"),
        pytest.param({"retry-after": " 0.5 "}, 0.5, id="a fraction of a second"),
        pytest.param({"retry-after": "-1"}, -1.0, id="negative"),
        pytest.param({"retry-after": "86400"}, 86400.0, id="a day"),
        pytest.param({"retry-after": formatdate(NOW + 90, usegmt=True), "date": DATE}, 90.0, id="a date"),
        pytest.param({"retry-after": formatdate(NOW - 90, usegmt=True), "date": DATE}, -90.0, id="a date that is over"),
        pytest.param({"retry-after": formatdate(NOW + 90)}, None, id="a date, and no clock to compare it with"),
        pytest.param({"retry-after": formatdate(NOW), "date": "noon"}, None, id="a date, and a broken clock"),
        pytest.param({"retry-after": "nan"}, None, id="nan"),
        pytest.param({"retry-after": "-inf"}, None, id="infinity"),
        pytest.param({"retry-after": "soon", "date": DATE}, None, id="a word"),
        pytest.param({"retry-after": ""}, None, id="empty"),
        pytest.param({"retry-after": "1e999"}, None, id="too large"),
        pytest.param(
            {"openai-poll-after-ms": "x", "retry-after-ms": "nan", "retry-after": "2"}, 2.0, id="the first good"
        ),
        pytest.param(
            {"retry-after": "9", "x-ms-retry-after-ms": "3", "retry-after-ms": "2", "openai-poll-after-ms": "1"},
            0.001,
            id="the order",
        ),
    ],
)
def test_a_wait_hint_is_read_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_hint(headers) == seconds
    assert wait_hint(CIMultiDict({name.title(): value for name, value in headers.items()})) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "Mon, 02 Feb 2026 02:40:00 GMT",
        "Monday, 02-Feb-26 02:40:00 GMT",
        "Mon Feb  2 02:40:00 2026",  # asctime has no zone; it means UTC
        "Mon, 02 Feb 2026 03:40:00 +0100",
        "Mon, 02 Feb 2026 02:40:00 -0000",
    ],
)
def test_the_servers_time_does_not_depend_on_our_time_zone(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    try:
        assert server_time({"date": text}) == NOW
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "now", "Mon, 99 Feb 2026 02:40:00 GMT", "1770000000", "Mon, 02 Feb 99999999999"])
def test_a_malformed_date_is_none(text: str) -> None:
    assert server_time({"date": text}) is None
    assert server_time({}) is None


WORDS = st.sampled_from(
    ["Mon", "Feb", "02", "2026", "02:40:00", "GMT", "+9999", "-0000", ",", ":", "-", "0", "99", "9" * 9]
)


@settings(deadline=None)  # a busy machine must not fail the test
@given(st.one_of(st.text(), st.lists(WORDS).map(" ".join), st.lists(WORDS).map("".join)))
def test_no_text_makes_a_reader_raise(text: str) -> None:
    assert isinstance(wait_hint({"retry-after": text, "date": DATE}), float | None)
    assert isinstance(wait_hint({"openai-poll-after-ms": text}), float | None)
    assert isinstance(server_time({"date": text}), float | None)


def test_the_request_id_is_found_under_any_of_its_names() -> None:
    assert request_id({}) == ""
    assert request_id({"x-request-id": "a", "apim-request-id": "b"}) == "a"
    assert request_id({"x-request-id": "", "x-portkey-request-id": "p"}) == "p"
    for name in ("x-request-id", "x-portkey-request-id", "apim-request-id", "x-ms-request-id", "request-id"):
        assert request_id({name: "req_1"}) == "req_1"
