"""Lets watches begin, ask and start threads a few at a time, so that a thousand of them do not hold up the event loop.

A thousand first requests in one pass of the loop take a tenth of a second, in which nothing else runs. Here each pass
admits a few; that delays the thousandth by as long, and spreads all later looks.
"""

from __future__ import annotations

import asyncio
import itertools
import weakref
from typing import Final

ADMITTED_AT_ONCE: Final = 4  # of some tenths of a millisecond each: making a watch, sending a request, a thread


class _Gate:
    """Those who wait for their turn in one loop, in their order."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._is_open = False

    async def pass_through(self) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[future] = None
        if not self._is_open:
            self._is_open = True
            loop.call_soon(self._admit, loop)
        try:
            await future
        finally:
            self._waiting.pop(future, None)

    def _admit(self, loop: asyncio.AbstractEventLoop) -> None:
        for future in list(itertools.islice(self._waiting, ADMITTED_AT_ONCE)):
            del self._waiting[future]
            if not future.done():
                future.set_result(None)
        self._is_open = bool(self._waiting)
        if self._is_open:
            loop.call_soon(self._admit, loop)


_GATES: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Gate]] = weakref.WeakKeyDictionary()


async def admitted() -> None:
    """Wait for our turn to begin. Safe to cancel."""
    await _GATES.setdefault(asyncio.get_running_loop(), _Gate()).pass_through()


def loop_time() -> float:
    """Give the loop's clock, which all times of a watch are of."""
    return asyncio.get_running_loop().time()


def wake(waiting: asyncio.Future[None] | None) -> None:
    """Let who waits go on; may be called twice."""
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
