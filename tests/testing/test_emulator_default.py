"""The default scenario: a run calls each function once, with arguments that fit its schema."""

from __future__ import annotations

import asyncio
import datetime
import enum
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

from asyncruns.testing import Emulator, Scenario
from asyncruns.testing.emulator import FunctionCall, RunRequest, default_scenario
from asyncruns.testing.emulator.arguments import made_up_arguments

Ask = Callable[..., Awaitable[tuple[int, Any]]]


def function(name: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"name": name} if parameters is None else {"name": name, "parameters": parameters}
    return {"type": "function", "function": spec}


def request(*tools: dict[str, Any], **more: Any) -> RunRequest:
    return RunRequest(assistant_id="asst_1", thread_id="thread_1", model="m", tools=tools, **more)


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


async def test_each_function_is_called_once_then_the_run_completes(emulator: Emulator, ask: Ask) -> None:
    tools = [function("get_weather", CITY), {"type": "code_interpreter"}, function("get_time")]
    _, assistant = await ask("POST", "/assistants", {"model": "gpt-4o", "tools": tools})
    _, run = await ask("POST", "/threads/runs", {"assistant_id": assistant["id"]})
    await asyncio.sleep(1)
    calls = emulator.runs[run["id"]]["required_action"]["submit_tool_outputs"]["tool_calls"]
    assert [call["function"] for call in calls] == [
        {"name": "get_weather", "arguments": '{"city":"city"}'},
        {"name": "get_time", "arguments": "{}"},
    ]
    body = {"tool_outputs": [{"tool_call_id": call["id"], "output": "ok"} for call in calls]}
    await ask("POST", f"/threads/{run['thread_id']}/runs/{run['id']}/submit_tool_outputs", body)
    await asyncio.sleep(1)
    assert emulator.runs[run["id"]]["status"] == "completed"


async def test_the_runs_own_tools_replace_those_of_the_assistant(emulator: Emulator, ask: Ask) -> None:
    _, assistant = await ask("POST", "/assistants", {"model": "gpt-4o", "tools": [function("f")]})
    _, run = await ask("POST", "/threads/runs", {"assistant_id": assistant["id"], "tools": []})
    await asyncio.sleep(1)
    assert emulator.runs[run["id"]]["status"] == "completed"


def test_without_functions_the_run_completes_at_once() -> None:
    assert default_scenario(request({"type": "file_search"})) == Scenario()


def test_tool_choice_is_respected() -> None:
    tools = function("a"), function("b")
    chosen = {"type": "function", "function": {"name": "b"}}
    assert default_scenario(request(*tools, tool_choice="none")).rounds == ()
    assert default_scenario(request(*tools, tool_choice=chosen)).rounds == ((FunctionCall("b", {}),),)


def test_without_parallel_calls_each_function_has_a_round_of_its_own() -> None:
    rounds = default_scenario(request(function("a"), function("b"), parallel_tool_calls=False)).rounds
    assert rounds == ((FunctionCall("a", {}),), (FunctionCall("b", {}),))


class Unit(enum.Enum):
    CELSIUS = "c"


class Place(msgspec.Struct):
    street: Annotated[str, msgspec.Meta(min_length=12)]
    zip: Annotated[str, msgspec.Meta(max_length=2)]
    at: tuple[float, float]


class Everything(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    unit: Unit
    kind: Literal["x", "y"]
    days: Annotated[int, msgspec.Meta(ge=3, le=5)]
    more: Annotated[int, msgspec.Meta(gt=3, multiple_of=5)]
    below: Annotated[int, msgspec.Meta(lt=-3)]
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    least: Annotated[float, msgspec.Meta(ge=0.25)]
    place: Place
    places: Annotated[list[Place], msgspec.Meta(min_length=2)]
    maybe: Place | None
    nothing: None
    flag: bool
    day: datetime.date
    moment: Annotated[datetime.datetime, msgspec.Meta(tz=True)]
    id: UUID
    mapping: dict[str, int]
    left_out: str = "unset"


def test_made_up_arguments_fit_their_schema() -> None:
    made = made_up_arguments(msgspec.json.schema(Everything))
    value = msgspec.convert(made, Everything)
    assert value.place.street.startswith("street")
    assert value.left_out == "unset"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 7}, 7),
        ({"default": "d", "type": "string"}, "d"),
        ({"enum": ["e", "f"]}, "e"),
        ({"examples": [[1]]}, [1]),
        ({"type": ["null", "integer"]}, 1),
        ({"type": "null"}, None),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, True),
        ({"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"const": 1}}}]}, {"a": 1}),
        ({"$ref": "#/$defs/a~1b"}, 3),
        ({"items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "integer", "maximum": 0}, 0),
        ({"type": "unheard of"}, None),
        (True, "p"),
    ],
)
def test_each_keyword_of_a_schema_is_respected(schema: Any, value: Any) -> None:
    whole = {"type": "object", "properties": {"p": schema}, "required": ["p"], "$defs": {"a/b": {"const": 3}}}
    assert made_up_arguments(whole) == {"p": value}


def test_a_schema_that_requires_itself_ends() -> None:
    schema = {"type": "object", "properties": {"self": {"$ref": "#"}}, "required": ["self"]}
    assert "self" in made_up_arguments(schema)


@pytest.mark.parametrize("schema", [{}, {"type": "string"}, {"$ref": "#/nowhere"}, {"$ref": "#"}])
def test_a_schema_that_is_not_an_object_results_in_no_arguments(schema: dict[str, Any]) -> None:
    assert made_up_arguments(schema) == {}


CALL = FunctionCall("f")


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"rounds": (CALL,)}, r"rounds=\(\(call,\),\); got a FunctionCall as a round$"),
        ({"rounds": CALL}, "got a FunctionCall as rounds$"),
        ({"rounds": (("name",),)}, "got a str as a call$"),
        ({"rounds": ("name",)}, "got a str as a round$"),
        ({"rounds": ((),)}, "a round has no calls"),
        ({"end": "expired"}, "'never'.*; a run with 'never' expires"),
    ],
)
def test_an_invalid_scenario_is_refused(fields: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        Scenario(**fields)
