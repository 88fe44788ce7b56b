"""`asyncruns batch watch` against an emulator in virtual time: lines, JSON, bars and exit codes."""

from __future__ import annotations

import asyncio
import io
import json
import math
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from rich.console import Console

from asyncruns import Client
from asyncruns.cli.batch_bars import BatchBars
from asyncruns.cli.batch_board import BatchBoard
from asyncruns.cli.batch_views import BatchJson, BatchLines
from asyncruns.cli.batch_watch import watch_batches
from asyncruns.lifecycle import Counts, EndKind
from asyncruns.testing import BatchScenario, Emulator, Fault
from asyncruns.wire.names import BATCH, MESSAGE_BATCH

URL = "/v1/chat/completions"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    async with Client(emulator.base_url, default_headers={"anthropic-version": "2023-06-01"}) as client:
        yield client


def body(number: int) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": f"Question {number}"}]}


async def new_batch(client: Client, count: int = 20) -> str:
    lines = (
        json.dumps({"custom_id": f"r-{number}", "method": "POST", "url": URL, "body": body(number)}) + "\n"
        for number in range(count)
    )
    file = await client.files.create(file="".join(lines).encode(), purpose="batch")
    return (await client.batches.create(input_file_id=file.id, endpoint=URL)).id


async def new_message_batch(client: Client, count: int = 20) -> str:
    requests = [{"custom_id": f"m-{number}", "params": body(number)} for number in range(count)]
    return (await client.message_batches.create(requests=requests)).id


async def watched(client: Client, ids: Iterable[str], view: Any, timeout: float | None = None) -> int:
    return await watch_batches({BATCH: client, MESSAGE_BATCH: client}, list(ids), view, timeout=timeout)


