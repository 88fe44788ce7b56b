"""One run of a fleet: executes the commands of its lifecycle. It holds no task, and no body of a response."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, assert_never

from anyio.abc import TaskGroup
from msgspec.structs import replace

from asyncruns._loop import loop_time, wall_time
from asyncruns.abc import RunClient, WatchTrace
from asyncruns.errors import InvalidRequestError, JournalError
from asyncruns.fleet.announcements import SLOWER
from asyncruns.fleet.collective import Collective
from asyncruns.fleet.listener import Listener
from asyncruns.fleet.member_host import Host
from asyncruns.fleet.member_stream import MemberStream
from asyncruns.fleet.permits import PermittedClient
from asyncruns.fleet.schedule import Slot
from asyncruns.fleet.settings import Answerers
from asyncruns.lifecycle import (
    Asked,
    Command,
    ConnectivityChanged,
    End,
    EndKind,
    Event,
    Notice,
    Phase,
    Policy,
    Reason,
    RunLifecycle,
    RunRef,
    Snapshot,
)
from asyncruns.lifecycle import commands as do
from asyncruns.lifecycle import events as ev
from asyncruns.lifecycle.ledger import SUBMIT_LAG_S
from asyncruns.lifecycle.patience import FINAL_POLL_S
from asyncruns.lifecycle.progress import AT_WORK
from asyncruns.lifecycle.records import Wish
from asyncruns.tools import Toolset
from asyncruns.user_code import ANSWERING
from asyncruns.watch.call_answerer import CallAnswerer, facts_of
from asyncruns.watch.handover import HandedOver, handed_over
from asyncruns.watch.logs import FLEET_LOG, log_broken, log_notice, log_outcome, warn_of_uncancelled
from asyncruns.watch.observers import E, Ended, Observer, stamped
from asyncruns.watch.open_watches import telemetry_of, trace_of
from asyncruns.watch.outcome import AnyOutcome, outcome_of
from asyncruns.watch.recorded_end import recorded_end
from asyncruns.watch.recorder import WatchRecorder
from asyncruns.wire.shown_text import on_one_line


class Member(Slot):
    """A run that is watched.

    Args:
        host: The fleet.
        client: Sends the requests; its dialect makes and reads them.
        ref: The ref of the run; without ids, it is still to be created.
        policy: The options of the watch.
        answerers: What answers its tool calls.
        context: The context variables that handlers and tools see, each call in a copy.
        label: What its outcome has as `label`.

    Attributes:
        client: The argument of the same name.
        ref: The ref of the run; it changes at servers where a submit starts a new run.
        machine: The lifecycle of the run.
        listeners: One for each watch of the run.
        polls: Number of polls sent.
        due_at: The time for which the last poll was planned. While webhooks announce the ends of runs, it is sent
            later, at `poll_at`.
        outcome: How the watch finished, the last time that it did.
        context: The argument of the same name, as is `label`.
        is_broken: Whether the watch finished because of an unexpected error.
        is_recorded: Whether a journal has its watch, or is to have it; not if another process answers its calls.
        is_watched: Whether the fleet is watching it, or creates it: it has neither finished nor been discarded.
        stream: Reads the streams of the run; None if it is only polled.
        collective: Polls it together with others; None if its server has nothing for that.
        weight: Number of members that its last poll showed, itself included.
        discarded_at: When a poll in flight was discarded the last time.
        recorder: Writes into the journal what its watch must not lose; None without a journal.
        successor: The member that watches its run in its place, if the run that was to be created was watched already.
        trace: Follows its watch; None if nothing does.
    """

    __slots__ = (
        "_answerers",
        "_answering",
        "_earlier",
        "_host",
        "_is_announced",
        "_polls_again",
        "_started",
        "_submit_landed_at",
        "client",
        "collective",
        "context",
        "discarded_at",
        "due_at",
        "is_broken",
        "is_recorded",
        "is_watched",
        "label",
        "listeners",
        "machine",
        "outcome",
        "polls",
        "recorder",
        "ref",
        "stream",
        "successor",
        "trace",
        "weight",
    )

    def __init__(
        self,
        host: Host[Member],
        client: RunClient[Any],
        ref: RunRef,
        policy: Policy,
        answerers: Answerers,
        context: contextvars.Context,
        label: object,
    ) -> None:
        super().__init__()
        self.context: contextvars.Context = context
        self.label: object = label
        self._host = host
        self._answerers = answerers
        self._answering: CallAnswerer | None = None
        self._earlier: tuple[RunRef, ...] = ()
        self._is_announced = False  # whether a webhook came, and no poll has seen the end since
        self._polls_again = False  # whether a poll was wanted while one was in flight
        self._started = -math.inf
        self._submit_landed_at = -math.inf  # infinity while a submit is queued or in flight
        self.client: RunClient[Any] = client
        self.ref: RunRef = ref
        self.machine: RunLifecycle = RunLifecycle(policy)
        self.listeners: tuple[Listener, ...] = ()
        self.polls: int = 0
        self.due_at: float = 0.0
        self.outcome: AnyOutcome[Any] | None = None
        self.is_broken: bool = False
        self.is_recorded: bool = False
        self.is_watched: bool = False
        self.stream: MemberStream | None = None
        self.successor: Member | None = None
        self.collective: Collective[Any] | None = None
        self.weight: int = 1
        self.discarded_at: float = -math.inf
        self.recorder: WatchRecorder | None = None
        self.trace: WatchTrace | None = None

    @property
    def refs(self) -> tuple[RunRef, ...]:
        """The refs of all runs that were watched, in order; none before the run is created."""
        return (*self._earlier, self.ref) if self.ref.ids else ()

    @property
    def owners(self) -> tuple[object, ...]:
        """The objects that its observers work for."""
        return (self, self._host)

    @property
    def is_over(self) -> bool:
        """Whether the run has ended. A watch that finished before its run can be reopened."""
        end = self.machine.end
        return end is not None and end.kind.is_final

    @property
    def is_finished(self) -> bool:
        """Whether nothing is sent for it any more: the run has ended, or its watch broke."""
        return self.is_over or self.is_broken

    @property
    def has_ended(self) -> bool:
        """Whether its watch has finished, and was not reopened since."""
        return self.machine.end is not None or self.is_broken

    @property
    def may_go_on(self) -> bool:
        """Whether the run may go on although its watch has finished."""
        end = self.machine.end
        is_there = end is not None and end.reason not in (Reason.NOT_FOUND, Reason.GONE, Reason.TAKEN_OVER)
        return is_there and not self.is_finished

    @property
    def may_be_resumed(self) -> bool:
        """Whether a new watch of the run must use this member: polls may still show calls that were answered.

        A new member would run their tools again.
        """
        is_recent = loop_time() - self._submit_landed_at < SUBMIT_LAG_S
        return is_recent and not self.is_broken and not self.machine.open_calls

    @property
    def is_cancelling(self) -> bool:
        """Whether its cancel was requested, and its effect is being watched."""
        return self.machine.is_cancelling and not self.is_broken and bool(self.listeners)

    @property
    def status(self) -> str:
        """The last status that was seen, as the server sent it; "" if none was seen."""
        snapshot = self.machine.snapshot
        return snapshot.status if snapshot else ""

    def companions(self, now: float) -> Sequence[Member]:
        """Return the other members that its poll, which is sent now, is expected to show."""
        return () if self.collective is None else self._host.companions(self, now)

    # A poll that shows `weight` runs ends about that many times the delay of this one.

    def delay(self, now: float) -> float:
        """Return by how many seconds the watch is expected to be late now in noticing the end of the run.

        If polls show several runs, it is the sum for all of them, taken to be equal.
        """
        return self.machine.delay(now) * self.weight

    def delayed_at(self, delay: float) -> float:
        """Return when it will be late by so many seconds; or, if that is earlier, when the run expires."""
        return self.machine.delayed_at(delay / self.weight)

    def discard_poll(self) -> None:
        """Discard the response to a poll in flight, also to one that shows other runs as well."""
        super().discard_poll()
        self.discarded_at = loop_time()

    # Starting and finishing

    def add_listener(self, listener: Listener) -> None:
        """Pass events on to one more watch."""
        self.listeners = (*self.listeners, listener)

    def remove_listener(self, listener: Listener) -> None:
        """Pass no more events on to a watch; if it was the last one, the caller must discard the member."""
        self.listeners = tuple(other for other in self.listeners if other is not listener)

    def resume(self, refs: tuple[RunRef, ...]) -> None:
        """Note the refs of all its runs, before it begins: another process watched them."""
        self._earlier = refs[:-1]

    def begin(self, given: Snapshot[Any] | None) -> None:
        """Start to watch, from the state of the caller's object if there is one; or resume a discarded member."""
        self.is_watched = True
        self._begin_trace(given)
        now = loop_time()
        if self._started == -math.inf:
            self._started = now
            self.receive(ev.Begun(now, given))
            if self.recorder is not None and self.recorder.is_cancel_asked and not self.is_over:
                self.receive(ev.CancelAsked(now))
        elif self.machine.end is not None:
            self._finish(self.machine.end)
        else:
            self.due_at = now
            self._host.schedule.poll(self, now)
            self.receive(ev.Tick(now))

    def _begin_trace(self, run: Snapshot[Any] | None) -> None:
        """Make a trace of the watch from now on, in the context of its caller."""
        recording = self._host.recording
        if recording is None and telemetry_of(self.client) is None:
            return
        link = "" if self.recorder is None else self.recorder.record.traceparent
        resource = None if run is None else run.resource
        self.trace = self.context.copy().run(trace_of, self.client, self.ref, resource, link, self.label, recording)
        if self._answering is not None:
            self._answering.follow_with(self.trace)

    def end_trace(self, outcome: AnyOutcome[Any] | None) -> None:
        """End the trace of the watch, if there is one; None if the watch was left before it finished."""
        trace, self.trace = self.trace, None
        if trace is not None:
            trace.ended(outcome)

    def poll_now(self) -> None:
        """Poll at once, as far as the budget allows; after a poll in flight, unless that shows the end."""
        if self.is_polling:
            self._polls_again = True
        if self.is_polling or not self.ref.ids:
            return
        now = loop_time()
        if self.stream is not None:  # while it speaks, no poll is planned
            self.stream.forget_poll()
            self.plan_poll(now)
        self.due_at = min(self.due_at, now)  # it may be due already
        self._host.schedule.poll_first(self, now)
        self._host.moved()

    def grant(self, wish: Wish) -> None:
        """Do what another process asks of the watch."""
        if wish is Wish.POLL:
            self.poll_now()
        elif not self.is_finished:
            self.receive_safely(ev.CancelAsked(loop_time()))

    def announced(self, ref: RunRef) -> None:
        """Poll at once, because a webhook came about the run or one before it."""
        if ref == self.ref:
            self._is_announced = True
        self.poll_now()

    def hurry(self) -> None:
        """Poll when it was planned, as webhooks do not announce the ends of runs any more."""
        if self.due_at < self.poll_at < math.inf and not self.is_due and not self.is_polling:
            self._host.schedule.poll(self, max(self.due_at, loop_time()))

    def discard(self) -> None:
        """Stop watching, since no watch is left; submits and cancels that are queued or in flight are still sent."""
        self.stop()
        if self.stream is not None:
            self.stream.stop()
        self.end_trace(None)
        self.is_watched = False

    def stop(self) -> None:
        """Stop tools and handlers, and poll no more."""
        if self._answering is not None:
            self._answering.stop()
        if self.stream is not None:
            self.stream.forget_poll()
        self._host.schedule.remove(self)

    def leave(self, by: float) -> None:
        """Cancel the run if it has not ended; the watch finishes by this time, by the loop's clock."""
        if self.listeners and not self.is_finished:
            self.guard(partial(self._leave, by))

    def _leave(self, by: float) -> None:
        self.receive(ev.CancelAsked(loop_time(), by))
        if self.is_cancelling and self.poll_at == math.inf and not self.is_polling:  # its poll was cut off
            self._host.schedule.poll(self, loop_time())

    def end_leaving(self, by: float) -> None:
        """Finish the watch of a run that could not be cancelled by this time, with an outcome that says so."""
        if self.listeners and not self.is_finished:
            self.guard(partial(self._leave, by))
            self.guard(lambda: self.receive(ev.Tick(max(loop_time(), by))))

    @property
    def tools(self) -> Toolset | None:
        """What answers its calls."""
        return self._answerers.tools

    @property
    def progress(self) -> dict[str, Any]:
        """What its tools have last reported, by call id."""
        return {} if self._answering is None else self._answering.progress

    @property
    def group(self) -> TaskGroup | None:
        """The task group of the fleet; None if it is not running."""
        return self._host.group

    def receive_safely(self, event: Event) -> None:
        """Receive an event; an unexpected error finishes the watch, but no other."""
        self.guard(partial(self.receive, event))

    def plan_poll(self, at: float) -> None:
        """Plan the next poll, unless the watch has finished."""
        if self.is_watched and not self.has_ended:
            self.due_at = at
            self._host.schedule.poll(self, at)
            self._host.moved()

    def plan_poll_again(self, at: float) -> None:
        """Plan the poll that was planned for this time again, since it did not show the run; infinity for none."""
        is_left = self._host.closing and not self.is_cancelling
        if at < math.inf and self.is_watched and not self.has_ended and not is_left and self.poll_at == math.inf:
            self._host.schedule.poll(self, at)
            if self._polls_again:
                self._polls_again = False
                self.poll_now()
            self._host.moved()

    def guard(self, act: Callable[[], object]) -> None:
        """Call `act` for this run. An unexpected error finishes its watch, but no other."""
        try:
            act()
        except Exception as error:
            self.broke(error)

    def broke(self, error: Exception) -> None:
        """Finish the watch because of an unexpected error; the machine is not used any more."""
        log_broken(FLEET_LOG, self.ref, error)
        if self.is_broken:
            return
        self.stop()
        self.discard_poll()
        self.is_broken = True
        if self.is_watched:
            snapshot, usage = self.machine.snapshot, self.machine.usage
            self._finish(End(kind=EndKind.GAVE_UP, snapshot=snapshot, reason=Reason.BROKE, cause=error, usage=usage))

    def not_created(self, error: Exception | None, *, since: float) -> None:
        """Finish the watch, since there is no run to watch; `since` is when it was to be created."""
        if self.is_watched and self.listeners:
            self._started = since
            self.is_broken = True
            reason = Reason.TAKEN_OVER if isinstance(error, JournalError) and self.ref.ids else Reason.NOT_CREATED
            self._finish(End(kind=EndKind.GAVE_UP, snapshot=None, reason=reason, cause=error))

    # Events

    def wake(self, now: float) -> None:
        """Send the machine a tick, unless a poll must be sent first.

        After a laptop slept past the deadlines, all runs want their one last poll at once; its time starts when it is
        sent. Likewise the default wait does not end while the budget holds back a due poll: the run may have ended long
        ago.
        """
        machine = self.machine
        if machine.polls_once_more and self.poll_at < math.inf and not self.is_polling:
            return
        if self.poll_at <= now and not self.is_polling and machine.waits_for_poll(now):
            return
        self.receive(ev.Tick(now))

    def receive(self, event: Event) -> None:
        """Send the machine an event, and execute its commands.

        Raises:
            InvalidRequestError: The event is not allowed now; nothing was done.
        """
        end, counts = self.machine.end, self.machine.counts
        commands = self.machine.receive(event)
        if self.is_watched:
            self._host.progress.changed(counts, self.machine.counts)
        if end is not None and self.machine.end is not end:  # reopened; it may have finished again at once
            self.is_watched = True
            self._begin_trace(self.machine.snapshot)
            self._host.taken_up(self)
            if self.stream is not None:
                self.stream.reopened()
        for command in commands:
            self._perform(command, event)
        if self.is_watched and self.machine.end is None:
            wake_at = self.machine.wake_at
            if wake_at != self.tick_at:
                self._host.schedule.tick(self, wake_at)
        self.machine.forget_resource()
        self._host.moved()

    def receive_from_caller(self, event: Event) -> None:
        """Receive an event from the caller. An unexpected error finishes the watch instead of being raised.

        Raises:
            InvalidRequestError: The event is not allowed now; nothing was done.
        """
        try:
            self.receive(event)
        except InvalidRequestError:
            raise
        except Exception as error:
            self.broke(error)

    # Requests

    def begin_poll(self, now: float) -> None:
        """Count a poll that is sent now."""
        self.polls += 1
        # `wake` held the tick back for this poll; now the poll gets its time.
        if self.machine.polls_once_more or self.machine.waits_for_poll(now):
            self._host.schedule.tick(self, now + FINAL_POLL_S)
            self._host.moved()

    def polled(self, event: ev.Observed | ev.Refused, generation: int) -> None:
        """Receive the response to a poll, unless the poll was discarded, so that its generation is over."""
        try:
            if generation == self.generation:
                if self.trace is not None:
                    self.trace.polled(event)
                if isinstance(event, ev.Observed):
                    if self._is_announced:
                        event = replace(event, is_announced=True)
                    if event.snapshot.phase not in AT_WORK:
                        self._note_end(event)
                self.receive(event)
        except Exception as error:
            self.broke(error)

    def _note_end(self, event: ev.Observed) -> None:
        """Note whether a webhook announced what this poll sees: that the run has ended, or calls tools."""
        phase, before = event.snapshot.phase, self.machine.snapshot
        is_new = before is None or before.phase is not phase
        if not is_new or not (phase.is_terminal or phase is Phase.NEEDS_CALLER):
            return
        if self._is_announced or self.polls > 1:  # a webhook of a run that had ended came before the watch
            self._host.announcements.saw_end(self.ref, event.now, is_announced=self._is_announced)
        self._is_announced = False

    def submit_landed(self, now: float) -> None:
        """Note that its submit is no longer in flight."""
        if self._submit_landed_at == math.inf:
            self._submit_landed_at = now

    def submit_dropped(self) -> None:
        """Note that its submit will not be sent."""
        self._submit_landed_at = -math.inf

    def changed(self, event: ev.Observed | ev.Refused) -> None:
        """Receive the response to a submit or a cancel."""
        if self.is_broken:
            return
        if isinstance(event, ev.Observed):
            # A poll in flight may show the run as it was before. The machine will plan another one.
            self.discard_poll()
            new = event.snapshot.ref
            if event.asked is Asked.SUBMIT and new is not None and new != self.ref:
                self._follow(new)
        self.receive(event)

    def _follow(self, ref: RunRef) -> None:
        """Watch the run that a submit started; if the watch has finished, put its ref into the outcome."""
        self._earlier, self.ref = self.refs, ref
        if self.is_watched:
            self._host.renamed(self)
        if self.outcome is not None:
            handed = None if self.is_over else self.handed_over(self.machine.end)
            self.outcome = replace(self.outcome, ref=ref, refs=self.refs, _handed=handed)

    def handed_over(self, end: End | None) -> HandedOver | None:
        """Return what a token of the watch needs to know, if it is ours; `end` is how it finished, if it has."""
        if self.recorder is None:
            if end is not None and end.reason is Reason.TAKEN_OVER:  # it was to go on from a token
                return None
            return handed_over("", self.machine, end)
        return self.recorder.handed_over(self.machine, end)

    # Commands

    def _perform(self, command: Command, event: Event) -> None:
        host = self._host
        is_left = (host.closing and not self.is_cancelling) or not self.listeners
        if isinstance(command, do.PollAt):
            if not is_left:
                self.due_at = at = command.not_before
                if self.stream is not None:
                    at = self.stream.poll_at(at, command.if_silent)
                elif host.announcements.announced:
                    at = self._put_off(at, event)
                host.schedule.poll(self, at)
                if self._polls_again and not self.is_polling:
                    self._polls_again = False
                    self.poll_now()
            return
        if is_left and isinstance(command, do.RunTools | do.Submit):
            self.submit_dropped()  # the machine takes it for sent, so a new watch cannot resume from here
            return
        match command:
            case do.RunTools(calls):
                self._begin_answering(calls)
            case do.StopTools(approvals):
                if self._answering is not None:
                    self._answering.stop(approvals=approvals)
            case do.Submit(answers, snapshot, keep):
                self._submit_landed_at = math.inf
                request = self.client.dialect.submit(self.ref, snapshot, answers, keep_tool_choice=keep)
                if self.recorder is not None:
                    self.recorder.will_submit(answers)
                host.schedule.change(self, (request, Asked.SUBMIT))
            case do.Cancel():
                host.schedule.change(self, (self.client.dialect.cancel(self.ref), Asked.CANCEL))
            case do.Report(notice):
                self._notify(notice)
            case do.Finish(end):
                self.stop()
                self._finish(end)
            case _:
                assert_never(command)

    def _put_off(self, at: float, event: Event) -> float:
        """Return when to send the poll that is planned for this time: later, if a webhook will announce the end.

        Only a poll that showed the run at work is followed by a late one, and not if a webhook has come: a replica may
        lag behind it.
        """
        if not isinstance(event, ev.Observed) or event.asked is not Asked.POLL:
            return at
        if self._is_announced or not self._host.announcements.cover(self.ref.dialect):
            return at
        return max(at, min(event.now + SLOWER * (at - event.now), self.machine.poll_by))

    def _begin_answering(self, calls: tuple[Any, ...]) -> None:
        if self._answering is None:
            owners = (*self.owners, ANSWERING)
            self._answering = self._answerers.begin(self.receive_safely, self._notify, owners, self.context)
        if self.recorder is not None:
            self._answering.record_with(self.recorder, self.machine.policy.max_outage)
        self._answering.follow_with(self.trace)
        if self._host.group is not None:
            self._answering.begin(calls, self._host.group, facts_of(self.ref, self.machine))

    def _finish(self, end: End) -> None:
        if self.recorder is not None and end.reason in (Reason.NOT_FOUND, Reason.GONE):
            end = recorded_end(self.recorder.record, self.client) or end
        self.outcome = outcome_of(
            end,
            self.ref,
            self.refs,
            PermittedClient(self.client, self._host.permits),
            polls=self.polls,
            elapsed=loop_time() - self._started,
            at=wall_time(),
            context=self._answerers.context,
            cancel_requested=self.machine.cancel_requested,
            cancel_error=self.machine.cancel_error,
            label=self.label,
            output_type=self._answerers.output_type,
            handed=self.handed_over,
        )
        self.end_trace(self.outcome)
        if not self.listeners:  # discarded
            return
        self.is_watched = False
        self._host.ended(self)
        if self._host.is_left:
            warn_of_uncancelled(FLEET_LOG, self.outcome)
        ended = Ended(self.outcome)
        self._deliver(ended)
        if self.stream is not None:
            self.stream.finish(end, ended)
        log_outcome(FLEET_LOG, self.outcome)
        if self.is_over:
            self.listeners = ()  # frees them: the outcome keeps the member, and may wait long for a reader

    def _notify(self, notice: Notice) -> None:
        if self.trace is not None:
            self.trace.notice(notice)
        self._deliver(self.stamped(notice))
        if isinstance(notice, ConnectivityChanged):
            self._host.outages.note(self, self.ref, notice, loop_time())
        else:
            log_notice(FLEET_LOG, self.ref, notice)

    def stamped(self, event: E) -> E:
        """Return an event with the time, the ref of the run, and what the caller gave as `context=`."""
        return stamped(event, self.ref, self._answerers.context)

    def _deliver(self, event: Notice | Ended[Any]) -> None:
        then = None
        if self.recorder is not None and isinstance(event, Ended):
            then = partial(self._host.delivered, self, event.outcome)
        # An observer of the whole fleet is called once for all watches of the run.
        notified: list[tuple[Observer, str]] = []
        holds_end = self.stream is not None and isinstance(event, Ended)
        for listener in self.listeners:
            listener.deliver(event, notified, self.owners, holds_end=holds_end, then=then)

    @property
    def accepts_events(self) -> bool:
        """Whether its watch is active or can be reopened."""
        return self._host.is_running and not self.is_finished and bool(self.listeners)

    def check_accepts_events(self) -> None:
        """Check that the watch is active or can be reopened.

        Raises:
            InvalidRequestError: It has finished and cannot be reopened; or its run is not created yet.
        """
        if self.is_watched and not self.ref.ids:
            raise InvalidRequestError("The run is not created yet, or not named: await watch.created() first")
        if not self.accepts_events:
            raise InvalidRequestError(
                f"The watch of {on_one_line(str(self.ref))} has finished; submit or cancel through the client"
            )
