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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from asyncruns import (
    Client,
    Fleet,
    JournalError,
    NeedsCaller,
    NotOwnerError,
    PostgresJournal,
    RunRef,
    SQLiteJournal,
    ToolContext,
    Toolset,
)
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario
from asyncruns.testing.emulator.seen import json_object

T = TypeVar("T")
ROUNDS: Final = (
    (FunctionCall("pay", {"to": "a"}), FunctionCall("pay", {"to": "b"})),
    (FunctionCall("pay", {"to": "c"}),),
)
LEASE_S: Final = 1.0  # of a process, in PostgreSQL
AGAIN: Final = 3  # the status of a program that has left runs, since the journal could not be written
OF: Final = {"threads": "thread.run", "responses": "response"}


@dataclass
class Counted:
    """What became of the runs of one or more campaigns.

    Attributes:
        unknown: Number of calls of which the model read that their outcome is not known.
        lost: Number of outcomes that said that a submit was lost.
        taken_over: Number of watches that finished since another process had taken them.
    """

    kills: int = 0
    stops: int = 0
    runs: int = 0
    begun: int = 0
    begun_twice: int = 0
    told: int = 0
    never_told: int = 0
    submits: int = 0
    submitted_twice: int = 0
    unknown: int = 0
    lost: int = 0
    taken_over: int = 0

    def add(self, other: Counted) -> None:
        """Add the numbers of another campaign."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def is_well(self) -> bool:
        """Whether nothing happened that must not."""
        return not (self.begun_twice or self.never_told or self.submitted_twice)


async def kill_some(
    folder: Path, wire: str, chance: random.Random, *, runs: int = 20, at_most: int = 8, stops: int = 0, dsn: str = ""
) -> Counted:
    """Watch some runs with programs of which at most so many are killed, or stopped for a while, one after the other.

    One that is stopped goes on beside its successor. With a dsn, the journal is in PostgreSQL.
    """
    async with Emulator() as emulator:
        scenario = Scenario(rounds=ROUNDS, working=0.6 if dsn else 0.2)
        if wire == "threads":
            emulator.script(scenario, assistant_id="asst_1")
        else:
            emulator.script(scenario, model="gpt-test")
        emulator.inject(Fault(on="submit", delay_after=0.1, times=None))
        refs = await _created(emulator, wire, runs)
        counted = Counted(runs=runs)
        programs: list[asyncio.subprocess.Process] = []
        try:
            arguments = [emulator.base_url, str(folder), wire, dsn]
            names = [",".join(ref.ids) for ref in refs]
            while not await _is_done(counted, programs, [*arguments, *names], chance, at_most, stops):
                names = []
                await asyncio.sleep(LEASE_S + 0.2 if dsn else 0.0)
            for program in programs:
                assert await asyncio.wait_for(program.wait(), 60.0) in (0, -9, AGAIN)
        finally:
            for program in programs:
                if program.returncode is None:
                    program.kill()
        _count(counted, folder, emulator)
    return counted


async def _is_done(
    counted: Counted,
    programs: list[asyncio.subprocess.Process],
    arguments: list[str],
    chance: random.Random,
    at_most: int,
    stops: int,
) -> bool:
    """Start a program, and perhaps kill or stop it; return whether it has done its work instead."""
    program = await asyncio.create_subprocess_exec(sys.executable, __file__, *arguments, stdout=asyncio.subprocess.PIPE)
    programs.append(program)
    assert program.stdout is not None
    if len(programs) == 1 or chance.random() < 0.8:  # else it may die while it starts
        assert await program.stdout.readline() == b"recorded\n"
    waiting = asyncio.create_task(program.wait())
    if counted.kills + counted.stops < at_most + stops:
        await asyncio.wait({waiting}, timeout=chance.uniform(0.0, 2.0 if stops else 0.8))
        if program.returncode is None:
            if counted.stops < stops and (chance.random() < 0.5 or counted.kills == at_most):
                counted.stops += 1
                await _stop(program, chance)
            else:
                counted.kills += 1
                program.kill()
                await waiting
            return False
    assert await waiting in (0, AGAIN), program.returncode
    return program.returncode == 0


async def _stop(program: asyncio.subprocess.Process, chance: random.Random) -> None:
    """Stop a program until its lease has run out; it goes on while its successor works."""
    program.send_signal(signal.SIGSTOP)
    await asyncio.sleep(LEASE_S)
    asyncio.get_running_loop().call_later(chance.uniform(0.5, 4.0), program.send_signal, signal.SIGCONT)


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
    counted.taken_over = sum(line.endswith("taken_over") for line in told)
    told = [line for line in told if not line.endswith("taken_over")]
    counted.told = len(told)
    counted.never_told = counted.runs - len({line.split()[0] for line in told})
    counted.lost = sum(line.endswith("submit_lost") for line in told)
    counted.submits, counted.submitted_twice = len(accepted), sum(times > 1 for times in submits.values())
    for seen in accepted:
        body = json_object(seen.body)
        outputs = body.get("tool_outputs") or body.get("input") or []
        counted.unknown += sum("is not known" in str(item.get("output")) for item in outputs)


async def watch(base_url: str, folder: Path, wire: str, dsn: str, names: list[str]) -> None:
    """Resume and watch runs until all outcomes are told."""
    tools = Toolset()

    @tools.tool
    async def pay(to: str, context: ToolContext[Any]) -> str:
        assert context.ref is not None
        _write(folder / "begun", f"{context.ref.ids[-1]} {to}")
        await asyncio.sleep(random.uniform(0.0, 1.5 if dsn else 0.3))
        return f"paid {to}"

    refs = [RunRef(OF[wire], tuple(name.split(","))) for name in names]
    journal = PostgresJournal(dsn, lease=LEASE_S) if dsn else SQLiteJournal(folder / "journal.db")
    await _patiently(journal.open)
    has_left = False
    async with Client(base_url) as client, Fleet(client, journal=journal, tools=tools) as fleet:
        await _patiently(fleet.resume)
        watches = [fleet.watch(ref, label=label) for label, ref in enumerate(refs)]
        for each in watches:
            await _patiently(each.recorded)
        print("recorded", flush=True)  # noqa: T201
        while True:
            async for outcome in fleet:
                if isinstance(outcome, NeedsCaller):
                    has_left = True
                    continue
                reason = "" if outcome.reason is None else outcome.reason.value
                _write(folder / "told", f"{outcome.label} {type(outcome).__name__} {reason}")
            if has_left or not await _patiently(journal.read):
                break
            await asyncio.sleep(0.2)  # another process has them, or had them a moment ago
            await _patiently(fleet.resume)
    await journal.aclose()
    if has_left:
        sys.exit(AGAIN)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Return what a call returns, as soon as the database can be reached."""
    while True:
        try:
            return await call()
        except NotOwnerError:
            raise
        except JournalError:
            await asyncio.sleep(0.2)


def _write(path: Path, line: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{line}\n".encode())
    os.close(file)


if __name__ == "__main__":
    asyncio.run(watch(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5:]))
