"""Decodes JSON bytes to structs and encodes them again, tolerant of what servers add or change. Does no I/O.

The fast way is one pass of msgspec over the bytes. Only if msgspec rejects the body is it decoded again, more slowly,
by these rules:

- An object with an unknown `type`, or that lacks a required field of its type, becomes an `Unknown`, which keeps all.
- An object without a `type` may be recognized by a field with the name of the type.
- A value that does not fit an optional field is omitted, as if the server had not sent it; so is null in a list.
- A float without a fraction fits an integer.
- A marked field (`JsonText`, `PlainText`, `may_be_text`) also accepts the other forms that lenient servers send.
- Half of a surrogate pair becomes a question mark.

A body that still does not fit is not a response of this API, and raises. So a new status, type or field never stops a
watch, and the common case pays nothing for that.
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
"""A field that a server may omit (UNSET) or send as null (None). The two differ, but both are false."""

UNKNOWN_TAG: Final = "asyncruns.unknown"
_RAW: Final = "asyncruns.raw"  # with a dot, so that no object of a server is mistaken for an encoded `Unknown`

JsonText = Annotated[str, Meta(extra={"is_json_text": True})]
"""A field for JSON text. Lenient servers send the object itself; a call must not lose its arguments because of that."""

PlainText = Annotated[str, Meta(extra={"is_plain_text": True})]
"""A field for text. Lenient servers send `{"value": text}` or `{"text": text}`, as in other APIs of theirs."""


def may_be_text(read: Callable[[str], Any]) -> Meta:
    """Return the mark of an object or a list for which lenient servers send a bare string.

    Args:
        read: Returns the object or list that a string stands for, as parsed JSON.
    """
    return Meta(extra={"text_as": read})


class Object(Struct, frozen=True):
    """Base class of the objects of the wire: converts them to dicts and JSON, also by the method names of pydantic.

    A field that the server did not send (UNSET) is omitted. So is a field that this version does not know, since it is
    not kept; `with_raw_response` returns the whole body.
    """

    def to_dict(self, *, exclude_none: bool = False) -> dict[str, Any]:
        """Return the object as a dict of plain JSON values, at any depth; the caller may modify it.

        Args:
            exclude_none: Whether to omit fields that the server sent as null. Values without a fixed form, such as
                `metadata`, a JSON Schema or an `Unknown`, keep theirs.
        """
        found: dict[str, Any] = _written(self, exclude_none=exclude_none)
        return found

    def to_json(self, *, indent: int | None = 2, exclude_none: bool = False) -> str:
        """Return the object as JSON text.

        Args:
            indent: Spaces for each level; None for a single line without spaces.
            exclude_none: As for `to_dict`.
        """
        data = _ENCODER.encode(self.to_dict(exclude_none=exclude_none))
        return (data if indent is None else msgspec.json.format(data, indent=indent)).decode()

    def model_dump(self, *, mode: Literal["json", "python"] = "python", exclude_none: bool = False) -> dict[str, Any]:
        """Return the same as `to_dict`. Both modes are the same, since all values are plain JSON."""
        return self.to_dict(exclude_none=exclude_none)

    def model_dump_json(self, *, indent: int | None = None, exclude_none: bool = False) -> str:
        """Return the same as `to_json`, by default on one line."""
        return self.to_json(indent=indent, exclude_none=exclude_none)


class Unknown(Object, frozen=True, tag_field="type", tag=UNKNOWN_TAG, rename={"raw": _RAW}):
    """An object of a type that this version does not know. `raw` is the whole object as the server sent it."""

    raw: dict[str, Any]

    @property
    def type(self) -> str:
        """The server's name for its type, or "" if it has none."""
        found = self.raw.get("type")
        return found if isinstance(found, str) else ""

    @property
    def id(self) -> str:
        """Its id, or "" if it has none."""
        found = self.raw.get("id")
        return found if isinstance(found, str) else ""


_TEXT_TYPES: Final = frozenset({"", "text", "output_text", "input_text"})


def text_of_unknown(part: Unknown) -> str:
    """Return the text of a message part that has a type of another API, or none; "" for a part that is no text."""
    text = part.raw.get("text") if part.type in _TEXT_TYPES else None
    if isinstance(text, dict):
        text = text.get("value")
    return text if isinstance(text, str) else ""


@cache
def decoder(type_: Hashable) -> msgspec.json.Decoder[Any]:
    """Return the decoder of a type, which is built only once."""
    return msgspec.json.Decoder(type_)


