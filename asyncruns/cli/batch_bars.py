"""The live view of `asyncruns batch watch`: a bar for each batch, and one over all. Imports rich.

It always fits the terminal: if there are more batches than lines, open ones are shown first.
"""

from __future__ import annotations

from typing import Any, Final

import anyio
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from asyncruns.cli.batch_board import NO_COUNTS, BatchBoard, BatchRow
from asyncruns.cli.batch_views import ConnectionNotes, say_summary
from asyncruns.cli.output import counted, on_one_line
from asyncruns.lifecycle import Counts, EndKind, Notice
from asyncruns.watch.outcome import AnyOutcome

_FRAME_S: Final = 0.2
_WIDE: Final = 100  # number of columns from which on ids are shown in full
_NARROW: Final = 60  # below that, failed requests have no column of their own
_SHORT_ID: Final = 7
_OTHER_LINES: Final = 3  # the title, the bar over all, the cursor
_STYLES: Final = {EndKind.COMPLETED: "green", EndKind.CANCELLED: "yellow", EndKind.EXPIRED: "magenta", None: "blue"}
_BAD: Final = "red"  # failed, or given up


class BatchBars:
    """Bars that are redrawn five times a second.

    Args:
        where: The server, for the title.
        console: Where to draw; by default stdout.
    """

    def __init__(self, where: str, console: Console | None = None) -> None:
        self._where = where
        self._console = Console() if console is None else console
        self._connection = ConnectionNotes()

    def noticed(self, row: BatchRow, notice: Notice) -> None:
        """Print a change of the connection above the bars; the next frame shows all else."""
        self._connection.noticed(notice)

    def ended(self, row: BatchRow, outcome: AnyOutcome[Any]) -> None:
        """Do nothing: the next frame shows the end."""

    async def show(self, board: BatchBoard) -> None:
        """Draw until cancelled, then draw a final time."""
        # Without rich's own refresh thread, which would read the board while it changes.
        with Live(console=self._console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(self.frame(board), refresh=True)
                    await anyio.sleep(_FRAME_S)
            finally:
                live.update(self.frame(board), refresh=True)

    def close(self, board: BatchBoard) -> None:
        """Print why batches did not complete, and how many ended in which way."""
        for row in board.rows.values():
            if row.note:
                self._console.print(Text(f"{on_one_line(row.batch_id)} {row.shown_status}: {on_one_line(row.note)}"))
        say_summary(board)

    def frame(self, board: BatchBoard) -> Group:
        """Return one frame of the board for the terminal's current size."""
        width, height = self._console.size
        rows = board.choose(max(height - _OTHER_LINES, 1))
        # A terminal shows Ctrl-C as "^C" behind the last line; if that is full, it would begin another one.
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False, width=width - len("^C"))
        longest = max((len(on_one_line(row.batch_id)) for row in rows), default=0)
        table.add_column(width=longest if width >= _WIDE else _SHORT_ID + 1, no_wrap=True)
        table.add_column(width=11, no_wrap=True)
        table.add_column(ratio=1, min_width=4)
        table.add_column(no_wrap=True, justify="right")
        if width >= _NARROW:
            table.add_column(no_wrap=True, justify="right")
        for row in rows:
            table.add_row(*_cells(row, width))
        ended = len(board.rows) - len(board.open)
        style = "blue" if board.open else "green"
        table.add_row(*_line(Text("all"), Text(f"{ended}/{len(board.rows)} ended"), board.counts, style, width))
        return Group(self._title(board, shown=len(rows)), table)

    def _title(self, board: BatchBoard, *, shown: int) -> Text:
        part = f" ({shown} shown)" if shown < len(board.rows) else ""
        title = Text("asyncruns batch", style="bold", no_wrap=True, overflow="ellipsis")
        title.append(f"  {board.seconds:.0f} s  {counted(len(board.rows), 'batch', 'batches')}{part}", style="not bold")
        return title.append(f"  {self._where}", style="not bold")


def _cells(row: BatchRow, width: int) -> tuple[Any, ...]:
    shown = on_one_line(row.batch_id)
    batch_id = shown if width >= _WIDE or len(shown) <= _SHORT_ID else "…" + shown[-_SHORT_ID:]
    style = _STYLES.get(row.end, _BAD)
    status = Text(on_one_line(row.shown_status), style=style, overflow="ellipsis")
    return _line(Text(batch_id), status, row.counts or NO_COUNTS, style, width)


def _line(name: Text, status: Text, counts: Counts, style: str, width: int) -> tuple[Any, ...]:
    ended = counts.done + counts.failed
    # A total of 0 would be drawn as full.
    bar = ProgressBar(total=counts.total or 1, completed=ended, complete_style=style, finished_style=style)
    failed = Text(f"{counts.failed} failed" if counts.failed else "", style=_BAD)
    cells = (name, status, bar, Text(f"{ended}/{counts.total}" if counts.total else "-"))
    return (*cells, failed) if width >= _NARROW else cells
