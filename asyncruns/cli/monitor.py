"""`asyncruns monitor`: watch any number of runs, of arguments, files, standard input or a journal, in one live table.

It answers no calls, and owns nothing of a journal. What it cancels was confirmed by its user.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio
from msgspec import UNSET

from asyncruns.abc import Journal
from asyncruns.cli.batch_servers import ClientsByNeed
from asyncruns.cli.ids import given_refs
from asyncruns.cli.monitor_board import MonitorBoard
from asyncruns.cli.monitor_rows import MonitorRow
from asyncruns.cli.monitor_sources import LineFile, lines_in, opened, ref_in
from asyncruns.cli.monitor_views import MonitorJson, MonitorLines, MonitorView, say_interrupted
from asyncruns.cli.output import complain, counted
from asyncruns.cli.process import USAGE, run
from asyncruns.cli.reap import journal_at
from asyncruns.cli.show import fetch_shown
from asyncruns.cli.shown import ShownRun
from asyncruns.client.client import Client
from asyncruns.errors import ConfigurationError, InvalidRequestError, JournalError
from asyncruns.fleet import Fleet
from asyncruns.lifecycle import Call, Notice, Phase, RunRef, StatusChanged
from asyncruns.lifecycle.records import WatchRecord, Wish, key_of_run, ref_of
from asyncruns.watch.observers import Ended
from asyncruns.wire.names import THREAD_RUN

READ_AGAIN_S: Final = 2.0
_READ_SHARE: Final = 0.02  # the most of the time that reading a journal again may take
_SHOWN_LINES: Final = 10
_ADDED_AT_ONCE: Final = 16
AT_MOST: Final = 50_000  # runs watched at once: more lines wait


def main(options: argparse.Namespace) -> int:
    """Watch the runs, and return the exit code."""
    if not (options.ids or options.file or options.journal):
        raise ConfigurationError("pass ids, --file FILE, or --journal JOURNAL; see asyncruns monitor --help")
    refs = given_refs(options.ids)
    files = [opened(path) for path in dict.fromkeys(options.file)]
    return run(monitor(options, refs, files))


async def monitor(
    options: argparse.Namespace, refs: Sequence[RunRef], files: Sequence[LineFile], view: MonitorView | None = None
) -> int:
    """Watch runs until all have ended or the user leaves, and return the highest of their exit codes.

    Safe to cancel: the runs go on at the server.

    Args:
        options: Those of the command line.
        refs: The runs that it names.
        files: Files that name others.
        view: Shows the runs; by default what suits stdout.

    Raises:
        ConfigurationError: No server is configured, or there is no such journal.
        JournalError: The journal could not be read.
    """
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(journal_at(options.journal)) if options.journal else None
        records = [] if journal is None else await journal.read()
        if not (refs or records or files):
            complain("no unfinished watches")
            return 0
        clients = ClientsByNeed(options, stack)
        known = [*refs, *(ref_of(record) for record in records)]
        first = await clients.of(next((ref.dialect for ref in known if ref.dialect), THREAD_RUN))
        watching = Monitor(options, clients, journal)
        watching.view = view or suited_view(options, watching, first.base_url)
        return await watching.perform(first, refs, files, records)


class Monitor:
    """Watches runs in a fleet that answers nothing, and keeps the board that a view shows.

    Args:
        options: Those of the command line.
        clients: The clients.
        journal: The journal, opened; None for none.
    """

    view: MonitorView
    fleet: Fleet[Any]

    def __init__(self, options: argparse.Namespace, clients: ClientsByNeed, journal: Journal | None) -> None:
        self.board: MonitorBoard = MonitorBoard()
        self._options = options
        self._clients = clients
        self._journal = journal
        self._unusable = 0
        self._unwatched = 0
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def perform(
        self, first: Client, refs: Sequence[RunRef], files: Sequence[LineFile], records: Sequence[WatchRecord]
    ) -> int:
        """Watch all of them until they have ended or the user leaves, and return the exit code."""
        limits: Any = {"requests_per_second": self._options.rate} if self._options.rate else {}
        timeout = UNSET if self._options.timeout is None else self._options.timeout
        self.fleet = Fleet(
            first, journal=None, observe_only=True, on_exit="leave", on_event=self._observed, timeout=timeout, **limits
        )
        try:
            async with self.fleet, anyio.create_task_group() as group:

                async def show() -> None:
                    await self.view.show(self.board)
                    group.cancel_scope.cancel()  # its user leaves

                async def fail() -> None:
                    await self._lost

                group.start_soon(show)
                group.start_soon(fail)
                await self._watch_all(refs, files, records)
                group.cancel_scope.cancel()
        except asyncio.CancelledError:
            self.view.close(self.board)
            say_interrupted(self.board)
            raise
        self.view.close(self.board)
        say_interrupted(self.board)
        return max(self.board.code, USAGE if self._unusable else 0)

    async def _watch_all(
        self, refs: Sequence[RunRef], files: Sequence[LineFile], records: Sequence[WatchRecord]
    ) -> None:
        for ref in refs:
            await self._add(key_of_run(ref), ref, where=str(ref))
        await self._take(records)
        async with anyio.create_task_group() as reading:
            for file in files:
                reading.start_soon(self._read_all, file)
            if self._journal is not None:
                await self._follow(self._journal)
        if len(self.board.rows) == 0:
            complain("no runs")
        await self.board.all_over()

    async def _read_all(self, file: LineFile) -> None:
        try:
            await self._read(file)
        except ConfigurationError as error:  # the runs that it has named are watched even so
            complain(str(error))
            self._unusable += 1

    async def _read(self, file: LineFile) -> None:
        wrong = 0
        async for number, line in lines_in(file):
            try:
                ref = ref_in(line)
            except InvalidRequestError as error:
                wrong += 1
                self._unusable += 1
                if wrong <= _SHOWN_LINES:
                    complain(f"{file.name}, line {number}: {error}")
                continue
            if ref is not None:
                await self._add(key_of_run(ref), ref, where=f"{file.name}, line {number}")
        if wrong > _SHOWN_LINES:
            complain(f"{file.name}: {counted(wrong, 'line')} could not be used, of which {_SHOWN_LINES} were named")

    async def _follow(self, journal: Journal) -> None:
        """Read the journal again and again: watches are added, and go on with other runs."""
        reported = ""
        took = 0.0
        while True:
            with anyio.move_on_after(max(READ_AGAIN_S, took / _READ_SHARE)):
                await self.board.all_over()
            began = time.perf_counter()
            try:
                records = await journal.read()
            except JournalError as error:  # perhaps only now
                if str(error) != reported:
                    complain(str(error))
                reported = str(error)
                if not self.board.open:
                    return
            else:
                reported = ""
                await self._take(records)
                if not any(row.record is not None for row in map(self.board.rows.get, self.board.open) if row):
                    return
            took = time.perf_counter() - began

    async def _take(self, records: Sequence[WatchRecord]) -> None:
        """Show what a journal has now."""
        for record in records:
            ref, row = ref_of(record), self.board.rows.get(record.key)
            if row is None:
                await self._add(record.key, ref, where=record.key, record=record)
                continue
            self.board.record(row, record)
            if ref.ids and ref != row.ref:
                if row.watch is not None:
                    row.watch.cancel()
                self.board.moved(row, ref)
                await self._start(row, where=record.key)
        kept = {record.key for record in records}
        for row in [row for key in self.board.open if (row := self.board.rows[key]).record and key not in kept]:
            self.board.forgotten(row)

    async def _add(self, key: str, ref: RunRef, *, where: str, record: WatchRecord | None = None) -> None:
        if key in self.board.rows:
            return
        await self.board.open_below(AT_MOST)
        if key in self.board.rows:  # another source named it meanwhile
            return
        row = self.board.add(key, ref, record)
        if len(self.board.rows) % _ADDED_AT_ONCE == 0:
            await asyncio.sleep(0)
        if ref.ids:
            await self._start(row, where=where)

    async def _start(self, row: MonitorRow, *, where: str) -> None:
        try:
            client = await self._clients.of(row.ref.dialect)
            row.watch = self.fleet.watch(row.ref, client=client, context=row)
        except (InvalidRequestError, ConfigurationError) as error:  # such as a dialect of a program's own
            self._unusable += 1
            self._unwatched += 1
            if self._unwatched <= _SHOWN_LINES:  # the last line counts all
                complain(f"{where}: {error}")
            self.board.unwatchable(row, str(error))

    def _observed(self, event: Notice | Ended[Any]) -> None:
        row: MonitorRow = event.context
        if event.ref != row.ref:  # the journal's watch has gone on with another run
            return
        if isinstance(event, Ended):
            self.board.finished(row, event.outcome)
        else:
            self.board.note(row, event)
            if isinstance(event, StatusChanged) and event.phase is Phase.NEEDS_CALLER:
                self.board.calls(row, self._calls_of(row.ref, event.run))
        try:
            self.view.happened(row, event)
        except OSError as error:  # nobody reads what is printed: an observer that raised would only be logged
            if not self._lost.done():
                self._lost.set_exception(error)

    def _calls_of(self, ref: RunRef, resource: Any) -> Sequence[Call]:
        return self._clients.made(ref.dialect).for_run(ref).dialect.snapshot(resource).calls

    # What a view may ask for

    async def cancel(self, row: MonitorRow) -> str:
        """Cancel a run, or ask what watches it to do so, and return what was done, in words. Safe to cancel."""
        try:
            if row.owner and self._journal is not None and await self._journal.ask(row.ref, Wish.CANCEL):
                return f"{row.owner} was asked to cancel it"
            if row.watch is None or not row.watch.is_active:
                return "it has ended, or is not created yet"
            await row.watch.cancel_run()
        except (InvalidRequestError, JournalError) as error:
            return str(error)
        return "the server is asked to cancel it"

    async def fetch(self, row: MonitorRow) -> ShownRun:
        """Fetch what `asyncruns show` shows of a run.

        Raises:
            APIError: The run could not be fetched.
            InvalidRequestError: It is not created yet, or of an unknown kind.
            ConfigurationError: No server is configured for it.
        """
        if not row.ref.ids:
            raise InvalidRequestError("its run is not created yet")
        return await fetch_shown(await self._clients.of(row.ref.dialect), row.ref)


def suited_view(options: argparse.Namespace, monitor: Monitor, where: str) -> MonitorView:
    """Return JSON if that is asked for, a live table on a terminal in the foreground, and lines elsewhere."""
    if options.json:
        return MonitorJson()
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return MonitorLines()
    try:
        from asyncruns.cli.keyboard import is_in_foreground
        from asyncruns.cli.monitor_screen import MonitorScreen
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "rich":
            complain("for a live table: pip install 'asyncruns[cli]'")
        elif missing != "termios":  # Windows lacks it
            raise
        return MonitorLines()
    return MonitorScreen(monitor, where) if is_in_foreground(sys.stdout.fileno()) else MonitorLines()
