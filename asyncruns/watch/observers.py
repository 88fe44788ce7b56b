"""Tells those who look on: callbacks, and whoever iterates. They can neither delay nor break the watch."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, Final, Generic, TypeVar

from asyncruns._loop import wake
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import ConnectivityChanged, Notice, StatusChanged
from asyncruns.user_code import Raised
from asyncruns.user_code.attempt import attempt_call
from asyncruns.watch.outcome import AnyOutcome, NeedsCaller

R = TypeVar("R")

log: Final = logging.getLogger("asyncruns.watch")

COALESCE_ABOVE: Final = 256  # so many unread events, then a newer takes the place of the last
KEPT_UNREAD: Final = 16  # events that are kept while nobody reads: each may hold the body of a run
COALESCED: Final = (StatusChanged, ConnectivityChanged)

SLOW_OBSERVER_S: Final = 1.0

Observer = Callable[[Any], Awaitable[None] | None]


class Ended(Generic[R]):
    """The watch ended; the last event."""

    __slots__ = ("outcome",)
    __match_args__ = ("outcome",)

    def __init__(self, outcome: AnyOutcome[R]) -> None:
        self.outcome: AnyOutcome[R] = outcome

    @property
    def status(self) -> str:
        """The server's own word at the last poll."""
        return self.outcome.status

    def __reduce__(self) -> tuple[Any, ...]:
        return Ended, (self.outcome,)

    def __repr__(self) -> str:
        return f"Ended({self.outcome!r})"


class Feed(Generic[R]):
    """A queue of events for one reader, who gets them all; while there is none, the newest are kept."""

    __slots__ = ("_closed", "_drained", "_events", "_idle", "_news", "_readers", "_reading", "_waiters")

    def __init__(self) -> None:
        self._events: deque[Notice | Ended[R]] = deque()
        self._closed = False
        self._reading = False
        self._readers = 0
        self._waiters = 0
        self._idle = False  # the reader has dealt with all that there was, and waits for more
        self._news: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    def put(self, event: Notice | Ended[R]) -> None:
        """Add an event; one that a newer makes old is replaced when the reader is far behind."""
        if not self._readers:
            while len(self._events) >= (1 if self._waiters else KEPT_UNREAD):
                self._events.popleft()
        elif len(self._events) >= COALESCE_ABOVE and isinstance(event, COALESCED):
            self._drop_last(type(event))
        self._events.append(event)
        self._idle = False
        wake(self._news)

    def _drop_last(self, kind: type) -> None:
        for place in range(len(self._events) - 1, -1, -1):
            if type(self._events[place]) is kind:
                del self._events[place]
                return

    @contextmanager
    def reader(self) -> Iterator[None]:
        """Count as the reader, who gets every event from now on."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    @contextmanager
    def waiter(self) -> Iterator[None]:
        """Count as one who waits for the end only: without a reader, no more than the newest event is kept."""
        self._waiters += 1
        try:
            yield
        finally:
            self._waiters -= 1

    def close(self) -> None:
        """Say that nothing more will come: who reads gets what there is, and then None."""
        self._closed = True
        wake(self._news)

    @property
    def is_empty(self) -> bool:
        """Whether all that there is was read."""
        return not self._events

    async def get(self) -> Notice | Ended[R] | None:
        """Wait for the next event; None when there will be none. Safe to cancel: none is lost."""
        if self._reading:
            raise InvalidRequestError("The events are read by another already; they go to one reader")
        self._reading = True
        try:
            while not self._events:
                self._idle = True
                wake(self._drained)
                if self._closed:
                    return None
                self._news = asyncio.get_running_loop().create_future()
                await self._news
            return self._events.popleft()
        finally:
            self._reading = False
            self._news = None

    async def drained(self) -> None:
        """Wait until the reader has taken, and dealt with, all that there is."""
        while self._events or not self._idle:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained


async def deliver(
    feed: Feed[R], on_status: Observer | None, on_terminal: Observer | None, owners: tuple[object, ...]
) -> None:
    """Call the observers, one event after the other, until cancelled."""
    with feed.reader():
        while event := await feed.get():
            await asyncio.sleep(0)  # who is cancelled does not call one observer more
            if isinstance(event, StatusChanged) and on_status is not None:
                await call_observer(on_status, event, owners=owners)
            elif isinstance(event, Ended) and on_terminal is not None and not isinstance(event.outcome, NeedsCaller):
                await call_observer(on_terminal, event.outcome, owners=owners)


async def call_observer(
    observer: Observer, value: object, *, context: Context | None = None, owners: tuple[object, ...] = ()
) -> None:
    """Call an observer, and wait for it; what it raises is logged, and that it is slow.

    Args:
        observer: Whom to call.
        value: What with.
        context: The context variables that it sees, in a copy; the current ones by default.
        owners: The objects that it observes for (see `driven.OWNERS`).
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    result = await attempt_call(observer, value, what="An observer", context=context, owners=owners)
    if isinstance(result, Raised):
        log.error("An observer raised; the watch goes on", exc_info=result.error)
    elif (took := loop.time() - began) >= SLOW_OBSERVER_S:
        log.warning("An observer took %.1f s; the watch went on, and new statuses waited for it", took)


