"""Passes the events of a watch to any number of subscribers, none of which can hold up the others or the watch.

Each has a queue of its own, which is bounded. If it is full, what is in it is dropped, and the subscriber is told how
much, and the state as it is then. So a subscriber that only shows the newest state need not care what it missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from asyncruns._loop import wake
from asyncruns.lifecycle import CurrentState, Gap, Notice, Phase, RunLifecycle, TextAdded
from asyncruns.watch.observers import E, Ended

R = TypeVar("R")

QUEUED_EVENTS: Final = 256

Subscribed = Notice | CurrentState | TextAdded | Gap | Ended[R]
"""What a subscriber gets."""


class _Queue:
    """The events that one subscriber has not read yet."""

    __slots__ = ("dropped", "events", "has_ended", "news")

    def __init__(self) -> None:
        self.events: deque[Any] = deque()
        self.dropped: int = 0
        self.has_ended: bool = False  # whether nothing more is added
        self.news: asyncio.Future[None] | None = None

    def put(self, event: Any) -> None:
        if self.has_ended:
            return
        self.has_ended = isinstance(event, Ended)
        if len(self.events) >= QUEUED_EVENTS:
            self.dropped += len(self.events)
            self.events.clear()
        # Once something was dropped, the state that is told next has everything but the end.
        if self.has_ended or not self.dropped:
            self.events.append(event)
        else:
            self.dropped += 1
        wake(self.news)


class Stamp(Protocol):
    """Adds the time, the ref of the run and the caller's value to an event."""

    def __call__(self, event: E, /) -> E: ...


class TextSoFar:
    """The text of a streamed run so far.

    Attributes:
        parts: Its pieces.
        is_whole: Whether there is no gap in it, as far as is known.
    """

    __slots__ = ("is_whole", "parts")

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.is_whole: bool = True

    def __str__(self) -> str:
        self.parts[:] = ["".join(self.parts)]  # so that thousands of pieces are not kept
        return self.parts[0]


NO_TEXT: Final = TextSoFar()
"""That of runs that are not streamed; never modify it."""


class TextReaders(Protocol):
    """Those that get the text of a streamed run as it arrives; false if there is nobody now."""

    def __bool__(self) -> bool: ...

    def add_text(self, text: str) -> None:
        """Pass on a piece of text, and keep it for those that begin later. Does not wait."""
        ...

    def lose_text(self) -> None:
        """Note that a part of the text is missing, and will not come. Does not wait."""
        ...


class Subscribers(Generic[R]):
    """The subscribers of one watch.

    Args:
        stamp: Completes an event.
        machine: Returns the lifecycle of the run.
        progress: Returns what tools have last reported, by call id.
        text: Returns the text of the run so far, if that is kept elsewhere.
    """

    __slots__ = ("_is_closed", "_machine", "_progress", "_queues", "_stamp", "_text")

    def __init__(
        self,
        stamp: Stamp,
        machine: Callable[[], RunLifecycle],
        progress: Callable[[], dict[str, Any]],
        text: Callable[[], TextSoFar] | None = None,
    ) -> None:
        self._stamp = stamp
        self._machine = machine
        self._progress = progress
        self._queues: dict[_Queue, None] = {}
        own = TextSoFar()
        self._text: Callable[[], TextSoFar] = text or (lambda: own)
        self._is_closed = False

    def __bool__(self) -> bool:
        return bool(self._queues)

    def put(self, event: Notice | CurrentState | TextAdded | Ended[Any]) -> None:
        """Pass an event on. Does not wait."""
        for queue in self._queues:
            queue.put(event)

    def add_text(self, text: str) -> None:
        """Pass on a piece of text, and keep it for those that begin later. Does not wait."""
        self._text().parts.append(text)
        if self._queues:
            self.put(self._stamp(TextAdded(text=text)))

    def lose_text(self) -> None:
        """Note that a part of the text is missing, and will not come. Does not wait."""
        self._text().is_whole = False
        self.restate()

    def restate(self) -> None:
        """Send all subscribers the state again. Does not wait."""
        if self._queues:
            self.put(self._state())

    def close(self) -> None:
        """End all iterations, once the events that are left were read."""
        self._is_closed = True
        for queue in self._queues:
            wake(queue.news)

    async def read(self, ended: Callable[[], Ended[R] | None]) -> AsyncGenerator[Subscribed[R]]:
        """Iterate over the state as it is, and over the events from now on; the last one is `Ended`.

        Args:
            ended: Returns the end of the watch; None if it has not finished.
        """
        queue = _Queue()
        if (end := ended()) is not None:
            queue.put(end)
        self._queues[queue] = None
        try:
            yield self._state()
            while True:
                if queue.dropped:
                    # Both at once, so that the events that follow are those that the state does not have.
                    state, dropped, queue.dropped = self._state(), queue.dropped, 0
                    yield self._stamp(Gap(dropped=dropped))
                    yield state
                elif queue.events:
                    event = queue.events.popleft()
                    yield event
                    if isinstance(event, Ended):
                        return
                elif self._is_closed:
                    return
                else:
                    queue.news = asyncio.get_running_loop().create_future()
                    await queue.news
        finally:
            del self._queues[queue]

    def _state(self) -> CurrentState:
        machine, text = self._machine(), self._text()
        snapshot = machine.snapshot
        return self._stamp(
            CurrentState(
                status=snapshot.status if snapshot else "",
                phase=snapshot.phase if snapshot else Phase.UNKNOWN,
                calls=machine.open_calls,
                progress=self._progress(),
                text=str(text),
                is_whole=text.is_whole,
                counts=machine.counts,
            )
        )
