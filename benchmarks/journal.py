"""What a journal in a file costs: each transition alone and a hundred at once, and how long the event loop stalls.

    python benchmarks/journal.py [FOLDER]
    python benchmarks/journal.py --fleet [...]   # the same as journal_fleet.py: what it costs a fleet of 10,000 runs

A transition is one call of `SQLiteJournal`: a call begins, an output of 200 bytes is recorded, a submit is noted, a
watch is finished and forgotten. Alone, each one waits for the one before, and for the disk; at once, a hundred of as
many watches share a transaction. The same is measured with `synchronous = NORMAL`, which survives a kill of the process
but not a power failure, and is not what `SQLiteJournal` does. Here, no transaction waits for more to share it, which
under load each does for up to 40 ms. CPU time is that of all threads; "loop" is that of the
loop's own thread. A heartbeat sleeps for 1 ms and records how late it woke, while 10,000 watches are added at once,
finished and forgotten, and taken up by another journal: the least of three times. Writes `results/journal.json` beside
this file; the file of the journal is in a temporary folder, or in the one that is given.
"""

from __future__ import annotations

import asyncio
import json
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import journal_fleet

from asyncruns import RunRef, SQLiteJournal
from asyncruns.journal import database, group_commit
from asyncruns.lifecycle.records import CallRecord, WatchRecord

HERE: Final = Path(__file__).parent
ALONE: Final = 300
AT_ONCE, REPETITIONS = 100, 30
MANY: Final = 10_000
TICK_S: Final = 0.001
OUTCOME: Final = {
    "outcome": "Completed",
    "ref": {"dialect": "thread_run", "ids": ["thread_1", "run_1"]},
    "text": "x" * 200,
}

Step = Callable[[SQLiteJournal, str, int], Awaitable[object]]
STEPS: Final[dict[str, Step]] = {
    "begin": lambda journal, key, number: journal.begin(key, [call(number)]),
    "answered": lambda journal, key, number: journal.answered(key, [call(number, "x" * 200)]),
    "submitting and moved": lambda journal, key, number: submit(journal, key, number),
    "finished": lambda journal, key, number: journal.finished({key: {**OUTCOME, "number": number}}),
}


def call(number: int, output: str | None = None) -> CallRecord:
    return CallRecord(key=f"call_{number:024}/0123456789abcdef", call_id=f"call_{number:024}", output=output)


async def submit(journal: SQLiteJournal, key: str, number: int) -> None:
    await journal.submitting(key, [call(number).key])
    await journal.moved(key, ref(key), 1.0)


def ref(key: str) -> RunRef:
    return RunRef("thread_run", ("thread_abc123", f"run_{key}"))


def watches(count: int) -> list[WatchRecord]:
    return [WatchRecord(key=str(n), ref=ref(str(n)), label={"order": n}, created_at=time.time()) for n in range(count)]


async def transitions(path: Path) -> dict[str, Any]:
    figures = {}
    async with SQLiteJournal(path) as journal:
        await journal.add(watches(AT_ONCE))
        for name, step in STEPS.items():
            alone = await _timed(ALONE, partial(step, journal, "0"))
            at_once = await _timed(REPETITIONS, partial(step_all, step, journal))
            figures[name] = {"alone": alone, "at once": {name: value / AT_ONCE for name, value in at_once.items()}}
    return figures


async def step_all(step: Step, journal: SQLiteJournal, number: int) -> None:
    await asyncio.gather(*(step(journal, str(watch), ALONE + number) for watch in range(AT_ONCE)))


async def _timed(count: int, step: Callable[[int], Awaitable[object]]) -> dict[str, float]:
    """Return what a step takes, in microseconds: in all, of the CPU, and of the loop's thread."""
    clocks = {"elapsed": time.perf_counter, "cpu": time.process_time, "loop": time.thread_time}
    began = {name: clock() for name, clock in clocks.items()}
    for number in range(count):
        await step(number)
    return {f"{name}_us": 1e6 * (clock() - began[name]) / count for name, clock in clocks.items()}


async def stalls(path: Path) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    async with SQLiteJournal(path) as journal:
        records = watches(MANY)
        for name, work in {
            "add": lambda: journal.add(records),
            "begin, each": lambda: asyncio.gather(*(journal.begin(record.key, [call(1)]) for record in records)),
            "finished": lambda: journal.finished({record.key: OUTCOME for record in records}),
        }.items():
            figures[name] = await _stall(work)
    async with SQLiteJournal(path) as journal:
        figures["claim"] = await _stall(journal.claim)
        figures["delivered"] = await _stall(lambda: journal.delivered([record.key for record in records]))
    return figures


async def _stall(work: Callable[[], Awaitable[object]]) -> dict[str, float]:
    late = [0.0]

    async def beat() -> None:
        while True:
            due = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            late.append(time.perf_counter() - due)

    heart = asyncio.create_task(beat())
    await asyncio.sleep(0.01)
    began = time.perf_counter()
    await work()
    took = time.perf_counter() - began
    await asyncio.sleep(0.005)
    heart.cancel()
    return {"elapsed_ms": 1e3 * took, "longest_stall_ms": 1e3 * max(late)}


def rounded(value: Any) -> Any:
    return {key: rounded(each) for key, each in value.items()} if isinstance(value, dict) else round(value, 1)


def main(folder: str | None = None) -> None:
    vars(group_commit)["BURST"] = 10**9
    figures: dict[str, Any] = {}
    settings: Any = database._SETTINGS
    for level in ("FULL", "NORMAL"):
        vars(database)["_SETTINGS"] = (*settings, f"PRAGMA synchronous = {level}")
        with tempfile.TemporaryDirectory(dir=folder) as place:
            figures[level] = asyncio.run(transitions(Path(place) / "journal.db"))
    vars(database)["_SETTINGS"] = settings
    times = []
    for _ in range(3):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            times.append(asyncio.run(stalls(Path(place) / "journal.db")))
    figures[f"{MANY} watches"] = {
        name: {what: min(each[name][what] for each in times) for what in row} for name, row in times[0].items()
    }
    for group, rows in figures.items():
        for name, row in rows.items():
            print(group, name, {what: rounded(value) for what, value in row.items()})
    about = {"asyncruns": version("asyncruns"), "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    (HERE / "results" / "journal.json").write_text(json.dumps({**about, **rounded(figures)}, indent=1) + "\n")


if __name__ == "__main__":
    if "--fleet" in sys.argv:
        sys.exit(journal_fleet.main([argument for argument in sys.argv[1:] if argument != "--fleet"]))
    main(*sys.argv[1:])
