"""Outcomes that were recorded but never delivered are forgotten after a while, if no living process owns them."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from asyncruns import RunRef, SQLiteJournal
from asyncruns.cli.reap import journal_at
from asyncruns.lifecycle.records import CallRecord, WatchRecord

OUTCOME = {"outcome": "Completed"}


def watch(key: str) -> WatchRecord:
    return WatchRecord(key=key, ref=RunRef("thread_run", (key,)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def make_older(path: Path, seconds: float) -> None:
    """Let what is in a journal have been written earlier."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        change = "UPDATE watches SET created_at = created_at - ?, finished_at = finished_at - ?"
        connection.execute(change, (seconds, seconds))


async def finish_some(journal: SQLiteJournal) -> None:
    await journal.add([watch("unfinished"), watch("old"), watch("new")])
    await journal.begin("old", [CallRecord(key="1", call_id="1")])
    await journal.finished({"old": OUTCOME})


async def test_an_old_outcome_is_forgotten_when_a_journal_is_opened(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with SQLiteJournal(path, keep_outcomes=864_000.0) as journal:
        await finish_some(journal)
        make_older(path, 864_001.0)
        await journal.finished({"new": OUTCOME})
    async with SQLiteJournal(path, keep_outcomes=864_000.0) as journal:
        assert [record.key for record in await journal.read()] == ["unfinished", "new"]
        (warning,) = caplog.records
        assert (warning.name, warning.levelname) == ("asyncruns.journal", "WARNING")
        assert warning.getMessage() == "Outcomes that were not delivered within 10 days are forgotten: 1"
        assert await journal.add([watch("old")]) == [watch("old")]


async def test_an_old_outcome_is_forgotten_by_claim_unless_a_living_process_owns_it(path: Path) -> None:
    async with SQLiteJournal(path, keep_outcomes=60.0) as journal, SQLiteJournal(path, keep_outcomes=60.0) as other:
        await finish_some(journal)
        make_older(path, 61.0)
        assert await other.claim() == []
        assert len(await other.read()) == 3
        await journal.aclose()
        assert [record.key for record in await other.claim()] == ["unfinished", "new"]


async def test_a_watch_that_goes_on_has_no_outcome_that_is_too_old(path: Path) -> None:
    async with SQLiteJournal(path, keep_outcomes=60.0) as journal:
        await finish_some(journal)
        await journal.moved("old", RunRef("thread_run", ("old",)), 1.0)
        make_older(path, 61.0)
    async with SQLiteJournal(path, keep_outcomes=60.0) as journal:
        assert [(record.key, record.outcome) for record in await journal.claim()] == [
            ("unfinished", None),
            ("old", None),
            ("new", None),
        ]


async def test_an_outcome_that_is_recorded_again_counts_anew(path: Path) -> None:
    async with SQLiteJournal(path, keep_outcomes=60.0) as journal:
        await finish_some(journal)
        make_older(path, 61.0)
        await journal.finished({"old": OUTCOME})
        await journal.release(["old"])
        (record,) = await journal.claim()
        assert replace(record, calls=(), created_at=0.0) == replace(watch("old"), outcome=OUTCOME)


async def test_the_command_line_forgets_no_outcome_because_of_its_age(path: Path) -> None:
    async with SQLiteJournal(path, keep_outcomes=math.inf) as journal:
        await finish_some(journal)
        make_older(path, 400 * 86_400.0)
    async with journal_at(str(path)) as journal:
        assert [record.key for record in await journal.read()] == ["unfinished", "old", "new"]
        assert len(await journal.claim()) == 3
