"""Strict definitions follow the rules by which the API refuses a schema.

https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta
from toolcalls import a_call

from asyncruns.errors import ConfigurationError
from asyncruns.tools import Toolset

TAKEN = {
    *("type", "description", "enum", "const", "anyOf", "$ref", "$defs", "items", "properties", "required"),
    *("additionalProperties", "pattern", "format", "multipleOf", "minimum", "maximum", "exclusiveMinimum"),
    *("exclusiveMaximum", "minItems", "maxItems"),
}
FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}


class Unit(enum.Enum):
    METRE = "m"
    FOOT = "ft"


class Size(msgspec.Struct):
    """How big."""

    value: Annotated[float, Meta(gt=0)]
    unit: Unit = Unit.METRE


class Node(msgspec.Struct):
    size: Annotated[Size, Meta(description="Its own.")]
    children: list[Annotated[Node, Meta(description="One of them.")]] = []


@dataclass
class Stay:
    city: str
    nights: int | None = None


class Filter(TypedDict, total=False):
    word: str


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    friends: list[Dog]


class Empty(msgspec.Struct):
    pass


def of_builtins(a: int, b: float = 1.5, c: str = "x", d: bool = False, e: list[int] = [], f: None = None) -> None: ...  # noqa: B006
def of_options(a: str | None, b: int | str = 1, c: Stay | None = None, d: set[int] | None = None) -> None: ...
def of_words(a: Literal["a", "b"], b: Literal[1, 2], c: Literal["a", 1, None], d: Unit = Unit.METRE) -> None: ...
def of_structs(a: Size, b: Stay, c: Filter, d: Empty, e: list[Stay], f: Cat | Dog) -> None: ...
def of_described(
    a: Annotated[Size, Meta(description="The size.")],
    b: Annotated[Node, Meta(description="The root.")],
    c: Annotated[Unit, Meta(description="The unit.")] = Unit.FOOT,
) -> None: ...
def of_formats(a: datetime, b: UUID, c: Decimal, d: bytes) -> None: ...
def of_limits(
    a: Annotated[int, Meta(ge=1, le=9, description="Days.", examples=[3], title="T")],
    b: Annotated[str, Meta(min_length=1, max_length=3, pattern="^a")],
    c: Annotated[list[Annotated[int, Meta(multiple_of=2)]], Meta(min_length=1, max_length=5)],
) -> None: ...
def of_nothing() -> None: ...


SAMPLES = [of_builtins, of_options, of_words, of_structs, of_described, of_formats, of_limits, of_nothing]


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    assert isinstance(schema, dict)
    yield schema
    for named in ("properties", "$defs"):
        for part in schema.get(named, {}).values():
            yield from parts(part)
    for part in schema.get("anyOf", ()):
        yield from parts(part)
    if "items" in schema:
        yield from parts(schema["items"])


def strict_schema(function: Callable[..., Any]) -> dict[str, Any]:
    tools = Toolset()
    tools.tool(function, name="f", strict=True)
    definition = tools.definitions()[0]["function"]
    assert definition["strict"] is True
    schema: dict[str, Any] = definition["parameters"]
    return schema


@pytest.mark.parametrize("function", SAMPLES)
def test_a_strict_definition_follows_the_rules(function: Callable[..., Any]) -> None:
    schema = strict_schema(function)
    assert schema["type"] == "object"
    for part in parts(schema):
        assert part.keys() <= TAKEN
        assert part.keys() & {"type", "anyOf", "$ref"}
        assert "$ref" not in part or list(part) == ["$ref"]
        assert part.get("format", "date") in FORMATS
        if part.get("type") == "object":
            assert part["additionalProperties"] is False
            assert part["required"] == list(part["properties"])
        if part.get("type") == "array":
            assert isinstance(part["items"], dict)
        if "$ref" in part:
            assert part["$ref"].removeprefix("#/$defs/") in schema["$defs"]


@pytest.mark.parametrize("function", SAMPLES)
def test_the_definition_is_not_strict_unless_asked(function: Callable[..., Any]) -> None:
    tools = Toolset({"f": function})
    assert "strict" not in tools.definitions()[0]["function"]


def test_descriptions_and_supported_limits_are_kept() -> None:
    properties = strict_schema(of_limits)["properties"]
    assert properties["a"] == {"type": "integer", "minimum": 1, "maximum": 9, "description": "Days."}
    assert properties["b"] == {"type": "string", "pattern": "^a"}
    assert properties["c"]["items"] == {"type": "integer", "multipleOf": 2}
    assert (properties["c"]["minItems"], properties["c"]["maxItems"]) == (1, 5)


async def test_a_limit_that_the_schema_omits_is_still_checked() -> None:
    tools = Toolset()

    @tools.tool(strict=True)
    def f(word: Annotated[str, Meta(max_length=3)]) -> None: ...

    assert "`str` of length <= 3 - at `$.word`" in await tools.call(a_call("f", '{"word": "long"}'))


def test_a_reference_with_a_description_of_its_own_is_replaced_by_its_target() -> None:
    schema = strict_schema(of_described)
    size = schema["properties"]["a"]
    assert size["description"] == "The size."
    assert size["properties"]["unit"] == {"$ref": "#/$defs/Unit"}
    assert schema["$defs"]["Size"]["description"] == "How big."
    assert schema["properties"]["c"] == {"type": "string", "enum": ["ft", "m"], "description": "The unit."}


def test_enums_have_their_types() -> None:
    properties = strict_schema(of_words)["properties"]
    assert [properties[name]["type"] for name in "abc"] == ["string", "integer", ["integer", "null", "string"]]


class Pair(NamedTuple):
    x: int
    y: str


@pytest.mark.parametrize(
    "type_", [Any, dict, dict[str, int], list, list[Any], tuple[int, str], Pair, list[Pair], msgspec.Raw]
)
def test_a_type_that_strict_mode_has_no_schema_for_is_refused(type_: Any) -> None:
    def f(x: Any) -> None: ...

    f.__annotations__["x"] = type_
    assert Toolset([f]).definitions()
    with pytest.raises(ConfigurationError, match=r"The tool f cannot be strict: .* or leave strict off"):
        strict_schema(f)


def test_parameters_bound_by_a_partial_are_not_required() -> None:
    bound = functools.partial(of_limits, a=1, c=[2])
    assert strict_schema(bound)["required"] == ["b"]


def test_a_pattern_that_looks_around_is_left_out_and_still_checked() -> None:
    def f(even: Annotated[str, Meta(pattern="^(?!x)a")], plain: Annotated[str, Meta(pattern="^a")]) -> None: ...

    tools = Toolset()
    tools.tool(f, strict=True)
    properties = tools.definitions()[0]["function"]["parameters"]["properties"]
    assert "pattern" not in properties["even"]
    assert properties["plain"]["pattern"] == "^a"
