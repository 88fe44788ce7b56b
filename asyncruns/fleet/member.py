"""One run of a fleet: its lifecycle, and the doing of what that says. It holds no task, and no body of an answer."""

from __future__ import annotations

import contextvars
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final, assert_never

from msgspec import Struct
from msgspec.structs import replace

from asyncruns._loop import loop_time
from asyncruns.abc import RunClient
from asyncruns.errors import InvalidRequestError
from asyncruns.fleet.schedule import LEVELS, Slot
from asyncruns.lifecycle import (
    Asked,
    Begun,
    Cancel,
    CancelAsked,
    Command,
    End,
    EndKind,
    Event,
    Finish,
    Notice,
    Observed,
    Policy,
    PollAt,
    Reason,
    Refused,
    Report,
    RunLifecycle,
    RunRef,
    RunTools,
    Snapshot,
    StopTools,
    Submit,
    Tick,
)
from asyncruns.lifecycle.ledger import SUBMIT_LAG_S
from asyncruns.tools import Toolset
from asyncruns.tools.concurrency import ConcurrencyLimit
from asyncruns.user_code import ANSWERING
from asyncruns.watch.call_answerer import ApprovalHandler, CallAnswerer, Handler
from asyncruns.watch.observers import Ended, Observer
from asyncruns.watch.outcome import AnyOutcome, outcome_of, warn_of_uncancelled

if TYPE_CHECKING:
    from asyncruns.fleet.handle import Watch
    from asyncruns.fleet.runner import Runner

TOP_DELAY_S: Final = 2.0  # so much expected delay is the highest level, half of it the one below, and so on


class Answers(Struct, frozen=True):
    """Who answers the calls of runs; many runs share one."""

    handler: Handler | None
    approve: ApprovalHandler | None
    tools: Toolset | None
    limit: ConcurrencyLimit | None


