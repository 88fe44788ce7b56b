"""Adds the format to the schemas of times, which msgspec leaves out because it also accepts times without a zone."""

from __future__ import annotations

import datetime
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec

from asyncruns.tools.annotations import field_types
from asyncruns.tools.strict import Schema

_FORMATS: Final = {datetime.datetime: "date-time", datetime.time: "time"}


def with_formats(annotation: Any) -> Any:
    """Return an annotation whose times have a format in their schemas; fields of classes are left as they are."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and annotation in _FORMATS:
        return Annotated[annotation, msgspec.Meta(extra_json_schema={"format": _FORMATS[annotation]})]
    if kind is Annotated:
        return Annotated[(with_formats(parts[0]), *parts[1:])]
    changed = parts if kind is Literal else tuple(map(with_formats, parts))
    if kind is None or changed == parts:
        return annotation
    return typing.Union[changed] if kind in (typing.Union, types.UnionType) else kind[changed]  # noqa: UP007


def add_formats(definitions: Schema, classes: Iterable[type]) -> None:
    """Add the formats to the fields of classes, in their schemas, which have the names of the classes."""
    for kind in classes:
        properties = definitions.get(kind.__name__, {}).get("properties", {})
        for name, annotation in field_types(kind).items():
            changed = with_formats(annotation)
            if changed != annotation and name in properties:
                schema = msgspec.json.schema(changed)
                schema.pop("$defs", None)
                properties[name] = {**properties[name], **schema}
