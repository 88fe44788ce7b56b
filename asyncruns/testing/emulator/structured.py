"""Structured output: the checks of a JSON Schema that a request has, and what a model without a script writes.

A schema with `strict` is refused as the real API does, so that a test notices it:
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.arguments import made_up_arguments
from asyncruns.testing.emulator.scenario import Scenario

_NAME: Final = "^[a-zA-Z0-9_-]+$"
_LONGEST_NAME: Final = 64
_NOT_PERMITTED: Final = frozenset({
    "allOf", "default", "dependentRequired", "dependentSchemas", "else", "if", "maxLength", "minLength", "not", "oneOf",
    "patternProperties", "then", "uniqueItems",
})  # fmt: skip

_Schema = Mapping[str, Any]
_Place = tuple[str, ...]


def check_response_format(given: Any) -> None:
    """Check the `response_format` of a run or an assistant.

    Raises:
        RefusedError: Its schema is refused.
    """
    if isinstance(given, dict) and given.get("type") == "json_schema":
        if not isinstance(given.get("json_schema"), dict):
            raise refusals.missing("response_format.json_schema")
        _check("response_format.json_schema", given["json_schema"], param="response_format", code=None)


def check_text(given: Any) -> None:
    """Check the `text` of a response.

    Raises:
        RefusedError: The schema of its format is refused.
    """
    chosen = given.get("format") if isinstance(given, dict) else None
    if isinstance(chosen, dict) and chosen.get("type") == "json_schema":
        _check("text.format", chosen, param="text.format.schema", code="invalid_json_schema")


def text_written(scenario: Scenario, output_format: Any, outputs: list[str], said: str) -> str:
    """Return the text of an answer: the scenario's, or a value of the schema, or the outputs, or the user's text.

    Args:
        scenario: The course of the run.
        output_format: The `response_format` of a run, or the `text` of a response.
        outputs: A line for each output of a call.
        said: The text of the last user message.
    """
    if scenario.answer is not None:
        return scenario.answer if isinstance(scenario.answer, str) else _json(scenario.answer)
    if (schema := _schema_in(output_format)) is not None:
        return _json(made_up_arguments(schema))
    return "\n".join(outputs) or f"You said: {said}"


def _json(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(value).decode()


def _schema_in(output_format: Any) -> _Schema | None:
    if not isinstance(output_format, dict):
        return None
    holder = output_format.get("json_schema") or output_format.get("format")
    schema = holder.get("schema") if isinstance(holder, dict) else None
    return schema if isinstance(schema, dict) else None


def _check(path: str, holder: _Schema, *, param: str, code: str | None) -> None:
    name, schema = holder.get("name"), holder.get("schema")
    if not isinstance(name, str):
        raise refusals.missing(f"{path}.name")
    if len(name) > _LONGEST_NAME:
        raise refusals.too_long(f"{path}.name", name, _LONGEST_NAME)
    if not re.fullmatch(_NAME, name):
        raise refusals.wrong_pattern(f"{path}.name", _NAME)
    if not isinstance(schema, dict):
        raise refusals.missing(f"{path}.schema")
    wrong = _wrong_with(schema) if holder.get("strict") else None
    if wrong is not None:
        raise refusals.wrong_schema(name, wrong, param=param, code=code)


def _wrong_with(schema: _Schema) -> str | None:
    """Return what strict mode refuses about a schema, in the words of the API; None if nothing."""
    if (kind := schema.get("type")) != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
    wrong = ((place, _wrong_with_part(part)) for place, part in _parts(schema, ()))
    return next((f"In context={place!r}, {what}" for place, what in wrong if what is not None), None)


def _wrong_with_part(part: _Schema) -> str | None:
    kinds = part.get("type")
    if kinds is None and part.keys().isdisjoint({"$ref", "anyOf"} | _NOT_PERMITTED):
        return "schema must have a 'type' key."
    if kinds == "object" or (isinstance(kinds, list) and "object" in kinds):
        properties, required = part.get("properties") or {}, part.get("required") or []
        if part.get("additionalProperties") is not False:
            return "'additionalProperties' is required to be supplied and to be false."
        every = "'required' is required to be supplied and to be an array including every key in properties."
        if missing := [name for name in properties if name not in required]:
            return f"{every} Missing '{missing[0]}'."
        if extra := [name for name in required if name not in properties]:
            return f"{every} Extra required key '{extra[0]}' supplied."
    not_permitted = sorted(part.keys() & _NOT_PERMITTED)
    return f"'{not_permitted[0]}' is not permitted." if not_permitted else None


def _parts(schema: Any, place: _Place) -> Iterator[tuple[_Place, _Schema]]:
    """Yield every schema in a schema, itself first, with its place."""
    if not isinstance(schema, dict):
        return
    yield place, schema
    for key in ("properties", "$defs"):
        for name, part in (schema.get(key) or {}).items():
            yield from _parts(part, (*place, key, name))
    for number, part in enumerate(schema.get("anyOf") or ()):
        yield from _parts(part, (*place, "anyOf", str(number)))
    yield from _parts(schema.get("items"), (*place, "items"))
