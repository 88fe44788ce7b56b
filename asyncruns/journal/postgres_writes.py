"""What each method of a journal does in PostgreSQL; each function here returns it as a `Write`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from asyncruns.abc import Codec
from asyncruns.errors import JournalError
from asyncruns.journal.entries import moved_to, of_another, packed, run_texts, unpacked, unreadable
from asyncruns.journal.postgres_transaction import LockedWatch, Transaction, Write
from asyncruns.journal.rows import NewWatch
from asyncruns.journal.sealing import seal, sealed_output, unsealed, unsealed_output
from asyncruns.lifecycle.records import CallRecord, WatchRecord, Wish
from asyncruns.lifecycle.values import RunRef

_LOG: Final = logging.getLogger("asyncruns.journal")
_CLAIM_LOCK: Final = 0x6172756F
_OLDEST: Final = "ORDER BY w.created_at, w.id"
_CALL: Final = (
    "INSERT INTO calls (watch, key, call_id, output, failed, accepted_at) VALUES (%s, %s, %s, %s, %s, %s) "
    "ON CONFLICT (watch, key) DO "
)
_ANEW: Final = (
    "UPDATE SET call_id = excluded.call_id, output = NULL, failed = false, accepted_at = 0 WHERE calls.accepted_at > 0"
)
_CALLS: Final = "SELECT watch, key, call_id, output, failed, accepted_at FROM calls WHERE watch = ANY(%s) ORDER BY id"
_INSERT: Final = (
    "INSERT INTO watches (key, owner, created_at, record, content, outcome, finished_at) "
    "SELECT n.key, %s, n.created_at, n.record, n.content, n.outcome, "
    "CASE WHEN n.outcome IS NOT NULL THEN clock_timestamp() END "
    "FROM unnest(%s::bytea[], %s::float8[], %s::bytea[], %s::bytea[], %s::bytea[]) WITH ORDINALITY "
    "AS n (key, created_at, record, content, outcome, place) ORDER BY n.place"
)
_WATCH: Final = "SELECT w.key, w.record, w.content, w.outcome FROM watches w "


def renew_lease() -> Write:
    """Return what renews the lease of the owner."""
    query: Final = "UPDATE owners SET until = clock_timestamp() + lease WHERE id = %s"

    def run(transaction: Transaction) -> None:
        transaction.send(query, transaction.owner)

    return Write(run)


def add_watches(entries: Sequence[NewWatch]) -> Write:
    """Return what adds watches, and returns what is there then."""
    keys = [entry.record.key for entry in entries]
    refs = {key: run_texts(entry.record.ref, *entry.record.refs) for key, entry in zip(keys, entries, strict=True)}

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
        read = _reader(transaction, there)
        _insert(transaction, new, leads)
        if there:
            query = "UPDATE watches SET claim = NULL WHERE key = ANY(%s) AND claim IS NOT NULL"
            transaction.send(query, [key.encode() for key in there])
        return lambda: [added[key] if key in added else read()[key] for key in keys]

    return Write(run, tuple(keys), tuple(ref for each in refs.values() for ref in each))


def read_watches() -> Write:
    """Return what returns all watches, the oldest first, with the words for who owns each."""

    def run(transaction: Transaction) -> Callable[[], list[WatchRecord]]:
        query: Final = "SELECT w.key, l.words FROM watches w JOIN living l ON l.id = w.owner"
        owners = {key.decode(): words for key, words in transaction.send(query)}
        records = list(_readable(transaction, transaction.send(_WATCH + _OLDEST)))
        return lambda: [replace(record, owner=owners.get(record.key, "")) for record in records]

    return Write(run, is_alone=True)


def claim_watches(claim: str, keys: Sequence[str] | None, keep_outcomes_s: float) -> Write:
    """Return what owns the watches that nobody living owns, and returns them, the oldest first.

    One that cannot be read is skipped.

    Args:
        claim: Identifies this call, for `unclaim_watches`.
        keys: Those to own; None for all.
        keep_outcomes_s: For how long an outcome is kept that nobody owns.
    """
    wanted = None if keys is None else sorted({key.encode() for key in keys})

    def run(transaction: Transaction) -> Callable[[], list[WatchRecord]]:
        _end_leases(transaction)
        _forget_old_outcomes(transaction, keep_outcomes_s)
        free = "WHERE w.owner IS NULL AND (%s::bytea[] IS NULL OR w.key = ANY(%s)) "
        rows = transaction.send(_WATCH + free + _OLDEST + " FOR UPDATE", wanted, wanted)
        records = list(_readable(transaction, rows))
        owned = [record.key.encode() for record in records]
        query = "UPDATE watches SET owner = %s, claim = %s WHERE key = ANY(%s)"
        transaction.send(query, transaction.owner, claim, owned)
        return lambda: records

    return Write(run, is_alone=True)


def _end_leases(transaction: Transaction) -> None:
    """Delete the owners whose leases have run out, so that their watches have none; one claim does so at a time.

    A process that was stopped in a transaction has its row locked; so its connection is ended first.
    """
    transaction.send("SELECT pg_advisory_xact_lock(%s)", _CLAIM_LOCK)
    query: Final = (
        "SELECT pg_terminate_backend(a.pid) FROM owners o "
        "JOIN pg_stat_activity a ON a.pid = o.pid AND a.backend_start = o.connected_at AND a.usename = current_user "
        "WHERE o.id != %s AND o.id NOT IN (SELECT id FROM living)"
    )
    transaction.send(query, transaction.owner)
    query_to_delete: Final = (
        "DELETE FROM owners WHERE greatest(until, pg_postmaster_start_time() + lease) <= clock_timestamp() "
        "AND id != %s"  # not by the view: of a lease that is being renewed, this sees the new end
    )
    transaction.send(query_to_delete, transaction.owner)


def unclaim_watches(claim: str) -> Write:
    """Return what leaves the watches to any that a claim has taken, but those that were added again since then."""

    def run(transaction: Transaction) -> None:
        query = "UPDATE watches SET owner = NULL WHERE owner = %s AND claim = %s"
        transaction.send(query, transaction.owner, claim)

    return Write(run, is_alone=True)


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
        rows = [_row_of(transaction.codec, key, call) for call in calls]
        query = (
            "SELECT watch, key, call_id, output, failed, accepted_at FROM calls "
            "WHERE watch = %s AND key = %s AND accepted_at = 0"
        )
        before = []
        for row in rows:
            before.append(transaction.send(query, *row[:2]))
            transaction.send(_CALL + _ANEW, *row)
        return lambda: [_call_of(transaction.codec, *row) for found in before for row in found]

    return Write(run, (key,))


def answer_calls(key: str, calls: Sequence[CallRecord]) -> Write:
    """Return what records outputs of calls that have none yet."""
    change: Final = "UPDATE SET output = excluded.output, failed = excluded.failed WHERE calls.output IS NULL"

    def run(transaction: Transaction) -> None:
        transaction.own(key)
        for row in [_row_of(transaction.codec, key, call) for call in calls]:
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
        _change(transaction, key, lambda record: moved_to(record, ref))
        if text not in transaction.refs:
            transaction.refs[text] = key
            transaction.send("INSERT INTO refs (ref, watch) VALUES (%s, %s)", text.encode(), key.encode())
        transaction.send("DELETE FROM calls WHERE watch = %s AND accepted_at > 0", key.encode())
        transaction.send("UPDATE calls SET accepted_at = %s WHERE watch = %s", at, key.encode())

    return Write(run, (key,), (text,))


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


def _forget_old_outcomes(transaction: Transaction, seconds: float) -> None:
    """Forget the watches that nobody owns whose outcomes were recorded that long ago."""
    if seconds == math.inf:
        return
    query = (
        "WITH gone AS (DELETE FROM watches WHERE owner IS NULL "
        "AND finished_at < clock_timestamp() - %s * interval '1 s' RETURNING 1) SELECT count(*) FROM gone"
    )
    ((count,),) = transaction.send(query, seconds)
    if count:
        days = seconds / 86400
        _LOG.warning("%s outcomes are forgotten, which were recorded %g days ago and never delivered", count, days)


def ask_owner(ref: RunRef, wish: Wish) -> Write:
    """Return what asks the owner of a run's watch for something, and returns whether another one lives."""
    (text,) = run_texts(ref)

    def run(transaction: Transaction) -> Callable[[], bool]:
        query = (
            "WITH asked AS (SELECT w.key, w.owner FROM refs r JOIN watches w ON w.key = r.watch "
            "JOIN living l ON l.id = w.owner WHERE r.ref = %s AND l.id != %s), "
            "noted AS (INSERT INTO wishes (watch, wish) SELECT key, %s FROM asked ON CONFLICT DO NOTHING) "
            "SELECT pg_notify('asyncruns_journal', owner) FROM asked"
        )
        asked = transaction.send(query, text.encode(), transaction.owner, wish.value)
        return lambda: asked.fetchone() is not None

    return Write(run, is_alone=True)


