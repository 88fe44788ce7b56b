"""Puts deltas together: parsed JSON that grows.

A delta is merged into what there is by these rules. Texts that come in pieces are joined; every other value replaces
the one before. Null changes nothing that is there. The items of a list of objects are told apart by their `index`,
which is not kept; without one, by their `id`, else by their place. A delta is kept as it came until somebody asks for
the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, TypeVar

from asyncruns.wire.codec import convert

T = TypeVar("T")
Tree = dict[str, Any]

IN_PIECES: Final = frozenset({"value", "refusal", "arguments", "input", "logs", "text", "code"})
_MOST_WAITING: Final = 512  # deltas that are kept as they came


class _Pieces(list[str]):
    """A text that grows."""


class Places:
    """Tells which item of a list a piece belongs to, and so which pieces belong together.

    An `index` counts, which may leave gaps. A piece without one belongs to the item with its `id`; one without either,
    to the item whose id came last without an index, or else to the item at the piece's own place in the list.
    """

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}  # of the items, by index; "" where none has come
        self._last: int | None = None

    def find(self, index: int | None, item_id: str, place: int, *, is_alone: bool) -> int:
        """Return the index of the item that a piece belongs to, which is known from now on.

        Args:
            index: The one that the piece names, or None.
            item_id: The id that the piece names, or "".
            place: Where the piece stands in its own list.
            is_alone: Whether that list has no other piece.
        """
        if index is not None:
            found = index
        elif item_id:
            found = self._last = self._with_id(item_id, place)
        else:
            found = self._last if is_alone and self._last is not None else place
        self._ids[found] = self._ids.get(found) or item_id
        return found

    def _with_id(self, item_id: str, place: int) -> int:
        for index, known in self._ids.items():
            if known == item_id:
                return index
        return max(self._ids) + 1 if self._ids.get(place) else place

    def position(self, index: int) -> int:
        """Return where an item stands among all that are known."""
        return sorted(self._ids).index(index)


class _Items(dict[int, Any]):
    """A list that grows, by index."""

    def __init__(self, items: Iterable[tuple[int, Any]] = ()) -> None:
        super().__init__(items)
        self.places: Places = Places()
        for index, item in self.items():
            self.places.find(index, text_at(item, "id"), index, is_alone=False)


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
                index = items.places.find(index_in(item), text_at(item, "id"), place, is_alone=len(new) == 1)
                fields = {key: value for key, value in item.items() if key != "index"}
                merge(item_at(items, index), fields)
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


def index_in(piece: Tree) -> int | None:
    """Return the `index` that a piece names, or None."""
    index = piece.get("index")
    if isinstance(index, float) and index.is_integer():
        return int(index)
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def text_at(item: object, name: str) -> str:
    """Return a text in an object, or ""."""
    found = item.get(name) if isinstance(item, dict) else None
    return found if isinstance(found, str) else ""


def items_at(tree: Tree, name: str) -> _Items:
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
