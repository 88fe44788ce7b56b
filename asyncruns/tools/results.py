"""What a tool gave, as the text that the model reads.

An output is always a string that can be sent: whatever has no text is refused here, with a TypeError, and not at the
request that holds the outputs of a whole round. Nothing is told by its `repr`, which shows what nobody meant to show.
"""

from __future__ import annotations

import base64
from enum import Enum
from typing import Any

import msgspec


def well_formed(text: str) -> str:
    """Give the text as it can be sent: lone surrogates become U+FFFD, pairs of them the character they stand for."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def encode_output(value: object) -> str:
    """Encode what a tool gave as the text of its output.

    A string is taken as it is; bytes are UTF-8 text, or base64 where they are not; None is `null`. Everything else
    becomes JSON: numbers, lists, sets, dicts, structs, dataclasses, dates, decimals, UUIDs, and objects with a
    `model_dump()`. NaN and the infinities are `null`. Inside JSON, bytes are always base64.

    Raises:
        TypeError: There is no JSON for it, or for something in it: generators, functions, objects of unknown classes.
        ValueError: A number in it has more digits than Python writes out.
        RecursionError: It holds itself, or is nested too deep.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return _text_of(bytes(value))
    try:
        encoded = msgspec.json.encode(value, enc_hook=_plain)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_mended(msgspec.to_builtins(value, enc_hook=_plain)))
    return encoded.decode("utf-8", "replace")


def error_output(message: str) -> str:
    """Give the output that tells the model what went wrong: a JSON object with the key `error`."""
    return encode_output({"error": message})


def _text_of(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii")


def _plain(value: Any) -> Any:
    """Give what stands for an object that msgspec does not know; pydantic's models tell it themselves."""
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump()
    raise TypeError(f"A {type(value).__qualname__} cannot be encoded as a tool's output")


def _mended(value: Any) -> Any:
    """Give builtin values with every string, keys too, well formed."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_mended(item) for item in value]
    return value
