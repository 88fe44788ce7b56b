"""Every result becomes a text that can be sent, or raises an error."""

from __future__ import annotations

import enum
import json
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncruns.tools import encode_output, error_output
from asyncruns.tools.results import well_formed


class Point(msgspec.Struct):
    x: int


@dataclass
class Pair:
    a: str
    b: bytes


class Color(enum.Enum):
    RED = "red"
    ONE = 1


class Word(str, enum.Enum):  # noqa: UP042
    HELLO = "hello"


class Model:
    """Looks like a model of pydantic."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return {"when": datetime(2024, 1, 2, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ("", ""),
        (None, "null"),
        (True, "true"),
        (5, "5"),
        (2**100, str(2**100)),
        (1.5, "1.5"),
        (math.nan, "null"),
        (math.inf, "null"),
        (b"caf\xc3\xa9", "café"),
        (bytearray(b"x"), "x"),
        (memoryview(b"x"), "x"),
        (b"\xff\xfe", "//4="),
        ([1, "é"], '[1,"é"]'),
        ((1, 2), "[1,2]"),
        ({3}, "[3]"),
        ({"error": None}, '{"error":null}'),
        ({1: 2}, '{"1":2}'),
        (Point(1), '{"x":1}'),
        (Pair("a", b"b"), '{"a":"a","b":"Yg=="}'),
        (Color.RED, "red"),
        (Color.ONE, "1"),
        (Word.HELLO, "hello"),
        ([Color.RED], '["red"]'),
        (datetime(2024, 1, 2, tzinfo=UTC), '"2024-01-02T00:00:00Z"'),
        (Decimal("1.10"), '"1.10"'),
        (uuid.UUID(int=0), '"00000000-0000-0000-0000-000000000000"'),
        (Model(), '{"when":"2024-01-02T00:00:00Z"}'),
        ([Model()], '[{"when":"2024-01-02T00:00:00Z"}]'),
        ("lone \ud800", "lone \ufffd"),
        ("pair \ud83d\ude00", "pair \U0001f600"),
        ({"\udc00": [("\udc00", 1.0)]}, '{"\ufffd":[["\ufffd",1.0]]}'),
        ([Pair("\ud800", b"b"), math.nan], '[{"a":"\ufffd","b":"Yg=="},null]'),
    ],
)
def test_a_result_is_encoded(value: object, text: str) -> None:
    assert encode_output(value) == text


def generate() -> Any:
    yield 1


@pytest.mark.parametrize(
    "value", [object(), generate(), range(3), Model, len, {(1, 2): 3}, ValueError("x"), [1j], msgspec.UNSET]
)
def test_a_value_without_json_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        encode_output(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        encode_output(endless)


def test_the_refusal_does_not_show_the_value() -> None:
    class Vault:
        def __repr__(self) -> str:
            return "hunter2"

    with pytest.raises(TypeError) as caught:
        encode_output([Vault()])
    assert "hunter2" not in str(caught.value)


def test_an_error_is_a_json_object() -> None:
    assert error_output('"no"\ud800') == '{"error":"\\"no\\"\ufffd"}'


SENDABLE = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | SENDABLE,
    lambda inner: st.lists(inner) | st.dictionaries(SENDABLE, inner),
    max_leaves=20,
)


@pytest.mark.slow
@given(st.lists(JSON) | st.dictionaries(SENDABLE, JSON))
def test_json_values_survive_encoding(value: object) -> None:
    assert json.loads(encode_output(value)) == value


@given(st.recursive(st.text(st.characters()), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_text_can_be_sent(value: object) -> None:
    encode_output(value).encode()


@given(st.text(st.characters(categories=["Cs", "Lu"])))
def test_well_formed_text_is_unchanged(text: str) -> None:
    once = well_formed(text)
    once.encode()
    assert well_formed(once) == once
