"""Compare received JSON with JSON that was encoded again, and change JSON in one place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from asyncruns.wire import Assistant, Deleted, Message, Page, Run, RunStep, Thread, decode, encode

Path = tuple[str | int, ...]

MODELLED: Final[dict[str, Any]] = {
    "assistant": Assistant,
    "assistant.deleted": Deleted,
    "thread": Thread,
    "thread.deleted": Deleted,
    "thread.message": Message,
    "thread.message.deleted": Deleted,
    "thread.run": Run,
    "thread.run.step": RunStep,
}
LISTED: Final[dict[str, Any]] = {
    "": Page[Run],  # an empty list does not show its kind
    "assistant": Page[Assistant],
    "thread.message": Page[Message],
    "thread.run": Page[Run],
    "thread.run.step": Page[RunStep],
}


def kind_of(body: dict[str, Any]) -> str:
    """Return the kind of a body, such as "thread.run" or "list of thread.run"."""
    name = body.get("object", "")
    if name == "list":
        (items,) = {each["object"] for each in body["data"]} or {""}
        return f"list of {items}"
    return str(name)


def type_of(kind: str) -> Any:
    """Return the type that a kind is decoded to, or None."""
    if kind.startswith("list of "):
        return LISTED.get(kind.removeprefix("list of "))
    return MODELLED.get(kind)


def lost_in(body: dict[str, Any], type_: Any) -> Counter[str]:
    """Decode and encode a body; return the names of the fields that are lost.

    Raises:
        AssertionError: A field was added or changed.
    """
    return lost_between(body, json.loads(encode(decode(json.dumps(body).encode(), type_))))


def lost_between(came: Any, written: Any) -> Counter[str]:
    """Return the names of the fields that were received but not written.

    Raises:
        AssertionError: A field was added or changed.
    """
    lost: Counter[str] = Counter()
    _compare(came, written, "", lost)
    return lost


def _compare(came: Any, written: Any, where: str, lost: Counter[str]) -> None:
    if isinstance(came, dict) and isinstance(written, dict):
        assert written.keys() <= came.keys(), f"{where}: added {written.keys() - came.keys()}"
        for name, value in came.items():
            if name in written:
                _compare(value, written[name], f"{where}.{name}", lost)
            else:
                lost[f"{where}.{name}"] += 1
    elif isinstance(came, list) and isinstance(written, list):
        assert len(came) == len(written), f"{where}: {len(came)} items became {len(written)}"
        for before, after in zip(came, written, strict=True):
            _compare(before, after, f"{where}[]", lost)
    else:
        assert came == written, f"{where}: {came!r} became {written!r}"
        # On the wire 1 equals 1.0, but not true.
        assert isinstance(came, bool) == isinstance(written, bool), f"{where}: {came!r} became {written!r}"


def shape_of(node: Any) -> str:
    """Return what makes two trees equal to a decoder: the names and the types of their fields, and their tags."""
    return repr(_shape(node))


def _shape(node: Any) -> Any:
    if isinstance(node, dict):
        return tuple(sorted((name, value if name == "type" else _shape(value)) for name, value in node.items()))
    if isinstance(node, list):
        return ("list", *sorted({repr(_shape(item)) for item in node}))
    return (type(node).__name__,)


def places(node: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the path of everything in the tree, except the tree itself."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


def value_at(node: Any, path: Path) -> Any:
    for key in path:
        node = node[key]
    return node


def with_value(node: Any, path: Path, value: Any) -> Any:
    """Return the tree with another value at a path."""
    return _changed(node, path, (value,))


def without(node: Any, path: Path) -> Any:
    """Return the tree without the item at a path."""
    return _changed(node, path, ())


def _changed(node: Any, path: Path, values: tuple[Any, ...]) -> Any:
    copy = node.copy()
    key, rest = path[0], path[1:]
    if rest:
        copy[key] = _changed(node[key], rest, values)
    elif values:
        copy[key] = values[0]
    else:
        del copy[key]
    return copy
