"""A journal in a file of this machine, which several processes may share.

One thread of its own does all that blocks, so that the event loop never waits for a disk. What is called while the
thread is busy goes into one transaction, when it is free.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from asyncruns.abc import Codec, Journal
from asyncruns.errors import ConfigurationError, JournalError
from asyncruns.journal import statements
from asyncruns.journal.database import Database
from asyncruns.journal.entries import MAX_OUTPUT_BYTES, as_json, content_of, packed, run_texts, writable
from asyncruns.journal.group_commit import GroupCommit
from asyncruns.journal.own_thread import OwnThread
from asyncruns.journal.owner_lock import is_supported
from asyncruns.journal.rows import NewWatch
from asyncruns.journal.statements import Statement
from asyncruns.lifecycle.records import CallRecord, WatchRecord, Wish
from asyncruns.lifecycle.values import RunRef

KEEP_OUTCOMES_S: Final = 30 * 86400.0
WISHES_PAUSE_S: Final = 0.25  # between reads of what other processes ask for, while a caller waits for it


class SQLiteJournal(Journal):
    """Writes down what must survive the process in an SQLite database, which several processes may share.

    What a method has written when it returns survives a crash of the process, and a crash of the machine or a power
    failure as far as its disk keeps what it has confirmed: each transaction waits for the disk (`synchronous = FULL`).
    The weaker `NORMAL` would forget the last transactions at a power failure, so that a tool with effects that had
    begun could run a second time. The calls that are pending at once share a transaction, and under load (25
    transactions a second) a call waits up to 40 ms for others, unless none come, so that costs little.

    Each open journal has a lock of the operating system for the life of its process, in the folder `PATH-owners`. When
    the process dies, the lock ends, and `claim` of any other journal takes its watches. A process that is stopped but
    not dead keeps them. A forked child owns nothing: it opens a journal of its own; a fork waits for a transaction that
    is being written. Do not delete the files
    `PATH-wal`, `PATH-shm` and `PATH-owners` of an open journal, and copy it by `sqlite3 PATH ".backup COPY"`.

    For local disks only: the locks of network file systems (NFS, SMB) cannot be relied upon. Not for Windows.

    Outputs of calls, labels and outcomes are in the file as they are, unless there is a codec. It is created with mode
    0600; a file that is there keeps its mode. What belongs to a watch is deleted and overwritten when its outcome was
    delivered; copies in `PATH-wal` last until that is written anew, at the latest until the last process closes the
    journal.

    Args:
        path: The file; created if missing, in a folder that exists.
        max_output_bytes: How large the output of a call may be, in bytes of UTF-8; a larger one raises a JournalError.
        busy_timeout: How long a write waits for other processes that write, in seconds.
        keep_outcomes: After how many seconds an outcome that was recorded, but never delivered, is forgotten, if no
            living process owns it: when a journal is opened, and at `claim`. 30 days by default; `math.inf` for never.
        codec: What the outputs of calls, the labels and the outcomes pass through, to be encrypted or dropped.

    Raises:
        ConfigurationError: The path names no file, or this operating system has no such locks.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        busy_timeout: float = 10.0,
        keep_outcomes: float = KEEP_OUTCOMES_S,
        codec: Codec | None = None,
    ) -> None:
        name = os.fspath(path)
        if not name or name == ":memory:":
            raise ConfigurationError(f"A journal needs a file, and {name!r} is none; for tests there is MemoryJournal")
        if not is_supported():
            raise ConfigurationError(
                "SQLiteJournal needs POSIX record locks, which this operating system does not have"
            )
        self._path = Path(name)
        self._most_bytes, self._busy_timeout = max_output_bytes, busy_timeout
        self._keep_outcomes, self._codec = keep_outcomes, codec
        self._commits: GroupCommit[Statement] | None = None
        self._is_opening = False

    def __repr__(self) -> str:
        return f"<SQLiteJournal {str(self._path)!r}: {'closed' if self._commits is None else 'open'}>"

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and not closed since."""
        return self._commits is not None

    async def open(self) -> None:
        """Open the file, and begin to own watches; create it if it is missing. A cancel waits until it is closed again.

        Raises:
            JournalError: It is open already, or cannot be opened; the message says why and what to do.
        """
        if self._commits is not None or self._is_opening:
            raise JournalError(f"Journal {self._path} is open already: open one journal for each client or fleet")
        self._is_opening = True
        loop = asyncio.get_running_loop()
        database = Database(self._path, self._busy_timeout, self._codec, self._keep_outcomes)
        thread = OwnThread("asyncruns-journal")
        opening = loop.run_in_executor(thread, database.open)
        try:
            await asyncio.shield(opening)
        except BaseException:  # also a cancel
            closing = loop.run_in_executor(thread, database.close)
            thread.shutdown()
            await asyncio.wait({opening, closing})
            raise
        finally:
            self._is_opening = False
        self._commits = GroupCommit(database, thread)
        weakref.finalize(self._commits, thread.end, database.close).atexit = False

    async def aclose(self) -> None:
        """Write what is pending, give up the watches that are owned, and close. Never raises; may be called twice.

        If another process has locked the file, it takes `busy_timeout`. A cancel waits until it is closed.
        """
        commits, self._commits = self._commits, None
        if commits is not None:
            await commits.close()

    async def add(self, watches: Sequence[WatchRecord]) -> list[WatchRecord]:
        """Add watches, which this process owns then; return them as the journal has them now, in the order given.

        Of a watch that this journal owns already, all that is recorded is kept, and what is given is left out.

        Raises:
            JournalError: A label is no plain JSON, an output is too large, or it could not be written.
            NotOwnerError: Another process owns a watch with one of the keys, or it was given up: claim it first. Or a
                run belongs to another watch.
        """
        entries = [self._entry_of(record) for record in watches]
        records: list[WatchRecord] = await self._written(statements.added(entries))
        return records

    async def claim(self, watches: Sequence[str] | None = None) -> list[WatchRecord]:
        """Own the watches that no living process owns, and return all of them, or those of these, the oldest first.

        If the caller is cancelled, those that it would have returned are released. One that cannot be read is skipped,
        with a warning in the log `asyncruns.journal`, and stays there; `delivered` forgets it.

        Raises:
            JournalError: It could not be read or written; then none is owned.
        """
        claim = uuid.uuid4().hex
        records: list[WatchRecord] = await self._written(
            statements.claimed(claim, watches), statements.unclaimed(claim)
        )
        return records

    async def read(self) -> list[WatchRecord]:
        """Return all watches, the oldest first, with who owns each; own none of them, and change nothing.

        An owner is "process 123", by its id in this machine. One that cannot be read is skipped, with a warning. It
        does not wait for what other processes write.

        Raises:
            JournalError: It could not be read.
        """
        records: list[WatchRecord] = await self._opened().read(statements.read)
        return records

    async def release(self, watches: Sequence[str]) -> None:
        """Leave watches to any journal that claims them, this one too; skip those that are not owned or not there.

        Raises:
            JournalError: It could not be written; then all are still owned.
        """
        await self._written(statements.released(tuple(watches)))

    async def begin(self, watch: str, calls: Sequence[CallRecord]) -> list[CallRecord]:
        """Note that calls begin; return those of them that had begun before, as they are recorded.

        The others have begun only now, and may be run; the ones returned must not be run again. If the caller is
        cancelled, the calls may have begun.

        Raises:
            JournalError: It could not be written: none of the calls may be run.
            NotOwnerError: Another process owns the watch: likewise.
        """
        before: list[CallRecord] = await self._written(statements.begun(watch, writable(calls, self._most_bytes)))
        return before

    async def answered(self, watch: str, calls: Sequence[CallRecord]) -> None:
        """Record the outputs of calls. An output that is recorded already is kept; one of a new call is added.

        Raises:
            JournalError: An output is too large, or it could not be written.
            NotOwnerError: Another process owns the watch.
        """
        await self._written(statements.answered(watch, writable(calls, self._most_bytes)))

    async def submitting(self, watch: str, calls: Sequence[str]) -> None:
        """Note that the outputs of the calls with these keys are about to be submitted; or, if none, are not.

        Raises:
            JournalError: It could not be written: the submit must not be sent.
            NotOwnerError: Another process owns the watch: likewise.
        """
        await self._written(statements.submitting(watch, calls))

    async def moved(self, watch: str, ref: RunRef, at: float) -> None:
        """Note that a submit was accepted, and which run the watch goes on with: the same, or another one.

        Raises:
            JournalError: It could not be written.
            NotOwnerError: Another process owns the watch, or the run belongs to another watch.
        """
        await self._written(statements.moved(watch, ref, at))

    async def finished(self, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
        """Record how watches finished, by their keys: the outcomes are not delivered yet.

        Raises:
            JournalError: An outcome is no plain JSON, or they could not be written; then none is.
            NotOwnerError: Another process owns one of the watches; then none is written.
        """
        texts = {key: as_json(key, "outcome", outcome) for key, outcome in outcomes.items()}
        await self._written(statements.finished(texts, time.time()))

    async def delivered(self, watches: Sequence[str]) -> None:
        """Forget watches whose outcomes were delivered, or which the caller has left; skip those that are not there.

        Raises:
            JournalError: It could not be written; then none is forgotten.
            NotOwnerError: Another process owns one of them; then none is forgotten.
        """
        await self._written(statements.delivered(tuple(watches)))

    async def ask(self, ref: RunRef, wish: Wish) -> bool:
        """Ask the process that watches a run for something; return False if no other living process does.

        It stays asked until an owner of the watch has read it, also if the owner dies. If the caller is cancelled, it
        may be asked.

        Raises:
            JournalError: It could not be written.
        """
        (text,) = run_texts(ref)
        is_asked: bool = await self._written(statements.asked(text, wish.value))
        return is_asked

    async def wishes(self) -> list[tuple[str, Wish]]:
        """Wait until other processes ask something of watches that this one owns, and return it once, with the keys.

        The file is read every 0.25 s for it. If the caller is cancelled, what it would have returned is returned to the
        next one.

        Raises:
            JournalError: It could not be read, or the journal was closed.
        """
        while True:
            if await self._opened().read(statements.has_wishes):
                found: list[tuple[str, str]] = await self._written(*statements.wished())
                if found:
                    return [(key, Wish(wish)) for key, wish in found]
            await asyncio.sleep(WISHES_PAUSE_S)

    def _opened(self) -> GroupCommit[Statement]:
        if self._commits is None:
            raise JournalError(f"Journal {self._path} is not open: use it inside of async with, or call open() first")
        return self._commits

    def _written(self, statement: Statement, undo: Statement | None = None) -> Coroutine[Any, Any, Any]:
        return self._opened().write(statement, undo)

    def _entry_of(self, record: WatchRecord) -> NewWatch:
        outcome = None if record.outcome is None else as_json(record.key, "outcome", record.outcome)
        calls = tuple(writable(record.calls, self._most_bytes))
        record = replace(record, calls=calls) if calls else record
        row = replace(record, submitting=()) if record.submitting else record
        return NewWatch(record, packed(row), content_of(record), outcome)
