"""Who gets the outcomes of a fleet: its observer, those who iterate, and those who wait for news of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Generic, TypeVar

from asyncruns._loop import wake
from asyncruns.fleet.member import Member
from asyncruns.fleet.newest import Newest
from asyncruns.watch.observers import Observer, Observers
from asyncruns.watch.outcome import AnyOutcome

R = TypeVar("R")


KEPT_OUTCOMES: Final = 50_000  # of some 5 kB each; so that all are there who iterates only when all runs were added


class Outcomes(Generic[R]):
    """The outcomes as they come; those that nobody has had are kept, and while nobody iterates, the newest only.

    Args:
        observers: Calls `on_outcome`.
        on_outcome: Gets each outcome; None for nobody.

    Attributes:
        ended: How many watches have ended.
        polls: How many polls these took.
    """

    def __init__(self, observers: Observers, on_outcome: Observer | None) -> None:
        self._observers = observers
        self._on_outcome = on_outcome
        self._unread: Newest[Member, AnyOutcome[R]] = Newest(
            KEPT_OUTCOMES,
            "Nobody takes the outcomes of a fleet, and of more than %d the oldest are let go: iterate over the fleet "
            "while its runs end, give it on_outcome, or await its watches",
        )
        self._readers = 0
        self._news: list[asyncio.Future[None]] = []
        self.ended: int = 0
        self.polls: int = 0

    def note(self, member: Member) -> None:
        """Note that a watch has ended, or was taken up again."""
        outcome: AnyOutcome[Any] | None = member.outcome
        if outcome is None:
            return
        if member.is_watched:
            self._unread.pop(member, None)
            self.ended -= 1
            self.polls -= outcome.polls
            return
        self.ended += 1
        self.polls += outcome.polls
        if self._on_outcome is not None:
            context = member.listeners[0].context if member.listeners else member.context
            self._observers.put(self._on_outcome, outcome, of=member, context=context, owners=member.owners)
        is_had = self._on_outcome is not None or any(listener.observes(outcome) for listener in member.listeners)
        if self._readers or not is_had:
            self._unread[member] = outcome
        if not self._readers:
            self._unread.let_go()
        self.tell()

    def delivered(self, member: Member) -> None:
        """Note that somebody has the outcome of a watch."""
        if not self._readers:
            self._unread.pop(member, None)

    @property
    def awaiting_reader(self) -> int:
        """How many wait for somebody who iterates; 0 while nobody does."""
        return len(self._unread) if self._readers else 0

    async def read(self, goes_on: Callable[[], bool]) -> AsyncGenerator[AnyOutcome[R]]:
        """Iterate over those that nobody has had, and those that come, while it goes on."""
        self._readers += 1
        try:
            await asyncio.sleep(0)  # who was just told to add runs, in another task, shall have begun
            while True:
                while self._unread:
                    _, outcome = self._unread.popitem(last=False)
                    self.tell()  # there is room for more
                    yield outcome
                if not goes_on():
                    return
                await self.news()
        finally:
            self._readers -= 1
            self.tell()

    def tell(self) -> None:
        """Let those who wait for news poll again."""
        for waiting in self._news:
            wake(waiting)
        self._news.clear()

    async def news(self) -> None:
        """Wait until something has changed: an end, a reading, an adding. Safe to cancel."""
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news.append(news)
        await news
