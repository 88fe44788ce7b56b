"""Adds the format to the schemas of times, which msgspec leaves out because it also accepts times without a zone."""

from __future__ import annotations

import datetime
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Final, get_args, get_origin

import msgspec

from asyncruns.schemas.annotations import field_types
from asyncruns.schemas.strict import Schema

_FORMATS: Final = {datetime.datetime: "date-time", datetime.time: "time"}
_UNIONS: Final = (typing.Union, types.UnionType)
_CONTAINERS: Final = (list, set, frozenset, tuple, dict)
_BESIDE: Final = ("default", "description")


def with_formats(annotation: Any) -> Any:
    """Return an annotation whose times have a format in their schemas; only unions and builtin containers are entered.

    The schema of a generic class is named after its parameters, so these must not be changed.
    """
    kind, parts = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and annotation in _FORMATS:
        return Annotated[annotation, msgspec.Meta(extra_json_schema={"format": _FORMATS[annotation]})]
    if kind is Annotated:
        return Annotated[(with_formats(parts[0]), *parts[1:])]
    if kind not in _UNIONS and kind not in _CONTAINERS:
        return annotation
    changed = tuple(map(with_formats, parts))
    if changed == parts:
        return annotation
    if kind in _UNIONS:
        return typing.Union[changed]  # noqa: UP007
    generic: Any = kind
    return generic[changed]


def add_formats(definitions: Schema, classes: Iterable[type]) -> None:
    """Add the formats to the fields of classes, in their schemas, which have the names of the classes."""
    for kind in classes:
        properties = definitions.get(kind.__name__, {}).get("properties", {})
        for name, annotation in field_types(kind).items():
            changed = with_formats(annotation)
            if changed == annotation or name not in properties:
                continue
            beside = {key: value for key, value in properties[name].items() if key in _BESIDE}
            # A class of the same name, or a type that is written in another way, has another schema: leave it alone.
            if {**_alone(annotation), **beside} == properties[name]:
                properties[name] = {**_alone(changed), **beside}


def _alone(annotation: Any) -> Schema:
    """Return the schema of a type, without the definitions that it refers to."""
    schema = msgspec.json.schema(annotation)
    schema.pop("$defs", None)
    return schema
