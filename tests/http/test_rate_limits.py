"""Reading the number of requests that a server still accepts from its headers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from asyncruns.http import RateLimit, rate_limit

REMAINING = "x-ratelimit-remaining-requests"
LIMIT = "x-ratelimit-limit-requests"
RESET = "x-ratelimit-reset-requests"


def reset_of(text: str) -> float | None:
    found = rate_limit({REMAINING: "1", RESET: text})
    assert found is not None
    return found.reset


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("1h2m3.5s", 3723.5),
        ("1h", 3600.0),
        ("1h30m", 5400.0),
        ("1m", 60.0),
        ("1s500ms", 1.5),
        ("1m5ms", 60.005),
        ("8.64s", 8.64),
        ("0s", 0.0),
        (".5s", 0.5),
        (" 1s ", 1.0),
        ("2", 2.0),
        ("2.5", 2.5),
        ("-2", -2.0),
        ("0", 0.0),
    ],
)
def test_a_reset_is_read_in_seconds(text: str, seconds: float) -> None:
    assert reset_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "s", "ms", "soon", "1x", "1d", "1s1h", "1 s", "1S", "+1s", "-1s", "1m-1s", "1,5s", "nan", "inf"),
        *("nans", "infs", "1e999", "1e3s", "s1", "1ss", "1hh", "2026-02-02T02:40:00Z"),
        pytest.param(".s", id="a point alone"),
        pytest.param("1.5.2s", id="two points"),
        pytest.param("1m...s", id="points after a valid number"),
        pytest.param("9" * 400 + "s", id="a number too large"),
        pytest.param("9" * 400 + "h1s", id="a number too large, before a valid one"),
        pytest.param("9" * 307 + "h", id="a number too large in seconds"),
    ],
)
def test_a_malformed_reset_is_none(text: str) -> None:
    assert reset_of(text) is None


@pytest.mark.parametrize(
    ("headers", "limit"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({LIMIT: "500", RESET: "1s"}, None, id="no remaining number"),
        pytest.param({REMAINING: ""}, None, id="empty"),
        pytest.param({REMAINING: "many"}, None, id="a word"),
        pytest.param({REMAINING: "nan"}, None, id="nan"),
        pytest.param({REMAINING: "inf"}, None, id="infinity"),
        pytest.param({REMAINING: "1e999"}, None, id="too large"),
        pytest.param({REMAINING: "7"}, RateLimit(7.0), id="alone"),
        pytest.param({REMAINING: "0", LIMIT: "500", RESET: "1s"}, RateLimit(0.0, 500.0, 1.0), id="all"),
        pytest.param({REMAINING: "-3", LIMIT: "-1"}, RateLimit(-3.0, -1.0), id="negative, as sent"),
        pytest.param({REMAINING: "7", LIMIT: "x", RESET: "y"}, RateLimit(7.0), id="malformed limit and reset"),
    ],
)
def test_a_rate_limit_is_read_if_the_remaining_number_is_sent(headers: dict[str, str], limit: RateLimit | None) -> None:
    assert rate_limit(headers) == limit
    assert rate_limit(CIMultiDict({name.title(): value for name, value in headers.items()})) == limit


WORDS = st.sampled_from(["h", "m", "s", "ms", ".", "-", "0", "7", "1.5", "9" * 308, "e9", " ", "inf", "nan", "\u0663"])
TEXTS = st.one_of(st.text(), st.lists(WORDS).map("".join))


@settings(deadline=None)  # a busy machine must not fail the test
@given(TEXTS, TEXTS, TEXTS)
def test_no_text_makes_the_reader_raise_or_return_a_value_that_is_not_finite(
    remaining: str, limit: str, reset: str
) -> None:
    found = rate_limit({REMAINING: remaining, LIMIT: limit, RESET: reset})
    assert found is None or math.isfinite(found.remaining)
    always = rate_limit({REMAINING: "1", LIMIT: limit, RESET: reset})
    assert always is not None
    assert all(value is None or math.isfinite(value) for value in (always.limit, always.reset))


ANTHROPIC = "anthropic-ratelimit-requests-"


@pytest.mark.parametrize(
    ("reset", "date", "seconds"),
    [
        ("2026-11-30T20:00:07Z", "Mon, 30 Nov 2026 20:00:00 GMT", 7.0),
        ("2026-11-30T21:00:07+01:00", "Mon, 30 Nov 2026 20:00:00 GMT", 7.0),
        ("2026-11-30T20:00:07", "Mon, 30 Nov 2026 20:00:00 GMT", 7.0),
        ("2026-11-30T19:59:00Z", "Mon, 30 Nov 2026 20:00:00 GMT", 0.0),
        ("2026-11-30T20:00:07Z", None, None),
        ("soon", "Mon, 30 Nov 2026 20:00:00 GMT", None),
        (None, "Mon, 30 Nov 2026 20:00:00 GMT", None),
    ],
)
def test_anthropic_says_when_its_limit_is_reset(reset: str | None, date: str | None, seconds: float | None) -> None:
    headers = {f"{ANTHROPIC}remaining": "49", f"{ANTHROPIC}limit": "50", f"{ANTHROPIC}reset": reset, "date": date}
    found = rate_limit({name: value for name, value in headers.items() if value is not None})
    assert found == RateLimit(49.0, 50.0, seconds)