class Observers:
    """Calls observers one after the other, in the order in which things happened."""

    def __init__(self) -> None:
        self._queue: OrderedDict[object, tuple[Observer, object, Context | None, tuple[object, ...]]] = OrderedDict()
        self._news: asyncio.Future[None] | None = None
        self._called: asyncio.Future[None] | None = None
        self._calling_since: float | None = None
        self._waited_since: float | None = None

    def put(
        self,
        observer: Observer,
        value: object,
        *,
        of: object,
        context: Context | None = None,
        owners: tuple[object, ...] = (),
    ) -> None:
        """Have this observer called with this value.

        A status that a newer of the same run makes old is replaced when the observers are far behind.

        Args:
            observer: Whom to call.
            value: What with.
            of: The run that this is news of.
            context: The context variables that it sees, in a copy; by default those of the task that calls observers.
            owners: The objects that it observes for (see `driven.OWNERS`).
        """
        is_behind = len(self._queue) >= COALESCE_ABOVE
        key = (of, id(observer)) if is_behind and isinstance(value, COALESCED) else object()
        self._queue.pop(key, None)
        self._queue[key] = (observer, value, context, owners)
        wake(self._news)

    async def run(self) -> None:
        """Call them, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            while self._queue:
                await asyncio.sleep(0)  # who is cancelled does not call one observer more
                _, (observer, value, context, owners) = self._queue.popitem(last=False)
                self._calling_since = loop.time()
                await call_observer(observer, value, context=context, owners=owners)
                self._calling_since = None
                wake(self._called)
            self._news = loop.create_future()
            await self._news

    async def drained(self, patience: float) -> bool:
        """Wait until all have been called, and are done; give whether they are. Safe to cancel.

        Args:
            patience: Seconds that one of them may take since somebody waits.
        """
        loop = asyncio.get_running_loop()
        if self._waited_since is None:
            self._waited_since = loop.time()
        while self._waiting:
            since = loop.time() if self._calling_since is None else max(self._calling_since, self._waited_since)
            if loop.time() >= since + patience:  # the very sum that is waited for: differences round otherwise
                return False
            self._called = loop.create_future()
            await asyncio.wait([self._called], timeout=since + patience - loop.time())
        return True

    def tell_of_waiting(self) -> None:
        """Log how many were not called, or broken off, where that is so; there will be no more calls."""
        if self._waiting:
            log.warning("Nobody waits for slow observers any more: %d calls of them were dropped", self._waiting)

    @property
    def _waiting(self) -> int:
        return len(self._queue) + (self._calling_since is not None)
