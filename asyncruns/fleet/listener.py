"""Passes the events of a run on to one watch: its reader, its observers, and the caller that awaits it."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from asyncruns.lifecycle import Notice, StatusChanged
from asyncruns.watch.observers import Ended, Feed, Observer, Observers
from asyncruns.watch.outcome import AnyOutcome, NeedsCaller


class Listener:
    """Listens to one run, for one `Watch`; the run may have several.

    Args:
        observers: The queue of the fleet, which calls the observers.
        on_status: Called with each new status.
        on_terminal: Called with the outcome.
        context: The context variables that these see, each call in a copy.

    Attributes:
        context: The argument of the same name.
        was_cancelled: Whether its watch was cancelled; it gets no more events then.
    """

    __slots__ = ("_ended", "_feed", "_observers", "_on_status", "_on_terminal", "context", "was_cancelled")

    def __init__(
        self,
        observers: Observers,
        *,
        on_status: Observer | None,
        on_terminal: Observer | None,
        context: contextvars.Context,
    ) -> None:
        self._observers = observers
        self._on_status, self._on_terminal = on_status, on_terminal
        self.context: contextvars.Context = context
        self.was_cancelled: bool = False
        self._ended: asyncio.Event | None = None
        self._feed: Feed[Any] | None = None

    def is_like(self, on_status: Observer | None, on_terminal: Observer | None, context: contextvars.Context) -> bool:
        """Return whether a listener with these arguments would be the same."""
        return self._on_status is on_status and self._on_terminal is on_terminal and self.context is context

    def deliver(self, event: Notice | Ended[Any], notified: list[Observer], owners: tuple[object, ...]) -> None:
        """Pass an event on to the reader, to the observers, and to the caller that awaits the watch.

        Args:
            event: What happened.
            notified: The observers that were called by other watches of the run; ours is added.
            owners: The objects that the observers work for, the run first.
        """
        if self._feed is not None:
            self._feed.put(event)
        if isinstance(event, StatusChanged):
            self._have_observed(self._on_status, event, notified, owners)
        elif isinstance(event, Ended):
            if self.observes(event.outcome):
                self._have_observed(self._on_terminal, event.outcome, notified, owners)
            if self._ended is not None:
                self._ended.set()

    def _have_observed(
        self, observer: Observer | None, value: object, notified: list[Observer], owners: tuple[object, ...]
    ) -> None:
        if observer is not None and observer not in notified:
            notified.append(observer)
            name = "on_status" if isinstance(value, StatusChanged) else "on_terminal"
            self._observers.put(observer, value, name, of=owners[0], context=self.context, owners=owners)

    def observes(self, outcome: AnyOutcome[Any]) -> bool:
        """Whether `on_terminal` gets this outcome. Callers that await it do not count: they may be cancelled first."""
        return self._on_terminal is not None and not isinstance(outcome, NeedsCaller)

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
