"""Arguments as models write them: valid ones reach the tool with their types; errors name the place and the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta
from toolcalls import error_of, output_of


class Hotel(msgspec.Struct):
    name: str
    stars: Annotated[int, Meta(ge=1, le=5)] = 3


@dataclass
class Stay:
    hotels: list[Hotel]
    start: date | None = None


def optional(note: str | None = None, unit: Literal["c", "f"] | None = None) -> Any:
    return [note, unit]


def book(stay: Stay, days: Annotated[int, Meta(ge=1, description="How many.")], kind: Literal["a", 1] = "a") -> Any:
    return [type(stay).__name__, type(stay.hotels[0]).__name__, stay.hotels[0].stars, stay.start, days, kind]


def number(x: int) -> Any:
    return str(x)


def anything(x: Any) -> Any:
    return x


def nothing() -> str:
    return "done"


HOTEL = '{"hotels": [{"name": "Ritz"}], "start": "2024-05-01"}'


@pytest.mark.parametrize(
    ("function", "arguments", "output"),
    [
        (nothing, "", "done"),
        (nothing, "null", "done"),
        (nothing, "{}", "done"),
        (optional, "", "[null,null]"),
        (optional, "null", "[null,null]"),
        (optional, '{"note": null, "unit": "f"}', '[null,"f"]'),
        (optional, '{"note": "", "unit": null}', '["",null]'),
        (book, f'{{"stay": {HOTEL}, "days": 1}}', '["Stay","Hotel",3,"2024-05-01",1,"a"]'),
        (book, f'{{"days": 2, "kind": 1, "stay": {HOTEL}}}', '["Stay","Hotel",3,"2024-05-01",2,1]'),
        (number, '{"x": 18446744073709551616}', "18446744073709551616"),
        (number, f'{{"x": -1{"0" * 100}}}', f"-1{'0' * 100}"),
        (anything, '{"x": {"a": [null, "\\ud83d\\ude00"]}}', '{"a":[null,"\U0001f600"]}'),
    ],
)
async def test_valid_arguments_reach_the_tool(function: Callable[..., Any], arguments: str, output: str) -> None:
    assert await output_of(function, arguments) == output


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (nothing, '{"x": 1}', "Object contains unknown field `x`"),
        (nothing, "[]", "Expected `object`, got `array`"),
        (nothing, "5", "Expected `object`, got `int`"),
        (nothing, "{} {}", "malformed"),
        (optional, '{"note": 5}', "Expected `str | null`, got `int` - at `$.note`"),
        (optional, '{"unit": "k"}', "Invalid enum value 'k' - at `$.unit`"),
        (book, "", "Object missing required field `stay`"),
        (book, f'{{"stay": {HOTEL}, "days": 0}}', "Expected `int` >= 1 - at `$.days`"),
        (book, f'{{"stay": {HOTEL}, "days": "2"}}', "Expected `int`, got `str` - at `$.days`"),
        (book, f'{{"stay": {HOTEL}, "days": null}}', "Expected `int`, got `null` - at `$.days`"),
        (book, '{"stay": {"hotels": [{"name": "x", "stars": 6}]}}', "at `$.stay.hotels[0].stars`"),
        (book, '{"stay": {"hotels": [{"name": "x"}, {}]}}', "missing required field `name` - at `$.stay.hotels[1]`"),
        (book, '{"stay": {"hotels": [], "start": "May"}}', "Invalid RFC3339 encoded date - at `$.stay.start`"),
        (book, '{"stay": {"hotels": [{"name": "x"}]', "truncated"),
        (number, '{"x": 1.5}', "Expected `int`, got `float` - at `$.x`"),
        (number, '{"x": NaN}', "malformed"),
        (number, "{'x': 1}", "malformed"),
        (number, '```json\n{"x": 1}\n```', "malformed"),
        (number, f'{{"x": 1{"0" * 10_000}}}', "$.x"),
    ],
)
async def test_invalid_arguments_are_reported_with_their_path(
    function: Callable[..., Any], arguments: str, expected: str
) -> None:
    message = error_of(await output_of(function, arguments))
    assert message.startswith("Invalid arguments for f: ")
    assert expected in message
