"""Both journals keep what the interface promises."""

from __future__ import annotations

from pathlib import Path

from asyncruns import MemoryJournal, SQLiteJournal
from asyncruns.journal.memory import MemoryStore
from asyncruns.testing import check_journal


async def test_a_journal_in_memory_keeps_the_promises() -> None:
    store = MemoryStore()
    await check_journal(lambda: MemoryJournal(store))
    assert len(store) == 0


async def test_a_journal_in_a_file_keeps_the_promises(tmp_path: Path) -> None:
    await check_journal(lambda: SQLiteJournal(tmp_path / "journal.db"))
    assert names_in(tmp_path) == ["journal.db", "journal.db-owners"]


def names_in(folder: Path) -> list[str]:
    """Return the names of all files and folders below a folder."""
    return sorted(path.name for path in folder.rglob("*"))
