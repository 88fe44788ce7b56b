"""The runs of `asyncruns monitor` as its views show them: rows, counts, and which rows matter most.

Does no I/O, and never prints. Texts of servers are cut and made safe to show when they come in, once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, Final

from asyncruns.cli.board import CREATING, said
from asyncruns.cli.ends import EXIT_CODES, end_of
from asyncruns.cli.monitor_rows import LONGEST_NAME, NEVER, UNSEEN, Group, MonitorRow, cut_short
from asyncruns.cli.output import counted
from asyncruns.lifecycle import (
    CancelRefused,
    Connectivity,
    ConnectivityChanged,
    Counts,
    EndKind,
    Notice,
    Phase,
    ProgressChanged,
    RunRef,
    StatusChanged,
)
from asyncruns.lifecycle.records import WatchRecord
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire.common import epoch_seconds

DELIVERED: Final = "delivered"
_LONGEST_STATUS: Final = 40
_LONGEST_NOTE: Final = 400
_SHOWN_CALLS: Final = 3


class MonitorBoard:
    """All runs of one command."""

    def __init__(self) -> None:
        self.rows: dict[str, MonitorRow] = {}
        self.open: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.ended: int = 0
        self.unreached: dict[str, str] = {}
        self._groups: dict[Group, dict[str, MonitorRow]] = {group: {} for group in Group}
        self._sorted: dict[Group, list[MonitorRow]] = {}
        self._closed: asyncio.Event = asyncio.Event()
        self._all_over: asyncio.Event = asyncio.Event()
        self._all_over.set()

    def add(self, key: str, ref: RunRef, record: WatchRecord | None = None) -> MonitorRow:
        """Add a run that is not there yet, and return its row."""
        row = MonitorRow(key=key, ref=ref, name=cut_short(str(ref), LONGEST_NAME), record=record)
        if record is not None:
            row.created_at = record.created_at or NEVER
        if not ref.ids:
            row.name, row.status = cut_short(key, LONGEST_NAME), CREATING
        self.rows[key] = row
        self._groups[row.group][key] = row
        self._sorted.pop(row.group, None)
        self.counts[row.status] += 1
        self.open.add(key)
        self._all_over.clear()
        return row

    def moved(self, row: MonitorRow, ref: RunRef) -> None:
        """Note which run a watch of a journal goes on with."""
        row.ref, row.name, row.end = ref, cut_short(str(ref), LONGEST_NAME), None
        row.note, row.progress = "", None
        self.unreached.pop(row.key, None)
        self._show(row, UNSEEN, Group.ACTIVE, row.since)
        self._reopen(row)

    def record(self, row: MonitorRow, record: WatchRecord) -> None:
        """Note what the journal has of a watch now."""
        row.record = record
        if row.end is EndKind.NEEDS_CALLER:
            self._reopen(row) if record.owner else self._close(row)

    def forgotten(self, row: MonitorRow) -> None:
        """Note that the journal does not have the watch any more: its program was told of the outcome."""
        if not row.is_over and (row.watch is None or row.end is EndKind.NEEDS_CALLER):
            row.end, row.note = None, "the journal has forgotten it"
            self._show(row, DELIVERED, Group.ENDED, row.since)
            self._close(row)

    def note(self, row: MonitorRow, notice: Notice) -> None:
        """Record a notice of a watch."""
        match notice:
            case StatusChanged(phase=phase, run=run):
                self._dated(row, run)
                row.note = ""
                group = Group.NEEDS_CALLER if phase is Phase.NEEDS_CALLER else Group.ACTIVE
                self._show(row, cut_short(notice.status, _LONGEST_STATUS), group, notice.at)
            case ProgressChanged():
                row.progress = Counts(done=notice.done, failed=notice.failed, total=notice.total)
            case ConnectivityChanged(connectivity=connectivity, cause=cause):
                self.unreached.pop(row.key, None)
                if connectivity is not Connectivity.HEALTHY:
                    self.unreached[row.key] = cut_short(str(cause or connectivity.value), _LONGEST_NOTE)
            case CancelRefused(cause=cause):
                row.note = cut_short(f"the cancel was refused: {cause}", _LONGEST_NOTE)
            case _:
                pass  # nothing else changes what is shown

    def calls(self, row: MonitorRow, calls: Iterable[Any]) -> None:
        """Note the calls that a run waits for."""
        names = [call.name or call.type for call in calls]
        if names:
            more = len(names) - _SHOWN_CALLS
            shown = ", ".join(names[:_SHOWN_CALLS]) + (f" and {more} more" if more > 0 else "")
            row.note = cut_short(f"{counted(len(names), 'call')}: {shown}", _LONGEST_NOTE)

    def finished(self, row: MonitorRow, outcome: AnyOutcome[Any]) -> None:
        """Record the outcome of a watch."""
        self.unreached.pop(row.key, None)
        row.end = kind = end_of(outcome)
        self._dated(row, outcome.run)
        if kind is EndKind.NEEDS_CALLER:
            self.calls(row, outcome.calls)
        else:
            row.note = cut_short(said(outcome.error) or _reason(outcome), _LONGEST_NOTE)
        status = outcome.status if kind.is_final else _words(kind)
        self._show(row, cut_short(status, _LONGEST_STATUS), _GROUPS.get(kind, Group.FAILED), outcome.at)
        if not (kind is EndKind.NEEDS_CALLER and row.owner):  # otherwise its owner goes on, with another run
            self._close(row)

    def unwatchable(self, row: MonitorRow, why: str) -> None:
        """Note that a run can't be watched."""
        row.note = cut_short(why, _LONGEST_NOTE)
        self._show(row, "not watched", Group.FAILED, row.since)
        self._close(row)

    @property
    def code(self) -> int:
        """The highest exit code of the outcomes; 0 if there is none."""
        return max((EXIT_CODES[row.end] for row in self.rows.values() if row.end is not None), default=0)

    async def all_over(self) -> None:
        """Wait until there is no row that is open. Safe to cancel."""
        await self._all_over.wait()

    async def open_below(self, most: int) -> None:
        """Wait until fewer than so many rows are open. Safe to cancel."""
        while len(self.open) >= most:
            self._closed.clear()
            await self._closed.wait()

    def choose(self, most: int, words: Iterable[str] = (), only: Group | None = None) -> list[MonitorRow]:
        """Return at most so many rows, what matters most first: by group, and within it the oldest first.

        Args:
            most: How many.
            words: Only rows that show all of these words, in lower case.
            only: Only rows of this group.
        """
        chosen: list[MonitorRow] = []
        wanted = list(words)
        for group in Group if only is None else (only,):
            rows = self._in_order(group)
            if wanted:
                rows = [row for row in rows if row.has_words(wanted)]
            chosen += rows[: most - len(chosen)]
            if len(chosen) >= most:
                break
        return chosen

    def number_in(self, group: Group) -> int:
        """Return the number of rows of a group."""
        return len(self._groups[group])

    def statuses(self) -> list[tuple[str, int]]:
        """Return the number of runs with each status, the most frequent first."""
        return [(status, number) for status, number in self.counts.most_common() if number]

    def ends(self) -> str:
        """Return how many runs ended in which way, such as "2 completed, 1 failed"."""
        found = Counter(row.status if row.end is None else _words(row.end) for row in self.rows.values() if row.is_over)
        known = [word for word in map(_words, EndKind) if found[word]]
        named = [f"{found[word]:,} {word}" for word in dict.fromkeys([*known, *found])]
        return ", ".join(named) or "none ended"

    def _in_order(self, group: Group) -> list[MonitorRow]:
        if group not in self._sorted:
            is_last_first = group is Group.ENDED
            by = attrgetter("since") if is_last_first else attrgetter("created_at")
            self._sorted[group] = sorted(self._groups[group].values(), key=by, reverse=is_last_first)
        return self._sorted[group]

    def _show(self, row: MonitorRow, status: str, group: Group, since: float) -> None:
        if status != row.status:
            self.counts[row.status] -= 1
            if not self.counts[row.status]:
                del self.counts[row.status]
            self.counts[status] += 1
        row.status, row.since = status, since
        if group is not row.group:
            del self._groups[row.group][row.key]
            self._sorted.pop(row.group, None)
            row.group = group
            self._groups[group][row.key] = row
            self._sorted.pop(group, None)

    def _dated(self, row: MonitorRow, run: Any) -> None:
        """Note when a run was created, unless a journal says when it was asked for."""
        created = None if row.record is not None else epoch_seconds(getattr(run, "created_at", None))
        if created is not None and created != row.created_at:
            row.created_at = created
            self._sorted.pop(row.group, None)

    def _close(self, row: MonitorRow) -> None:
        if not row.is_over:
            row.is_over = True
            self.ended += 1
            self.open.discard(row.key)
            self._closed.set()
        if not self.open:
            self._all_over.set()

    def _reopen(self, row: MonitorRow) -> None:
        if row.is_over:
            row.is_over = False
            self.ended -= 1
        self.open.add(row.key)
        self._all_over.clear()


_GROUPS: Final = {
    EndKind.COMPLETED: Group.ENDED,
    EndKind.CANCELLED: Group.ENDED,
    EndKind.NEEDS_CALLER: Group.NEEDS_CALLER,
}


def _words(kind: EndKind) -> str:
    return kind.value.replace("_", " ")


def _reason(outcome: AnyOutcome[Any]) -> str:
    reason = "" if outcome.reason is None else outcome.reason.value.replace("_", " ")
    cause = getattr(outcome, "cause", None)
    return f"{reason}: {cause}" if reason and cause else reason
