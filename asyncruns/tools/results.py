"""Encode the return value of a tool as the text that the model reads.

An output is always a string that can be sent. A value without an encoding raises TypeError here, so that one bad value
does not fail the request that carries the outputs of the whole round. Never fall back to `repr`: it may show internals
that were not meant for the model.
"""

from __future__ import annotations

import base64
from enum import Enum
from typing import Any

import msgspec


class CallOutput(msgspec.Struct, frozen=True):
    """The output of a call. `failed` says whether it is an error, for the model to read."""

    text: str
    failed: bool = False


def well_formed(text: str) -> str:
    """Return the text as valid Unicode: surrogate pairs are joined, and lone surrogates become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def encode_output(value: object) -> str:
    """Encode the return value of a tool as the text of its output.

    A string is used as it is. Bytes are decoded as UTF-8, or encoded as base64 if they are not valid UTF-8. None is
    `null`. Everything else becomes JSON: numbers, lists, sets, dicts, structs, dataclasses, dates, decimals, UUIDs, and
    models of pydantic. NaN and the infinities are `null`. Inside JSON, bytes are always base64.

    Raises:
        TypeError: The value, or a part of it, has no JSON: generators, functions, objects of unknown classes.
        ValueError: An integer in it has more digits than Python converts to a string.
        RecursionError: It contains itself, or is nested too deeply.
    """
    if isinstance(value, Enum):  # msgspec would encode a member such as "red" as JSON, with quotes
        value = value.value
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return _text_of(bytes(value))
    try:
        encoded = msgspec.json.encode(value, enc_hook=_plain)
    except UnicodeEncodeError:  # a lone surrogate somewhere in it: rare, so only now convert all strings
        encoded = msgspec.json.encode(_mended(msgspec.to_builtins(value, enc_hook=_plain)))
    return encoded.decode("utf-8", "replace")


def error_output(message: str) -> str:
    """Return the output that reports an error to the model: a JSON object with the key `error`."""
    return encode_output({"error": message})


def _text_of(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii")


def _plain(value: Any) -> Any:
    """Convert an object that msgspec cannot encode; models of pydantic have `model_dump` for that."""
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):  # a class has the method as well, but no data
        return dump(mode="json")
    raise TypeError(f"A {type(value).__qualname__} cannot be encoded as a tool's output")


def _mended(value: Any) -> Any:
    """Return builtin values with every string in them, including keys, as valid Unicode."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_mended(item) for item in value]
    return value
