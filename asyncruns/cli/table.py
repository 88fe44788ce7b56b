"""The demo's live table; the only module that imports rich.

It always fits the terminal: if there are more runs than lines, active runs are shown first, and the last line counts
all runs.
"""

from __future__ import annotations

from typing import Final

import anyio
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from asyncruns.cli.board import Board, Row
from asyncruns.cli.output import counted, on_one_line
from asyncruns.wire import status_names

FRAME_S: Final = 0.1
WIDE: Final = 108  # number of columns from which on ids are shown in full
SHORT_ID: Final = 7
_OTHER_LINES: Final = 3  # the title, the column headings, the cursor
_REPORT_LINES: Final = 4  # the demo's report below the final table
_STYLES: Final = {
    "creating": "dim",
    status_names.QUEUED: "dim",
    status_names.IN_PROGRESS: "blue",
    status_names.REQUIRES_ACTION: "bold cyan",
    status_names.COMPLETED: "green",
    status_names.INCOMPLETE: "yellow",
    status_names.CANCELLED: "yellow",
    status_names.CANCELLING: "yellow",
    status_names.EXPIRED: "magenta",
}
_BAD: Final = "red"  # failed, and any status without a style of its own


class TableView:
    """A table that is redrawn ten times a second.

    Args:
        where: The server, for the title.
        console: Where to draw; by default stdout.
    """

    def __init__(self, where: str, console: Console | None = None) -> None:
        self._where = where
        self._console = Console() if console is None else console

    def changed(self, row: Row) -> None:
        """Do nothing: the next frame shows the change."""

    async def show(self, board: Board) -> None:
        """Draw until cancelled, then draw a final time."""
        # Do not use rich's own refresh thread: it would read the board while it changes.
        with Live(console=self._console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(self.frame(board), refresh=True)
                    await anyio.sleep(FRAME_S)
            finally:
                live.update(self.frame(board), refresh=True)

    def frame(self, board: Board) -> Group:
        """Return one frame of the board for the terminal's current size."""
        width, height = self._console.size
        counts = Text() if board.is_over else _counts(board)  # the report below shows them as well
        below = _REPORT_LINES if board.is_over else 1 + counts.cell_len // width
        rows = board.choose(max(height - _OTHER_LINES - below, 1))
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", expand=True)
        table.add_column("run", width=28 if width >= WIDE else SHORT_ID + 1, no_wrap=True)
        table.add_column("assistant", width=9, no_wrap=True)
        table.add_column("status", width=15, no_wrap=True)
        for name in ("polls", "calls", "secs"):
            table.add_column(name, width=5, no_wrap=True, justify="right")
        table.add_column("result", ratio=1, no_wrap=True)
        for row in rows:
            table.add_row(*_cells(row, width), style="dim" if row.over and not board.is_over else "")
        title = self._title(board, shown=len(rows))
        return Group(title, table) if board.is_over else Group(title, table, counts)

    def _title(self, board: Board, *, shown: int) -> Text:
        polls = sum(row.polls for row in board.rows)
        part = f" ({shown} shown)" if shown < len(board.rows) else ""
        title = Text("asyncruns demo", style="bold", no_wrap=True, overflow="ellipsis")
        title.append(f"  {board.seconds:4.1f} s  {counted(len(board.rows), 'run')}{part}", style="not bold")
        return title.append(f"  {counted(polls, 'poll')}  {self._where}", style="not bold")


def _cells(row: Row, width: int) -> tuple[Text, ...]:
    run_id = row.run_id if width >= WIDE or len(row.run_id) <= SHORT_ID else "…" + row.run_id[-SHORT_ID:]
    return (
        Text(on_one_line(run_id)),
        Text(row.assistant),
        Text(on_one_line(row.status), style=_STYLES.get(row.status, _BAD), overflow="ellipsis"),
        Text(str(row.polls)),
        Text(f"{row.answered}/{row.asked}" if row.asked else "-"),
        Text(f"{row.seconds:.1f}"),
        Text(on_one_line(row.result), overflow="ellipsis"),
    )


def _counts(board: Board) -> Text:
    text = Text("  ").join(
        Text(f"{number} {on_one_line(status)}", _STYLES.get(status, _BAD)) for status, number in board.counts()
    )
    text.overflow = "fold"
    return text
