"""What a client opens in each event loop in which it is used, one loop after another.

A client may live longer than a loop: a global one is used by each `asyncio.run` of a script, by each view or each test.
What it opened in one loop is of no use in the next, so it is closed when the loop ends.

`asyncio.run`, `asyncio.Runner` and the servers and test runners built on them close all suspended asynchronous
generators just before the loop, after its tasks: https://docs.python.org/3/library/asyncio-eventloop.html, under
`shutdown_asyncgens`. Here one such generator waits for that moment in each loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Generic, TypeVar

from asyncruns.errors import ConfigurationError

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One object for the event loop in which it is used, closed at the end of the loop, and made anew in the next.

    Args:
        make: Makes the object, in a running loop.
        close: Closes it. Called in its loop; if that was closed without `shutdown_asyncgens`, called until its first
            wait.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Coroutine[Any, Any, None]]) -> None:
        self._make = make
        self._close = close
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held: T | None = None
        self._until_end: AsyncGenerator[None] | None = None
        self.is_closed: bool = False

    def get(self) -> T:
        """Return the object of the running loop.

        Raises:
            ConfigurationError: `aclose` was called; or another loop uses the client and is not closed.
        """
        loop = asyncio.get_running_loop()
        held = self._held
        return held if held is not None and self._loop is loop else self._made_in(loop)

    def check_open(self) -> None:
        """Raise a `ConfigurationError` if it is closed."""
        if self.is_closed:
            raise ConfigurationError("The client is closed; make a new one")

    def _made_in(self, loop: asyncio.AbstractEventLoop) -> T:
        self.check_open()
        if self._held is not None and self._loop is not None:
            if not self._loop.is_closed():
                raise ConfigurationError(
                    "This client is used in another event loop that is still open. It can serve loops one after "
                    "another, not two at a time: make one for each, with `async with Client(...) as client:` in the "
                    "function that the loop runs"
                )
            self._discard()
        made = self._held = self._make()
        self._loop = loop
        self._until_end = self._wait_for_end()
        with contextlib.suppress(StopIteration):  # how `send` tells that the generator has reached its `yield`
            self._until_end.__anext__().send(None)
        return made

    async def _wait_for_end(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self._close_held()

    async def _close_held(self) -> None:
        held, self._held, self._loop = self._held, None, None
        if held is not None:
            await self._close(held)

    def _discard(self) -> None:
        """Close what a closed loop has left, as far as that is possible without the loop."""
        closing = self._close_held()
        with contextlib.suppress(StopIteration, RuntimeError):  # "Event loop is closed"
            closing.send(None)
        closing.close()

    async def aclose(self) -> None:
        """Close the object, and make every later `get` raise. May be called twice."""
        self.is_closed = True
        if self._loop is not None and self._loop.is_closed():
            self._discard()
        await self._close_held()
        waiting, self._until_end = self._until_end, None
        if waiting is not None:
            with contextlib.suppress(RuntimeError):  # the loop is being closed, and has closed or resumed it already
                await waiting.aclose()
