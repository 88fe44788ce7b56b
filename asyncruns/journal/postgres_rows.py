"""Rows of a journal in PostgreSQL, and the records that they are. All of it blocks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from asyncruns.abc import Codec
from asyncruns.errors import JournalError
from asyncruns.journal.entries import unreadable
from asyncruns.journal.postgres_transaction import Transaction
from asyncruns.journal.sealing import sealed_output, unsealed, unsealed_output
from asyncruns.lifecycle.records import CallRecord, WatchRecord

_LOG: Final = logging.getLogger("asyncruns.journal")
WATCH_COLUMNS: Final = "SELECT w.key, w.record, w.content, w.outcome FROM watches w "
_CALLS: Final = "SELECT watch, key, call_id, output, failed, accepted_at FROM calls WHERE watch = ANY(%s) ORDER BY id"


def reader_of(transaction: Transaction, keys: Sequence[str]) -> Callable[[], Mapping[str, WatchRecord]]:
    """Return what returns the records of watches, as they are now."""
    if not keys:
        return dict
    coded = [key.encode() for key in keys]
    rows = transaction.send(WATCH_COLUMNS + "WHERE w.key = ANY(%s)", coded)
    calls = transaction.send(_CALLS, coded)
    read: dict[str, WatchRecord] = {}

    def fetch() -> Mapping[str, WatchRecord]:
        if not read:
            begun = _by_watch(calls)
            read.update((key.decode(), _whole(transaction, key, begun.get(key, []), *rest)) for key, *rest in rows)
        return read

    return fetch


def readable_watches(transaction: Transaction, rows: Iterable[Any]) -> Iterator[WatchRecord]:
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
        begun = [call_of_row(transaction.codec, *row) for row in calls]
    except UnicodeDecodeError as error:  # not what this client writes there
        raise unreadable(key.decode(), error) from error
    return unsealed(transaction.codec, key.decode(), record, begun, content, outcome)


def call_of_row(
    codec: Codec | None, watch: bytes, key: bytes, call_id: bytes, output: bytes | None, failed: bool, at: float
) -> CallRecord:
    text = unsealed_output(codec, watch.decode(), output)
    return CallRecord(key=key.decode(), call_id=call_id.decode(), output=text, failed=failed, accepted_at=at)


def call_columns(codec: Codec | None, key: str, call: CallRecord) -> tuple[Any, ...]:
    output = sealed_output(codec, key, call)
    return key.encode(), call.key.encode(), call.call_id.encode(), output, call.failed, call.accepted_at
