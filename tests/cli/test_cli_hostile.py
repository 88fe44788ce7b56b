"""Text from a server never controls the terminal, in the output of any command."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

import pytest
from rich.console import Console

from asyncruns.cli.board import Board, Row
from asyncruns.cli.output import complain, say, say_json
from asyncruns.cli.table import TableView
from asyncruns.cli.views import PlainView
from asyncruns.wire.shown_text import on_one_line, visible, visible_json

EVIL: Final = "a\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp.exe\u2066\r\x7f\x08[red]b\u2028\ufeff"
RAW: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")


def test_a_terminal_command_is_shown_as_an_escape() -> None:
    assert visible("\x1b[1m\x9b2J\u202e\ud800\U000e0041") == r"\x1b[1m\x9b2J\u202e\ud800\U000e0041"
    assert not RAW.search(visible(EVIL).replace("\r\n", ""))
    assert visible("one\r\ntwo\tthree\n") == "one\r\ntwo\tthree\n"
    assert visible("a\rb") == r"a\x0db"


def test_characters_that_scripts_need_are_unchanged() -> None:
    text = "Größe\u00a0€5 👩\u200d🚀 می\u200cخواهم 全角\u3000 ❤\ufe0f"  # noqa: RUF001
    assert visible(text) == text
    assert visible_json(text) == text


@pytest.mark.parametrize("mark", ["\u200e", "\u200f", "\u061c"])
def test_direction_marks_are_unchanged(mark: str) -> None:
    text = f"שלום{mark}! C++{mark} كتاب"
    assert visible(text) == text


def test_the_tags_of_a_flag_are_unchanged_and_others_are_escaped() -> None:
    scotland = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
    assert visible(scotland) == scotland
    assert visible_json(scotland) == scotland
    assert visible("x" + scotland[1:]) == "x" + "".join(f"\\U{ord(tag):08x}" for tag in scotland[1:])


def test_one_line_is_one_line() -> None:
    assert on_one_line("run_1\nasyncruns: all is well\u2028x\x1b") == r"run_1 asyncruns: all is well x\x1b"


def test_json_stays_the_same_json() -> None:
    value = {"text": EVIL + "é\U000e0041\n"}
    shown = visible_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == value
    assert not RAW.search(shown)
    assert "é" in shown


def test_all_that_is_printed_is_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    complain(EVIL)
    say_json({"text": EVIL, "half": "\ud83d"})
    out, err = capsys.readouterr()
    assert not RAW.search(out.replace("\n", ""))
    assert not RAW.search(err.replace("\n", ""))
    assert json.loads(out.splitlines()[-1]) == {"text": EVIL, "half": "\ud83d"}


async def test_the_demo_shows_ids_statuses_and_results_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView()
    board = Board(view.changed)
    await view.show(board)
    row = Row(number=0, assistant="x", run_id=f"run_1\nfake{EVIL}", status=f"ok\n{EVIL}", result=EVIL, over=True)
    board.rows.append(row)
    view.changed(row)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert not RAW.search(lines[0])


async def test_the_table_shows_them_cleaned_and_without_markup() -> None:
    board = Board()
    for over in (False, True):
        board.rows = [
            Row(number=0, assistant="x", run_id=f"r{EVIL}", status=f"s{EVIL}", result=EVIL, over=over, over_at=1.0)
        ]
        console = Console(width=200, height=20, force_terminal=False, color_system=None)
        with console.capture() as captured:
            console.print(TableView("here", console).frame(board))
        drawn = captured.get()
        assert not RAW.search(drawn.replace("\n", ""))
        assert "[red]" in drawn


class _Hostile(BaseHTTPRequestHandler):
    """Answers everything with escape sequences, in bodies and in errors."""

    def do_GET(self) -> None:
        if "run_error" in self.path:
            self._reply(403, {"error": {"message": EVIL, "code": EVIL}})
        elif self.path.endswith("/messages") or "/messages?" in self.path:
            content = [{"type": "text", "text": {"value": EVIL}}]
            self._reply(200, {"data": [{"id": "msg_1", "role": "assistant", "content": content}], "has_more": False})
        elif "run_failed" in self.path:
            self._reply(200, self._run("failed", last_error={"code": EVIL, "message": EVIL}))
        elif "run_calls" in self.path:
            call = {"id": EVIL, "type": "function", "function": {"name": EVIL, "arguments": EVIL}}
            action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [call]}}
            self._reply(200, self._run("requires_action", required_action=action))
        elif "run_unknown" in self.path:
            self._reply(200, self._run(EVIL))
        else:
            self._reply(200, self._run("completed"))

    def _run(self, status: str, **fields: Any) -> dict[str, Any]:
        run_id = self.path.partition("?")[0].rpartition("/")[2]
        return {"id": run_id, "thread_id": "thread_1", "status": status, **fields}

    def _reply(self, status: int, body: Any) -> None:
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-request-id", "req_\x9b31m")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def hostile() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("json_lines", [False, True], ids=["lines", "json"])
@pytest.mark.parametrize("run_id", ["run_done", "run_failed", "run_calls", "run_error", "run_unknown"])
def test_watching_at_a_hostile_server_prints_no_command(hostile: str, run_id: str, json_lines: bool) -> None:
    command = [sys.executable, "-m", "asyncruns", "watch", "thread_1", run_id, "--base-url", hostile, "--timeout", "1"]
    done = subprocess.run(
        [*command, *(["--json"] if json_lines else [])],
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    for text in (done.stdout.decode(), done.stderr.decode()):
        assert not RAW.search(text.replace("\n", "")), ascii(text)
    assert done.stdout
    if json_lines:
        assert all(json.loads(line) for line in done.stdout.decode().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("run_id", ["run_done", "run_failed", "run_calls", "run_unknown"])
def test_showing_and_cancelling_at_a_hostile_server_prints_no_command(hostile: str, run_id: str) -> None:
    for words in (("show",), ("show", "--json"), ("cancel", "--no-wait")):
        command = [sys.executable, "-m", "asyncruns", *words, f"thread_1/{run_id}", "--base-url", hostile]
        done = subprocess.run(command, capture_output=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
        for text in (done.stdout.decode(), done.stderr.decode()):
            assert not RAW.search(text.replace("\n", "")), ascii(text)
            assert "Traceback" not in text


def test_log_records_of_libraries_are_printed_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    from asyncruns.cli.output import _Complaints

    logger = logging.Logger("x")
    logger.addHandler(_Complaints(logging.WARNING))
    logger.warning("The run %s is odd\nasyncruns: all is well", EVIL)
    logger.info("not this")
    err = capsys.readouterr().err
    assert not RAW.search(err.replace("\n", ""))
    assert all(line.startswith("asyncruns: ") for line in err.splitlines())
