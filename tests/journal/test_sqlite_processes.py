"""Several processes on one file: what survives a kill, and which of them owns what."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from writers import IN_MEMORY, claimed, kill_some, received, started

from asyncruns import JournalError, RunRef, SQLiteJournal
from asyncruns.lifecycle.records import CallRecord, WatchRecord

WATCH = WatchRecord(key="w", ref=RunRef("thread_run", ("thread_1", "run_1")))
KILLS = 100


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        yield Path(folder) / "journal.db"


@pytest.mark.slow
def test_what_was_returned_is_there_after_a_kill(path: Path) -> None:
    chance = random.Random(1)
    steps = sum(kill_some(path, f"w{number}", chance) for number in range(KILLS // 4))
    assert steps > 10 * KILLS
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def hold(path: Path, connection: Connection) -> None:
    """Own a watch; try to change it for each message, and report what was raised."""

    async def run() -> None:
        async with SQLiteJournal(path) as journal:
            await journal.add([WATCH])
            connection.send("owned")
            while await asyncio.to_thread(connection.recv):
                try:
                    await journal.begin("w", [CallRecord(key="1", call_id="1")])
                except JournalError as error:
                    connection.send(type(error).__name__)
                else:
                    connection.send("begun")

    asyncio.run(run())


def test_a_process_that_is_stopped_keeps_its_watches_and_a_dead_one_does_not(path: Path) -> None:
    process, connection = started(hold, path)
    assert received(connection) == "owned"
    os.kill(process.pid or 0, signal.SIGSTOP)
    assert asyncio.run(claimed(path)) == []
    process.kill()
    process.join()
    assert asyncio.run(claimed(path)) == [WATCH]
    assert [*path.with_name("journal.db-owners").iterdir()] == []


def test_a_process_whose_lock_was_deleted_is_refused_when_another_one_has_claimed_its_watch(path: Path) -> None:
    process, connection = started(hold, path)
    assert received(connection) == "owned"
    for lock in path.with_name("journal.db-owners").iterdir():
        lock.unlink()
    assert asyncio.run(claimed(path)) == [WATCH]
    connection.send("try")
    assert received(connection) == "NotOwnerError"
    process.kill()


def fork(path: Path, connection: Connection) -> None:
    """Own a watch, and fork a child that tries to change it."""
    loop = asyncio.new_event_loop()
    journal = SQLiteJournal(path)
    loop.run_until_complete(journal.open())
    loop.run_until_complete(journal.add([WATCH]))
    if os.fork() == 0:
        try:
            asyncio.run(journal.delivered(["w"]))
        except JournalError as error:
            connection.send(str(error))
        asyncio.run(journal.aclose())
        connection.send(asyncio.run(claimed(path)))  # with a journal of its own: the parent lives
        connection.recv()
        os._exit(0)
    loop.run_until_complete(asyncio.sleep(60))


def test_a_forked_child_owns_nothing_and_does_not_keep_the_lock_of_its_parent(path: Path) -> None:
    process, connection = started(fork, path)
    assert "of which this one is a fork" in received(connection)
    assert received(connection) == []
    process.kill()
    process.join()
    assert asyncio.run(claimed(path)) == [WATCH]  # while the child lives
    connection.send("end")


def fork_and_close(path: Path, connection: Connection) -> None:
    """Own a watch, fork a child that opens a journal of its own, and close ours before or after that."""
    loop = asyncio.new_event_loop()
    journal = SQLiteJournal(path)
    loop.run_until_complete(journal.open())
    loop.run_until_complete(journal.add([WATCH]))
    child_opens_first = connection.recv() == "child first"
    opened, closed = os.pipe(), os.pipe()
    if os.fork() == 0:
        connection.send(asyncio.run(_as_child(path, connection, opened[1], closed[0], child_opens_first)))
        os._exit(0)
    if child_opens_first:
        os.read(opened[0], 1)
    loop.run_until_complete(journal.aclose())
    os.write(closed[1], b".")
    os.wait()


async def _as_child(path: Path, connection: Connection, opened: int, closed: int, opens_first: bool) -> object:
    if not opens_first:
        os.read(closed, 1)
    try:
        async with SQLiteJournal(path) as journal:
            if opens_first:
                os.write(opened, b".")
                os.read(closed, 1)
            await journal.claim()
            connection.send("claimed")
            connection.recv()
            await journal.begin("w", [CallRecord(key="1", call_id="1")])
            return [record.key for record in await journal.read()]
    except JournalError as error:
        return str(error)


@pytest.mark.parametrize("order", ["child first", "parent first"])
def test_a_forked_child_has_a_journal_of_its_own_when_its_parent_closes(path: Path, order: str) -> None:
    process, connection = started(fork_and_close, path)
    connection.send(order)
    assert received(connection) == "claimed"
    asyncio.run(add(path, "v"))  # shows whether SQLite goes on in the child with what it has inherited
    connection.send("go on")
    assert received(connection) == ["w", "v"]
    process.join()
    (first, _) = asyncio.run(claimed(path))
    assert first.calls == (CallRecord(key="1", call_id="1"),)


async def add(path: Path, key: str) -> None:
    async with SQLiteJournal(path) as journal:
        await journal.add([WatchRecord(key=key, ref=RunRef("thread_run", (key,)))])


def open_at_once(path: Path, connection: Connection) -> None:
    """Open a journal when told to, and report what was raised."""

    async def run() -> None:
        try:
            await add(path, str(os.getpid()))
        except JournalError as error:
            connection.send(str(error))
        else:
            connection.send("")

    connection.send("ready")
    connection.recv()
    asyncio.run(run())


def test_processes_may_create_the_file_at_once(path: Path) -> None:
    others = [started(open_at_once, path) for _ in range(8)]
    assert {received(connection) for _, connection in others} == {"ready"}
    for _, connection in others:
        connection.send("go")
    assert {received(connection) for _, connection in others} == {""}
    for process, _ in others:
        process.join()
    assert len(asyncio.run(claimed(path))) == 8


@pytest.mark.real_time
async def test_a_journal_that_is_abandoned_is_closed_when_it_is_collected(path: Path) -> None:
    journal = SQLiteJournal(path)
    await journal.open()
    await journal.add([WATCH])
    del journal
    records: list[WatchRecord] = []
    for _ in range(200):
        if records := await claimed(path):
            break
        await asyncio.sleep(0.01)
    assert records == [WATCH]
