"""JSON bytes to structs and back, open towards what servers make up.

The fast way is one pass of msgspec over the bytes. Only when that refuses the body is it read again, slower, with
these rules: an object whose tag nobody knows becomes `Unknown` and keeps everything; a value that does not fit an
optional field is left out, as if the server had not sent it; null in a list is left out; a float that is whole fits an
integer. What still does not fit is no answer of this API, and raises. So a new status, type or field never stops a
watch, and the common case pays nothing for it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar, Union, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, inspect

T = TypeVar("T")

Maybe = Union[T, None, UnsetType]  # noqa: UP007 - an alias with a type variable needs the old spelling on 3.11
"""A field that a server may leave out (UNSET) or send as null (None), which are two things; both are false."""

UNKNOWN_TAG: Final = "asyncruns.unknown"
_RAW: Final = "asyncruns.raw"  # only `encode` writes it: nothing that a server sends is taken for an `Unknown`

JsonText = Annotated[str, Meta(extra={"is_json_text": True})]
"""A field for JSON text. Lenient servers send the object itself, and a call must not lose its arguments to that."""

PlainText = Annotated[str, Meta(extra={"is_plain_text": True})]
"""A field for text. Lenient servers send `{"value": text}`, as another API of theirs has it."""


def may_be_text(read: Callable[[str], Any]) -> Meta:
    """Return the mark of an object, or of a list, in whose place lenient servers send a bare string.

    Args:
        read: Returns what the string stands for, as parsed JSON.
    """
    return Meta(extra={"text_as": read})


class Object(Struct, frozen=True):
    """What all objects of the wire can do: be written down again, by the names that users of pydantic know.

    What the server did not send (UNSET) is left out. So is a field that this version does not name, which was not
    kept; `with_raw_response` gives all that came.
    """

    def to_dict(self, *, exclude_none: bool = False) -> dict[str, Any]:
        """Give it as a dict of what JSON knows, to any depth; the caller may change that.

        Args:
            exclude_none: Whether fields that the server sent as null are left out, too; not so in what is free in its
                form, such as `metadata`, a JSON Schema, or an `Unknown`.
        """
        found: dict[str, Any] = _written(self, exclude_none=exclude_none)
        return found

    def to_json(self, *, indent: int | None = 2, exclude_none: bool = False) -> str:
        """Give it as JSON text.

        Args:
            indent: Spaces for each level; None gives one line without any.
            exclude_none: As in `to_dict`.
        """
        data = _ENCODER.encode(self.to_dict(exclude_none=exclude_none))
        return (data if indent is None else msgspec.json.format(data, indent=indent)).decode()

    def model_dump(self, *, mode: Literal["json", "python"] = "python", exclude_none: bool = False) -> dict[str, Any]:
        """Give the same as `to_dict`; the two modes do not differ, since times are numbers."""
        return self.to_dict(exclude_none=exclude_none)

    def model_dump_json(self, *, indent: int | None = None, exclude_none: bool = False) -> str:
        """Give the same as `to_json`, on one line by default."""
        return self.to_json(indent=indent, exclude_none=exclude_none)


class Unknown(Object, frozen=True, tag_field="type", tag=UNKNOWN_TAG, rename={"raw": _RAW}):
    """An object of a type that this version does not name. `raw` is all that came."""

    raw: dict[str, Any]

    @property
    def type(self) -> str:
        """The server's word for its type, or "" where it has none."""
        found = self.raw.get("type")
        return found if isinstance(found, str) else ""

    @property
    def id(self) -> str:
        """Its id, or "" where it has none."""
        found = self.raw.get("id")
        return found if isinstance(found, str) else ""


_TEXT_TYPES: Final = frozenset({"", "text", "output_text", "input_text"})


def text_of_unknown(part: Unknown) -> str:
    """Return the text of a part of a message, where a server sends another API's type, or none; "" for other parts."""
    text = part.raw.get("text") if part.type in _TEXT_TYPES else None
    if isinstance(text, dict):
        text = text.get("value")
    return text if isinstance(text, str) else ""


@cache
def decoder(type_: Hashable) -> msgspec.json.Decoder[Any]:
    """Give the one decoder of a type; it is built once."""
    return msgspec.json.Decoder(type_)


