"""What is wrong with the file of a journal, in words: what happened, and what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from asyncruns.errors import JournalError

_ADVICE: Final = {
    sqlite3.SQLITE_READONLY: "it cannot be written. The file and its folder, where SQLite creates files beside it, "
    "must be writable for this process",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened. Its folder must exist, and be writable for this process",
    sqlite3.SQLITE_PERM: "this process may not access it. Give it the permission to read and write the file",
    sqlite3.SQLITE_FULL: "the disk is full, or a quota is used up. Make room; what was to be written was not written",
    sqlite3.SQLITE_CORRUPT: "it is damaged. Move it and the files beside it away, and restore a copy or begin anew",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database. Move it away, or give the journal another path",
    sqlite3.SQLITE_IOERR: "the disk reports an error. Check the disk, whether it is still mounted, and its free space",
}


def error_of(path: Path, error: BaseException, timeout_s: float) -> JournalError:
    """Return the JournalError for what SQLite or the operating system raised.

    Args:
        path: The file of the journal.
        error: What was raised; a JournalError is returned as it is.
        timeout_s: How long it was waited for other processes.
    """
    if isinstance(error, JournalError):
        return error
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename not in (None, str(path)) else ""
        why = f"{error.strerror}{where}. Its folder must exist, and be readable and writable for this process"
    elif isinstance(error, sqlite3.Error):
        why = _of_sqlite(error, timeout_s)
    else:
        why = f"{type(error).__name__}: {error}"
    failure = JournalError(f"Journal {path}: {why}")
    failure.__cause__ = error
    return failure


def _of_sqlite(error: sqlite3.Error, timeout_s: float) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says more, as the kind of an I/O error
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return (
            f"another process has locked it for more than {timeout_s:g} s. Find what holds it, as a shell of sqlite3 "
            "or a backup; later calls try again"
        )
    advice = _ADVICE.get(code)
    return f"{error}" if advice is None else f"{advice} ({error})"


def is_gone(path: Path) -> JournalError:
    """Return the error for a file that was deleted or replaced while it was open."""
    return JournalError(
        f"Journal {path}: the file, or its -wal beside it, was deleted, moved or replaced while it was open, so what "
        "would be written could not be read again. Put it back, or close the journal and open it again"
    )
