"""`asyncruns timeline`: the page that it writes, from a file of timelines and from a journal."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asyncruns import Client, Fleet, RunRef, SQLiteJournal
from asyncruns.cli import main
from asyncruns.cli.timeline import draw
from asyncruns.cli.timeline_page import data_of, page_of
from asyncruns.testing import InMemoryTransport, Scenario
from asyncruns.timeline import RunTimeline, TimedCall, TimedRequest, TimedStatus

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "</script><img src=x onerror=alert(1)>\u202e\u2028\x1b[31m&\"'"
HEAD = '{"kind":"timelines","format":1,"version":"0","at":1000.0}\n'
WATCH = '{"kind":"watch","n":1,"at":1000.0,"dialect":"thread.run","ids":["thread_1","run_1"],"label":"first"}\n'
END = '{"kind":"end","n":1,"at":1009.0,"outcome":"Completed","status":"completed"}\n'


def timeline(n: int = 1, **fields: Any) -> RunTimeline:
    given: dict[str, Any] = {
        "ref": RunRef("thread.run", (f"thread_{n}", f"run_{n}")),
        "assistant": "asst_1",
        "began_at": 1000.0 + n,
        "finished_at": 1010.0 + n,
        "outcome": "Completed",
        "created_at": 1000.0 + n,
        "ended_at": 1008.5 + n,
        "clock_offset": 0.0,
        "statuses": (
            TimedStatus(1000.0 + n, "queued", "pending"),
            TimedStatus(1002.0 + n, "in_progress", "running"),
            TimedStatus(1010.0 + n, "completed", "succeeded"),
        ),
        "calls": (TimedCall("call_1", "look_up", 1003.0 + n, 1004.0 + n), TimedCall("call_2", "look_up", 1005.0 + n)),
        "polls": (TimedRequest(1002.0 + n, 0.1), TimedRequest(1003.0 + n, 0.1, "throttled"), TimedRequest(1010.0 + n)),
        "submits": (TimedRequest(1004.0 + n, 0.1, "", "submit"),),
    }
    return RunTimeline(**given | fields)


def data_in(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_has_the_data_of_each_run() -> None:
    data = data_in(page_of([timeline(), timeline(2, label={"n": 2})], "runs.jsonl", 2000.0))
    first, second = data["rows"]
    words = data["words"]
    assert (data["t0"], data["end"], data["makers"]) == (1001.0, 11_000, ["asst_1"])
    assert (first["id"], first["begin"], first["finish"], first["end"], first["late"]) == (
        "thread_1/run_1", 0, 10_000, 8500, 1500,
    )  # fmt: skip
    assert [words[n] for n in first["phases"][1::3]] == ["pending", "running", "succeeded"]
    assert first["phases"][::3] == [0, 2000, 10_000]
    assert first["calls"] == [3000, 4000, words.index("look_up"), 0, 5000, None, words.index("look_up"), 0]
    assert first["polls"] == [2000, 10_000]
    assert [words[n] for n in first["refused"][1::2]] == ["throttled"]
    assert words[first["outcome"]] == "Completed"
    assert second["label"] == '{"n": 2}'


def test_without_a_recording_the_times_of_the_server_are_drawn() -> None:
    bare = timeline(statuses=(), calls=(), polls=(), submits=(), started_at=1003.0, clock_offset=None)
    data = data_of([bare], "", 2000.0)
    (row,) = data["rows"]
    assert row["phases"][::3] == [0, 2000, 8500]
    assert [data["words"][n] for n in row["phases"][1::3]] == ["pending", "running", "ended"]


def test_no_text_can_end_the_script_or_reorder_a_line() -> None:
    evil = timeline(label=EVIL, assistant=EVIL, outcome=EVIL, calls=(TimedCall(EVIL, EVIL, 1003.0),))
    page = page_of([evil], EVIL, 2000.0)
    raw = page.partition('id="data">')[2].partition("</script>")[0]
    assert not re.search("[<>&\x00-\x1f\u2028\u202e]", raw)
    assert EVIL not in page
    assert data_in(page)["rows"][0]["label"].startswith("</script><img")


def test_the_page_asks_for_nothing_from_a_network() -> None:
    page = page_of([timeline()], "runs", 2000.0)
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|src=|href=|url\(|import\(|fetch\(|innerHTML", page)


def test_long_texts_are_cut() -> None:
    (row,) = data_of([timeline(label="x" * 10_000)], "", 2000.0)["rows"]
    assert len(row["label"]) == 200


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "runs.jsonl"
    path.write_text(HEAD + WATCH + END)
    return path


def test_the_command_writes_the_page(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "runs.html"
    assert main(["timeline", str(recorded), "-o", str(target)]) == 0
    assert data_in(target.read_text())["title"] == "runs.jsonl"
    assert target.stat().st_mode & 0o777 == 0o600
    assert capsys.readouterr().err == f"asyncruns: 1 run in {target}\n"


def test_the_command_prints_the_page(recorded: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["timeline", str(recorded), str(recorded), "-o", "-"]) == 0
    out = capsysbinary.readouterr().out.decode()
    assert out.startswith("<!DOCTYPE html>")
    assert len(data_in(out)["rows"]) == 2


def test_the_command_prints_json(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded.write_text(HEAD + "nonsense\n" + WATCH + END)
    assert main(["timeline", str(recorded), "--json"]) == 0
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    assert msgspec.json.decode(line)["label"] == "first"
    assert err == f"asyncruns: {recorded}, line 2, is malformed, and left out\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["none.jsonl", "-o", "x.html"], "none.jsonl cannot be read: No such file or directory"),
        ([".", "-o", "x.html"], ". cannot be read: Is a directory"),
        (["runs.jsonl"], "pass -o FILE.html for the picture, or --json"),
        (["runs.jsonl", "-o", "runs.jsonl"], "runs.jsonl is to be read: write the picture to another file"),
        (["runs.jsonl", "-o", "none/x.html"], "none/x.html cannot be written: No such file or directory"),
        (["diary", "-o", "x.html"], "diary is no file of timelines of format 1"),
        (["mysql://user:secret@host/db", "-o", "x.html"], "://"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], why: str, recorded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recorded.parent)
    Path("diary").write_text("Dear diary\n")
    assert main(["timeline", *arguments]) == 2
    err = capsys.readouterr().err
    assert why in err
    assert "secret" not in err
    assert recorded.read_text() == HEAD + WATCH + END


async def test_a_journal_shows_what_its_watches_wait_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transport = InMemoryTransport()
    transport.script(Scenario(end="never"), assistant_id="asst_1")
    async with Client(transport=transport) as client, SQLiteJournal(tmp_path / "runs.db") as journal:
        thread = await client.threads.create(messages=[{"role": "user", "content": "Hi"}])
        run = await client.threads.runs.create(thread.id, assistant_id="asst_1")
        async with Fleet(client, journal=journal, on_exit="leave") as fleet:
            await fleet.watch(run, label="first").recorded()
    target = tmp_path / "left.html"
    options = make_options(str(tmp_path / "runs.db"), str(target))
    assert await draw(options) == 0
    data = data_in(await asyncio.to_thread(target.read_text))
    (row,) = data["rows"]
    assert (row["id"], row["label"], row["waits"]) == (f"{thread.id}/{run.id}", "first", "waits for the run to end")
    assert data["end"] >= 0


def make_options(source: str, output: str) -> Any:
    from asyncruns.cli.options import make_parser

    return make_parser().parse_args(["timeline", source, "-o", output])


@pytest.mark.real_time
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_draws_the_page(tmp_path: Path) -> None:
    page = tmp_path / "runs.html"
    bare = timeline(3, statuses=(), calls=(), polls=(), submits=())
    page.write_text(page_of([timeline(), timeline(2, label=EVIL), bare], "runs", 2000.0))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    dom = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, timeout=60, check=True).stdout
    assert b'data-ready="3"' in dom
    assert b"completed 3" in dom
