"""The schema of an output type, as it is sent, and the values that texts are read as."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from asyncruns import InvalidRequestError
from asyncruns.schemas.output_type import output_type_of
from asyncruns.schemas.pydantic_types import DoesNotFitError
from asyncruns.schemas.strict import subschemas

T = TypeVar("T")


class City(msgspec.Struct):
    """A city."""

    name: str
    population: Annotated[int, msgspec.Meta(ge=0)]
    founded: datetime.datetime | None = None


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(description="The full name.", max_length=5)
    friends: list[Person] = []


@dataclasses.dataclass
class Trip:
    cities: list[City]
    by: Literal["train", "bus"] = "train"


class Point(TypedDict):
    x: int
    y: NotRequired[int]


class Box(msgspec.Struct, Generic[T]):
    item: T


class Node(msgspec.Struct):
    next: Node | None


class Pair(NamedTuple):
    one: int


CITY = {
    "description": "A city.",
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "population": {"type": "integer", "minimum": 0},
        "founded": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
    },
    "required": ["name", "population", "founded"],
    "additionalProperties": False,
}


def test_the_schema_of_a_struct_is_strict_and_has_the_struct_at_its_root() -> None:
    made = output_type_of(City)
    assert (made.name, made.schema) == ("City", CITY)


def test_a_type_that_is_used_within_stays_in_the_definitions() -> None:
    schema = output_type_of(Trip).schema
    assert schema["$defs"] == {"City": CITY}
    assert schema["properties"]["cities"] == {"type": "array", "items": {"$ref": "#/$defs/City"}}
    assert schema["required"] == ["cities", "by"]


@pytest.mark.parametrize("type_", [Person, Node])
def test_a_type_that_contains_itself_is_at_the_root_and_in_the_definitions(type_: type) -> None:
    schema = output_type_of(type_).schema
    root = {name: value for name, value in schema.items() if name != "$defs"}
    assert root == schema["$defs"][type_.__name__]


@pytest.mark.parametrize("type_", [City, Person, Trip, Point, Box[int], Box[City], Node])
def test_every_object_is_closed_and_requires_all_of_its_properties(type_: Any) -> None:
    objects = [part for part in subschemas(output_type_of(type_).schema) if part.get("type") == "object"]
    assert objects
    for part in objects:
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])
        assert {"title", "default"}.isdisjoint(part)


def test_the_description_beside_a_type_is_that_of_the_root() -> None:
    made = output_type_of(Annotated[City, msgspec.Meta(description="The largest.")])
    assert (made.name, made.schema["description"]) == ("City", "The largest.")


@pytest.mark.parametrize(
    ("type_", "name"),
    [
        (Box[int], "Box_int"),
        (Box[list[City]], "Box_list_City"),
        (type("Città", (msgspec.Struct,), {}), "Citt"),
        (type("城", (msgspec.Struct,), {}), "output"),
        (type("A" * 100, (msgspec.Struct,), {}), "A" * 64),
    ],
)
def test_the_name_has_only_what_the_api_allows(type_: Any, name: str) -> None:
    assert output_type_of(type_).name == name


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        (City, '{"name":"Oslo","population":1,"founded":null}', City("Oslo", 1)),
        (Trip, '{"cities":[],"by":"bus"}', Trip([], "bus")),
        (Point, '{"x":1}', {"x": 1}),
        (Box[int], ' {"item": 1}\n', Box(1)),
        (list[Point], '[{"x":1}]', [{"x": 1}]),
        (dict[str, int], '{"a":1}', {"a": 1}),
        (City | None, "null", None),
        (Person, '{"name":"Ann"}', Person(name="Ann")),
        (list[Person], '[{"name":"Ann"}]', [Person(name="Ann")]),
    ],
)
def test_a_text_is_read_as_the_type(type_: Any, text: str, value: Any) -> None:
    assert output_type_of(type_).decode(text) == value


@pytest.mark.parametrize(
    ("type_", "text", "why"),
    [
        (City, '{"name":"Oslo","population":-1}', r"`int` >= 0 - at `\$.population`"),
        (City, "Oslo is", "JSON is malformed"),
        (City, "", "truncated"),
        (City, '{"name":"\udcff","population":"x"}', r"\$.population"),
        (City, "[" * 100_000, "malformed|recursion|Expected `object`"),
        (
            Person,
            '{"name":"Marianne","friends":[{}]}',
            r"at most 5 .* `\$.name`; Field .* `\$.friends\[0\]",
        ),
        (Person, "Ann", r"Invalid JSON.* - at `\$`"),
    ],
)
def test_a_text_that_does_not_fit_says_where_and_why(type_: Any, text: str, why: str) -> None:
    with pytest.raises(DoesNotFitError, match=why):
        output_type_of(type_).decode(text)


@pytest.mark.parametrize(
    ("type_", "why"),
    [
        (list[City], r"must be an object, which that of list\[City\] is not: wrap it .* `value: list\[City\]`"),
        (City | None, "must be an object"),
        (str, "must be an object"),
        (Pair, "must be an object"),
        (dict[str, int], r"output_type dict\[str, int\] cannot be sent: strict mode has no schema for Any"),
        (Box[Any], r"output_type Box\[.*Any\] cannot be sent"),
    ],
)
def test_a_type_without_a_strict_schema_can_be_read_but_not_sent(type_: Any, why: str) -> None:
    made = output_type_of(type_)
    with pytest.raises(InvalidRequestError, match=why):
        _ = made.schema


class Unresolved(msgspec.Struct):
    other: "Nowhere"  # type: ignore[name-defined] # noqa: F821, UP037


class Plain:
    pass


class Uncalled(pydantic.BaseModel):
    call: Callable[[], int]


class Undescribed(msgspec.Struct):
    name: Annotated[str, "the name"]


@pytest.mark.parametrize(
    ("type_", "why"),
    [
        ("City", "got 'City'"),
        (City("Oslo", 1), r"got City\("),
        (3, "output_type must be a type that JSON can be read as, such as a pydantic model"),
        (Plain, "got Plain"),
        (Unresolved, "Nowhere"),
        (City | Trip, "more than one dict-like type"),
        (Callable[[], int], "got .*Callable"),
        (Uncalled, "output_type Uncalled uses pydantic, which has no JSON Schema"),
        (Undescribed, "has in its annotation what nothing here reads: 'the name'"),
    ],
)
def test_what_cannot_be_read_from_json_is_no_output_type(type_: Any, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        output_type_of(type_)


def test_a_type_is_read_once_for_many_watches() -> None:
    assert output_type_of(City) is output_type_of(City)
    unhashable = Annotated[City, msgspec.Meta(extra_json_schema={"examples": []})]
    assert output_type_of(unhashable).decode('{"name":"Oslo","population":1}') == City("Oslo", 1)
