"""What `asyncruns monitor` draws: the lines of a frame. Imports rich, for widths. Does no I/O."""

from __future__ import annotations

import io
import time
from collections import deque
from typing import Any, Final, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from asyncruns.cli.batch_board import progress_text
from asyncruns.cli.canvas import Line, fitted, padded
from asyncruns.cli.monitor_board import MonitorBoard
from asyncruns.cli.monitor_rows import Group, MonitorRow
from asyncruns.cli.monitor_views import counted_runs
from asyncruns.cli.output import on_one_line
from asyncruns.cli.reap_rows import age_text
from asyncruns.cli.sheet import Sheet
from asyncruns.cli.show_sheet import print_shown
from asyncruns.cli.shown import ShownRun
from asyncruns.cli.times import span
from asyncruns.fleet import Fleet
from asyncruns.fleet.statistics import Statistics

_STATUS_WIDTH: Final = 15
_AGE_WIDTH: Final = 10
_MARK: Final = "> "
_SHORT_ID: Final = 7
_LEAST_NOTE: Final = 40  # columns: with less room, ids are shortened
_NARROW: Final = 60  # columns, below which the time in the status is left out
_BAR_WIDTH: Final = 20
_RATES_OVER_S: Final = 30.0
_NUMBERS_EVERY_S: Final = 4.0
_STYLES: Final = {Group.NEEDS_CALLER: "bold cyan", Group.FAILED: "red", Group.ACTIVE: "", Group.ENDED: "green"}
_QUESTION: Final = "cancel {}? y: yes; other keys: no"
_KEYS: Final = "q quit  / filter  Tab group  Enter show  c cancel  p pause  arrows move  Esc all"
_KEYS_OF_DETAILS: Final = "Esc back  r fetch again  c cancel  arrows scroll"


class Selected(NamedTuple):
    """A row that was selected, with its group and its place then."""

    row: MonitorRow
    group: Group
    place: int


