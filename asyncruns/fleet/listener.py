"""Passes the events of a run on to one watch: its reader, its observers, and the caller that awaits it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from typing import Any

from asyncruns.lifecycle import Notice, TextAdded
from asyncruns.watch.observers import Ended, Feed, Observer, Observers, calls_for
from asyncruns.watch.outcome import AnyOutcome, NeedsCaller
from asyncruns.watch.subscribers import Subscribers


class Listener:
    """Listens to one run, for one `Watch`; the run may have several.

    Args:
        queue: The queue of the fleet, which calls the observers.
        observers: The observers of this watch, by option.
        context: The context variables that these see, each call in a copy.

    Attributes:
        context: The argument of the same name.
        was_cancelled: Whether its watch was cancelled; it gets no more events then.
    """

    __slots__ = ("_ended", "_feed", "_observers", "_queue", "_subscribers", "context", "was_cancelled")

    def __init__(self, queue: Observers, observers: Mapping[str, Any], *, context: contextvars.Context) -> None:
        self._queue = queue
        self._observers = observers
        self.context: contextvars.Context = context
        self.was_cancelled: bool = False
        self._ended: asyncio.Event | None = None
        self._feed: Feed[Any] | None = None
        self._subscribers: Subscribers[Any] | None = None

    def is_like(self, observers: Mapping[str, Any], context: contextvars.Context) -> bool:
        """Return whether a listener with these arguments would be the same."""
        return self._observers == observers and self.context is context

    def deliver(
        self,
        event: Notice | Ended[Any],
        notified: list[tuple[Observer, str]],
        owners: tuple[object, ...],
        *,
        holds_end: bool = False,
        then: Callable[[], object] | None = None,
    ) -> None:
        """Pass an event on to the reader, to the observers, and to the caller that awaits the watch.

        Args:
            event: What happened.
            notified: The observers that were called by other watches of the run, with their options; ours are added.
            owners: The objects that the observers work for, the run first.
            holds_end: Whether subscribers are told of this end later, after the rest of the text.
            then: Called when `on_terminal` has returned.
        """
        if self._feed is not None:
            self._feed.put(event)
        if self._subscribers is not None and not holds_end:
            self._subscribers.put(event)
        for observer, value, name in calls_for(event, self._observers) if self._observers else ():
            if (observer, name) not in notified:
                notified.append((observer, name))
                done = then if name == "on_terminal" else None
                self._queue.put(observer, value, name, of=owners[0], context=self.context, owners=owners, then=done)
        if isinstance(event, Ended) and self._ended is not None:
            self._ended.set()

    def observes(self, outcome: AnyOutcome[Any]) -> bool:
        """Whether `on_terminal` gets this outcome. Callers that await it do not count: they may be cancelled first."""
        return "on_terminal" in self._observers and not isinstance(outcome, NeedsCaller)

    async def ended(self) -> None:
        """Wait until the watch has finished, was cancelled, or the fleet has stopped. Safe to cancel."""
        if self._ended is None:
            self._ended = asyncio.Event()
        self._ended.clear()
        await self._ended.wait()

    def feed(self, outcome: AnyOutcome[Any] | None, *, goes_on: bool) -> Feed[Any]:
        """Return the feed of the reader, which has the events from the first call on.

        Args:
            outcome: How the watch finished; None if it has not.
            goes_on: Whether more events may come.
        """
        if self._feed is None:
            self._feed = Feed()
            if outcome is not None:
                self._feed.put(Ended(outcome))
            elif not goes_on:
                self._feed.close()
        return self._feed

    def subscribers(self, make: Callable[[], Subscribers[Any]]) -> Subscribers[Any]:
        """Return the subscribers of this watch; `make` makes them when there were none."""
        if self._subscribers is None:
            self._subscribers = make()
        return self._subscribers

    @property
    def has_subscribers(self) -> bool:
        """Whether there are subscribers now."""
        return bool(self._subscribers)

    def restate(self) -> None:
        """Send subscribers the state again."""
        if self._subscribers is not None:
            self._subscribers.restate()

    def tell_subscribers(self, event: Notice | TextAdded | Ended[Any]) -> None:
        """Pass an event on to subscribers only."""
        if self._subscribers is not None:
            self._subscribers.put(event)

    def cancel(self) -> None:
        """Note that the watch was cancelled, and wake the reader and the caller that awaits it."""
        self.was_cancelled = True
        self.stop()

    def stop(self) -> None:
        """Wake the reader and the caller that awaits the watch: there is nothing more to wait for."""
        if self._ended is not None:
            self._ended.set()
        if self._feed is not None:
            self._feed.close()
        if self._subscribers is not None:
            self._subscribers.close()
