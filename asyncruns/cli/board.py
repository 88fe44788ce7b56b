"""The demo's state, which its views show: a row for each run, and the counts. No output, no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, assert_never

import anyio

from asyncruns.cli.ends import end_of
from asyncruns.lifecycle import (
    ActionRequired,
    CallAnswered,
    CallsLeftToServer,
    CancelRefused,
    Connectivity,
    ConnectivityChanged,
    EndKind,
    EndRevoked,
    Notice,
    OutputsSubmitted,
    RunFault,
    StatusChanged,
    StreamBroken,
)
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.watcher import RunWatcher
from asyncruns.wire import Run, statuses

CREATING: Final = "creating"
NOT_CREATED: Final = "not created"

# As a run goes through them; what is not among them comes last.
ORDER: Final = (
    CREATING,
    statuses.QUEUED,
    statuses.IN_PROGRESS,
    statuses.REQUIRES_ACTION,
    statuses.CANCELLING,
    statuses.COMPLETED,
    statuses.FAILED,
    statuses.CANCELLED,
    statuses.EXPIRED,
    statuses.INCOMPLETE,
    "needs caller",
    "gave up",
    NOT_CREATED,
)


@dataclass(eq=False, kw_only=True)
class Row:
    """One run of the demo.

    Attributes:
        number: Counted from 0.
        status: The server's word, or ours before and after it has one.
        asked, answered: Tool calls.
        result: The answer, or why there is none.
        end: How it ended; None while it goes on, and for a run that was not created.
        over: Whether nothing will change any more.
    """

    number: int
    assistant: str
    run_id: str = ""
    thread_id: str = ""
    status: str = CREATING
    asked: int = 0
    answered: int = 0
    rounds: int = 0
    result: str = ""
    end: EndKind | None = None
    over: bool = False
    over_at: float = 0.0
    watcher: RunWatcher[Run] | None = None
    started: float = field(default_factory=anyio.current_time)

    @property
    def polls(self) -> int:
        """How often the run was polled."""
        return self.watcher.polls if self.watcher else 0

    @property
    def seconds(self) -> float:
        """For how long the run has been watched."""
        return (self.over_at if self.over else anyio.current_time()) - self.started


class Board:
    """All rows.

    Args:
        changed: Called with a row that has a new status.
    """

    def __init__(self, changed: Callable[[Row], None] = lambda _: None) -> None:
        self.rows: list[Row] = []
        self.began: float = anyio.current_time()
        self._changed = changed

    @property
    def seconds(self) -> float:
        """How long the demo has been going on."""
        return anyio.current_time() - self.began

    @property
    def is_over(self) -> bool:
        """Whether no run goes on."""
        return all(row.over for row in self.rows)

    def created(self, row: Row, thread_id: str, run_id: str) -> None:
        """Note which run of which thread was created for a row."""
        row.thread_id, row.run_id = thread_id, run_id

    def watched(self, row: Row, watcher: RunWatcher[Run]) -> None:
        """Note that a watch begins."""
        row.watcher, row.started = watcher, anyio.current_time()

    def note(self, row: Row, notice: Notice) -> None:
        """Note what a watch reports."""
        match notice:
            case StatusChanged():
                row.status = notice.status
                if not notice.phase.is_terminal:  # an end is told when its answer is there
                    self._changed(row)
            case ActionRequired(calls=calls):
                row.rounds += 1
                row.asked += len(calls)
            case CallAnswered():
                row.answered += 1
            case ConnectivityChanged(connectivity=connectivity):
                healthy = connectivity is Connectivity.HEALTHY
                row.result = "" if healthy else f"the server is not heard: {connectivity.value}"
            case OutputsSubmitted() | CancelRefused() | CallsLeftToServer() | EndRevoked() | StreamBroken():
                pass
            case _:
                assert_never(notice)

    def ended(self, row: Row, outcome: AnyOutcome[Run], answer: str) -> None:
        """Note how a watch ended."""
        row.end, row.result = end_of(outcome), answer or said(outcome.error)
        if not row.end.is_final:
            row.status = row.end.value.replace("_", " ")
            row.result = outcome.reason.value.replace("_", " ") if outcome.reason else ""
        self._close(row)

    def not_created(self, row: Row, error: Exception) -> None:
        """Note that there is nothing to watch."""
        row.status, row.result = NOT_CREATED, str(error)
        self._close(row)

    def _close(self, row: Row) -> None:
        row.over, row.over_at = True, anyio.current_time()
        self._changed(row)

    def counts(self) -> list[tuple[str, int]]:
        """Give how many runs have which status, in the order that runs go through them."""
        found = Counter(row.status for row in self.rows)
        return sorted(found.items(), key=lambda pair: ORDER.index(pair[0]) if pair[0] in ORDER else len(ORDER))

    def choose(self, room: int) -> list[Row]:
        """Give the rows to show where there is room for so many: all, or those that matter most, in their order."""
        if len(self.rows) <= room:
            return self.rows
        active = [row for row in self.rows if not row.over]
        ended = sorted((row for row in self.rows if row.over), key=lambda row: row.over_at, reverse=True)
        if not active:  # the last view: what went wrong is worth more
            ended.sort(key=lambda row: row.end is EndKind.COMPLETED)
        return sorted([*active, *ended][:room], key=lambda row: row.number)


def said(fault: RunFault | None) -> str:
    """Give what the server says of a bad end, or ""."""
    return "" if fault is None else ": ".join(part for part in (fault.code, fault.message) if part)
