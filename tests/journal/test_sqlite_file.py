"""The file of a journal: who may read it, and a clear error for each thing that can be wrong with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from asyncruns import ConfigurationError, JournalError, NotOwnerError, RunRef, SQLiteJournal
from asyncruns.journal.database import Database
from asyncruns.lifecycle.records import CallRecord, WatchRecord, ref_of

WATCH = WatchRecord(key="w", ref=RunRef("thread_run", ("thread_1", "run_1")))
OTHER = WatchRecord(key="v", ref=RunRef("thread_run", ("thread_1", "run_2")))
CALL = CallRecord(key="1", call_id="1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs the rights of root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def modes_in(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.rglob("*")}


def run_sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


async def fails(path: Path, words: str) -> None:
    """Check that a journal cannot be opened, that the error names the file, and that it stays the same."""
    journal = SQLiteJournal(path, busy_timeout=0.05)
    for _ in range(2):
        with pytest.raises(JournalError, match=words) as caught:
            await journal.open()
        assert str(path) in str(caught.value)
    await journal.aclose()


async def test_only_this_user_may_read_the_files(path: Path) -> None:
    before = os.umask(0)
    try:
        async with SQLiteJournal(path) as journal:
            await journal.add([WATCH])
            modes = modes_in(path.parent)
    finally:
        os.umask(before)
    (owner,) = modes.keys() - {"journal.db", "journal.db-wal", "journal.db-shm", "journal.db-owners"}
    assert modes == {
        "journal.db": 0o600,
        "journal.db-wal": 0o600,
        "journal.db-shm": 0o600,
        "journal.db-owners": 0o700,
        owner: 0o600,
    }


async def test_a_delivered_output_is_not_in_the_files_any_more(path: Path) -> None:
    output = "a secret of ours " * 1000
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH])
        await journal.answered("w", [CallRecord(key="1", call_id="1", output=output)])
        await journal.delivered(["w"])
    assert [file.name for file in path.parent.iterdir() if file.is_file() and b"a secret" in file.read_bytes()] == []


async def test_a_file_shrinks_when_it_is_opened_after_much_was_delivered(path: Path) -> None:
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH])
        calls = [CallRecord(key=str(number), call_id="1", output="x" * 100_000) for number in range(30)]
        await journal.answered("w", calls)
        await journal.delivered(["w"])
    large = _size(path)
    async with SQLiteJournal(path):
        pass
    assert _size(path) < 100_000 < 3_000_000 < large


async def test_the_folder_is_missing(tmp_path: Path) -> None:
    await fails(tmp_path / "missing" / "journal.db", "No such file or directory.*folder must exist")


async def test_the_path_is_a_folder(tmp_path: Path) -> None:
    await fails(tmp_path, "cannot be opened|Is a directory")


async def test_the_file_is_no_database(path: Path) -> None:
    diary = b"Dear diary, " * 100
    _write(path, diary)
    await fails(path, r"not an SQLite database\. Move it away, or give the journal another path")
    assert _read(path) == diary


async def test_the_database_is_of_another_program(path: Path) -> None:
    run_sql(path, "CREATE TABLE customers (name TEXT)")
    before = _read(path)
    await fails(path, "belongs to another program: give the journal another path")
    assert _read(path) == before


async def test_a_newer_version_wrote_it(path: Path) -> None:
    async with SQLiteJournal(path):
        pass
    run_sql(path, "PRAGMA user_version = 7")
    await fails(path, "a newer version of asyncruns wrote it: it has schema 7")


async def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    _write(path, b"")
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH])


async def test_the_file_is_damaged(path: Path) -> None:
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH])
        await journal.begin("w", [CallRecord(key=str(number), call_id="1") for number in range(1000)])
    data = bytearray(_read(path))
    for page in range(1, len(data) // 4096):
        data[page * 4096 : page * 4096 + 100] = b"\xff" * 100
    _write(path, data)
    async with SQLiteJournal(path) as journal:
        with pytest.raises(JournalError, match=r"is damaged\. Move it and the files beside it away") as caught:
            await journal.claim()
        assert str(path) in str(caught.value)


async def test_a_record_that_cannot_be_read_is_named_and_can_be_forgotten(path: Path) -> None:
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH])
        run_sql(path, "UPDATE watches SET record = '{'")
        with pytest.raises(JournalError, match=r"Watch 'w' cannot be read.*Forget it with delivered\(\['w'\]\)"):
            await journal.moved("w", ref_of(WATCH), 1.0)
        await journal.delivered(["w"])
        assert await journal.claim() == []


@pytest.mark.parametrize(
    "damage",
    ["record = '{'", "record = 17", "record = x'ff'", "outcome = '['", "outcome = 1.5", "created_at = 'yesterday'"],
)
async def test_a_record_that_cannot_be_read_is_skipped_by_claim(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH, OTHER])
    run_sql(path, f"UPDATE watches SET {damage}, owner = 'dead' WHERE key = 'w'")
    async with SQLiteJournal(path) as journal:
        assert await journal.claim() == [OTHER]
        (warning,) = caplog.records
        assert (warning.name, warning.levelname) == ("asyncruns.journal", "WARNING")
        assert "Watch 'w' is skipped" in warning.getMessage()
        assert "Forget it with delivered(['w'])" in warning.getMessage()
        with pytest.raises(NotOwnerError):
            await journal.add([WATCH])
        await journal.delivered(["w", "v"])
        assert await journal.add([WATCH]) == [WATCH]


async def test_a_record_that_cannot_be_read_is_not_forgotten_while_its_owner_lives(path: Path) -> None:
    async with SQLiteJournal(path) as journal, SQLiteJournal(path) as other:
        await journal.add([WATCH])
        run_sql(path, "UPDATE watches SET record = '{'")
        with pytest.raises(NotOwnerError):
            await other.delivered(["w"])
        await journal.release(["w"])
        await other.delivered(["w"])
        assert await journal.add([WATCH]) == [WATCH]


async def test_a_disk_that_may_only_be_read(small_disk: Path) -> None:
    path = small_disk / "journal.db"
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH])
    await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,ro", str(small_disk)], check=True)
    await fails(path, "cannot be written|Read-only file system|cannot be opened")


async def test_a_full_disk_is_an_error_until_there_is_room(small_disk: Path) -> None:
    path = small_disk / "journal.db"
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH])
        _fill(small_disk, 500_000)
        large = [CallRecord(key="large", call_id="1", output="x" * 2_000_000)]
        results = await asyncio.gather(journal.begin("w", [CALL]), journal.answered("w", large), return_exceptions=True)
        assert results[0] == []  # what is small enough is written, even in a transaction with what is not
        assert re.search("disk is full.*Make room", str(results[1]))
        with pytest.raises(JournalError, match=r"disk is full.*Make room"):
            for number in range(1000):
                await journal.begin("w", [CallRecord(key=f"{number}", call_id=f"{number}" * 100)])
        _fill(small_disk, 0)
        assert await journal.begin("w", [CallRecord(key="last", call_id="1")]) == []


async def test_a_lock_of_another_process_is_an_error_until_it_is_released(path: Path) -> None:
    async with SQLiteJournal(path, busy_timeout=0.05) as journal:
        await journal.add([WATCH])
        with closing(sqlite3.connect(path, isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalError, match=r"has locked it for more than 0\.05 s.*later calls try again"):
                await journal.begin("w", [CALL])
        assert await journal.begin("w", [CALL]) == []


async def test_closing_a_journal_that_is_locked_gives_up_its_watches_nevertheless(path: Path) -> None:
    journal = SQLiteJournal(path, busy_timeout=0.05)
    await journal.open()
    await journal.add([WATCH])
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        await journal.aclose()
    async with SQLiteJournal(path) as other:
        assert await other.claim() == [WATCH]


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal"])
async def test_a_file_that_was_deleted_while_it_was_open_is_an_error_until_it_is_back(path: Path, name: str) -> None:
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH])
        file = path.with_name(name)
        file.rename(path.with_name("elsewhere"))
        with pytest.raises(JournalError, match=r"deleted, moved or replaced.*Put it back, or close the journal"):
            await journal.begin("w", [CALL])
        path.with_name("elsewhere").rename(file)
        assert await journal.begin("w", [CALL]) == []


async def test_a_file_that_was_replaced_while_it_was_open_is_an_error_until_it_is_opened_again(path: Path) -> None:
    journal = SQLiteJournal(path)
    await journal.open()
    for file in path.parent.glob("journal.db*"):
        file.unlink() if file.is_file() else shutil.rmtree(file)
    async with SQLiteJournal(path) as other:
        await other.add([WATCH])
    with pytest.raises(JournalError, match="was deleted, moved or replaced"):
        await journal.add([WATCH])
    await journal.aclose()
    async with journal:
        assert await journal.claim() == [WATCH]


@pytest.mark.parametrize("name", ["", ":memory:"])
def test_a_path_that_names_no_file_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="A journal needs a file"):
        SQLiteJournal(name)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (lambda: WatchRecord(key="w", ref=WATCH.ref, label={1: 2}), "The label of watch 'w' cannot be written"),
        (lambda: WatchRecord(key="w", ref=WATCH.ref, label="\ud800"), "cannot be written to a journal as JSON"),
        (lambda: WatchRecord(key="\ud800", ref=WATCH.ref), "cannot be written to a journal as JSON"),
        (
            lambda: WatchRecord(key="v", ref=OTHER.ref, created_at=float("nan")),
            "NOT NULL constraint failed",
        ),
    ],
)
async def test_what_cannot_be_written_is_an_error(path: Path, record: Callable[[], WatchRecord], words: str) -> None:
    async with SQLiteJournal(path) as journal:
        with pytest.raises(JournalError, match=words):
            await journal.add([WATCH, record()])
        with pytest.raises(JournalError, match="is not in the journal"):
            await journal.begin("w", [CALL])


async def test_an_output_that_is_too_large_is_an_error_that_names_the_call(path: Path) -> None:
    async with SQLiteJournal(path, max_output_bytes=10) as journal:
        await journal.add([WATCH])
        await journal.answered("w", [CallRecord(key="1", call_id="call_1", output="é" * 5)])
        words = "output of call 'call_2' has 11 bytes, and the journal takes at most 10.*larger max_output_bytes"
        with pytest.raises(JournalError, match=words):
            await journal.answered("w", [CallRecord(key="2", call_id="call_2", output="x" * 11)])


async def test_half_of_a_surrogate_pair_in_an_output_becomes_a_question_mark(path: Path) -> None:
    async with SQLiteJournal(path) as journal:
        await journal.add([WATCH])
        await journal.answered("w", [CallRecord(key="1", call_id="1", output="\ud83d!")])
        assert await journal.begin("w", [CALL]) == [CallRecord(key="1", call_id="1", output="?!")]


def test_a_file_may_be_created_by_another_process_while_it_is_checked(path: Path) -> None:
    other = Database(path, 0.05, None, 60.0)

    class Interrupted(Database):
        def _prepare(self, connection: sqlite3.Connection) -> None:
            def before(statement: str) -> None:
                if "sqlite_master" in statement:
                    connection.set_trace_callback(None)
                    with contextlib.suppress(JournalError):  # it is told to wait, and does not for long here
                        other.open()

            connection.set_trace_callback(before)
            super()._prepare(connection)

    database = Interrupted(path, 0.05, None, 60.0)
    database.open()
    database.close()
    other.close()


def _fill(disk: Path, size: int) -> None:
    _write(disk / "filler", b"x" * size)


def _write(path: Path, data: bytes | bytearray) -> None:
    path.write_bytes(data)


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _size(path: Path) -> int:
    return path.stat().st_size
