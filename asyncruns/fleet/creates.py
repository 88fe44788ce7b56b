"""Creates the runs of `Fleet.run`: a task for each create that has begun, a queue for the others.

A run must not be lost silently. If its watch is cancelled while it is being created, or the fleet is left, the answer
is awaited for at most 5 s (see `CreateGuard`); a run that was created then is cancelled if the fleet cancels its runs
on leaving, and otherwise a warning names it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol, runtime_checkable

import anyio
import anyio.abc

from asyncruns._loop import LEAVING_GRACE_S, loop_time, wake
from asyncruns.abc import RunClient, Transport
from asyncruns.errors import APIConnectionError, APIError, JournalError, NotOwnerError
from asyncruns.fleet.member import Member
from asyncruns.fleet.permits import Permits, PermittedTransport
from asyncruns.resources.new_run import NewRun
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.watch.logs import FLEET_LOG
from asyncruns.watch.open_watches import open_watches_of
from asyncruns.watch.options import SharedOptions
from asyncruns.watch.watcher import cancel_unwatched
from asyncruns.wire.shown_text import on_one_line

DROPPED_AT_ONCE: Final = 64  # creates of the queue, in one pass of the loop, when the fleet is left


@runtime_checkable
class CreatesRuns(RunClient[Any], Protocol):
    """A client that can create a run, as `Client` can."""

    def _new_run_again(self, creating: Mapping[str, Any], options: SharedOptions, once: Transport) -> NewRun:
        """Return the run that a journal says was asked for."""
        ...

    def _new_run(self, options: SharedOptions, once: Transport, **arguments: Any) -> NewRun:
        """Return the run that is to be created; `Client.run` describes the arguments."""
        ...


class CreateHost(Protocol):
    """The fleet, as its creates see it."""

    is_left: bool

    def created(self, member: Member, run: Any) -> Member:
        """Watch a run that was created for a member; return that member, or the one that watches the run already."""
        ...

    def cancel_created(self, member: Member) -> None:
        """Cancel such a run."""
        ...

    def created_late(self, member: Member) -> None:
        """Note that a run was created for a member that is not watched any more; it has the ref."""
        ...

    def moved(self) -> None:
        """Note that something has changed."""
        ...


class PendingRun:
    """A run that is to be created.

    Args:
        member: Watches it from then on.
        new: Creates it.
        sender: Sends the requests for that; None if there are none.

    Attributes:
        member: The argument of the same name; the others, too.
        task: Creates it; None if that has not begun.
        began: When `Fleet.run` was called.
        answered: Done when it was created, or will not be.
        is_cancel_asked: Whether to cancel it as soon as it is created.
        is_given_up: Whether its watch was cancelled, or the fleet left.
        late: The run, if it was created after its watch was cancelled, or the fleet left.
        is_lost: Whether it is then not known if it was created.
    """

    def __init__(self, member: Member, new: NewRun, sender: PermittedTransport | None) -> None:
        self.member: Member = member
        self.new: NewRun = new
        self.sender: PermittedTransport | None = sender
        self.task: asyncio.Task[Any] | None = None
        self.began: float = loop_time()
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_cancel_asked: bool = False
        self.is_given_up: bool = False
        self.late: Any = None
        self.is_lost: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether its run is still to be watched."""
        return self.member.is_watched and not self.is_given_up

    async def create(self, *, cancels: bool) -> Any:
        """Create the run. Safe to cancel; `late` and `is_lost` then say what has happened at the server."""

        async def keep(run: Any) -> None:
            self.late = run

        def lost() -> None:
            self.is_lost = True

        watches = open_watches_of(self.new.client)
        guard = CreateGuard(
            watches, late=keep, lost=lost, cancels=cancels, recorder=self.member.recorder, sender=self.sender
        )
        return await self.new.create(guard)