def take_wishes(taken: list[tuple[str, Wish]]) -> Write:
    """Return what takes the wishes for watches that are owned, and returns them.

    Args:
        taken: A list that has them after it, for `wish_again`.
    """

    def run(transaction: Transaction) -> Callable[[], list[tuple[str, Wish]]]:
        query = (
            "DELETE FROM wishes USING watches w WHERE wishes.watch = w.key AND w.owner = %s "
            "RETURNING wishes.id, w.key, wishes.wish"
        )
        known = {wish.value: wish for wish in Wish}
        rows = transaction.send(query, transaction.owner)

        def fetch() -> list[tuple[str, Wish]]:
            taken[:] = [(key.decode(), known[wish]) for _, key, wish in sorted(rows) if wish in known]
            return list(taken)

        return fetch

    return Write(run, is_alone=True)


def wish_again(taken: list[tuple[str, Wish]]) -> Write:
    """Return what gives wishes back that were taken."""

    def run(transaction: Transaction) -> None:
        for key, wish in taken:
            query = "INSERT INTO wishes (watch, wish) SELECT key, %s FROM watches WHERE key = %s ON CONFLICT DO NOTHING"
            transaction.send(query, wish.value, key.encode())

    return Write(run, is_alone=True)


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
    calls = [_row_of(codec, key, call) for key, entry in new.items() for call in entry.record.calls]
    transaction.send(_INSERT, transaction.owner, *columns)
    refs = {ref: key for ref, key in leads.items() if ref not in transaction.refs}
    query = "INSERT INTO refs (ref, watch) SELECT * FROM unnest(%s::bytea[], %s::bytea[])"
    transaction.send(query, [ref.encode() for ref in refs], [key.encode() for key in refs.values()])
    for row in calls:
        transaction.send(_CALL + "NOTHING", *row)
    transaction.refs |= leads
    transaction.watches |= {key: LockedWatch(transaction.owner, True, entry.packed) for key, entry in new.items()}


