"""The demo's state, which its views show: a row for each run, and the counts. It never prints, and does no I/O."""

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
    ProgressChanged,
    RunFault,
    StatusChanged,
    StreamBroken,
    ToolReported,
)
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.watcher import RunWatcher
from asyncruns.wire import Run, status_names

CREATING: Final = "creating"
NOT_CREATED: Final = "not created"

# In the order in which a run goes through them; any other status comes last.
ORDER: Final = (
    CREATING,
    status_names.QUEUED,
    status_names.IN_PROGRESS,
    status_names.REQUIRES_ACTION,
    status_names.CANCELLING,
    status_names.COMPLETED,
    status_names.FAILED,
    status_names.CANCELLED,
    status_names.EXPIRED,
    status_names.INCOMPLETE,
    "needs caller",
    "gave up",
    NOT_CREATED,
)


@dataclass(eq=False, kw_only=True)
class Row:
    """One run of the demo.

    Attributes:
        number: Number of the run, from 0.
        status: The server's status, or the demo's own: before creation, and for an outcome without a status.
        asked, answered: Number of tool calls that the run made, and that were answered.
        result: The answer, or why there is none.
        end: Kind of the outcome; None while the run is watched, and for a run that was not created.
        over: Whether the row is final.
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
        """Number of polls of the run."""
        return self.watcher.polls if self.watcher else 0

    @property
    def seconds(self) -> float:
        """Seconds since the watch began, until its outcome."""
        return (self.over_at if self.over else anyio.current_time()) - self.started


class Board:
    """All rows.

    Args:
        changed: Called with each row whose status has changed.
    """

    def __init__(self, changed: Callable[[Row], None] = lambda _: None) -> None:
        self.rows: list[Row] = []
        self.began: float = anyio.current_time()
        self._changed = changed

    @property
    def seconds(self) -> float:
        """Seconds since the demo began."""
        return anyio.current_time() - self.began

    @property
    def is_over(self) -> bool:
        """Whether all rows are final."""
        return all(row.over for row in self.rows)

    def created(self, row: Row, thread_id: str, run_id: str) -> None:
        """Record the ids of the thread and the run that were created for a row."""
        row.thread_id, row.run_id = thread_id, run_id

    def watched(self, row: Row, watcher: RunWatcher[Run]) -> None:
        """Record that the watch of a run begins."""
        row.watcher, row.started = watcher, anyio.current_time()

    def note(self, row: Row, notice: Notice) -> None:
        """Record a notice of a watch."""
        match notice:
            case StatusChanged():
                row.status = notice.status
                if not notice.phase.is_terminal:  # `ended` reports the end, with the answer
                    self._changed(row)
            case ActionRequired(calls=calls):
                row.rounds += 1
                row.asked += len(calls)
            case CallAnswered():
                row.answered += 1
            case ConnectivityChanged(connectivity=connectivity):
                healthy = connectivity is Connectivity.HEALTHY
                row.result = "" if healthy else f"the server does not answer: {connectivity.value}"
            case (
                OutputsSubmitted()
                | ProgressChanged()
                | ToolReported()
                | CancelRefused()
                | CallsLeftToServer()
                | EndRevoked()
                | StreamBroken()
            ):
                pass
            case _:
                assert_never(notice)

    def ended(self, row: Row, outcome: AnyOutcome[Run], answer: str) -> None:
        """Record the outcome of a watch."""
        row.end, row.result = end_of(outcome), answer or said(outcome.error)
        if not row.end.is_final:
            row.status = row.end.value.replace("_", " ")
            row.result = outcome.reason.value.replace("_", " ") if outcome.reason else ""
        self._close(row)

    def not_created(self, row: Row, error: Exception) -> None:
        """Record that the run could not be created."""
        row.status, row.result = NOT_CREATED, str(error)
        self._close(row)

    def _close(self, row: Row) -> None:
        row.over, row.over_at = True, anyio.current_time()
        self._changed(row)

    def counts(self) -> list[tuple[str, int]]:
        """Return the number of runs with each status, in the order in which runs go through them."""
        found = Counter(row.status for row in self.rows)
        return sorted(found.items(), key=lambda pair: ORDER.index(pair[0]) if pair[0] in ORDER else len(ORDER))

    def choose(self, room: int) -> list[Row]:
        """Return at most `room` rows to show, in order: all, or active runs first, then those that ended last."""
        if len(self.rows) <= room:
            return self.rows
        active = [row for row in self.rows if not row.over]
        ended = sorted((row for row in self.rows if row.over), key=lambda row: row.over_at, reverse=True)
        if not active:  # the final view: prefer the runs that did not complete
            ended.sort(key=lambda row: row.end is EndKind.COMPLETED)
        return sorted([*active, *ended][:room], key=lambda row: row.number)


def said(fault: RunFault | None) -> str:
    """Return what the server says about an error of the run, or ""."""
    return "" if fault is None else ": ".join(part for part in (fault.code, fault.message) if part)
