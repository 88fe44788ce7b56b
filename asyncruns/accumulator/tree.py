"""Puts deltas together: parsed JSON that grows.

A delta is merged into what there is by these rules. Texts that come in pieces are joined; every other value replaces
the one before. Null changes nothing that is there. The items of a list of objects are told apart by their `index`,
which is not kept; without one, by their place. A delta is kept as it came until somebody asks for the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from asyncruns.wire.codec import convert

T = TypeVar("T")
Tree = dict[str, Any]

IN_PIECES: Final = frozenset({"value", "refusal", "arguments", "input", "logs", "text", "code"})
_MOST_WAITING: Final = 512  # deltas that are kept as they came


class _Pieces(list[str]):
    """A text that grows."""


class _Items(dict[int, Any]):
    """A list that grows, by index."""


class Growing(Generic[T]):
    """An object of the wire that deltas are added to.

    Args:
        type_: What it is.
        tree: What is known of it.
        fold: Adds deltas to the tree.
    """

    def __init__(self, type_: type[T], tree: Tree, fold: Callable[[Tree, list[Any]], None]) -> None:
        self._type = type_
        self._fold = fold
        self._tree = tree
        self._waiting: list[Any] = []
        self._whole: T | None = None

    def add(self, delta: Any) -> None:
        """Add a delta."""
        self._waiting.append(delta)
        self._whole = None
        if len(self._waiting) > _MOST_WAITING:
            self._catch_up()

    def _catch_up(self) -> None:
        self._fold(self._tree, self._waiting)
        self._waiting.clear()

    @property
    def whole(self) -> T:
        """What it is now."""
        if self._whole is None:
            self._catch_up()
            self._whole = convert(built(self._tree), self._type)
        return self._whole


def merge(tree: Tree, delta: Tree) -> None:
    """Add a delta to a tree, in place."""
    for name, new in delta.items():
        old = tree.get(name)
        if new is None:
            tree.setdefault(name, None)
        elif isinstance(new, dict):
            if not isinstance(old, dict):
                tree[name] = old = {}
            merge(old, new)
        elif isinstance(new, list) and all(isinstance(item, dict) for item in new):
            items = items_at(tree, name)
            for place, item in enumerate(new):
                index = item.get("index")
                fields = {key: value for key, value in item.items() if key != "index"}
                merge(item_at(items, index if isinstance(index, int) else place), fields)
        elif isinstance(new, str) and name in IN_PIECES:
            pieces_at(tree, name).append(new)
        else:
            tree[name] = new


def pieces_at(tree: Tree, name: str) -> list[str]:
    """Give the pieces of a text, to be added to."""
    old = tree.get(name)
    if isinstance(old, _Pieces):
        return old
    pieces = tree[name] = _Pieces([old] if isinstance(old, str) else [])
    return pieces


def items_at(tree: Tree, name: str) -> dict[int, Any]:
    """Give the items of a list, by index; there is a list afterwards, if there was none."""
    old = tree.get(name)
    if isinstance(old, _Items):
        return old
    items = tree[name] = _Items(enumerate(old) if isinstance(old, list) else ())
    return items


def item_at(items: dict[Any, Any], index: object) -> Tree:
    """Give the object at an index, or by a name; there is one afterwards, if there was none."""
    found = items.get(index)
    if not isinstance(found, dict):
        found = items[index] = {}
    return found


def built(node: Any) -> Any:
    """Give plain JSON."""
    if isinstance(node, _Pieces):
        node[:] = ["".join(node)]
        return node[0]
    if isinstance(node, _Items):
        return [built(node[index]) for index in sorted(node)]
    if isinstance(node, dict):
        return {name: built(value) for name, value in node.items()}
    if isinstance(node, list):
        return [built(item) for item in node]
    return node
