"""What each method of a journal does in SQL, in a transaction that is open. All of it blocks.

A watch is one row: what only this client reads of it is JSON, so that a new field needs no new schema. Its calls are
rows of their own, since their outputs may be large, and a change of the watch must not write them again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from asyncruns.errors import JournalError
from asyncruns.journal.entries import (
    moved_to,
    not_there,
    of_another,
    packed,
    refs_of,
    run_texts,
    unpacked,
    unreadable,
    watched_as,
)
from asyncruns.journal.owner_lock import lives
from asyncruns.lifecycle.records import CallRecord, WatchRecord
from asyncruns.lifecycle.values import RunRef

log: Final = logging.getLogger("asyncruns.journal")
# The id is the order in which watches were added; the claim is the call that has taken one, until it is added again.
# Rows of calls are in the order in which they began.
SCHEMA: Final = (
    """CREATE TABLE watches (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, owner TEXT, claim TEXT, created_at REAL NOT NULL,
        record BLOB NOT NULL, outcome BLOB
    )""",
    "CREATE INDEX watches_by_owner ON watches (owner)",
    """CREATE TABLE calls (
        id INTEGER PRIMARY KEY, watch INTEGER NOT NULL REFERENCES watches (id) ON DELETE CASCADE,
        key TEXT NOT NULL, call_id TEXT NOT NULL, output TEXT, failed INTEGER NOT NULL,
        accepted_at REAL NOT NULL, UNIQUE (watch, key)
    )""",
    """CREATE TABLE refs (
        ref TEXT PRIMARY KEY, watch INTEGER NOT NULL REFERENCES watches (id) ON DELETE CASCADE
    ) WITHOUT ROWID""",
    "CREATE INDEX refs_by_watch ON refs (watch)",
)
_CALL: Final = (
    "INSERT INTO calls (watch, key, call_id, output, failed, accepted_at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO "
)
_ANEW: Final = "UPDATE SET call_id = excluded.call_id, output = NULL, failed = 0, accepted_at = 0 WHERE accepted_at > 0"


class Owned(Struct, frozen=True):
    """An open database and who writes to it."""

    connection: sqlite3.Connection
    owner: str
    owners: Path  # the folder of the locks of owners


Statement = Callable[[Owned], object]


def added(entries: Sequence[tuple[WatchRecord, bytes, bytes | None]]) -> Callable[[Owned], list[WatchRecord]]:
    """Return what adds watches, each with its JSON and that of its outcome, and returns what is there then."""

    def run(db: Owned) -> list[WatchRecord]:
        return [_read(db, _added(db, *entry))[1] for entry in entries]

    return run


def read(db: Owned) -> list[WatchRecord]:
    """Return all watches that can be read, the oldest first, with who owns each."""
    rows = db.connection.execute("SELECT id, owner FROM watches ORDER BY created_at, id").fetchall()
    found = []
    for number, owner in rows:
        lives_on = owner is not None and (owner == db.owner or lives(db.owners, owner))
        with suppress(JournalError):
            found.append(replace(_read(db, number)[1], owner=owner if lives_on else ""))
    return found


def claimed(claim: str, keys: Sequence[str] | None = None) -> Callable[[Owned], list[WatchRecord]]:
    """Return what owns the watches that nobody living owns, and returns them, the oldest first.

    One that cannot be read is skipped.

    Args:
        claim: Identifies this call, for `unclaimed`.
        keys: Those to own; None for all.
    """

    def run(db: Owned) -> list[WatchRecord]:
        found = [each for each in _found(db) if keys is None or each[2].key in keys]
        rows = [(db.owner, claim, number) for _, number, _ in found]
        db.connection.executemany("UPDATE watches SET owner = ?, claim = ? WHERE id = ?", rows)
        return [record for _, _, record in sorted(found, key=itemgetter(0, 1))]

    return run


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
            cursor = db.connection.execute(_CALL + _ANEW, (number, *_row_of(call)))
            if cursor.rowcount == 0:
                before += _calls_of(db, number, call.key)
        return before

    return run


def answered(key: str, calls: Sequence[CallRecord]) -> Callable[[Owned], None]:
    """Return what records outputs of calls that have none yet."""
    change = "UPDATE SET output = excluded.output, failed = excluded.failed WHERE output IS NULL"

    def run(db: Owned) -> None:
        number = _own(db, key)
        db.connection.executemany(_CALL + change, [(number, *_row_of(call)) for call in calls])

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


def finished(outcomes: Mapping[str, bytes]) -> Callable[[Owned], None]:
    """Return what records outcomes, given as JSON."""

    def run(db: Owned) -> None:
        rows = [(outcome, _own(db, key)) for key, outcome in outcomes.items()]
        db.connection.executemany("UPDATE watches SET outcome = ? WHERE id = ?", rows)

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


def _found(db: Owned) -> list[tuple[float, int, WatchRecord]]:
    """Return the watches that nobody living owns and that can be read: when each was added, its id and its record."""
    owners = db.connection.execute("SELECT DISTINCT owner FROM watches WHERE owner IS NOT NULL").fetchall()
    dead = [owner for (owner,) in owners if owner != db.owner and not lives(db.owners, owner)]
    found = []
    for owner in (None, *dead):
        for number, key in db.connection.execute("SELECT id, key FROM watches WHERE owner IS ?", (owner,)).fetchall():
            try:
                created_at, record = _read(db, number)
            except JournalError as error:
                log.warning("Watch %r is skipped, and stays in the journal: %s", key, error)
            else:
                found.append((created_at, number, record))
    return found


def _added(db: Owned, record: WatchRecord, data: bytes, outcome: bytes | None) -> int:
    """Add a watch unless it is there and owned; return its id."""
    refs = run_texts(*refs_of(record))
    if db.connection.execute("SELECT 1 FROM watches WHERE key = ?", (record.key,)).fetchone():
        number = _own(db, record.key)
        db.connection.execute("UPDATE watches SET claim = NULL WHERE id = ? AND claim IS NOT NULL", (number,))
        for ref in refs:
            _check_leads_to(db, ref, number)
        return number
    row = (record.key, db.owner, record.created_at, data, outcome)
    cursor = db.connection.execute(
        "INSERT INTO watches (key, owner, created_at, record, outcome) VALUES (?, ?, ?, ?, ?)", row
    )
    number = cursor.lastrowid or 0
    db.connection.executemany(_CALL + "NOTHING", [(number, *_row_of(call)) for call in record.calls])
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
    query = "SELECT created_at, key, record, outcome FROM watches WHERE id = ?"
    created_at, key, data, outcome = db.connection.execute(query, (number,)).fetchone()
    calls = _calls_of(db, number)
    try:
        return float(created_at), unpacked(key, data, calls, outcome)
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


def _calls_of(db: Owned, number: int, key: str | None = None) -> list[CallRecord]:
    query = (
        "SELECT key, call_id, output, failed, accepted_at FROM calls "
        "WHERE watch = ? AND (? IS NULL OR key = ?) ORDER BY id"
    )
    rows = db.connection.execute(query, (number, key, key)).fetchall()
    return [
        CallRecord(key=key, call_id=id_, output=output, failed=bool(bad), accepted_at=at)
        for key, id_, output, bad, at in rows
    ]


def _row_of(call: CallRecord) -> tuple[str, str, str | None, bool, float]:
    return call.key, call.call_id, call.output, call.failed, call.accepted_at
