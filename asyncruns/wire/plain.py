"""Converts refs, events, outcomes and statistics to plain JSON values, as `Object` does for the objects of the wire."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Set
from typing import Any, ClassVar

import msgspec
from msgspec import Struct, UnsetType

from asyncruns.wire.codec import Object


class Plain(Struct, frozen=True):
    """Base class of structs that become JSON."""

    _kind: ClassVar[str] = ""  # the key that has the name of the class in JSON; "" for none

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, at any depth; the caller may modify them.

        Exceptions become `{"type": ..., "message": ...}`, infinite numbers null.
        """
        kind = {self._kind: type(self).__name__} if self._kind else {}
        return kind | _fields_of(self)

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the same as JSON text.

        Args:
            indent: Spaces for each level; None for a single line without spaces.
        """
        return json_of(self.to_dict(), indent)


def json_of(value: object, indent: int | None) -> str:
    """Return plain values as JSON text; None for a single line."""
    data = msgspec.json.encode(value)
    return (data if indent is None else msgspec.json.format(data, indent=indent)).decode()


def plain_value(value: Any) -> Any:
    """Return a value as plain JSON values."""
    match value:
        case None | UnsetType():
            return None
        case float():
            return value if math.isfinite(value) else None
        case enum.Enum():
            return plain_value(value.value)
        case bool() | int() | str():
            return value
        case Plain() | Object():
            return value.to_dict()
        case Struct():
            return _fields_of(value)
        case Exception():
            return {"type": type(value).__name__, "message": str(value)}
        case Mapping():
            return {str(name): plain_value(item) for name, item in value.items()}
        case list() | tuple() | Set():
            return [plain_value(item) for item in value]
        case _:  # a run of a dialect of the caller's own
            return msgspec.to_builtins(value, enc_hook=_dumped, str_keys=True)


def _fields_of(struct: Struct) -> dict[str, Any]:
    return {name: plain_value(getattr(struct, name)) for name in struct.__struct_fields__ if not name.startswith("_")}


def _dumped(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # of pydantic
    return dump(mode="json") if callable(dump) else str(value)
