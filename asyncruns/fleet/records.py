"""The journal of a fleet: its watches are added, and forgotten, in batches, by one task.

Each run has one record, that of its first watch; further watches of the run share it. Nothing is forgotten before its
outcome was delivered: to a reader of the fleet, to a caller that awaits the watch, or to an observer that returned.
What could not be written is written again, after a pause; the watches go on meanwhile, but no tool runs, and nothing is
submitted, before the journal has the watch. One that cannot be written does not hold the others up. What is not watched
any more is released, so that any process may resume it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

from msgspec.structs import replace

from asyncruns._loop import loop_time, wake
from asyncruns.abc import Journal
from asyncruns.errors import JournalError, NotOwnerError
from asyncruns.fleet.member import Member
from asyncruns.lifecycle import Asked, Reason, RunRef
from asyncruns.lifecycle.records import WatchRecord, Wish, ref_of
from asyncruns.watch.begin_recording import asked_for, begun_now, check_is_free, record_of
from asyncruns.watch.handover import Token
from asyncruns.watch.holders import ask_watch, hold, holder_of, let_go
from asyncruns.watch.logs import FLEET_LOG, log_unwritten
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.recorder import WatchRecorder, gone_on_as, may_be_forgotten, refused_by

RECORDS_AT_ONCE: Final = 100  # watches in one call of the journal
UNDELIVERED_S: Final = 0.5  # an outcome is recorded if it was not delivered for this long
DELIVERED_S: Final = 0.25  # one that was delivered is forgotten after at most this long, with others
TIMER_GRAIN_S: Final = 0.001
REWRITE_PAUSES_S: Final = (0.1, 0.5, 2.0, 10.0)  # after writes in a row that failed; the last one repeats


class Records:
    """What is still to be written into the journal of a fleet.

    Args:
        journal: The journal.
        find: Returns the member that watches a run, or None.
        on_added: Called with each member whose run may be created, since the journal has that it is asked for.
        on_unwritten: Called with each member whose run may not, and why. It may come again.

    Attributes:
        journal: The argument of the same name.
    """

    def __init__(
        self,
        journal: Journal,
        find: Callable[[RunRef], Member | None],
        on_added: Callable[[Member], object],
        on_unwritten: Callable[[Member, JournalError], object],
    ) -> None:
        self.journal: Journal = journal
        self._find = find
        self._on_added, self._on_unwritten = on_added, on_unwritten
        self._to_add: dict[str, Member] = {}
        self._to_name: dict[str, Member] = {}  # whose runs were created
        self._keys: dict[RunRef, str] = {}  # of runs that were created for a watch, which has a key of its own then
        self._refs: dict[str, RunRef] = {}  # the same, by key
        self._finished: dict[str, tuple[float, AnyOutcome[Any]]] = {}  # with the time from which to record it
        self._gone: dict[str, None] = {}  # to be forgotten
        self._gone_at = math.inf  # when to do that
        self._to_release: dict[str, None] = {}  # to be left to any process that claims them
        self._held: dict[str, Member] = {}  # whose watches the journal has for this fleet, also with outcomes
        self._news: asyncio.Future[None] | None = None
        self._sleeps_until = -math.inf  # when what is due is written next, if there is no news before
        self._new_watch: asyncio.Future[None] | None = None  # cuts a pause short
        self._tries: list[asyncio.Future[None]] = []  # each is waited for by a caller, until the next try has ended
        self._failures = 0  # in a row
        self._is_leaving = False
        self._is_over = False

    # What happens to watches. None of this waits.

    def add(self, member: Member, record: WatchRecord | None = None) -> None:
        """Add the watch of a member, if it is to be recorded; one that the journal still has goes on there.

        Args:
            member: The member.
            record: What it goes on from; by default it begins.
        """
        if not member.is_recorded:
            return
        if member.recorder is not None and self._is_current(member):
            self._finished.pop(member.recorder.key, None)
            return
        if record is None:
            record = record_of(member.ref, member.label, member.tools)
            record = replace(record, key=self._keys.get(member.ref, record.key))
        self._add_record(member, record)

    def add_create(self, member: Member, creating: dict[str, Any]) -> None:
        """Add the watch of a member whose run is to be created, with what it takes to ask for that again."""
        self._add_record(member, asked_for(creating, member.label, member.tools))

    def _add_record(self, member: Member, record: WatchRecord) -> None:
        member.recorder = WatchRecorder(self.journal, record, self.added)
        self._to_add[record.key] = member  # what is to be forgotten of an earlier watch is written before that
        self._to_release.pop(record.key, None)
        wake(self._news)
        wake(self._new_watch)

    def take_up(self, member: Member, record: WatchRecord) -> None:
        """Go on with a watch that the journal has."""
        self._take(record.key, member)
        member.recorder = WatchRecorder(self.journal, record)
        if record.refs:
            self._keys[record.refs[0]], self._refs[record.key] = record.key, record.refs[0]

    def created(self, member: Member) -> None:
        """Note which run was created for a member."""
        recorder = member.recorder
        if recorder is not None and not recorder.is_forgotten:
            recorder.created(member.ref)
            self._to_name[recorder.key] = member
            self._keys[member.ref], self._refs[recorder.key] = recorder.key, member.ref
            wake(self._news)

    def claimed(self, member: Member, record: WatchRecord) -> None:
        """Go on with a watch that was claimed, if its run is watched already, and this was not written yet."""
        recorder = member.recorder
        if recorder is None or self._to_add.get(recorder.key) is not member:
            return
        del self._to_add[recorder.key]
        recorder.go_on_from(record)
        member.resume(record.refs)
        self._take(record.key, member)
        self._end_try()

    def reopened(self, member: Member) -> None:
        """Add the watch of a member again that was forgotten when its outcome was delivered, and was reopened."""
        if member.recorder is not None and member.recorder.is_forgotten and not self._is_leaving:
            self.add(member)

    def _take(self, key: str, member: Member) -> None:
        hold(self.journal, key, self)
        self._held[key] = member
        self._to_release.pop(key, None)

    def _let_go(self, key: str) -> None:
        if not self._is_leaving:  # otherwise its outcome may still be delivered
            self._held.pop(key, None)
        if key in self._refs:
            self._keys.pop(self._refs.pop(key), None)
        let_go(self.journal, key, self)

    def _is_current(self, member: Member) -> bool:
        """Return whether the record of a member is its own: not forgotten, nor that of a later watch of the run."""
        if member.recorder is None or member.recorder.is_forgotten:
            return False
        return (self._to_add.get(member.recorder.key) or self._held.get(member.recorder.key)) is member

    def finished(self, member: Member) -> None:
        """Record the outcome of a member, unless it is delivered before that is written."""
        recorder, outcome = member.recorder, member.outcome
        is_left = recorder is not None and recorder.is_left
        if recorder is not None and outcome is not None and outcome.reason is Reason.TAKEN_OVER:
            if self._held.get(recorder.key) is member:
                self._let_go(recorder.key)  # it is not ours any more
        elif recorder is not None and outcome is not None and not is_left and self._is_current(member):
            self._finished.pop(recorder.key, None)  # so that the oldest comes first
            self._finished[recorder.key] = loop_time() + UNDELIVERED_S, outcome
            self._wake_by(loop_time() + UNDELIVERED_S)

    def delivered(self, member: Member, outcome: AnyOutcome[Any]) -> None:
        """Forget the watch of a member, since its outcome was delivered; not if it was reopened after that."""
        is_last = not member.is_watched and member.outcome is not None and member.outcome.at == outcome.at
        is_left = member.recorder is not None and member.recorder.is_left
        if is_last and not is_left and may_be_forgotten(outcome):
            self.forget(member)

    def forget(self, member: Member) -> None:
        """Forget the watch of a member, unless a later watch of its run has taken its place."""
        if member.recorder is not None and self._is_current(member):
            member.recorder.is_forgotten = True
            key = member.recorder.key
            self._finished.pop(key, None)
            self._to_name.pop(key, None)
            if self._to_add.pop(key, None) is not None:
                self._end_try()
            if not self._gone:
                self._gone_at = loop_time() + DELIVERED_S
                self._wake_by(self._gone_at)
            self._gone[key] = None

    def leave(self) -> None:
        """Leave the watches, and the outcomes that were not delivered, to any process that claims them."""
        self._is_leaving = True
        self._to_release.update(dict.fromkeys(key for key in (*self._held, *self._to_add) if key not in self._gone))
        wake(self._news)

    def grant(self, wish: Wish, run: str | RunRef) -> bool:
        """Do what is asked of the watch with this key, or of this run; return False if it is not watched."""
        member = self._held.get(run) if isinstance(run, str) else self._find(run)
        if member is None or not (member.is_watched or (wish is Wish.CANCEL and member.accepts_events)):
            return False
        member.grant(wish)
        return True

    async def ask(self, ref: RunRef, wish: Wish) -> None:
        """Ask what watches a run with this journal, in another process or in this one, for something. Never raises."""
        try:
            await ask_watch(self.journal, ref, wish)
        except Exception as error:
            log_unwritten(FLEET_LOG, ref, f"what was asked of another process ({wish.value})", error)

    @contextlib.asynccontextmanager
    async def resuming(self, records: list[WatchRecord]) -> AsyncIterator[list[WatchRecord]]:
        """Take these watches up; those that were not taken up in the end are left to others."""
        try:
            yield records
        finally:
            others = (record.key for record in records if record.key not in self._held)
            self._to_release.update(dict.fromkeys(others))
            wake(self._news)
            if self._is_over:  # the fleet was left in the meantime
                await self._write_released()

    # Waiting

    async def claim(self) -> list[WatchRecord]:
        """Return the watches that no living process goes on with; they are ours now.

        Those that something else in this process watches are left to that. Safe to cancel: they are left to others
        again.
        """
        await self._write_released()  # so that what this fleet has left is among them
        claimed = await self.journal.claim()
        return [record for record in claimed if holder_of(self.journal, record.key) in (None, self)]

    async def go_on(self, member: Member, token: Token) -> None:
        """Go on with a watch that a token names, whose member does not watch yet. Safe to cancel: it is not claimed.

        Raises:
            NotOwnerError: A living process has it, or something else in this one, or it was delivered or forgotten.
            JournalError: The journal could not be read or written.
        """
        record = None if token.key else begun_now(token.record or record_of(token.ref, None), member.tools)
        other = self._held.get(token.key)
        if other is not None and not other.is_watched:  # it has finished in this fleet
            kept = replace(record_of(token.ref, other.label), key=token.key)
            record = begun_now(token.record or kept, member.tools)
            self.add(member, record)
            await self._added_now(member, token.key)
            return
        if record is None:
            await self._write_released()
            claimed = await self.journal.claim([token.key])
            if claimed:
                self.take_up(member, claimed[0])
                return
            record = await check_is_free(self.journal, token, member.tools)
        self.add(member, record)

    async def _added_now(self, member: Member, key: str) -> None:
        """Wait until the journal has the watch of a member; it is not tried again if that fails."""
        try:
            if member.recorder is not None:
                await self.added(member.recorder)
        finally:
            if self._to_add.get(key) is member:
                del self._to_add[key]

    async def added(self, recorder: WatchRecorder) -> None:
        """Wait until the journal has the watch of this recorder. Safe to cancel.

        Raises:
            JournalError: It could not be written now; this is tried again.
            NotOwnerError: Another process watches the run.
        """
        while recorder.key in self._to_add:
            if self._is_over:
                raise JournalError(f"The fleet was left before its journal had the watch {recorder.key!r}")
            await self._next_try()
            _check_is_taken(recorder)
        _check_is_taken(recorder)

    async def all_added(self) -> None:
        """Wait until the journal has all watches that were added. Safe to cancel.

        One of a run that another process watches is not added: its outcome says so.

        Raises:
            JournalError: Some could not be written now; this is tried again.
        """
        for key, member in list(self._to_add.items()):
            if self._to_add.get(key) is member and member.recorder is not None:
                with contextlib.suppress(NotOwnerError):
                    await self.added(member.recorder)

    async def written(self) -> None:
        """Wait until nothing is left to write, since the fleet is being left. Safe to cancel."""
        while self._due_at < math.inf:
            await self._next_try()

    async def _next_try(self) -> None:
        tried: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tries.append(tried)
        await tried

    # Writing

    @property
    def _due_at(self) -> float:
        """When there is something to write; infinity if nothing is left."""
        is_waiting = self._to_add or self._to_name or self._to_release
        if is_waiting or (self._is_leaving and (self._gone or self._finished)):
            return -math.inf
        recorded_at = next(iter(self._finished.values()))[0] if self._finished else math.inf
        return min(recorded_at, self._gone_at) if self._gone else recorded_at

    def _wake_by(self, due_at: float) -> None:
        """Do not sleep longer than this; each run of a fleet would wake it twice otherwise."""
        if due_at < self._sleeps_until or self._is_leaving:
            wake(self._news)

    async def _until_due(self) -> None:
        loop = asyncio.get_running_loop()
        while (due_at := self._due_at) > loop.time():
            self._news = news = loop.create_future()
            self._sleeps_until = due_at
            timer = None if due_at == math.inf else loop.call_at(due_at, wake, news)
            try:
                await news
            finally:
                if timer is not None:
                    timer.cancel()
            if due_at - loop.time() < TIMER_GRAIN_S:
                return  # the timer may be early by the clock's resolution

    async def run(self) -> None:
        """Write what there is to write, until cancelled."""
        try:
            await self._run()
        finally:
            self._is_over = True
            self._is_leaving = True
            for key in self._held:
                self._let_go(key)
            self._end_try()

    async def _run(self) -> None:
        while True:
            await self._until_due()
            try:
                await self.write()
                self._failures = 0
            except JournalError as error:
                if self._failures == 0:
                    FLEET_LOG.warning("The journal of a fleet could not be written, which is tried again: %s", error)
                self._failures += 1
            finally:
                self._end_try()
            if self._failures:
                await self._pause(REWRITE_PAUSES_S[min(self._failures, len(REWRITE_PAUSES_S)) - 1])

    async def _pause(self, seconds: float) -> None:
        """Wait until what failed is tried again; a new watch does not wait for that."""
        self._new_watch = asyncio.get_running_loop().create_future()
        await asyncio.wait({self._new_watch}, timeout=seconds)

    def _end_try(self) -> None:
        tries, self._tries = self._tries, []
        for tried in tries:
            wake(tried)

    async def write(self) -> None:
        """Write some of what there is to write. Safe to cancel.

        Raises:
            JournalError: It could not be written; it is kept.
        """
        errors = [
            await self._write_gone(),
            await self._write_new(),
            await self._write_named(),
            await self._write_outcomes(),
            await self._write_released(),
        ]
        failures = [error for error in errors if error is not None]
        if failures:
            raise failures[0]

    async def write_delivered(self) -> None:
        """Forget the watches whose outcomes were delivered after the fleet was left. Safe to cancel.

        Raises:
            JournalError: It could not be written.
        """
        while self._gone:
            error = await self._write_gone()
            if error is not None:
                raise error

    async def _write_gone(self) -> JournalError | None:
        gone = _some(self._gone)
        ours = [key for key in gone if self._holds(key)]  # the others are watched by something else by now
        written, error = await self._each(ours, self._forgotten)
        for key in gone:
            self._gone.pop(key, None)
            if key in ours and key not in written:
                self._gone[key] = None  # the others come first then
            if self._is_over or (key not in self._gone and key not in self._to_add):
                self._let_go(key)
        if len(self._gone) < RECORDS_AT_ONCE:
            self._gone_at = loop_time() + DELIVERED_S
        return error

    def _holds(self, key: str) -> bool:
        with contextlib.suppress(NotOwnerError):
            hold(self.journal, key, self)
            return True
        return False

    async def _forgotten(self, keys: list[str]) -> None:
        if self._is_leaving:  # they may have been left to others
            await self.journal.claim(keys)
        await self.journal.delivered(keys)

    async def _write_new(self) -> JournalError | None:
        adding = {key: self._to_add[key] for key in _some(key for key in self._to_add if key not in self._gone)}
        for key, member in list(adding.items()):
            other = self._held.get(key)
            try:
                if other is not None and other is not member and other.is_watched:
                    raise gone_on_as(member.ref, other.ref)
                hold(self.journal, key, self)
                self._held[key] = member
            except NotOwnerError as not_ours:
                self._refuse(key, member, not_ours)
                del adding[key]
        written, error = await self._each(adding, lambda keys: self._add({key: adding[key] for key in keys}))
        for key, member in adding.items():
            if key not in written and self._to_add.get(key) is member:
                self._to_add[key] = self._to_add.pop(key)
                if error is not None and not member.ref.ids:
                    self._on_unwritten(member, error)
        return error

    async def _write_named(self) -> JournalError | None:
        naming = {key: self._to_name[key] for key in _some(self._to_name)}
        recorders = [member.recorder for member in naming.values() if member.recorder is not None]
        results = await asyncio.gather(*(recorder.named() for recorder in recorders), return_exceptions=True)
        failure = None
        for (key, member), error in zip(naming.items(), results, strict=True):
            if isinstance(error, BaseException) and not isinstance(error, JournalError):
                raise error
            if self._to_name.get(key) is not member:
                continue
            if isinstance(error, NotOwnerError):
                self.forget(member)  # the run has another watch
                member.receive_safely(refused_by(error, Asked.POLL))
            elif error is None:
                del self._to_name[key]
            else:
                self._to_name[key] = self._to_name.pop(key)
                failure = failure or error
        return failure

    async def _write_outcomes(self) -> JournalError | None:
        now = loop_time() + (math.inf if self._is_leaving else 0.1)
        due = {key: self._finished[key] for key in _some(self._finished) if self._finished[key][0] <= now}
        outcomes = {key: outcome for key, (_, outcome) in due.items() if not self._is_unwritten(key)}
        written, error = await self._each(
            outcomes, lambda keys: self.journal.finished({key: outcomes[key].to_dict() for key in keys})
        )
        for key in outcomes:
            if self._finished.get(key) is due[key]:
                del self._finished[key]
                if key not in written:
                    self._finished[key] = loop_time() + UNDELIVERED_S, outcomes[key]
        return error

    async def _write_released(self) -> JournalError | None:
        released = [key for key in _some(self._to_release) if not self._is_unwritten(key) and key not in self._finished]
        written, error = await self._each(released, self.journal.release)
        for key in written:
            self._to_release.pop(key, None)
            self._let_go(key)
        return error

    def _is_unwritten(self, key: str) -> bool:
        return key in self._to_add or key in self._to_name

    async def _add(self, members: dict[str, Member]) -> None:
        recorders = [member.recorder for member in members.values() if member.recorder is not None]
        try:
            added = await self.journal.add([recorder.record for recorder in recorders])
        except NotOwnerError as error:
            if len(members) == 1:
                for key, member in members.items():
                    record = await self._earlier_of(member) or await self._left(member, error)
                    if self._held.get(key) is member:
                        self._let_go(key)
                    if record is not None:
                        self.claimed(member, record)
                        return
                    self._refuse(key, member, error)
                return
            raise
        except JournalError as error:
            for recorder in recorders:
                recorder.refused = error
            raise
        for (key, member), recorder, record in zip(members.items(), recorders, added, strict=True):
            recorder.refused = None
            if self._to_add.get(key) is not member:
                continue
            if record.ref not in (None, recorder.record.ref):
                if self._held.get(key) is member:  # not if `resume` has taken it up meanwhile
                    del self._held[key]
                    self._to_release[key] = None
                self._refuse(key, member, gone_on_as(member.ref, ref_of(record)))
                continue
            del self._to_add[key]
            recorder.go_on_from(record)
            if record.ref is None and member.ref.ids:
                self.created(member)
            elif record.ref is None:
                self._on_added(member)

    async def _earlier_of(self, member: Member) -> WatchRecord | None:
        """Return what the journal has of an earlier watch of this fleet, which has finished with the same run."""
        found = (key for key, other in self._held.items() if other.ref == member.ref and not other.is_watched)
        key = next(found, None)
        if key is not None and member.recorder is not None:
            with contextlib.suppress(NotOwnerError):
                (record,) = await self.journal.add([replace(member.recorder.record, key=key)])
                return record
        return None

    async def _left(self, member: Member, error: NotOwnerError) -> WatchRecord | None:
        """Return the watch of a member's run, if no process goes on with it; it is ours now."""
        if member.recorder is None:
            return None
        for record in await self.journal.claim([error.watch or member.recorder.key]):
            if record.ref == member.ref:
                return record
            await self.journal.release([record.key])
        return None

    def _refuse(self, key: str, member: Member, error: NotOwnerError) -> None:
        if self._to_add.get(key) is member:
            del self._to_add[key]
            if member.recorder is not None:
                member.recorder.refused = error
            if member.ref.ids:
                member.receive_safely(refused_by(error, Asked.POLL))
            else:
                self._on_unwritten(member, error)

    async def _each(
        self, keys: Iterable[str], write: Callable[[list[str]], Awaitable[object]]
    ) -> tuple[list[str], JournalError | None]:
        """Write these watches in one call; or each by itself if that fails, since one may be at fault.

        Returns:
            Those that were written, or are not ours any more; and why others were not.
        """
        listed = list(keys)
        if not listed:
            return [], None
        try:
            await _written(write(listed))
        except NotOwnerError:
            if len(listed) == 1:
                return listed, None
        except JournalError as error:
            if len(listed) == 1:
                return [], error
        else:
            return listed, None
        done, failure = [], None
        for key in listed:
            written, error_of_one = await self._each([key], write)
            done += written
            failure = failure or error_of_one
        return done, failure


def _check_is_taken(recorder: WatchRecorder) -> None:
    """Check that the journal did not refuse a watch at the last try; the error there is kept, so another is raised."""
    if (error := recorder.refused) is not None:
        raise (NotOwnerError if isinstance(error, NotOwnerError) else JournalError)(str(error)) from error.__cause__


def _some(keys: Iterable[str]) -> list[str]:
    return [key for key, _ in zip(keys, range(RECORDS_AT_ONCE), strict=False)]


async def _written(writing: Awaitable[object]) -> None:
    try:
        await writing
    except JournalError:
        raise
    except Exception as error:
        raise JournalError(f"The journal raised a {type(error).__name__}: {error}") from error