class Creates:
    """The runs of one fleet that are being created.

    Args:
        host: The fleet.
        permits: Those of the fleet.
        cancels: Whether the fleet cancels its runs when it is left.
        has_room: Called when creates of the queue have begun.
    """

    def __init__(self, host: CreateHost, permits: Permits, *, cancels: bool, has_room: Callable[[], object]) -> None:
        self._host = host
        self._permits = permits
        self._cancels = cancels
        self._has_room = has_room
        self._unwritten: OrderedDict[Member, PendingRun] = OrderedDict()  # a journal does not have them yet
        self._queue: OrderedDict[Member, PendingRun] = OrderedDict()
        self._begun: dict[Member, PendingRun] = {}

    def __iter__(self) -> Iterator[PendingRun]:
        """Iterate over the runs that are not created yet."""
        yield from (*self._unwritten.values(), *self._queue.values(), *self._begun.values())

    @property
    def waiting(self) -> int:
        """Number of creates that have not begun."""
        return len(self._unwritten) + len(self._queue)

    @property
    def ready(self) -> int:
        """Number of creates that may begin."""
        return len(self._queue)

    @property
    def begun(self) -> int:
        """Number of creates that have begun."""
        return len(self._begun)

    def add(self, pending: PendingRun, *, is_written: bool) -> None:
        """Add a create; unless it is written in a journal, it may begin only when that has it."""
        (self._queue if is_written else self._unwritten)[pending.member] = pending
        self._host.moved()

    def may_begin(self, member: Member) -> None:
        """Note that a journal has the create of a member's run."""
        pending = self._unwritten.pop(member, None)
        if pending is not None:
            self._queue[member] = pending
            self._host.moved()

    def unwritten(self, member: Member, error: JournalError) -> None:
        """Note that a journal does not take the create of a member's run; it is given up after `max_outage`."""
        pending = self._unwritten.get(member)
        if pending is None:
            return
        longest = member.machine.policy.max_outage
        if isinstance(error, NotOwnerError) or (longest is not None and loop_time() >= pending.began + longest):
            del self._unwritten[member]
            self._failed(pending, error)

    def of(self, member: Member) -> PendingRun | None:
        """Return the create of a member's run; None if there is none, or not any more."""
        return self._begun.get(member) or self._queue.get(member) or self._unwritten.get(member)

    def begin_now(self, pending: PendingRun, group: anyio.abc.TaskGroup) -> None:
        """Begin a create that needs no permit, such as one whose answer is a stream that is open already."""
        self._begun[pending.member] = pending
        # It sees the context variables of the caller.
        pending.member.context.copy().run(group.start_soon, self._create, pending)

    # The planning task

    def begin(self, group: anyio.abc.TaskGroup, at_most: int) -> None:
        """Begin the first creates of the queue; or, if the fleet is left, drop them."""
        if self._host.is_left:
            self._drop()
            return
        for _ in range(min(len(self._queue), at_most)):
            _, pending = self._queue.popitem(last=False)
            self.begin_now(pending, group)
        self._has_room()

    def _drop(self) -> None:
        for _ in range(min(self.waiting, DROPPED_AT_ONCE)):
            _, pending = (self._queue or self._unwritten).popitem(last=False)
            self._leave_to_others(pending)
            self._failed(pending, None)

    def _leave_to_others(self, pending: PendingRun) -> None:
        """Leave the create to the process that resumes what this fleet leaves, if there is a journal."""
        if pending.member.recorder is not None and not self._cancels:
            pending.member.recorder.is_left = True

    async def _create(self, pending: PendingRun) -> None:
        pending.task = asyncio.current_task()
        # The group ends by cancelling its tasks; the answer is waited for, and the fleet is told.
        with anyio.CancelScope(shield=True):
            try:
                await self._create_and_tell(pending)
            except Exception as error:  # unexpected, and it must not end the other watches
                pending.member.broke(error)
            finally:
                self._begun.pop(pending.member, None)
                wake(pending.answered)
                self._host.moved()
                stream = pending.member.stream
                if stream is not None and not stream.has_started:
                    await stream.close()

    async def _create_and_tell(self, pending: PendingRun) -> None:
        if pending.is_given_up:  # before this task has run
            await self._name_late(pending)
            await self._given_up(pending)
            return
        try:
            run = await pending.create(cancels=self._cancels)
        except asyncio.CancelledError:
            if pending.task is not None:
                pending.task.uncancel()
            await self._given_up(pending)
        except Exception as error:
            self._failed(pending, error)
        else:
            if not pending.is_wanted:  # it was given up in the same pass of the loop, say
                pending.late = run
                await self._given_up(pending)
                return
            member = self._host.created(pending.member, run)
            if pending.is_cancel_asked:
                self._host.cancel_created(member)

    async def _name_late(self, pending: PendingRun) -> None:
        """Read a stream that was given up until it names its run, for at most 5 s, if that is to be cancelled."""
        if pending.member.stream is None:
            return  # nothing was sent
        if self._cancels:
            with anyio.move_on_after(LEAVING_GRACE_S), contextlib.suppress(APIError):
                pending.late = await pending.create(cancels=True)
        pending.is_lost = pending.late is None

    def _failed(self, pending: PendingRun, error: Exception | None) -> None:
        wake(pending.answered)
        pending.member.not_created(error, since=pending.began)

    async def _given_up(self, pending: PendingRun) -> None:
        """Do what the fleet does with a run that was created although its watch was cancelled, or the fleet left."""
        if pending.late is None:
            if self._host.is_left:
                self._leave_to_others(pending)
            cause = None
            if pending.is_lost:
                what = "was being created" if pending.member.stream is None else "had not been named by its stream"
                FLEET_LOG.warning("A run %s when its watch ended, and no answer came; it may go on", what)
                cause = APIConnectionError("No answer to the create came before the fleet was left", sent=True)
            self._failed(pending, cause)
        elif self._cancels and pending.member.is_watched:
            self._host.cancel_created(self._host.created(pending.member, pending.late))
        elif self._cancels:
            await cancel_unwatched(self._permits.client(pending.new.client), pending.late)
        else:
            member = pending.member
            member.ref = pending.new.client.dialect.identify(pending.late, {})
            self._host.created_late(member)
            FLEET_LOG.warning(
                "The run %s was being created when its watch ended; it goes on at the server",
                on_one_line(str(member.ref)),
            )

    # Giving up

    def give_up(self, member: Member) -> None:
        """Create the run of a member no more; if its create was sent already, its answer is still awaited."""
        pending = self._queue.pop(member, None) or self._unwritten.pop(member, None)
        if pending is not None:
            wake(pending.answered)
            return
        pending = self._begun.get(member)
        if pending is not None and not pending.is_given_up:
            pending.is_given_up = True
            if pending.sender is not None:
                pending.sender.stop_writing()
            if pending.task is not None:
                pending.task.cancel()

    def leave(self) -> None:
        """Stop all creates that have begun, since the fleet is left; `begin` drops the others."""
        for member in list(self._begun):
            self.give_up(member)
