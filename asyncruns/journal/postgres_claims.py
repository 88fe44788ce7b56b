"""Who owns what in PostgreSQL: leases, claims, and what processes ask of each other; each returned as a `Write`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Final

from msgspec.structs import replace

from asyncruns.journal.entries import run_texts
from asyncruns.journal.postgres_rows import WATCH_COLUMNS, readable_watches
from asyncruns.journal.postgres_transaction import Transaction, Write
from asyncruns.lifecycle.records import WatchRecord, Wish
from asyncruns.lifecycle.values import RunRef

_LOG: Final = logging.getLogger("asyncruns.journal")
_CLAIM_LOCK: Final = 0x6172756F
_UNCLAIM: Final = "UPDATE watches SET owner = NULL WHERE owner = %s AND claim = %s"
_OLDEST: Final = "ORDER BY w.created_at, w.id"


def renew_lease() -> Write:
    """Return what renews the lease of the owner."""
    query: Final = "UPDATE owners SET until = clock_timestamp() + lease WHERE id = %s"

    def run(transaction: Transaction) -> None:
        transaction.send(query, transaction.owner)

    return Write(run)


def read_watches() -> Write:
    """Return what returns all watches, the oldest first, with the words for who owns each."""

    def run(transaction: Transaction) -> Callable[[], list[WatchRecord]]:
        query: Final = "SELECT w.key, l.words FROM watches w JOIN living l ON l.id = w.owner"
        owners = {key.decode(): words for key, words in transaction.send(query)}
        records = list(readable_watches(transaction, transaction.send(WATCH_COLUMNS + _OLDEST)))
        return lambda: [replace(record, owner=owners.get(record.key, "")) for record in records]

    return Write(run, is_alone=True)


def claim_watches(claim: str, keys: Sequence[str] | None, keep_outcomes_s: float, unsure: Sequence[str] = ()) -> Write:
    """Return what owns the watches that nobody living owns, and returns them, the oldest first.

    One that cannot be read is skipped.

    Args:
        claim: Identifies this call, for `unclaim_watches`.
        keys: Those to own; None for all.
        keep_outcomes_s: For how long an outcome is kept that nobody owns.
        unsure: Earlier claims, whose watches nobody has got if they were written.
    """
    wanted = None if keys is None else sorted({key.encode() for key in keys})

    def run(transaction: Transaction) -> Callable[[], list[WatchRecord]]:
        _end_leases(transaction)
        for earlier in unsure:
            transaction.send(_UNCLAIM, transaction.owner, earlier)
        _forget_old_outcomes(transaction, keep_outcomes_s)
        free = "WHERE w.owner IS NULL AND (%s::bytea[] IS NULL OR w.key = ANY(%s)) "
        rows = transaction.send(WATCH_COLUMNS + free + _OLDEST + " FOR UPDATE", wanted, wanted)
        records = list(readable_watches(transaction, rows))
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
        transaction.send(_UNCLAIM, transaction.owner, claim)

    return Write(run, is_alone=True)


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
