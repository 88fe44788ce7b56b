"""Delivers the outcomes of a fleet to its observer and its readers, and wakes callers that wait for a change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, Final, Generic, TypeVar

from asyncruns._loop import wake
from asyncruns.fleet.member import Member
from asyncruns.fleet.newest import Newest
from asyncruns.lifecycle import TokenUsage
from asyncruns.watch.observers import Observer, Observers
from asyncruns.watch.outcome import AnyOutcome

R = TypeVar("R")


KEPT_OUTCOMES: Final = 50_000  # of some 5 kB each; enough for a reader that starts when all runs were added


class Outcomes(Generic[R]):
    """The outcomes of a fleet. Those that were not delivered are kept; without a reader, only the newest of them.

    Args:
        observers: Calls `on_outcome`.
        on_outcome: Called with each outcome, or None.
        acknowledge: Called with each outcome that was delivered, to one reader or observer at least.

    Attributes:
        ended: Number of watches that have finished.
        polls: Number of polls that these took.
        usage: The tokens that their runs used.
    """

    def __init__(
        self,
        observers: Observers,
        on_outcome: Observer | None,
        acknowledge: Callable[[Member, AnyOutcome[Any]], object],
    ) -> None:
        self._acknowledge = acknowledge
        self._observers = observers
        self._on_outcome = on_outcome
        self._unread: Newest[Member, AnyOutcome[R]] = Newest(
            KEPT_OUTCOMES,
            "The outcomes of a fleet are not read, so only the newest %d are kept: iterate over the fleet while its "
            "runs end, pass on_outcome, or await its watches",
        )
        self._readers = 0
        self._news: list[asyncio.Future[None]] = []
        self.ended: int = 0
        self.polls: int = 0
        self.usage: TokenUsage = TokenUsage()

    def note(self, member: Member) -> None:
        """Note that a watch has finished, or was reopened."""
        outcome: AnyOutcome[Any] | None = member.outcome
        if outcome is None:
            return
        if member.is_watched:  # reopened: take back what was noted when it finished
            self._unread.pop(member, None)
            self.ended -= 1
            self.polls -= outcome.polls
            self.usage -= outcome.usage
            return
        self.ended += 1
        self.polls += outcome.polls
        self.usage += outcome.usage
        if self._on_outcome is not None:
            context = member.listeners[0].context if member.listeners else member.context
            self._observers.put(
                self._on_outcome,
                outcome,
                "on_outcome",
                of=member,
                context=context,
                owners=member.owners,
                then=partial(self._acknowledge, member, outcome),
            )
        # With an observer the outcome is delivered; a reader gets it all the same.
        is_had = self._on_outcome is not None or any(listener.observes(outcome) for listener in member.listeners)
        if self._readers or not is_had:
            self._unread[member] = outcome
        if not self._readers:
            self._unread.discard_oldest()
        self.wake_all()

    def handed_over(self, member: Member) -> None:
        """Note that a caller gets the outcome of a watch now, so that a later reader does not."""
        if not self._readers:
            self._unread.pop(member, None)

    def delivered(self, member: Member) -> None:
        """Note that the outcome of a watch was delivered to a caller."""
        self.handed_over(member)
        if member.outcome is not None:
            self._acknowledge(member, member.outcome)

    @property
    def awaiting_reader(self) -> int:
        """Number of outcomes that wait for a reader; 0 while there is no reader."""
        return len(self._unread) if self._readers else 0

    async def read(self, goes_on: Callable[[], bool]) -> AsyncGenerator[AnyOutcome[R]]:
        """Iterate over the outcomes that were not delivered, and over new ones while `goes_on` returns True."""
        self._readers += 1
        try:
            await asyncio.sleep(0)  # a task that was just created to add runs starts first
            while True:
                while self._unread:
                    member, outcome = self._unread.popitem(last=False)
                    self.wake_all()  # there is room for more
                    yield outcome
                    self._acknowledge(member, outcome)  # the reader has come back
                if not goes_on():
                    return
                await self.news()
        finally:
            self._readers -= 1
            self.wake_all()

    def wake_all(self) -> None:
        """Wake all callers that wait in `news`."""
        for waiting in self._news:
            wake(waiting)
        self._news.clear()

    async def news(self) -> None:
        """Wait until a watch finishes or is cancelled, an outcome is read, runs were added, or the fleet stops.

        Safe to cancel. May return without a change: check again what is waited for.
        """
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news.append(news)
        await news
