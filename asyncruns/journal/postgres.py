"""A journal in a PostgreSQL database, which several processes on several machines may share.

One thread of its own does all that blocks, so that the event loop never waits for the server. What is called while the
thread is busy goes into one transaction, when it is free.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from asyncruns.abc import Codec, Journal
from asyncruns.errors import ConfigurationError, JournalError
from asyncruns.journal import postgres_claims as claims
from asyncruns.journal import postgres_writes as writes
from asyncruns.journal.entries import MAX_OUTPUT_BYTES, as_json, content_of, packed, writable
from asyncruns.journal.group_commit import GroupCommit
from asyncruns.journal.own_thread import OwnThread
from asyncruns.journal.postgres_transaction import Write
from asyncruns.journal.rows import NewWatch
from asyncruns.journal.sqlite import KEEP_OUTCOMES_S
from asyncruns.lifecycle.records import CallRecord, WatchRecord, Wish
from asyncruns.lifecycle.values import RunRef

_LOG: Final = logging.getLogger("asyncruns.journal")
LEASE_S: Final = 30.0
RELISTEN_PAUSE_S: Final = 1.0  # until listening for what other processes ask for is tried again


class PostgresJournal(Journal):
    """Writes down what must survive the process in PostgreSQL, which processes on several machines may share.

    What a method has written when it returns survives a crash of the process, and of the server as far as its
    configuration allows: each transaction waits for `synchronous_commit`, which is turned on if it is off. The calls
    that are pending at once share a transaction.

    Each open journal has a lease, by the server's clock, and renews it three times as often as it would run out. When
    its process dies, is stopped, or cannot reach the server for longer than that, `claim` of any other journal takes
    its watches; from then on, the methods of this journal raise a NotOwnerError for them, and no call begins, but it
    may go on with new ones. If no other journal has claimed anything meanwhile, it goes on as before; after a restart
    of the server, every journal has the time of one lease for that. What no journal can prevent is that a process which
    is stopped after it has written that a call begins, or that outputs are about to be submitted, does so later: the
    journal has that, and the new owner treats the call as interrupted.

    A connection that was lost is made anew at the next call; until that succeeds, each call raises a JournalError. The
    tables are in the schema `asyncruns_journal`, which the first process creates: its user needs the right to create
    schemas in the database. All processes should connect as one user: a claim ends the connection of an owner whose
    lease has run out, since it may have locked something, and another user may not do that. There are one or two
    connections for each open journal; a pooler must keep their sessions (pgbouncer's `pool_mode = session`). A forked
    child owns nothing: it opens a journal of its own. Needs the extra `postgres`.

    Args:
        dsn: How to connect, as `postgresql://user@host/database` or `host=... dbname=...`; what is missing is taken
            from the environment and the password file, as libpq does. It is in no error, log or repr.
        lease: How long a process that is not heard from keeps its watches, in seconds; at least 0.1.
        max_output_bytes: How large the output of a call may be, in bytes of UTF-8; a larger one raises a JournalError.
        keep_outcomes: After how many seconds `claim` forgets an outcome that was recorded, but never delivered, if no
            living process owns it. 30 days by default; `math.inf` for never.
        codec: What the outputs of calls, the labels and the outcomes pass through, to be encrypted or dropped.

    Raises:
        ConfigurationError: psycopg is not installed, or an argument is invalid.
    """

    def __init__(
        self,
        dsn: str,
        *,
        lease: float = LEASE_S,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        keep_outcomes: float = KEEP_OUTCOMES_S,
        codec: Codec | None = None,
    ) -> None:
        if not 0.1 <= lease < math.inf:
            raise ConfigurationError(f"lease must be at least 0.1 seconds, and finite; got {lease!r}")
        try:
            from asyncruns.journal.postgres_database import PostgresDatabase  # late, as psycopg may not be installed
        except ImportError as error:
            raise ConfigurationError(
                "PostgresJournal needs psycopg, which is not installed, or whose libpq is not: "
                f"pip install 'asyncruns[postgres]' ({error})"
            ) from error
        self._database = PostgresDatabase(dsn, lease, codec)
        self._lease, self._most_bytes, self._keep_outcomes = lease, max_output_bytes, keep_outcomes
        self._commits: GroupCommit[Write] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._is_opening = False
        self._unsure_claims: list[str] = []  # may have taken watches that nobody has got

    def __repr__(self) -> str:
        return f"<PostgresJournal {self._database.where}: {'closed' if self._commits is None else 'open'}>"

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and not closed since."""
        return self._commits is not None

    async def open(self) -> None:
        """Connect, create the tables if they are missing, and begin to own watches. A cancel waits until it is closed.

        Raises:
            JournalError: It is open already, or the database cannot be used; the message says why and what to do.
        """
        if self._commits is not None or self._is_opening:
            raise JournalError(f"Journal {self._database.where} is open already: open one for each client or fleet")
        self._is_opening = True
        loop = asyncio.get_running_loop()
        database, thread = self._database, OwnThread("asyncruns-journal")
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
        self._renewal = asyncio.create_task(_renew(weakref.ref(self._commits), self._lease / 3))

    async def aclose(self) -> None:
        """Write what is pending, give up the watches that are owned, and close. Never raises; may be called twice.

        If the server cannot be reached, the lease runs out by itself. A cancel waits until it is closed.
        """
        commits, self._commits = self._commits, None
        renewal, self._renewal = self._renewal, None
        if commits is not None:
            if renewal is not None and renewal.get_loop() is asyncio.get_running_loop():
                renewal.cancel()
            await commits.close()

    async def add(self, watches: Sequence[WatchRecord]) -> list[WatchRecord]:
        """Add watches, which this process owns then; return them as the journal has them now, in the order given.

        Of a watch that this journal owns already, all that is recorded is kept, and what is given is left out.

        Raises:
            JournalError: A label is no plain JSON, an output is too large, or it could not be written.
            NotOwnerError: Another process owns a watch with one of the keys, or it was given up: claim it first. Or a
                run belongs to another watch.
        """
        records: list[WatchRecord] = await self._written(writes.add_watches([self._entry_of(each) for each in watches]))
        return records

    async def claim(self, watches: Sequence[str] | None = None) -> list[WatchRecord]:
        """Own the watches that no living process owns, and return all of them, or those of these, the oldest first.

        Leases that have run out end by this, all of them. If the caller is cancelled, the watches that it would have
        returned are released. One that cannot be read is skipped, with a warning in the log `asyncruns.journal`, and
        stays there; `delivered` forgets it.

        Raises:
            JournalError: It could not be read or written; then none is owned.
        """
        claim, unsure = uuid.uuid4().hex, tuple(self._unsure_claims)
        try:
            records: list[WatchRecord] = await self._written(
                claims.claim_watches(claim, watches, self._keep_outcomes, unsure), claims.unclaim_watches(claim)
            )
        except JournalError:
            self._unsure_claims.append(claim)  # the connection may have been lost when it was written
            raise
        self._unsure_claims = [each for each in self._unsure_claims if each not in unsure]
        return records

    async def read(self) -> list[WatchRecord]:
        """Return all watches, the oldest first, with who owns each; own none of them, and change nothing.

        An owner is "process 123 on HOST". One that cannot be read is skipped, with a warning.

        Raises:
            JournalError: It could not be read.
        """
        records: list[WatchRecord] = await self._written(claims.read_watches())
        return records

    async def release(self, watches: Sequence[str]) -> None:
        """Leave watches to any journal that claims them, this one too; skip those that are not owned or not there.

        Raises:
            JournalError: It could not be written; then all are still owned.
        """
        await self._written(writes.release_watches(tuple(watches)))

    async def begin(self, watch: str, calls: Sequence[CallRecord]) -> list[CallRecord]:
        """Note that calls begin; return those of them that had begun before, as they are recorded.

        The others have begun only now, and may be run; the ones returned must not be run again. If the caller is
        cancelled, the calls may have begun.

        Raises:
            JournalError: It could not be written: none of the calls may be run.
            NotOwnerError: Another process owns the watch: likewise.
        """
        before: list[CallRecord] = await self._written(writes.begin_calls(watch, writable(calls, self._most_bytes)))
        return before

    async def answered(self, watch: str, calls: Sequence[CallRecord]) -> None:
        """Record the outputs of calls. An output that is recorded already is kept; one of a new call is added.

        Raises:
            JournalError: An output is too large, or it could not be written.
            NotOwnerError: Another process owns the watch.
        """
        await self._written(writes.answer_calls(watch, writable(calls, self._most_bytes)))

    async def submitting(self, watch: str, calls: Sequence[str]) -> None:
        """Note that the outputs of the calls with these keys are about to be submitted; or, if none, are not.

        Raises:
            JournalError: It could not be written: the submit must not be sent.
            NotOwnerError: Another process owns the watch: likewise.
        """
        await self._written(writes.note_submit(watch, calls))

    async def moved(self, watch: str, ref: RunRef, at: float) -> None:
        """Note that a submit was accepted, and which run the watch goes on with: the same, or another one.

        Raises:
            JournalError: It could not be written.
            NotOwnerError: Another process owns the watch, or the run belongs to another watch.
        """
        await self._written(writes.note_move(watch, ref, at))

    async def finished(self, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
        """Record how watches finished, by their keys: the outcomes are not delivered yet.

        Raises:
            JournalError: An outcome is no plain JSON, or they could not be written; then none is.
            NotOwnerError: Another process owns one of the watches; then none is written.
        """
        texts = {key: as_json(key, "outcome", outcome) for key, outcome in outcomes.items()}
        await self._written(writes.finish_watches(texts))

    async def delivered(self, watches: Sequence[str]) -> None:
        """Forget watches whose outcomes were delivered, or which the caller has left; skip those that are not there.

        Raises:
            JournalError: It could not be written; then none is forgotten.
            NotOwnerError: Another process owns one of them; then none is forgotten.
        """
        await self._written(writes.forget_watches(tuple(watches)))

    async def ask(self, ref: RunRef, wish: Wish) -> bool:
        """Ask the process that watches a run for something; return False if no other living process does.

        It stays asked until an owner of the watch has read it, also if the owner dies. If the caller is cancelled, it
        may be asked.

        Raises:
            JournalError: It could not be written.
        """
        is_asked: bool = await self._written(claims.ask_owner(ref, wish))
        return is_asked

    async def wishes(self) -> list[tuple[str, Wish]]:
        """Wait until other processes ask something of watches that this one owns, and return it once, with the keys.

        It has a connection of its own meanwhile, which is made anew when it is lost. If the caller is cancelled, what
        it would have returned is returned to the next one.

        Raises:
            JournalError: The journal is not open, or was closed.
        """
        while True:
            self._opened()
            try:
                async with self._database.listening() as heard:
                    while not (found := await self._taken()):
                        await heard()
                    return found
            except JournalError as error:
                self._opened()
                _LOG.warning("What other processes ask for cannot be read, which is tried again: %s", error)
                await asyncio.sleep(RELISTEN_PAUSE_S)

    async def _taken(self) -> list[tuple[str, Wish]]:
        taken: list[tuple[str, Wish]] = []
        found: list[tuple[str, Wish]] = await self._written(claims.take_wishes(taken), claims.wish_again(taken))
        return found

    def _opened(self) -> GroupCommit[Write]:
        if self._commits is None:
            where = self._database.where
            raise JournalError(f"Journal {where} is not open: use it inside of async with, or call open() first")
        return self._commits

    def _written(self, write: Write, undo: Write | None = None) -> Coroutine[Any, Any, Any]:
        return self._opened().write(write, undo)

    def _entry_of(self, record: WatchRecord) -> NewWatch:
        outcome = None if record.outcome is None else as_json(record.key, "outcome", record.outcome)
        calls = tuple(writable(record.calls, self._most_bytes))
        return NewWatch(replace(record, calls=calls), packed(record), content_of(record), outcome)


async def _renew(commits_ref: weakref.ref[GroupCommit[Write]], pause: float) -> None:
    """Renew the lease again and again, until the journal is closed, or collected."""
    is_well = True
    while True:
        await asyncio.sleep(pause)
        commits = commits_ref()
        if commits is None:
            return
        try:
            await commits.write(claims.renew_lease())
            is_well = True
        except JournalError as error:
            if is_well:
                _LOG.warning("The lease cannot be renewed, which is tried again and again: %s", error)
            is_well = False
        del commits
