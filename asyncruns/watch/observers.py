"""Delivers events to observers: to callbacks, and to the reader of a watcher. They can neither delay nor break a watch.

A callback that raises is logged, and one that is slow only delays other callbacks. Memory is bounded: see `Feed.put`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from typing import Any, Final, Generic, TypeVar

from msgspec.structs import replace

from asyncruns._loop import wake, wall_time
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import (
    ConnectivityChanged,
    CurrentState,
    Gap,
    Notice,
    ProgressChanged,
    RunRef,
    StatusChanged,
    TextAdded,
    ToolReported,
)
from asyncruns.user_code import Raised
from asyncruns.user_code.attempt import attempt_call
from asyncruns.watch.outcome import AnyOutcome, NeedsCaller
from asyncruns.wire.plain import Held, json_of

R = TypeVar("R")

log: Final = logging.getLogger("asyncruns.watch")

COALESCE_ABOVE: Final = 256  # unread events, from which on a new status replaces the last unread one
KEPT_UNREAD: Final = 16  # events that are kept while there is no reader: each may hold the body of a run
# A newer one makes an older one obsolete.
COALESCED: Final = (StatusChanged, ProgressChanged, ConnectivityChanged, ToolReported)

SLOW_OBSERVER_S: Final = 1.0

Observer = Callable[[Any], Awaitable[None] | None]
_QueuedCall = tuple[Observer, object, str, Context | None, tuple[object, ...], Callable[[], object] | None]


class Ended(Generic[R]):
    """The watch finished with this outcome; the last event."""

    __slots__ = ("outcome",)
    __match_args__ = ("outcome",)

    def __init__(self, outcome: AnyOutcome[R]) -> None:
        self.outcome: AnyOutcome[R] = outcome

    @property
    def at(self) -> float:
        """When the watch finished, in seconds since the epoch, by this machine's clock."""
        return self.outcome.at

    @property
    def ref(self) -> RunRef:
        """The ref of the run."""
        return self.outcome.ref

    @property
    def context(self) -> Any:
        """What the caller gave as `context=`; None if nothing."""
        return self.outcome.context

    @property
    def status(self) -> str:
        """The run's last known status, as the server spells it; "" if no poll succeeded."""
        return self.outcome.status

    def to_dict(self) -> dict[str, Any]:
        """Return the event as plain JSON values, as the other events do."""
        return {"event": "Ended", "at": self.at, "ref": self.ref.to_dict(), "outcome": self.outcome.to_dict()}

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the same as JSON text; `indent` is None for a single line."""
        return json_of(self.to_dict(), indent)

    def __reduce__(self) -> tuple[Any, ...]:
        return Ended, (self.outcome,)

    def __repr__(self) -> str:
        return f"Ended({self.outcome!r})"


E = TypeVar("E", bound=Notice | CurrentState | Gap | TextAdded)


def stamped(notice: E, ref: RunRef, context: Held | None) -> E:
    """Return an event with the time, the ref of its run, and what the caller gave as `context=`."""
    return replace(notice, at=wall_time(), ref=ref, _context=context)


def _subject(event: object) -> tuple[object, ...]:
    """Return what an event tells the news of: events of the same subject replace each other for a slow reader."""
    return (type(event), event.call_id) if isinstance(event, ToolReported) else (type(event),)


class Feed(Generic[R]):
    """A queue of events for one reader, which gets all of them; while there is no reader, only the newest are kept."""

    __slots__ = ("_closed", "_drained", "_events", "_idle", "_news", "_readers", "_reading", "_waiters")

    def __init__(self) -> None:
        self._events: deque[Notice | Ended[R]] = deque()
        self._closed = False
        self._reading = False
        self._readers = 0
        self._waiters = 0
        self._idle = False  # whether the reader has handled every event, and waits for the next
        self._news: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    def put(self, event: Notice | Ended[R]) -> None:
        """Add an event.

        Without a reader, older events are dropped: 16 are kept, or 1 while a caller waits for the outcome only. A
        reader that is 256 events behind loses the last unread event of a kind in `COALESCED` to a new one of that kind
        (and of that call, for the progress of tools).
        """
        if not self._readers:
            while len(self._events) >= (1 if self._waiters else KEPT_UNREAD):
                self._events.popleft()
        elif len(self._events) >= COALESCE_ABOVE and isinstance(event, COALESCED):
            self._drop_last(_subject(event))
        self._events.append(event)
        self._idle = False
        wake(self._news)

    def _drop_last(self, subject: object) -> None:
        for place in range(len(self._events) - 1, -1, -1):
            if _subject(self._events[place]) == subject:
                del self._events[place]
                return

    @contextmanager
    def reader(self) -> Iterator[None]:
        """Register a reader, which gets every event from now on."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    @contextmanager
    def waiter(self) -> Iterator[None]:
        """Register a caller that waits for the outcome only: without a reader, only the newest event is kept."""
        self._waiters += 1
        try:
            yield
        finally:
            self._waiters -= 1

    def close(self) -> None:
        """Mark the end of the events: the reader gets those that are left, and then None."""
        self._closed = True
        wake(self._news)

    @property
    def is_empty(self) -> bool:
        """Whether every event was read."""
        return not self._events

    async def get(self) -> Notice | Ended[R] | None:
        """Wait for the next event, and return it; None after the last one. Safe to cancel: no event is lost.

        Raises:
            InvalidRequestError: Another reader waits already.
        """
        if self._reading:
            raise InvalidRequestError(
                "Another reader already iterates over these events; they go to one reader, so share them from there"
            )
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
        """Wait until the reader has taken and handled every event."""
        while self._events or not self._idle:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained


