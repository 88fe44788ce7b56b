"""The live table of `asyncruns monitor`: what is drawn, what keys do, and what is left of it in the terminal."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from rich.cells import cell_len
from rich.console import Console

from asyncruns import Client, Fleet, RunRef
from asyncruns.cli import keyboard
from asyncruns.cli.canvas import Canvas, fitted, padded
from asyncruns.cli.monitor_board import MonitorBoard
from asyncruns.cli.monitor_frame import Frame
from asyncruns.cli.monitor_rows import Group, MonitorRow
from asyncruns.cli.monitor_screen import Aside, MonitorScreen
from asyncruns.cli.shown import ShownRun
from asyncruns.errors import APIConnectionError
from asyncruns.lifecycle import Connectivity, ConnectivityChanged, Counts, Phase, StatusChanged
from asyncruns.testing import Emulator, FunctionCall, Scenario

EVIL: Final = "a\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp.exe\r\x7f\x08[red]b"
CODES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
RAW: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]")
CALLS: Final = ((FunctionCall("get_weather", {"city": "Paris"}),),)
ENTERED, LEFT = b"\x1b[?1049h", b"\x1b[?25h\x1b[?1049l"


def seen(board: MonitorBoard, number: int, status: str, phase: Phase, created_at: float = 0.0) -> MonitorRow:
    key = f"thread.run/{number}"
    row = board.rows.get(key) or board.add(key, RunRef("thread.run", (f"thread_{number:024}", f"run_{number:024}")))
    run = {"created_at": created_at or 1000.0 + number}
    board.note(row, StatusChanged(at=2000.0, status=status, phase=phase, previous=None, run=_Run(**run)))
    return row


class _Run:
    def __init__(self, created_at: float) -> None:
        self.created_at = created_at


@pytest.fixture
async def fleet() -> Any:
    async with Client("http://127.0.0.1:1/v1") as client, Fleet(client, on_exit="leave") as fleet:
        yield fleet


def board_of(count: int) -> MonitorBoard:
    board = MonitorBoard()
    for number in range(count):
        seen(board, number, "in_progress", Phase.RUNNING)
    return board


def texts(frame: Frame, board: MonitorBoard, fleet: Any, width: int, height: int) -> list[str]:
    canvas = Canvas(Console(file=io.StringIO(), width=width, height=height, color_system=None))
    return [canvas.text_of(line, width).rstrip() for line in frame.lines(board, fleet, width, height)]


@pytest.mark.parametrize(("width", "height"), [(40, 12), (80, 24), (200, 50), (20, 5), (3, 2), (1, 1)])
@pytest.mark.parametrize("count", [0, 1, 300])
async def test_a_frame_fits_the_terminal(fleet: Any, width: int, height: int, count: int) -> None:
    board, frame = board_of(count), Frame("http://host.example/v1")
    for row in list(board.rows.values())[::3]:
        row.note = "a long note 全角 " * 20
    for _ in range(2):
        lines = texts(frame, board, fleet, width, height)
        assert len(lines) <= max(height, 1)
        assert max(map(cell_len, lines)) <= width
    lines = texts(frame, board, fleet, width, height)
    if height >= 12:
        assert len(lines) == height
        assert lines[0].startswith("asyncruns monitor")
        assert sum("in_progress" in line for line in lines[:-2]) == min(count, height - 5)


async def test_what_needs_its_caller_comes_first_then_what_failed_then_the_oldest(fleet: Any) -> None:
    board = board_of(10_000)
    for number, status, phase in ((700, "requires_action", Phase.NEEDS_CALLER), (30, "failed", Phase.FAILED)):
        seen(board, number, status, phase)
    board.unwatchable(board.rows["thread.run/30"], "no such thing")
    seen(board, 9000, "in_progress", Phase.RUNNING, created_at=1.0)
    lines = texts(Frame("x"), board, fleet, 200, 24)
    ids = [int(found[1]) for line in lines if (found := re.search(r"run_0*(\d+)", line))]
    assert ids[:4] == [700, 30, 9000, 0]
    assert "10,000 runs, 1 ended, 1 needs the caller, 1 failed" in lines[0]
    assert lines[-2] == "9,998 in_progress  1 requires_action  1 not watched"


@pytest.mark.parametrize("width", [80, 200])
async def test_nothing_of_a_server_controls_the_terminal(fleet: Any, width: int) -> None:
    board = MonitorBoard()
    row = board.add("x", RunRef("response", (EVIL,)))
    board.note(row, StatusChanged(at=1.0, status=EVIL * 99, phase=Phase.UNKNOWN, previous=None, run=_Run(5.0)))
    board.calls(row, [])
    board.unwatchable(row, EVIL * 9999)
    board.unreached["x"] = "cause"
    shown = "\n".join(texts(Frame(EVIL), board, fleet, width, 24))
    assert not RAW.search(shown)
    assert len(row.note) < 1000


async def test_a_filter_and_a_group_choose_rows(fleet: Any) -> None:
    board, frame = board_of(50), Frame("x")
    seen(board, 7, "requires_action", Phase.NEEDS_CALLER)
    frame.filter = "ACTION run_0"
    assert [row.key for row in board.choose(50, frame.filter.lower().split())] == ["thread.run/7"]
    lines = texts(frame, board, fleet, 200, 24)
    assert sum("run_0" in line for line in lines[:-2]) == 1
    assert lines[-1].startswith("filter: ACTION run_0")
    frame.filter, frame.only = "", Group.ENDED
    assert not any("run_0" in line for line in texts(frame, board, fleet, 200, 24)[:-2])


async def test_the_selection_stays_with_its_row_or_its_place(fleet: Any) -> None:
    board, frame = board_of(60), Frame("x")
    texts(frame, board, fleet, 200, 24)
    frame.select(board, 40)
    assert frame.selected(board) is board.rows["thread.run/40"]
    assert sum(line.startswith("> ") for line in texts(frame, board, fleet, 200, 24)) == 1
    seen(board, 50, "requires_action", Phase.NEEDS_CALLER)  # now above it
    assert frame.selected(board) is board.rows["thread.run/40"]
    texts(frame, board, fleet, 200, 24)
    board.unwatchable(board.rows["thread.run/40"], "it goes away")
    assert frame.selected(board) is board.rows["thread.run/39"]  # the one that is in its place


async def test_a_paused_table_stands_still_and_what_is_marked_is_what_keys_act_on(fleet: Any) -> None:
    board, frame = board_of(30), Frame("x")
    texts(frame, board, fleet, 200, 24)
    frame.pause(board)
    seen(board, 9, "requires_action", Phase.NEEDS_CALLER)  # now the first one
    marked = [line for line in texts(frame, board, fleet, 200, 24) if line.startswith("> ")]
    assert "run_000000000000000000000000" in marked[0]
    assert frame.selected(board) is board.rows["thread.run/0"]
    frame.select(board, 9)
    (line,) = [line for line in texts(frame, board, fleet, 200, 24) if line.startswith("> ")]
    assert "run_000000000000000000000009 in_progress" in line
    assert frame.selected(board) is board.rows["thread.run/9"]
    assert len(texts(frame, board, fleet, 200, 10)) == 10  # a smaller terminal
    frame.filter = "run_000000000000000000000011"
    assert frame.selected(board) is board.rows["thread.run/11"]
    frame.filter = ""
    frame.pause(board)
    assert frame.selected(board) is not None
    assert "1 needs the caller" in texts(frame, board, fleet, 200, 24)[0]


def test_a_watch_that_goes_on_with_another_run_can_be_polled_until_the_opposite_is_known() -> None:
    board = board_of(1)
    (row,) = board.rows.values()
    lost = ConnectivityChanged(at=1.0, connectivity=Connectivity.LOST, cause=OSError("gone"))
    board.note(row, lost)
    assert board.unreached
    row.note, row.progress = "1 call: get_weather", Counts(done=1, failed=0, total=2)
    board.moved(row, RunRef("response", ("resp_2",)))
    assert not board.unreached
    assert row.remark == ""


def test_only_lines_that_changed_are_written() -> None:
    out = io.StringIO()
    canvas = Canvas(Console(file=out, width=20, height=5, color_system=None))
    canvas.draw([[("one", "")], [("two", "bold")]])
    out.truncate(out.seek(0))
    canvas.draw([[("one", "")], [("three", "")], [("x" * 30, "")]])
    assert out.getvalue() == f"\x1b[2;1Hthree \x1b[K\x1b[3;1H{'x' * 19}…"
    out.truncate(out.seek(0))
    canvas.draw([[("one", "")]])
    assert out.getvalue() == "\x1b[2;1H\x1b[K\x1b[3;1H\x1b[K"


def test_texts_are_cut_by_columns() -> None:
    assert (fitted("abcdef", 4), fitted("全角文字", 5), fitted("abc", 0)) == ("abc…", "全角…", "…")
    assert padded("全角", 6) == "全角  "


def test_keys_are_named_and_unknown_sequences_are_left_out() -> None:
    text = "j\x1b[A\x1bOB\x1b[5~\x1b[1;5C\r\x7fé\x1b[200~\t\x00\x1b"
    assert keyboard.keys_in(text) == ["j", "up", "down", "page up", "enter", "backspace", "é", "tab", "escape"]


def test_stderr_is_kept_and_bounded() -> None:
    told: list[str] = []
    aside = Aside(told.append)
    for number in range(300):
        aside.write(f"asyncruns: line {number}\n")
    assert (len(aside.lines), aside.dropped, told[-1]) == (100, 200, "line 299")


class Source:
    """Notes what the keys ask for."""

    def __init__(self, fleet: Any) -> None:
        self.fleet = fleet
        self.cancelled: list[MonitorRow] = []

    async def cancel(self, row: MonitorRow) -> str:
        self.cancelled.append(row)
        return "done"

    async def fetch(self, row: MonitorRow) -> ShownRun:
        raise APIConnectionError(EVIL, sent=False)


async def test_keys(fleet: Any) -> None:
    board, source = board_of(30), Source(fleet)
    screen = MonitorScreen(source, "x", Console(file=io.StringIO(), width=80, height=24, color_system=None))
    showing = asyncio.create_task(screen.show(board))
    await asyncio.sleep(0.1)

    async def press(*keys: str) -> str:
        screen._pressed(list(keys))
        await asyncio.sleep(0.1)
        return "\n".join(texts(screen._frame, board, fleet, 80, 24))

    assert "cancel run_" in await press("j", "c", "y")  # pasted: not an answer
    assert "nothing was cancelled" in await press("c", "y")
    assert source.cancelled == []
    await press("c")
    assert "done" in await press("y")
    assert source.cancelled == [board.rows["thread.run/1"]]
    assert r"a\x1b[31mred" in await press("enter")
    assert "asyncruns monitor" in await press("escape")
    assert "/run_0_" in await press("/", "r", "u", "n", "_", "0", "x", "backspace")
    assert "filter: run_0" in await press("enter")
    assert "only: needs caller" in await press("tab")
    assert "Ctrl-C to leave" in await press("escape")  # it has no keyboard
    assert "paused" in await press("p")
    seen(board, 3, "requires_action", Phase.NEEDS_CALLER)
    assert "1 needs the caller" not in await press("x")
    assert "1 needs the caller" in await press("p")
    await press("q")
    await showing


# In a terminal


class Terminal:
    """A process in a pseudo-terminal."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, slave: int) -> None:
        self.process, self.master, self.slave, self.output = process, master, slave, b""
        self.before = termios.tcgetattr(slave)

    def until(self, words: bytes, patience: float = 15.0) -> bytes:
        """Read until these words come; return what came since they were last waited for."""
        begun, deadline = len(self.output), time.monotonic() + patience
        while words not in self.output[begun:] and time.monotonic() < deadline:
            try:
                self.output += os.read(self.master, 1 << 16)
            except BlockingIOError:
                time.sleep(0.01)
        assert words in self.output[begun:], self.output[begun:][-2000:]
        return self.output[begun:]

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def ended(self) -> int:
        code = self.process.wait(15)
        while True:
            try:
                self.output += os.read(self.master, 1 << 16)
            except (BlockingIOError, OSError):
                return code

    @property
    def is_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before and self.output.count(ENTERED) == self.output.count(LEFT)


