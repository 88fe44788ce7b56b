"""Tools whose JSON Schema is given, as those of MCP servers are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from asyncruns.errors import ConfigurationError
from asyncruns.lifecycle.values import Call
from asyncruns.tools import Toolset

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
    "additionalProperties": False,
}


async def by_any_name(**arguments: Any) -> Any:
    return ["by any name", arguments]


def by_name(city: str, days: int = 3) -> Any:
    return ["by name", {"city": city, "days": days}]


def in_one_dict(arguments: dict[str, Any]) -> Any:
    return ["in one dict", arguments]


def in_a_dict_beside_an_option(arguments: dict[str, Any], option: bool = False) -> Any:
    return ["in a dict", arguments]


async def output_of(tools: Toolset, arguments: str) -> Any:
    (name,) = tools.names
    return msgspec.json.decode(await tools.call(Call(id="c", name=name, arguments=arguments)))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (by_any_name, ["by any name", {"city": "Rome"}]),
        (by_name, ["by name", {"city": "Rome", "days": 3}]),
        (in_one_dict, ["in one dict", {"city": "Rome"}]),
        (in_a_dict_beside_an_option, ["in a dict", {"city": "Rome"}]),
    ],
)
async def test_a_function_takes_the_arguments_by_name_or_in_one_dict(
    function: Callable[..., Any], expected: Any
) -> None:
    tools = Toolset()
    tools.tool(function, name="weather", description="Return the weather.", parameters=SCHEMA)
    (definition,) = tools.definitions()
    assert definition["function"] == {"name": "weather", "description": "Return the weather.", "parameters": SCHEMA}
    assert await output_of(tools, '{"city": "Rome"}') == expected


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "missing required field `city`"),
        ('{"city": "Rome", "other": 1}', "unknown field `other`"),
        ("[1]", "Expected `object`, got `array`"),
        ('{"city"', "truncated"),
    ],
)
async def test_wrong_names_are_told(arguments: str, told: str) -> None:
    tools = Toolset()
    tools.tool(by_any_name, name="weather", parameters=SCHEMA)
    assert told in (await output_of(tools, arguments))["error"]


async def test_an_open_schema_takes_any_names() -> None:
    tools = Toolset()
    tools.tool(in_one_dict, parameters={"properties": {"city": {"type": "string"}}})
    assert await output_of(tools, '{"other": 1}') == ["in one dict", {"other": 1}]


def test_the_given_schema_is_not_changed() -> None:
    given = {"type": "object", "properties": {"city": {"type": "string", "title": "City", "maxLength": 9}}}
    before = msgspec.json.encode(given)
    tools = Toolset()
    tools.tool(by_any_name, name="weather", parameters=given, strict=True)
    assert msgspec.json.encode(given) == before
    assert tools.definitions()[0]["function"]["parameters"]["required"] == ["city"]


def passed_on(*arguments: Any, **named: Any) -> Any:
    return ["passed on", list(arguments), named]


async def test_names_that_are_not_the_models_cannot_be_set() -> None:
    def who(city: str, user_id: int = 0, _admin: bool = False) -> Any:
        return [city, user_id, _admin]

    tools = Toolset()
    tools.tool(functools.partial(who, user_id=1), name="who", parameters={"properties": {"city": {}}})
    assert await output_of(tools, '{"city": "Rome"}') == ["Rome", 1, False]
    for name in ("user_id", "_admin", "other"):
        error = (await output_of(tools, f'{{"city": "Rome", "{name}": 2}}'))["error"]
        assert f"unknown field `{name}`" in error
    some = Toolset()
    some.tool(functools.partial(by_any_name, user_id=1), name="f", parameters={"properties": {}})
    assert "unknown field `user_id`" in (await output_of(some, '{"user_id": 2}'))["error"]


async def test_a_wrapper_gets_the_arguments_by_name() -> None:
    tools = Toolset()
    tools.tool(passed_on, parameters=SCHEMA)
    assert await output_of(tools, '{"city": "Rome"}') == ["passed on", [], {"city": "Rome"}]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": None, "required": None},
        MappingProxyType({"properties": MappingProxyType({"city": MappingProxyType({"type": "string"})})}),
        {"patternProperties": {"^c": {}}, "additionalProperties": False},
    ],
)
async def test_schemas_of_unusual_forms_are_taken(schema: Any) -> None:
    tools = Toolset()
    tools.tool(by_any_name, name="f", parameters=schema)
    assert await output_of(tools, '{"city": "Rome"}') == ["by any name", {"city": "Rome"}]
    assert msgspec.json.encode(tools.definitions())


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": True}},
        {"properties": {"a": {"$ref": "#/definitions/A", "description": "b"}}, "definitions": {"A": {}}},
    ],
)
def test_what_strict_mode_cannot_express_is_refused(schema: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be strict"):
        Toolset().tool(by_any_name, name="f", parameters=schema, strict=True)


def test_an_object_that_may_be_null_is_closed_in_strict_mode() -> None:
    tools = Toolset()
    nullable = {"type": ["object", "null"], "properties": {"b": {"type": "string"}}}
    tools.tool(by_any_name, name="f", parameters={"properties": {"a": nullable}}, strict=True)
    found = tools.definitions()[0]["function"]["parameters"]["properties"]["a"]
    assert (found["required"], found["additionalProperties"]) == (["b"], False)


def text_for_a_typo(q: str) -> None: ...
def some_of_the_names(city: str, limit: int = 5) -> None: ...
def neither(place: str, nights: int) -> None: ...
def keyword_only(*, arguments: dict[str, Any]) -> None: ...


@pytest.mark.parametrize("function", [neither, keyword_only, lambda: None, text_for_a_typo, some_of_the_names])
def test_a_function_that_takes_them_in_neither_way_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="neither the parameters of its schema by name"):
        Toolset().tool(function, name="f", parameters=SCHEMA)


@pytest.mark.parametrize("schema", [{"type": "array"}, [], "object"])
def test_a_schema_of_something_else_is_refused(schema: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a JSON Schema of an object"):
        Toolset().tool(by_any_name, parameters=schema)
