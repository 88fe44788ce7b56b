"""The handle that a caller has for one watch of a fleet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from typing import Any, Generic, TypeVar

from asyncruns._loop import loop_time
from asyncruns.abc import AsyncOnly
from asyncruns.errors import InvalidRequestError
from asyncruns.fleet.explain import explain
from asyncruns.fleet.hub import Hub
from asyncruns.fleet.listener import Listener
from asyncruns.fleet.member import Member
from asyncruns.lifecycle import CancelAsked, Notice, OutputsProvided, RunRef
from asyncruns.lifecycle.values import AnySnapshot
from asyncruns.user_code import check_may_wait
from asyncruns.watch.call_answerer import GivenOutputs, texts_of
from asyncruns.watch.handover import HandedOver, token_for
from asyncruns.watch.observers import E, Ended, Feed
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.subscribers import NO_TEXT, Subscribed, Subscribers, TextSoFar
from asyncruns.wire.shown_text import on_one_line

R = TypeVar("R")


class Watch(AsyncOnly, Generic[R]):
    """One watch of a fleet, returned by `Fleet.watch` and `run`: await it for the outcome, or iterate over its events.

    Several watches of the same run share its polls, and the tools of the first one are used.
    """

    __slots__ = ("_first", "_hub", "_listener")

    def __init__(self, hub: Hub[Any], member: Member, listener: Listener) -> None:
        self._hub = hub
        self._first = member
        self._listener = listener

    @property
    def _member(self) -> Member:
        return self._first.successor or self._first

    def __await__(self) -> Generator[Any, None, AnyOutcome[R]]:
        return self.wait().__await__()

    async def wait(self) -> AnyOutcome[R]:
        """Wait until the watch finishes, and return the outcome; `await watch` is the same.

        Safe to cancel: the watch goes on, in the fleet.

        Raises:
            asyncio.CancelledError: The watch was cancelled.
            InvalidRequestError: The fleet was left before the watch finished, or was entered in another event loop; or
                this was called by one of the tools or handlers of this run, which would wait for itself.
        """
        while True:
            if self._listener.was_cancelled:
                raise asyncio.CancelledError(f"The watch of {self.ref} was cancelled")
            outcome = self.outcome
            if outcome is not None:
                await self._hub.acknowledge(self._member)
                return outcome
            self._hub.check_goes_on()
            check_may_wait(self._member, "watch")
            await self._listener.ended()

    async def recorded(self) -> None:
        """Wait until the journal of the fleet has this watch, so that `resume` takes it up after a crash.

        Returns at once without a journal. Of a run that is still to be created, the journal has what it takes to ask
        for it again; of a stream, this waits until it names its run. Safe to cancel.

        Raises:
            JournalError: It could not be written now; the fleet tries it again.
            NotOwnerError: Another process that has the same journal watches the run.
            WatchGaveUpError: The stream did not name its run; the error's `outcome` says why.
            asyncio.CancelledError: The watch was cancelled.
            InvalidRequestError: The fleet was left before, or was entered in another event loop.
        """
        if self._member.recorder is None and self._hub.runner.records is not None:
            await self.created()
        await self._hub.recorded(self._member)

    async def created(self) -> RunRef:
        """Wait until the run that `Fleet.run` creates is created, and return its ref.

        Safe to cancel: the create goes on, in the fleet.

        Raises:
            WatchGaveUpError: The run was not created; the error's `outcome` says why.
            asyncio.CancelledError: The watch was cancelled.
            InvalidRequestError: The fleet was left before, or was entered in another event loop.
        """
        while not self.ref.ids:
            if self._listener.was_cancelled:
                raise asyncio.CancelledError("This watch was cancelled before its run was created")
            if self.outcome is not None:
                self.outcome.unwrap()
            self._hub.check_goes_on()
            await self._hub.answered(self._member)
        return self.ref

    async def __aiter__(self) -> AsyncIterator[Notice | Ended[R]]:
        """Iterate over the events from now on; `Ended` is the last one. For one reader, which may stop and start again.

        While there is no reader, the newest 16 events are kept.

        A reader that starts after the watch has finished receives only `Ended`. A reader that starts again after
        `Ended` gets nothing more; or it waits, if the watch may still be reopened: after `NeedsCaller` and `GaveUp`,
        until the fleet is left.
        """
        feed: Feed[R] = self._listener.feed(self.outcome, goes_on=self.is_active)
        self._hub.task.check_is_here()
        with self._hub.reading(self._listener), feed.reader():
            while event := await self._next_event(feed):
                if isinstance(event, Ended):
                    self._hub.outcomes.handed_over(self._member)
                yield event
                if isinstance(event, Ended):
                    self._hub.outcomes.delivered(self._member)  # the reader has come back
                    return

    async def _next_event(self, feed: Feed[R]) -> Notice | Ended[R] | None:
        if feed.is_empty and self._member.is_finished:  # `Ended` was read before
            return None
        return await feed.get()

    async def subscribe(self) -> AsyncGenerator[Subscribed[R]]:
        """Iterate over the state of the watch as it is, and over its events from now on; the last one is `Ended`.

        There may be any number of subscribers, and one may begin at any time: first it gets the `CurrentState`. For a
        streamed run that has the text so far, and the text that follows comes as `TextAdded`. A subscriber that begins
        after the watch has finished gets the state and `Ended`; so does one of a watch that finished as `NeedsCaller`:
        subscribe again after `submit`. A slow subscriber delays nothing: if it is 256 events behind, these are dropped,
        and it gets a `Gap`, which says how many, and the `CurrentState` again.

        Ends without `Ended` when the watch is cancelled, or the fleet is left before the watch finishes. The outcome
        counts as delivered when a subscriber asks for more after `Ended`, not when it stops there.

        Raises:
            InvalidRequestError: The fleet was entered in another event loop.
        """
        self._hub.task.check_is_here()
        subscribers = self._listener.subscribers(self._no_subscribers)
        if self._listener.was_cancelled or not self._hub.is_running:
            subscribers.close()
        with self._hub.reading(self._listener):
            async with contextlib.aclosing(subscribers.read(self._ended_with)) as events:
                async for event in events:
                    if isinstance(event, Ended):
                        self._hub.outcomes.handed_over(self._member)
                    yield event
                    if isinstance(event, Ended):
                        self._hub.outcomes.delivered(self._member)

    def _stamped(self, event: E) -> E:
        return self._member.stamped(event)

    def _no_subscribers(self) -> Subscribers[R]:
        def text() -> TextSoFar:
            stream = self._member.stream
            return NO_TEXT if stream is None else stream.text

        # The member may be replaced: see `Member.successor`.
        return Subscribers(self._stamped, lambda: self._member.machine, lambda: self._member.progress, text)

    def _ended_with(self) -> Ended[R] | None:
        """Return the end of the watch, if subscribers have nothing to get before it; otherwise None."""
        stream, outcome = self._member.stream, self.outcome
        owes = stream is not None and stream.owes_end
        return None if outcome is None or owes else Ended(outcome)

    async def submit(self, outputs: GivenOutputs) -> None:
        """Provide outputs for open tool calls; then `await` the watch again.

        The outputs are merged with those that exist already; when all calls of the round have one, all are submitted.
        May be called while tools run, and after the watch finished as `NeedsCaller`. Safe to cancel; it does not wait.

        Raises:
            InvalidRequestError: There is no such call, or the watch has finished; nothing was submitted then.
        """
        self._check()
        self._member.receive_from_caller(OutputsProvided(loop_time(), texts_of(outputs)))

    def token(self) -> str:
        """Return a text with which another process goes on with this watch, as `fleet.watch(token=...)` does.

        `RunWatcher.token` says what it holds, and how it may be used. With a journal it is valid once the watch is
        recorded (see `recorded`), and can be used when the fleet was left with `on_exit="leave"`, or this process has
        ended; in this fleet, when the watch has finished. Without one, it is returned only after the watch has finished
        or was cancelled, or the fleet was left.

        Raises:
            InvalidRequestError: The run has ended, or is not created yet, or the journal has forgotten the watch; or
                there is no journal, and the watch goes on.
        """
        outcome, member = self.outcome, self._member
        if outcome is not None:
            if not (token := outcome.token):
                raise InvalidRequestError(f"There is nothing to go on with: {outcome!r}")
            return token
        if not member.ref.ids:
            raise InvalidRequestError("The run is not created yet, or not named: await watch.created() first")
        has_journal = member.recorder is not None and not member.recorder.is_private
        is_left = not self._hub.is_running or not member.listeners
        if has_journal and member.recorder is not None and member.recorder.is_forgotten:
            raise InvalidRequestError(f"The watch of {member.ref} was cancelled, so the journal forgets it")
        if not has_journal and not is_left:
            raise InvalidRequestError(
                f"The watch of {member.ref} goes on, and has no journal: two watches would run its tools twice. Cancel "
                "it first, or pass journal=SQLiteJournal(...) to the fleet"
            )
        handed = member.handed_over(None) or HandedOver()
        return token_for(member.ref, member.refs, member.label, handed, member.client)

    async def cancel_run(self) -> None:
        """Ask the server to cancel the run, as `RunWatcher.cancel_run` does. Safe to cancel; it does not wait.

        A run that is still to be created is cancelled then.

        Raises:
            InvalidRequestError: The watch was cancelled, or broke, or its fleet was left, and the run has not ended;
                cancel it through the client.
        """
        self._hub.task.check_is_here()
        pending = self._hub.runner.creates.of(self._member)
        if pending is not None:
            pending.is_cancel_asked = True
        elif not self._member.is_over:
            self._check()
            self._member.receive_from_caller(CancelAsked(loop_time()))

    def poll_now(self) -> None:
        """Poll the run at once, before all others, as far as the budget allows: a webhook says that it has ended, say.

        If a poll is in flight, another one follows it, unless that shows the end. Nothing happens if the watch has
        finished. Does not wait.

        Raises:
            InvalidRequestError: The fleet was entered in another event loop.
        """
        self._hub.task.check_is_here()
        if self.is_active:
            self._member.poll_now()

    def cancel(self) -> bool:
        """Stop watching; the run goes on at the server. Callers that await this watch get a CancelledError.

        A run that `Fleet.run` has not created yet is not created; if it is being created at this moment, it goes on,
        and a warning names it, or it is cancelled if the fleet has `on_exit="cancel"`.

        Other watches of the same run go on. When none is left, tools are stopped; a pending submit is not. If the run
        is watched again, tools that were stopped run again, and so do all others of their round. A journal forgets the
        watch.

        If the watch has finished as `NeedsCaller`, this only makes a journal forget it.

        Returns:
            Whether the watch was active.
        """
        self._hub.task.check_is_here()
        if not self.is_active:
            self._hub.forget(self._member)
            return False
        self._hub.cancel(self._member, self._listener)
        return True

    def _check(self) -> None:
        self._hub.task.check_is_here()
        if self._listener.was_cancelled:
            raise InvalidRequestError("This watch was cancelled; submit or cancel through the client")
        self._member.check_accepts_events()

    def explain(self) -> str:
        """Return a sentence, for people to read, that says why the watch has not finished, or how it finished."""
        self._hub.task.check_is_here()
        if self._listener.was_cancelled:
            return on_one_line(f"{self.ref} is no longer watched: this watch was cancelled.")
        return on_one_line(explain(self._member, self._hub.runner.schedule, is_running=self._hub.is_running))

    @property
    def ref(self) -> RunRef:
        """The ref of the run; it changes if the server starts a new run for each round of outputs.

        While the run of `Fleet.run` is not created, it has no ids: `ref.ids` is empty.
        """
        return self._member.ref

    @property
    def label(self) -> Any:
        """What the first watch of the run was given as `label=`; of one that was resumed, what the journal has."""
        return self._member.label

    @property
    def traceparent(self) -> str:
        """The W3C trace context in which the watch was written down first, to link to; "" if there was none.

        It is that of OpenTelemetry's current span, if the program uses OpenTelemetry. "" without a journal.
        """
        recorder = self._member.recorder
        return "" if recorder is None else recorder.record.traceparent

    @property
    def status(self) -> str:
        """The last status that was seen, as the server sent it; "" if none was seen."""
        return self._member.status

    @property
    def polls(self) -> int:
        """Number of polls sent."""
        return self._member.polls

    @property
    def _next_poll_at(self) -> float:
        """When the next poll is due, by the loop's clock; infinity if none is planned, or while one is in flight."""
        return self._member.poll_at

    @property
    def _snapshot(self) -> AnySnapshot | None:
        """What the last poll that succeeded has shown; None if none did."""
        return self._member.machine.snapshot

    @property
    def _answer_by(self) -> float:
        """When the calls must be answered so that the run does not expire, by the loop's clock; infinity for never."""
        return self._member.machine.expires_with_calls_at

    @property
    def _outage_since(self) -> float | None:
        """Since when all requests for the run have failed, by the loop's clock; None if the last one did not."""
        return self._member.machine.outage_since

    @property
    def outcome(self) -> AnyOutcome[R] | None:
        """How the watch finished; None while it is active."""
        is_final = self._member.has_ended or not self._hub.is_running
        return self._member.outcome if is_final else None

    @property
    def is_active(self) -> bool:
        """Whether the run is being watched through this watch."""
        return self._hub.is_running and self.outcome is None and not self._listener.was_cancelled

    def __repr__(self) -> str:
        state = self._member.machine.state.value if self.ref.ids else "creating" if self.is_active else "not created"
        if self._listener.was_cancelled:
            state = "cancelled"
        seen = f"{self.ref} {self.status or 'not seen'}"
        return f"<Watch {on_one_line(seen)}, {state}, {self.polls} polls>"
