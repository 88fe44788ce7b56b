"""What processes do that hold watches in PostgreSQL; a module of its own, so that they start quickly."""

from __future__ import annotations

import asyncio
import os
from multiprocessing.connection import Connection

from writers import journal_at

from asyncruns import JournalError, RunRef
from asyncruns.lifecycle.records import CallRecord, WatchRecord


def watch(key: str) -> WatchRecord:
    return WatchRecord(key=key, ref=RunRef("thread_run", ("thread_1", key)))


def hammer(dsn: str, connection: Connection) -> None:
    """Begin one call after the other, with two watches; report the number of each, and what was raised."""

    async def run() -> None:
        async with journal_at(dsn) as journal:
            await journal.add([watch("w"), watch("v")])
            connection.send("owned")
            for number in range(1_000_000):
                try:
                    call = CallRecord(key=str(number), call_id="1")
                    await asyncio.gather(journal.begin("w", [call]), journal.begin("v", [call]))
                except JournalError as error:
                    connection.send((number, type(error).__name__))
                    return

    asyncio.run(run())


def open_at_once(dsn: str, connection: Connection) -> None:
    """Open a journal when told to, and report what was raised."""
    connection.send("ready")
    connection.recv()

    async def run() -> None:
        try:
            async with journal_at(dsn) as journal:
                await journal.add([watch(str(os.getpid()))])
        except JournalError as error:
            connection.send(str(error))
        else:
            connection.send("")

    asyncio.run(run())
