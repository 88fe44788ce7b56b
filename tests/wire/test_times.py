"""Times in all their forms: kept as sent, and read as seconds since the epoch by the code that computes with them."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.http import Request, Response
from asyncruns.wire import Assistant, Message, Run, RunStep, Thread, decode, encode, epoch_seconds

SECONDS: Final = 1_717_850_562
READABLE: Final = {
    "integer": (SECONDS, SECONDS),
    "whole float": (float(SECONDS), SECONDS),
    "float": (SECONDS + 0.25, SECONDS + 0.25),
    "milliseconds": (SECONDS * 1000 + 250, SECONDS + 0.25),
    "milliseconds as a float": (SECONDS * 1000.0 + 250.0, SECONDS + 0.25),
    "text in UTC": ("2024-06-08T12:42:42Z", SECONDS),
    "text with a fraction": ("2024-06-08T12:42:42.250Z", SECONDS + 0.25),
    "text with ten-millionths": ("2024-06-08T12:42:42.2500000Z", SECONDS + 0.25),
    "text with an offset": ("2024-06-08T14:42:42+02:00", SECONDS),
    "text with an offset to the west": ("2024-06-08T05:42:42.250-0700", SECONDS + 0.25),
    "text without a zone": ("2024-06-08T12:42:42", SECONDS),
    "text for never": ("9999-12-31T23:59:59Z", 253_402_300_799),  # above 1e11, but a string is never milliseconds
    "text with a space": ("2024-06-08 12:42:42+00:00", SECONDS),
}
UNREADABLE: Final[tuple[Any, ...]] = (
    None,
    "",
    "soon",
    "1717850562",
    "2024-13-01T00:00:00Z",
    0,
    -1,
    -0.5,
    1e15,
    10**30,
    "0001-01-01T00:00:00+23:59",
)
TIMES: Final = [
    (type_, name)
    for type_ in (Run, RunStep, Message, Assistant, Thread)
    for name in type_.__struct_fields__
    if name.endswith("_at")
]

readable: Final = pytest.mark.parametrize(("came", "seconds"), READABLE.values(), ids=READABLE.keys())


def body(type_: type[Any], **fields: Any) -> dict[str, Any]:
    status = {"status": "in_progress"} if type_ in (Run, RunStep) else {}
    return {"id": "x_1", **status, **fields}


def decoded(type_: type[Any], **fields: Any) -> Any:
    return decode(msgspec.json.encode(body(type_, **fields)), type_)


def written(value: object) -> Any:
    return msgspec.json.decode(encode(value))


def test_the_times_of_all_objects_are_tested() -> None:
    assert len(TIMES) == 17


@pytest.mark.parametrize(("type_", "name"), TIMES)
@readable
def test_a_time_is_kept_and_encoded_as_sent(type_: type[Any], name: str, came: Any, seconds: float) -> None:
    found = decoded(type_, **{name: came})
    assert getattr(found, name) == came
    assert type(getattr(found, name)) is type(came)
    assert written(found)[name] == came
    assert type(written(found)[name]) is type(came)
    assert epoch_seconds(getattr(found, name)) == seconds


@pytest.mark.parametrize(("type_", "name"), TIMES)
def test_null_and_absent_are_no_times_and_stay_distinct(type_: type[Any], name: str) -> None:
    null, absent = decoded(type_, **{name: None}), decoded(type_)
    assert (getattr(null, name), getattr(absent, name)) == (None, UNSET)
    assert written(null)[name] is None
    assert name not in written(absent)
    assert epoch_seconds(getattr(null, name)) is None
    assert epoch_seconds(getattr(absent, name)) is None


@pytest.mark.parametrize("came", UNREADABLE, ids=repr)
def test_a_value_that_is_no_time_is_none(came: object) -> None:
    assert epoch_seconds(came) is None


@pytest.mark.parametrize("came", [True, [], {}, [SECONDS], {"seconds": SECONDS}], ids=repr)
def test_a_value_of_a_wrong_type_is_omitted(came: object) -> None:
    found = decoded(Run, expires_at=came, model="m")
    assert (found.expires_at, found.model) == (UNSET, "m")
    assert epoch_seconds(came) is None


@settings(deadline=None)  # a busy machine must not fail the test
@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(str))
def test_no_value_raises(came: object) -> None:
    found = epoch_seconds(came)
    assert found is None or 0 < found < 1e12


def read(**fields: Any) -> Any:
    response = Response(200, {}, msgspec.json.encode(body(Run, id="run_1", thread_id="thread_1", **fields)))
    return ThreadRunDialect().read(Request("GET", "/threads/thread_1/runs/run_1"), response)


@readable
def test_the_expiry_in_a_snapshot_is_in_seconds(came: Any, seconds: float) -> None:
    assert read(expires_at=came).expires_at == seconds
    assert ThreadRunDialect().snapshot(decoded(Run, expires_at=came)).expires_at == seconds


@pytest.mark.parametrize("came", UNREADABLE, ids=repr)
def test_a_run_with_a_malformed_expiry_has_none(came: object) -> None:
    assert read(expires_at=came).expires_at is None
    assert read().expires_at is None
