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
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

from msgspec.structs import replace

from asyncruns._loop import loop_time, wake
from asyncruns.abc import Journal
from asyncruns.errors import JournalError, NotOwnerError
from asyncruns.fleet.member import Member
from asyncruns.lifecycle import Asked, RunRef
from asyncruns.lifecycle.records import WatchRecord
from asyncruns.watch.logs import FLEET_LOG
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.recorder import Recorder, asked_for, hold, let_go, may_be_forgotten, record_of, refused_by

RECORDS_AT_ONCE: Final = 100  # watches in one call of the journal
UNDELIVERED_S: Final = 0.5  # an outcome is recorded if it was not delivered for this long
REWRITE_PAUSES_S: Final = (0.1, 0.5, 2.0, 10.0)  # after writes in a row that failed; the last one repeats


class Records:
    """What is still to be written into the journal of a fleet.

    Args:
        journal: The journal.
        on_added: Called with each member whose run may be created, since the journal has that it is asked for.
        on_unwritten: Called with each member whose run may not, and why. It may come again.
    """

    def __init__(
        self,
        journal: Journal,
        on_added: Callable[[Member], object],
        on_unwritten: Callable[[Member, JournalError], object],
    ) -> None:
        self._journal = journal
        self._on_added, self._on_unwritten = on_added, on_unwritten
        self._to_add: dict[str, Member] = {}
        self._to_name: dict[str, Member] = {}  # whose runs were created
        self._keys: dict[RunRef, str] = {}  # of runs that were created for a watch, which has a key of its own then
        self._refs: dict[str, RunRef] = {}  # the same, by key
        self._finished: dict[str, tuple[float, AnyOutcome[Any]]] = {}  # with the time from which to record it
        self._gone: dict[str, None] = {}  # to be forgotten
        self._to_release: dict[str, None] = {}  # to be left to any process that claims them
        self._held: set[str] = set()  # what this fleet watches, or has outcomes of
        self._open: set[str] = set()  # those of them whose watches have not finished for good
        self._news: asyncio.Future[None] | None = None
        self._new_watch: asyncio.Future[None] | None = None  # cuts a pause short
        self._tries: list[asyncio.Future[None]] = []  # each is waited for by a caller, until the next try has ended
        self._refused: dict[str, JournalError] = {}  # why watches could not be added at the last try
        self._failures = 0  # in a row
        self._is_leaving = False
        self._is_over = False

    # What happens to watches. None of this waits.

    def add(self, member: Member) -> None:
        """Add the watch of a member, if it is to be recorded."""
        if not member.is_recorded:
            return
        record = record_of(member.ref, member.label)
        self._add_record(member, replace(record, key=self._keys.get(member.ref, record.key)))

    def add_create(self, member: Member, creating: dict[str, Any]) -> None:
        """Add the watch of a member whose run is to be created, with what it takes to ask for that again."""
        self._add_record(member, asked_for(creating, member.label))

    def _add_record(self, member: Member, record: WatchRecord) -> None:
        member.recorder = Recorder(self._journal, record, self.added)
        self._to_add[record.key] = member  # what is to be forgotten of an earlier watch is written before that
        self._open.add(record.key)
        self._to_release.pop(record.key, None)
        self._refused.pop(record.key, None)
        wake(self._news)
        wake(self._new_watch)

    def take_up(self, member: Member, record: WatchRecord) -> None:
        """Go on with a watch that the journal has."""
        member.recorder = Recorder(self._journal, record)
        if record.refs:
            self._keys[record.refs[0]], self._refs[record.key] = record.key, record.refs[0]
        self._take(record.key)

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
        self._open.discard(recorder.key)
        recorder.go_on_from(record)
        member.resume(record.refs)
        self._take(record.key)
        self._end_try()

    def _take(self, key: str) -> None:
        hold(self._journal, key, self)
        self._held.add(key)
        self._open.add(key)
        self._to_release.pop(key, None)

    def _let_go(self, key: str) -> None:
        self._held.discard(key)
        if key in self._refs:
            self._keys.pop(self._refs.pop(key), None)
        let_go(self._journal, key, self)

    def finished(self, member: Member) -> None:
        """Record the outcome of a member, unless it is delivered before that is written."""
        recorder, outcome = member.recorder, member.outcome
        if recorder is not None and outcome is not None and not (recorder.is_forgotten or recorder.is_left):
            if may_be_forgotten(outcome):
                self._open.discard(recorder.key)
            self._finished.pop(recorder.key, None)  # so that the oldest comes first
            self._finished[recorder.key] = loop_time() + UNDELIVERED_S, outcome
            wake(self._news)

    def delivered(self, member: Member, outcome: AnyOutcome[Any]) -> None:
        """Forget the watch of a member, since its outcome was delivered."""
        if may_be_forgotten(outcome) and not (member.recorder is not None and member.recorder.is_left):
            self.forget(member)

    def forget(self, member: Member) -> None:
        """Forget the watch of a member."""
        if member.recorder is not None:
            member.recorder.is_forgotten = True
            key = member.recorder.key
            self._finished.pop(key, None)
            self._to_name.pop(key, None)
            if self._to_add.get(key) is member:
                del self._to_add[key]
                self._end_try()
            self._open.discard(key)
            self._gone[key] = None
            wake(self._news)

    def leave(self) -> None:
        """Leave the watches that have not finished to any process that claims them."""
        self._to_release.update(dict.fromkeys(sorted(self._open - self._gone.keys())))
        wake(self._news)

    @contextlib.contextmanager
    def resuming(self, records: list[WatchRecord]) -> Iterator[list[WatchRecord]]:
        """Take these watches up; those that were not taken up in the end are left to others."""
        try:
            yield records
        finally:
            others = (record.key for record in records if record.key not in self._held)
            self._to_release.update(dict.fromkeys(others))
            wake(self._news)

    # Waiting

    async def claim(self) -> list[WatchRecord]:
        """Return the watches that no living process goes on with; they are ours now.

        Safe to cancel: they are left to others again.
        """
        await self._write_released()  # so that what this fleet has left is among them
        return await self._journal.claim()

    async def added(self, key: str) -> None:
        """Wait until the journal has a watch. Safe to cancel.

        Raises:
            JournalError: It could not be written now; this is tried again.
            NotOwnerError: Another process watches the run.
        """
        while key in self._to_add:
            if self._is_over:
                raise JournalError(f"The fleet was left before its journal had the watch {key!r}")
            await self._next_try()
            if key in self._refused:
                raise self._refused[key]
        if key in self._refused:
            raise self._refused[key]

    async def all_added(self) -> None:
        """Wait until the journal has all watches that were added. Safe to cancel.

        Raises:
            JournalError: Some could not be written now; this is tried again.
        """
        for key in list(self._to_add):
            if key in self._to_add:
                await self.added(key)

    async def written(self) -> None:
        """Wait until nothing is left to write, since the fleet is being left. Safe to cancel."""
        self._is_leaving = True
        wake(self._news)
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
        if self._to_add or self._to_name or self._gone or self._to_release or (self._finished and self._is_leaving):
            return -math.inf
        return next(iter(self._finished.values()))[0] if self._finished else math.inf

    async def _until_due(self) -> None:
        loop = asyncio.get_running_loop()
        while (due_at := self._due_at) > loop.time():
            self._news = news = loop.create_future()
            timer = None if due_at == math.inf else loop.call_at(due_at, wake, news)
            try:
                await news
            finally:
                if timer is not None:
                    timer.cancel()
            if self._due_at == due_at < math.inf:
                return  # the timer may be early by the clock's resolution

    async def run(self) -> None:
        """Write what there is to write, until cancelled."""
        try:
            await self._run()
        finally:
            self._is_over = True
            for key in list(self._held):
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

    async def _write_gone(self) -> JournalError | None:
        gone = _some(self._gone)
        written, error = await self._each(gone, self._journal.delivered)
        for key in gone:
            self._gone.pop(key, None)
            if key not in written:
                self._gone[key] = None  # the others come first then
            elif key not in self._to_add:
                self._let_go(key)
        return error

    async def _write_new(self) -> JournalError | None:
        adding = {key: self._to_add[key] for key in _some(self._to_add)}
        for key, member in list(adding.items()):
            try:
                hold(self._journal, key, self)
                self._held.add(key)
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
            outcomes, lambda keys: self._journal.finished({key: outcomes[key].to_dict() for key in keys})
        )
        for key in outcomes:
            if self._finished.get(key) is due[key]:
                del self._finished[key]
                if key not in written:
                    self._finished[key] = loop_time() + UNDELIVERED_S, outcomes[key]
        return error

    async def _write_released(self) -> JournalError | None:
        released = [key for key in _some(self._to_release) if not self._is_unwritten(key) and key not in self._finished]
        written, error = await self._each(released, self._journal.release)
        for key in written:
            self._to_release.pop(key, None)
            self._let_go(key)
        return error

    def _is_unwritten(self, key: str) -> bool:
        return key in self._to_add or key in self._to_name

    async def _add(self, members: dict[str, Member]) -> None:
        recorders = [member.recorder for member in members.values() if member.recorder is not None]
        try:
            added = await self._journal.add([recorder.record for recorder in recorders])
        except NotOwnerError as error:
            if len(members) == 1:
                for key, member in members.items():
                    self._let_go(key)
                    self._refuse(key, member, error)
            raise
        except JournalError as error:
            self._refused.update(dict.fromkeys(members, error))
            raise
        for (key, member), recorder, record in zip(members.items(), recorders, added, strict=True):
            self._refused.pop(key, None)
            if self._to_add.get(key) is member:
                del self._to_add[key]
                recorder.go_on_from(record)
                if record.ref is None:
                    self._on_added(member)

    def _refuse(self, key: str, member: Member, error: NotOwnerError) -> None:
        if self._to_add.get(key) is member:
            del self._to_add[key]
            self._open.discard(key)
            self._refused[key] = error
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


def _some(keys: Iterable[str]) -> list[str]:
    return [key for key, _ in zip(keys, range(RECORDS_AT_ONCE), strict=False)]


async def _written(writing: Awaitable[object]) -> None:
    try:
        await writing
    except JournalError:
        raise
    except Exception as error:
        raise JournalError(f"The journal raised a {type(error).__name__}: {error}") from error
