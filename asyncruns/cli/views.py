"""The views of the demo: lines here, a live table in `table.py`."""

from __future__ import annotations

from typing import Protocol

from asyncruns.cli.board import Board, Row
from asyncruns.cli.output import on_one_line, say


class View(Protocol):
    """Shows a board."""

    def changed(self, row: Row) -> None:
        """Handle a new status of a row."""
        ...

    async def show(self, board: Board) -> None:
        """Show the board until cancelled; may return at once."""
        ...


class PlainView:
    """Prints one line for each status of each run."""

    def __init__(self) -> None:
        self._board: Board | None = None

    def changed(self, row: Row) -> None:
        """Print the row."""
        seconds = self._board.seconds if self._board else 0.0
        run_id, status = on_one_line(row.run_id), on_one_line(row.status)
        result = on_one_line(row.result) if row.over else ""
        say(f"{seconds:7.2f} s  {run_id or '-':<28}  {row.assistant:<7}  {status:<15}  {result}".rstrip())

    async def show(self, board: Board) -> None:
        """Keep the board, whose clock the lines show."""
        self._board = board
