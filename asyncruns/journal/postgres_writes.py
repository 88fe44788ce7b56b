"""What each method of a journal does in PostgreSQL; each function here returns it as a `Write`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from asyncruns.errors import JournalError
from asyncruns.journal.entries import moved_to, of_another, packed, refs_of, run_texts, unpacked
from asyncruns.journal.postgres_rows import call_columns, call_of_row, reader_of
from asyncruns.journal.postgres_transaction import LockedWatch, Transaction, Write
from asyncruns.journal.rows import NewWatch
from asyncruns.journal.sealing import seal, without_create
from asyncruns.lifecycle.records import CallRecord, WatchRecord
from asyncruns.lifecycle.values import RunRef

_CALL: Final = (
    "INSERT INTO calls (watch, key, call_id, output, failed, accepted_at) VALUES (%s, %s, %s, %s, %s, %s) "
    "ON CONFLICT (watch, key) DO "
)
_ANEW: Final = (
    "UPDATE SET call_id = excluded.call_id, output = NULL, failed = false, accepted_at = 0 WHERE calls.accepted_at > 0"
)
_INSERT: Final = (
    "INSERT INTO watches (key, owner, created_at, record, content, outcome, finished_at) "
    "SELECT n.key, %s, n.created_at, n.record, n.content, n.outcome, "
    "CASE WHEN n.outcome IS NOT NULL THEN clock_timestamp() END "
    "FROM unnest(%s::bytea[], %s::float8[], %s::bytea[], %s::bytea[], %s::bytea[]) WITH ORDINALITY "
    "AS n (key, created_at, record, content, outcome, place) ORDER BY n.place"
)


def add_watches(entries: Sequence[NewWatch]) -> Write:
    """Return what adds watches, and returns what is there then."""
    keys = [entry.record.key for entry in entries]
    refs = {key: run_texts(*refs_of(entry.record)) for key, entry in zip(keys, entries, strict=True)}

    def run(transaction: Transaction) -> Callable[[], list[WatchRecord]]:
        new: dict[str, NewWatch] = {}
        leads: dict[str, str] = {}
        for key, entry in zip(keys, entries, strict=True):
            transaction.check_are_of(key, refs[key], leads)
            if key in transaction.watches:
                transaction.own(key)
            elif key not in new:
                new[key] = entry
                leads |= dict.fromkeys(refs[key], key)
        there = [key for key in dict.fromkeys(keys) if key not in new]
        added = {key: _as_written(entry) for key, entry in new.items()}
        read = reader_of(transaction, there)
        _insert(transaction, new, leads)
        if there:
            query = "UPDATE watches SET claim = NULL WHERE key = ANY(%s) AND claim IS NOT NULL"
            transaction.send(query, [key.encode() for key in there])
        return lambda: [added[key] if key in added else read()[key] for key in keys]

    return Write(run, tuple(keys), tuple(ref for each in refs.values() for ref in each))


def release_watches(keys: Sequence[str]) -> Write:
    """Return what leaves watches to any journal that claims them; those that are not owned are skipped."""

    def run(transaction: Transaction) -> None:
        owned = [key for key in keys if (watch := transaction.watches.get(key)) and watch.owner == transaction.owner]
        for key in owned:
            transaction.watches[key].owner = None
        transaction.send("UPDATE watches SET owner = NULL WHERE key = ANY(%s)", [key.encode() for key in owned])

    return Write(run, tuple(keys))


def begin_calls(key: str, calls: Sequence[CallRecord]) -> Write:
    """Return what notes that calls begin, and returns those that had."""

    def run(transaction: Transaction) -> Callable[[], list[CallRecord]]:
        transaction.own(key)
        rows = [call_columns(transaction.codec, key, call) for call in calls]
        query = (
            "SELECT watch, key, call_id, output, failed, accepted_at FROM calls "
            "WHERE watch = %s AND key = %s AND accepted_at = 0"
        )
        before = []
        for row in rows:
            before.append(transaction.send(query, *row[:2]))
            transaction.send(_CALL + _ANEW, *row)
        return lambda: [call_of_row(transaction.codec, *row) for found in before for row in found]

    return Write(run, (key,))


def answer_calls(key: str, calls: Sequence[CallRecord]) -> Write:
    """Return what records outputs of calls that have none yet."""
    change: Final = "UPDATE SET output = excluded.output, failed = excluded.failed WHERE calls.output IS NULL"

    def run(transaction: Transaction) -> None:
        transaction.own(key)
        for row in [call_columns(transaction.codec, key, call) for call in calls]:
            transaction.send(_CALL + change, *row)

    return Write(run, (key,))


def note_submit(key: str, calls: Sequence[str]) -> Write:
    """Return what notes which outputs are about to be submitted."""
    keys = tuple(calls)

    def run(transaction: Transaction) -> None:
        _change(transaction, key, lambda record: replace(record, submitting=keys))

    return Write(run, (key,))


def note_move(key: str, ref: RunRef, at: float) -> Write:
    """Return what notes that a submit was accepted at this time."""
    (text,) = run_texts(ref)

    def run(transaction: Transaction) -> None:
        transaction.own(key)
        transaction.check_are_of(key, [text])
        _forget_create(transaction, key)
        _change(transaction, key, lambda record: moved_to(record, ref))
        if text not in transaction.refs:
            transaction.refs[text] = key
            transaction.send("INSERT INTO refs (ref, watch) VALUES (%s, %s)", text.encode(), key.encode())
        query = "UPDATE watches SET outcome = NULL, finished_at = NULL WHERE key = %s AND finished_at IS NOT NULL"
        transaction.send(query, key.encode())
        transaction.send("DELETE FROM calls WHERE watch = %s AND accepted_at > 0", key.encode())
        transaction.send("UPDATE calls SET accepted_at = %s WHERE watch = %s", at, key.encode())

    return Write(run, (key,), (text,))


def _forget_create(transaction: Transaction, key: str) -> None:
    """Forget what it took to ask for the run of a watch, if that is only created now."""
    watch = transaction.own(key)
    if watch.content is not None and unpacked(key, watch.record).ref is None:
        watch.content = without_create(transaction.codec, key, watch.content)
        transaction.send("UPDATE watches SET content = %s WHERE key = %s", watch.content, key.encode())


def finish_watches(outcomes: Mapping[str, bytes]) -> Write:
    """Return what records outcomes, given as JSON."""

    def run(transaction: Transaction) -> None:
        for key in outcomes:
            transaction.own(key)
        sealed = [seal(transaction.codec, key, "outcome", outcome) for key, outcome in outcomes.items()]
        query = (
            "UPDATE watches SET outcome = o.outcome, finished_at = clock_timestamp() "
            "FROM unnest(%s::bytea[], %s::bytea[]) AS o (key, outcome) WHERE watches.key = o.key"
        )
        transaction.send(query, [key.encode() for key in outcomes], sealed)

    return Write(run, tuple(outcomes))


def forget_watches(keys: Sequence[str]) -> Write:
    """Return what forgets watches, with their calls; those that are not there are skipped."""

    def run(transaction: Transaction) -> None:
        there = [key for key in dict.fromkeys(keys) if key in transaction.watches]
        for key in there:
            watch = transaction.watches[key]
            if watch.owner != transaction.owner and not _is_lost(transaction, key, watch):
                raise of_another(key)
        for key in there:
            del transaction.watches[key]
        transaction.refs = {ref: key for ref, key in transaction.refs.items() if key not in there}
        transaction.send("DELETE FROM watches WHERE key = ANY(%s)", [key.encode() for key in there])

    return Write(run, tuple(keys))


def _insert(transaction: Transaction, new: Mapping[str, NewWatch], leads: Mapping[str, str]) -> None:
    if not new:
        return
    codec, entries = transaction.codec, new.values()
    columns = (
        [key.encode() for key in new],
        [entry.record.created_at for entry in entries],
        [entry.packed for entry in entries],
        [seal(codec, key, "label", entry.content) for key, entry in new.items()],
        [seal(codec, key, "outcome", entry.outcome) for key, entry in new.items()],
    )
    calls = [call_columns(codec, key, call) for key, entry in new.items() for call in entry.record.calls]
    transaction.send(_INSERT, transaction.owner, *columns)
    refs = {ref: key for ref, key in leads.items() if ref not in transaction.refs}
    query = "INSERT INTO refs (ref, watch) SELECT * FROM unnest(%s::bytea[], %s::bytea[])"
    transaction.send(query, [ref.encode() for ref in refs], [key.encode() for key in refs.values()])
    for row in calls:
        transaction.send(_CALL + "NOTHING", *row)
    transaction.refs |= leads
    transaction.watches |= {
        key: LockedWatch(transaction.owner, True, entry.packed, content)
        for (key, entry), content in zip(new.items(), columns[3], strict=True)
    }


def _as_written(entry: NewWatch) -> WatchRecord:
    """Return the record of a watch that was added, as it would be read."""
    calls = {call.key: call for call in reversed(entry.record.calls)}
    return unpacked(entry.record.key, entry.packed, reversed(calls.values()), entry.outcome, entry.content)


def _change(transaction: Transaction, key: str, change: Callable[[WatchRecord], WatchRecord]) -> None:
    watch = transaction.own(key)
    watch.record = packed(change(unpacked(key, watch.record)))
    transaction.send("UPDATE watches SET record = %s WHERE key = %s", watch.record, key.encode())


def _is_lost(transaction: Transaction, key: str, watch: LockedWatch) -> bool:
    """Return whether nobody living owns a watch and nobody can claim it, since it cannot be read."""
    if watch.is_held:
        return False
    try:
        reader_of(transaction, [key])()
    except JournalError:
        return True
    return False
