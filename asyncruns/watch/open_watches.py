"""Which watches go on over a client, so that closing it waits for those that are being left.

The connections are there as long as they are needed then: `asyncio.gather` under a timeout goes on while its children
still leave, and so does code that cancels a task without awaiting it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Final

from asyncruns._loop import LEAVING_GRACE_S, loop_time, wake

LEAVING_PASSES: Final = 8  # of the event loop, in which a task that was just cancelled begins to leave


class OpenWatch:
    """A watch that goes on, or a create that begins one.

    Attributes:
        leave: Makes the watch end by the given time, with its run cancelled, and may set a later `by`; None when
            closing the client is no reason to end it.
        by: Until when it is waited for, by the loop's clock; infinity while nobody leaves it.
        is_settled: Whether it owes the server nothing any more.
    """

    __slots__ = ("_settled", "by", "is_settled", "leave", "loop")

    def __init__(self, leave: Callable[[float], object] | None = None) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.leave: Callable[[float], object] | None = leave
        self.by: float = math.inf
        self.is_settled: bool = False
        self._settled: asyncio.Future[None] = self.loop.create_future()

    def settle(self) -> None:
        """Note that nothing is owed any more; may be called twice."""
        self.is_settled = True
        if not self.loop.is_closed():
            wake(self._settled)

    def leave_by(self, by: float) -> None:
        """Note that its caller leaves, and waits for it until this time, or an earlier one that was given before."""
        self.by = min(self.by, by)

    async def settled(self, by: float) -> None:
        """Wait until nothing is owed any more, or until this time. Safe to cancel."""
        await asyncio.wait({self._settled}, timeout=max(by - loop_time(), 0.0))


class OpenWatches:
    """The watches that go on over one client."""

    def __init__(self) -> None:
        self._all: dict[OpenWatch, None] = {}

    def add(self, leave: Callable[[float], object] | None = None) -> OpenWatch:
        """Note that a watch begins; `OpenWatch` describes the argument."""
        watch = OpenWatch(leave)
        self._all[watch] = None
        return watch

    def remove(self, watch: OpenWatch) -> None:
        """Note that a watch has ended."""
        watch.settle()
        self._all.pop(watch, None)

    @contextlib.contextmanager
    def beginning(self, *, cancels: bool) -> Iterator[OpenWatch]:
        """Note that a watch is about to begin: something at the server may need it.

        Args:
            cancels: Whether it cancels its run on leaving, so that closing the client waits for it.
        """
        watch = self.add((lambda by: None) if cancels else None)
        try:
            yield watch
        finally:
            self.remove(watch)

    async def finished(self, *, ends: bool) -> None:
        """Wait for what is being left, and for no longer than that may take.

        In a task of its own: when that is cancelled, as at the end of the loop, it waits on, and raises the
        cancellation then.

        Args:
            ends: Whether nothing can go on after this: then watches that cancel their runs on leaving are left, too.
        """
        interrupted: asyncio.CancelledError | None = None
        passes = LEAVING_PASSES
        while self._here():
            try:
                if passes:
                    passes -= 1
                    await asyncio.sleep(0)
                elif not await self._one_settled(ends=ends):
                    break
            except asyncio.CancelledError as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted

    async def _one_settled(self, *, ends: bool) -> bool:
        """Wait for one of them; tell whether there was one to wait for."""
        now = loop_time()
        for watch in self._here() if ends else ():
            if watch.by == math.inf and watch.leave is not None:
                watch.leave(now + LEAVING_GRACE_S)
                if watch.by == math.inf:  # else it has said so itself: a fleet may take longer
                    watch.leave_by(now + LEAVING_GRACE_S)
        left = [watch for watch in self._here() if not watch.is_settled and now < watch.by < math.inf]
        if not left:
            return False
        await left[0].settled(left[0].by)
        return True

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to wait for in this loop."""
        return not self._here()

    def _here(self) -> list[OpenWatch]:
        loop = asyncio.get_running_loop()
        return [watch for watch in self._all if watch.loop is loop]


def open_watches_of(client: object) -> OpenWatches:
    """Return those of a client; new ones where it keeps none."""
    found = getattr(client, "_open_watches", None)
    return found if isinstance(found, OpenWatches) else OpenWatches()
