"""The emulator and structured output: what a model writes, what it refuses to write, and schemas that are refused."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
import openai
import pytest

from asyncruns import Client, RunWatcher
from asyncruns.testing import Emulator, InMemoryTransport, Scenario

Ask = Callable[..., Awaitable[tuple[int, Any]]]
Where = Literal["threads", "responses"]

MODEL = "gpt-test"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "founded": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}, "minItems": 1},
    },
    "required": ["city", "founded", "parts"],
    "additionalProperties": False,
    "$defs": {
        "Part": {
            "type": "object",
            "properties": {"kind": {"type": "string", "enum": ["old", "new"]}},
            "required": ["kind"],
            "additionalProperties": False,
        }
    },
}
VALUE = {"city": "city", "founded": "2026-01-31", "parts": [{"kind": "old"}]}


@pytest.fixture(params=["threads", "responses"])
def where(request: pytest.FixtureRequest) -> Where:
    found: Where = request.param
    return found


async def create(ask: Ask, where: Where, **fields: Any) -> tuple[int, Any]:
    """Create a run or a response with a format; `fields` replace those of the format."""
    made = {"name": "City", "schema": SCHEMA, "strict": True, **fields}
    made = {name: value for name, value in made.items() if value is not None}
    if where == "responses":
        text = {"format": {"type": "json_schema", **made}}
        return await ask("POST", "/responses", {"model": MODEL, "input": "Hi", "text": text})
    _, assistant = await ask("POST", "/assistants", {"model": MODEL})
    body = {"assistant_id": assistant["id"], "response_format": {"type": "json_schema", "json_schema": made}}
    return await ask("POST", "/threads/runs", body)


async def content(ask: Ask, created: Any) -> list[Any]:
    """Return the content of the only message that a run or response wrote."""
    if created["object"] == "response":
        (message,) = created["output"]
    else:
        await asyncio.sleep(1)
        _, messages = await ask("GET", f"/threads/{created['thread_id']}/messages")
        (message,) = messages["data"]
    parts: list[Any] = message["content"]
    return parts


def text_in(part: Any) -> str:
    text = part["text"]
    return str(text["value"] if isinstance(text, dict) else text)


async def test_an_answer_without_a_script_is_a_value_of_the_schema(ask: Ask, where: Where) -> None:
    status, created = await create(ask, where)
    assert status == 200, created
    (part,) = await content(ask, created)
    assert msgspec.json.decode(text_in(part)) == VALUE


async def test_a_scenario_may_have_the_value(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(answer={"city": "Oslo"}), model=MODEL)
    (part,) = await content(ask, (await create(ask, "responses"))[1])
    assert text_in(part) == '{"city":"Oslo"}'


async def test_a_model_may_refuse(emulator: Emulator, ask: Ask) -> None:
    emulator.script(Scenario(refusal="No."), model=MODEL)
    assert await content(ask, (await create(ask, "responses"))[1]) == [{"type": "refusal", "refusal": "No."}]


@pytest.mark.parametrize("background", [False, True])
async def test_a_refusal_is_streamed_to_the_official_client(background: bool) -> None:
    async with (
        Emulator(scenario=Scenario(refusal="I will not.")) as emulator,
        openai.AsyncOpenAI(base_url=emulator.base_url, api_key="x") as client,
    ):
        stream = await client.responses.create(model=MODEL, input="?", stream=True, background=background)
        events = [event async for event in stream]
    deltas = [event.delta for event in events if event.type == "response.refusal.delta"]
    assert "".join(deltas) == "I will not."
    assert [event.refusal for event in events if event.type == "response.refusal.done"] == ["I will not."]
    assert "output_text" not in str([event.type for event in events])


async def test_a_refusal_of_a_run_is_streamed() -> None:
    client = Client(transport=InMemoryTransport(scenario=Scenario(refusal="I will not.")))
    assistant = await client.assistants.create(model=MODEL)
    stream = await client.threads.create_and_run(assistant_id=assistant.id, stream=True)
    async with RunWatcher(client, stream) as watcher:
        outcome = await watcher.wait()
    assert [message.refusal for message in stream.messages] == ["I will not."]
    assert [message.refusal for message in await outcome.messages()] == ["I will not."]


def without(*names: str, at: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """Return the schema without some keywords at a place, and with others."""
    schema = copy.deepcopy(SCHEMA)
    part = schema
    for step in at:
        part = part[step]
    for name in names:
        del part[name]
    part.update(more)
    return schema


CLOSED = "'additionalProperties' is required to be supplied and to be false."
OBJECT = "schema must be a JSON Schema of 'type: \"object\"'"
ALL = "'required' is required to be supplied and to be an array including every key in properties."


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        (without("additionalProperties"), f"In context=(), {CLOSED}"),
        (without(additionalProperties=True), f"In context=(), {CLOSED}"),
        (without("additionalProperties", at=("$defs", "Part")), f"In context=('$defs', 'Part'), {CLOSED}"),
        (without("required"), f"In context=(), {ALL} Missing 'city'."),
        (without(required=["city", "founded"]), f"In context=(), {ALL} Missing 'parts'."),
        (without(required=[*VALUE, "x"]), f"In context=(), {ALL} Extra required key 'x' supplied."),
        (
            without(default="Oslo", at=("properties", "city")),
            "In context=('properties', 'city'), 'default' is not permitted.",
        ),
        (
            without("type", at=("properties", "city")),
            "In context=('properties', 'city'), schema must have a 'type' key.",
        ),
        ({"type": "array", "items": SCHEMA}, f"{OBJECT}, got 'type: \"array\"'."),
        ({"anyOf": [SCHEMA]}, f"{OBJECT}, got 'type: \"None\"'."),
    ],
)
async def test_a_schema_that_strict_mode_does_not_accept_is_refused(
    ask: Ask, where: Where, schema: dict[str, Any], wrong: str
) -> None:
    param, code = ("response_format", None) if where == "threads" else ("text.format.schema", "invalid_json_schema")
    message = f"Invalid schema for response_format 'City': {wrong}"
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    assert await create(ask, where, schema=schema) == (400, {"error": error})
    assert (await create(ask, where, schema=schema, strict=False))[0] == 200


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"name": None}, "name", "Missing required parameter: '{}'."),
        ({"schema": None}, "schema", "Missing required parameter: '{}'."),
        (
            {"name": "A city"},
            "name",
            "Invalid '{}': string does not match pattern. Expected a string that matches the pattern "
            "'^[a-zA-Z0-9_-]+$'.",
        ),
        (
            {"name": "A" * 65},
            "name",
            "Invalid '{}': string too long. Expected a string with maximum length 64, but got a string with length 65 "
            "instead.",
        ),
    ],
)
async def test_a_format_without_a_proper_name_or_schema_is_refused(
    ask: Ask, where: Where, fields: dict[str, Any], field: str, message: str
) -> None:
    param = {"threads": "response_format.json_schema", "responses": "text.format"}[where] + f".{field}"
    status, body = await create(ask, where, **fields)
    assert (status, body["error"]["param"], body["error"]["message"]) == (400, param, message.format(param))


async def test_the_format_of_an_assistant_is_checked_and_counts_for_its_runs(ask: Ask) -> None:
    loose = {"type": "json_schema", "json_schema": {"name": "C", "schema": without("required"), "strict": True}}
    strict = {"type": "json_schema", "json_schema": {"name": "C", "schema": SCHEMA, "strict": True}}
    assert (await ask("POST", "/assistants", {"model": MODEL, "response_format": loose}))[0] == 400
    _, assistant = await ask("POST", "/assistants", {"model": MODEL, "response_format": strict})
    assert (await ask("POST", f"/assistants/{assistant['id']}", {"response_format": loose}))[0] == 400
    _, run = await ask("POST", "/threads/runs", {"assistant_id": assistant["id"]})
    (part,) = await content(ask, run)
    assert msgspec.json.decode(text_in(part)) == VALUE


def test_a_scenario_answers_or_refuses() -> None:
    with pytest.raises(ValueError, match="answer or refusal"):
        Scenario(answer="Yes", refusal="No")
