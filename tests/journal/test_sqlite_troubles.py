"""What is wrong with the file of a journal, in the middle of a fleet: watches go on, and no tool runs unwritten."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from worlds import ROUNDS

from asyncruns import Client, Completed, Fleet, JournalError, NeedsCaller, SQLiteJournal, Toolset
from asyncruns.testing import InMemoryTransport, Scenario

Trouble = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a small disk, or on a usual one if this user may not mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    is_mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    yield folder
    if is_mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def full(path: Path) -> Iterator[None]:
    if not path.parent.is_mount():
        pytest.skip("mounting a tmpfs needs the rights of root")
    filler = path.with_name("filler")
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    yield
    filler.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def moved_away(path: Path) -> Iterator[None]:
    elsewhere = path.rename(path.with_name("elsewhere"))
    yield
    elsewhere.rename(path)


@contextmanager
def migrated(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as newer:
        newer.execute("PRAGMA user_version = 7")
        yield
        newer.execute("PRAGMA user_version = 1")


TROUBLES = [
    (full, r"disk is full.*Make room"),
    (locked, r"has locked it for more than 0\.01 s"),
    (moved_away, r"deleted, moved or replaced"),
    (migrated, r"a newer version of asyncruns wrote it"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("trouble", "words"), TROUBLES)
async def test_watches_go_on_and_no_tool_runs(
    disk: Path, trouble: Trouble, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    world, path = World(), disk / "journal.db"
    async with world.client, SQLiteJournal(path, busy_timeout=0.01) as journal:
        async with Fleet(world.client, journal=journal, tools=world.tools) as fleet:
            plain, paying = [fleet.watch(await world.run(name)) for name in ("asst_plain", "asst_pays")]
            await plain.recorded()
            await paying.recorded()
            with trouble(path):
                unrecorded = fleet.watch(await world.run("asst_plain"))
                with pytest.raises(JournalError, match=words):
                    await unrecorded.recorded()
                assert isinstance(await plain, Completed)
                assert isinstance(await unrecorded, Completed)
                outcome = await paying
                assert isinstance(outcome, NeedsCaller)
                assert re.search(words, str(outcome.cause))
                assert world.ran == []
            assert re.search(
                f"The journal of a fleet could not be written, which is tried again: .*{words}", caplog.text
            )
            paying.cancel()
            assert isinstance(await fleet.watch(await world.run("asst_pays")), Completed)
            assert world.ran == ["a", "b", "c"]
        assert await journal.read() == []


@pytest.mark.parametrize(("trouble", "words"), TROUBLES)
async def test_a_fleet_may_be_left_although_its_journal_cannot_be_written(
    disk: Path, trouble: Trouble, words: str
) -> None:
    world, path = World(), disk / "journal.db"
    async with world.client, SQLiteJournal(path, busy_timeout=0.01) as journal:
        with trouble(path):
            async with Fleet(world.client, journal=journal, tools=world.tools, on_exit="leave") as fleet:
                watch = fleet.watch(await world.run("asst_pays"))
                with pytest.raises(JournalError, match=words):
                    await watch.recorded()
        assert await journal.claim() == []
    assert world.ran == []


class World:
    """A server, and tools that say when they ran."""

    def __init__(self) -> None:
        transport = InMemoryTransport(latency=0.01)
        transport.script(Scenario(rounds=ROUNDS, working=0.5), assistant_id="asst_pays")
        transport.script(Scenario(working=0.5), assistant_id="asst_plain")
        self.client = Client(transport=transport)
        self.tools = Toolset()
        self.ran: list[str] = []

        @self.tools.tool
        async def pay(to: str) -> str:
            self.ran.append(to)
            return f"paid {to}"

    async def run(self, assistant_id: str) -> Any:
        thread = await self.client.threads.create(messages=[{"role": "user", "content": "Pay"}])
        return await self.client.threads.runs.create(thread.id, assistant_id=assistant_id)
