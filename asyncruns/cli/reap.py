"""`asyncruns reap`: list the unfinished watches of a journal, or runs of threads; resume, cancel or forget them.

It changes nothing unless told to, creates no journal, and never touches what a living process watches.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asyncruns.abc import Journal
from asyncruns.cli.batch_servers import connected
from asyncruns.cli.ends import EXIT_CODES, end_of
from asyncruns.cli.output import complain, counted, on_one_line, say
from asyncruns.cli.process import run
from asyncruns.cli.reap_rows import Unfinished, rows_of, say_row, say_row_as_json, selected
from asyncruns.cli.reap_runs import Clients, cancel_each, has_vanished, poll_each, unfinished_of, watch_each
from asyncruns.cli.reports import JsonReport, LineReport
from asyncruns.errors import AsyncRunsError, ConfigurationError
from asyncruns.journal.postgres import PostgresJournal
from asyncruns.journal.sqlite import SQLiteJournal
from asyncruns.lifecycle import EndKind
from asyncruns.lifecycle.records import Wish
from asyncruns.watch.outcome import AnyOutcome, Completed
from asyncruns.wire.names import THREAD_RUN


def main(options: argparse.Namespace) -> int:
    """Perform the command, and return its exit code."""
    _check(options)
    return run(reap(options))


async def reap(options: argparse.Namespace) -> int:
    """List what is unfinished, or act on it as the options say; return the exit code.

    Safe to cancel: the runs go on at the server, and watches that were claimed are released.

    Raises:
        ConfigurationError: There is no such journal, or no server is configured.
        InvalidRequestError: An id is that of no unfinished watch or run.
        JournalError: The journal could not be read or written.
        APIError: The runs of a thread could not be listed.
    """
    if options.thread:
        async with connected(options, {THREAD_RUN}) as clients:
            rows = [row for id_ in options.thread for row in await unfinished_of(clients[THREAD_RUN], id_)]
            return await Reaper(options, rows, clients, None).perform()
    async with journal_at(options.journal) as journal:
        rows = rows_of(await journal.read())
        reaper = Reaper(options, rows, {}, journal)
        if not reaper.needs_server:
            return await reaper.perform()
        dialects = {row.ref.dialect for row in reaper.rows if row.is_created}
        async with connected(options, dialects) as reaper.clients:
            return await reaper.perform()


class Reaper:
    """Lists some rows, or acts on them.

    Args:
        options: Those of the command line.
        rows: All that is unfinished.
        clients: A client for each dialect of the rows.
        journal: The journal, opened; None for runs of threads.

    Raises:
        InvalidRequestError: An id on the command line is that of no row.
    """

    def __init__(
        self, options: argparse.Namespace, rows: Sequence[Unfinished], clients: Clients, journal: Journal | None
    ) -> None:
        self.options = options
        self.clients = clients
        self._journal = journal
        self._now = time.time()
        self.rows: list[Unfinished] = selected(rows, options.ids, options.older_than, self._now)
        self._code = 0

    @property
    def needs_server(self) -> bool:
        """Whether requests are to be sent."""
        return any(row.is_created for row in self.rows) and not (
            self.options.offline or (self.options.forget and self.options.yes)
        )

    async def perform(self) -> int:
        """Do what the options say, and return the exit code."""
        if self.options.resume:
            await self._resume()
        elif self.options.yes:
            await (self._cancel() if self.options.cancel else self._forget())
        else:
            await self._list()
        if any(row.trouble for row in self.rows):
            self._code = max(self._code, 1)
        return self._code

    async def _list(self) -> None:
        if self.needs_server and self._journal is not None:  # a list of runs shows their statuses already
            await poll_each(self.clients, [row for row in self.rows if row.is_created])
        for row in self.rows:
            self._say(row)
        found = counted(len(self.rows), *self._nouns)
        if not (self.options.cancel or self.options.forget):
            complain(f"{found} unfinished" if self.rows else f"no unfinished {self._nouns[1]}")
            return
        owned = sum(bool(row.owner) for row in self.rows)
        verb = "cancelled" if self.options.cancel else "forgotten"
        others = f"; {owned} of a living process: " if owned else ""
        what = others and others + ("it is asked to cancel" if self.options.cancel else "left to it")
        complain(f"nothing was changed; with --yes, {len(self.rows) - owned} would be {verb}{what}")

    async def _resume(self) -> None:
        async def told(row: Unfinished, outcome: AnyOutcome[Any]) -> None:
            text = await _text_of(outcome)
            report = JsonReport(key=row.key) if self.options.json else LineReport()
            report.end(outcome, text, None)
            self._code = max(self._code, EXIT_CODES[end_of(outcome)])
            if self._journal is not None:
                await self._settle(self._journal, row, outcome)

        free = await self._claimed()
        if free:
            await watch_each(self.clients, free, told, timeout=self.options.timeout)

    async def _settle(self, journal: Journal, row: Unfinished, outcome: AnyOutcome[Any]) -> None:
        """Forget a watch whose outcome was printed, or leave it to others, if it is not at its end."""
        is_over = end_of(outcome) not in (EndKind.NEEDS_CALLER, EndKind.GAVE_UP) or has_vanished(outcome)
        await (journal.delivered([row.key]) if is_over else journal.release([row.key]))

    async def _cancel(self) -> None:
        free = await self._claimed()
        if free:
            await cancel_each(self.clients, free)
        for row in self.rows:
            if row not in free and row.is_created:
                await self._ask_owner(row)
            self._say_done(row)

    async def _ask_owner(self, row: Unfinished) -> None:
        if self._journal is not None and await self._journal.ask(row.ref, Wish.CANCEL):
            row.done, row.trouble = "its owner was asked to cancel it", ""

    async def _forget(self) -> None:
        free = await self._claimed()
        if self._journal is not None:
            await self._journal.delivered([row.key for row in free])
        for row in self.rows:
            row.done = "" if row.trouble else "forgotten"
            self._say_done(row)

    async def _claimed(self) -> list[Unfinished]:
        """Own the watches that no living process owns; return the rows to act on, and note why the others are not."""
        if self._journal is None or not self.rows:
            return self.rows
        claimed = {record.key for record in await self._journal.claim([row.key for row in self.rows])}
        for row in self.rows:
            if row.key not in claimed:
                row.trouble = f"left to {row.owner or 'the process that watches it'}"
            elif not (row.is_created or self.options.forget):
                row.trouble = "left to the program that asked for it, as its run is not created; --forget drops it"
            if row.trouble and self.options.resume:
                complain(f"{row.name}: {row.trouble}")
        return [row for row in self.rows if not row.trouble]

    @property
    def _nouns(self) -> tuple[str, str]:
        return ("run", "runs") if self._journal is None else ("watch", "watches")

    def _say(self, row: Unfinished) -> None:
        (say_row_as_json if self.options.json else say_row)(row, self._now)

    def _say_done(self, row: Unfinished) -> None:
        if self.options.json:
            say_row_as_json(row, self._now)
        elif row.trouble:
            complain(f"{row.name}: {row.trouble}")
        else:
            say(f"{on_one_line(row.name)}  {on_one_line(row.done)}")


def journal_at(where: str) -> Journal:
    """Return the journal in a file, or in PostgreSQL, that is not opened; to open it does not create it.

    It forgets no outcome because of its age: only the program whose journal it is knows for how long it keeps them.

    Raises:
        ConfigurationError: There is no such file, or it is empty; or there is no driver for PostgreSQL.
    """
    if "://" in where:  # it may hold a password, so no message shows it
        if not where.startswith(("postgres://", "postgresql://")):
            raise ConfigurationError("a JOURNAL with :// is the URL of a PostgresJournal (postgresql://...)")
        return _JournalThatExists(where, keep_outcomes=math.inf)
    path = Path(where)
    if not path.is_file() or not path.stat().st_size:
        what = "is empty" if path.is_file() else "is no file" if path.exists() else "does not exist"
        raise ConfigurationError(f"{where} {what}: pass the file of a SQLiteJournal")
    return SQLiteJournal(path, keep_outcomes=math.inf)


class _JournalThatExists(PostgresJournal):
    """A journal in PostgreSQL that is not created when it is opened."""

    async def open(self) -> None:
        await asyncio.to_thread(self._database.check_exists)
        await super().open()


async def _text_of(outcome: AnyOutcome[Any]) -> str | None:
    if not isinstance(outcome, Completed):
        return None
    try:
        return await outcome.text()
    except AsyncRunsError as error:  # the run has completed even so
        complain(f"the answer could not be fetched: {error}")
        return None


def _check(options: argparse.Namespace) -> None:
    """Check options that exclude each other; a RUN_ID after --thread is no journal.

    Raises:
        ConfigurationError: They do.
    """
    if options.thread:
        options.ids = [id_ for id_ in (options.journal, *options.ids) if id_ is not None]
        if options.forget or options.offline:
            raise ConfigurationError("--forget and --offline need a JOURNAL; --thread has none")
    elif options.journal is None:
        raise ConfigurationError("pass the file of a journal, or --thread THREAD_ID; see asyncruns reap --help")
    if options.offline and (options.resume or options.cancel):
        raise ConfigurationError("--resume and --cancel need the server: leave out --offline")
    if options.yes and not (options.cancel or options.forget):
        raise ConfigurationError("--yes does what --cancel or --forget shows: pass one of them")
