"""One run of `asyncruns monitor`, as its views show it. All texts in it are short and safe to show. Does no I/O."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct

from asyncruns.cli.batch_board import progress_text
from asyncruns.cli.output import on_one_line
from asyncruns.fleet import Watch
from asyncruns.lifecycle import Counts, EndKind, RunRef
from asyncruns.lifecycle.records import WatchRecord

UNSEEN: Final = "not seen yet"
LONGEST_NAME: Final = 200  # characters
NEVER: Final = float("inf")


class Group(enum.IntEnum):
    """What a row is about, in the order in which people care."""

    NEEDS_CALLER = 0
    FAILED = 1
    ACTIVE = 2
    ENDED = 3

    @property
    def words(self) -> str:
        """The group in words."""
        return {0: "needs caller", 1: "failed", 2: "active", 3: "ended"}[self.value]


class MonitorRow(Struct, eq=False, kw_only=True):
    """One run.

    Attributes:
        key: Identifies the row: that of the watch in a journal, or that of the run.
        ref: The ref of the run; without ids, if it is not created.
        name: The ids, safe to show.
        status: The server's status, or how the watch finished, safe to show.
        group: What the row is about.
        created_at: When the run was created, in seconds since the epoch; infinity if that is not known.
        since: When the status was noticed, in seconds since the epoch.
        note: What else is to be said; safe to show.
        progress: How many requests of a batch have ended; None if that is not known.
        end: Kind of the outcome; None while it is watched.
        record: The watch in the journal; None for others.
        watch: Its watch in the fleet; None if there is none.
    """

    key: str
    ref: RunRef
    name: str
    status: str = UNSEEN
    group: Group = Group.ACTIVE
    created_at: float = NEVER
    since: float = 0.0
    note: str = ""
    progress: Counts | None = None
    end: EndKind | None = None
    is_over: bool = False
    record: WatchRecord | None = None
    watch: Watch[Any] | None = None

    @property
    def owner(self) -> str:
        """The living process that watches it, in words; "" if none is known."""
        return "" if self.record is None else self.record.owner

    @property
    def remark(self) -> str:
        """All that is to be said beside the status: the note, the progress, the label and the owner."""
        label = "" if self.record is None or self.record.label is None else f"label {_text_of(self.record.label)}"
        owner = f"watched by {self.owner}" if self.owner else ""
        counts = "" if self.progress is None else progress_text(self.progress)
        parts = (counts, self.note, cut_short(label, LONGEST_NAME), cut_short(owner, LONGEST_NAME))
        return "; ".join(part for part in parts if part)

    def has_words(self, words: Iterable[str]) -> bool:
        """Return whether all these words, in lower case, are in what the row shows."""
        text = f"{self.name} {self.status} {self.group.words} {self.remark}".lower()
        return all(word in text for word in words)


def cut_short(text: str, most: int) -> str:
    """Return a text on one line, safe to show, of at most about so many characters."""
    return on_one_line(text) if len(text) <= most else on_one_line(text[:most]) + "…"


def _text_of(label: Any) -> str:
    return label if isinstance(label, str) else json.dumps(label, ensure_ascii=False)