class Member(Slot):
    """A run that is watched.

    Attributes:
        ref: The run; it changes at servers where a submit begins a new one.
        machine: Its lifecycle.
        watches: Who wait for it, and look on.
        polls: How many looks were sent.
        submit_landed_at: When its last submit was answered; infinity while one is on its way, or waits for its turn.
        due_at: When the last look that was asked for was due.
        outcome: How the watch ended, the last time that it did.
        context: The context variables that its handlers and tools see, each in a copy.
        is_watched: Whether it is one of those that the fleet watches: not ended, and not let go.
    """

    __slots__ = (
        "_answering",
        "_answers",
        "_earlier",
        "_look",
        "_runner",
        "client",
        "context",
        "due_at",
        "is_broken",
        "is_watched",
        "machine",
        "outcome",
        "polls",
        "ref",
        "started",
        "submit_landed_at",
        "watches",
    )

    def __init__(
        self,
        runner: Runner,
        client: RunClient[Any],
        ref: RunRef,
        policy: Policy,
        answers: Answers,
        context: contextvars.Context,
    ) -> None:
        super().__init__()
        self.context: contextvars.Context = context
        self._runner = runner
        self._answers = answers
        self._answering: CallAnswerer | None = None
        self._earlier: tuple[RunRef, ...] = ()
        self._look = 0  # counts up with each answer that makes the looks on their way old
        self.client: RunClient[Any] = client
        self.ref: RunRef = ref
        self.machine: RunLifecycle = RunLifecycle(policy)
        self.watches: tuple[Watch[Any], ...] = ()
        self.polls: int = 0
        self.due_at: float = 0.0
        self.submit_landed_at: float = -math.inf
        self.started: float = -math.inf
        self.outcome: AnyOutcome[Any] | None = None
        self.is_broken: bool = False
        self.is_watched: bool = False

    @property
    def refs(self) -> tuple[RunRef, ...]:
        """All that were watched, in their order."""
        return (*self._earlier, self.ref)

    @property
    def owners(self) -> tuple[object, ...]:
        """The objects that its observers work for."""
        return (self, self._runner)

    @property
    def is_over(self) -> bool:
        """Whether the run has ended. A watch that ended before its run can be taken up again."""
        end = self.machine.end
        return end is not None and end.kind.is_final

    @property
    def may_go_on(self) -> bool:
        """Whether the run may go on although its watch has ended."""
        end = self.machine.end
        is_there = end is not None and end.reason not in (Reason.NOT_FOUND, Reason.GONE)
        return is_there and not self.is_over and not self.is_broken

    @property
    def may_be_resumed(self) -> bool:
        """Whether who watches the run anew goes on with it: looks may still ask for outputs that were submitted."""
        is_recent = loop_time() - self.submit_landed_at < SUBMIT_LAG_S
        return is_recent and not self.is_broken and not self.machine.open_calls

    @property
    def is_cancelling(self) -> bool:
        """Whether its cancel is still wanted, and is followed."""
        return self.machine.is_cancelling and not self.is_broken and bool(self.watches)

    def rank(self, now: float) -> int:
        """Rank the look by the delay that it is expected to end; one that is past the run's expiry is at the top."""
        delay = self.machine.delay(now)
        if now >= self.machine.expiry or delay >= TOP_DELAY_S:
            return LEVELS - 1
        if not delay > 0.0:
            return 0
        return max(LEVELS - 2 + math.frexp(delay / TOP_DELAY_S)[1], 0)

    def rises_at(self, level: int) -> float:
        """Say when the look has this rank."""
        return min(self.machine.delayed_at(math.ldexp(TOP_DELAY_S, level + 1 - LEVELS)), self.machine.expiry)

    # What happens

    def begin(self, given: Snapshot[Any] | None) -> None:
        """Begin to watch, from what the caller's object says; or go on, where it was let go meanwhile."""
        now = loop_time()
        if self.started == -math.inf:
            self.started = now
            self.receive(Begun(now, given))
        elif self.machine.end is not None:
            self._finish(self.machine.end)
        else:
            self.due_at = now
            self._runner.schedule.look(self, now)
            self.receive(Tick(now))

    def wake(self, now: float) -> None:
        """Tell the machine that its time has come.

        After a laptop's sleep all runs want their one last look at once; its time begins when it is sent. Likewise the
        default wait does not end while the budget holds back a look that is due: the run may have ended long ago.
        """
        machine = self.machine
        if machine.looks_once_more and self.look_at < math.inf and not self.is_looking:
            return
        if self.look_at <= now and not self.is_looking and machine.waits_for_look(now):
            return
        self.receive(Tick(now))

    def receive(self, event: Event) -> None:
        """Tell the machine of an event, and do what it says.

        Raises:
            InvalidRequestError: The event cannot be; nothing was done.
        """
        end = self.machine.end
        commands = self.machine.receive(event)
        if end is not None and self.machine.end is not end:  # it may have ended anew at once
            self._runner.taken_up(self)
        for command in commands:
            self._perform(command)
        if self.is_watched and self.machine.end is None:
            wake_at = self.machine.wake_at
            if wake_at != self.tick_at:
                self._runner.schedule.tick(self, wake_at)
        self.machine.forget_resource()
        self._runner.moved()

    def told(self, event: Event) -> None:
        """Take an event from the caller; what cannot be is for the caller, and any other error ends the watch.

        Raises:
            InvalidRequestError: The event cannot be; nothing was done.
        """
        try:
            self.receive(event)
        except InvalidRequestError:
            raise
        except Exception as error:
            self._runner.broke(self, error)

    def answered(self, event: Observed | Refused, look: int) -> None:
        """Take the answer to a look, unless another answer has made it old."""
        if look == self._look:
            self.receive(event)

    def changed(self, event: Observed | Refused) -> None:
        """Take the answer to a submit or a cancel."""
        if self.is_broken:
            return
        if isinstance(event, Observed):
            # A look on its way may show the run as it was before; this answer asks for a new one.
            self._look += 1
            self.is_looking = False
            new = event.snapshot.ref
            if event.asked is Asked.SUBMIT and new is not None and new != self.ref:
                self._follow(new)
        self.receive(event)

    def _follow(self, ref: RunRef) -> None:
        """Watch what a submit began from now on; or tell of it, where the watch has ended meanwhile."""
        self._earlier, self.ref = self.refs, ref
        if self.is_watched:
            self._runner.renamed(self)
        if self.outcome is not None:
            self.outcome = replace(self.outcome, ref=ref, refs=self.refs)

    @property
    def look(self) -> int:
        """Names the looks that are sent from now on, until one is old."""
        return self._look

    def stop(self) -> None:
        """Stop tools and handlers, and look no more."""
        if self._answering is not None:
            self._answering.stop()
        self._runner.schedule.remove(self)

    def leave(self, by: float) -> None:
        """Have the run cancelled, and the watch ended by this time; the run is polled again if it was cut off."""
        self.receive(CancelAsked(loop_time(), by))
        if self.is_cancelling and self.look_at == math.inf and not self.is_looking:
            self._runner.schedule.look(self, loop_time())

    # Commands

    def _perform(self, command: Command) -> None:
        runner = self._runner
        is_left = (runner.closing and not self.is_cancelling) or not self.watches
        if is_left and isinstance(command, PollAt | RunTools | Submit):
            if not isinstance(command, PollAt):
                self.submit_landed_at = -math.inf  # the machine takes it for done, so it can't go on from here
            return
        match command:
            case PollAt(not_before, _):
                self.due_at = not_before
                runner.schedule.look(self, not_before)
            case RunTools(calls):
                self._begin_answering(calls)
            case StopTools(approvals):
                if self._answering is not None:
                    self._answering.stop(approvals=approvals)
            case Submit(answers, snapshot, keep):
                self.submit_landed_at = math.inf
                request = self.client.dialect.submit(self.ref, snapshot, answers, keep_tool_choice=keep)
                runner.schedule.change(self, (request, Asked.SUBMIT))
            case Cancel():
                runner.schedule.change(self, (self.client.dialect.cancel(self.ref), Asked.CANCEL))
            case Report(notice):
                self._tell(notice)
            case Finish(end):
                self.stop()
                self._finish(end)
            case _:
                assert_never(command)

    def _begin_answering(self, calls: tuple[Any, ...]) -> None:
        if self._answering is None:
            who = self._answers
            self._answering = CallAnswerer(
                handler=who.handler,
                approve=who.approve,
                tools=who.tools,
                limit=who.limit,
                post=self._posted,
                owners=(*self.owners, ANSWERING),
                context=self.context,
            )
        if self._runner.group is not None:
            self._answering.begin(calls, self._runner.group)

    def _posted(self, event: Event) -> None:
        self._runner.guard(self, partial(self.receive, event))

    def _finish(self, end: End) -> None:
        self.outcome = outcome_of(
            end,
            self.refs,
            self.client,
            polls=self.polls,
            elapsed=loop_time() - self.started,
            cancel_requested=self.machine.cancel_requested,
            cancel_error=self.machine.cancel_error,
        )
        if not self.watches:  # let go meanwhile
            return
        self._runner.ended(self)
        if self._runner.is_left:
            warn_of_uncancelled(self.outcome)
        self._tell(Ended(self.outcome))
        if self.is_over:
            self.watches = ()  # no circle, or the ended would be found by the garbage collector, thousands at once

    def _tell(self, event: Notice | Ended[Any]) -> None:
        told: list[Observer] = []  # one of the whole fleet is called once, however many watch the run
        for watch in self.watches:
            watch.tell(event, told)

    def broke(self, error: Exception) -> None:
        """End the watch for an error that nobody expected; the machine is not asked any more."""
        self.stop()
        self._look += 1
        self.is_broken = True
        if self.is_watched:
            self._finish(End(kind=EndKind.GAVE_UP, snapshot=self.machine.snapshot, reason=Reason.BROKE, cause=error))

    def check_may_be_told(self) -> None:
        """Check that the watch goes on, or can be taken up again.

        Raises:
            InvalidRequestError: It does not, and can't be.
        """
        if not self._runner.is_running or self.is_over or self.is_broken or not self.watches:
            raise InvalidRequestError("The watch does not go on; submit or cancel through the client")
