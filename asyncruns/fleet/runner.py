"""Does what the schedule of a fleet plans: one task plans, a few send, and all belong to one task that is owned.

The plan says what to send; in each pass of the event loop a few requests are begun, so that the loop stays free for
others. Tools, handlers and the requests are children of the owned task, however many runs there are.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final

import anyio
import anyio.abc
from msgspec.structs import replace

from asyncruns._loop import loop_time, wake
from asyncruns.errors import APIConnectionError
from asyncruns.fleet.budget import Budget
from asyncruns.fleet.member import Member
from asyncruns.fleet.newest import Newest
from asyncruns.fleet.schedule import Schedule
from asyncruns.http import Request, Response, rate_limit
from asyncruns.lifecycle import Asked, Observed, Refusal, RefusalKind, Refused, RunRef, Tick
from asyncruns.lifecycle.patience import FINAL_LOOK_S
from asyncruns.watch.observers import log
from asyncruns.watch.open_watches import LEAVING_GRACE_S
from asyncruns.watch.requests import send_for_event
from asyncruns.wire.visible import on_one_line

BEGUN_AT_ONCE: Final = 8  # requests begun in each pass of the loop, of some tenths of a millisecond each
KEPT_UNFINISHED: Final = 10_000  # of some 5 kB each; older ones have expired, mostly

Job = tuple[Member, Request | None, Asked]


class Runner:
    """The members of a fleet, and what goes on for them.

    Args:
        budget: What may be sent.
        on_end: Told of each member whose watch has ended, and when it is taken up again. Must not wait.
        keeps_unfinished: Whether who leaves may cancel runs whose watch ended before they did.

    Attributes:
        members: The runs that are watched, by their names.
        unfinished: The runs whose watch ended before they did, where these are kept; the newest.
        group: Where tools and requests run; None when the fleet does not run.
        closing: Nothing new is begun any more.
        active: How many there are; one may have several names.
        polls: How many looks were sent.
    """

    def __init__(self, budget: Budget, *, on_end: Callable[[Member], object], keeps_unfinished: bool = False) -> None:
        self.schedule: Schedule[Member] = Schedule(budget)
        self.members: dict[RunRef, Member] = {}
        self.unfinished: Newest[RunRef, Member] = Newest(
            KEPT_UNFINISHED,
            "The watches of very many runs ended before these did; leaving the fleet cancels the newest %d of them",
        )
        self._keeps_unfinished = keeps_unfinished
        self._let_go: OrderedDict[RunRef, Member] = OrderedDict()  # a submit of which is on its way, or just was
        self.group: anyio.abc.TaskGroup | None = None
        self.closing: bool = False
        self.polls: int = 0
        self.active: int = 0
        self._on_end = on_end
        self._there_at = -math.inf  # when the server last answered, if only that it takes no more
        self._waiting: asyncio.Future[None] | None = None  # of the task that plans
        self._idle: list[asyncio.Future[Job]] = []
        self._changing: dict[anyio.CancelScope, Member] = {}
        self._cut_off: list[tuple[Member, Asked]] = []  # requests whose tasks somebody cancelled
        self._leave_by = math.inf
        self._left = False
        self._has_ended = False
        self._to_cancel: list[Member] = []  # by who leaves, and has not come to these yet
        self._cancelling: list[Member] = []  # who leaves waits for these

    @property
    def is_running(self) -> bool:
        """Whether runs can be watched."""
        return self.group is not None and not self.closing

    @property
    def is_left(self) -> bool:
        """Whether somebody leaves, or has left; runs may still be cancelled then."""
        return self._left

    # The owned task

    async def run(self, begun: asyncio.Future[None]) -> None:
        """Plan and send, until `leave`.

        Safe to cancel: tools are stopped; a submit or a cancel on its way is waited for, until the time that `leave`
        gives.

        Raises:
            RuntimeError: Somebody else cancelled a task of ours, and so all that goes on here.
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
        if not self._left:
            raise RuntimeError("A task of the fleet was cancelled from outside; its runs are not watched any more")

    async def _go(self, begun: asyncio.Future[None]) -> None:
        try:
            async with anyio.create_task_group() as self.group:
                self._idle.clear()
                wake(begun)
                try:
                    await self._plan()
                    await self._end_leaving()
                finally:
                    self._close()
                self.group.cancel_scope.cancel()  # submits and cancels on their way are shielded
        finally:
            self.group = None

    def _outlasts(self) -> bool:
        """Tell whether runs are still to be cancelled, although somebody has cancelled a task of ours."""
        may_go_on = loop_time() < self._leave_by and anyio.current_effective_deadline() > -math.inf
        return self._keeps_unfinished and may_go_on and not self._has_ended

    def _go_on(self) -> None:
        """Cancel the runs, now that all that went on was cut off; answers that did not come are lost."""
        cut_off, self._cut_off = self._cut_off, []
        for member, asked in cut_off:
            cause = APIConnectionError("The request was cut off: its task was cancelled", sent=True)
            event = Refused(loop_time(), Refusal(kind=RefusalKind.LOST, cause=cause), asked)
            self.guard(member, partial(member.changed, event))
        self.leave(by=min(self._leave_by, loop_time() + LEAVING_GRACE_S), cancel=True)

    async def _plan(self) -> None:
        schedule = self.schedule
        while not self._is_done():
            self._ask_for_cancels()
            now = loop_time()
            plan = schedule.plan(now, BEGUN_AT_ONCE)
            for member in plan.ticks:
                self.guard(member, partial(member.wake, now))
            for member, (request, asked) in plan.changes:
                self._hand(member, request, asked)
            for member in plan.looks:
                self._hand(member, None, Asked.POLL)
            if plan.wake_at <= now or self._to_cancel:
                await asyncio.sleep(0)
            else:
                await self._until(plan.wake_at)

    def _is_done(self) -> bool:
        if not self._left:
            return False
        while not self._to_cancel and self._cancelling and not self._cancelling[-1].is_cancelling:
            self._cancelling.pop()
        waits = self._to_cancel or self._cancelling or self.schedule.changes or self._changing
        return not waits or loop_time() >= self._leave_by

    async def _until(self, at: float) -> None:
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

    def moved(self) -> None:
        """Plan again: something is to be done earlier, or there is room for more."""
        wake(self._waiting)

    def guard(self, member: Member, do: Callable[[], object]) -> None:
        """Do something for a member; an error that nobody expected ends its watch, and not those of the others."""
        try:
            do()
        except Exception as error:
            self.broke(member, error)

    # Requests

    def _hand(self, member: Member, request: Request | None, asked: Asked) -> None:
        """Have a request sent by a task that has nothing to do, or by a new one."""
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
                await self._look(member)
            else:
                await self._change(member, request, asked)
            self.moved()
            idle: asyncio.Future[Job] = loop.create_future()
            self._idle.append(idle)
            job = await idle

    async def _look(self, member: Member) -> None:
        look, due_at, held_back = member.look, member.due_at, loop_time() - member.due_at
        member.polls += 1
        self.polls += 1
        if member.machine.looks_once_more or member.machine.waits_for_look(loop_time()):
            self.schedule.tick(member, loop_time() + FINAL_LOOK_S)
            self.moved()
        event: Observed | Refused | None = None
        try:
            request = member.client.dialect.poll(member.ref)
            event = await send_for_event(member.client, request, Asked.POLL, self._heed)
        except Exception as error:
            self.broke(member, error)
        finally:
            self.schedule.landed(member, was_look=look == member.look)
        if isinstance(event, Refused) and self._there_at > due_at:  # the budget held the look back, not the server
            event = replace(event, held_back=max(held_back, 0.0))
        if event is not None:
            self._note(event)
            self.guard(member, partial(member.answered, event, look))

    async def _change(self, member: Member, request: Request, asked: Asked) -> None:
        if member.is_over or member.is_broken:
            self.schedule.landed(member, was_look=False)
            member.submit_landed_at = -math.inf
            return
        event: Observed | Refused | None = None
        # Who leaves the fleet meanwhile waits for the answer for some seconds: what a submit came to would be lost.
        with anyio.CancelScope(shield=True, deadline=self._leave_by) as scope:
            self._changing[scope] = member
            is_cut_off = True
            try:
                event = await send_for_event(member.client, request, asked, self._heed)
                is_cut_off = False
            except Exception as error:
                is_cut_off = False
                self.broke(member, error)
            finally:
                del self._changing[scope]
                if is_cut_off and not scope.cancel_called:
                    self._cut_off.append((member, asked))
                self.schedule.landed(member, was_look=False)
                if asked is Asked.SUBMIT and member.submit_landed_at == math.inf:
                    member.submit_landed_at = loop_time()
        if event is not None:
            self._note(event)
            self.guard(member, partial(member.changed, event))

    def broke(self, member: Member, error: Exception) -> None:
        """End the watch of a member for an error that nobody expected."""
        log.error("The watch of %s broke", on_one_line(str(member.ref)), exc_info=error)
        if not member.is_broken:
            member.broke(error)

    def _heed(self, response: Response) -> None:
        limit = rate_limit(response.headers)
        if limit is not None:
            self.schedule.budget.heard(loop_time(), limit)

    def _note(self, event: Observed | Refused) -> None:
        """Note that the server is there, if that is what the answer shows, and whether it refused a request."""
        if isinstance(event, Observed):
            self._there_at = event.now
        elif event.refusal.kind is RefusalKind.THROTTLED:
            self._there_at = event.now
            self.schedule.budget.refused(event.now, event.refusal.retry_after)

    # Members

    def find(self, ref: RunRef) -> Member | None:
        """Give the member that watches this run; or one that was let go, and knows which tools have run."""
        member = self.members.get(ref)
        if member is None:
            member = self._let_go.pop(ref, None)
            if member is None or not member.may_be_resumed:
                return None
            if member.ref != ref and member.ref not in self.members:  # another may have watched on from there
                return self.find(member.ref) or member
        return self.members.get(member.ref, member)

    def add(self, member: Member) -> None:
        """Watch one more run; it is to be told to begin then."""
        for ref in member.refs:
            self.members.setdefault(ref, member)
        self.unfinished.pop(member.ref, None)
        member.is_watched = True
        self.active += 1

    def drop(self, member: Member) -> None:
        """Watch a run no more; a submit or a cancel of it that is on its way, or waits for its turn, is sent on."""
        member.stop()
        self._forget(member)
        while self._let_go and not next(iter(self._let_go.values())).may_be_resumed:
            self._let_go.popitem(last=False)
        if member.may_be_resumed:
            self._let_go.update(dict.fromkeys(member.refs, member))
        self.moved()  # who leaves may wait for it

    def renamed(self, member: Member) -> None:
        """Know a member by its new name, too."""
        self.members[member.ref] = member

    def ended(self, member: Member) -> None:
        """Forget a member whose watch has ended."""
        self._forget(member)
        if member.is_over:
            for scope, other in self._changing.items():
                if other is member:  # the answer can change nothing any more
                    scope.cancel()
        elif self._keeps_unfinished and member.may_go_on:
            self.unfinished[member.ref] = member
            self.unfinished.let_go()
        self._on_end(member)

    def _forget(self, member: Member) -> None:
        member.is_watched = False
        self.active -= 1
        for ref in member.refs:
            if self.members.get(ref) is member:
                del self.members[ref]

    def taken_up(self, member: Member) -> None:
        """Watch a member again."""
        member.is_watched = True
        self.active += 1
        self.members.setdefault(member.ref, member)
        self.unfinished.pop(member.ref, None)
        self._on_end(member)

    # Leaving

    def leave(self, *, by: float, cancel: bool) -> None:
        """Stop watching: runs are left as they are, or cancelled, and what changes something is waited for.

        Args:
            by: When the waiting ends, by the loop's clock.
            cancel: Whether the runs that go on are to be cancelled.
        """
        self._leave_by = min(by, self._leave_by)
        for scope in self._changing:
            scope.deadline = self._leave_by
        if cancel:
            self._cancelling = list(dict.fromkeys([*self.unfinished.values(), *self.members.values()]))
        else:
            self._cancelling = [member for member in dict.fromkeys(self.members.values()) if member.is_cancelling]
            for member in set(self.members.values()).difference(self._cancelling):
                member.stop()
            self.closing = True
        self._to_cancel = self._cancelling.copy()
        self._left = True
        self.moved()

    def _ask_for_cancels(self) -> None:
        for _ in range(min(len(self._to_cancel), BEGUN_AT_ONCE)):
            member = self._to_cancel.pop()
            if member.watches and not member.is_over and not member.is_broken:
                self.guard(member, partial(member.leave, self._leave_by))

    async def _end_leaving(self) -> None:
        """End the watches whose runs could not be cancelled, each with an outcome that says so."""
        waiting, self._to_cancel = self._to_cancel, []
        for count, member in enumerate(dict.fromkeys([*waiting, *self._cancelling])):
            if member.watches and not member.is_over and not member.is_broken:
                self.guard(member, partial(member.leave, self._leave_by))
                self.guard(member, partial(member.receive, Tick(max(loop_time(), self._leave_by))))
            if count % BEGUN_AT_ONCE == BEGUN_AT_ONCE - 1:
                await asyncio.sleep(0)
        self._has_ended = True

    def _close(self) -> None:
        """Begin nothing any more; what changes something at the server is still waited for."""
        self.closing = True
        for member in self.members.values():
            member.stop()
