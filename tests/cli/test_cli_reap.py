"""`asyncruns reap` against an emulator and journals in files, which a fleet has left."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from asyncruns import Client, Fleet, InvalidRequestError, RunRef, SQLiteJournal
from asyncruns.cli import main
from asyncruns.cli.options import make_parser
from asyncruns.cli.reap import _check, reap
from asyncruns.cli.reap_rows import age_text
from asyncruns.journal.memory import MemoryJournal, MemoryStore
from asyncruns.lifecycle.records import CallRecord, WatchRecord, Wish
from asyncruns.testing import BatchScenario, Emulator, Fault, FunctionCall, Scenario
from asyncruns.wire import Run

NEVER = Scenario(end="never")
CALLS = ((FunctionCall("get_weather", {"city": "Paris"}),),)
Lines = list[str]


async def reaped(emulator: Emulator, *arguments: str) -> int:
    options = make_parser().parse_args(["reap", *arguments, "--base-url", emulator.base_url])
    _check(options)
    return await reap(options)


async def run_on(emulator: Emulator, client: Client, scenario: Scenario) -> Run:
    emulator.script(scenario, assistant_id="asst_1")
    thread = await client.threads.create(messages=[{"role": "user", "content": "Hi"}])
    return await client.threads.runs.create(thread.id, assistant_id="asst_1")


async def left_in(path: Path, client: Client, runs: Sequence[Any], **options: Any) -> None:
    """Let a fleet add these runs to a journal, and leave them."""
    async with SQLiteJournal(path) as journal, Fleet(client, journal=journal, on_exit="leave", **options) as fleet:
        for run in runs:
            await fleet.watch(run, label={"of": run.id}).recorded()


async def keys_in(path: Path) -> list[str]:
    async with SQLiteJournal(path) as journal:
        return [record.key for record in await journal.read()]


def key_of(run: Run) -> str:
    return f"thread.run/{run.thread_id}/{run.id}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


async def test_the_list_shows_the_age_the_status_and_what_a_watch_waits_for(
    emulator: Emulator, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Client(emulator.base_url) as client:
        run = await run_on(emulator, client, NEVER)
        response = await client.responses.create(model="m", input="Hi", background=True)
        await left_in(path, client, [run, response])
    assert await reaped(emulator, str(path)) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == key_of(run)
    assert lines[1].endswith(" s, queued")
    assert lines[2:4] == [f'  label {{"of": "{run.id}"}}', "  waits for the run to end"]
    assert lines[4] == f"response/{response.id}"
    assert err == "asyncruns: 2 watches unfinished\n"
    assert await keys_in(path) == [lines[0], lines[4]]


async def test_offline_sends_nothing(emulator: Emulator, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Client(emulator.base_url) as client:
        await left_in(path, client, [await run_on(emulator, client, NEVER)])
    seen = len(emulator.requests)
    assert await reaped(emulator, str(path), "--offline") == 0
    assert "queued" not in capsys.readouterr().out
    assert len(emulator.requests) == seen


async def test_one_poll_for_each_run_or_fewer(emulator: Emulator, path: Path) -> None:
    async with Client(emulator.base_url) as client:
        runs = [await run_on(emulator, client, NEVER) for _ in range(30)]
        await left_in(path, client, runs)
    seen = len(emulator.requests)
    assert await reaped(emulator, str(path)) == 0
    assert len(emulator.requests) - seen <= 30


async def test_calls_outputs_and_outcomes_are_named_and_outputs_are_not_shown(
    emulator: Emulator, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = CallRecord(key="a", call_id="call_a")
    done = CallRecord(key="b", call_id="call_b", output="SECRET")
    ref = RunRef("thread.run", ("t", "r"))
    records = [
        WatchRecord(key="one", ref=ref, refs=(ref,), created_at=1.0, calls=(begun, done)),
        WatchRecord(key="two", ref=RunRef("response", ("s",)), calls=(done,), submitting=("b",), created_at=2.0),
        WatchRecord(key="three", ref=RunRef("response", ("u",)), outcome={"status": "completed"}, created_at=3.0),
    ]
    async with SQLiteJournal(path) as journal:
        await journal.add(records)
        await journal.submitting("two", ["b"])
    assert await reaped(emulator, str(path), "--offline") == 0
    out = capsys.readouterr().out
    begun_line, ready_line = "  1 call had begun, without an output: call_a", "  1 output still to be submitted: call_b"
    assert f"{begun_line}\n{ready_line}\nresponse/s\n" in out
    assert "  a submit of 1 output was under way\nresponse/u\n" in out
    assert out.endswith("  the outcome was recorded and not delivered: completed\n")
    assert "SECRET" not in out
    assert await reaped(emulator, str(path), "--offline", "--json", "one") == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert "SECRET" not in line
    assert found["calls"] == [
        {"id": "call_a", "has_output": False, "was_accepted": False},
        {"id": "call_b", "has_output": True, "was_accepted": False},
    ]
    assert (found["dialect"], found["ids"], found["created_at"]) == ("thread.run", ["t", "r"], 1.0)


async def test_ids_and_an_age_select(emulator: Emulator, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refs = {name: RunRef("response", (name,)) for name in ("old", "new")}
    earlier = RunRef("response", ("newer",)), refs["new"]
    old = WatchRecord(key="old", ref=refs["old"], created_at=1.0)
    async with SQLiteJournal(path) as journal:
        await journal.add([old, WatchRecord(key="new", ref=refs["new"], refs=earlier, created_at=4e9)])
    assert await reaped(emulator, str(path), "--offline", "--older-than", "2h") == 0
    assert capsys.readouterr().out.splitlines()[0] == "response/old"
    assert await reaped(emulator, str(path), "--offline", "newer") == 0
    assert capsys.readouterr().out.splitlines()[0] == "response/new"
    with pytest.raises(InvalidRequestError, match="nothing unfinished has the id none"):
        await reaped(emulator, str(path), "--offline", "none")


async def test_cancel_is_dry_without_yes(emulator: Emulator, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Client(emulator.base_url) as client:
        run = await run_on(emulator, client, NEVER)
        await left_in(path, client, [run])
        for action in ("--cancel", "--forget"):
            assert await reaped(emulator, str(path), action) == 0
            assert "nothing was changed; with --yes, 1 would be" in capsys.readouterr().err
        assert (await client.threads.runs.retrieve(run.id, thread_id=run.thread_id)).status == "queued"
        assert await reaped(emulator, str(path), "--cancel", "--yes") == 0
        assert capsys.readouterr().out == f"{key_of(run)}  cancelling\n"
        assert await keys_in(path) == [key_of(run)]  # its program is told
        assert await reaped(emulator, str(path), "--forget", "--yes") == 0
        assert capsys.readouterr().out == f"{key_of(run)}  forgotten\n"
        assert await keys_in(path) == []


async def test_cancel_says_what_could_not_be_cancelled(
    emulator: Emulator, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Client(emulator.base_url) as client:
        ended, gone = await run_on(emulator, client, Scenario()), RunRef("thread.run", ("thread_x", "run_x"))
        await left_in(path, client, [ended])
        await client.watch(ended)
    async with SQLiteJournal(path) as journal:
        await journal.add([WatchRecord(key="x", ref=gone, refs=(gone,), created_at=4e9)])
    assert await reaped(emulator, str(path), "--cancel", "--yes") == 0
    assert capsys.readouterr().out == f"{key_of(ended)}  completed\nthread.run/thread_x/run_x  gone\n"


async def test_a_run_that_is_not_created_is_left_to_its_program(
    emulator: Emulator, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages: dict[str, list[str]] = {"new": [], "thread": ["thread", "thread_1"], "sent": ["create"]}
    async with SQLiteJournal(path) as journal:
        creating = {"dialect": "thread.run", "message": "SECRET"}
        await journal.add([WatchRecord(key=key, ref=None, creating=creating, created_at=4e9) for key in stages])
        for key, stage in stages.items():
            await journal.submitting(key, stage)
    assert await reaped(emulator, str(path)) == 0
    out = capsys.readouterr().out
    assert "new\n  0 s\n  the run is to be created\n" in out
    assert "thread\n  0 s\n  the run is to be created, on the thread thread_1\n" in out
    assert "sent\n  0 s\n  the run was being created, and may exist\n" in out
    assert "SECRET" not in out
    for action in (["--cancel", "--yes"], ["--resume"]):
        assert await reaped(emulator, str(path), *action) == 1
        assert capsys.readouterr().err.count("left to the program that asked for it") == 3
    assert await reaped(emulator, str(path), "--forget", "--yes", "new", "sent") == 0
    assert await keys_in(path) == ["thread"]


async def test_resume_prints_outcomes_and_forgets_only_what_is_over(
    emulator: Emulator, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Client(emulator.base_url) as client:
        good = await run_on(emulator, client, Scenario(answer="Good day."))
        calling = await run_on(emulator, client, Scenario(rounds=CALLS))
        never = await run_on(emulator, client, NEVER)
        await left_in(path, client, [good, calling, never])
    assert await reaped(emulator, str(path), "--resume", "--timeout", "30") == 7
    out, err = capsys.readouterr()
    assert "Good day.\n" in out
    assert "is requires_action" in out
    assert "the timeout passed" in out
    assert err == ""
    assert await keys_in(path) == [key_of(calling), key_of(never)]
    assert await reaped(emulator, str(path), calling.id) == 0
    assert ", requires_action\n" in (listed := capsys.readouterr().out)
    assert listed.endswith("  waits for the outputs of calls\n")
    assert await reaped(emulator, str(path), "--resume", "--json", calling.id) == 6
    found = json.loads(capsys.readouterr().out)
    assert (found["event"], found["key"], found["outcome"]) == ("end", key_of(calling), "needs_caller")


async def test_what_a_living_process_watches_is_left_to_it(
    emulator: Emulator, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Client(emulator.base_url) as client, SQLiteJournal(path) as journal:
        run = await run_on(emulator, client, NEVER)
        async with Fleet(client, journal=journal, on_exit="leave") as fleet:
            await fleet.watch(run).recorded()
            assert await reaped(emulator, str(path)) == 0
            assert ", watched by " in capsys.readouterr().out
            for action in (["--resume"], ["--forget", "--yes"]):
                assert await reaped(emulator, str(path), *action) == 1
                assert f"asyncruns: {key_of(run)}: left to " in capsys.readouterr().err
            assert await reaped(emulator, str(path), "--cancel") == 0
            assert "0 would be cancelled; 1 of a living process: it is asked to cancel" in capsys.readouterr().err


async def test_the_owner_is_asked_to_cancel(
    emulator: Emulator, path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    monkeypatch.setattr("asyncruns.cli.reap.journal_at", lambda where: MemoryJournal(store))
    async with Client(emulator.base_url) as client, MemoryJournal(store) as journal:
        run = await run_on(emulator, client, NEVER)
        async with Fleet(client, journal=journal, on_exit="leave") as fleet:
            await fleet.watch(run).recorded()
            assert await reaped(emulator, str(path), "--cancel", "--yes") == 0
            assert capsys.readouterr().out == f"{key_of(run)}  its owner was asked to cancel it\n"
            assert await journal.wishes() == [(key_of(run), Wish.CANCEL)]


async def test_batches_of_both_wires(emulator: Emulator, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    emulator.script_batches(BatchScenario(working=600))
    async with Client.anthropic(api_key="k", base_url=emulator.base_url) as client:
        request: Any = {"custom_id": "a", "params": {"model": "m", "max_tokens": 5, "messages": []}}
        batch = await client.message_batches.create(requests=[request])
        await left_in(path, client, [batch])
    assert await reaped(emulator, str(path)) == 0
    assert f"message_batch/{batch.id}\n" in capsys.readouterr().out
    assert await reaped(emulator, str(path), "--cancel", "--yes") == 0
    assert capsys.readouterr().out == f"message_batch/{batch.id}  canceling\n"


async def test_the_runs_of_threads_need_no_journal(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    async with Client(emulator.base_url) as client:
        run = await run_on(emulator, client, Scenario(rounds=CALLS))
        ended = await run_on(emulator, client, Scenario())
        await client.watch(ended)
        await client.watch(run)
        threads = ("--thread", run.thread_id, "--thread", ended.thread_id)
        assert await reaped(emulator, *threads) == 0
        out, err = capsys.readouterr()
        assert out.splitlines()[0] == key_of(run)
        assert "1 call to answer: get_weather call_" in out
        assert err == "asyncruns: 1 run unfinished\n"
        assert await reaped(emulator, *threads, run.id, "--cancel", "--yes") == 0
        assert capsys.readouterr().out == f"{key_of(run)}  cancelling\n"
        assert await reaped(emulator, *threads, "--resume") == 3


async def test_an_unreachable_server_is_reported(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Emulator() as emulator, Client(emulator.base_url) as client:
        await left_in(path, client, [await run_on(emulator, client, NEVER)])
        emulator.inject(Fault(on="poll", status=503, times=None))
        assert await reaped(emulator, str(path)) == 1
    assert "its status is not known: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "pass the file of a journal"),
        (["none.db"], "none.db does not exist"),
        (["."], ". is no file"),
        (["empty.db"], "empty.db is empty"),
        (["text.db"], "it is not an SQLite database"),
        (["other.db"], "belongs to another program"),
        (["newer.db"], "a newer version of asyncruns wrote it"),
        (["mysql://user:SECRET@host/name"], "a JOURNAL with :// is the URL of a PostgresJournal"),
        (["runs.db", "--yes"], "pass one of them"),
        (["runs.db", "--offline", "--resume"], "leave out --offline"),
        (["--thread", "t", "--forget"], "need a JOURNAL"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_is_explained_and_creates_no_file(
    arguments: Lines,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.db").touch()
    (tmp_path / "text.db").write_text("No database.\n" * 1000)
    with sqlite3.connect("other.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()

    async def create() -> None:
        async with SQLiteJournal("newer.db"):
            pass

    asyncio.run(create())
    with sqlite3.connect("newer.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = sorted(each.name for each in tmp_path.iterdir())
    assert main(["reap", *arguments]) == (1 if expected.startswith(("it is not", "belongs", "a newer")) else 2)
    err = capsys.readouterr().err
    assert expected in err
    assert "SECRET" not in err
    assert sorted(each.name for each in tmp_path.iterdir()) == before


@pytest.mark.parametrize("text", ["2x", "h", "-1h", "", "1hh", "nan", "two"])
def test_a_wrong_age_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["reap", "runs.db", f"--older-than={text}"])
    assert "give a number with a unit: 90s, 30m, 2h, 7d" in capsys.readouterr().err


def test_ids_may_follow_options() -> None:
    options = make_parser().parse_args(["reap", "runs.db", "--cancel", "a", "--json", "b"])
    assert (options.journal, options.ids) == ("runs.db", ["a", "b"])


@pytest.mark.parametrize(
    ("age", "text"),
    [(None, "of unknown age"), (5.9, "5 s"), (65, "1 min 05 s"), (7500, "2 h 05 min"), (100_000, "1 d 03 h")],
)
def test_an_age_has_its_two_largest_units(age: float | None, text: str) -> None:
    assert age_text(age) == text
