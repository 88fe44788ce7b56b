"""A limit on what runs at once, for any thread and any event loop.

`asyncio.Semaphore` belongs to one loop and must be released in its thread. Places here are given back by worker
threads, maybe after the loop that took them is closed. A place that is given back passes straight to the first waiter.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from types import TracebackType

from asyncruns.errors import ConfigurationError


class _Waiter:
    __slots__ = ("future", "granted", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.granted = False

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class ConcurrencyLimit:
    """Let at most `at_once` run, in whichever threads and loops; those who wait are served in their order.

    `async with limit:` takes a place and gives it back. Give one to `Toolset.call(call, limit=...)` to limit the calls
    of one run, or of all that share it.

    Args:
        at_once: How many places there are; None is no limit, and what runs is counted all the same.
        within: Another limit, of which who has a place here takes one, too.

    Raises:
        ConfigurationError: There is not even one place.
    """

    def __init__(self, at_once: int | None, *, within: ConcurrencyLimit | None = None) -> None:
        if at_once is not None and at_once < 1:
            raise ConfigurationError(f"A limit must be at least 1, not {at_once}; None means no limit.")
        self.at_once = at_once
        self._within = within
        self._running = 0
        self._waiters: deque[_Waiter] = deque()
        # Reentrant, since the garbage collector may close a waiting coroutine while its thread holds the lock.
        self._lock = threading.RLock()

    @property
    def running(self) -> int:
        """How many places are taken."""
        return self._running

    async def acquire(self) -> None:
        """Take a place, waiting for one where none is free; then one of the limit around it.

        Safe to cancel: then no place is taken.
        """
        await self._take()
        if self._within is not None:
            try:
                await self._within.acquire()
            except BaseException:
                self._give_back()
                raise

    def release(self) -> None:
        """Give a place back, and that of the limit around it, from whichever thread."""
        if self._within is not None:
            self._within.release()
        self._give_back()

    async def _take(self) -> None:
        with self._lock:
            if self.at_once is None or self._running < self.at_once:
                self._running += 1
                return
            waiter = _Waiter()
            self._waiters.append(waiter)
        try:
            await waiter.future
        except BaseException:  # a GeneratorExit too: a closed loop drops those who wait
            self._withdraw(waiter)
            raise

    def _give_back(self) -> None:
        with self._lock:
            while self._waiters:
                waiter = self._waiters.popleft()
                waiter.granted = True
                try:
                    waiter.loop.call_soon_threadsafe(waiter.wake)
                except RuntimeError:  # its loop is closed: nobody would ever give this place back
                    waiter.granted = False
                else:
                    return
            self._running -= 1

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _withdraw(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter.granted:
                self._give_back()
            else:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
