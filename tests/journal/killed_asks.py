"""Kills programs that ask for runs with a journal, and counts what was created; the program is in here as well.

Run as a program, it goes on with what is in the journal, asks for as many runs as its command line says, and writes
down each outcome that it got.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncruns import Client, Fleet, SQLiteJournal
from asyncruns.testing import Emulator, Fault, Scenario
from asyncruns.testing.emulator.faults import Operation


@dataclass
class Asked:
    """What became of the runs that were asked for."""

    runs: int
    kills: int = 0
    created: int = 0
    created_twice: int = 0
    never_told: int = 0
    lost: int = 0  # outcomes that said that a response may have been created

    @property
    def is_well(self) -> bool:
        """Whether nothing happened that must not."""
        return not (self.created_twice or self.never_told) and self.created + self.lost >= self.runs


async def kill_askers(folder: Path, wire: str, chance: random.Random, *, runs: int = 20, at_most: int = 8) -> Asked:
    """Ask for some runs with programs of which at most so many are killed, one after the other."""
    async with Emulator() as emulator:
        if wire == "threads":
            emulator.script(Scenario(working=0.2), assistant_id="asst_1")
        else:
            emulator.script(Scenario(working=0.2), model="gpt-test")
        create: Operation = "create_run" if wire == "threads" else "create_response"
        emulator.inject(Fault(on=create, delay_before=0.05, delay_after=0.05, times=None))
        asked, ask = Asked(runs), runs
        while True:
            program = await asyncio.create_subprocess_exec(
                sys.executable, __file__, emulator.base_url, str(folder), wire, str(ask), stdout=asyncio.subprocess.PIPE
            )
            assert program.stdout is not None
            assert await program.stdout.readline() == b"recorded\n"
            ask = 0
            waiting = asyncio.create_task(program.wait())
            if asked.kills < at_most:
                await asyncio.wait({waiting}, timeout=chance.uniform(0.0, 0.4))
                with suppress(ProcessLookupError):
                    os.kill(program.pid, signal.SIGKILL)  # program.kill() takes an exit status from asyncio (gh-87744)
            status = await waiting
            asked.kills += status == -signal.SIGKILL
            if status == 0:
                break
            assert status == -signal.SIGKILL, status
        created = Counter(
            json.loads(seen.body)["metadata"]["ask"]
            for seen in emulator.requests
            if seen.operation == create and seen.acted
        )
    told = [line.split() for line in (folder / "told").read_text().splitlines()]
    asked.created, asked.created_twice = len(created), sum(times > 1 for times in created.values())
    asked.never_told = runs - len({label for label, _ in told})
    asked.lost = sum(how == "not_created" for _, how in told)
    return asked


async def ask(base_url: str, folder: Path, wire: str, runs: int) -> None:
    """Resume what is left, ask for so many runs, and watch until all outcomes are told."""
    async with (
        SQLiteJournal(folder / "journal.db") as journal,
        Client(base_url) as client,
        Fleet(client, journal=journal) as fleet,
    ):
        watches = await fleet.resume()
        for label in range(runs):
            request: Any = {"message": "Hi", "label": label, "parameters": {"metadata": {"ask": str(label)}}}
            if wire == "responses":
                request["model"] = "gpt-test"
            else:
                request["assistant_id"] = "asst_1"
            if wire == "threads" and label % 2:
                request["thread_id"] = (await client.threads.create()).id
            watches.append(fleet.run(**request))
        for watch in watches:
            await watch.recorded()
        print("recorded", flush=True)  # noqa: T201
        async for outcome in fleet:
            _write(folder / "told", f"{outcome.label} {'ended' if outcome.reason is None else outcome.reason.value}")


def _write(path: Path, line: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{line}\n".encode())
    os.close(file)


if __name__ == "__main__":
    asyncio.run(ask(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
