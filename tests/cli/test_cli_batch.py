"""`asyncruns batch submit`, `results`, `list` and `cancel` against an emulator, and the servers they choose."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from asyncruns import Client, ConfigurationError, InvalidRequestError
from asyncruns.cli import main
from asyncruns.cli.batch import COMMANDS
from asyncruns.cli.connect import connect_anthropic
from asyncruns.cli.options import make_parser
from asyncruns.testing import BatchScenario, Emulator, Fault

URL = "/v1/chat/completions"
Ask = Callable[..., Any]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("ASYNCRUNS_", "OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(name)


def body(number: int) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": f"Question {number}"}]}


def line(number: int, **fields: Any) -> dict[str, Any]:
    return {"custom_id": f"r-{number}", "method": "POST", "url": URL, "body": body(number), **fields}


def message(number: int) -> dict[str, Any]:
    return {"custom_id": f"m-{number}", "params": body(number)}


def file_of(folder: Path, lines: Iterable[Any]) -> str:
    path = folder / "requests.jsonl"
    path.write_text("".join(each if isinstance(each, str) else json.dumps(each) + "\n" for each in lines))
    return str(path)


async def batch(emulator: Emulator, *arguments: str) -> int:
    options = make_parser().parse_args(["batch", *arguments, "--base-url", emulator.base_url])
    return await COMMANDS[options.batch_command](options)


async def submitted(emulator: Emulator, capsys: pytest.CaptureFixture[str], file: str, *options: str) -> str:
    assert await batch(emulator, "submit", file, *options) == 0
    return capsys.readouterr().out.strip()


async def test_submit_prints_only_the_id_on_stdout(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(tmp_path, [line(1), "\n", line(2), line(3)])
    assert await batch(emulator, "submit", file, "--metadata", "job=night", "--metadata", "n=1") == 0
    out, err = capsys.readouterr()
    async with Client(emulator.base_url) as client:
        created = await client.batches.retrieve(out.strip())
        assert isinstance(created.metadata, dict)
        assert created.metadata.items() >= {("job", "night"), ("n", "1")}
        assert created.endpoint == URL
        assert isinstance(created.input_file_id, str)
        sent = await (await client.files.content(created.input_file_id)).text()
    assert [json.loads(each) for each in sent.splitlines()] == [line(1), line(2), line(3)]
    assert err == f"asyncruns: 3 requests submitted; to watch: asyncruns batch watch {created.id}\n"


async def test_bodies_alone_need_an_endpoint(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(tmp_path, [body(1), body(2)])
    with pytest.raises(ConfigurationError, match="pass --endpoint"):
        await batch(emulator, "submit", file)
    assert (await submitted(emulator, capsys, file, "--endpoint", URL)).startswith("batch_")


async def test_requests_with_params_become_a_message_batch(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(tmp_path, [message(1), message(2)])
    batch_id = await submitted(emulator, capsys, file)
    assert batch_id.startswith("msgbatch_")
    assert await batch(emulator, "watch", batch_id) == 0
    assert "2 of 2 answered" in capsys.readouterr().out
    assert await batch(emulator, "results", batch_id) == 0
    results = [json.loads(each) for each in capsys.readouterr().out.splitlines()]
    assert {result["custom_id"] for result in results} == {"m-1", "m-2"}
    with pytest.raises(ConfigurationError, match="has no endpoint and no metadata"):
        await batch(emulator, "submit", file, "--metadata", "a=b")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([line(1), "{not json}\n"], "requests.jsonl, line 2: it is not JSON"),
        ([line(1), "\n", json.dumps(line(2))[:40]], "requests.jsonl, line 3: it is not JSON: Input data was truncated"),
        ([line(1), "[1]\n"], "requests.jsonl, line 2: it is not a JSON object, but a list"),
        ([line(1), "\n", "\n", line(1)], "requests.jsonl, line 4: it has the custom_id of line 1"),
        ([line(1), "\n", line(2, url="/v1/embeddings")], "requests.jsonl, line 3: Request 2 is for '/v1/embeddings'"),
        ([line(1), line(2, body={"model": "other"})], "requests.jsonl, line 2: Request 2 has the model 'other'"),
        ([line(1), line(2, custom_id="")], "requests.jsonl, line 2: Request 2 has an empty custom_id"),
        ([line(1), message(2)], "requests.jsonl, line 2: Request 2 has the form of a message batch"),
        ([message(1), line(2)], "equest 2"),
        (["\n", " \n"], "has no requests"),
    ],
    ids=lambda value: value[-12:] if isinstance(value, str) else None,
)
async def test_a_wrong_line_is_named_and_nothing_is_sent(
    emulator: Emulator, tmp_path: Path, lines: list[Any], expected: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await batch(emulator, "submit", file_of(tmp_path, lines))
    assert expected in str(caught.value)
    assert emulator.requests == []


async def test_the_last_of_many_lines_is_named(emulator: Emulator, tmp_path: Path) -> None:
    lines = [*map(line, range(2000)), line(5)]
    with pytest.raises(InvalidRequestError, match="line 2001: it has the custom_id of line 6"):
        await batch(emulator, "submit", file_of(tmp_path, lines))
    assert emulator.requests == []


def test_a_file_that_is_not_there_is_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "submit", "/nowhere/x.jsonl", "--base-url", "http://127.0.0.1:1/v1"]) == 2
    assert capsys.readouterr().err == "asyncruns: /nowhere/x.jsonl cannot be read: No such file or directory\n"


async def test_a_pipe_is_read_to_its_end(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = "".join(json.dumps(line(number)) + "\n" for number in range(1200))
    writing = threading.Thread(target=pipe.write_text, args=(text,))
    writing.start()
    assert await batch(emulator, "submit", str(pipe)) == 0
    writing.join()
    assert "1200 requests submitted" in capsys.readouterr().err


async def test_more_than_one_batch_takes_become_several_ids(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {"model": "m", "input": "x"}
    lines = ({"custom_id": str(number), "url": "/v1/embeddings", "body": short} for number in range(50_001))
    ids = (await submitted(emulator, capsys, file_of(tmp_path, lines))).split()
    assert len(ids) == 2
    assert await batch(emulator, "watch", *ids) == 0
    out = capsys.readouterr().out
    assert "50000 of 50000 answered" in out
    assert out.endswith("2 batches: 2 completed; 50001 of 50001 answered\n")


async def test_results_are_printed_or_written(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script_batches(BatchScenario(failing={"r-2"}, body_as_text=True))
    batch_id = await submitted(emulator, capsys, file_of(tmp_path, map(line, range(1, 4))))
    with pytest.raises(InvalidRequestError, match="asyncruns batch watch " + batch_id):
        await batch(emulator, "results", batch_id)
    await batch(emulator, "watch", batch_id)
    capsys.readouterr()
    assert await batch(emulator, "results", batch_id) == 0
    out, err = capsys.readouterr()
    results = {result["custom_id"]: result for result in map(json.loads, out.splitlines())}
    assert {custom_id: result["kind"] for custom_id, result in results.items()} == {
        "r-1": "answered",
        "r-2": "failed",
        "r-3": "answered",
    }
    assert results["r-1"]["response"]["object"] == "chat.completion"
    assert err == f"asyncruns: {batch_id} is completed: 3 results (2 answered, 1 failed)\n"
    written = tmp_path / "out.jsonl"
    assert await batch(emulator, "results", batch_id, "-o", str(written)) == 0
    assert sorted(map(json.loads, written.read_text().splitlines()), key=str) == sorted(results.values(), key=str)
    assert not (tmp_path / "out.jsonl.part").exists()


async def test_missing_results_are_1(emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    emulator.script_batches(BatchScenario(lost={"r-2"}))
    batch_id = await submitted(emulator, capsys, file_of(tmp_path, map(line, range(1, 4))))
    await batch(emulator, "watch", batch_id)
    assert await batch(emulator, "results", batch_id) == 1
    assert "1 of 3 requests have no result" in capsys.readouterr().err


async def test_a_file_appears_only_when_it_is_whole(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch_id = await submitted(emulator, capsys, file_of(tmp_path, map(line, range(1, 4))))
    await batch(emulator, "watch", batch_id)
    emulator.inject(Fault(on="file_content", status=403, times=None))
    written = tmp_path / "out.jsonl"
    with pytest.raises(Exception, match="403"):
        await batch(emulator, "results", batch_id, "-o", str(written))
    assert os.listdir(tmp_path) == ["requests.jsonl"]
    with pytest.raises(InvalidRequestError, match="cannot be written: No such file"):
        await batch(emulator, "results", batch_id, "-o", str(tmp_path / "no" / "out.jsonl"))


async def test_batches_of_both_wires_are_cancelled(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [
        await submitted(emulator, capsys, file_of(tmp_path, [line(1)])),
        await submitted(emulator, capsys, file_of(tmp_path, [message(1)])),
    ]
    assert await batch(emulator, "cancel", *ids, ids[0]) == 0
    out, err = capsys.readouterr()
    assert [each.split()[0] for each in out.splitlines()] == ids
    assert [each.split()[3] for each in out.splitlines()] == ["cancelling", "canceling"]
    assert err == ""


async def test_one_that_cannot_be_cancelled_is_1_and_the_others_are_cancelled(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch_id = await submitted(emulator, capsys, file_of(tmp_path, [line(1)]))
    assert await batch(emulator, "cancel", "batch_none", batch_id, "--json") == 1
    out, err = capsys.readouterr()
    assert [json.loads(each)["id"] for each in out.splitlines()] == [batch_id]
    assert "batch_none" in err


async def test_the_list_has_a_line_for_each_of_the_newest(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(tmp_path, map(line, range(3)))
    ids = [await submitted(emulator, capsys, file) for _ in range(4)]
    await batch(emulator, "watch", ids[-1])
    capsys.readouterr()
    assert await batch(emulator, "list", "--limit", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [each.split()[0] for each in lines] == ids[:0:-1]
    assert lines[0].endswith("completed    3 of 3 answered")
    assert await batch(emulator, "list", "--limit", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == ids[-1]
    assert await batch(emulator, "list", "--anthropic") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments", [(), ("fly",), ("watch",), ("submit",), ("results",), ("list", "--limit", "0")])
def test_wrong_usage_of_batch_is_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["batch", *arguments])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: asyncruns batch")


def test_without_a_server_the_variables_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "watch", "msgbatch_1"]) == 2
    assert "set ANTHROPIC_API_KEY" in capsys.readouterr().err
    assert main(["batch", "watch", "batch_1"]) == 2
    assert "Set ASYNCRUNS_BASE_URL" in capsys.readouterr().err


HERE, THERE = "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"


@pytest.mark.parametrize(
    ("environment", "base_url", "expected"),
    [
        ({"ANTHROPIC_API_KEY": "a"}, None, ("https://api.anthropic.com/v1", {"x-api-key": "a"})),
        ({"ANTHROPIC_API_KEY": "a", "ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}, None, (HERE, {"x-api-key": "a"})),
        ({"ASYNCRUNS_BASE_URL": HERE, "ASYNCRUNS_API_KEY": "o"}, None, (HERE, {"x-api-key": "o"})),
        ({"ASYNCRUNS_BASE_URL": HERE}, None, (HERE, {})),
        ({"ANTHROPIC_API_KEY": "a", "ASYNCRUNS_BASE_URL": HERE, "ASYNCRUNS_API_KEY": "o"}, THERE, (THERE, {})),
        ({"ASYNCRUNS_BASE_URL": HERE, "ASYNCRUNS_API_KEY": "o"}, HERE, (HERE, {"x-api-key": "o"})),
        ({"OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a"}, "https://api.openai.com/v1", (None, {})),
    ],
)
def test_a_key_goes_only_to_the_server_that_it_was_set_for(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], base_url: str | None, expected: tuple[str | None, Any]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client = connect_anthropic(base_url, None, headers={})
    assert expected[0] in (None, client.base_url)
    auth = client.transport._auth  # type: ignore[attr-defined]
    assert (auth.ready() if auth else {}) == expected[1]