async def test_lines_show_each_status_and_how_all_ended(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script_batches(BatchScenario(validating=5, working=20, failing={"r-1", "r-2"}))
    ids = [await new_batch(client), await new_message_batch(client)]
    assert await watched(client, ids, BatchLines()) == 0
    out, err = capsys.readouterr()
    *lines, last = out.splitlines()
    assert last == "2 batches: 2 completed; 38 of 40 answered, 2 failed"
    shown = [line[10:] for line in lines if ids[0] in line]
    assert shown[0].split()[1] == "validating"
    assert shown[-1] == f"{ids[0]}  completed    18 of 20 answered, 2 failed"
    assert any(line.endswith(f"{ids[1]}  ended        20 of 20 answered") for line in lines)
    assert all(line[2] == line[5] == ":" for line in lines)
    assert err == ""


async def test_the_progress_of_all_is_a_line_every_ten_seconds(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script_batches(BatchScenario(working=100))
    await watched(client, [await new_batch(client, 100)], BatchLines())
    lines = [line for line in capsys.readouterr().out.splitlines() if "of 1 batch ended" in line]
    assert 3 <= len(lines) <= 11
    assert re.search(r"0 of 1 batch ended: \d+ of 100 answered", lines[0])


@pytest.mark.parametrize(
    ("scenario", "code", "ends"),
    [
        (BatchScenario(), 0, "2 completed"),
        (BatchScenario(end="failed", errors=[{"code": "bad", "message": "Bad \x1b[31mline", "line": 3}]), 1, "failed"),
        (BatchScenario(end="cancelled"), 3, "2 cancelled"),
        (BatchScenario(end="expired", lifetime=60), 4, "2 expired"),
    ],
    ids=lambda value: value.end if isinstance(value, BatchScenario) else None,
)
async def test_the_exit_code_states_how_they_ended(
    emulator: Emulator,
    client: Client,
    capsys: pytest.CaptureFixture[str],
    scenario: BatchScenario,
    code: int,
    ends: str,
) -> None:
    emulator.script_batches(scenario)
    ids = [await new_batch(client), await new_message_batch(client)]
    assert await watched(client, ids, BatchLines()) == code
    out = capsys.readouterr().out
    assert ends in out.splitlines()[-1]
    assert not RAW.search(out.replace("\n", ""))
    if code == 1:
        assert r"line 3: Bad \x1b[31mline" in out


async def test_of_several_batches_the_highest_exit_code_counts(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script_batches(BatchScenario(end="failed"), BatchScenario(end="cancelled"), BatchScenario())
    ids = [await new_batch(client) for _ in range(3)]
    assert await watched(client, ids, BatchLines()) == 3
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 batches: 1 completed, 1 failed, 1 cancelled; ")


async def test_an_unknown_id_and_a_timeout_are_7(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await watched(client, ["batch_none"], BatchLines()) == 7
    assert "batch_none  gave up      not found" in capsys.readouterr().out
    emulator.script_batches(BatchScenario(working=1000))
    assert await watched(client, [await new_batch(client)], BatchLines(), timeout=5) == 7
    assert "gave up      0 of 20 answered: timeout" in capsys.readouterr().out


async def test_json_has_the_id_of_the_batch_in_each_line(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [await new_batch(client), await new_message_batch(client)]
    assert await watched(client, ids, BatchJson()) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["batch"] for event in events} == set(ids)
    for batch_id in ids:
        own = [event for event in events if event["batch"] == batch_id]
        assert own[0]["event"] == "status"
        assert own[-1]["event"] == "end"
        assert own[-1]["outcome"] == "completed"
        progress = [event for event in own if event["event"] == "progress"]
        assert (progress[-1]["done"], progress[-1]["failed"], progress[-1]["total"]) == (20, 0, 20)


async def test_a_server_that_is_away_is_reported_once_for_all_batches(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script_batches(BatchScenario(working=120))
    ids = [await new_batch(client) for _ in range(5)]
    emulator.inject(Fault(on="poll", status=503, times=10), Fault(on="batches", status=503, times=10))
    assert await watched(client, ids, BatchLines()) == 0
    err = capsys.readouterr().err
    assert 1 <= err.count("connection degraded") <= 3
    assert "connection healthy" in err


async def test_an_interrupted_watch_says_how_to_go_on(
    emulator: Emulator, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script_batches(BatchScenario(working=1), BatchScenario(working=3600))
    ids = [await new_batch(client), await new_batch(client)]
    watching = asyncio.create_task(watched(client, ids, BatchLines()))
    await asyncio.sleep(60)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert f"1 batch still open; to go on: asyncruns batch watch {ids[1]}\n" in capsys.readouterr().err
    assert (await client.batches.retrieve(ids[1])).status == "in_progress"


def board(count: int) -> BatchBoard:
    return BatchBoard(f"batch_{number:032x}" for number in range(count))


def drawn(board: BatchBoard, width: int, height: int) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=False)
    console.print(BatchBars("http://host.example/v1", console).frame(board))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(40, 12), (80, 24), (120, 40), (30, 5)])
@pytest.mark.parametrize("count", [1, 3, 200])
async def test_the_bars_fit_the_terminal(width: int, height: int, count: int) -> None:
    shown = board(count)
    for row in list(shown.rows.values())[::2]:
        row.status, row.counts = "in_progress", Counts(done=12_000, failed=37_000, total=50_000)
    lines = drawn(shown, width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("asyncruns batch")
    assert lines[-1].startswith("all")
    assert len(lines) == min(count, height - 3) + 2


async def test_open_batches_are_shown_first_when_there_is_no_room_for_all() -> None:
    shown = board(50)
    rows = list(shown.rows.values())
    for row in rows[:45]:
        row.status, row.end = "completed", EndKind.COMPLETED
    rows[7].status, rows[7].end = "failed", EndKind.FAILED
    chosen = shown.choose(6)
    assert chosen == [rows[7], *rows[45:]]
    assert shown.ends() == "44 completed, 1 failed"


async def test_the_bar_over_all_counts_the_requests_of_all() -> None:
    shown = board(2)
    first, second = shown.rows.values()
    first.counts, second.counts = Counts(done=10, total=20), Counts(done=5, failed=5, total=80)
    last = drawn(shown, 80, 24)[-1]
    assert "0/2 ended" in last
    assert "20/100" in last
    assert last.endswith("5 failed")
    assert not math.isnan(shown.seconds)