def decode(data: bytes, type: type[T]) -> T:
    """Decode JSON bytes into a type of `asyncruns.wire`.

    Args:
        data: The body of a response.
        type: A struct of `asyncruns.wire`, `Page[...]` of one, or any other type that msgspec supports.

    Raises:
        msgspec.DecodeError: The bytes are not JSON, or lack a required field (an id, a status).
    """
    found: T  # msgspec's decoders are typed as Any here
    try:
        found = decoder(cast("Hashable", type)).decode(data)
    except (ValueError, RecursionError):  # the errors of msgspec, and UnicodeDecodeError, are ValueErrors
        found = _decode_openly(data, type)
    return found


def convert(value: Any, type: type[T]) -> T:
    """Convert parsed JSON to a type of `asyncruns.wire`, by the rules of `decode`.

    Raises:
        msgspec.ValidationError: It lacks a required field.
        RecursionError: It is nested too deeply.
    """
    found: T
    try:
        found = msgspec.convert(value, type)
    except (ValueError, RecursionError):
        found = msgspec.convert(_fit(value, _shape(cast("Hashable", type))), type)
    return found


def plain(value: Any) -> Any:
    """Return a struct as parsed JSON, without fields that are UNSET; an `Unknown` as the server sent it."""
    return _unwrap(msgspec.to_builtins(value))


def encode(value: Any) -> bytes:
    """Encode a value as JSON bytes; an `Unknown` is written as the server sent it.

    Raises:
        TypeError: A value in it has no JSON form.
        ValueError: A string in it is not valid Unicode (it has half of a surrogate pair).
    """
    data = _ENCODER.encode(value)
    # A string with that text leads here, too; then nothing is unwrapped.
    if _RAW.encode() in data:
        data = _ENCODER.encode(_unwrap(msgspec.json.decode(data)))
    return data


def _plain(value: Any) -> Any:
    """Convert a path, a mapping or an iterable that msgspec does not support, such as a generator."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping) and not isinstance(value, dict):
        return dict(value)
    # msgspec supports dicts and lists; it passes them here if they are keys of a dict, which is an error.
    if isinstance(value, Iterable) and not isinstance(value, dict | list):
        return list(value)
    raise TypeError(f"a {type(value).__qualname__} cannot be encoded as JSON")


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_plain, decimal_format="number")


def _unwrap(node: Any) -> Any:
    if isinstance(node, dict):
        if node.keys() == {"type", _RAW}:  # the encoded form of an `Unknown`
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
    # By the names on the wire, which differ for a few fields.
    found: dict[str, Any] = {} if shape.tag_field is None else {shape.tag_field: shape.tag}
    for name, written_as in zip(node.__struct_fields__, node.__struct_encode_fields__, strict=True):
        value = getattr(node, name)
        if value is not UNSET and not (exclude_none and value is None):
            found[written_as] = _written(value, exclude_none=exclude_none)
    return found


# The slow way: a walk over the parsed JSON, guided by the type. Each `_fit...` function returns the value in a form
# that msgspec accepts for the type, or raises `msgspec.ValidationError`.


def _decode_openly(data: bytes, type_: Any) -> Any:
    try:
        return msgspec.convert(_fit(parse(data), _shape(type_)), type_)
    except UnicodeDecodeError as error:  # msgspec does not turn these two into a DecodeError
        raise msgspec.DecodeError("JSON text is not UTF-8") from error
    except RecursionError as error:
        raise msgspec.DecodeError("JSON is nested too deeply") from error


_HALF_CHARACTER: Final = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape from \ud800 to \udfff


def parse(data: bytes) -> Any:
    """Parse JSON. Half of a surrogate pair in it becomes a question mark.

    Raises:
        msgspec.DecodeError: It is not JSON.
    """
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        if not _HALF_CHARACTER.search(data):
            raise
    # A server that cuts a text off within a character sends half a surrogate pair, which only Python's decoder accepts.
    try:
        mended = json.dumps(json.loads(data), ensure_ascii=False).encode("utf-8", "replace")
    except ValueError as error:
        raise msgspec.DecodeError(f"JSON is malformed: {error}") from error
    return msgspec.json.decode(mended)


@cache
def _shape(type_: Any) -> inspect.Type:
    return inspect.type_info(type_)


def _fit(value: Any, shape: inspect.Type) -> Any:
    """Return the value in a form that fits the shape.

    Raises:
        msgspec.ValidationError: It has none.
    """
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
                raise  # the object cannot be used without it; in a union it becomes an `Unknown`
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
    # Other unions, such as `str | dict`: the first member that fits.
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
        # Without a type: in these unions an object has its contents under the name of its type, as in
        # {"text": {"value": "Hello"}}.
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
    """Return what a bare string stands for.

    Where a list is expected, an object becomes its only item, and items that are neither strings nor objects are
    omitted.
    """
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
    """Return the fields that are not UNSET: an omitted argument is not sent, and None is sent as null."""
    return {name: value for name, value in fields.items() if value is not UNSET}
