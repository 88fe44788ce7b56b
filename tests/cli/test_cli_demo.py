"""`asyncruns demo` in virtual time: every run ends as expected, nothing is left behind, and the table fits."""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from rich.console import Console

from asyncruns import BearerAuth, Client, ConfigurationError
from asyncruns.cli import demo as demo_module
from asyncruns.cli.board import Board, Row
from asyncruns.cli.demo import Settings, demo
from asyncruns.cli.demo_runs import demo_scenario, expected_of, question_of, scenario_of
from asyncruns.cli.table import TableView
from asyncruns.cli.views import PlainView
from asyncruns.lifecycle import EndKind
from asyncruns.testing import Emulator, Scenario, VirtualTimeLoop
from asyncruns.testing.emulator import RunRequest, SeenRequest

DEFAULT_RUNS = 36


def settings(runs: int, *, timeout: float = 60.0) -> Settings:
    return Settings(runs=runs, model="gpt-4o-mini", timeout=timeout)


def deleted(requests: list[SeenRequest]) -> Counter[str]:
    """Return how many assistants and threads were deleted."""
    return Counter(seen.path.split("/")[2] for seen in requests if seen.method == "DELETE" and seen.status == 200)


async def test_every_run_ends_as_its_scenario_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert await demo(settings(DEFAULT_RUNS), PlainView()) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    ends = Counter(expected_of(number)[0] for number in range(DEFAULT_RUNS))
    calls = sum(expected_of(number)[1] for number in range(DEFAULT_RUNS))
    assert lines[-3].startswith("36 runs in ")
    assert lines[-3].endswith(
        f"{ends[EndKind.COMPLETED]} completed, {ends[EndKind.FAILED]} failed, 1 expired, 1 incomplete"
    )
    assert lines[-2].startswith(f"{calls} tool calls in ")
    assert lines[-1] == "All ended as their scenarios say."
    assert err == ""


async def test_a_line_has_the_time_the_run_and_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    await demo(settings(1), PlainView())
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "run_" in line]
    assert lines[0][1:5] == ["s", lines[0][2], "weather", "queued"]
    assert lines[-1][4] == "completed"
    assert lines[-1][5:]  # the answer
    times = [float(line[0]) for line in lines]
    assert times == sorted(times)


def test_the_demo_is_short_and_varied() -> None:
    scenarios = [scenario_of(number) for number in range(DEFAULT_RUNS)]
    assert {len(scenario.rounds) for scenario in scenarios} == {0, 1, 2}
    assert {len(calls) for scenario in scenarios for calls in scenario.rounds} == {1, 2, 3}
    assert {scenario.end for scenario in scenarios} == {"completed", "failed", "incomplete", "never"}
    assert scenarios == [scenario_of(number) for number in range(DEFAULT_RUNS)]
    assert len({question_of(number) for number in range(DEFAULT_RUNS)}) > 20


