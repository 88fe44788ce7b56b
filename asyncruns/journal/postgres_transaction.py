"""One transaction of a journal in PostgreSQL: the watches that it locks, and what it sends. All of it blocks.

What is to be written is sent without waiting for the results, so that a transaction of many writes takes as long as one
of few. So a write checks all it has to check before it sends anything, by what was locked and read at the beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, LiteralString

from msgspec import Struct

from asyncruns.abc import Codec
from asyncruns.journal.entries import not_there, of_another, watched_as

if TYPE_CHECKING:
    import psycopg

_WATCHES: Final = (
    "SELECT w.key, w.owner, l.id IS NOT NULL, w.record, w.content FROM watches w LEFT JOIN living l ON l.id = w.owner "
    "WHERE w.key = ANY(%s) ORDER BY w.key FOR NO KEY UPDATE OF w"
)


@dataclass
class LockedWatch:
    """A watch that this transaction has locked.

    Attributes:
        owner: The id of its owner; None if it has none.
        is_held: Whether its owner lives.
        record: What `packed` returned.
        content: What `seal` returned of its content; None for none.
    """

    owner: str | None
    is_held: bool
    record: bytes
    content: bytes | None


class Transaction:
    """A transaction that is open, of an owner whose lease cannot end before it.

    Args:
        connection: The connection, in a pipeline.
        owner: The id of the owner.
        codec: The journal's codec.

    Attributes:
        owner, codec: The arguments of the same names.
        watches: The watches of the writes that are there, as they will be after those that were sent.
        refs: The keys of the watches of their runs, likewise.
    """

    def __init__(self, connection: psycopg.Connection[Any], owner: str, codec: Codec | None) -> None:
        self._connection = connection
        self.owner: str = owner
        self.codec: Codec | None = codec
        self.watches: dict[str, LockedWatch] = {}
        self.refs: dict[str, str] = {}

    def send(self, query: LiteralString, *arguments: object) -> psycopg.Cursor[Any]:
        """Send a query, and return what its results are fetched from, which waits for them."""
        return self._connection.cursor(binary=True).execute(query, arguments)

    def lock(self, writes: Sequence[Write]) -> None:
        """Lock the watches that writes name, and read which of the runs have watches.

        Raises:
            UnicodeEncodeError: A key is not text.
        """
        coded = sorted({key.encode() for write in writes for key in write.keys})
        runs = sorted({ref.encode() for write in writes for ref in write.refs})
        locked = self.send(_WATCHES, coded) if coded else ()
        found = self.send("SELECT ref, watch FROM refs WHERE ref = ANY(%s)", runs) if runs else ()
        self.watches = {key.decode(): LockedWatch(*columns) for key, *columns in locked}
        self.refs = {ref.decode(): key.decode() for ref, key in found}

    def own(self, key: str) -> LockedWatch:
        """Return a watch that is owned.

        Raises:
            NotOwnerError: It is not there, or not owned.
        """
        watch = self.watches.get(key)
        if watch is None:
            raise not_there(key)
        if watch.owner != self.owner:
            raise of_another(key)
        return watch

    def check_are_of(self, key: str, refs: Sequence[str], more: dict[str, str] | None = None) -> None:
        """Check that runs belong to no other watch, nor to one of more that are to be added.

        Raises:
            NotOwnerError: One does.
        """
        for ref in refs:
            other = (more or {}).get(ref, self.refs.get(ref, key))
            if other != key:
                raise watched_as(ref, other)


class Write(Struct, frozen=True, eq=False):
    """What a method of a journal does in a transaction.

    Attributes:
        run: Checks, then sends; returns what fetches the result, or None for none.
        keys: The watches that it names.
        refs: The runs that it names, as texts.
        is_alone: Whether it changes watches that it does not name, and so needs a transaction of its own.
    """

    run: Callable[[Transaction], Callable[[], object] | None]
    keys: tuple[str, ...] = ()
    refs: tuple[str, ...] = ()
    is_alone: bool = False