OBSERVER_OPTIONS: Final = ("on_event", "on_status", "on_terminal")


def calls_for(event: Notice | Ended[Any], observers: Mapping[str, Any]) -> Iterator[tuple[Observer, object, str]]:
    """Yield the observers that get an event: each with its argument, and the option that it was given as.

    Args:
        event: The event.
        observers: The observers by option, each may be None; other options are ignored.
    """
    finishes = isinstance(event, Ended) and not isinstance(event.outcome, NeedsCaller)
    for name, is_told, value in (
        ("on_event", True, event),
        ("on_status", isinstance(event, StatusChanged), event),
        ("on_terminal", finishes, event.outcome if isinstance(event, Ended) else None),
    ):
        observer = observers.get(name)
        if is_told and observer is not None:
            yield observer, value, name


async def deliver(
    feed: Feed[R],
    observers: Mapping[str, Any],
    owners: tuple[object, ...],
    then: Callable[[AnyOutcome[R]], object],
) -> None:
    """Call the observers, one event after the other, until cancelled or until the feed ends.

    `then` is called with each outcome that `on_terminal` got, and has returned for.
    """
    with feed.reader():
        while event := await feed.get():
            for observer, value, name in calls_for(event, observers):
                await asyncio.sleep(0)  # lets a cancellation arrive before another observer is called
                has_returned = await call_observer(observer, value, name, owners=owners)
                if has_returned and name == "on_terminal" and isinstance(event, Ended):
                    then(event.outcome)


async def call_observer(
    observer: Observer, value: object, name: str, *, context: Context | None = None, owners: tuple[object, ...] = ()
) -> bool:
    """Call an observer, and wait until it is done; log what it raises, or that it took 1 s or longer.

    Returns whether it returned, and did not raise.

    Args:
        observer: The function to call.
        value: Its argument.
        name: The option that it was given as, such as "on_status".
        context: The context variables that it sees, in a copy; by default the current ones.
        owners: The objects that it works for (see `user_code.OWNERS`).
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    result = await attempt_call(observer, value, what=name, context=context, owners=owners)
    if isinstance(result, Raised):
        log.error("%s raised an exception; the watch goes on", name, exc_info=result.error)
    elif (took := loop.time() - began) >= SLOW_OBSERVER_S:
        log.warning("%s took %.1f s; the watch went on, and later calls of observers were delayed", name, took)
    return not isinstance(result, Raised)


class Observers:
    """Calls the observers of many runs, one after the other, in the order of the events."""

    def __init__(self) -> None:
        self._queue: OrderedDict[object, _QueuedCall] = OrderedDict()
        self._news: asyncio.Future[None] | None = None
        self._called: asyncio.Future[None] | None = None
        self._calling_since: float | None = None
        self._waited_since: float | None = None

    def put(
        self,
        observer: Observer,
        value: object,
        name: str,
        *,
        of: object,
        context: Context | None = None,
        owners: tuple[object, ...] = (),
        then: Callable[[], object] | None = None,
    ) -> None:
        """Queue a call of this observer with this value.

        While 256 calls or more are queued, a new status replaces the queued one of the same run and observer.

        Args:
            observer: The function to call.
            value: Its argument.
            name: The option that it was given as, such as "on_status".
            of: The run that the value is about.
            context: The context variables that it sees, in a copy; by default those of the task that calls observers.
            owners: The objects that it works for (see `user_code.OWNERS`).
            then: Called when the observer has returned, but not if it raised.
        """
        is_behind = len(self._queue) >= COALESCE_ABOVE
        key = (of, id(observer), *_subject(value)) if is_behind and isinstance(value, COALESCED) else object()
        self._queue.pop(key, None)
        self._queue[key] = (observer, value, name, context, owners, then)
        wake(self._news)

    async def run(self) -> None:
        """Make the queued calls, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            while self._queue:
                await asyncio.sleep(0)  # lets a cancellation arrive before another observer is called
                _, (observer, value, name, context, owners, then) = self._queue.popitem(last=False)
                self._calling_since = loop.time()
                has_returned = await call_observer(observer, value, name, context=context, owners=owners)
                if has_returned and then is not None:
                    then()
                self._calling_since = None
                wake(self._called)
            self._news = loop.create_future()
            await self._news

    async def drained(self, patience: float) -> bool:
        """Wait until all queued calls are done, and return whether they are. Safe to cancel.

        Args:
            patience: Seconds that a single call may take, counted from the first `drained` at the earliest.
        """
        loop = asyncio.get_running_loop()
        if self._waited_since is None:
            self._waited_since = loop.time()
        while self._waiting:
            since = loop.time() if self._calling_since is None else max(self._calling_since, self._waited_since)
            # Compare with the same sum that the timeout below is computed from: a difference may round the other way,
            # and this would loop without waiting.
            if loop.time() >= since + patience:
                return False
            self._called = loop.create_future()
            await asyncio.wait([self._called], timeout=since + patience - loop.time())
        return True

    def warn_of_waiting(self) -> None:
        """Log how many calls were dropped or cut off, if any; to be called when there will be no more calls."""
        if self._waiting:
            log.warning("Leaving did not wait for slow observers: %d calls of them were dropped", self._waiting)

    @property
    def _waiting(self) -> int:
        return len(self._queue) + (self._calling_since is not None)
