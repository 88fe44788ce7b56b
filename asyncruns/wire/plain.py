"""Converts refs, events, outcomes and statistics to plain JSON values, as `Object` does for the objects of the wire.

It never raises: what has no JSON becomes the name of its type, so that a log line or a web page is not lost for it.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping, Set
from typing import Any, ClassVar

import msgspec
from msgspec import Struct, UnsetType

from asyncruns.wire.codec import Object


class Plain(Struct, frozen=True):
    """Base class of structs that become JSON."""

    _kind: ClassVar[str] = ""  # the key that has the name of the class in JSON; "" for none

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, at any depth; the caller may modify them.

        Exceptions become `{"type": ..., "message": ...}`, infinite numbers null, and objects without JSON the name of
        their type.
        """
        kind = {self._kind: type(self).__name__} if self._kind else {}
        return kind | _public(self, self.__struct_fields__)

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the same as JSON text.

        Args:
            indent: Spaces for each level; None for a single line without spaces.
        """
        return json_of(self.to_dict(), indent)


class Held(Struct, dict=True, eq=False):
    """Holds an object of the caller's so that nothing that walks through fields shows it: encoders, `repr`, pickle."""

    def __copy__(self) -> Held:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Held:
        return self

    @classmethod
    def of(cls, value: object) -> Held | None:
        """Return a holder of a value; None for None."""
        if value is None:
            return None
        holder = cls()
        vars(holder)["value"] = value
        return holder


def value_in(holder: Held | None) -> Any:
    """Return what a holder holds; None for None, and for a copy of a holder."""
    return None if holder is None else vars(holder).get("value")


def json_of(value: object, indent: int | None) -> str:
    """Return plain values as JSON text; None for a single line."""
    data = msgspec.json.encode(value)
    return (data if indent is None else msgspec.json.format(data, indent=indent)).decode()


def is_plain(value: object) -> bool:
    """Return whether a value is JSON already, at any depth: what was decoded from JSON is."""
    try:
        return _is_plain(value)
    except RecursionError:  # it contains itself
        return False


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_plain(item) for name, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def plain_value(value: Any) -> Any:
    """Return a value as plain JSON values."""
    try:
        return _converted(value)
    except Exception:  # whatever the classes of a caller do
        return f"<{type(value).__name__}>"


def _converted(value: Any) -> Any:
    match value:
        case None | UnsetType():
            return None
        case bool():
            return value
        case enum.Enum():
            return plain_value(value.value)
        case float():
            return float(value) if math.isfinite(value) else None
        case int():
            return int(value)
        case str():
            return _well_formed(str.__str__(value))
        case type():
            return f"<{value.__name__}>"
        case Plain():
            return value.to_dict()
        case Object():
            return plain_value(value.to_dict())
        case Struct():
            return _public(value, value.__struct_fields__)
        case Exception():
            return {"type": type(value).__name__, "message": plain_value(str(value))}
        case Mapping():
            return {_well_formed(str(plain_value(name))): plain_value(item) for name, item in value.items()}
        case list() | tuple() | Set():
            return [plain_value(item) for item in value]
        case _:
            return _of_another_kind(value)


def _of_another_kind(value: Any) -> Any:
    """Convert the run of a dialect of the caller's own, or a part of it."""
    if dataclasses.is_dataclass(value):
        return _public(value, [field.name for field in dataclasses.fields(value)])
    dump = getattr(value, "model_dump", None)  # of pydantic
    return plain_value(dump(mode="json")) if callable(dump) else msgspec.to_builtins(value)


def _public(value: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: plain_value(getattr(value, name)) for name in names if not name.startswith("_")}


def _well_formed(text: str) -> str:
    """Return the text as valid Unicode: half of a surrogate pair becomes a question mark."""
    return text.encode(errors="replace").decode()
