"""Holds the events of streams for the one who reads them: a bounded queue that nothing is dropped from."""

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
    """Events between the task that gets them and the one that wants them, who may come late, or never.

    Attributes:
        is_let_go: Whether nobody wants them: nothing is held any more.
    """

    def __init__(self) -> None:
        self.is_let_go: bool = False
        self._may_be_let_go = False
        self._events: deque[Any] = deque()
        self._readers = 0  # one at a time; but who broke off may be counted a little longer
        self._is_finished = False
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether who has an event has to wait."""
        return len(self._events) >= BUFFERED_EVENTS and not self.is_let_go

    @property
    def is_low(self) -> bool:
        """Whether who reads has kept up lately."""
        return len(self._events) < BUFFERED_EVENTS // 2

    async def room(self) -> None:
        """Wait until there is room for an event."""
        while self.is_full:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def put(self, event: Any) -> None:
        """Add an event, as soon as there is room. Safe to cancel: it is not added then."""
        await self.room()
        self.add(event)

    def add(self, event: Any) -> None:
        """Add an event at once, beyond the bound if need be: for the few that a submit must not wait for."""
        if self.is_let_go:
            return
        self._events.append(event)
        wake(self._news)

    def finish(self) -> None:
        """Say that nothing more will come, as far as is known: who reads gets what there is, and comes to an end."""
        self._is_finished = True
        wake(self._news)

    def go_on(self) -> None:
        """Say that more may come after all, which is held until somebody only waits again."""
        self._is_finished = self._may_be_let_go = self.is_let_go = False

    def let_go(self) -> None:
        """Hold nothing for somebody who may come: there is a reader now, or there will be none."""
        self._may_be_let_go = True
        if not self._readers:
            self.is_let_go = True
            self._events.clear()
            wake(self._room)

    @contextmanager
    def reader(self) -> Iterator[None]:
        """Count as one who reads.

        Raises:
            InvalidRequestError: The events were let go.
        """
        if self.is_let_go:
            raise InvalidRequestError(
                "The events of the stream were let go, since nobody read them when wait() was called: begin to read "
                "before that"
            )
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if self._may_be_let_go:
                self.let_go()

    async def get(self) -> Any:
        """Wait for the next event; None when there will be none. Safe to cancel: none is lost.

        Raises:
            InvalidRequestError: Another waits.
        """
        if self._news is not None:
            raise InvalidRequestError("The stream is read by another already; its events go to one reader")
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
