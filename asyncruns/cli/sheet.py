"""Rows for people: some short cells, then a text that is wrapped under itself, in colours; plain lines in a pipe.

It prints nothing that a server wrote as it is: control characters are escaped, and markup is not interpreted.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

from asyncruns.cli.output import on_one_line, say, shortened
from asyncruns.wire.shown_text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_GAP: Final = 2
_LEAST_TEXT: Final = 32  # columns: with less room beside the other cells, the text has lines of its own


def styled_console() -> Console | None:
    """Return a console if stdout is a terminal that takes colours and `rich` is installed; otherwise None.

    `rich` itself leaves colours out if NO_COLOR is set.
    """
    if sys.stdout is None or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return None
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return None
    return Console(highlight=False, markup=False, emoji=False)


class Sheet:
    """Prints rows whose last cell is wrapped.

    Args:
        widths: The widths of all cells but the last, in columns.
        console: Where to draw; by default stdout if it is a terminal, otherwise rows are plain lines.
    """

    def __init__(self, *widths: int, console: Console | None = None) -> None:
        self._widths = widths
        self._console = styled_console() if console is None else console

    def row(self, *cells: str, style: str = "", styled: int = 0) -> None:
        """Print a row; the style is that of the cell with the number `styled`."""
        *short, text = map(shortened, cells)
        padded = [cell.ljust(width) for cell, width in zip(short, self._widths, strict=True)]
        if self._console is None:
            say((" " * _GAP).join([*padded, text]).rstrip())
        elif self._console.width - sum(self._widths) - _GAP * len(short) < _LEAST_TEXT:
            self._draw_in_two(self._console, _styled(short, style, styled), text)
        else:
            self._draw(self._console, _styled(short, style, styled), text)

    def title(self, text: str) -> None:
        """Print a line in bold, which is not wrapped, so that ids in it can be copied."""
        self._whole(on_one_line(text), "bold")

    def block(self, text: str) -> None:
        """Print a text of several lines, each indented, so that none passes for a row."""
        for line in visible(text).splitlines():
            self._whole(" " * _GAP + line, "")

    def _whole(self, line: str, style: str) -> None:
        if self._console is None:
            say(line)
        else:
            self._console.print(line, style=style or None, soft_wrap=True)

    def _draw(self, console: Console, short: list[Text], text: str) -> None:
        from rich.table import Table
        from rich.text import Text

        table: Any = Table.grid(padding=(0, _GAP, 0, 0), expand=True)
        for width in self._widths:
            table.add_column(width=width, no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=1, overflow="fold")
        table.add_row(*short, Text(text))
        console.print(table)

    def _draw_in_two(self, console: Console, short: list[Text], text: str) -> None:
        from rich.cells import cell_len
        from rich.padding import Padding
        from rich.text import Text

        head = Text(" " * _GAP).join(cell for cell in short if cell)
        if head.cell_len > console.width:  # the first cell has an id, which stays whole, so that it can be copied
            text = (" " * _GAP).join([*(cell.plain for cell in short[1:] if cell), text])
            head = short[0]
        if head and text and head.cell_len + _GAP + cell_len(text) <= console.width:
            head.append(" " * _GAP + text)
            text = ""
        if head:
            console.print(head, soft_wrap=True)
        if text:
            console.print(Padding(Text(text, overflow="fold"), (0, 0, 0, _GAP)))


def _styled(cells: list[str], style: str, styled: int) -> list[Text]:
    from rich.text import Text

    return [Text(cell, style if place == styled else "") for place, cell in enumerate(cells)]