def test_the_command_ends_with_0(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from asyncruns.cli import main

    def run(work: Any) -> Any:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(work)

    monkeypatch.setattr(asyncio, "run", run)
    assert main(["demo", "--runs", "2", "--plain"]) == 0
    assert "2 runs in " in capsys.readouterr().out


async def test_nothing_is_left_at_a_real_server(capsys: pytest.CaptureFixture[str]) -> None:
    async with Emulator(demo_scenario, api_key="a-key") as emulator:
        assert await demo(settings(9), PlainView(), Client(emulator.base_url, auth=BearerAuth("a-key"))) == 0
        assert deleted(emulator.requests) == {"threads": 9, "assistants": 3}
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "None needed the caller, none was given up."
    assert "failed" in out  # with a real server, a failed run is not an error of the demo


async def test_a_run_that_does_not_end_is_given_up_cancelled_and_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    async with Emulator(Scenario(end="never")) as emulator:
        assert await demo(settings(3, timeout=20.0), PlainView(), Client(emulator.base_url)) == 1
        assert {run["status"] for run in emulator.runs.values()} <= {"cancelling", "cancelled"}
        assert deleted(emulator.requests) == {"threads": 3, "assistants": 3}
    out = capsys.readouterr().out
    assert "3 gave up" in out
    assert "Not as expected: 3 runs" in out
    assert "timeout" in out


async def test_a_run_that_cannot_be_created_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def scenario(request: RunRequest) -> Scenario:
        if request.metadata["asyncruns_demo"] == "1":
            raise RuntimeError("no such luck")
        return Scenario()

    async with Emulator(scenario) as emulator:
        assert await demo(settings(3), PlainView(), Client(emulator.base_url)) == 1
        assert deleted(emulator.requests) == {"threads": 3, "assistants": 3}
    out = capsys.readouterr().out
    assert "2 completed, 1 not created" in out
    assert "  run 2: not created" in out


@pytest.mark.parametrize("seconds", [0.0, 0.01, 1.0, 3.0])
async def test_nothing_is_left_when_the_demo_is_interrupted(capsys: pytest.CaptureFixture[str], seconds: float) -> None:
    async with Emulator(demo_scenario) as emulator:
        task = asyncio.ensure_future(demo(settings(12), PlainView(), Client(emulator.base_url)))
        await anyio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        made = Counter(
            seen.path.removeprefix("/v1/")
            for seen in emulator.requests
            if seen.method == "POST" and seen.path in ("/v1/threads", "/v1/assistants")
        )
        assert deleted(emulator.requests) == made
    if seconds:
        assert "of 12 runs had ended; deleting what was created" in capsys.readouterr().err


async def test_a_server_that_has_gone_is_reported_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    emulator = Emulator(Scenario(end="never"))
    await emulator.start()
    task = asyncio.ensure_future(demo(settings(2, timeout=5.0), PlainView(), Client(emulator.base_url)))
    await anyio.sleep(2)
    await emulator.stop()
    assert await task == 1
    out, err = capsys.readouterr()
    assert "2 gave up" in out
    assert err.startswith("asyncruns: could not delete thread_")
    assert err.count("asst_") == 2


def a_board(runs: int) -> Board:
    board = Board()
    for number in range(runs):
        row = Row(number=number, assistant="weather", run_id=f"run_{number:024}", status="in_progress")
        board.rows.append(row)
    return board


def end(row: Row, status: str = "completed", kind: EndKind = EndKind.COMPLETED) -> None:
    row.status, row.end, row.over, row.over_at, row.result = status, kind, True, anyio.current_time(), "Rain\n" * 90


def draw(board: Board, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    view = TableView("emulated", console)
    with console.capture() as capture:
        console.print(view.frame(board))
    return capture.get().splitlines()


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (60, 12), (200, 60)])
@pytest.mark.parametrize("runs", [3, 36, 500])
async def test_every_frame_fits_the_terminal(size: tuple[int, int], runs: int) -> None:
    width, height = size
    board = a_board(runs)
    for row in board.rows:
        if row.number % (runs // 3) == 0:
            lines = draw(board, width, height)
            assert len(lines) < height
            assert max(map(len, lines)) <= width
        await anyio.sleep(0.1)
        end(row, f"a_new_status_{row.number % 4}")  # the counts then need more than one line
    last = draw(board, width, height)
    assert len(last) + 4 < height or len(last) == 3  # there is room for the report


async def test_active_runs_are_shown_before_ended_ones() -> None:
    board = a_board(36)
    for row in board.rows[:30]:
        end(row)
    lines = draw(board, 80, 24)
    assert [line.split()[2] for line in lines[-7:-1]] == ["in_progress"] * 6
    assert lines[-1].split() == ["6", "in_progress", "30", "completed"]
    assert "36 runs (20 shown)" in lines[0]


async def test_the_last_frame_shows_what_went_wrong() -> None:
    board = a_board(100)
    for row in board.rows:
        end(row)
    end(board.rows[77], "failed", EndKind.FAILED)
    assert "failed" in "".join(draw(board, 80, 24))


async def test_the_table_is_drawn_until_the_demo_ends(capsys: pytest.CaptureFixture[str]) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, height=24)
    assert await demo(settings(8), TableView("emulated", console)) == 0
    drawn = screen.getvalue()
    for text in ("asyncruns demo", "requires_action", "in_progress", "completed", "expired"):
        assert text in drawn
    assert drawn.endswith("\x1b[?25h")  # the cursor is visible again
    assert "8 runs in " in capsys.readouterr().out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def view_of(monkeypatch: pytest.MonkeyPatch, stdout: io.StringIO, environment: Mapping[str, str], plain: bool) -> str:
    monkeypatch.setattr(sys, "stdout", stdout)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return type(demo_module._view(argparse.Namespace(plain=plain, base_url=None))).__name__


def test_the_table_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    xterm = {"TERM": "xterm"}
    assert view_of(monkeypatch, Terminal(), xterm, plain=False) == "TableView"
    assert view_of(monkeypatch, Terminal(), xterm, plain=True) == "PlainView"
    assert view_of(monkeypatch, Terminal(), {"TERM": "dumb"}, plain=False) == "PlainView"
    assert view_of(monkeypatch, io.StringIO(), xterm, plain=False) == "PlainView"


def test_without_rich_there_are_lines_and_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "asyncruns.cli.table")
    assert view_of(monkeypatch, Terminal(), {"TERM": "xterm"}, plain=False) == "PlainView"
    assert "pip install 'asyncruns[cli]'" in capsys.readouterr().err


def test_a_key_without_its_server_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--api-key needs --base-url"):
        demo_module.main(argparse.Namespace(base_url=None, api_key="k"))
