"""What each method of a journal does in SQL, in a transaction that is open. All of it blocks.

A watch is one row: what only this client reads of it is JSON, so that a new field needs no new schema. Its calls are
rows of their own, since their outputs may be large, and a change of the watch must not write them again. What is of the
caller's content (`content`, `outcome`, `output`) has gone through the codec.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from asyncruns.abc import Codec
from asyncruns.errors import JournalError
from asyncruns.journal.entries import (
    moved_to,
    not_there,
    of_another,
    packed,
    run_texts,
    unpacked,
    unreadable,
    watched_as,
)
from asyncruns.journal.owner_lock import lives, words_of
from asyncruns.journal.sealing import seal, sealed_output, unsealed, unsealed_output
from asyncruns.lifecycle.records import CallRecord, WatchRecord
from asyncruns.lifecycle.values import RunRef

log: Final = logging.getLogger("asyncruns.journal")
# The id is the order in which watches were added; the claim is the call that has taken one, until it is added again.
# Rows of calls are in the order in which they began.
SCHEMA: Final = (
    """CREATE TABLE watches (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, owner TEXT, claim TEXT, created_at REAL NOT NULL,
        record BLOB NOT NULL, content BLOB, outcome BLOB, finished_at REAL
    )""",
    "CREATE INDEX watches_by_owner ON watches (owner)",
    """CREATE TABLE calls (
        id INTEGER PRIMARY KEY, watch INTEGER NOT NULL REFERENCES watches (id) ON DELETE CASCADE,
        key TEXT NOT NULL, call_id TEXT NOT NULL, output BLOB, failed INTEGER NOT NULL,
        accepted_at REAL NOT NULL, UNIQUE (watch, key)
    )""",
    """CREATE TABLE refs (
        ref TEXT PRIMARY KEY, watch INTEGER NOT NULL REFERENCES watches (id) ON DELETE CASCADE
    ) WITHOUT ROWID""",
    "CREATE INDEX refs_by_watch ON refs (watch)",
    """CREATE TABLE wishes (
        id INTEGER PRIMARY KEY, watch INTEGER NOT NULL REFERENCES watches (id) ON DELETE CASCADE,
        wish TEXT NOT NULL, UNIQUE (watch, wish)
    )""",
)
_CALL: Final = (
    "INSERT INTO calls (watch, key, call_id, output, failed, accepted_at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO "
)
_WISHES: Final = "FROM wishes JOIN watches ON watches.id = wishes.watch WHERE owner = ?"
_ANEW: Final = "UPDATE SET call_id = excluded.call_id, output = NULL, failed = 0, accepted_at = 0 WHERE accepted_at > 0"


class Owned(Struct, frozen=True):
    """An open database and who writes to it."""

    connection: sqlite3.Connection
    owner: str
    owners: Path  # the folder of the locks of owners
    codec: Codec | None
    keep_outcomes_s: float


class NewWatch(Struct, frozen=True):
    """A watch to be added: its record, and what of it is written as JSON."""

    record: WatchRecord
    packed: bytes
    content: bytes | None
    outcome: bytes | None


Statement = Callable[[Owned], object]


def added(watches: Sequence[NewWatch]) -> Callable[[Owned], list[WatchRecord]]:
    """Return what adds watches, and returns what is there then."""

    def run(db: Owned) -> list[WatchRecord]:
        return [_read(db, _added(db, watch))[1] for watch in watches]

    return run


def read(db: Owned) -> list[WatchRecord]:
    """Return all watches that can be read, the oldest first, with who owns each."""
    rows = db.connection.execute("SELECT id, key, owner FROM watches ORDER BY created_at, id").fetchall()
    owners = {owner: _words(db, owner) for owner in {owner for _, _, owner in rows}}
    found = ((_readable(db, number, key), owner) for number, key, owner in rows)
    return [replace(read[1], owner=owners[owner]) for read, owner in found if read is not None]


def claimed(claim: str, keys: Sequence[str] | None = None) -> Callable[[Owned], list[WatchRecord]]:
    """Return what owns the watches that nobody living owns, and returns them, the oldest first.

    One that cannot be read is skipped.

    Args:
        claim: Identifies this call, for `unclaimed`.
        keys: Those to own; None for all.
    """

    def run(db: Owned) -> list[WatchRecord]:
        pruned(db)
        free = _free(db) if keys is None else _free_of(db, keys)
        found = []
        for number, key in free:
            if (read := _readable(db, number, key)) is not None:
                found.append((read[0], number, read[1]))
        rows = [(db.owner, claim, number) for _, number, _ in found]
        db.connection.executemany("UPDATE watches SET owner = ?, claim = ? WHERE id = ?", rows)
        return [record for _, _, record in sorted(found, key=itemgetter(0, 1))]

    return run


def pruned(db: Owned) -> None:
    """Forget the watches that nobody living owns, and whose outcomes were recorded too long ago."""
    query = "SELECT id, owner FROM watches WHERE finished_at < ?"
    rows = db.connection.execute(query, (time.time() - db.keep_outcomes_s,)).fetchall()
    dead = {owner for owner in {owner for _, owner in rows} if not _owner_lives(db, owner)}
    old = [(number,) for number, owner in rows if owner in dead]
    if old:
        db.connection.executemany("DELETE FROM watches WHERE id = ?", old)
        days = db.keep_outcomes_s / 86400
        log.warning("%d outcomes were not delivered within %.3g days, and are forgotten", len(old), days)


def unclaimed(claim: str) -> Callable[[Owned], None]:
    """Return what leaves the watches to any that a claim has taken, but those that were added again since then."""

    def run(db: Owned) -> None:
        query = "UPDATE watches SET owner = NULL WHERE owner = ? AND claim = ?"
        db.connection.execute(query, (db.owner, claim))

    return run


def released(keys: Sequence[str]) -> Callable[[Owned], None]:
    """Return what leaves watches to any journal that claims them; those that are not owned are skipped."""

    def run(db: Owned) -> None:
        rows = [(key, db.owner) for key in keys]
        db.connection.executemany("UPDATE watches SET owner = NULL WHERE key = ? AND owner = ?", rows)

    return run


def begun(key: str, calls: Sequence[CallRecord]) -> Callable[[Owned], list[CallRecord]]:
    """Return what notes that calls begin, and returns those that had."""

    def run(db: Owned) -> list[CallRecord]:
        number = _own(db, key)
        before = []
        for call in calls:
            cursor = db.connection.execute(_CALL + _ANEW, (number, *_row_of(db, key, call)))
            if cursor.rowcount == 0:
                before += _calls_of(db, key, number, call.key)
        return before

    return run


def answered(key: str, calls: Sequence[CallRecord]) -> Callable[[Owned], None]:
    """Return what records outputs of calls that have none yet."""
    change = "UPDATE SET output = excluded.output, failed = excluded.failed WHERE output IS NULL"

    def run(db: Owned) -> None:
        number = _own(db, key)
        db.connection.executemany(_CALL + change, [(number, *_row_of(db, key, call)) for call in calls])

    return run


def changed(key: str, change: Callable[[WatchRecord], WatchRecord]) -> Callable[[Owned], None]:
    """Return what changes the record of a watch."""

    def run(db: Owned) -> None:
        number = _own(db, key)
        (data,) = db.connection.execute("SELECT record FROM watches WHERE id = ?", (number,)).fetchone()
        row = (packed(change(unpacked(key, data))), number)
        db.connection.execute("UPDATE watches SET record = ? WHERE id = ?", row)

    return run


def submitting(key: str, calls: Sequence[str]) -> Callable[[Owned], None]:
    """Return what notes which outputs are about to be submitted."""
    keys = tuple(calls)
    return changed(key, lambda record: replace(record, submitting=keys))


def moved(key: str, ref: RunRef, at: float) -> Callable[[Owned], None]:
    """Return what notes that a submit was accepted at this time."""

    def run(db: Owned) -> None:
        number = _own(db, key)
        _lead(db, number, run_texts(ref))
        db.connection.execute("DELETE FROM calls WHERE watch = ? AND accepted_at > 0", (number,))
        db.connection.execute("UPDATE calls SET accepted_at = ? WHERE watch = ?", (at, number))
        changed(key, lambda record: moved_to(record, ref))(db)

    return run


def finished(outcomes: Mapping[str, bytes], at: float) -> Callable[[Owned], None]:
    """Return what records outcomes, given as JSON, at this time."""

    def run(db: Owned) -> None:
        rows = []
        for key, outcome in outcomes.items():
            number = _own(db, key)
            sealed = seal(db.codec, key, "outcome", outcome)
            rows.append((sealed, None if sealed is None else at, number))
        db.connection.executemany("UPDATE watches SET outcome = ?, finished_at = ? WHERE id = ?", rows)

    return run


def delivered(keys: Sequence[str]) -> Callable[[Owned], None]:
    """Return what forgets watches, with their calls; those that are not there are skipped."""
    return lambda db: _forget(db, keys)


def left_to_any(db: Owned) -> None:
    """Leave the watches to any process that claims them."""
    db.connection.execute("UPDATE watches SET owner = NULL WHERE owner = ?", (db.owner,))


def _own(db: Owned, key: str) -> int:
    """Return the id of a watch that is owned."""
    row = db.connection.execute("SELECT id, owner FROM watches WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise not_there(key)
    if row[1] != db.owner:
        raise of_another(key)
    return int(row[0])


def asked(ref: str, wish: str) -> Callable[[Owned], bool]:
    """Return what asks the other living process that watches a run for something; it returns whether there is one."""

    def run(db: Owned) -> bool:
        query = "SELECT id, owner FROM refs JOIN watches ON watches.id = refs.watch WHERE ref = ?"
        number, owner = db.connection.execute(query, (ref,)).fetchone() or (0, None)
        if owner == db.owner or not _owner_lives(db, owner):
            return False
        db.connection.execute("INSERT OR IGNORE INTO wishes (watch, wish) VALUES (?, ?)", (number, wish))
        return True

    return run


def has_wishes(db: Owned) -> bool:
    """Return whether something is asked of watches that are owned."""
    return db.connection.execute(f"SELECT 1 {_WISHES} LIMIT 1", (db.owner,)).fetchone() is not None


def wished() -> tuple[Callable[[Owned], list[tuple[str, str]]], Callable[[Owned], None]]:
    """Return what takes the wishes of the watches that are owned, with their keys; and what puts them back."""
    taken: list[tuple[str, str]] = []

    def take(db: Owned) -> list[tuple[str, str]]:
        rows = db.connection.execute(
            f"SELECT wishes.id, key, wish {_WISHES} ORDER BY wishes.id", (db.owner,)
        ).fetchall()
        db.connection.executemany("DELETE FROM wishes WHERE id = ?", [(number,) for number, _, _ in rows])
        taken[:] = [(key, wish) for _, key, wish in rows]
        return list(taken)

    def put_back(db: Owned) -> None:
        query = "INSERT OR IGNORE INTO wishes (watch, wish) SELECT id, ? FROM watches WHERE key = ?"
        db.connection.executemany(query, [(wish, key) for key, wish in taken])

    return take, put_back


def _owner_lives(db: Owned, owner: str | None) -> bool:
    return owner is not None and (owner == db.owner or lives(db.owners, owner))


def _words(db: Owned, owner: str | None) -> str:
    return words_of(db.owners, owner) if owner is not None and _owner_lives(db, owner) else ""


def _free(db: Owned) -> list[tuple[int, str]]:
    """Return the ids and keys of the watches that nobody living owns."""
    owners = db.connection.execute("SELECT DISTINCT owner FROM watches WHERE owner IS NOT NULL").fetchall()
    free: list[tuple[int, str]] = []
    for owner in (None, *(owner for (owner,) in owners if not _owner_lives(db, owner))):
        free += db.connection.execute("SELECT id, key FROM watches WHERE owner IS ?", (owner,)).fetchall()
    return free


def _free_of(db: Owned, keys: Sequence[str]) -> list[tuple[int, str]]:
    """Return those of the watches with these keys that nobody living owns, with their ids."""
    query = "SELECT id, key, owner FROM watches WHERE key = ?"
    rows = [db.connection.execute(query, (key,)).fetchone() for key in dict.fromkeys(keys)]
    alive: dict[str | None, bool] = {}
    free = []
    for number, key, owner in filter(None, rows):
        if owner not in alive:
            alive[owner] = _owner_lives(db, owner)
        if not alive[owner]:
            free.append((number, key))
    return free


def _readable(db: Owned, number: int, key: str) -> tuple[float, WatchRecord] | None:
    """Return when a watch was added, and its record; log a warning and return None if it cannot be read."""
    try:
        return _read(db, number)
    except JournalError as error:
        log.warning("Watch %r is skipped, and stays in the journal: %s", key, error)
        return None


def _added(db: Owned, watch: NewWatch) -> int:
    """Add a watch unless it is there and owned; return its id."""
    record, key = watch.record, watch.record.key
    refs = run_texts(record.ref, *record.refs)
    if db.connection.execute("SELECT 1 FROM watches WHERE key = ?", (key,)).fetchone():
        number = _own(db, key)
        db.connection.execute("UPDATE watches SET claim = NULL WHERE id = ? AND claim IS NOT NULL", (number,))
        for ref in refs:
            _check_leads_to(db, ref, number)
        return number
    content = seal(db.codec, key, "label", watch.content)
    outcome = seal(db.codec, key, "outcome", watch.outcome)
    finished_at = None if outcome is None else time.time()
    row = (key, db.owner, record.created_at, watch.packed, content, outcome, finished_at)
    cursor = db.connection.execute(
        "INSERT INTO watches (key, owner, created_at, record, content, outcome, finished_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        row,
    )
    number = cursor.lastrowid or 0
    db.connection.executemany(_CALL + "NOTHING", [(number, *_row_of(db, key, call)) for call in record.calls])
    _lead(db, number, refs)
    return number


def _lead(db: Owned, number: int, refs: Sequence[str]) -> None:
    """Note that runs belong to a watch."""
    for ref in refs:
        _check_leads_to(db, ref, number)
        db.connection.execute("INSERT OR IGNORE INTO refs (ref, watch) VALUES (?, ?)", (ref, number))


def _check_leads_to(db: Owned, ref: str, number: int) -> None:
    """Check that a run belongs to this watch, or to none."""
    query = "SELECT key FROM refs JOIN watches ON watches.id = refs.watch WHERE ref = ? AND watch != ?"
    row = db.connection.execute(query, (ref, number)).fetchone()
    if row is not None:
        raise watched_as(ref, row[0])


def _read(db: Owned, number: int) -> tuple[float, WatchRecord]:
    """Return when a watch was added, and its record.

    Raises:
        JournalError: It cannot be read.
    """
    query = "SELECT created_at, key, record, content, outcome FROM watches WHERE id = ?"
    created_at, key, data, content, outcome = db.connection.execute(query, (number,)).fetchone()
    try:
        calls = _calls_of(db, key, number)
        return float(created_at), unsealed(db.codec, key, data, calls, content, outcome)
    except (TypeError, ValueError) as error:  # not what this client writes there
        raise unreadable(key, error) from error


def _forget(db: Owned, keys: Sequence[str]) -> None:
    for key in keys:
        row = db.connection.execute("SELECT id, owner FROM watches WHERE key = ?", (key,)).fetchone()
        if row is None:
            continue
        number, owner = row
        if owner != db.owner and not _is_lost(db, number, owner):
            raise of_another(key)
        db.connection.execute("DELETE FROM watches WHERE id = ?", (number,))


def _is_lost(db: Owned, number: int, owner: str | None) -> bool:
    """Return whether nobody living owns a watch and nobody can claim it, since it cannot be read."""
    if owner is not None and lives(db.owners, owner):
        return False
    try:
        _read(db, number)
    except JournalError:
        return True
    return False


def _calls_of(db: Owned, watch: str, number: int, key: str | None = None) -> list[CallRecord]:
    query = (
        "SELECT key, call_id, output, failed, accepted_at FROM calls "
        "WHERE watch = ? AND (? IS NULL OR key = ?) ORDER BY id"
    )
    rows = db.connection.execute(query, (number, key, key)).fetchall()
    return [
        CallRecord(
            key=key, call_id=id_, output=unsealed_output(db.codec, watch, data), failed=bool(bad), accepted_at=at
        )
        for key, id_, data, bad, at in rows
    ]


def _row_of(db: Owned, watch: str, call: CallRecord) -> tuple[str, str, bytes | None, bool, float]:
    output = sealed_output(db.codec, watch, call)
    is_dropped = output is None and call.output is not None
    return call.key, call.call_id, output, call.failed and not is_dropped, call.accepted_at
