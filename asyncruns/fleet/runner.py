"""Sends what the schedule of a fleet plans: one owned task plans, and a few tasks, its children, send.

Each pass of the event loop starts only a few requests, so that the loop stays responsive for other tasks. Tools and
handlers are children of the owned task, too, however many runs there are.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from weakref import WeakSet

import anyio
import anyio.abc
from msgspec.structs import replace

from asyncruns._loop import LEAVING_GRACE_S, loop_time, wake
from asyncruns.abc import Journal
from asyncruns.errors import APIConnectionError
from asyncruns.fleet.announcements import Announcements
from asyncruns.fleet.batch_progress import BatchProgress
from asyncruns.fleet.budget import Budget
from asyncruns.fleet.collectives import Collectives
from asyncruns.fleet.creates import Creates, PendingRun
from asyncruns.fleet.member import Member
from asyncruns.fleet.member_host import Host
from asyncruns.fleet.member_stream import MemberStream
from asyncruns.fleet.outages import Outages
from asyncruns.fleet.permits import Permits
from asyncruns.fleet.records import Records
from asyncruns.fleet.roster import Roster
from asyncruns.fleet.schedule import RUNS_AT_ONCE, Schedule
from asyncruns.http import Request, Response, rate_limit
from asyncruns.lifecycle import Asked, CancelAsked, Observed, Refusal, RefusalKind, Refused, RunRef, Snapshot
from asyncruns.lifecycle.records import WatchRecord, Wish
from asyncruns.user_code.guarded_telemetry import GuardedTelemetry
from asyncruns.watch.logs import FLEET_LOG, log_poll
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.recorded_end import recorded_cause
from asyncruns.watch.requests import followed, send_for_event

BEGUN_AT_ONCE: Final = 8  # requests started in each pass of the loop, at some tenths of a millisecond each

Job = tuple[Member, Request | None, Asked]


class Runner(Host[Member]):
    """Plans and sends the requests of the members of a fleet.

    Args:
        budget: How many requests may be sent.
        on_end: Called with each member whose watch finishes or is reopened. Must not wait.
        on_begun: Called when creates of the queue have begun.
        keeps_unfinished: Whether `leave` may cancel runs whose watch finished before the run ended.
        journal: Where the watches write down what must not be lost; None for nowhere.

    Attributes:
        creates: The runs that are being created.
        roster: The members.
        records: What is still to be written into the journal; None without one.
        polls: Number of polls sent.
        collectives: The polls that show several runs.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        on_end: Callable[[Member], object],
        on_begun: Callable[[], object],
        keeps_unfinished: bool = False,
        journal: Journal | None = None,
    ) -> None:
        self.schedule: Schedule[Member] = Schedule(budget)
        self.permits: Permits = Permits(self.schedule, self.moved)
        self.creates: Creates = Creates(self, self.permits, cancels=keeps_unfinished, has_room=on_begun)
        self.roster: Roster = Roster(keeps_unfinished=keeps_unfinished)
        self.records: Records | None = None
        if journal is not None:
            self.records = Records(journal, self.roster.watched, self.creates.may_begin, self.creates.unwritten)
        self.announcements: Announcements = Announcements()
        self.collectives: Collectives = Collectives(
            self.schedule, self.roster, heed=self._heed, note=self._note, excused=self._excused
        )
        self.progress: BatchProgress = BatchProgress()
        self.outages: Outages = Outages()
        self._to_hurry: list[Member] = []  # whose polls were put off, as webhooks were to announce the ends
        self._keeps_unfinished = keeps_unfinished
        self.group: anyio.abc.TaskGroup | None = None
        self.closing: bool = False
        self.recording: GuardedTelemetry | None = None
        self.is_left: bool = False
        self.polls: int = 0
        self._on_end = on_end
        self._there_at = -math.inf  # when the server last responded, if only with a 429
        self._waiting: asyncio.Future[None] | None = None  # what the planning task waits for
        self._idle: list[asyncio.Future[Job]] = []  # sending tasks that wait for their next job
        self._changing: dict[anyio.CancelScope, Member] = {}  # submits and cancels in flight
        self._streams: WeakSet[MemberStream] = WeakSet()
        self._cut_off: list[tuple[Member, Asked]] = []  # those whose tasks were cancelled from outside
        self._leave_by = math.inf
        self._has_ended = False
        self._to_cancel: list[Member] = []  # whose cancels are still to be requested while leaving
        self._cancelling: list[Member] = []  # whose cancels leaving waits for

    # The owned task

    async def run(self, begun: asyncio.Future[None]) -> None:
        """Plan and send, until `leave`.

        Safe to cancel: tools are stopped; pending submits and cancels are waited for, until the time passed to `leave`.

        Raises:
            RuntimeError: A task of the fleet was cancelled from outside, and with it all others.
        """
        task = asyncio.current_task()
        while True:
            try:
                await self._go(begun)
            except asyncio.CancelledError:
                if task is None or not self._outlasts():
                    raise
                task.uncancel()
            else:
                if self._is_done() or not self._outlasts():
                    break
            self._go_on()
        if not self.is_left:
            raise RuntimeError("A task of the fleet was cancelled from outside; its runs are not watched any more")

    async def _go(self, begun: asyncio.Future[None]) -> None:
        try:
            async with anyio.create_task_group() as self.group:
                self._idle.clear()
                self.permits.open()
                wake(begun)
                try:
                    await self._plan(self.group)
                    await self._end_leaving()
                finally:
                    self.permits.close()
                    self._close()
                self.group.cancel_scope.cancel()  # pending submits and cancels are shielded
        finally:
            self.group = None
            for stream in list(self._streams):
                await stream.close()

    def _outlasts(self) -> bool:
        """Return whether to go on and cancel the runs, although a task of the fleet was cancelled from outside."""
        may_go_on = loop_time() < self._leave_by and anyio.current_effective_deadline() > -math.inf
        return self._keeps_unfinished and may_go_on and not self._has_ended

    def _go_on(self) -> None:
        """Cancel the runs after all tasks were cut off; responses that were pending count as lost."""
        cut_off, self._cut_off = self._cut_off, []
        for member, asked in cut_off:
            cause = APIConnectionError("The request was cut off: its task was cancelled", sent=True)
            event = Refused(loop_time(), Refusal(kind=RefusalKind.LOST, cause=cause), asked)
            member.guard(partial(member.changed, event))
        self.leave(by=min(self._leave_by, loop_time() + LEAVING_GRACE_S), cancel=True)

    async def _plan(self, group: anyio.abc.TaskGroup) -> None:
        """Make plans and hand out their requests, until the fleet has been left."""
        schedule = self.schedule
        while not self._is_done():
            self._ask_for_cancels()
            if begins_create := self._may_begin_create():
                self.creates.begin(group, BEGUN_AT_ONCE - schedule.permits)
            now = loop_time()
            self._hurry(now)
            plan = schedule.plan(now, BEGUN_AT_ONCE)
            for member in plan.ticks:
                member.guard(partial(member.wake, now))
            for member, (request, asked) in plan.changes:
                self._hand(member, request, asked)
            for member in plan.polls:
                self._hand(member, None, Asked.POLL)
            self.permits.grant(plan.permits)
            is_busy = self._to_cancel or self._to_hurry or begins_create or self._may_begin_create()
            if plan.wake_at <= now or is_busy:
                await asyncio.sleep(0)
            else:
                await self._until(min(plan.wake_at, self.announcements.wake_at))

    def _hurry(self, now: float) -> None:
        """Poll the runs at their usual pace again whose webhooks do not come any more: some runs in each pass."""
        if missing := self.announcements.stop_missing(now):
            self._to_hurry += [member for member in self.roster if member.ref.dialect in missing]
        for _ in range(min(len(self._to_hurry), RUNS_AT_ONCE)):
            self._to_hurry.pop().hurry()

    def _may_begin_create(self) -> bool:
        """Whether to begin creates: the budget has nearly caught up with those that have begun, or all are dropped."""
        if self.is_left:
            return self.creates.waiting > 0
        return self.creates.ready > 0 and self.schedule.permits < BEGUN_AT_ONCE

    def _is_done(self) -> bool:
        """Whether the fleet was left, and there is nothing more to wait for, or no more time."""
        if not self.is_left:
            return False
        while not self._to_cancel and self._cancelling and not self._cancelling[-1].is_cancelling:
            self._cancelling.pop()
        creates = self.creates.waiting or self.creates.begun
        waits = self._to_cancel or self._cancelling or self.schedule.changes or self._changing or creates
        return not waits or loop_time() >= self._leave_by

    async def _until(self, at: float) -> None:
        """Wait until a time, or until `moved` is called."""
        loop = asyncio.get_running_loop()
        at = min(at, self._leave_by)
        self._waiting = waiting = loop.create_future()
        timer = None if at == math.inf else loop.call_at(at, wake, waiting)
        try:
            await waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    # Requests

    def _hand(self, member: Member, request: Request | None, asked: Asked) -> None:
        """Hand a request to an idle task, or to a new one.

        Reusing tasks is cheaper than a new one for each request. There are never more tasks than requests that were in
        flight at once.
        """
        job = (member, request, asked)
        if self._idle:
            self._idle.pop().set_result(job)
        elif self.group is not None:
            self.group.start_soon(self._work, job)

    async def _work(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        while True:
            member, request, asked = job
            if request is None:
                await self._poll(member)
            else:
                await self._change(member, request, asked)
            self.moved()
            idle: asyncio.Future[Job] = loop.create_future()
            self._idle.append(idle)
            job = await idle

    async def _poll(self, member: Member) -> None:
        self.polls += 1
        if not await self.collectives.polled(member):
            await self._poll_alone(member)

    async def _poll_alone(self, member: Member) -> None:
        generation, due_at, now = member.generation, member.due_at, loop_time()
        event: Observed | Refused | None = None
        try:
            member.begin_poll(now)
            event = await send_for_event(member.client, member.client.dialect.poll(member.ref), Asked.POLL, self._heed)
        except Exception as error:
            member.broke(error)
        finally:
            self.schedule.landed(member, was_poll=generation == member.generation)
        if event is not None:
            self._note(event)
            if isinstance(event, Refused):
                event = self._excused(event, now, due_at)
            else:
                self.collectives.polled_alone(member)
            log_poll(FLEET_LOG, member.ref, event)
            member.polled(event, generation)

    def _excused(self, event: Refused, sent_at: float, due_at: float) -> Refused:
        """Return a refused poll with the time for which the budget held it back, while the server was up."""
        is_held_back = self._there_at > due_at
        return replace(event, held_back=max(sent_at - due_at, 0.0)) if is_held_back else event

    def companions(self, member: Member, now: float) -> list[Member]:
        """Return the other members that the poll of a member, which is sent now, is expected to show."""
        return self.collectives.companions(member, now)

    async def _change(self, member: Member, request: Request, asked: Asked) -> None:
        if member.is_finished:
            self.schedule.landed(member, was_poll=False)
            member.submit_dropped()
            return
        event: Observed | Refused | None = None
        # Shielded for some seconds when the fleet is left: without the response, it is not known whether a submit was
        # accepted.
        with anyio.CancelScope(shield=True, deadline=self._leave_by) as scope:
            self._changing[scope] = member
            is_cut_off = True
            try:
                event = await self._send_change(member, request, asked)
                is_cut_off = False
            except Exception as error:
                is_cut_off = False
                member.broke(error)
            finally:
                del self._changing[scope]
                if is_cut_off and not scope.cancel_called:
                    self._cut_off.append((member, asked))
                self.schedule.landed(member, was_poll=False)
                if asked is Asked.SUBMIT:
                    member.submit_landed(loop_time())
        if event is not None:
            self._note(event)
            log_poll(FLEET_LOG, member.ref, event)
            member.guard(partial(member.changed, event))
            if member.stream is not None and asked is Asked.SUBMIT and not scope.cancelled_caught:
                member.stream.submitted(event)

    async def _send_change(self, member: Member, request: Request, asked: Asked) -> Observed | Refused:
        send = partial(self._send_anyhow, member, request, asked)
        if member.trace is not None:
            send = partial(followed, member.trace, asked, send)
        if member.recorder is None:
            return await send()
        return await member.recorder.change(asked, send, may_be_lost=not member.client.dialect.shows_submits)

    async def _send_anyhow(self, member: Member, request: Request, asked: Asked) -> Observed | Refused:
        event = None
        if member.stream is not None and asked is Asked.SUBMIT:
            event = await member.stream.submit(request)
        return event or await send_for_event(member.client, request, asked, self._heed)

    def _heed(self, response: Response) -> None:
        limit = rate_limit(response.headers)
        if limit is not None:
            self.schedule.budget.heard(loop_time(), limit)

    def _note(self, event: Observed | Refused) -> None:
        """Note whether the response shows that the server is up, and whether it refused the request with 429."""
        if isinstance(event, Observed):
            self._there_at = event.now
        elif event.refusal.kind is RefusalKind.THROTTLED:
            self._there_at = event.now
            self.schedule.budget.refused(event.now, event.refusal.retry_after)

    # Members

    def add_member(self, member: Member, given: Snapshot[Any] | None) -> None:
        """Watch one more run, from the state of the caller's object if there is one."""
        self.roster.add(member)
        if self.records is not None:
            self.records.add(member)
        self._begin(member, given)

    def ask(self, ref: RunRef, wish: Wish) -> None:
        """Ask for something what watches a run with the journal elsewhere, if there is one. Does not wait."""
        if self.records is not None and self.group is not None:
            self.group.start_soon(self.records.ask, ref, wish)

    def resume(self, member: Member, record: WatchRecord) -> None:
        """Go on with a watch that the journal has."""
        if self.records is not None:
            self.records.take_up(member, record)
        member.resume(record.refs)
        self.roster.add(member)
        self._begin(member, None)

    def _begin(self, member: Member, given: Snapshot[Any] | None) -> None:
        self.collectives.join(member, given)
        member.begin(given)

    @property
    def is_reading(self) -> bool:
        """Whether subscribers still wait for the rest of a stream whose run has ended."""
        return any(stream.is_wanted for stream in self._streams)

    def add_create(self, pending: PendingRun, creating: dict[str, Any] | None) -> None:
        """Create a run, and watch it then.

        Args:
            pending: The run.
            creating: What a journal needs to have before; None without one.
        """
        pending.member.is_watched = True
        self.roster.add(pending.member)
        if self.records is not None and creating is not None:
            self.records.add_create(pending.member, creating)
        self.creates.add(pending, is_written=creating is None)

    def resume_create(self, pending: PendingRun, record: WatchRecord) -> None:
        """Create a run that another process was to create; or finish its watch as that has recorded."""
        member = pending.member
        member.is_watched = True
        self.roster.add(member)
        if self.records is not None:
            self.records.take_up(member, record)
        if record.outcome is None:
            self.creates.add(pending, is_written=True)
        else:
            member.not_created(recorded_cause(record), since=pending.began)

    def add_named(self, pending: PendingRun) -> None:
        """Read a stream until it names its run, or claim the watch of a token, and watch the run then."""
        pending.member.is_watched = True
        self.roster.add(pending.member)
        if self.group is not None:
            self.creates.begin_now(pending, self.group)
        else:
            self.creates.add(pending, is_written=True)

    def created(self, member: Member, run: Any) -> Member:
        """Watch a run that was created for a member; return that member, or the one that watches the run already.

        A run that was found by its `key`, or that a stream has named, may be watched already. Of a stream, `run` is the
        ref.
        """
        ref = member.client.dialect.identify(run, {})
        known, recorder = self.roster.find(ref), member.recorder
        if known is not None and not known.is_watched and recorder is not None:
            # It is only remembered, since its submit was not long ago: a token of a later round has more.
            known = None if recorder.has_outputs_beyond(known.machine.open_round(loop_time())) else known
        if known is None:
            member.ref = ref
            if recorder is not None:  # it goes on from a token, or its create is recorded
                member.resume(recorder.record.refs)
            self.roster.rename(member)
            if self.records is not None and recorder is None:
                self.records.add(member)
            elif self.records is not None and recorder is not None and recorder.record.ref is None:
                self.records.created(member)
            given = None if isinstance(run, RunRef) else member.client.dialect.snapshot(run)
            self.collectives.join(member, given)
            member.guard(lambda: member.begin(given if member.stream is None else member.stream.given))
            if member.stream is not None and member.is_watched:
                self._start(member.stream, member)
            return member
        member.successor, member.is_watched = known, False
        if self.records is not None and recorder is not None and recorder.record.ref is None:
            self.records.forget(member)
        elif self.records is not None and recorder is not None:
            self.records.claimed(known, recorder.record)
        self.roster.discard(member)
        # Not if it is of an earlier round, whose run another one has followed.
        if known.stream is None and member.stream is not None and not known.has_ended and known.ref == ref:
            known.stream = member.stream
        for listener in member.listeners:
            known.add_listener(listener)
        if not known.is_watched:
            self.add_member(known, None)
        if known.stream is not None:
            if known.stream is member.stream and known.is_watched:
                self._start(known.stream, known)
            for listener in known.listeners:
                listener.restate()  # the text so far is that of this stream now
        return known

    def _start(self, stream: MemberStream, member: Member) -> None:
        if self.group is not None:
            self._streams.add(stream)
            member.guard(partial(stream.start, member, self.group))

    def cancel_created(self, member: Member) -> None:
        """Cancel a run that was just created."""
        if self.is_left:
            self._cancelling.append(member)
            self._to_cancel.append(member)
        else:
            member.receive_from_caller(CancelAsked(loop_time()))

    def announced(self, ref: RunRef) -> bool:
        """Note a webhook about a run, and poll the run. Return whether the fleet watches it."""
        self.announcements.came(ref, loop_time())
        member = self.roster.watched(ref)
        if member is not None:
            member.announced(ref)
        return member is not None

    def discard(self, member: Member) -> None:
        """Stop watching a run; its submits and cancels that are queued or in flight are still sent."""
        member.discard()
        self.outages.forget(member)
        self.collectives.part(member)
        self.roster.discard(member)
        self.moved()  # leaving may wait for it

    def moved(self) -> None:
        """Plan again: something is due earlier, or there is room for more requests."""
        wake(self._waiting)

    def renamed(self, member: Member) -> None:
        """Add the new ref of a member; it is still found by its earlier ones."""
        self.collectives.renamed(member)
        self.roster.rename(member)

    def ended(self, member: Member) -> None:
        """Forget a member whose watch has finished."""
        self.outages.forget(member)
        self.collectives.part(member)
        self.roster.end(member)
        if not member.is_over:  # it is counted again if it is watched again
            self.progress.changed(member.machine.counts, None)
        else:
            for scope, other in self._changing.items():
                # Its response cannot change anything any more.
                if other is member and (member.stream is None or not member.stream.hasten()):
                    scope.cancel()
        if self.records is not None:
            self.records.finished(member)
        self._on_end(member)

    def delivered(self, member: Member, outcome: AnyOutcome[Any]) -> None:
        """Forget a watch whose outcome was delivered, in the journal."""
        if self.records is not None:
            self.records.delivered(member, outcome)

    def taken_up(self, member: Member) -> None:
        """Watch a member again, whose watch was reopened."""
        self.roster.take_up(member)
        self.progress.changed(None, member.machine.counts)
        self.collectives.join(member, None)
        if self.records is not None:
            self.records.reopened(member)
        self._on_end(member)

    def created_late(self, member: Member) -> None:
        """Note in the journal which run was created for a member while the fleet was left."""
        if self.records is not None:
            self.records.created(member)

    # Leaving

    def leave(self, *, by: float, cancel: bool) -> None:
        """Start to leave: runs are left as they are or cancelled, and pending submits and cancels are waited for.

        Args:
            by: When the waiting ends, by the loop's clock.
            cancel: Whether to cancel the runs that have not ended.
        """
        self._leave_by = min(by, self._leave_by)
        for scope in self._changing:
            scope.deadline = self._leave_by
        if cancel:
            self._cancelling = list(dict.fromkeys([*self.roster.unfinished.values(), *self.roster]))
        else:
            self._cancelling = [member for member in self.roster if member.is_cancelling]
            for member in set(self.roster).difference(self._cancelling):
                member.stop()
            self.closing = True
        self._to_cancel = self._cancelling.copy()
        self.is_left = True
        self.creates.leave()
        self.moved()

    def _ask_for_cancels(self) -> None:
        for _ in range(min(len(self._to_cancel), BEGUN_AT_ONCE)):
            self._to_cancel.pop().leave(self._leave_by)

    async def _end_leaving(self) -> None:
        """Finish the watches whose runs could not be cancelled, each with an outcome that says so."""
        waiting, self._to_cancel = self._to_cancel, []
        for count, member in enumerate(dict.fromkeys([*waiting, *self._cancelling])):
            member.end_leaving(self._leave_by)
            if count % BEGUN_AT_ONCE == BEGUN_AT_ONCE - 1:
                await asyncio.sleep(0)
        self._has_ended = True

    def _close(self) -> None:
        """Start nothing new; pending submits and cancels are still waited for."""
        self.closing = True
        for member in self.roster:
            member.stop()
