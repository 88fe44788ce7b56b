"""`asyncruns monitor` against an emulator and journals: what is watched, lines, JSON, exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from asyncruns import Client, ConfigurationError, Fleet, InvalidRequestError, JournalError, RunRef, SQLiteJournal
from asyncruns.cli import main
from asyncruns.cli.ids import given_refs
from asyncruns.cli.monitor import Monitor, monitor
from asyncruns.cli.monitor_board import MonitorBoard
from asyncruns.cli.monitor_rows import Group
from asyncruns.cli.monitor_sources import LONGEST_LINE, LineFile, lines_in, opened, ref_in
from asyncruns.cli.monitor_views import MonitorLines
from asyncruns.cli.options import make_parser
from asyncruns.cli.process import lone_error
from asyncruns.journal.memory import MemoryJournal, MemoryStore
from asyncruns.lifecycle import Connectivity, ConnectivityChanged, Phase, StatusChanged
from asyncruns.lifecycle.records import WatchRecord, Wish
from asyncruns.testing import BatchScenario, Emulator, Fault, FunctionCall, Scenario
from asyncruns.wire import Run

NEVER = Scenario(end="never")
CALLS = ((FunctionCall("get_weather", {"city": "Paris"}),),)
BODY = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e]")


class Quiet:
    """A view of nothing."""

    def happened(self, row: Any, event: Any) -> None: ...

    async def show(self, board: Any) -> None:
        await asyncio.Event().wait()

    def close(self, board: Any) -> None: ...


async def monitored(emulator: Emulator, *arguments: str) -> int:
    options = make_parser().parse_args(["monitor", *arguments, "--base-url", emulator.base_url])
    return await monitor(options, given_refs(options.ids), [opened(path) for path in options.file])


async def runs_on(emulator: Emulator, client: Client, *scenarios: Scenario) -> list[Run]:
    runs = []
    for scenario in scenarios:
        emulator.script(scenario, assistant_id="asst_1")
        thread = await client.threads.create(messages=[{"role": "user", "content": "Hi"}])
        runs.append(await client.threads.runs.create(thread.id, assistant_id="asst_1"))
    return runs


def name(run: Run) -> str:
    return f"{run.thread_id}/{run.id}"


async def test_each_status_is_a_line_and_the_last_one_says_how_all_ended(
    emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Client(emulator.base_url) as client:
        runs = await runs_on(emulator, client, Scenario(working=5), Scenario(end="failed", working=1))
        response = await client.responses.create(model="m", input="Hi", background=True)
    assert await monitored(emulator, *map(name, runs), response.id) == 1
    out, err = capsys.readouterr()
    *lines, last = out.splitlines()
    assert last == "3 runs: 2 completed, 1 failed"
    own = [line.split()[2] for line in lines if name(runs[0]) in line]
    assert own[-1] == "completed"
    assert "in_progress" in own
    assert any(response.id in line and line.endswith("completed") for line in lines)
    assert err == ""


@pytest.mark.parametrize(
    ("scenario", "code", "words"),
    [
        (Scenario(), 0, "1 completed"),
        (Scenario(end="failed"), 1, "1 failed"),
        (NEVER, 4, "1 expired"),
        (Scenario(end="incomplete"), 5, "1 incomplete"),
    ],
)
async def test_the_exit_code_is_that_of_the_outcome(
    emulator: Emulator, capsys: pytest.CaptureFixture[str], scenario: Scenario, code: int, words: str
) -> None:
    async with Client(emulator.base_url) as client:
        runs = await runs_on(emulator, client, scenario)
    assert await monitored(emulator, name(runs[0])) == code
    assert capsys.readouterr().out.splitlines()[-1] == f"1 run: {words}"


async def test_a_response_that_needs_its_caller_is_6_and_an_unknown_run_is_7(
    emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script(Scenario(rounds=CALLS), model="m")
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
    async with Client(emulator.base_url) as client:
        response = await client.responses.create(model="m", input="Hi", background=True, tools=[tool])
    assert await monitored(emulator, response.id) == 6
    assert "1 call: get_weather" in capsys.readouterr().out
    assert await monitored(emulator, response.id, "thread_1/run_none") == 7
    assert "gave up          not found" in capsys.readouterr().out


async def test_it_goes_on_past_calls_that_another_process_answers(
    emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Client(emulator.base_url) as client:
        (run,) = await runs_on(emulator, client, Scenario(rounds=CALLS))
        watching = asyncio.create_task(monitored(emulator, name(run)))
        await asyncio.sleep(20)
        now: Any = await client.threads.runs.retrieve(run.id, thread_id=run.thread_id)
        (call,) = now.required_action.submit_tool_outputs.tool_calls
        await client.threads.runs.submit_tool_outputs(
            run.id, thread_id=run.thread_id, tool_outputs=[{"tool_call_id": call.id, "output": "Sunny"}]
        )
        assert await watching == 0
    assert "requires_action  1 call: get_weather" in capsys.readouterr().out
    assert not [request for request in emulator.requests if "cancel" in request.path]


async def test_json_has_the_run_in_each_line(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    async with Client(emulator.base_url) as client:
        runs = await runs_on(emulator, client, Scenario(), Scenario())
    assert await monitored(emulator, "--json", *map(name, runs)) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(event["id"], event["kind"]) for event in events} == {(name(run), "thread.run") for run in runs}
    for run in runs:
        own = [event for event in events if event["id"] == name(run)]
        assert (own[0]["event"], own[-1]["event"], own[-1]["outcome"]) == ("status", "end", "completed")


async def test_batches_are_watched_beside_runs(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    emulator.script_batches(BatchScenario(working=100))
    requests = [{"custom_id": f"m-{number}", "params": BODY} for number in range(5)]
    async with Client(emulator.base_url, default_headers={"anthropic-version": "2023-06-01"}) as client:
        batch = await client.message_batches.create(requests=requests)
        (run,) = await runs_on(emulator, client, Scenario())
    assert await monitored(emulator, batch.id, name(run)) == 0
    out = capsys.readouterr().out
    assert f"{batch.id}  ended            5 of 5 answered" in out
    assert out.endswith("2 runs: 2 completed\n")


async def test_a_server_that_is_away_is_reported_once(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    async with Client(emulator.base_url) as client:
        runs = await runs_on(emulator, client, *[Scenario(working=30)] * 20)
    emulator.inject(Fault(on="poll", status=503, times=40))
    assert await monitored(emulator, *map(name, runs)) == 0
    err = capsys.readouterr().err
    assert 1 <= err.count("connection degraded") <= 3
    assert "connection healthy" in err


async def test_an_interruption_says_that_the_runs_go_on(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    async with Client(emulator.base_url) as client:
        runs = await runs_on(emulator, client, NEVER, Scenario())
        watching = asyncio.create_task(monitored(emulator, *map(name, runs)))
        await asyncio.sleep(30)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        assert (await client.threads.runs.retrieve(runs[0].id, thread_id=runs[0].thread_id)).status == "in_progress"
    out, err = capsys.readouterr()
    assert out.endswith("2 runs: 1 completed\n")
    assert err == "asyncruns: 1 run still open; they go on at the server\n"


async def test_it_ends_when_nobody_reads_its_lines(emulator: Emulator) -> None:
    class Closed(Quiet):
        def happened(self, row: Any, event: Any) -> None:
            raise BrokenPipeError

    async with Client(emulator.base_url) as client:
        runs = await runs_on(emulator, client, NEVER, NEVER)
    options = make_parser().parse_args(["monitor", *map(name, runs), "--base-url", emulator.base_url])
    with pytest.raises(ExceptionGroup) as raised:
        await monitor(options, given_refs(options.ids), [], Closed())
    assert isinstance(lone_error(raised.value), BrokenPipeError)


# Lines


async def test_a_file_names_runs_and_its_other_lines_are_reported_by_number(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Client(emulator.base_url) as client:
        runs = await runs_on(emulator, client, *[Scenario()] * 5)
    listed = {"id": name(runs[3]), "kind": "thread.run", "status": "queued", "object": {"id": "x"}}
    lines = [
        "# runs", "", name(runs[0]), "one two three", f"{runs[1].thread_id}\t{runs[1].id}", "{", "run_1",
        f"{runs[2].thread_id}, {runs[2].id}\r", json.dumps(listed), json.dumps({"a": 1}), "[1]",
        json.dumps({"id": runs[4].id, "thread_id": runs[4].thread_id, "object": "thread.run"}), name(runs[0]),
        "x" * (LONGEST_LINE + 1), "../x", "\x1b[31m y z",
    ]  # fmt: skip
    path = tmp_path / "runs.txt"
    path.write_text("\n".join(lines))
    assert await monitored(emulator, "--file", str(path)) == 2
    out, err = capsys.readouterr()
    assert out.endswith("5 runs: 5 completed\n")
    numbers = [int(found[1]) for found in re.finditer(r"runs\.txt, line (\d+): ", err)]
    assert numbers == [4, 6, 7, 10, 11, 14, 15, 16]
    assert not RAW.search(err.replace("\n", ""))


async def test_of_many_malformed_lines_ten_are_named(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs.txt"
    path.write_bytes(b"a b c\n" * 30 + b"\xff\xfe\x00 1 2")
    assert await monitored(emulator, "--file", str(path)) == 2
    err = capsys.readouterr().err
    assert err.count(", line ") == 10
    assert "31 lines could not be used, of which 10 were named" in err


@pytest.mark.real_time
async def test_lines_of_a_pipe_come_as_they_are_written() -> None:
    reader, writer = os.pipe()
    lines = lines_in(LineFile("pipe", reader))
    try:
        os.write(writer, b"one\ntw")
        assert await anext(lines) == (1, "one")
        os.write(writer, b"o\n")
        assert await anext(lines) == (2, "two")
        os.write(writer, b"three")
    finally:
        os.close(writer)
    assert [line async for line in lines] == [(3, "three")]


@pytest.mark.parametrize(
    ("line", "ref"),
    [
        ("thread_1/run_1", RunRef("thread.run", ("thread_1", "run_1"))),
        ("resp_1", RunRef("response", ("resp_1",))),
        ('{"dialect": "response", "ids": ["resp_1"]}', RunRef("response", ("resp_1",))),  # as `reap --json` has it
        ('{"id": "batch_1", "kind": "batch"}', RunRef("batch", ("batch_1",))),
        ("\ufeffresp_1", RunRef("response", ("resp_1",))),
    ],
)
def test_a_line_may_be_ids_or_json(line: str, ref: RunRef) -> None:
    assert ref_in(line) == ref


@pytest.mark.parametrize("line", ['{"dialect": "response", "ids": []}', '{"id": 5}', "{}", "[" * 10, '{"id":' * 9999])
def test_other_json_is_refused(line: str) -> None:
    if line.startswith("{"):
        with pytest.raises(InvalidRequestError):
            ref_in(line)


@pytest.mark.parametrize("run_id", ["..", "run_\\ud800", "%2e%2e"])
def test_an_id_that_is_none_is_an_error_of_its_line(run_id: str) -> None:
    for line in ('{"id": "thread_1/%s", "kind": "thread.run"}', '{"dialect": "thread.run", "ids": ["thread_1", "%s"]}'):
        with pytest.raises(InvalidRequestError, match="is not an id"):
            ref_in(line % run_id)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, words in ((tmp_path / "none", "can't be read: No such file"), (tmp_path, "is a directory")):
        assert main(["monitor", "--file", str(path), "--base-url", "http://127.0.0.1:1/v1"]) == 2
        assert words in capsys.readouterr().err
    assert main(["monitor"]) == 2
    assert "pass ids, --file FILE, or --journal JOURNAL" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="there is no file that can be opened, and not read")
async def test_a_file_that_fails_later_ends_no_watch(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    async with Client(emulator.base_url) as client:
        (run,) = await runs_on(emulator, client, Scenario(working=3))
        assert await monitored(emulator, name(run), "--file", "/proc/self/mem") == 2
    said = capsys.readouterr()
    assert said.out.endswith("1 run: 1 completed\n")
    assert said.err == "asyncruns: /proc/self/mem can't be read: Input/output error\n"


async def test_of_many_runs_that_cannot_be_watched_ten_are_named(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ids"
    path.write_text("".join(f'{{"id": "x{number}", "kind": "of_ours"}}\n' for number in range(30)))
    assert await monitored(emulator, "--file", str(path)) == 2
    said = capsys.readouterr()
    assert said.out.endswith("30 runs: 30 not watched\n")
    assert said.err.count("\n") == 10


def test_lines_report_that_the_server_is_away_again_after_a_watch_has_gone_on_with_another_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    board, lines = MonitorBoard(), MonitorLines()
    row = board.add("one", RunRef("response", ("resp_1",)))
    lost = ConnectivityChanged(connectivity=Connectivity.LOST, cause=OSError("away"))
    lines.happened(row, lost)
    board.moved(row, RunRef("response", ("resp_2",)))
    lines.happened(row, StatusChanged(status="queued", phase=Phase.PENDING, previous=None, run=None))
    lines.happened(row, lost)
    assert capsys.readouterr().err == "asyncruns: connection lost: away\n" * 2


def test_a_terminal_is_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigurationError, match="pipe the ids"):
        opened("-")


# Journals


async def left_in(path: Path, client: Client, runs: Sequence[Any], **options: Any) -> None:
    async with SQLiteJournal(path) as journal, Fleet(client, journal=journal, on_exit="leave", **options) as fleet:
        for run in runs:
            await fleet.watch(run, label="a label").recorded()


async def test_a_journal_is_watched_and_nothing_of_it_changes(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs.db"
    async with Client(emulator.base_url) as client:
        runs = await runs_on(emulator, client, Scenario(working=3), Scenario(rounds=CALLS))
        await left_in(path, client, runs[:1])
        async with SQLiteJournal(path) as journal:
            before = await journal.read()
        assert await monitored(emulator, "--journal", str(path)) == 0
        async with SQLiteJournal(path) as journal:
            assert await journal.read() == before
    out = capsys.readouterr().out
    assert f"{name(runs[0])}  completed        label a label\n" in out
    assert out.endswith("1 run: 1 completed\n")
    assert not [request for request in emulator.requests if request.path.endswith("submit_tool_outputs")]


async def test_watches_that_begin_later_are_shown_too(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs.db"
    async with Client(emulator.base_url) as client, SQLiteJournal(path) as journal:
        runs = await runs_on(emulator, client, Scenario(working=20), Scenario(working=20))
        async with Fleet(client, journal=journal) as fleet:
            await fleet.watch(runs[0]).recorded()
            watching = asyncio.create_task(monitored(emulator, "--journal", str(path)))
            await asyncio.sleep(6)
            fleet.watch(runs[1])
        assert await watching == 0
    out = capsys.readouterr().out
    assert out.endswith("2 runs: 2 completed\n")
    assert "watched by process" in out


async def test_an_empty_journal_and_none_at_all(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with SQLiteJournal(tmp_path / "runs.db"):
        pass
    assert await monitored(emulator, "--journal", str(tmp_path / "runs.db")) == 0
    assert capsys.readouterr().err == "asyncruns: no unfinished watches\n"
    with pytest.raises(ConfigurationError, match="does not exist"):
        await monitored(emulator, "--journal", str(tmp_path / "none.db"))
    assert not (tmp_path / "none.db").exists()


async def test_a_watch_that_goes_on_with_another_response_is_followed_until_the_journal_forgets_it(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    monkeypatch.setattr("asyncruns.cli.monitor.journal_at", lambda _: MemoryJournal(store))
    emulator.script(Scenario(rounds=CALLS), model="m")
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
    boards: list[MonitorBoard] = []
    show = Quiet.show

    async def kept(self: Quiet, board: MonitorBoard) -> None:
        boards.append(board)
        await show(self, board)

    monkeypatch.setattr(Quiet, "show", kept)
    options = make_parser().parse_args(["monitor", "--journal", "x", "--base-url", emulator.base_url])
    async with Client(emulator.base_url) as client, MemoryJournal(store) as journal:
        first = await client.responses.create(model="m", input="Hi", background=True, tools=[tool])
        emulator.script(Scenario(working=600), model="m")
        second = await client.responses.create(model="m", input="Hi", background=True)
        await journal.add(
            [
                WatchRecord(key="one", ref=RunRef.of(first), created_at=1.0),
                WatchRecord(key="two", ref=None, creating={"dialect": "response"}, created_at=2.0),
            ]
        )
        watching = asyncio.create_task(monitor(options, [], [], Quiet()))
        await asyncio.sleep(20)
        (board,) = boards
        assert board.rows["one"].group is Group.NEEDS_CALLER
        assert board.rows["two"].status == "creating"
        assert board.open == {"one", "two"}
        await journal.moved("one", RunRef.of(second), 1.0)
        await asyncio.sleep(20)
        assert (board.rows["one"].name, board.rows["one"].group) == (second.id, Group.ACTIVE)
        await journal.delivered(["one", "two"])
        await asyncio.sleep(20)
        assert board.rows["two"].status == "delivered"
        assert board.open == {"one"}  # the server shows its end
        assert await watching == 0


async def test_a_cancel_goes_to_the_owner_or_else_to_the_server(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    monkeypatch.setattr("asyncruns.cli.monitor.journal_at", lambda _: MemoryJournal(store))
    said: dict[str, str] = {}
    wishes: list[tuple[str, Wish]] = []

    class Cancels(Quiet):
        source: Monitor

        async def show(self, board: MonitorBoard) -> None:
            await asyncio.sleep(10)
            for key, row in board.rows.items():
                said[key] = await self.source.cancel(row)
            await asyncio.sleep(10)

    view = Cancels()
    made = Monitor.__init__

    def make(self: Monitor, *arguments: Any) -> None:
        made(self, *arguments)
        view.source = self

    monkeypatch.setattr(Monitor, "__init__", make)
    async with Client(emulator.base_url) as client, MemoryJournal(store) as owner:
        owned, free = await runs_on(emulator, client, NEVER, NEVER)
        await owner.add([WatchRecord(key="owned", ref=RunRef.of(owned), created_at=1.0)])
        listening = asyncio.create_task(owner.wishes())
        options = make_parser().parse_args(["monitor", name(free), "--journal", "x", "--base-url", emulator.base_url])
        assert await monitor(options, given_refs(options.ids), [], view) == 3
        wishes += await listening
        assert wishes == [("owned", Wish.CANCEL)]
        assert "asked to cancel it" in said["owned"]
        assert said[f"thread.run/{name(free)}"] == "the server is asked to cancel it"
        assert (await client.threads.runs.retrieve(owned.id, thread_id=owned.thread_id)).status == "in_progress"
        assert (await client.threads.runs.retrieve(free.id, thread_id=free.thread_id)).status == "cancelled"


async def test_a_journal_that_can_no_longer_be_read_is_reported_once_and_ends_nothing(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = MemoryStore()
    reads = 0

    class Failing(MemoryJournal):
        async def read(self) -> list[WatchRecord]:
            nonlocal reads
            reads += 1
            if reads > 1:
                raise JournalError("the disk is gone")
            return await super().read()

    monkeypatch.setattr("asyncruns.cli.monitor.journal_at", lambda _: Failing(store))
    async with Client(emulator.base_url) as client, MemoryJournal(store) as owner:
        (run,) = await runs_on(emulator, client, Scenario(working=30))
        await owner.add([WatchRecord(key="one", ref=RunRef.of(run), created_at=1.0)])
        assert await monitored(emulator, "--journal", "x") == 0
    assert 2 < reads < 30
    assert capsys.readouterr().err == "asyncruns: the disk is gone\n"
