"""Tools whose JSON Schema is given, as those of MCP servers are."""

from __future__ import annotations

from collections.abc import Callable
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


def neither(place: str, nights: int) -> None: ...
def keyword_only(*, arguments: dict[str, Any]) -> None: ...


@pytest.mark.parametrize("function", [neither, keyword_only, lambda: None])
def test_a_function_that_takes_them_in_neither_way_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="neither the parameters of its schema by name"):
        Toolset().tool(function, name="f", parameters=SCHEMA)


@pytest.mark.parametrize("schema", [{"type": "array"}, [], "object"])
def test_a_schema_of_something_else_is_refused(schema: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a JSON Schema of an object"):
        Toolset().tool(by_any_name, parameters=schema)