def decode(data: bytes, type: type[T]) -> T:
    """Decode JSON bytes into a type of `asyncruns.wire`.

    Args:
        data: The body of an answer.
        type: A struct of `asyncruns.wire`, `Page[...]` of one, or anything else that msgspec knows.

    Raises:
        msgspec.DecodeError: The bytes are not JSON, or lack what nothing can do without (an id, a status).
    """
    found: T
    try:
        found = decoder(cast("Hashable", type)).decode(data)
    except (ValueError, RecursionError):  # msgspec's own are ValueErrors, and so is a UnicodeDecodeError
        found = _decode_openly(data, type)
    return found


def convert(value: Any, type: type[T]) -> T:
    """Give parsed JSON as a type of `asyncruns.wire`, by the rules of `decode`.

    Raises:
        msgspec.ValidationError: It lacks what nothing can do without.
    """
    found: T
    try:
        found = msgspec.convert(value, type)
    except (ValueError, RecursionError):
        found = msgspec.convert(_fit(value, _shape(cast("Hashable", type))), type)
    return found


def plain(value: Any) -> Any:
    """Give a struct as parsed JSON, what is UNSET left out; an `Unknown` is given as it came."""
    return _unwrap(msgspec.to_builtins(value))


def encode(value: Any) -> bytes:
    """Encode a value as JSON bytes; an `Unknown` is written as it came.

    Raises:
        TypeError: There is no JSON for something in it.
        ValueError: A text in it is no Unicode.
    """
    data = _ENCODER.encode(value)
    if _RAW.encode() in data:
        data = _ENCODER.encode(_unwrap(msgspec.json.decode(data)))
    return data


