"""The schema of a journal's file, and the reading and writing of rows that several methods of a journal share.

A watch is one row: what only this client reads of it is JSON, so that a new field needs no new schema. Its calls are
rows of their own, since their outputs may be large, and a change of the watch must not write them again. What is of the
caller's content (`content`, `outcome`, `output`) has gone through the codec. All of it blocks.

Each statement of SQL costs more by handing the interpreter from thread to thread than by what it does. So what usually
succeeds is one statement, with the owner as a condition; only if it changed nothing, more of them find out why.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from asyncruns.abc import Codec
from asyncruns.errors import JournalError
from asyncruns.journal.entries import (
    as_json,
    not_there,
    of_another,
    refs_of,
    run_texts,
    unreadable,
    watched_as,
)
from asyncruns.journal.owner_lock import lives, words_of
from asyncruns.journal.sealing import seal, sealed_output, unsealed, unsealed_output
from asyncruns.lifecycle.records import CallRecord, WatchRecord

log: Final = logging.getLogger("asyncruns.journal")
# The id is the order in which watches were added; the claim is the call that has taken one, until it is added again.
# `submitting` is that of the record, as JSON, and NULL if it is empty; `record` has none. `last_ref` is the text of the
# run that the watch goes on with; NULL if that is not the last one of its refs. Calls are in the order in which they
# began. Owners have no index, which each watch would pay for: all rows are read to find those of one, so what may be
# large comes last in a row.
SCHEMA: Final = (
    """CREATE TABLE watches (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, owner TEXT, claim TEXT, created_at REAL NOT NULL,
        finished_at REAL, last_ref TEXT, submitting BLOB, record BLOB NOT NULL, content BLOB, outcome BLOB
    )""",
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
INSERT_CALL: Final = (  # of a watch that is owned; otherwise it changes nothing
    "INSERT INTO calls (watch, key, call_id, output, failed, accepted_at) "
    "SELECT id, ?, ?, ?, ?, ? FROM watches WHERE watches.key = ? AND owner = ? ON CONFLICT (watch, key) DO "
)


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


def own_row(db: Owned, key: str) -> int:
    """Return the id of a watch that is owned."""
    row = db.connection.execute("SELECT id, owner FROM watches WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise not_there(key)
    if row[1] != db.owner:
        raise of_another(key)
    return int(row[0])


def owner_lives(db: Owned, owner: str | None) -> bool:
    return owner is not None and (owner == db.owner or lives(db.owners, owner))


def owner_words(db: Owned, owner: str | None) -> str:
    return words_of(db.owners, owner) if owner is not None and owner_lives(db, owner) else ""


def free_rows(db: Owned) -> list[tuple[int, str]]:
    """Return the ids and keys of the watches that nobody living owns."""
    return _free(db, db.connection.execute("SELECT id, key, owner FROM watches"))


def free_rows_of(db: Owned, keys: Sequence[str]) -> list[tuple[int, str]]:
    """Return those of the watches with these keys that nobody living owns, with their ids."""
    query = "SELECT id, key, owner FROM watches WHERE key = ?"
    rows = [db.connection.execute(query, (key,)).fetchone() for key in dict.fromkeys(keys)]
    return _free(db, filter(None, rows))


def _free(db: Owned, rows: Iterable[tuple[int, str, str | None]]) -> list[tuple[int, str]]:
    alive: dict[str | None, bool] = {}
    free = []
    for number, key, owner in rows:
        if owner not in alive:
            alive[owner] = owner_lives(db, owner)
        if not alive[owner]:
            free.append((number, key))
    return free


def read_row_or_warn(db: Owned, number: int, key: str) -> tuple[float, WatchRecord] | None:
    """Return when a watch was added, and its record; log a warning and return None if it cannot be read."""
    try:
        return read_row(db, number)
    except JournalError as error:
        log.warning("Watch %r is skipped, and stays in the journal: %s", key, error)
        return None


def add_row(db: Owned, watch: NewWatch) -> WatchRecord:
    """Add a watch unless it is there and owned; return its record, as it is there then."""
    record, key = watch.record, watch.record.key
    refs = run_texts(*refs_of(record))
    content = seal(db.codec, key, "label", watch.content)
    outcome = seal(db.codec, key, "outcome", watch.outcome)
    finished_at = None if outcome is None else time.time()
    columns = (last_ref(record), submitting_column(key, record.submitting), content, outcome, finished_at)
    cursor = db.connection.execute(
        "INSERT INTO watches (key, owner, created_at, record, last_ref, submitting, content, outcome, finished_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
        (key, db.owner, record.created_at, watch.packed, *columns),
    )
    if cursor.rowcount == 0:
        return _row_there(db, key, refs)
    number = cursor.lastrowid or 0
    lead_to_row(db, number, refs)
    if record.calls or record.submitting:
        rows = [row_of_call(db, key, call) for call in record.calls]
        db.connection.executemany(INSERT_CALL + "NOTHING", rows)
        return read_row(db, number)[1]
    return unsealed(db.codec, key, watch.packed, (), content, outcome)


def _row_there(db: Owned, key: str, refs: Sequence[str]) -> WatchRecord:
    """Keep a watch that is there and owned from being left by an earlier claim; return its record."""
    number = own_row(db, key)
    db.connection.execute("UPDATE watches SET claim = NULL WHERE id = ? AND claim IS NOT NULL", (number,))
    for ref in refs:
        check_lead(db, ref, number)
    return read_row(db, number)[1]


def last_ref(record: WatchRecord) -> str | None:
    """Return the text of the run that a watch goes on with, if it is the last one of its refs."""
    is_last = record.refs and record.ref == record.refs[-1]
    return run_texts(record.refs[-1])[0] if is_last else None


def submitting_column(key: str, keys: Sequence[str]) -> bytes | None:
    """Return what is written of `WatchRecord.submitting`.

    Raises:
        JournalError: A key cannot be written.
    """
    return as_json(key, "submit", list(keys)) if keys else None


def lead_to_row(db: Owned, number: int, refs: Sequence[str]) -> None:
    """Note that runs belong to a watch."""
    for ref in refs:
        query = "INSERT INTO refs (ref, watch) VALUES (?, ?) ON CONFLICT DO NOTHING"
        if db.connection.execute(query, (ref, number)).rowcount == 0:
            check_lead(db, ref, number)


def check_lead(db: Owned, ref: str, number: int) -> None:
    """Check that a run belongs to this watch, or to none."""
    query = "SELECT key FROM refs JOIN watches ON watches.id = refs.watch WHERE ref = ? AND watch != ?"
    row = db.connection.execute(query, (ref, number)).fetchone()
    if row is not None:
        raise watched_as(ref, row[0])


def read_row(db: Owned, number: int) -> tuple[float, WatchRecord]:
    """Return when a watch was added, and its record.

    Raises:
        JournalError: It cannot be read.
    """
    query = "SELECT created_at, key, record, content, outcome, submitting FROM watches WHERE id = ?"
    created_at, key, data, content, outcome, submitting = db.connection.execute(query, (number,)).fetchone()
    try:
        calls = calls_of_row(db, key, number)
        record = unsealed(db.codec, key, data, calls, content, outcome)
        if submitting is not None:
            record = replace(record, submitting=msgspec.json.decode(submitting, type=tuple[str, ...]))
        return float(created_at), record
    except (TypeError, ValueError, msgspec.MsgspecError) as error:  # not what this client writes there
        raise unreadable(key, error) from error


def forget_rows(db: Owned, keys: Sequence[str]) -> None:
    """Forget watches, with their calls; skip those that are not there."""
    rows = [(key, db.owner) for key in keys]
    if db.connection.executemany("DELETE FROM watches WHERE key = ? AND owner = ?", rows).rowcount == len(rows):
        return
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
        read_row(db, number)
    except JournalError:
        return True
    return False


def calls_of_row(db: Owned, watch: str, number: int, key: str | None = None) -> list[CallRecord]:
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


def row_of_call(db: Owned, watch: str, call: CallRecord) -> tuple[object, ...]:
    """Return the parameters of `INSERT_CALL`."""
    output = sealed_output(db.codec, watch, call)
    is_dropped = output is None and call.output is not None
    return call.key, call.call_id, output, call.failed and not is_dropped, call.accepted_at, watch, db.owner
