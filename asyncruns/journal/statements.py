"""What each method of a journal does in SQL, in a transaction that is open. All of it blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Final

from msgspec.structs import replace

from asyncruns.journal.entries import (
    moved_to,
    packed,
    run_texts,
    unpacked,
)
from asyncruns.journal.rows import (
    INSERT_CALL,
    NewWatch,
    Owned,
    add_row,
    calls_of_row,
    forget_rows,
    free_rows,
    free_rows_of,
    last_ref,
    lead_to_row,
    log,
    own_row,
    owner_lives,
    owner_words,
    read_row_or_warn,
    row_of_call,
    submitting_column,
)
from asyncruns.journal.sealing import seal, without_create
from asyncruns.lifecycle.records import CallRecord, WatchRecord
from asyncruns.lifecycle.values import RunRef

# CROSS JOIN, so that SQLite goes through the few wishes, and not through all watches
WISHES: Final = "FROM wishes CROSS JOIN watches ON watches.id = wishes.watch WHERE owner = ?"
_FORGET_ACCEPTED: Final = "DELETE FROM calls WHERE watch = (SELECT id FROM watches WHERE key = ?) AND accepted_at > 0"
_ACCEPT: Final = "UPDATE calls SET accepted_at = ? WHERE watch = (SELECT id FROM watches WHERE key = ?)"
_ANEW: Final = "UPDATE SET call_id = excluded.call_id, output = NULL, failed = 0, accepted_at = 0 WHERE accepted_at > 0"

Statement = Callable[[Owned], object]


def added(watches: Sequence[NewWatch]) -> Callable[[Owned], list[WatchRecord]]:
    """Return what adds watches, and returns what is there then."""

    def run(db: Owned) -> list[WatchRecord]:
        return [add_row(db, watch) for watch in watches]

    return run


def read(db: Owned) -> list[WatchRecord]:
    """Return all watches that can be read, the oldest first, with who owns each."""
    rows = db.connection.execute("SELECT id, key, owner FROM watches ORDER BY created_at, id").fetchall()
    owners = {owner: owner_words(db, owner) for owner in {owner for _, _, owner in rows}}
    found = ((read_row_or_warn(db, number, key), owner) for number, key, owner in rows)
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
        free = free_rows(db) if keys is None else free_rows_of(db, keys)
        found = []
        for number, key in free:
            if (read := read_row_or_warn(db, number, key)) is not None:
                found.append((read[0], number, read[1]))
        rows = [(db.owner, claim, number) for _, number, _ in found]
        db.connection.executemany("UPDATE watches SET owner = ?, claim = ? WHERE id = ?", rows)
        return [record for _, _, record in sorted(found, key=itemgetter(0, 1))]

    return run


def pruned(db: Owned) -> None:
    """Forget the watches that nobody living owns, and whose outcomes were recorded too long ago."""
    query = "SELECT id, owner FROM watches WHERE finished_at < ?"
    rows = db.connection.execute(query, (time.time() - db.keep_outcomes_s,)).fetchall()
    dead = {owner for owner in {owner for _, owner in rows} if not owner_lives(db, owner)}
    old = [(number,) for number, owner in rows if owner in dead]
    if old:
        db.connection.executemany("DELETE FROM watches WHERE id = ?", old)
        days = db.keep_outcomes_s / 86400
        log.warning("Outcomes that were not delivered within %.3g days are forgotten: %d", days, len(old))


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
        before = []
        if not calls:
            own_row(db, key)
        for call in calls:
            cursor = db.connection.execute(INSERT_CALL + _ANEW, row_of_call(db, key, call))
            if cursor.rowcount == 0:
                before += calls_of_row(db, key, own_row(db, key), call.key)
        return before

    return run


def answered(key: str, calls: Sequence[CallRecord]) -> Callable[[Owned], None]:
    """Return what records outputs of calls that have none yet."""
    change = "UPDATE SET output = excluded.output, failed = excluded.failed WHERE output IS NULL"

    def run(db: Owned) -> None:
        rows = [row_of_call(db, key, call) for call in calls]
        if not rows or db.connection.executemany(INSERT_CALL + change, rows).rowcount < len(rows):
            own_row(db, key)

    return run


def submitting(key: str, calls: Sequence[str]) -> Callable[[Owned], None]:
    """Return what notes which outputs are about to be submitted."""
    keys = tuple(calls)

    def run(db: Owned) -> None:
        query = "UPDATE watches SET submitting = ? WHERE key = ? AND owner = ?"
        if db.connection.execute(query, (submitting_column(key, keys), key, db.owner)).rowcount == 0:
            own_row(db, key)

    return run


def moved(key: str, ref: RunRef, at: float) -> Callable[[Owned], None]:
    """Return what notes that a submit was accepted at this time."""
    (text,) = run_texts(ref)

    def run(db: Owned) -> None:
        # How it had finished is over: it must not be taken for an outcome that is too old.
        query = (
            "UPDATE watches SET submitting = NULL, outcome = NULL, finished_at = NULL "
            "WHERE key = ? AND owner = ? AND last_ref = ?"
        )
        if db.connection.execute(query, (key, db.owner, text)).rowcount == 0:
            _go_on_with(db, key, ref, text)
        db.connection.execute(_FORGET_ACCEPTED, (key,))
        db.connection.execute(_ACCEPT, (at, key))

    return run


def _go_on_with(db: Owned, key: str, ref: RunRef, text: str) -> None:
    """Note that a watch goes on with another run, or with the one that was created for it."""
    number = own_row(db, key)
    lead_to_row(db, number, [text])
    data, content = db.connection.execute("SELECT record, content FROM watches WHERE id = ?", (number,)).fetchone()
    record = unpacked(key, data)
    if record.ref is None:
        content = without_create(db.codec, key, content)
    record = moved_to(record, ref)
    row = (packed(record), last_ref(record), content, number)
    db.connection.execute(
        "UPDATE watches SET record = ?, last_ref = ?, content = ?, submitting = NULL, outcome = NULL, "
        "finished_at = NULL WHERE id = ?",
        row,
    )


def finished(outcomes: Mapping[str, bytes], at: float) -> Callable[[Owned], None]:
    """Return what records outcomes, given as JSON, at this time."""

    def run(db: Owned) -> None:
        rows = []
        for key, outcome in outcomes.items():
            sealed = seal(db.codec, key, "outcome", outcome)
            rows.append((sealed, None if sealed is None else at, key, db.owner))
        query = "UPDATE watches SET outcome = ?, finished_at = ? WHERE key = ? AND owner = ?"
        if db.connection.executemany(query, rows).rowcount < len(rows):
            for key in outcomes:
                own_row(db, key)

    return run


def delivered(keys: Sequence[str]) -> Callable[[Owned], None]:
    """Return what forgets watches, with their calls; those that are not there are skipped."""
    return lambda db: forget_rows(db, keys)


def left_to_any(db: Owned) -> None:
    """Leave the watches to any process that claims them."""
    db.connection.execute("UPDATE watches SET owner = NULL WHERE owner = ?", (db.owner,))


def asked(ref: str, wish: str) -> Callable[[Owned], bool]:
    """Return what asks the other living process that watches a run for something; it returns whether there is one."""

    def run(db: Owned) -> bool:
        query = "SELECT id, owner FROM refs JOIN watches ON watches.id = refs.watch WHERE ref = ?"
        number, owner = db.connection.execute(query, (ref,)).fetchone() or (0, None)
        if owner == db.owner or not owner_lives(db, owner):
            return False
        db.connection.execute("INSERT OR IGNORE INTO wishes (watch, wish) VALUES (?, ?)", (number, wish))
        return True

    return run


def has_wishes(db: Owned) -> bool:
    """Return whether something is asked of watches that are owned."""
    return db.connection.execute(f"SELECT 1 {WISHES} LIMIT 1", (db.owner,)).fetchone() is not None


def wished() -> tuple[Callable[[Owned], list[tuple[str, str]]], Callable[[Owned], None]]:
    """Return what takes the wishes of the watches that are owned, with their keys; and what puts them back."""
    taken: list[tuple[str, str]] = []

    def take(db: Owned) -> list[tuple[str, str]]:
        rows = db.connection.execute(f"SELECT wishes.id, key, wish {WISHES} ORDER BY wishes.id", (db.owner,)).fetchall()
        db.connection.executemany("DELETE FROM wishes WHERE id = ?", [(number,) for number, _, _ in rows])
        taken[:] = [(key, wish) for _, key, wish in rows]
        return list(taken)

    def put_back(db: Owned) -> None:
        query = "INSERT OR IGNORE INTO wishes (watch, wish) SELECT id, ? FROM watches WHERE key = ?"
        db.connection.executemany(query, [(wish, key) for key, wish in taken])

    return take, put_back
