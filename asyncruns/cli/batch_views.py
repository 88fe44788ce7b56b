"""The views of `asyncruns batch watch`: lines and JSON here, bars in `batch_bars.py`. They only print."""

from __future__ import annotations

import datetime
from typing import Any, Final, Protocol

import anyio

from asyncruns.cli.batch_board import BatchBoard, BatchRow, progress_text
from asyncruns.cli.output import complain, counted, on_one_line, say
from asyncruns.cli.reports import JsonReport
from asyncruns.lifecycle import Connectivity, ConnectivityChanged, Notice, StatusChanged
from asyncruns.watch.outcome import AnyOutcome

PROGRESS_EVERY_S: Final = 10.0


class BatchView(Protocol):
    """Shows a board of batches."""

    def noticed(self, row: BatchRow, notice: Notice) -> None:
        """Handle a notice, which the row shows already."""
        ...

    def ended(self, row: BatchRow, outcome: AnyOutcome[Any]) -> None:
        """Handle an outcome, which the row shows already."""
        ...

    async def show(self, board: BatchBoard) -> None:
        """Show the board until cancelled; may return at once."""
        ...

    def close(self, board: BatchBoard) -> None:
        """Show how all ended."""
        ...


class ConnectionNotes:
    """Prints on stderr how the server is reached: once for all batches, which notice it one after the other."""

    def __init__(self) -> None:
        self._shown = Connectivity.HEALTHY

    def noticed(self, notice: Notice) -> None:
        """Print a change of the connection, if that is what the notice is about."""
        if isinstance(notice, ConnectivityChanged) and notice.connectivity is not self._shown:
            self._shown = notice.connectivity
            cause = "" if notice.cause is None else f": {notice.cause}"
            complain(f"connection {notice.connectivity.value}{cause}")


class BatchLines:
    """Prints a line for each new status of a batch, and every ten seconds one for the progress of all."""

    def __init__(self) -> None:
        self._connection = ConnectionNotes()

    def noticed(self, row: BatchRow, notice: Notice) -> None:
        """Print the row, if its status is new, and not an end, which `ended` prints."""
        self._connection.noticed(notice)
        if isinstance(notice, StatusChanged) and not notice.phase.is_terminal:
            self._print(row)

    def ended(self, row: BatchRow, outcome: AnyOutcome[Any]) -> None:
        """Print the row."""
        self._print(row)

    async def show(self, board: BatchBoard) -> None:
        """Print the progress of all batches when it has changed."""
        shown = board.counts
        while True:
            await anyio.sleep(PROGRESS_EVERY_S)
            if board.counts != shown:
                shown = board.counts
                over = len(board.rows) - len(board.open)
                _say_at(f"{over} of {counted(len(board.rows), 'batch', 'batches')} ended: {progress_text(shown)}")

    def close(self, board: BatchBoard) -> None:
        """Print how many batches and requests ended in which way."""
        say_summary(board)

    def _print(self, row: BatchRow) -> None:
        counts = "" if row.counts is None else progress_text(row.counts)
        note = ": ".join(part for part in (counts, on_one_line(row.note)) if part)
        _say_at(f"{on_one_line(row.batch_id)}  {on_one_line(row.shown_status):<11}  {note}".rstrip())


class BatchJson:
    """Prints one JSON object for each event, as `asyncruns watch --json` does, with the id of the batch in `batch`."""

    def noticed(self, row: BatchRow, notice: Notice) -> None:
        """Print the notice."""
        JsonReport(batch=row.batch_id).notice(notice)

    def ended(self, row: BatchRow, outcome: AnyOutcome[Any]) -> None:
        """Print the outcome."""
        JsonReport(batch=row.batch_id).end(outcome, None, None)

    async def show(self, board: BatchBoard) -> None:
        """Do nothing: each event is printed when it comes."""

    def close(self, board: BatchBoard) -> None:
        """Do nothing: the outcomes are all there is."""


def say_summary(board: BatchBoard) -> None:
    """Print one line on all batches."""
    say(f"{counted(len(board.rows), 'batch', 'batches')}: {board.ends()}; {progress_text(board.counts)}")


def _say_at(text: str) -> None:
    say(f"{datetime.datetime.now().astimezone():%H:%M:%S}  {text}")
