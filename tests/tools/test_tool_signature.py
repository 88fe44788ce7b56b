"""From a function's parameters to arguments and a JSON Schema."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from asyncruns.errors import ConfigurationError
from asyncruns.lifecycle.values import Call
from asyncruns.schemas.strict import NotStrictError
from asyncruns.tools import Toolset
from asyncruns.tools.signature import InvalidArgumentsError, Signature

if TYPE_CHECKING:
    from decimal import Decimal


class Place(msgspec.Struct):
    """Where it is."""

    title: str
    height: int = 0


@dataclass
class Trip:
    places: list[Place]
    nights: int | None = None


def decoded(function: Callable[..., Any], arguments: str) -> dict[str, Any]:
    return Signature("f", function).decode(arguments)


async def output_of(function: Callable[..., Any], arguments: str) -> str:
    return await Toolset({"f": function}).call(Call(id="c", name="f", arguments=arguments))


def plan(
    trip: Trip, days: Annotated[int, Meta(description="How many.", ge=1)] = 3, note: str | None = None
) -> None: ...


def test_structs_dataclasses_and_constraints_are_decoded() -> None:
    arguments = decoded(plan, '{"trip": {"places": [{"title": "Rome"}]}, "days": 2}')
    assert arguments == {"trip": Trip([Place("Rome")]), "days": 2}
    with pytest.raises(InvalidArgumentsError, match=r"`int` >= 1 - at `\$\.days`"):
        decoded(plan, '{"trip": {"places": []}, "days": 0}')


def test_the_schema_has_the_parameters_on_top_and_no_titles() -> None:
    assert Signature("f", plan).schema == {
        "type": "object",
        "properties": {
            "trip": {"$ref": "#/$defs/Trip"},
            "days": {"type": "integer", "description": "How many.", "minimum": 1, "default": 3},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        "required": ["trip"],
        "additionalProperties": False,
        "$defs": {
            "Trip": {
                "type": "object",
                "properties": {
                    "places": {"type": "array", "items": {"$ref": "#/$defs/Place"}},
                    "nights": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
                },
                "required": ["places"],
            },
            "Place": {
                "type": "object",
                "description": "Where it is.",
                "properties": {"title": {"type": "string"}, "height": {"type": "integer", "default": 0}},
                "required": ["title"],
            },
        },
    }


def test_strict_requires_everything_and_has_no_defaults() -> None:
    schema = Signature("f", plan, strict=True).schema
    assert schema["required"] == ["trip", "days", "note"]
    assert schema["additionalProperties"] is False
    assert "default" not in schema["properties"]["days"]
    assert schema["$defs"]["Trip"]["required"] == ["places", "nights"]
    assert schema["$defs"]["Place"]["additionalProperties"] is False
    assert schema["$defs"]["Place"]["properties"]["height"] == {"type": "integer"}


@pytest.mark.parametrize("type_", [dict[str, int], dict, Any, list[Any]])
def test_strict_refuses_a_type_without_a_schema(type_: Any) -> None:
    def f(x: Any) -> None: ...

    f.__annotations__["x"] = type_
    Signature("f", f)
    with pytest.raises(NotStrictError, match="strict mode has no schema"):
        Signature("f", f, strict=True)
    with pytest.raises(ConfigurationError, match=r"The tool f cannot be strict: .* or leave strict off"):
        Toolset().tool(f, strict=True)


def test_a_function_without_parameters_has_an_empty_schema() -> None:
    assert Signature("f", lambda: None).schema == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }


def test_a_parameter_that_may_be_anything_accepts_anything() -> None:
    def f(x: Any, y: Any = 1) -> None: ...

    assert decoded(f, '{"x": [1, {"a": null}]}') == {"x": [1, {"a": None}]}


@pytest.mark.parametrize("function", [lambda days: days, lambda days=3: days, asyncio.sleep])
def test_a_parameter_without_an_annotation_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"The parameter (days|delay) of the tool f has no annotation"):
        Toolset({"f": function})
    assert Toolset({"f": functools.partial(function, **dict.fromkeys(inspect.signature(function).parameters))}).names


def test_any_name_of_a_parameter_works() -> None:
    names = ["type", "title", "__x", "__init__", "__struct_fields__", "p1", "default", "self", "properties"]
    scope: dict[str, Any] = {}
    exec(f"def f({', '.join(f'{name}: int' for name in names)}, rest: int = 0): ...", scope)
    arguments = {name: index for index, name in enumerate(names)}
    assert decoded(scope["f"], msgspec.json.encode(arguments).decode()) == arguments
    assert list(Signature("f", scope["f"], strict=False).schema["properties"]) == [*names, "rest"]


async def test_a_default_may_be_any_object_and_is_the_functions_own() -> None:
    sentinel = object()
    kept: list[int] = [1]

    def f(x: int = sentinel, y: list[int] = kept) -> bool:  # type: ignore[assignment]
        return x is sentinel and y is kept

    assert await output_of(f, "") == "true"
    properties = Signature("f", f).schema["properties"]
    assert "default" not in properties["x"]
    assert properties["y"]["default"] == [1]


class Greeter:
    """Greets."""

    word = "Hello"

    def greet(self, name: str) -> str:
        return f"{self.word} {name}"

    async def __call__(self, name: str) -> str:
        return self.greet(name)


def connected(connection: object, query: str, limit: int = 10) -> list[Any]:
    """Ask."""
    return [connection is CONNECTION, query, limit]


CONNECTION = object()


@pytest.mark.parametrize(
    ("function", "arguments", "output"),
    [
        (Greeter().greet, '{"name": "Ada"}', "Hello Ada"),
        (Greeter(), '{"name": "Ada"}', "Hello Ada"),
        (functools.partial(Greeter(), "Bob"), "", "Hello Bob"),
        (functools.partial(connected, CONNECTION), '{"query": "q"}', '[true,"q",10]'),
        (functools.partial(connected, connection=CONNECTION), '{"query": "q", "limit": 2}', '[true,"q",2]'),
        (functools.cache(Greeter().greet), '{"name": "Ada"}', "Hello Ada"),
    ],
)
async def test_methods_partials_and_callable_objects_are_tools(
    function: Callable[..., Any], arguments: str, output: str
) -> None:
    assert await output_of(function, arguments) == output


def test_parameters_bound_by_a_partial_are_not_shown_to_the_model() -> None:
    tools = Toolset([functools.partial(connected, connection=CONNECTION), Greeter()])
    assert tools.names == ("connected", "Greeter")
    function = tools.definitions()[0]["function"]
    assert function["description"] == "Ask."
    assert list(function["parameters"]["properties"]) == ["query", "limit"]
    with pytest.raises(InvalidArgumentsError, match="unknown field `connection`"):
        decoded(functools.partial(connected, connection=CONNECTION), '{"query": "", "connection": 1}')


def test_a_wrapped_function_shows_its_own_parameters() -> None:
    @functools.wraps(plan)
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    assert list(Signature("f", wrapper).schema["properties"]) == ["trip", "days", "note"]


def positional(x: int, /) -> None: ...
def variadic(*xs: int) -> None: ...
def keywords(**xs: int) -> None: ...


@pytest.mark.parametrize("function", [positional, variadic, keywords])
def test_parameters_that_cannot_be_passed_by_name_are_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"The parameter xs? of the tool f is .*given by name"):
        Signature("f", function)


def unschemable(fine: int, thing: Greeter) -> None: ...
def unclear(thing: str | bytes) -> None: ...
def unresolved(amount: Decimal) -> None: ...
def fine(x: int) -> Decimal: ...  # type: ignore[empty-body]


@pytest.mark.parametrize("function", [unschemable, unclear])
def test_a_type_without_a_schema_is_refused_with_the_parameters_name(function: Callable[..., Any]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"The parameter thing of the tool f has the type .*functools\.partial"
    ):
        Signature("f", function)


def test_a_name_under_type_checking_is_refused_in_parameters_only() -> None:
    with pytest.raises(ConfigurationError, match="the parameter amount of the tool f cannot be resolved"):
        Signature("f", unresolved)
    assert Signature("f", fine).decode('{"x": 1}') == {"x": 1}


def test_a_callable_without_a_signature_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no signature"):
        Signature("f", type)


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    friends: list[Dog]


def adopt(pet: Cat | Dog, pair: tuple[int, str] = (1, "a")) -> None: ...


def test_unions_and_recursive_types_are_decoded_and_described() -> None:
    assert decoded(adopt, '{"pet": {"type": "dog", "friends": []}}') == {"pet": Dog([])}
    pet = Signature("f", adopt).schema["properties"]["pet"]
    assert pet.pop("discriminator")["propertyName"] == "type"
    assert pet == {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}
