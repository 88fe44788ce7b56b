"""Merges deltas into parsed JSON. Without I/O.

The rules of a merge:

- Texts that arrive in pieces (`IN_PIECES`) are joined; every other value replaces the one before.
- Null adds a missing key and never replaces a value.
- Items of a list of objects are identified by their `index`, which is not kept; without one by their `id`, otherwise by
  their place.

For example, `{"content": [{"index": 0, "text": {"value": "Hel"}}]}` and the same with "lo" become
`{"content": [{"text": {"value": "Hello"}}]}`.

Deltas are merged lazily, when the whole is read: joining n pieces one by one would copy the text n times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, TypeVar

from asyncruns.wire.codec import convert

T = TypeVar("T")
Tree = dict[str, Any]

IN_PIECES: Final = frozenset({"value", "refusal", "arguments", "input", "logs", "text", "code"})
"""The fields whose strings are pieces of a text."""

_MOST_WAITING: Final = 512  # deltas that are kept unmerged, which bounds their memory


class _Pieces(list[str]):
    """A text that grows, as the list of its pieces."""


class Places:
    """Finds the item of a list that a piece belongs to.

    If a piece has an `index`, that decides; indexes may have gaps. A piece without one belongs to the item with its
    `id`. A piece without either, if it is alone in its list, belongs to the item that was last found by an id;
    otherwise to the item at the piece's own place in the list.
    """

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}  # of the items, by index; "" if an item has no id yet
        self._last: int | None = None  # index of the item that was last found by its id

    def find(self, index: int | None, item_id: str, place: int, *, is_alone: bool) -> int:
        """Return the index of the item that a piece belongs to, and remember that item.

        Args:
            index: The index in the piece, or None.
            item_id: The id in the piece, or "".
            place: The piece's place in its own list, from 0.
            is_alone: Whether that list has no other piece.
        """
        if index is not None:
            found = index
        elif item_id:
            found = self._last = self._with_id(item_id, place)
        else:
            found = self._last if is_alone and self._last is not None else place
        self._ids[found] = self._ids.get(found) or item_id  # later pieces often lack the id
        return found

    def _with_id(self, item_id: str, place: int) -> int:
        for index, known in self._ids.items():
            if known == item_id:
                return index
        # An item with another id is at that place already, so this one is new and is appended.
        return max(self._ids) + 1 if self._ids.get(place) else place

    def position(self, index: int) -> int:
        """Return the position of an item among all known ones: with the indexes 0 and 2, that of 2 is 1."""
        return sorted(self._ids).index(index)


class _Items(dict[int, Any]):
    """A list that grows, as a dict by index: indexes may have gaps, and arrive in any order."""

    def __init__(self, items: Iterable[tuple[int, Any]] = ()) -> None:
        super().__init__(items)
        self.places: Places = Places()
        for index, item in self.items():
            self.places.find(index, text_at(item, "id"), index, is_alone=False)


class Growing(Generic[T]):
    """An object of the wire that deltas are added to.

    Args:
        type_: The type of the object.
        tree: What is known of it so far, as parsed JSON; changed in place.
        fold: Merges deltas into the tree.
    """

    def __init__(self, type_: type[T], tree: Tree, fold: Callable[[Tree, list[Any]], None]) -> None:
        self._type = type_
        self._fold = fold
        self._tree = tree
        self._waiting: list[Any] = []
        self._whole: T | None = None

    def add(self, delta: Any) -> None:
        """Add a delta, which is merged later."""
        self._waiting.append(delta)
        self._whole = None
        if len(self._waiting) > _MOST_WAITING:
            self._catch_up()

    def _catch_up(self) -> None:
        self._fold(self._tree, self._waiting)
        self._waiting.clear()

    @property
    def whole(self) -> T:
        """The object with all deltas so far."""
        if self._whole is None:
            self._catch_up()
            self._whole = convert(built(self._tree), self._type)
        return self._whole


def merge(tree: Tree, delta: Tree) -> None:
    """Merge a delta into a tree, in place."""
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
    """Return the pieces of a text, for appending; a text that is not in pieces yet becomes the first piece."""
    old = tree.get(name)
    if isinstance(old, _Pieces):
        return old
    pieces = tree[name] = _Pieces([old] if isinstance(old, str) else [])
    return pieces


def index_in(piece: Tree) -> int | None:
    """Return the `index` of a piece, or None."""
    index = piece.get("index")
    # Some servers write numbers as floats, and `True` is an int in Python.
    if isinstance(index, float) and index.is_integer():
        return int(index)
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def text_at(item: object, name: str) -> str:
    """Return the string of this name in an object, or ""."""
    found = item.get(name) if isinstance(item, dict) else None
    return found if isinstance(found, str) else ""


def items_at(tree: Tree, name: str) -> _Items:
    """Return the items of a list, by index; create the list if there is none."""
    old = tree.get(name)
    if isinstance(old, _Items):
        return old
    items = tree[name] = _Items(enumerate(old) if isinstance(old, list) else ())
    return items


def item_at(items: dict[Any, Any], index: object) -> Tree:
    """Return the object at an index or name; create it if there is none."""
    found = items.get(index)
    if not isinstance(found, dict):
        found = items[index] = {}
    return found


def built(node: Any) -> Any:
    """Return a tree as plain JSON."""
    if isinstance(node, _Pieces):
        # Keep the joined text, so that the next call joins only the pieces that were added since.
        node[:] = ["".join(node)]
        return node[0]
    if isinstance(node, _Items):
        return [built(node[index]) for index in sorted(node)]
    if isinstance(node, dict):
        return {name: built(value) for name, value in node.items()}
    if isinstance(node, list):
        return [built(item) for item in node]
    return node
