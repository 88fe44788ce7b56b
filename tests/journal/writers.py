"""Processes that write to a journal and are killed, and what must be there after that.

Each watch goes through the same steps. A writer reports a step when the journal has returned from it, so what is read
after a kill is the state after the last step that was reported for a watch, or after the next one.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, TypeVar

from asyncruns import MemoryJournal, PostgresJournal, RunRef, SQLiteJournal
from asyncruns.abc import Journal
from asyncruns.lifecycle.records import CallRecord, WatchRecord

CONTEXT: Final = multiprocessing.get_context("forkserver")  # a process starts in milliseconds, without ours' threads
CONTEXT.set_forkserver_preload(["asyncruns.journal.sqlite", "asyncruns.journal.postgres_database"])
TASKS: Final = 3
# A disk in memory, if there is one: what survives a kill does not depend on the disk, and real ones are slow at times.
IN_MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None

LEASE_S: Final = 0.5  # of a process, in PostgreSQL

W = TypeVar("W")
Where = Path | str  # the file of a journal, or the dsn of its database
Step = Callable[[Journal, str], Awaitable[object]]


def journal_at(where: Where) -> Journal:
    """Return a journal that is not open."""
    return SQLiteJournal(where) if isinstance(where, Path) else PostgresJournal(where, lease=LEASE_S)


def _ref(key: str, number: int) -> RunRef:
    return RunRef("thread_run", (key, f"run_{number}"))


def _call(key: str, number: int) -> CallRecord:
    return CallRecord(key=f"{key}/{number}", call_id=f"call_{number}")


def _output(key: str, number: int) -> CallRecord:
    return CallRecord(key=f"{key}/{number}", call_id=f"call_{number}", output=f"{key} " * 100, failed=number == 2)


STEPS: Final[Sequence[Step]] = (
    lambda journal, key: journal.add([WatchRecord(key=key, ref=_ref(key, 1), label={"of": key})]),
    lambda journal, key: journal.begin(key, [_call(key, 1), _call(key, 2)]),
    lambda journal, key: journal.answered(key, [_output(key, 1)]),
    lambda journal, key: journal.answered(key, [_output(key, 2)]),
    lambda journal, key: journal.submitting(key, [f"{key}/1", f"{key}/2"]),
    lambda journal, key: journal.moved(key, _ref(key, 2), 1.0),
    lambda journal, key: journal.begin(key, [_call(key, 3)]),
    lambda journal, key: journal.finished({key: {"outcome": "Completed", "of": key}}),
    lambda journal, key: journal.delivered([key]),
)


async def states_of(key: str) -> list[WatchRecord | None]:
    """Return the record of a watch before the first step and after each."""
    states: list[WatchRecord | None] = [None]
    journal = MemoryJournal()
    await journal.open()
    for step in STEPS:
        await step(journal, key)
        await journal.aclose()  # so that it can claim the watch
        await journal.open()
        states.append(next(iter(await journal.claim()), None))
    return states


def write(path: Where, name: str, reports: Connection) -> None:
    """Take watches through their steps for ever, several at once; report each step that is done."""

    async def take(journal: Journal, task: int) -> None:
        for number in itertools.count():
            key = f"{name}-{task}-{number}"
            for done, step in enumerate(STEPS, 1):
                await step(journal, key)
                reports.send((key, done))

    async def run() -> None:
        async with journal_at(path) as journal:
            await asyncio.gather(*(take(journal, task) for task in range(TASKS)))

    asyncio.run(run())


class Writer:
    """A process that writes, and what it has reported."""

    def __init__(self, path: Where, name: str) -> None:
        self._reports, theirs = CONTEXT.Pipe(duplex=False)
        self._process = CONTEXT.Process(target=write, args=(path, name, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.name = name
        self.done: dict[str, int] = {}

    def wait_for_reports(self, count: int) -> None:
        """Wait until some steps were reported."""
        for _ in range(count):
            key, done = self._reports.recv()
            self.done[key] = done

    def kill(self) -> None:
        """Kill the process, and read the rest of its reports."""
        self._process.kill()
        self._process.join()
        while True:
            try:
                key, done = self._reports.recv()
            except (EOFError, OSError):  # the last report may be cut
                break
            self.done[key] = done
        self._reports.close()

    async def check(self, records: Sequence[WatchRecord]) -> int:
        """Check the records of a new owner after the kill; return the number of steps that were reported."""
        found = {record.key: record for record in records if record.key.startswith(f"{self.name}-")}
        expected = {f"{self.name}-{task}-0": 0 for task in range(TASKS)}
        for key, done in self.done.items():
            task, _, number = key.rpartition("-")
            expected |= {key: done, f"{task}-{int(number) + 1}": 0}
        for key, done in (expected | self.done).items():
            states = await states_of(key)
            assert found.pop(key, None) in states[done : done + 2], f"{key} after {done} steps"
        assert found == {}, "watches that were delivered"
        return sum(self.done.values())


def kill_some(path: Where, name: str, chance: random.Random) -> int:
    """Kill one of four processes that write to a file, then the others, and check what a new owner finds each time.

    Return the number of steps that they had reported.
    """
    first, *others = [Writer(path, f"{name}.{number}") for number in range(4)]
    steps = 0
    for dying in ([first], others):
        for writer in dying:
            writer.wait_for_reports(chance.randrange(40))
            time.sleep(chance.random() * 0.01)
            writer.kill()
        if not isinstance(path, Path):
            time.sleep(LEASE_S + 0.2)
        records = asyncio.run(claimed(path))
        steps += sum(asyncio.run(writer.check(records)) for writer in dying)
        names = {record.key.rpartition("-")[0].rpartition("-")[0] for record in records}
        assert names <= {writer.name for writer in dying}, "watches of a living process were claimed"
    return steps


def started(work: Callable[[W, Connection], None], path: W) -> tuple[BaseProcess, Connection]:
    """Start a process that does some work, and return it with our end of a connection to it."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=work, args=(path, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


async def claimed(path: Where) -> list[WatchRecord]:
    """Return what a new journal claims, and forget it."""
    async with journal_at(path) as journal:
        records = await journal.claim()
        await journal.delivered([record.key for record in records])
        return records


def received(connection: Connection) -> Any:
    """Return what a process has sent.

    Raises:
        TimeoutError: It has sent nothing in 20 s.
    """
    if not connection.poll(20):
        raise TimeoutError
    return connection.recv()
