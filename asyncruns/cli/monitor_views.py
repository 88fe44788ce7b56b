"""The views of `asyncruns monitor` for pipes, lines and JSON; `monitor_screen.py` has the table. They only print."""

from __future__ import annotations

import datetime
from typing import Any, Final, Protocol

import anyio

from asyncruns.cli.monitor_board import MonitorBoard
from asyncruns.cli.monitor_rows import Group, MonitorRow
from asyncruns.cli.output import complain, counted, say
from asyncruns.cli.reports import JsonReport
from asyncruns.lifecycle import Connectivity, ConnectivityChanged, Notice, StatusChanged
from asyncruns.watch.observers import Ended

_PROGRESS_EVERY_S: Final = 10.0
_SHOWN_AT_END: Final = 20


class MonitorView(Protocol):
    """Shows a board of runs."""

    def happened(self, row: MonitorRow, event: Notice | Ended[Any]) -> None:
        """Handle an event, which the row shows already."""
        ...

    async def show(self, board: MonitorBoard) -> None:
        """Show the board until cancelled, or until the user leaves it."""
        ...

    def close(self, board: MonitorBoard) -> None:
        """Show how all ended."""
        ...


class MonitorLines:
    """Prints a line for each new status of a run, and every ten seconds one for all."""

    def __init__(self) -> None:
        self._unreached: set[str] = set()

    def happened(self, row: MonitorRow, event: Notice | Ended[Any]) -> None:
        """Print the row, if its status is new, and not an end, which comes by itself."""
        if isinstance(event, Ended):
            self._unreached.discard(row.key)
            _say_row(row)
        else:
            if isinstance(event, ConnectivityChanged):
                self._note_connection(row, event)
            if isinstance(event, StatusChanged) and event.previous is None:  # the watch goes on with another run
                self._unreached.discard(row.key)
            if isinstance(event, StatusChanged) and not event.phase.is_terminal:
                _say_row(row)

    async def show(self, board: MonitorBoard) -> None:
        """Print the number of runs with each status when it has changed."""
        shown = summary_of(board)
        while True:
            await anyio.sleep(_PROGRESS_EVERY_S)
            if (now := summary_of(board)) != shown:
                shown = now
                _say_at(now)

    def close(self, board: MonitorBoard) -> None:
        """Print how many ended in which way."""
        say_end(board, with_rows=False)

    def _note_connection(self, row: MonitorRow, event: ConnectivityChanged) -> None:
        """Print when the first of the runs can't be polled, and when all can be again."""
        before = bool(self._unreached)
        if event.connectivity is Connectivity.HEALTHY:
            self._unreached.discard(row.key)
        else:
            self._unreached.add(row.key)
        if bool(self._unreached) is not before:
            cause = "" if event.cause is None else f": {event.cause}"
            complain("connection healthy" if before else f"connection {event.connectivity.value}{cause}")


class MonitorJson:
    """Prints one JSON object for each event, as `asyncruns watch --json` does, with `id` and `kind` of the run."""

    def happened(self, row: MonitorRow, event: Notice | Ended[Any]) -> None:
        """Print the event."""
        report = JsonReport(id=str(event.ref), kind=event.ref.dialect)
        if isinstance(event, Ended):
            report.end(event.outcome, None, None)
        else:
            report.notice(event)

    async def show(self, board: MonitorBoard) -> None:
        """Do nothing: each event is printed when it comes."""
        await anyio.sleep_forever()

    def close(self, board: MonitorBoard) -> None:
        """Do nothing: the outcomes are all there is."""


def summary_of(board: MonitorBoard) -> str:
    """Return the state of all runs on one line."""
    statuses = ", ".join(f"{number:,} {status}" for status, number in board.statuses())
    return f"{board.ended:,} of {counted_runs(len(board.rows))} ended: {statuses or 'none yet'}"


def counted_runs(number: int) -> str:
    """Return a number of runs in words, such as "10,000 runs"."""
    return f"{number:,} {counted(number, 'run').split()[-1]}"


def say_end(board: MonitorBoard, *, with_rows: bool) -> None:
    """Print how all runs ended, and before that, with `with_rows`, which failed or need their caller."""
    if with_rows:
        troubled = [*board.choose(_SHOWN_AT_END + 1, only=Group.NEEDS_CALLER)]
        troubled += board.choose(_SHOWN_AT_END + 1, only=Group.FAILED)
        for row in troubled[:_SHOWN_AT_END]:
            say("  ".join(part for part in (row.name, row.status, row.remark) if part))
        in_all = board.number_in(Group.NEEDS_CALLER) + board.number_in(Group.FAILED)
        if in_all > _SHOWN_AT_END:
            say(f"and {in_all - _SHOWN_AT_END:,} more that failed or need their caller: --json prints each")
    say(f"{counted_runs(len(board.rows))}: {board.ends()}")


def say_interrupted(board: MonitorBoard) -> None:
    """Print on stderr that runs go on at the server."""
    if board.open:
        complain(f"{counted_runs(len(board.open))} still open; they go on at the server")


def _say_row(row: MonitorRow) -> None:
    _say_at(f"{row.name}  {row.status:<15}  {row.remark}".rstrip())


def _say_at(text: str) -> None:
    say(f"{datetime.datetime.now().astimezone():%H:%M:%S}  {text}")
