"""`asyncruns list`, `show` and `cancel` against an emulator in virtual time, and how they are drawn."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator

import anyio
import pytest
from rich.console import Console

from asyncruns import Client, InvalidRequestError, NotFoundError, RunRef
from asyncruns.cli.cancel import cancel_runs
from asyncruns.cli.ids import given_ref, given_refs
from asyncruns.cli.options import make_parser
from asyncruns.cli.run_list import list_runs
from asyncruns.cli.sheet import Sheet
from asyncruns.cli.show import fetch_shown, show_command
from asyncruns.cli.show_sheet import print_shown
from asyncruns.cli.times import relative, span
from asyncruns.testing import BatchScenario, Emulator, Fault, FunctionCall, Scenario
from asyncruns.wire import Run

EVIL = "a\x1b[31mred\x9b2J\u202egnp\r\x07[red]"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")
CALLS = ((FunctionCall("get_weather", {"city": "Paris"}), FunctionCall("book", "x" * 500)),)
BATCH_URL = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("ASYNCRUNS_", "OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(name)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    async with Client(emulator.base_url) as client:
        yield client


async def start(emulator: Emulator, client: Client, scenario: Scenario) -> Run:
    emulator.script(scenario, assistant_id="asst_1")
    thread = await client.threads.create(messages=[{"role": "user", "content": "Hi"}])
    return await client.threads.runs.create(thread.id, assistant_id="asst_1")


async def show(emulator: Emulator, *arguments: str) -> int:
    options = make_parser().parse_args(["show", *arguments, "--base-url", emulator.base_url])
    return await show_command(options, given_ref(options.id, options.run_id))


async def listed(emulator: Emulator, *arguments: str) -> int:
    return await list_runs(make_parser().parse_args(["list", *arguments, "--base-url", emulator.base_url]))


async def cancel(emulator: Emulator, *arguments: str) -> int:
    options = make_parser().parse_args(["cancel", *arguments, "--base-url", emulator.base_url])
    return await cancel_runs(options, given_refs(options.ids))


async def new_batch(client: Client) -> str:
    line = {"custom_id": "r-1", "method": "POST", "url": BATCH_URL, "body": {"model": "m", "messages": []}}
    file = await client.files.create(file=(json.dumps(line) + "\n").encode(), purpose="batch")
    return (await client.batches.create(input_file_id=file.id, endpoint=BATCH_URL)).id


async def test_a_run_that_waits_for_outputs_says_for_which_and_since_when(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await start(emulator, client, Scenario(rounds=CALLS))
    await anyio.sleep(190)
    assert await show(emulator, run.thread_id, run.id) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"run {run.thread_id}/{run.id}\nstatus      requires_action: it waits for outputs")
    assert 'get_weather({"city":"Paris"})' in out
    assert "x" * 200 not in out
    assert "more: --json)" in out
    assert re.search(r"2 calls have had no output for 3 min \d+ s; nothing goes on", out)
    assert f"asyncruns cancel {run.thread_id}/{run.id}" in out
    assert "Without outputs the server expires it" in out
    assert err == ""


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        (Scenario(answer="Good\nday."), "assistant\n  Good\n  day.\ntokens"),
        (Scenario(end="failed", error_code="server_error"), "create it again; if that repeats"),
        (Scenario(end="incomplete"), "Raise max_completion_tokens"),
        (Scenario(rounds=CALLS, lifetime=20), "No outputs came for get_weather, book"),
        (Scenario(end="never", lifetime=20), "It took longer than the server allows"),
        (Scenario(working=3600, lifetime=7200), "Nothing new for"),
        (Scenario(queued=3600, lifetime=7200), "It has been waiting for"),
    ],
)
async def test_it_says_what_to_do(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str], scenario: Scenario, expected: str
) -> None:
    run = await start(emulator, client, scenario)
    await anyio.sleep(120)
    assert await show(emulator, f"{run.thread_id}/{run.id}") == 0
    assert expected in capsys.readouterr().out


async def test_responses_and_batches_are_shown(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script(Scenario(rounds=CALLS), model="m")
    emulator.script_batches(BatchScenario(working=20))
    response = await client.responses.create(model="m", input="Hi", background=True)
    batch_id = await new_batch(client)
    await anyio.sleep(5)
    assert await show(emulator, response.id) == 0
    assert "open call   call_" in capsys.readouterr().out
    assert await show(emulator, batch_id) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"batch {batch_id}\nstatus      in_progress")
    assert "requests    0 of 1 answered" in out


async def test_json_has_everything_and_nothing_is_cut(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await start(emulator, client, Scenario(rounds=CALLS))
    await anyio.sleep(5)
    assert await show(emulator, run.thread_id, run.id, "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["id"] == f"{run.thread_id}/{run.id}"
    assert found["phase"] == "needs_caller"
    assert [call["name"] for call in found["calls"]] == ["get_weather", "book"]
    assert "x" * 500 in found["calls"][1]["arguments"]
    assert found["object"]["id"] == run.id
    assert found["advice"]


async def test_a_run_is_shown_without_steps_that_cannot_be_fetched(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await start(emulator, client, Scenario())
    emulator.inject(Fault(on="steps", status=404, times=None))
    assert await show(emulator, run.thread_id, run.id) == 0
    out, err = capsys.readouterr()
    assert "status      " in out
    assert "/steps answered 404" in err


async def test_a_run_that_is_not_there_is_an_error(emulator: Emulator) -> None:
    with pytest.raises(NotFoundError):
        await show(emulator, "thread_x", "run_x")


async def test_a_clock_that_is_off_is_said(emulator: Emulator, client: Client) -> None:
    run = await start(emulator, client, Scenario())
    shown = await fetch_shown(client, RunRef.of(run))
    shown.clock_offset = 601.0
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        print_shown(shown, Sheet(10, console=console))
    assert "this machine's clock is 10 min 1 s ahead of the server's" in captured.get()


@pytest.mark.parametrize("width", [40, 80, 200])
async def test_no_row_is_wider_than_the_terminal_and_ids_stay_whole(width: int) -> None:
    console = Console(width=width, color_system=None)
    sheet = Sheet(58, 15, console=console)
    with console.capture() as captured:
        sheet.row("thread_" + "x" * 24 + "/run_" + "y" * 22, "in_progress", "word " * 60)
    lines = captured.get().splitlines()
    assert all(len(line) <= max(width, 58) for line in lines)
    assert "thread_" + "x" * 24 + "/run_" + "y" * 22 in lines[0]


async def test_short_rows_of_a_narrow_terminal_are_one_line() -> None:
    console = Console(width=40, color_system=None)
    with console.capture() as captured:
        Sheet(5, 16, console=console).row("ok", "threads", "served")
    assert captured.get().strip() == "ok  threads  served"


async def test_what_a_server_wrote_is_drawn_without_control_characters_and_markup() -> None:
    for width in (40, 200):
        console = Console(width=width, color_system=None)
        sheet = Sheet(10, console=console)
        with console.capture() as captured:
            sheet.title(EVIL)
            sheet.row(EVIL, EVIL)
            sheet.block(f"{EVIL}\n{EVIL}")
        assert not RAW.search(captured.get().replace("\n", ""))
        assert "[red]" in captured.get()


async def test_the_runs_of_threads_are_listed_newest_first(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    first = await start(emulator, client, Scenario(rounds=CALLS))
    await anyio.sleep(5)
    second = await start(emulator, client, Scenario())
    await anyio.sleep(5)
    threads = ("--thread", first.thread_id, "--thread", second.thread_id)
    assert await listed(emulator, *threads) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"{run.thread_id}/{run.id}" for run in (second, first)]
    assert lines[1].endswith("2 calls without output: get_weather, book")
    assert await listed(emulator, *threads, "--status", "completed", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["id"] == f"{second.thread_id}/{second.id}"
    assert await listed(emulator, *threads, "--limit", "1") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


async def test_without_threads_what_has_a_list_is_listed_and_the_rest_is_named(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    batch_id = await new_batch(client)
    message = {"custom_id": "m-1", "params": {"model": "m", "max_tokens": 5, "messages": []}}
    async with Client(emulator.base_url, default_headers={"anthropic-version": "2023-06-01"}) as other:
        message_batch = await other.message_batches.create(requests=[message])
    assert await listed(emulator) == 0
    out, err = capsys.readouterr()
    assert {line.split()[0] for line in out.splitlines()} == {batch_id, message_batch.id}
    assert err == "asyncruns: responses: the server shows no such list (404)\n"


async def test_a_server_without_any_list_is_1(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    emulator.inject(Fault(status=404, times=None))
    assert await listed(emulator) == 1
    assert "--thread THREAD_ID" in capsys.readouterr().err


async def test_a_thread_that_is_not_there_is_an_error(emulator: Emulator) -> None:
    with pytest.raises(NotFoundError):
        await listed(emulator, "--thread", "thread_x")


async def test_cancel_waits_for_the_end_of_each(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    running = await start(emulator, client, Scenario(end="never", cancelling=20))
    waiting = await start(emulator, client, Scenario(rounds=CALLS))
    over = await start(emulator, client, Scenario())
    await anyio.sleep(5)
    names = [f"{run.thread_id}/{run.id}" for run in (running, waiting, over)]
    assert await cancel(emulator, *names) == 0
    assert set(capsys.readouterr().out.splitlines()) == {
        f"{names[0]}  cancelled",
        f"{names[1]}  cancelled",
        f"{names[2]}  completed  it had ended before",
    }


async def test_cancel_without_waiting_shows_what_it_is_now(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await start(emulator, client, Scenario(end="never", cancelling=20))
    assert await cancel(emulator, run.thread_id, run.id, "--no-wait", "--json") == 0
    assert json.loads(capsys.readouterr().out)["status"] == "cancelling"
    await anyio.sleep(30)
    assert await cancel(emulator, run.thread_id, run.id, "--no-wait") == 0
    assert capsys.readouterr().out.endswith("cancelled  it had ended before\n")


@pytest.mark.parametrize("no_wait", [(), ("--no-wait",)])
async def test_a_refused_cancel_is_1_and_the_others_are_cancelled(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str], no_wait: tuple[str, ...]
) -> None:
    first = await start(emulator, client, Scenario(end="never"))
    second = await start(emulator, client, Scenario(end="never"))
    emulator.inject(Fault(on="cancel", run_id=first.id, status=405, times=None))
    names = [f"{run.thread_id}/{run.id}" for run in (first, second)]
    assert await cancel(emulator, *names, "thread_x", "run_x", *no_wait) == 1
    out, err = capsys.readouterr()
    assert names[1] in out
    assert names[0] in err
    assert "thread_x/run_x" in err


async def test_a_response_that_waits_for_outputs_has_ended(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script(Scenario(rounds=CALLS), model="m")
    response = await client.responses.create(model="m", input="Hi", background=True)
    await anyio.sleep(5)
    assert await cancel(emulator, response.id) == 0
    assert await cancel(emulator, response.id, "--no-wait") == 0
    assert capsys.readouterr().out.count("it had ended before") == 2


async def test_a_cancel_whose_end_is_not_seen_is_7(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await start(emulator, client, Scenario(end="never", cancelling=10_000, lifetime=20_000))
    assert await cancel(emulator, run.thread_id, run.id) == 7
    assert "a minute later" in capsys.readouterr().out


def test_ids_name_runs_responses_and_batches() -> None:
    ids = ("thread_1", "run_1", "thread_2/run_2", "resp_1", "batch_1", "msgbatch_1", "resp_1", "u1/u2")
    assert [(ref.dialect, ref.ids) for ref in given_refs(ids)] == [
        ("thread.run", ("thread_1", "run_1")),
        ("thread.run", ("thread_2", "run_2")),
        ("response", ("resp_1",)),
        ("batch", ("batch_1",)),
        ("message_batch", ("msgbatch_1",)),
        ("thread.run", ("u1", "u2")),
    ]


@pytest.mark.parametrize("ids", [("thread_1",), ("run_1",), ("thread_1/",), ("..",), ("a/..",), ("",), ("a/b", "c")])
def test_ids_that_name_nothing_are_refused(ids: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequestError):
        given_ref(*ids)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.25, "0.2 s"),
        (42, "42 s"),
        (60, "1 min"),
        (312, "5 min 12 s"),
        (7500, "2 h 5 min"),
        (-90_000, "1 d 1 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_a_time_is_ahead_or_past() -> None:
    assert (relative(60), relative(-60)) == ("in 1 min", "1 min ago")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell_has_the_commands_and_options(shell: str) -> None:
    command = [sys.executable, "-m", "asyncruns", "--print-completion", shell]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    for word in ("doctor", "cancel", "no-wait", "base-url"):
        assert word in done.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True, timeout=60)


async def test_huge_texts_are_cut_for_people(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await start(emulator, client, Scenario(end="never"))
    tools = [{"type": "mcp", "server_url": "https://mcp.example/4711", "headers": {"X-Key": "4711}"}}]
    emulator.inject(
        Fault(on="poll", times=2, rewrite=lambda body: {**body, "model": "\x1b" * 1_000_000, "tools": tools})
    )
    assert await show(emulator, run.thread_id, run.id) == 0
    out = capsys.readouterr().out
    assert len(out) < 10_000
    assert "(3998000 more: --json)" in out
    assert await show(emulator, run.thread_id, run.id, "--json") == 0
    shown = json.loads(capsys.readouterr().out)["object"]
    assert len(shown["model"]) == 1_000_000
    assert "4711" not in json.dumps(shown["tools"])


async def test_many_calls_are_cut_for_people(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await start(
        emulator, client, Scenario(queued=0, working=0, rounds=(tuple(FunctionCall("f", {}) for _ in range(128)),))
    )
    await anyio.sleep(1)
    assert await show(emulator, run.thread_id, run.id) == 0
    out = capsys.readouterr().out
    assert out.count("open call") == 41
    assert "and 88 more: --json shows them" in out


@pytest.mark.parametrize(("redirection", "code"), [(">&-", 0), (">/dev/full", 1)])
@pytest.mark.real_time
async def test_an_output_that_cannot_be_written_is_no_traceback(redirection: str, code: int) -> None:
    async with Emulator() as server, Client(server.base_url) as client:
        run = await start(server, client, Scenario())
        command = f"{sys.executable} -m asyncruns.cli list --thread {run.thread_id} --base-url {server.base_url}"
        process = await anyio.run_process(["sh", "-c", f"{command} {redirection}"], check=False)
    assert process.returncode == code
    assert b"Traceback" not in process.stderr


async def test_an_item_without_an_id_hides_no_other(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await start(emulator, client, Scenario())
    emulator.inject(
        Fault(on="runs", rewrite=lambda body: {**body, "data": [{**body["data"][0], "id": ""}, *body["data"]]})
    )
    assert await listed(emulator, "--thread", run.thread_id) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{run.thread_id}/{run.id}  ")
    assert "one was left out, as it has no id" in err
