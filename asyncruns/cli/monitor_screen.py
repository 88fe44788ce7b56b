"""The live table of `asyncruns monitor`, and what its keys do. Imports rich.

While it is shown, nothing else may write to the terminal: what is said on stderr becomes a line of it, and is printed
when it is left. A key never cancels a run without a question before.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Protocol

import anyio
from rich.console import Console

from asyncruns.cli import keyboard
from asyncruns.cli.canvas import Canvas, line_with
from asyncruns.cli.monitor_board import MonitorBoard
from asyncruns.cli.monitor_frame import Frame, details_lines
from asyncruns.cli.monitor_rows import Group, MonitorRow
from asyncruns.cli.monitor_views import say_end
from asyncruns.cli.output import on_one_line
from asyncruns.cli.shown import ShownRun
from asyncruns.errors import AsyncRunsError
from asyncruns.fleet import Fleet
from asyncruns.lifecycle import Notice
from asyncruns.watch.observers import Ended

_FRAME_S: Final = 1.0
_FRAME_SHARE: Final = 0.01  # the most of the time that drawing may take
_MESSAGE_S: Final = 10.0
_KEPT: Final = 100  # lines of stderr
_LONGEST_FILTER: Final = 200
_GROUPS: Final[tuple[Group | None, ...]] = (None, *Group)


class ScreenSource(Protocol):
    """What the table shows, and what its keys act on."""

    fleet: Fleet[Any]

    async def cancel(self, row: MonitorRow) -> str:
        """Cancel a run, and return what was done."""
        ...

    async def fetch(self, row: MonitorRow) -> ShownRun:
        """Fetch one run."""
        ...


class Aside(io.TextIOBase):
    """Keeps what is written to stderr while the table is shown.

    Args:
        told: Called with each line.
    """

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._rest = ""
        self.lines: list[str] = []
        self.dropped: int = 0

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._told(line.removeprefix("asyncruns: "))
            self.lines.append(line)
        self.dropped += max(len(self.lines) - _KEPT, 0)
        del self.lines[:-_KEPT]
        return len(text)


class MonitorScreen:
    """A table that is redrawn every second, and at each key.

    Args:
        source: The runs.
        where: The server, for the title.
        console: Where to draw; by default stdout.
    """

    def __init__(self, source: ScreenSource, where: str, console: Console | None = None) -> None:
        self._source = source
        self._console = Console() if console is None else console
        self._canvas = Canvas(self._console)
        self._frame = Frame(where)
        self._aside = Aside(self._say)
        self._wake = asyncio.Event()
        self._is_left = self._is_lost = False
        self._jobs: set[asyncio.Task[None]] = set()
        self._board = MonitorBoard()
        self._is_typing = False
        self._message_until = 0.0

    def happened(self, row: MonitorRow, event: Notice | Ended[Any]) -> None:
        """Do nothing: the next frame shows it."""

    async def show(self, board: MonitorBoard) -> None:
        """Draw until cancelled, or until the user leaves.

        Raises:
            BrokenPipeError: The terminal is gone.
        """
        self._board = board
        with contextlib.redirect_stderr(self._aside), keyboard.terminal() as descriptor, contextlib.ExitStack() as held:
            self._frame.has_keys = descriptor is not None
            keys = None if descriptor is None else keyboard.Keyboard(descriptor, self._pressed, self._lose)
            self._enter(held, keys)
            with _signals({signal.SIGWINCH: self._wake.set, signal.SIGTSTP: lambda: self._suspend(held, keys)}):
                try:
                    await self._draw_on()
                finally:
                    for job in self._jobs:
                        job.cancel()

    def close(self, board: MonitorBoard) -> None:
        """Print which runs failed or need their caller, how many ended in which way, and what was said on stderr."""
        say_end(board, with_rows=True)
        if self._aside.dropped:
            self._aside.lines.insert(0, f"asyncruns: {self._aside.dropped} earlier lines are left out")
        for line in self._aside.lines:
            print(line, file=sys.stderr, flush=True)

    def _enter(self, held: contextlib.ExitStack, keys: keyboard.Keyboard | None) -> None:
        held.enter_context(self._canvas.entered())
        if keys is not None:
            held.enter_context(keys.reading())

    def _suspend(self, held: contextlib.ExitStack, keys: keyboard.Keyboard | None) -> None:
        """Stop the process, with the terminal as it was before (Ctrl-Z)."""
        held.close()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter(held, keys)
        self._canvas.forget()
        self._wake.set()

    async def _draw_on(self) -> None:
        while not self._is_left:
            self._wake.clear()
            began = time.thread_time()
            self.draw()
            with anyio.move_on_after(max(_FRAME_S, (time.thread_time() - began) / _FRAME_SHARE)):
                await self._wake.wait()
        if self._is_lost:
            raise BrokenPipeError("The terminal is gone")

    def draw(self) -> None:
        """Draw one frame.

        Raises:
            BrokenPipeError: The terminal is gone.
        """
        if time.monotonic() > self._message_until:
            self._frame.message = ""
        width, height = self._canvas.size
        self._canvas.draw(self._frame.lines(self._board, self._source.fleet, width, height))

    def _leave(self) -> None:
        self._is_left = True
        self._wake.set()

    def _lose(self) -> None:
        self._is_lost = True
        self._leave()

    def _say(self, text: str) -> None:
        self._frame.message, self._message_until = on_one_line(text), time.monotonic() + _MESSAGE_S

    # Keys

    def _pressed(self, keys: list[str]) -> None:
        self._frame.message = ""
        if self._frame.asked is not None:
            self._answer(keys)
        else:
            for key in keys:
                if self._is_typing:
                    self._type(key)
                elif self._frame.details is not None:
                    self._in_details(key)
                else:
                    self._in_table(key)
                if self._frame.asked is not None:
                    break  # the rest was pasted: it does not answer the question
        self._wake.set()

    def _answer(self, keys: list[str]) -> None:
        row, self._frame.asked = self._frame.asked, None
        if keys == ["y"] and row is not None:
            self._perform(self._cancel(row))
        else:
            self._say("nothing was cancelled")

    def _type(self, key: str) -> None:
        frame = self._frame
        if key == keyboard.ENTER:
            self._is_typing = frame.is_typing = False
        elif key == keyboard.ESCAPE:
            self._is_typing = frame.is_typing = False
            frame.filter = ""
        elif key == keyboard.BACKSPACE:
            frame.filter = frame.filter[:-1]
        elif len(key) == 1:
            frame.filter = (frame.filter + key)[:_LONGEST_FILTER]

    def _in_table(self, key: str) -> None:
        frame, page = self._frame, max(self._frame.room - 1, 1)
        steps = {
            keyboard.UP: -1, "k": -1, keyboard.DOWN: 1, "j": 1, keyboard.PAGE_UP: -page, keyboard.PAGE_DOWN: page,
            keyboard.HOME: -len(self._board.rows), keyboard.END: len(self._board.rows),
        }  # fmt: skip
        if key in steps:
            frame.select(self._board, steps[key])
        elif key == "q":
            self._leave()
        elif key == "/":
            self._is_typing = frame.is_typing = True
        elif key == keyboard.TAB:
            frame.only = _GROUPS[(_GROUPS.index(frame.only) + 1) % len(_GROUPS)]
        elif key == keyboard.ESCAPE:
            frame.filter, frame.only = "", None
            frame.unselect()
        elif key in ("p", " "):
            frame.pause(self._board)
        elif key == keyboard.REDRAW:
            self._canvas.forget()
        elif key in (keyboard.ENTER, "c") and (row := frame.selected(self._board)) is not None:
            if key == "c":
                frame.asked = row
            else:
                self._open(row)

    def _in_details(self, key: str) -> None:
        frame, page = self._frame, max(self._canvas.size[1] - 3, 1)
        steps = {
            keyboard.UP: -1, "k": -1, keyboard.DOWN: 1, "j": 1, keyboard.PAGE_UP: -page, keyboard.PAGE_DOWN: page,
            " ": page, keyboard.HOME: -(1 << 30), keyboard.END: 1 << 30,
        }  # fmt: skip
        if key in steps:
            frame.scroll += steps[key]  # the frame keeps it within the text
        elif key in (keyboard.ESCAPE, keyboard.ENTER, "q"):
            frame.details = frame.opened = None
        elif key == "r" and frame.opened is not None:
            self._open(frame.opened)
        elif key == "c" and frame.opened is not None:
            frame.asked = frame.opened

    def _open(self, row: MonitorRow) -> None:
        self._frame.opened, self._frame.scroll = row, 0
        self._frame.details = [line_with(f"{row.name}: being fetched", "dim")]
        self._perform(self._fetch(row))

    async def _cancel(self, row: MonitorRow) -> None:
        self._say(f"{row.name}: {await self._source.cancel(row)}")
        self._wake.set()

    async def _fetch(self, row: MonitorRow) -> None:
        try:
            lines = details_lines(await self._source.fetch(row), self._canvas.size[0])
        except AsyncRunsError as error:
            lines = [line_with(on_one_line(str(error)), "red")]
        if self._frame.opened is row:
            self._frame.details = lines
            self._wake.set()

    def _perform(self, work: Awaitable[None]) -> None:
        job = asyncio.ensure_future(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)


@contextlib.contextmanager
def _signals(handlers: dict[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Handle signals in the event loop while the block is entered."""
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
