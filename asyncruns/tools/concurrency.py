"""A semaphore that works across threads and event loops.

`asyncio.Semaphore` belongs to one loop and must be released in that loop's thread. Here worker threads release places,
possibly after the loop that acquired them has closed. A released place passes directly to the first waiter, so a new
arrival cannot overtake the waiters.
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
    """A limit of `at_once` calls at a time, over any threads and loops; waiters are served in order of arrival.

    `async with limit:` takes a place and releases it. Pass a limit to `Toolset.call(call, limit=...)` to limit the
    calls of one run, or of all runs that share it.

    Args:
        at_once: Number of places. None means no limit; running calls are counted all the same.
        within: An outer limit: each holder of a place here also takes a place there.

    Raises:
        ConfigurationError: `at_once` is less than 1.
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
        """Number of places that are taken."""
        return self._running

    async def acquire(self) -> None:
        """Take a place, waiting until one is free; then take one of the outer limit.

        Safe to cancel: no place is taken then.
        """
        await self._take()
        if self._within is not None:
            try:
                await self._within.acquire()
            except BaseException:
                self._give_back()
                raise

    def release(self) -> None:
        """Release a place, and the one of the outer limit. May be called from any thread."""
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
        except BaseException:  # also GeneratorExit: closing a loop closes the coroutines that wait here
            self._withdraw(waiter)
            raise

    def _give_back(self) -> None:
        with self._lock:
            # The place passes to the first waiter without being free in between, so `_running` stays the same.
            while self._waiters:
                waiter = self._waiters.popleft()
                waiter.granted = True
                try:
                    waiter.loop.call_soon_threadsafe(waiter.wake)
                except RuntimeError:  # the waiter's loop is closed: it would never release this place
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
            if waiter.granted:  # cancelled after a place was granted but before it woke: pass the place on
                self._give_back()
            else:
                with contextlib.suppress(ValueError):  # `_give_back` has removed it already: its loop was closed
                    self._waiters.remove(waiter)
