"""The state of the batches that `asyncruns batch watch` watches, as its views show it. Does no I/O, and never prints.

Nothing of it grows with the number of requests in a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import anyio

from asyncruns.cli.board import said
from asyncruns.cli.ends import end_of
from asyncruns.lifecycle import Counts, EndKind, Notice, ProgressChanged, StatusChanged
from asyncruns.watch.outcome import AnyOutcome

NO_COUNTS: Final = Counts()


@dataclass(eq=False, kw_only=True)
class BatchRow:
    """One batch.

    Attributes:
        status: The server's status; "" if none was seen.
        counts: How many of its requests have ended; None if that is not known.
        end: Kind of the outcome; None while the batch is watched.
        note: Why it ended, if it did not complete.
        ended_at: When the watch finished, by the loop's clock.
    """

    batch_id: str
    status: str = ""
    counts: Counts | None = None
    end: EndKind | None = None
    note: str = ""
    ended_at: float = 0.0

    @property
    def shown_status(self) -> str:
        """The status; how the watch finished, if it did so before the batch ended."""
        if self.end is not None and not self.end.is_final:
            return self.end.value.replace("_", " ")
        return self.status or "-"


class BatchBoard:
    """All batches of one command.

    Args:
        batch_ids: Their ids, in the order in which they are shown.
    """

    def __init__(self, batch_ids: Iterable[str]) -> None:
        self.rows: dict[str, BatchRow] = {batch_id: BatchRow(batch_id=batch_id) for batch_id in batch_ids}
        self._began: float = anyio.current_time()

    @property
    def seconds(self) -> float:
        """Seconds since the command began."""
        return anyio.current_time() - self._began

    @property
    def counts(self) -> Counts:
        """How many requests of all batches have ended."""
        return sum((row.counts for row in self.rows.values() if row.counts is not None), NO_COUNTS)

    @property
    def open(self) -> list[BatchRow]:
        """The batches whose watch has not finished."""
        return [row for row in self.rows.values() if row.end is None]

    def note(self, notice: Notice) -> BatchRow:
        """Record a notice of a watch, and return the row of its batch."""
        row = self.rows[notice.ref.ids[0]]
        match notice:
            case StatusChanged():
                row.status = notice.status
            case ProgressChanged():
                row.counts = Counts(done=notice.done, failed=notice.failed, total=notice.total)
            case _:
                pass  # nothing else changes what is shown of a batch
        return row

    def ended(self, outcome: AnyOutcome[Any]) -> BatchRow:
        """Record the outcome of a watch, and return the row of its batch."""
        row = self.rows[outcome.ref.ids[0]]
        row.end, row.status, row.ended_at = end_of(outcome), outcome.status, anyio.current_time()
        row.note = said(outcome.error)
        if not row.note and outcome.reason is not None:
            row.note = outcome.reason.value.replace("_", " ")
        return row

    def choose(self, room: int) -> list[BatchRow]:
        """Return at most `room` rows to show, in order: all, or open ones first, then those that ended last."""
        rows = list(self.rows.values())
        if len(rows) <= room:
            return rows
        # A completed batch is the least worth a line; the sort is stable, so that open ones keep their order.
        rows.sort(key=lambda row: (row.end is not None, row.end is EndKind.COMPLETED, -row.ended_at))
        chosen = {row.batch_id for row in rows[: max(room, 0)]}
        return [row for row in self.rows.values() if row.batch_id in chosen]

    def ends(self) -> str:
        """Return how many batches ended in which way, such as "2 completed, 1 failed"."""
        kinds = Counter(row.end for row in self.rows.values() if row.end is not None)
        named = [f"{kinds[kind]} {kind.value.replace('_', ' ')}" for kind in EndKind if kinds[kind]]
        return ", ".join(named) or "none ended"


def progress_text(counts: Counts) -> str:
    """Return counts in words, such as "198 of 200 answered, 1 failed"."""
    failed = f", {counts.failed} failed" if counts.failed else ""
    return f"{counts.done} of {counts.total} answered{failed}"
