"""What is called at once shares a transaction; closing writes what is pending; other event loops are refused."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from asyncruns import JournalError, RunRef, SQLiteJournal
from asyncruns.journal.statements import WISHES
from asyncruns.lifecycle.records import CallRecord, WatchRecord
from asyncruns.testing import VirtualTimeLoop

WATCH = WatchRecord(key="w", ref=RunRef("thread_run", ("thread_1", "run_1")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def call(number: int) -> CallRecord:
    return CallRecord(key=str(number), call_id=str(number))


async def test_what_is_called_at_once_shares_a_transaction(path: Path) -> None:
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH])
        with closing(sqlite3.connect(path)) as connection:
            (_, before, _) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            await asyncio.gather(*(journal.begin("w", [call(number)]) for number in range(200)))
            (_, pages, _) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert before > 0
    assert pages < 50  # 200 transactions would have written 600


async def test_what_is_called_while_a_transaction_is_written_keeps_its_order(path: Path) -> None:
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH])
        tasks = []
        for number in range(50):
            tasks.append(asyncio.ensure_future(journal.begin("w", [call(number)])))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
    async with SQLiteJournal(path) as other:
        (record,) = await other.claim()
    assert record.calls == tuple(call(number) for number in range(50))


async def test_looking_for_wishes_does_not_read_all_watches(path: Path) -> None:
    async with SQLiteJournal(path):
        with closing(sqlite3.connect(path)) as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT 1 {WISHES} LIMIT 1", ("",)).fetchall()
    assert not any(re.match("SCAN (TABLE )?watches", step[-1]) for step in plan), plan


async def test_closing_writes_what_is_pending(path: Path) -> None:
    journal = SQLiteJournal(path)
    await journal.open()
    adding = asyncio.ensure_future(journal.add([WATCH]))
    for _ in range(3):
        await asyncio.sleep(0)  # its transaction has begun, so the next call is pending
    beginning = asyncio.ensure_future(journal.begin("w", [call(1)]))
    await asyncio.sleep(0)
    await asyncio.gather(journal.aclose(), journal.aclose())
    await adding
    assert await beginning == []
    async with SQLiteJournal(path) as other:
        assert [record.calls for record in await other.claim()] == [(call(1),)]


async def test_a_caller_that_is_cancelled_does_not_spoil_the_transaction(path: Path) -> None:
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH])
        tasks = [asyncio.ensure_future(journal.begin("w", [call(number)])) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [list, asyncio.CancelledError, list]
        assert await journal.begin("w", [call(1)]) == [call(1)]  # it was written nevertheless


async def test_a_claim_that_is_cancelled_leaves_what_was_added_at_the_same_time(path: Path) -> None:
    other = WatchRecord(key="v", ref=RunRef("thread_run", ("thread_1", "run_2")))
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH, other])
        await journal.release(["w", "v"])
        claiming = asyncio.ensure_future(journal.claim())
        adding = asyncio.ensure_future(journal.add([WATCH]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # both are in one transaction now
        claiming.cancel()
        assert await adding == [WATCH]
        assert await journal.claim() == [other]
        assert await journal.begin("w", [call(1)]) == []
        assert claiming.cancelled()


async def test_a_claim_that_is_cancelled_once_it_is_written_releases_what_it_has_taken(path: Path) -> None:
    async def cancel_when_written() -> None:
        await journal.release([])
        claiming.cancel()

    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH])
        await journal.release(["w"])
        cancelling = asyncio.ensure_future(cancel_when_written())
        claiming = asyncio.ensure_future(journal.claim())  # in the same transaction, and returns later
        await asyncio.wait({cancelling, claiming})
        assert claiming.cancelled()
        assert await journal.claim() == [WATCH]


async def test_a_journal_may_be_closed_after_a_claim_was_cancelled(path: Path) -> None:
    for passes in range(6):
        journal = SQLiteJournal(path)
        await journal.open()
        await journal.add([WATCH])
        await journal.release(["w"])
        claiming = asyncio.ensure_future(journal.claim())
        for _ in range(passes):
            await asyncio.sleep(0)
        claiming.cancel()
        await journal.aclose()
        async with SQLiteJournal(path) as other:
            assert await other.claim() == [WATCH]
            await other.delivered(["w"])


async def test_a_close_that_is_cancelled_has_closed(path: Path) -> None:
    journal = SQLiteJournal(path)
    await journal.open()
    await journal.add([WATCH])
    closing_it = asyncio.ensure_future(journal.aclose())
    await asyncio.sleep(0)
    closing_it.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing_it
    async with SQLiteJournal(path) as other:
        assert await other.claim() == [WATCH]


async def test_an_open_that_is_cancelled_leaves_nothing_open(path: Path) -> None:
    journal = SQLiteJournal(path)
    opening = asyncio.ensure_future(journal.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with journal:
        assert await journal.claim() == []
    threads = [thread for thread in threading.enumerate() if thread.name == "asyncruns-journal"]
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def test_another_event_loop_is_refused_but_may_close(path: Path) -> None:
    journal = SQLiteJournal(path)
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(journal.open())
        runner.run(journal.add([WATCH]))
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        with pytest.raises(JournalError, match="opened in another event loop: close it, and open it in this one"):
            runner.run(journal.begin("w", [call(1)]))
        runner.run(journal.aclose())
        runner.run(journal.open())
        assert runner.run(journal.claim()) == [WATCH]
        runner.run(journal.aclose())


async def test_a_journal_shows_its_path_and_whether_it_is_open(path: Path) -> None:
    journal = SQLiteJournal(path)
    assert repr(journal) == f"<SQLiteJournal '{path}': closed>"
    async with journal:
        assert repr(journal) == f"<SQLiteJournal '{path}': open>"
        with pytest.raises(JournalError, match="is open already"):
            await journal.open()
