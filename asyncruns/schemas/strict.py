"""Convert a JSON Schema to the subset that OpenAI's strict mode accepts; any other keyword is answered with 400.

https://platform.openai.com/docs/guides/structured-outputs#supported-schemas: all properties are required, no others are
allowed, defaults are not, and only some of the other keywords are. A limit that the subset cannot express, such as
`maxLength`, is still checked when what the model wrote is decoded.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Set
from typing import Any, Final

Schema = dict[str, Any]

_NAMED_SCHEMAS: Final = ("properties", "$defs")
_LISTED_SCHEMAS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE_SCHEMAS: Final = ("items", "additionalProperties", "propertyNames")

_STRUCTURE: Final = frozenset({"$defs", "$ref", "additionalProperties", "anyOf", "items", "properties", "required"})
_TEXTS: Final = frozenset({"const", "description", "enum", "format", "pattern"})
_NUMBERS: Final = frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"})
_TAKEN: Final = _STRUCTURE | _TEXTS | _NUMBERS | {"type", "maxItems", "minItems"}
_FORMATS: Final = frozenset({"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"})
_LOOKAROUNDS: Final = ("(?=", "(?!", "(?<=", "(?<!")  # in patterns, which a model then cannot be held to
_SAYS_A_TYPE: Final = frozenset({"type", "$ref", "anyOf"})
_CONTENTS: Final = {"object": "properties", "array": "items"}
_TYPE_NAMES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


class NotStrictError(ValueError):
    """Strict mode cannot express a schema; the text says what it lacks, and ends with what to use instead."""


def subschemas(schema: Schema) -> Iterator[Schema]:
    """Yield every schema in a schema, itself first. Property names are not mistaken for keywords."""
    yield schema
    for key in _NAMED_SCHEMAS:
        for part in schema.get(key, {}).values():
            yield from subschemas(part)
    for key in _LISTED_SCHEMAS:
        for part in schema.get(key, ()):
            yield from subschemas(part)
    for key in _SINGLE_SCHEMAS:
        if isinstance(schema.get(key), dict):
            yield from subschemas(schema[key])


def make_strict(schema: Schema) -> None:
    """Convert a schema in place to one that strict mode accepts.

    Raises:
        NotStrictError: Strict mode cannot express a type in it.
    """
    try:
        _write_out_references(schema)
        for part in list(subschemas(schema)):
            if "oneOf" in part:  # of pydantic, for a union with a discriminator; only one can fit in any case
                part["anyOf"] = part.pop("oneOf")
            _make_part_strict(part)
    except (KeyError, AttributeError, TypeError) as error:  # only in a schema that was given
        raise NotStrictError("a part of its schema is no object, or not in $defs") from error


def _write_out_references(schema: Schema) -> None:
    """Replace each $ref that has other keywords beside it by a copy of its target; strict mode allows none beside it.

    For example, `{"$ref": "#/$defs/Unit", "description": "of the result"}` becomes the schema of `Unit` with that
    description.
    """
    definitions: Schema = copy.deepcopy(schema.get("$defs", {}))
    for definition in definitions.values():
        for part in subschemas(definition):
            if "$ref" in part:  # not replaced inside the copies, since types may be recursive
                _keep_only(part, {"$ref"})
    for part in list(subschemas(schema)):
        part.pop("default", None)
        if "$ref" in part and len(part) > 1:
            definition = definitions[part.pop("$ref").rpartition("/")[2]]
            part.update({**copy.deepcopy(definition), **part})


def _make_part_strict(part: Schema) -> None:
    if "enum" in part:  # msgspec leaves out the type of an enum, and strict mode requires one
        types = sorted({_TYPE_NAMES.get(type(value), "object") for value in part["enum"]})
        part["type"] = types[0] if len(types) == 1 else types
    kinds = part.get("type")
    contents = next((_CONTENTS[kind] for kind in _as_list(kinds) if kind in _CONTENTS), None)
    if _SAYS_A_TYPE.isdisjoint(part) or (contents is not None and not isinstance(part.get(contents), dict)):
        raise NotStrictError(
            "strict mode has no schema for Any, for a dict with arbitrary keys, or for a tuple. Use a Struct or a "
            "dataclass with named fields"
        )
    # Dropping a keyword only widens the schema: the limit is still checked when what the model wrote is decoded.
    _keep_only(part, _TAKEN)
    if part.get("format") not in _FORMATS:
        part.pop("format", None)
    if any(look in str(part.get("pattern", "")) for look in _LOOKAROUNDS):
        del part["pattern"]
    if "object" in _as_list(kinds):
        part["required"] = list(part["properties"])
        part["additionalProperties"] = False


def _as_list(kinds: Any) -> list[Any]:
    return kinds if isinstance(kinds, list) else [kinds]


def _keep_only(part: Schema, keywords: Set[str]) -> None:
    for keyword in part.keys() - keywords:
        del part[keyword]
