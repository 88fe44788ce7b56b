"""The file of a journal: opened, checked, and written in transactions. All of it blocks, and runs in one thread.

Nothing here may open the file but SQLite: closing another descriptor of it would release the locks that SQLite holds.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from asyncruns.abc import Codec
from asyncruns.errors import JournalError
from asyncruns.journal.file_errors import error_of, is_gone
from asyncruns.journal.forking import abandon_at_fork
from asyncruns.journal.owner_lock import OwnerLock, sweep
from asyncruns.journal.rows import SCHEMA, Owned
from asyncruns.journal.statements import Statement, left_to_any, pruned

T = TypeVar("T")
VERSION: Final = 1
APPLICATION_ID: Final = 0x6172756E  # "arun", at byte 68 of the file; so does `file` know it
_SETTINGS: Final = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",
    "PRAGMA synchronous = FULL",
    f"PRAGMA journal_size_limit = {16 << 20}",  # of the -wal, after a large transaction
)


class Database:
    """The file of one journal, open or not.

    Args:
        path: The file.
        busy_timeout: Seconds to wait for other processes that write.
        codec: What the caller's content passes through.
        keep_outcomes: Seconds after which an outcome that was not delivered is forgotten.
    """

    def __init__(self, path: Path, busy_timeout: float, codec: Codec | None, keep_outcomes: float) -> None:
        self._path = path
        self._timeout = busy_timeout
        self._codec, self._keep_outcomes = codec, keep_outcomes
        self._connection: sqlite3.Connection | None = None
        self._lock: OwnerLock | None = None
        self._db: Owned | None = None
        self._files: tuple[tuple[int, int], ...] = ()
        self.in_use: threading.Lock = threading.Lock()  # while a fork must wait
        abandon_at_fork(self)

    def open(self) -> None:
        """Open the file, create or migrate its schema, and begin to own watches.

        Raises:
            JournalError: It cannot be opened; nothing is left open.
        """
        try:
            self._path = Path(os.path.realpath(self._path))
            _create(self._path)
            with self.in_use:
                self._connection = sqlite3.connect(
                    self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False
                )
                self._prepare(self._connection)
        except BaseException as error:
            self._end()
            raise error_of(self._path, error, self._timeout) from error
        self.run([pruned])

    def run(self, statements: Sequence[Statement]) -> list[Any]:
        """Run statements in one transaction; return for each what it returned, or a JournalError. Never raises.

        A statement that fails is undone, and the others are not. If the transaction fails, each is run by itself.
        """
        with self.in_use:
            return self._run(statements)

    def _run(self, statements: Sequence[Statement]) -> list[Any]:
        try:
            return self._in_one(lambda db: [statement(db) for statement in statements])
        except Exception as error:
            if len(statements) == 1:
                return [error_of(self._path, error, self._timeout)]
        try:
            return self._in_one(lambda db: [self._attempt(db, statement) for statement in statements])
        except Exception:
            return [result for statement in statements for result in self._run([statement])]

    def _in_one(self, work: Callable[[Owned], list[Any]]) -> list[Any]:
        """Return what some work returned, in one transaction; undo it if anything is raised."""
        db = self._begin()
        try:
            _check_version(self._path, db.connection)  # another process may have migrated it
            results = work(db)
            db.connection.execute("COMMIT")
            self._check_files()
        except BaseException:
            self._roll_back()
            raise
        return results

    def read(self, statement: Callable[[Owned], T]) -> T:
        """Return what a statement returns that only reads: what one moment has, without waiting for what is written.

        Raises:
            JournalError: It could not be read.
        """
        try:
            with self.in_use:
                db = self._checked()
                db.connection.execute("BEGIN")
                try:
                    return statement(db)
                finally:
                    self._roll_back()
        except Exception as error:
            raise error_of(self._path, error, self._timeout) from error

    def close(self) -> None:
        """Release the watches that are owned, and close. Never raises; may be called twice."""
        if self._db is not None:
            self.run([left_to_any])
        self._end()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")  # what is checked must be of one moment: another process may be creating it
        _check_is_ours(self._path, connection)
        connection.execute("COMMIT")
        if connection.execute("PRAGMA auto_vacuum").fetchone() != (2,):
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # takes effect in a file that is empty
        self._use_wal(connection)
        for setting in _SETTINGS:
            connection.execute(setting)
        connection.execute("BEGIN IMMEDIATE")
        _check_is_ours(self._path, connection)  # again: another process may have created or migrated it by now
        if _version_of(connection) == 0:
            for statement in (*SCHEMA, f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {VERSION}"):
                connection.execute(statement)
        owners = self._path.with_name(f"{self._path.name}-owners")
        self._lock = OwnerLock(owners)
        sweep(owners)
        connection.execute("COMMIT")
        connection.executescript("PRAGMA incremental_vacuum")  # `execute` would free one page only
        self._files = self._found_files()
        self._db = Owned(connection, self._lock.owner, owners, self._codec, self._keep_outcomes)

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """Switch to write-ahead logging; two processes that do so at once are refused at once, without waiting."""
        end = time.monotonic() + self._timeout
        mode = ""
        while not mode:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= end:
                    raise
                time.sleep(0.01)
        if mode != "wal":
            raise JournalError(f"Journal {self._path}: SQLite cannot share a file there: choose a local disk")

    def _begin(self) -> Owned:
        db = self._checked()
        db.connection.execute("BEGIN IMMEDIATE")
        return db

    def _checked(self) -> Owned:
        if self._db is None:
            raise JournalError(f"Journal {self._path} is closed")
        self._check_files()
        return self._db

    def _attempt(self, db: Owned, statement: Statement) -> object:
        db.connection.execute("SAVEPOINT one")
        try:
            result = statement(db)
        except Exception as error:
            if not db.connection.in_transaction:  # SQLite has rolled all of it back
                raise
            db.connection.execute("ROLLBACK TO one")
            result = error_of(self._path, error, self._timeout)
        db.connection.execute("RELEASE one")
        return result

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _end(self) -> None:
        """Close and release whatever is open. Never raises."""
        self._db = None
        with self.in_use:
            self._close_connection()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _close_connection(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def abandon(self) -> None:
        """Close what the parent has opened, in a forked child: the parent keeps its locks and files. Never raises."""
        self._db = self._lock = None
        self._close_connection()

    def _check_files(self) -> None:
        try:
            is_there = self._found_files() == self._files
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise is_gone(self._path)

    def _found_files(self) -> tuple[tuple[int, int], ...]:
        files = [os.stat(self._path), os.stat(f"{self._path}-wal")]
        return tuple((file.st_dev, file.st_ino) for file in files)


def _create(path: Path) -> None:
    """Create the file, for this user alone, unless it is there; SQLite gives the files beside it the same mode."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _version_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check_is_ours(path: Path, connection: sqlite3.Connection) -> None:
    """Check that a database is a journal that this version can read, or empty.

    Raises:
        JournalError: It is not.
    """
    version = _version_of(connection)
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id != APPLICATION_ID and (tables or version or application_id):
        raise JournalError(f"Journal {path}: this database belongs to another program: give the journal another path")
    _check_version(path, connection)


def _check_version(path: Path, connection: sqlite3.Connection) -> None:
    version = _version_of(connection)
    if version > VERSION:
        raise JournalError(
            f"Journal {path}: a newer version of asyncruns wrote it: it has schema {version}, and this version knows "
            f"{VERSION}. Install the newer version, or give the journal another path"
        )