def _as_written(entry: NewWatch) -> WatchRecord:
    """Return the record of a watch that was added, as it would be read."""
    calls = {call.key: call for call in reversed(entry.record.calls)}
    return unpacked(entry.record.key, entry.packed, reversed(calls.values()), entry.outcome, entry.content)


def _change(transaction: Transaction, key: str, change: Callable[[WatchRecord], WatchRecord]) -> None:
    watch = transaction.own(key)
    watch.record = packed(change(unpacked(key, watch.record)))
    transaction.send("UPDATE watches SET record = %s WHERE key = %s", watch.record, key.encode())


def _reader(transaction: Transaction, keys: Sequence[str]) -> Callable[[], Mapping[str, WatchRecord]]:
    """Return what returns the records of watches, as they are now."""
    if not keys:
        return dict
    coded = [key.encode() for key in keys]
    rows = transaction.send(_WATCH + "WHERE w.key = ANY(%s)", coded)
    calls = transaction.send(_CALLS, coded)
    read: dict[str, WatchRecord] = {}

    def fetch() -> Mapping[str, WatchRecord]:
        if not read:
            begun = _by_watch(calls)
            read.update((key.decode(), _whole(transaction, key, begun.get(key, []), *rest)) for key, *rest in rows)
        return read

    return fetch


def _readable(transaction: Transaction, rows: Iterable[Any]) -> Iterator[WatchRecord]:
    """Yield the records of watches that can be read."""
    found = list(rows)
    begun = _by_watch(transaction.send(_CALLS, [key for key, *_ in found]))
    for key, *rest in found:
        try:
            yield _whole(transaction, key, begun.get(key, []), *rest)
        except JournalError as error:
            _LOG.warning("Watch %r is skipped, and stays in the journal: %s", key.decode(), error)


def _by_watch(rows: Iterable[Any]) -> dict[bytes, list[Any]]:
    begun: dict[bytes, list[Any]] = {}
    for row in rows:
        begun.setdefault(row[0], []).append(row)
    return begun


def _whole(
    transaction: Transaction,
    key: bytes,
    calls: Iterable[Any],
    record: bytes,
    content: bytes | None,
    outcome: bytes | None,
) -> WatchRecord:
    """Return the record of a watch of its row and its calls.

    Raises:
        JournalError: It cannot be read.
    """
    try:
        begun = [_call_of(transaction.codec, *row) for row in calls]
    except UnicodeDecodeError as error:  # not what this client writes there
        raise unreadable(key.decode(), error) from error
    return unsealed(transaction.codec, key.decode(), record, begun, content, outcome)


def _is_lost(transaction: Transaction, key: str, watch: LockedWatch) -> bool:
    """Return whether nobody living owns a watch and nobody can claim it, since it cannot be read."""
    if watch.is_held:
        return False
    try:
        _reader(transaction, [key])()
    except JournalError:
        return True
    return False


def _call_of(
    codec: Codec | None, watch: bytes, key: bytes, call_id: bytes, output: bytes | None, failed: bool, at: float
) -> CallRecord:
    text = unsealed_output(codec, watch.decode(), output)
    return CallRecord(key=key.decode(), call_id=call_id.decode(), output=text, failed=failed, accepted_at=at)


def _row_of(codec: Codec | None, key: str, call: CallRecord) -> tuple[Any, ...]:
    output = sealed_output(codec, key, call)
    return key.encode(), call.key.encode(), call.call_id.encode(), output, call.failed, call.accepted_at
