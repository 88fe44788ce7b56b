"""Make up arguments from a function's JSON Schema: the required properties, each with a simple value that fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

# A schema that requires itself has no finite value; stop instead of recursing forever.
_MAX_DEPTH: Final = 20

_BY_FORMAT: Final = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}

_Schema = Mapping[str, Any]


def made_up_arguments(schema: _Schema) -> dict[str, Any]:
    """Make up the arguments of one call; `pattern`, `not` and conditions are ignored."""
    value = _value(schema, schema, 0)
    return value if isinstance(value, dict) else {}


def _value(schema: Any, root: _Schema, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:  # the schema `true` allows any value
        return None
    schema = _resolved(schema, root)
    # The schema's own values first: they fit, whatever its other keywords are.
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return _value(_first_not_null(schema[key]), root, depth + 1)
    maker = _MAKERS.get(_type_of(schema))
    return None if maker is None else maker(schema, root, depth + 1)


def _resolved(schema: _Schema, root: _Schema) -> _Schema:
    """Resolve `$ref` and merge the schemas of `allOf`."""
    for _ in range(_MAX_DEPTH):
        if "$ref" not in schema:
            break
        target: Any = root
        for part in schema["$ref"].removeprefix("#").strip("/").split("/"):
            # In a JSON pointer (RFC 6901) `~1` stands for `/` and `~0` for `~`, to be replaced in this order.
            target = target.get(part.replace("~1", "/").replace("~0", "~"), {}) if part else target
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema.get("allOf", ()):
        for key, value in _resolved(part, root).items():
            if key == "properties":
                merged[key] = {**merged.get(key, {}), **value}
            elif key == "required":
                merged[key] = [*merged.get(key, ()), *value]
            else:
                merged.setdefault(key, value)
    return merged


def _first_not_null(options: list[Any]) -> Any:
    return next((one for one in options if one != {"type": "null"}), options[0])


def _type_of(schema: _Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind is None:
        return "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(kind)


def _object(schema: _Schema, root: _Schema, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    # The title makes strings recognizable: a required string `city` becomes "city".
    return {
        name: _value({"title": name, **_mapping(properties.get(name))}, root, depth)
        for name in schema.get("required", ())
    }


def _mapping(schema: Any) -> _Schema:
    return schema if isinstance(schema, Mapping) else {}


def _array(schema: _Schema, root: _Schema, depth: int) -> list[Any]:
    fixed = [_value(one, root, depth) for one in schema.get("prefixItems", ())]
    missing = schema.get("minItems", 0) - len(fixed)
    return fixed + [_value(schema.get("items", {}), root, depth) for _ in range(missing)]


def _string(schema: _Schema, _root: _Schema, _depth: int) -> str:
    known = _BY_FORMAT.get(schema.get("format", ""))
    if known is not None:
        return known
    text = str(schema.get("title", "text")).lower()
    return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]


def _integer(schema: _Schema, _root: _Schema, _depth: int) -> int:
    step = schema.get("multipleOf", 1)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None:  # the smallest multiple of `step` from there: minimum 7, multipleOf 5 -> 10
        value = math.ceil(low / step) * step
        return int(value + step if value == schema.get("exclusiveMinimum") else value)
    if high is not None and high <= step:
        value = math.floor(high / step) * step
        return int(value - step if value == schema.get("exclusiveMaximum") else value)
    return int(step)


def _number(schema: _Schema, root: _Schema, depth: int) -> float:
    low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum", schema.get("maximum"))
    if low is not None and high is not None and "multipleOf" not in schema:
        return float((low + high) / 2)
    if "multipleOf" not in schema and low is None and "minimum" in schema:
        return float(schema["minimum"])
    return float(_integer(schema, root, depth))


_MAKERS: Final[Mapping[str, Callable[[_Schema, _Schema, int], Any]]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": lambda _schema, _root, _depth: True,
    "null": lambda _schema, _root, _depth: None,
}
