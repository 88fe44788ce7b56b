"""Kills programs that watch runs with a journal, and counts what became of the runs; the program is in here as well.

Run as a program, it resumes what is in the journal, watches the runs that are named on its command line, pays what they
ask for, and writes down what it did: each payment as it begins, and each outcome that it got.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from asyncruns import Client, Fleet, RunRef, SQLiteJournal, ToolContext, Toolset
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario
from asyncruns.testing.emulator.seen import json_object

ROUNDS: Final = (
    (FunctionCall("pay", {"to": "a"}), FunctionCall("pay", {"to": "b"})),
    (FunctionCall("pay", {"to": "c"}),),
)
OF: Final = {"threads": "thread.run", "responses": "response"}


@dataclass
class Counted:
    """What became of the runs of one or more campaigns.

    Attributes:
        unknown: Number of calls of which the model read that their outcome is not known.
        lost: Number of outcomes that said that a submit was lost.
    """

    kills: int = 0
    runs: int = 0
    begun: int = 0
    begun_twice: int = 0
    told: int = 0
    never_told: int = 0
    submits: int = 0
    submitted_twice: int = 0
    unknown: int = 0
    lost: int = 0

    def add(self, other: Counted) -> None:
        """Add the numbers of another campaign."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def is_well(self) -> bool:
        """Whether nothing happened that must not."""
        return not (self.begun_twice or self.never_told or self.submitted_twice)


async def kill_some(folder: Path, wire: str, chance: random.Random, *, runs: int = 20, at_most: int = 8) -> Counted:
    """Watch some runs with programs of which at most so many are killed, one after the other."""
    async with Emulator() as emulator:
        scenario = Scenario(rounds=ROUNDS, working=0.2)
        if wire == "threads":
            emulator.script(scenario, assistant_id="asst_1")
        else:
            emulator.script(scenario, model="gpt-test")
        emulator.inject(Fault(on="submit", delay_after=0.1, times=None))
        refs = await _created(emulator, wire, runs)
        counted = Counted(runs=runs)
        names = [",".join(ref.ids) for ref in refs]
        while True:
            program = await asyncio.create_subprocess_exec(
                sys.executable, __file__, emulator.base_url, str(folder), wire, *names, stdout=asyncio.subprocess.PIPE
            )
            assert program.stdout is not None
            if names:
                assert await program.stdout.readline() == b"recorded\n"
                names = []
            waiting = asyncio.create_task(program.wait())
            if counted.kills < at_most:
                await asyncio.wait({waiting}, timeout=chance.uniform(0.0, 1.5 if counted.kills else 0.8))
                with suppress(ProcessLookupError):
                    os.kill(program.pid, signal.SIGKILL)  # program.kill() takes an exit status from asyncio (gh-87744)
            status = await waiting
            counted.kills += status == -signal.SIGKILL
            if status == 0:
                break
            assert status == -signal.SIGKILL, status
        _count(counted, folder, emulator)
    return counted


async def _created(emulator: Emulator, wire: str, runs: int) -> list[RunRef]:
    async with Client(emulator.base_url) as client:
        created: list[Any] = []
        for _ in range(runs):
            if wire == "threads":
                thread = await client.threads.create(messages=[{"role": "user", "content": "Pay"}])
                created.append(await client.threads.runs.create(thread.id, assistant_id="asst_1"))
            else:
                created.append(await client.responses.create(model="gpt-test", input="Pay", background=True))
    return [RunRef.of(run) for run in created]


def _count(counted: Counted, folder: Path, emulator: Emulator) -> None:
    begun = Counter((folder / "begun").read_text().splitlines())
    told = (folder / "told").read_text().splitlines()
    accepted = [seen for seen in emulator.requests if seen.operation == "submit" and seen.acted]
    submits = Counter((seen.run_id, seen.body) for seen in accepted)
    counted.begun, counted.begun_twice = begun.total(), sum(times > 1 for times in begun.values())
    counted.told = len(told)
    counted.never_told = counted.runs - len({line.split()[0] for line in told})
    counted.lost = sum(line.endswith("submit_lost") for line in told)
    counted.submits, counted.submitted_twice = len(accepted), sum(times > 1 for times in submits.values())
    for seen in accepted:
        body = json_object(seen.body)
        outputs = body.get("tool_outputs") or body.get("input") or []
        counted.unknown += sum("is not known" in str(item.get("output")) for item in outputs)


async def watch(base_url: str, folder: Path, wire: str, names: list[str]) -> None:
    """Resume and watch runs until all outcomes are told."""
    tools = Toolset()

    @tools.tool
    async def pay(to: str, context: ToolContext[Any]) -> str:
        assert context.ref is not None
        _write(folder / "begun", f"{context.ref.ids[-1]} {to}")
        await asyncio.sleep(random.uniform(0.0, 0.3))
        return f"paid {to}"

    refs = [RunRef(OF[wire], tuple(name.split(","))) for name in names]
    async with (
        SQLiteJournal(folder / "journal.db") as journal,
        Client(base_url) as client,
        Fleet(client, journal=journal, tools=tools) as fleet,
    ):
        await fleet.resume()
        for label, ref in enumerate(refs):
            await fleet.watch(ref, label=label).recorded()
        print("recorded", flush=True)  # noqa: T201
        async for outcome in fleet:
            reason = "" if outcome.reason is None else outcome.reason.value
            _write(folder / "told", f"{outcome.label} {type(outcome).__name__} {reason}")


def _write(path: Path, line: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{line}\n".encode())
    os.close(file)


if __name__ == "__main__":
    asyncio.run(watch(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
