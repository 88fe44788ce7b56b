"""What a caller holds of a run in a fleet."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asyncruns._loop import loop_time
from asyncruns.abc import AsyncOnly
from asyncruns.errors import InvalidRequestError
from asyncruns.fleet.explain import explain
from asyncruns.fleet.member import Member
from asyncruns.lifecycle import CancelAsked, Notice, OutputsProvided, RunRef, StatusChanged
from asyncruns.user_code import check_may_wait
from asyncruns.watch.call_answerer import GivenOutputs, texts_of
from asyncruns.watch.observers import Ended, Feed, Observer
from asyncruns.watch.outcome import AnyOutcome, NeedsCaller
from asyncruns.wire.visible import on_one_line

if TYPE_CHECKING:
    from asyncruns.fleet.fleet import Fleet

R = TypeVar("R")


class Watch(AsyncOnly, Generic[R]):
    """One run in a fleet, made by `Fleet.watch`: await it for the outcome, or iterate over its events.

    Several watches of the same run share its looks, and its tools are those of the first.
    """

    __slots__ = ("_ended", "_feed", "_fleet", "_member", "_on_status", "_on_terminal", "_was_cancelled", "context")

    def __init__(
        self,
        fleet: Fleet[Any],
        member: Member,
        *,
        on_status: Observer | None,
        on_terminal: Observer | None,
        context: contextvars.Context,
    ) -> None:
        self.context: contextvars.Context = context
        self._fleet = fleet
        self._member = member
        self._on_status, self._on_terminal = on_status, on_terminal
        self._ended: asyncio.Event | None = None
        self._feed: Feed[R] | None = None
        self._was_cancelled = False

    def __await__(self) -> Generator[Any, None, AnyOutcome[R]]:
        return self.wait().__await__()

    async def wait(self) -> AnyOutcome[R]:
        """Wait for the end of the watch; `await watch` is the same.

        Safe to cancel: the watch goes on, in the fleet.

        Raises:
            asyncio.CancelledError: The watch was cancelled.
            InvalidRequestError: The fleet was left before the watch ended, or was entered in another event loop; or one
                of the tools or handlers of this run calls this, and would wait for itself.
        """
        while True:
            if self._was_cancelled:
                raise asyncio.CancelledError(f"The watch of {self.ref} was cancelled")
            outcome = self.outcome
            if outcome is not None:
                self._fleet.delivered(self._member)
                return outcome
            self._fleet.check_goes_on()
            check_may_wait(self._member, "watch")
            if self._ended is None:
                self._ended = asyncio.Event()
            self._ended.clear()
            await self._ended.wait()

    async def __aiter__(self) -> AsyncIterator[Notice | Ended[R]]:
        """Iterate over the events from now on, the last of which is `Ended`. For one reader; may be broken off.

        Of what comes until the reading is taken up again, the newest 16 events are kept.

        Who begins to read after the end is given the end. Who reads on after it gets nothing more, or waits where the
        watch may still be taken up again: after `NeedsCaller` and `GaveUp`, until the fleet is left.
        """
        if self._feed is None:
            self._feed = Feed()
            if self.outcome is not None:
                self._feed.put(Ended(self.outcome))
            elif not self.is_active:
                self._feed.close()
        self._fleet.check_is_here()
        self._fleet.read.add(self)
        try:
            with self._feed.reader():
                while event := await self._next_event(self._feed):
                    if isinstance(event, Ended):
                        self._fleet.delivered(self._member)
                    yield event
                    if isinstance(event, Ended):
                        return
        finally:
            self._fleet.read.discard(self)

    async def _next_event(self, feed: Feed[R]) -> Notice | Ended[R] | None:
        if feed.is_empty and (self._member.is_over or self._member.is_broken):  # its end was read before
            return None
        return await feed.get()

    async def submit(self, outputs: GivenOutputs) -> None:
        """Give outputs for open calls, and go on: `await` the watch again.

        Outputs are merged with those that there are; when all calls of the round have one, all are submitted. May be
        called while tools run, and after the watch ended as `NeedsCaller`. Safe to cancel; it does not wait.

        Raises:
            InvalidRequestError: There is no such call, or the watch is over; nothing was submitted then.
        """
        self._check()
        self._member.told(OutputsProvided(loop_time(), texts_of(outputs)))

    async def cancel_run(self) -> None:
        """Ask the server to cancel the run, as `RunWatcher.cancel_run` does. Safe to cancel; it does not wait.

        Raises:
            InvalidRequestError: The watch is over, and the run is not; cancel it through the client.
        """
        self._fleet.check_is_here()
        if not self._member.is_over:
            self._check()
            self._member.told(CancelAsked(loop_time()))

    def cancel(self) -> bool:
        """Stop watching; the run at the server goes on as it is. Who waits for this watch gets a CancelledError.

        Others that watch the same run go on. When none is left, tools are stopped; a submit on its way is not. Tools
        that were stopped run again when the run is watched anew, and all of their round with them.

        Returns:
            Whether there was something to stop.
        """
        self._fleet.check_is_here()
        if not self.is_active:
            return False
        self._was_cancelled = True
        self._fleet.drop(self, self._member)
        self.stop_waiting()
        return True

    def _check(self) -> None:
        self._fleet.check_is_here()
        if self._was_cancelled:
            raise InvalidRequestError("The watch was cancelled; submit or cancel through the client")
        self._member.check_may_be_told()

    def explain(self) -> str:
        """Say in a sentence why this run is still waited for, or how the watch ended."""
        self._fleet.check_is_here()
        if self._was_cancelled:
            return on_one_line(f"{self.ref} is not watched any more: this watch was cancelled.")
        return on_one_line(explain(self._member, self._fleet.schedule, is_running=self._fleet.is_running))

    @property
    def ref(self) -> RunRef:
        """Which run is watched; it changes where each round of outputs begins a new one."""
        return self._member.ref

    @property
    def status(self) -> str:
        """The server's own word at the last look, or ""."""
        snapshot = self._member.machine.snapshot
        return snapshot.status if snapshot else ""

    @property
    def polls(self) -> int:
        """How many looks were sent."""
        return self._member.polls

    @property
    def outcome(self) -> AnyOutcome[R] | None:
        """How the watch ended; None while it goes on."""
        member = self._member
        has_ended = member.machine.end is not None or member.is_broken
        return member.outcome if has_ended or not self._fleet.is_running else None

    @property
    def is_active(self) -> bool:
        """Whether the run is being watched."""
        return self._fleet.is_running and self.outcome is None and not self._was_cancelled

    def __repr__(self) -> str:
        state = "cancelled" if self._was_cancelled else self._member.machine.state.value
        seen = f"{self.ref} {self.status or 'not seen'}"
        return f"<Watch {on_one_line(seen)}, {state}, {self.polls} polls>"

    # What the fleet tells

    def tell(self, event: Notice | Ended[R], told: list[Observer]) -> None:
        """Take an event: for who iterates, for the observers, and for who waits.

        Args:
            event: What happened.
            told: The observers that have it from other watches of the run; ours is added.
        """
        if self._feed is not None:
            self._feed.put(event)
        if isinstance(event, StatusChanged):
            self._have_observed(self._on_status, event, told)
        elif isinstance(event, Ended):
            if self.observes(event.outcome):
                self._have_observed(self._on_terminal, event.outcome, told)
            if self._ended is not None:
                self._ended.set()

    def _have_observed(self, observer: Observer | None, value: object, told: list[Observer]) -> None:
        if observer is not None and observer not in told:
            told.append(observer)
            self._fleet.observe(observer, value, self._member, self.context)

    def observes(self, outcome: AnyOutcome[Any]) -> bool:
        """Whether an observer gets this outcome from here. Who waits now may be cancelled, and not get it."""
        return self._on_terminal is not None and not isinstance(outcome, NeedsCaller)

    def stop_waiting(self) -> None:
        """Let those who wait see that there is nothing to wait for any more."""
        if self._ended is not None:
            self._ended.set()
        if self._feed is not None:
            self._feed.close()
