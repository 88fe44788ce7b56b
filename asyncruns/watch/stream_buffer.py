"""A bounded, lossless, single-reader buffer for the events of streams.

Nothing is dropped for a slow reader: the task that reads the socket waits for room. Only when the caller waits for the
outcome and there is no reader are all events discarded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from asyncruns._loop import wake
from asyncruns.errors import InvalidRequestError

BUFFERED_EVENTS: Final = 256


class StreamBuffer:
    """The buffer between the task that reads the socket and a reader that may start late, or never.

    Attributes:
        is_let_go: Whether events are discarded, because there is no reader.
    """

    def __init__(self) -> None:
        self.is_let_go: bool = False
        self._may_be_let_go = False
        self._events: deque[Any] = deque()
        self._readers = 0  # one at a time, but one that stopped counts until its generator is closed
        self._is_finished = False
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether a new event must wait for room."""
        return len(self._events) >= BUFFERED_EVENTS and not self.is_let_go

    @property
    def is_low(self) -> bool:
        """Whether less than half is used: the reader keeps up."""
        return len(self._events) < BUFFERED_EVENTS // 2

    async def room(self) -> None:
        """Wait until there is room for an event."""
        while self.is_full:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def put(self, event: Any) -> None:
        """Add an event as soon as there is room. Safe to cancel: it is then not added."""
        await self.room()
        self.add(event)

    def add(self, event: Any) -> None:
        """Add an event at once, even if the buffer is full: for the few events that must not delay a submit."""
        if self.is_let_go:
            return
        self._events.append(event)
        wake(self._news)

    def finish(self) -> None:
        """Mark the end of the events: the reader gets those that are left, and then ends. `go_on` revokes this."""
        self._is_finished = True
        wake(self._news)

    def go_on(self) -> None:
        """Note that the watch was resumed: more events may come, and are held until `let_go` is called again."""
        self._is_finished = self._may_be_let_go = self.is_let_go = False

    def let_go(self) -> None:
        """Hold nothing for a later reader: discard events now if there is no reader, else as soon as it stops."""
        self._may_be_let_go = True
        if not self._readers:
            self.is_let_go = True
            self._events.clear()
            wake(self._room)

    @contextmanager
    def reader(self) -> Iterator[None]:
        """Register a reader.

        Raises:
            InvalidRequestError: The events were discarded.
        """
        if self.is_let_go:
            raise InvalidRequestError(
                "The events of the stream were discarded, because there was no reader when wait() was called: start to "
                "read before calling wait()"
            )
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if self._may_be_let_go:
                self.let_go()

    async def get(self) -> Any:
        """Wait for the next event, and return it; None after the last one. Safe to cancel: no event is lost.

        Raises:
            InvalidRequestError: Another reader waits already.
        """
        if self._news is not None:
            raise InvalidRequestError(
                "Another reader already iterates over this stream; its events go to one reader: share them from there"
            )
        while not self._events and not self._is_finished:
            self._news = asyncio.get_running_loop().create_future()
            try:
                await self._news
            finally:
                self._news = None
        if not self._events:
            return None
        event = self._events.popleft()
        wake(self._room)
        return event