class Frame:
    """What is to be drawn, and the lines for it.

    Args:
        where: The server, for the title.

    Attributes:
        filter: Only rows with these words are shown.
        only: Only rows of this group are shown; None for all.
        is_typing: Whether the filter is being typed.
        asked: The run that the user is asked whether to cancel; None for none.
        message: What to tell the user; "" for nothing.
        details: The lines about one run, in place of the table; None for the table.
        opened: That run.
        scroll: The number of its lines that are above the screen.
        has_keys: Whether there is a keyboard.
        room: The number of rows of the table that the last frame had.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self.filter = ""
        self.only: Group | None = None
        self.is_typing = False
        self.asked: MonitorRow | None = None
        self.message = ""
        self.details: list[Line] | None = None
        self.opened: MonitorRow | None = None
        self.scroll: int = 0
        self.has_keys = True
        self.room: int = 1
        self._top = 0
        self._selected: Selected | None = None
        self._paused: list[Line] | None = None
        self._table: list[Line] = []
        self._began = time.monotonic()
        self._samples: deque[tuple[float, int, int]] = deque()
        self._numbers: Statistics | None = None
        self._numbers_at = 0.0

    def lines(self, board: MonitorBoard, fleet: Fleet[Any], width: int, height: int) -> list[Line]:
        """Return the lines of one frame."""
        if self.details is not None:
            return self._details(width, height)
        if self._paused is None:
            self._table = self._head(board, self._statistics(fleet))
            last = [self._counts(board)]
            self.room = max(height - len(self._table) - len(last) - 2, 1)  # without the headings and the foot
            self._table += [*self._rows(board, width), *last]
        shown = self._table[: height - 1]
        return [*shown, self._foot(width)]

    def select(self, board: MonitorBoard, steps: int) -> None:
        """Select the row that is so many rows below the selected one, or above it."""
        rows = board.choose(len(board.rows), self._words(), self.only)
        place = min(max(self._place_in(rows) + steps, 0), len(rows) - 1)
        self._selected = Selected(rows[place], rows[place].group, place) if rows else None

    def unselect(self) -> None:
        """Select the first row, whichever that is."""
        self._selected = None

    def selected(self, board: MonitorBoard) -> MonitorRow | None:
        """Return the selected row; None if no row is shown."""
        rows = board.choose(len(board.rows), self._words(), self.only)
        return rows[self._place_in(rows)] if rows else None

    def _place_in(self, rows: list[MonitorRow]) -> int:
        """Return the place of the selected row; if it has gone to another group, the selection stays where it was."""
        chosen = self._selected
        if chosen is None:
            return 0
        if chosen.row.group is chosen.group and chosen.row in rows:
            return rows.index(chosen.row)
        return max(min(chosen.place, len(rows) - 1), 0)

    def pause(self, board: MonitorBoard) -> None:
        """Freeze the table, or let it go on."""
        self._paused = self._table if self._paused is None else None

    def _words(self) -> list[str]:
        return self.filter.lower().split()

    def _statistics(self, fleet: Fleet[Any]) -> Statistics:
        """Return the statistics of the fleet, a few seconds old: they take some milliseconds for 10,000 runs."""
        now = time.monotonic()
        if self._numbers is None or now - self._numbers_at >= _NUMBERS_EVERY_S:
            self._numbers, self._numbers_at = fleet.statistics(), now
        return self._numbers

    def _head(self, board: MonitorBoard, numbers: Statistics) -> list[Line]:
        total = len(board.rows)
        needing, failed = board.number_in(Group.NEEDS_CALLER), board.number_in(Group.FAILED)
        title = [("asyncruns monitor", "bold"), (f"  {counted_runs(total)}, {board.ended:,} ended", "")]
        if needing:
            title.append((f", {needing:,} need{'s' if needing == 1 else ''} the caller", "bold cyan"))
        if failed:
            title.append((f", {failed:,} failed", "red"))
        title.append((f"  {span(round(time.monotonic() - self._began))}  {on_one_line(self._where)}", "dim"))
        head: list[Line] = [title, [*_bar(board, total, failed), *self._rates(board, numbers)]]
        if board.unreached:
            cause = next(reversed(board.unreached.values()))
            head.append([(f"{counted_runs(len(board.unreached))} can't be polled: {cause}", "red")])
        return head

    def _rates(self, board: MonitorBoard, numbers: Statistics) -> Line:
        if not self._samples or self._samples[-1][0] != self._numbers_at:
            self._samples.append((self._numbers_at, numbers.polls, board.ended))
        while len(self._samples) > 2 and self._numbers_at - self._samples[0][0] > _RATES_OVER_S:
            self._samples.popleft()
        then, polls, ended = self._samples[0]
        took = max(time.monotonic() - then, 1.0)
        parts = [
            f"{max(board.ended - ended, 0) / took:.1f} ended/s",
            f"{(numbers.polls - polls) / max(self._numbers_at - then, 1.0):.0f} polls/s",
        ]
        if numbers.lag >= 1.0:
            parts.append(f"polls {span(numbers.lag)} late")
        if numbers.throttled:
            parts.append(f"{numbers.throttled:.0%} refused for their rate")
        if numbers.progress is not None:
            parts.append(progress_text(numbers.progress))
        return [("  " + "  ".join(parts), "")]

    def _rows(self, board: MonitorBoard, width: int) -> list[Line]:
        rows, first = self._window(board)
        longest = max((cell_len(row.name) for row in rows), default=0)
        has_times = width >= _NARROW
        room = width - len(_MARK) - _STATUS_WIDTH - 2 - (_AGE_WIDTH + 1) * (1 + has_times) - _LEAST_NOTE
        names, name_width = _names(rows, longest, room)
        columns = [padded("run", name_width), padded("status", _STATUS_WIDTH), padded("age", _AGE_WIDTH)]
        columns += [padded("for", _AGE_WIDTH)] if has_times else []
        lines: list[Line] = [[(" " * len(_MARK) + " ".join(columns) + " note", "bold")]]
        now = time.time()
        for row, name in zip(rows, names, strict=True):
            style = _STYLES[row.group]
            times = [_age(now, row.created_at), *([_age(now, row.since or float("inf"))] if has_times else [])]
            lines.append(
                [
                    (_MARK if row is first and self.has_keys else " " * len(_MARK), "bold"),
                    (padded(name, name_width) + " ", "bold" if row is first and self.has_keys else ""),
                    (padded(row.status, _STATUS_WIDTH), style),
                    ("".join(f" {padded(each, _AGE_WIDTH)}" for each in times) + " ", ""),
                    (row.remark, "red" if row.group is Group.FAILED else ""),
                ]
            )
        return lines + [[]] * (self.room - len(rows))

    def _window(self, board: MonitorBoard) -> tuple[list[MonitorRow], MonitorRow | None]:
        """Return the rows to show, and that of them which is selected."""
        room = self.room
        if self._selected is None:
            self._top = 0
            rows = board.choose(room, self._words(), self.only)
            return rows, rows[0] if rows else None
        self.select(board, 0)
        rows = board.choose(len(board.rows), self._words(), self.only)
        place = self._place_in(rows)
        self._top = max(min(max(self._top, place - room + 1), place, len(rows) - room), 0)
        return rows[self._top : self._top + room], rows[place] if rows else None

    def _counts(self, board: MonitorBoard) -> Line:
        shown = "  ".join(f"{number:,} {status}" for status, number in board.statuses())
        return [(shown or "no runs yet", "dim")]

    def _foot(self, width: int) -> Line:
        if self.asked is not None:
            (name,), _ = _names([self.asked], cell_len(self.asked.name), width - len(_QUESTION.format("")))
            return [(_QUESTION.format(name), "bold yellow")]
        if self.is_typing:
            return [("/", "bold"), (fitted(self.filter, width - 2), ""), ("_", "bold")]
        parts = [("paused; p goes on  ", "bold yellow")] if self._paused is not None else []
        if self.only is not None:
            parts.append((f"only: {self.only.words}  ", "bold yellow"))
        if self.filter:
            parts.append((f"filter: {self.filter}  ", "bold yellow"))
        if self.message:
            return [*parts, (self.message, "yellow")]
        keys = _KEYS if self.details is None else _KEYS_OF_DETAILS
        return [*parts, (keys if self.has_keys else "Ctrl-C to leave", "dim")]

    def _details(self, width: int, height: int) -> list[Line]:
        lines, room = self.details or [], max(height - 1, 1)
        self.scroll = min(max(self.scroll, 0), max(len(lines) - room, 0))
        shown = lines[self.scroll : self.scroll + room]
        return [*shown, *[[]] * (room - len(shown)), self._foot(width)]


def details_lines(shown: ShownRun, width: int) -> list[Line]:
    """Return what `asyncruns show` prints of a run, as lines that are no wider than this."""
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, highlight=False, markup=False, emoji=False)
    print_shown(shown, Sheet(10, console=console))
    lines = [wrapped for line in out.getvalue().splitlines() for wrapped in Text(line.rstrip()).wrap(console, width)]
    return [[(line.plain, "bold" if number == 0 else "")] for number, line in enumerate(lines)]


def _bar(board: MonitorBoard, total: int, failed: int) -> Line:
    ended = round(_BAR_WIDTH * board.ended / total) if total else 0
    bad = min(ended, -(-_BAR_WIDTH * failed // total)) if total else 0
    share = f" {int(100 * board.ended / total) if total else 0} %"
    return [("━" * (ended - bad), "green"), ("━" * bad, "red"), ("─" * (_BAR_WIDTH - ended), "dim"), (share, "")]


def _names(rows: list[MonitorRow], longest: int, room: int) -> tuple[list[str], int]:
    """Return the names of rows and their width: whole if there is room, otherwise the last id, or its end."""
    if longest <= room:
        return [row.name for row in rows], max(longest, len("run"))
    last = [row.name.rpartition("/")[2] for row in rows]
    if (width := max(map(cell_len, last), default=0)) <= room:
        return last, width
    return [name if len(name) <= _SHORT_ID else "…" + name[-_SHORT_ID:] for name in last], _SHORT_ID + 1


def _age(now: float, then: float) -> str:
    return "-" if then == float("inf") else age_text(max(now - then, 0.0))
