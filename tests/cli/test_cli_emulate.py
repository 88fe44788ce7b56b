"""`asyncruns emulate --scenario FILE --fault FAULT`: what it reads, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import fields
from pathlib import Path

import pytest

from asyncruns import Client
from asyncruns.cli import main
from asyncruns.cli.emulate import serve
from asyncruns.cli.options import make_parser
from asyncruns.cli.scripts import batch_scenarios_from, fault_from, in_turn, scenarios_from
from asyncruns.testing import BatchScenario, Emulator, Fault, FunctionCall, Scenario


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "scenario.json"


def written(file: Path, content: object) -> str:
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


def test_a_file_has_one_scenario_or_a_list_of_them(file: Path) -> None:
    calls = [[{"name": "a", "arguments": {"x": 1}}, {"name": "b", "arguments": "not JSON"}], [{"name": "c"}]]
    first = Scenario(
        working=2,
        rounds=((FunctionCall("a", {"x": 1}), FunctionCall("b", "not JSON")), (FunctionCall("c"),)),
        answer="Done.",
    )
    assert scenarios_from(written(file, {"working": 2, "rounds": calls, "answer": "Done."})) == (first,)
    failing = {"end": "failed", "error_code": "server_error"}
    assert scenarios_from(written(file, [failing, {}])) == (Scenario(end="failed"), Scenario())


def test_every_field_of_a_scenario_can_be_written(file: Path) -> None:
    plain = {each.name: each.default for each in fields(Scenario) if each.name != "rounds"}
    assert scenarios_from(written(file, plain)) == (Scenario(),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"anser": "x"}, "unknown field `anser`"),
        ([{}, {"rounds": [[{"nam": "x"}]]}], r"unknown field `nam` - at `\$\[1\]\.rounds\[0\]\[0\]`"),
        ({"rounds": [[{"arguments": "{}"}]]}, r"required field `name` - at `\$\.rounds\[0\]\[0\]`"),
        ({"working": "long"}, r"got `str` - at `\$\.working`"),
        ([{"working": 1}, {"working": -1}], r"working is -1.*0 or more - at `\$\[1\]`"),
        ({"end": "ended"}, "end is 'ended'; give one of"),
        ([], "no scenario"),
        ("{", "truncated"),
        ("[5]", r"got `int` - at `\$\[\.\.\.\]`|got `int`"),
        (None, "Expected `object`, got `null`"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_file_is_named_with_the_file_and_the_place(
    file: Path, content: object, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        scenarios_from(written(file, content))
    assert str(caught.value).startswith(f"{file}: ")
    with pytest.raises(SystemExit) as ended:
        main(["emulate", "--scenario", str(file)])
    assert ended.value.code == 2
    assert str(caught.value) in capsys.readouterr().err


def test_a_file_has_scenarios_of_batches(file: Path) -> None:
    written(file, {"working": 5, "failing": ["a"], "lost": ["b"], "end": "expired"})
    (scenario,) = make_parser().parse_args(("emulate", "--batch", str(file))).batch
    assert scenario == BatchScenario(working=5, failing=["a"], lost=["b"], end="expired")
    plain = {each.name: each.default for each in fields(BatchScenario) if each.name != "answers"}
    assert len(batch_scenarios_from(written(file, [plain, {}]))) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"failing": "request-1"}, r"Expected `array`, got `str` - at `\$\.failing`"),
        ([{}, {"share": 2}], r"share is 2.*from 0 to 1 - at `\$\[1\]`"),
        ({"answers": {}}, "unknown field `answers`"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_file_of_batches_is_named(
    file: Path, content: object, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        batch_scenarios_from(written(file, content))
    with pytest.raises(SystemExit):
        main(["emulate", "--batch", str(file)])
    assert str(caught.value) in capsys.readouterr().err


async def test_new_batches_get_the_scenarios_in_turn() -> None:
    scenarios = (BatchScenario(failing=["request-2"]), BatchScenario(end="failed"))
    seen = []
    async with Emulator(batches=in_turn(scenarios)) as emulator, Client(emulator.base_url) as client:
        for _ in range(3):
            batch = await client.batches.create(requests=[{"input": "a"}, {"input": "b"}], endpoint="/v1/responses")
            outcome = await client.watch(batch)
            seen.append((outcome.status, [result.kind async for result in outcome.results()]))
    answered = ("completed", ["answered", "failed"])
    assert seen == [answered, ("failed", []), answered]


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(ValueError, match=r"scenario\.json: No such file"):
        scenarios_from(str(file))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("status=500", Fault(status=500)),
        ("on=poll,status=500,times=10", Fault(on="poll", status=500, times=10)),
        (
            "on=submit, drop, acts, every=3, times=none",
            Fault(on="submit", drop=True, acts=True, every=3, times=None),
        ),
        ("on=poll,delay_after=inf", Fault(on="poll", delay_after=math.inf)),
        ("on=poll,stale=2.5,damage=cut", Fault(on="poll", stale=2.5, damage="cut")),
        (
            '{"on": "poll", "status": 429, "headers": {"Retry-After": "2"}, "body": {"a": 1}}',
            Fault(on="poll", status=429, headers={"Retry-After": "2"}, body={"a": 1}),
        ),
    ],
)
def test_a_fault_is_written_as_pairs_or_as_json(text: str, fault: Fault) -> None:
    assert fault_from(text) == fault
    assert make_parser().parse_args(("emulate", "--fault", text, "--fault", "drop")).fault == [fault, Fault(drop=True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "unknown field"),
        ("on=poll", "nothing goes wrong"),
        ("stauts=500", "unknown field `stauts`"),
        ("status=many", r"got `str` - at `\$\.status`"),
        ("on=polls,drop", "on is 'polls'; give one of"),
        ("drop,every=0", "every is 0"),
        ("rewrite=x", "unknown field `rewrite`"),
        ('{"status": "500"}', r"at `\$\.status`"),
        ("{", "truncated"),
    ],
)
def test_a_wrong_fault_is_refused_with_words(text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        fault_from(text)
    with pytest.raises(SystemExit) as ended:
        main(["emulate", "--fault", text])
    assert ended.value.code == 2
    assert str(caught.value) in capsys.readouterr().err


async def test_new_runs_get_the_scenarios_in_turn() -> None:
    scenarios = (Scenario(answer="one"), Scenario(end="failed"))
    async with Emulator(in_turn(scenarios)) as emulator, Client(emulator.base_url) as client:
        assistant = await client.assistants.create(model="m")
        seen = []
        for _ in range(3):
            outcome = await client.run(assistant_id=assistant.id, message="Hi")
            seen.append((outcome.status, await outcome.text() if outcome.status == "completed" else ""))
    assert seen == [("completed", "one"), ("failed", ""), ("completed", "one")]


async def test_what_the_emulator_was_told_is_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(file, [{}, {}])
    options = make_parser().parse_args(["emulate", "--scenario", path, "--batch", path, "--fault", "status=500"])
    serving = asyncio.create_task(serve(options))
    while "Fault" not in (shown := capsys.readouterr().out):
        await asyncio.sleep(0.01)
    assert "Runs have 2 scenarios, in turn\nBatches have 2 scenarios, in turn\nFault(status=500)\n" in shown
    serving.cancel()
    await asyncio.wait({serving})


def test_the_examples_of_the_help_work(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["emulate", "--help"])
    text = capsys.readouterr().out
    start = text.index("  [{")
    assert len(scenarios_from(written(file, text[start : text.index("\n\n", start)]))) == 2
    batch = next(line for line in text.splitlines() if "request-3" in line)
    assert len(batch_scenarios_from(written(file, batch))) == 1
    lines = [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith(("  --fault o", "  --fault '"))]
    faults = [fault_from(line.strip("'") if line[0] == "'" else line.split()[0]) for line in lines]
    assert [fault.on for fault in faults] == ["poll", "submit", "poll"]
