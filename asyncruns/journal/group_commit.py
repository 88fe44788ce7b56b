"""Collects what is called while a transaction is being written, and puts it into the next one.

Most of what a small transaction costs is the wait for the disk and the way to the thread and back, so under load the
next one waits a little, for more to share it. While that brings none, as when each call is made after the one before
has returned, transactions wait more and more rarely. It belongs to one event loop, and never blocks it; the database
is only touched in the thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from msgspec import Struct

from asyncruns.errors import JournalError
from asyncruns.journal.own_thread import OwnThread

S = TypeVar("S")
_S_contra = TypeVar("_S_contra", contravariant=True)


MOST_PER_S: Final = 25.0  # transactions, in the long run: a call waits at most 40 ms longer
BURST: Final = 10  # transactions that need not wait
MOST_BURST: Final = 500  # the same, after waits that brought nothing


class GroupedWrites(Protocol[_S_contra]):
    """What is written to, in transactions of several statements."""

    def run(self, statements: Sequence[_S_contra], /) -> list[Any]:
        """Run statements in a transaction; return for each what it returned, or a JournalError. Never raises."""
        ...

    def read(self, statement: _S_contra, /) -> Any:
        """Return what a statement returns that only reads.

        Raises:
            JournalError: It could not be read.
        """
        ...

    def close(self) -> None:
        """Release the watches that are owned, and close. Never raises; may be called twice."""
        ...


class _Pending(Struct, frozen=True, eq=False):
    statement: Any
    written: asyncio.Future[Any]
    undo: Any = None


class GroupCommit(Generic[S]):
    """Writes to an open database, for the event loop that is running now.

    Args:
        database: What is written to.
        thread: Where it is done.
    """

    def __init__(self, database: GroupedWrites[S], thread: OwnThread) -> None:
        self._database, self._thread = database, thread
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        self._pending: list[_Pending] = []
        self._is_closing = False
        self._is_awake = False  # a transaction is being written, or will be soon
        self._burst = BURST
        self._paid_until = 0.0  # by the loop's clock: when the transactions so far would have been started evenly

    async def write(self, statement: S, undo: S | None = None) -> Any:
        """Return what a statement returned, when it is durable; a statement is written even if the caller is cancelled.

        Args:
            statement: What is written.
            undo: What is written after it, if the caller was cancelled; if that was before it began, neither is.

        Raises:
            JournalError: It was not written.
        """
        self._check_is_here()
        written: asyncio.Future[Any] = self._loop.create_future()
        self._pending.append(_Pending(statement, written, undo))
        self._wake()
        try:
            return await written
        except asyncio.CancelledError:
            if undo is not None and not written.cancelled() and written.done() and written.exception() is None:
                self._undo(undo)  # cancelled after it was written, before this task went on
                self._wake()
            raise

    async def read(self, statement: S) -> Any:
        """Return what a statement returns that only reads. Safe to cancel.

        Raises:
            JournalError: It could not be read.
        """
        self._check_is_here()
        return await self._loop.run_in_executor(self._thread, self._database.read, statement)

    async def close(self) -> None:
        """Write what is pending, and close the database; a forked child leaves it to its parent.

        A cancel waits until it is closed.
        """
        if os.getpid() != self._process:
            return
        self._is_closing = True
        if asyncio.get_running_loop() is self._loop:
            self._start()
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._thread.shutdown()
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await asyncio.wait({closing})
            raise

    def _wake(self) -> None:
        """Start a transaction, soon, unless one is being written; what is called in this pass of the loop shares it."""
        if self._pending and not self._is_awake:
            self._is_awake = True
            self._loop.call_soon(self._start_or_wait)

    def _start_or_wait(self) -> None:
        now = self._loop.time()
        self._paid_until = max(self._paid_until, now - self._burst / MOST_PER_S) + 1 / MOST_PER_S
        if self._paid_until <= now:
            self._start()
        else:
            self._loop.call_at(self._paid_until, self._start_after, len(self._pending))

    def _start_after(self, pending: int) -> None:
        """Start a transaction that has waited, when so much was pending."""
        if len(self._pending) > pending:
            self._burst = BURST
        else:
            self._burst, self._paid_until = min(2 * self._burst, MOST_BURST), 0.0
        self._start()

    def _undo(self, statement: S) -> None:
        """Write a statement, for which nobody waits, before what is pending; closing releases all anyway."""
        if not self._is_closing:
            written = self._loop.create_future()
            written.cancel()
            self._pending.insert(0, _Pending(statement, written))

    def _start(self) -> None:
        """Start a transaction of what is pending."""
        batch = [each for each in self._pending if each.undo is None or not each.written.done()]  # else: no need of it
        self._pending = []
        self._is_awake = bool(batch)
        if batch:
            job = self._loop.run_in_executor(self._thread, self._database.run, [each.statement for each in batch])
            job.add_done_callback(lambda job: self._landed(batch, job))

    def _landed(self, batch: list[_Pending], job: asyncio.Future[list[Any]]) -> None:
        """Pass on the results of a transaction, and start the next one."""
        for pending, result in zip(batch, job.result(), strict=True):
            if pending.written.done():  # the caller was cancelled
                if pending.undo is not None and not isinstance(result, Exception):
                    self._undo(pending.undo)
                continue
            if isinstance(result, Exception):
                pending.written.set_exception(result)
            else:
                pending.written.set_result(result)
        self._is_awake = False
        self._wake()

    def _check_is_here(self) -> None:
        if os.getpid() != self._process:
            raise JournalError(
                f"This journal was opened by process {self._process}, of which this one is a fork, and which owns its "
                "watches: open a journal of its own in each process"
            )
        if asyncio.get_running_loop() is not self._loop:
            raise JournalError("This journal was opened in another event loop: close it, and open it in this one")