def _plain(value: Any) -> Any:
    """Give what stands for a path, a mapping or an iterable that msgspec does not know, such as a generator."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping) and not isinstance(value, dict):
        return dict(value)
    if isinstance(value, Iterable) and not isinstance(value, dict | list):  # msgspec knows them, but not as keys
        return list(value)
    raise TypeError(f"a {type(value).__qualname__} has no JSON")


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_plain, decimal_format="number")


def _unwrap(node: Any) -> Any:
    if isinstance(node, dict):
        if node.keys() == {"type", _RAW}:
            return node[_RAW]
        return {key: _unwrap(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_unwrap(value) for value in node]
    return node


def _written(node: Any, *, exclude_none: bool) -> Any:
    if isinstance(node, list):
        return [_written(item, exclude_none=exclude_none) for item in node]
    if isinstance(node, Unknown):
        node = node.raw
    if not isinstance(node, Struct):
        return msgspec.to_builtins(node)
    shape = node.__struct_config__
    found: dict[str, Any] = {} if shape.tag_field is None else {shape.tag_field: shape.tag}
    for name, written_as in zip(node.__struct_fields__, node.__struct_encode_fields__, strict=True):
        value = getattr(node, name)
        if value is not UNSET and not (exclude_none and value is None):
            found[written_as] = _written(value, exclude_none=exclude_none)
    return found


# The slow way: a walk over the parsed JSON, guided by the type.


def _decode_openly(data: bytes, type_: Any) -> Any:
    try:
        return msgspec.convert(_fit(parse(data), _shape(type_)), type_)
    except UnicodeDecodeError as error:  # msgspec lets these two through
        raise msgspec.DecodeError("JSON text is not UTF-8") from error
    except RecursionError as error:
        raise msgspec.DecodeError("JSON is nested too deep") from error


_HALF_CHARACTER: Final = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(data: bytes) -> Any:
    """Parse JSON, with half characters in it mended.

    Raises:
        msgspec.DecodeError: It is none.
    """
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        if not _HALF_CHARACTER.search(data):
            raise
    # Servers that cut a text off within a character send half of it, which Python's own decoder takes.
    try:
        mended = json.dumps(json.loads(data), ensure_ascii=False).encode("utf-8", "replace")
    except ValueError as error:
        raise msgspec.DecodeError(f"JSON is malformed: {error}") from error
    return msgspec.json.decode(mended)


@cache
def _shape(type_: Any) -> inspect.Type:
    return inspect.type_info(type_)


def _fit(value: Any, shape: inspect.Type) -> Any:
    """Give the value in a form that fits the shape, or raise `msgspec.ValidationError`."""
    for kind, fit in _FITTERS.items():
        if isinstance(shape, kind):
            return fit(value, shape)
    return value


def _fit_struct(value: Any, shape: inspect.StructType) -> Any:
    if not isinstance(value, dict):
        raise msgspec.ValidationError(f"Expected an object, got {_shown(value)}")
    fitted = dict(value)
    for field in shape.fields:
        if field.encode_name not in value:
            if field.required:
                raise msgspec.ValidationError(f"Object missing required field `{field.encode_name}`")
            continue
        try:
            fitted[field.encode_name] = _fit(value[field.encode_name], field.type)
        except msgspec.ValidationError:
            if field.required:
                raise
            del fitted[field.encode_name]
    return fitted


def _fit_list(value: Any, shape: inspect.ListType) -> Any:
    if not isinstance(value, list):
        raise msgspec.ValidationError(f"Expected an array, got {_shown(value)}")
    return [_fit(item, shape.item_type) for item in value if item is not None]


def _fit_union(value: Any, shape: inspect.UnionType) -> Any:
    structs = {str(member.tag): member for member in shape.types if isinstance(member, inspect.StructType)}
    if isinstance(value, dict) and UNKNOWN_TAG in structs:
        return _fit_tagged(value, structs)
    error = msgspec.ValidationError(f"Got {_shown(value)}")
    for member in shape.types:
        try:
            return _fit(value, member)
        except msgspec.ValidationError as refused:
            error = refused
    raise error


def _fit_tagged(value: dict[str, Any], structs: Mapping[str, inspect.StructType]) -> Any:
    tag = value.get("type")
    if tag is None:
        # Untagged: an object of these unions carries its payload under the name of its tag.
        tag = next((name for name in structs if name in value), None)
    member = structs.get(tag) if isinstance(tag, str) else None
    if member is not None:
        try:
            return {**_fit_struct(value, member), "type": tag}
        except msgspec.ValidationError:
            pass
    return {"type": UNKNOWN_TAG, _RAW: value}


def _fit_metadata(value: Any, shape: inspect.Metadata) -> Any:
    marks = shape.extra or {}
    if isinstance(value, dict | list) and marks.get("is_json_text"):
        return encode(value).decode()
    if isinstance(value, dict) and marks.get("is_plain_text"):
        return _fit(value.get("value", value.get("text")), shape.type)
    if "text_as" in marks:
        value = _fit_text(value, marks["text_as"], is_list=isinstance(shape.type, inspect.ListType))
    return _fit(value, shape.type)


def _fit_text(value: Any, read: Callable[[str], Any], *, is_list: bool) -> Any:
    """Return what a bare string stands for; a list gets its only item, and keeps what can be one."""
    if isinstance(value, str):
        return read(value)
    if is_list and isinstance(value, dict):
        return [value]
    if is_list and isinstance(value, list):
        return [item for item in value if isinstance(item, str | dict)]
    return value


def _fit_int(value: Any, shape: inspect.IntType) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return _fit_leaf(value, shape)


_LEAVES: Final[Mapping[type[inspect.Type], Any]] = {
    inspect.StrType: str,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.BoolType: bool,
    inspect.NoneType: type(None),
    inspect.DictType: dict[str, Any],
}


def _fit_leaf(value: Any, shape: inspect.Type) -> Any:
    return msgspec.convert(value, _LEAVES[type(shape)])


_FITTERS: Final[Mapping[type[inspect.Type], Callable[[Any, Any], Any]]] = {
    inspect.StructType: _fit_struct,
    inspect.ListType: _fit_list,
    inspect.UnionType: _fit_union,
    inspect.Metadata: _fit_metadata,
    inspect.IntType: _fit_int,
    **dict.fromkeys(
        (inspect.StrType, inspect.FloatType, inspect.BoolType, inspect.NoneType, inspect.DictType), _fit_leaf
    ),
}


def _shown(value: Any) -> str:
    return type(value).__name__  # not the value, which may hold a credential


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields that are not UNSET: what was not given is not sent; what was given as None is sent as null."""
    return {name: value for name, value in fields.items() if value is not UNSET}
