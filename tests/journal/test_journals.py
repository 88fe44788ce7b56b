"""Both journals keep what the interface promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncruns import Client, Fleet, InvalidRequestError, MemoryJournal, SQLiteJournal
from asyncruns.journal.memory import MemoryStore
from asyncruns.testing import InMemoryTransport, check_journal


async def test_a_journal_in_memory_keeps_the_promises() -> None:
    store = MemoryStore()
    await check_journal(lambda: MemoryJournal(store))
    assert len(store) == 0


async def test_a_journal_in_a_file_keeps_the_promises(tmp_path: Path) -> None:
    await check_journal(lambda: SQLiteJournal(tmp_path / "journal.db"))
    assert names_in(tmp_path) == ["journal.db", "journal.db-owners"]


async def test_a_fleet_is_not_entered_with_a_journal_that_is_not_open(tmp_path: Path) -> None:
    for journal in (MemoryJournal(MemoryStore()), SQLiteJournal(tmp_path / "journal.db")):
        async with Client(transport=InMemoryTransport()) as client:
            fleet = Fleet(client, journal=journal)
            with pytest.raises(InvalidRequestError, match="is not open: async with"):
                await fleet.__aenter__()
            async with journal, fleet:
                assert journal.is_open
        assert not journal.is_open


def names_in(folder: Path) -> list[str]:
    """Return the names of all files and folders below a folder."""
    return sorted(path.name for path in folder.rglob("*"))
