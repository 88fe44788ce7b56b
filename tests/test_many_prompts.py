"""The example `many_prompts.py`, in a process of its own: answers, resume, failures, and ctrl-C."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asyncruns.testing import Emulator, Fault, Scenario

EXAMPLE = Path(__file__).parent.parent / "examples" / "many_prompts.py"
pytestmark = [pytest.mark.real_time, pytest.mark.slow]


@pytest.fixture
async def emulator(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Emulator]:
    async with Emulator(lambda request: Scenario(queued=0.0, working=0.1, answer="Hello.")) as emulator:
        monkeypatch.setenv("ASYNCRUNS_BASE_URL", emulator.base_url)
        monkeypatch.setenv("ASYNCRUNS_API_KEY", "any-key")
        yield emulator


class Folder:
    """A folder with prompts, and the answers to them."""

    def __init__(self, path: Path, number: int) -> None:
        self.prompts, self.answers = path / "prompts.jsonl", path / "answers.jsonl"
        lines = [json.dumps({"id": f"p{n}", "message": f"Question {n}"}) for n in range(number)]
        self.prompts.write_text("\n".join(lines) + "\n", encoding="utf-8")

    async def begin(self, *how: str) -> asyncio.subprocess.Process:
        how = how or ("--model", "gpt-test")
        arguments = ["-W", "error", str(EXAMPLE), str(self.prompts), str(self.answers), "--rate", "500", *how]
        return await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.PIPE)

    async def ask(self, *how: str) -> tuple[int | None, str]:
        """Run the example to its end; return its exit code, and what it reported."""
        process = await self.begin(*how)
        _, reported = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, reported.decode()

    def answered(self) -> list[str]:
        lines: list[dict[str, Any]] = [json.loads(line) for line in self.answers.read_text().splitlines()]
        assert all(line["answer"] == "Hello." for line in lines)
        return sorted(line["id"] for line in lines)


def asked(emulator: Emulator) -> int:
    """Return how many runs there are, and how many responses were asked for."""
    return len(emulator.runs) + sum(seen.operation == "create_response" for seen in emulator.requests)


def ids(number: int) -> list[str]:
    return sorted(f"p{n}" for n in range(number))


@pytest.mark.parametrize("how", [("--model", "gpt-test"), ("--assistant", "asst_1")])
async def test_all_prompts_are_answered_and_none_twice(
    emulator: Emulator, tmp_path: Path, how: tuple[str, str]
) -> None:
    emulator.script(Scenario(queued=0.0, working=0.1, answer="Hello."), assistant_id="asst_1")
    folder = Folder(tmp_path, 30)
    code, reported = await folder.ask(*how)
    assert (code, folder.answered()) == (0, ids(30))
    assert "30 of 30 answered, 0 failed" in reported
    seen = len(emulator.requests)
    assert await folder.ask() == (0, "0 of 0 answered, 0 failed, 0 active, 0 requests due\n")
    assert len(emulator.requests) == seen


async def test_prompts_that_fail_three_times_are_reported_and_asked_again_next_time(
    emulator: Emulator, tmp_path: Path
) -> None:
    folder = Folder(tmp_path, 1)
    emulator.inject(Fault(on="create_response", status=400, message="No.", times=3))
    code, reported = await folder.ask()
    assert (code, folder.answered()) == (1, [])
    assert "p0 failed: " in reported
    emulator.inject(Fault(on="create_response", status=400, message="No.", times=2))
    assert ((await folder.ask())[0], folder.answered()) == (0, ["p0"])


@pytest.mark.parametrize(
    ("end", "how"), [(signal.SIGKILL, ("--assistant", "asst_1")), (signal.SIGINT, ("--model", "gpt-test"))]
)
async def test_what_was_asked_when_it_ended_is_taken_up_and_not_asked_again(
    emulator: Emulator, tmp_path: Path, end: signal.Signals, how: tuple[str, str]
) -> None:
    emulator.script(Scenario(queued=0.0, working=2.0, answer="Hello."), assistant_id="asst_1")
    emulator.inject(Fault(on="create_run", delay_before=0.2, every=2, times=None))
    folder = Folder(tmp_path, 40)
    process = await folder.begin(*how)
    while not folder.answers.exists() or len(folder.answered()) < 5:
        await asyncio.sleep(0.02)
    process.send_signal(end)
    _, reported = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == (-end if end == signal.SIGKILL else end + 128), reported.decode()
    assert "Traceback" not in reported.decode()
    first = folder.answered()
    assert ((await folder.ask(*how))[0], folder.answered()) == (0, ids(40))
    assert 5 <= len(first) < 40
    assert asked(emulator) == 40


@pytest.mark.parametrize("how", [("--model", "gpt-test"), ("--assistant", "asst_1")])
async def test_what_was_being_asked_when_it_was_killed_is_not_lost(
    emulator: Emulator, tmp_path: Path, how: tuple[str, str]
) -> None:
    emulator.script(Scenario(queued=0.0, working=0.1, answer="Hello."), assistant_id="asst_1")
    emulator.inject(Fault(on="create_run", delay_after=0.3, times=None))
    emulator.inject(Fault(on="create_response", delay_after=0.3, times=None))
    folder = Folder(tmp_path, 60)
    process = await folder.begin(*how)
    while asked(emulator) < 10:
        await asyncio.sleep(0.02)
    process.kill()
    await process.communicate()
    under_way = asked(emulator)
    emulator.faults.clear()
    code, reported = await folder.ask(*how)
    assert (code, folder.answered()) == (0, ids(60)), reported
    assert under_way < 60
    if how[0] == "--assistant":
        assert asked(emulator) == 60
    else:  # nothing finds a response whose create was under way
        assert asked(emulator) <= 60 + under_way


async def test_the_end_of_a_line_that_a_crash_cut_off_is_removed(emulator: Emulator, tmp_path: Path) -> None:
    folder = Folder(tmp_path, 3)
    folder.answers.write_text('{"id": "p0", "answer": "Hello."}\n{"id": "p1", "ans', encoding="utf-8")
    assert ((await folder.ask())[0], folder.answered()) == (0, ids(3))
    assert sum(seen.operation == "create_response" for seen in emulator.requests) == 2