@contextmanager
def terminal(*arguments: str, **environment: str) -> Iterator[Terminal]:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.set_blocking(master, False)
    begin = "import os, termios; os.setsid(); import fcntl; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    code = f"{begin} import sys; from asyncruns.cli import main; sys.exit(main())"
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")
    }  # xdist sets them
    process = subprocess.Popen(
        [sys.executable, "-c", code, "monitor", *arguments],
        stdin=slave, stdout=slave, stderr=slave, env={**inherited, "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    try:
        yield Terminal(process, master, slave)
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


async def runs_on(emulator: Emulator, *scenarios: Scenario) -> list[str]:
    names = []
    async with Client(emulator.base_url) as client:
        for scenario in scenarios:
            emulator.script(scenario, assistant_id="asst_1")
            thread = await client.threads.create(messages=[{"role": "user", "content": "Hi"}])
            run = await client.threads.runs.create(thread.id, assistant_id="asst_1")
            names.append(f"{thread.id}/{run.id}")
    return names


@pytest.mark.slow
@pytest.mark.real_time
async def test_in_a_terminal_keys_work_and_all_is_restored(emulator: Emulator) -> None:
    names = await runs_on(emulator, Scenario(rounds=CALLS), Scenario(end="never"))

    def session() -> None:
        with terminal(*names, "--base-url", emulator.base_url) as shown:
            shown.until(b"1 call: get_weather")
            shown.press(b"\r")
            shown.until(b"it waits for outputs of the caller")
            shown.press(b"\x1b")
            shown.until(b"asyncruns monitor")
            fcntl.ioctl(shown.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 40, 0, 0))
            os.kill(shown.process.pid, signal.SIGWINCH)
            shown.until(b"\x1b[2J")
            shown.press(b"c")
            shown.until(b"y: yes")
            shown.press(b"y")
            shown.until(b"1 cancelled")
            shown.press(b"\x1a")  # Ctrl-Z
            shown.until(LEFT)
            assert os.waitpid(shown.process.pid, os.WUNTRACED)[1] == 0x137F  # stopped by SIGSTOP
            assert shown.is_restored
            os.kill(shown.process.pid, signal.SIGCONT)
            shown.until(ENTERED)
            shown.press(b"q")
            shown.until(LEFT)
            assert shown.ended() == 3
            assert shown.is_restored
            after = shown.output.rpartition(LEFT)[2]
            assert b"2 runs: 1 cancelled\r\nasyncruns: 1 run still open" in after

    await asyncio.to_thread(session)


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.parametrize(("keys", "number", "code"), [(b"\x03", None, 130), (b"", signal.SIGTERM, 143)])
async def test_a_signal_restores_the_terminal(
    emulator: Emulator, keys: bytes, number: signal.Signals | None, code: int
) -> None:
    names = await runs_on(emulator, Scenario(end="never"))

    def session() -> None:
        with terminal(*names, "--base-url", emulator.base_url) as shown:
            shown.until(b"1 in_progress")
            shown.press(keys)
            if number is not None:
                shown.process.send_signal(number)
            shown.until(LEFT)
            assert shown.ended() == code
            assert shown.is_restored

    await asyncio.to_thread(session)


@pytest.mark.slow
@pytest.mark.real_time
async def test_no_color_and_a_dumb_terminal(emulator: Emulator) -> None:
    names = await runs_on(emulator, Scenario(rounds=CALLS))

    def session() -> None:
        with terminal(*names, "--base-url", emulator.base_url, NO_COLOR="1") as shown:
            text = shown.until(b"requires_action")
            assert not re.search(rb"\x1b\[[0-9;]*3[0-9]m", text)
            shown.press(b"q")
            shown.ended()
        with terminal(*names, "--base-url", emulator.base_url, TERM="dumb") as shown:
            assert b"\x1b" not in shown.until(b"requires_action")

    await asyncio.to_thread(session)


@pytest.mark.slow
@pytest.mark.real_time
async def test_a_terminal_that_is_closed_ends_it(emulator: Emulator) -> None:
    names = await runs_on(emulator, Scenario(end="never"))

    def session() -> None:
        begin = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"  # as `nohup` does
        master, slave = os.openpty()
        code = f"{begin}; import os, fcntl, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        code += "import sys; from asyncruns.cli import main; sys.exit(main())"
        process = subprocess.Popen(
            [sys.executable, "-c", code, "monitor", *names, "--base-url", emulator.base_url],
            stdin=slave, stdout=slave, stderr=subprocess.PIPE, env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        os.close(slave)
        while b"in_progress" not in os.read(master, 1 << 16):
            pass
        os.close(master)
        _, err = process.communicate(timeout=15)
        assert b"Traceback" not in err
        assert process.returncode in (0, 141), err
        assert b"Exception" not in err

    await asyncio.to_thread(session)
