"""Watches the batches of a group, in a fleet of their own, and creates those that are held back as others end.

No batch is created twice for one input file while the first may go on: before the first create, and after each one that
failed, the list of batches is searched for the file, as another process may have created the batch. If the answer to a
create was lost, which the group keeps, and no list says whether the batch exists, the part is given up. (Two watches of
one group at the same time may still both create a part: watch it once.)
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import Any, Final, Literal, cast

import anyio
from msgspec import UNSET

from asyncruns._loop import loop_time
from asyncruns.dialects.batches import is_token_limit
from asyncruns.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    InvalidRequestError,
    NotFoundError,
    RunCancelledError,
)
from asyncruns.fleet.fleet import Fleet
from asyncruns.fleet.watch_handle import Watch
from asyncruns.lifecycle import Reason, RunRef
from asyncruns.resources.adoption import is_lost
from asyncruns.resources.batch_group import BatchGroup, with_part
from asyncruns.resources.batches import Batches
from asyncruns.resources.group_outcome import GroupOutcome
from asyncruns.resources.group_search import batches_of_files
from asyncruns.transport.retry import PASSING_STATUSES
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.watch.options import SharedOptions, WatchOptions, check_watch_options
from asyncruns.watch.outcome import AnyOutcome, Cancelled, Completed, Failed, GaveUp
from asyncruns.watch.to_outcome import create_guard_for
from asyncruns.wire import Batch
from asyncruns.wire.shown_text import on_one_line

PAUSES_S: Final = (60.0, 120.0, 300.0, 600.0, 1200.0)
"""The pauses before further tries; after the last one it gives up, unless another part is left to wait for."""
QUOTA_CODE: Final = "insufficient_quota"  # of a 429 that does not pass

log: Final = logging.getLogger("asyncruns.fleet")


async def watch_group(batches: Batches, group: BatchGroup, options: WatchOptions) -> GroupOutcome:
    """Watch the batches of a group to their ends, and create those that are held back.

    Held back are parts for which `max_enqueued_tokens` has no room, and parts that failed because the server had too
    many tokens in its queue: they are created again when another part has ended, or, if there is none left to wait for,
    after 1, 2, 5, 10 and 20 minutes. A part whose create failed for a reason that may pass is tried again after the
    same pauses, whether others run or not. If a part or the group is cancelled, the parts that were not created then
    are not created at all.

    Safe to cancel: the batches go on at the server, or are cancelled with `on_exit="cancel"`. A batch that was being
    created at that moment is found again when the group is watched again.

    Raises:
        InvalidRequestError: An option is not valid.
    """
    check_watch_options(options, whose="The watch of a group")
    return await GroupWatch(batches, group, options).finish()


class GroupWatch:
    """One watch of a group.

    Args:
        batches: The resource through which batches are created and listed.
        group: The group.
        options: Options that were checked already.
    """

    def __init__(self, batches: Batches, group: BatchGroup, options: WatchOptions) -> None:
        self._batches, self._group = batches, group
        self._began = loop_time()
        timeout = options.get("timeout", UNSET)
        self._until = self._began + timeout if isinstance(timeout, int | float) else None
        self._options = options
        self._guard: CreateGuard = create_guard_for(batches.alone, options)
        self._watches: dict[int, Watch[Batch]] = {}  # by the place of the part; the newest, if it was created again
        self._running: dict[asyncio.Task[AnyOutcome[Batch]], int] = {}
        self._waiting = [place for place, part in enumerate(group.parts) if part.batch is None]
        self._given_up: dict[int, tuple[Reason, Exception | None]] = {}
        self._cancelled: Cancelled[Batch] | None = None
        self._held: Literal["", "pause", "queue"] = ""  # nothing is created until a pause has passed, or a part ended
        self._pauses = 0  # since a part ended
        self._refusals: dict[int, Exception] = {
            place: APIConnectionError(part.error, sent=True) for place, part in enumerate(group.parts) if part.is_unsure
        }
        self._was_searched = False

    async def finish(self) -> GroupOutcome:
        """Watch the group until nothing is left to wait for, and return the outcome."""
        options: dict[str, Any] = {name: value for name, value in self._options.items() if name != "on_exit"}
        on_exit: Literal["cancel", "drain"] = "cancel" if self._options.get("on_exit") == "cancel" else "drain"
        try:
            async with Fleet(
                self._batches.alone, on_exit=on_exit, journal=None, **cast("SharedOptions", options)
            ) as fleet:
                for place in sorted(set(range(len(self._group.parts))) - set(self._waiting)):
                    batch = cast("Batch", self._group.parts[place].batch)
                    # By its id: observers must not see the status that was stored, as if it were new.
                    self._watch(fleet, place, RunRef(self._batches.alone.dialect.name, (batch.id,)))
                while self._running or self._waiting:
                    await self._create_what_fits(fleet)
                    await self._next_end()
        finally:
            for task in self._running:
                task.cancel()
        return GroupOutcome(group=self._group, outcomes=tuple(map(self._outcome, range(len(self._group.parts)))))

    # Creating

    async def _create_what_fits(self, fleet: Fleet[Batch]) -> None:
        self._heed_cancels()
        while self._waiting and not self._held and self._has_room(self._waiting[0]):
            if self._left() == 0.0:
                self._give_up_waiting(Reason.TIMEOUT, None)
            elif not self._was_searched:
                await self._search(fleet)
            else:
                await self._create(fleet, self._waiting[0])
            self._heed_cancels()

    def _heed_cancels(self) -> None:
        """Create no more parts if a part, or the group through this client, was cancelled."""
        is_cancelled = any(self._is_cancelled(place) for place in self._waiting)
        if is_cancelled or (self._waiting and self._cancelled is not None):
            which = "The group" if is_cancelled else "Another part"
            error = RunCancelledError(f"{which} was cancelled, so this one was not created", self._cancelled)
            self._give_up_waiting(Reason.NOT_CREATED, error)

    def _is_cancelled(self, place: int) -> bool:
        return self._group.parts[place].input_file_id in self._batches._cancelled_files

    def _has_room(self, place: int) -> bool:
        limit, parts = self._group.max_enqueued_tokens, self._group.parts
        if limit is None or not self._running:
            return True
        return sum(parts[running].tokens for running in self._running.values()) + parts[place].tokens <= limit

    async def _create(self, fleet: Fleet[Batch], place: int) -> None:
        try:
            batch = await self._guard.keep(self._batches._create_part(self._group, place))
        except (APIError, InvalidRequestError) as error:
            self._note_refusal(place, error)
            return
        self._take(fleet, place, batch)
        if self._is_cancelled(place):  # in the meantime, so that cancelling could not find it
            await self._cancel_created(batch)

    async def _cancel_created(self, batch: Batch) -> None:
        try:
            await self._batches._cancel_one(batch)
        except (APIError, InvalidRequestError) as error:
            state = f"The batch {on_one_line(batch.id)} was created while its group was cancelled"
            log.warning("%s, and goes on, as its own cancel failed: %s", state, error)

    def _take(self, fleet: Fleet[Batch], place: int, batch: Batch) -> None:
        self._waiting.remove(place)
        self._refusals.pop(place, None)
        self._group = with_part(self._group, place, batch=batch)
        self._watch(fleet, place, batch)

    def _note_refusal(self, place: int, error: APIError | InvalidRequestError) -> None:
        """Note that a part could not be created, or that it is not known whether it was."""
        self._was_searched = False
        self._refusals[place] = error
        is_unsure = isinstance(error, APIError) and is_lost(error)
        self._set_error(place, str(error), is_unsure=is_unsure)
        if may_pass(error):
            self._held = "pause"
        else:
            self._give_up(place, error)

    def _set_error(self, place: int, error: str, *, is_unsure: bool) -> None:
        batch = self._group.parts[place].batch
        self._group = with_part(self._group, place, batch=batch, error=error, is_unsure=is_unsure)

    def _give_up(self, place: int, error: Exception) -> None:
        self._waiting.remove(place)
        self._given_up[place] = Reason.NOT_CREATED, error

    async def _search(self, fleet: Fleet[Batch]) -> None:
        """Find the batches of parts that seem not to be created, by their input files."""
        parts = self._group.parts
        file_ids = {parts[place].input_file_id for place in self._waiting}
        try:
            found = await batches_of_files(self._batches.list, file_ids, self._group.created_at)
        except APIError as error:
            self._note_failed_search(self._waiting[0], error)
            return
        self._was_searched = True
        for place in list(self._waiting):
            newest = next(iter(found.of_files.get(parts[place].input_file_id, ())), None)
            known = parts[place].batch
            if newest is not None and (known is None or known.id != newest.id):
                log.info("Part %d of a group was created already, as %s", place + 1, on_one_line(newest.id))
                self._take(fleet, place, newest)
            elif self._group.parts[place].is_unsure and not found.is_all:
                self._give_up(place, self._refusals[place])
            elif self._group.parts[place].is_unsure:
                self._set_error(place, self._group.parts[place].error, is_unsure=False)

    def _note_failed_search(self, place: int, error: APIError) -> None:
        is_unsure = self._group.parts[place].is_unsure
        if may_pass(error):
            self._held = "pause"
            self._refusals.setdefault(place, error)
        elif is_unsure:
            self._give_up(place, self._refusals[place])
        else:
            self._set_error(place, str(error), is_unsure=False)
            self._give_up(place, error)

    # Watching

    def _watch(self, fleet: Fleet[Batch], place: int, batch: Batch | RunRef) -> None:
        options: SharedOptions = {} if self._until is None else {"timeout": self._left()}
        watch = self._watches[place] = fleet.watch(batch, **options)
        task = asyncio.create_task(watch.wait(), name="asyncruns part of a group")
        self._running[task] = place

    async def _next_end(self) -> None:
        """Wait until a part ends, or until the next try is due; if there is neither, give up those that wait."""
        pause = min(PAUSES_S[min(self._pauses, len(PAUSES_S) - 1)], self._left())
        if self._running:
            is_pausing = self._waiting and self._held == "pause"
            done, _ = await asyncio.wait(
                self._running, timeout=pause if is_pausing else None, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                self._try_again()
            for task in done:
                await self._note_end(self._running.pop(task), task.result())
        elif self._waiting and self._pauses < len(PAUSES_S):
            await anyio.sleep(pause)
            self._try_again()
        elif self._waiting:
            self._give_up_waiting(Reason.NOT_CREATED, None)

    def _try_again(self) -> None:
        self._pauses += 1
        self._held = ""

    async def _note_end(self, place: int, outcome: AnyOutcome[Batch]) -> None:
        if isinstance(outcome, Failed) and is_token_limit(outcome.run):
            self._waiting = sorted([*self._waiting, place])
            self._held = self._held or "queue"  # a pause ends sooner
            return
        self._held, self._pauses = "", 0
        if isinstance(outcome, Cancelled):
            self._cancelled = outcome
        counts = outcome.run.request_counts if isinstance(outcome, Completed) else None
        part = self._group.parts[place]
        if self._group.delete_input_files and counts and counts.completed == part.requests:
            await self._delete(part.input_file_id)

    async def _delete(self, file_id: str) -> None:
        try:
            await self._batches._files.delete(file_id)
        except NotFoundError:
            pass  # an earlier watch has deleted it
        except APIError as error:
            log.warning("The input file %s could not be deleted: %s", on_one_line(file_id), error)

    def _left(self) -> float:
        return math.inf if self._until is None else max(0.0, self._until - loop_time())

    # The outcome

    def _give_up_waiting(self, reason: Reason, cause: Exception | None) -> None:
        for place in self._waiting:
            if place not in self._watches:  # otherwise its outcome says why it failed
                self._given_up[place] = reason, self._refusals.get(place, cause)
        self._waiting.clear()

    def _outcome(self, place: int) -> AnyOutcome[Batch]:
        if place not in self._given_up:
            return cast("AnyOutcome[Batch]", self._watches[place].outcome)
        reason, cause = self._given_up[place]
        client = self._batches.alone
        return GaveUp(
            ref=RunRef(client.dialect.name, ()),
            refs=(),
            status="",
            run=None,
            polls=0,
            elapsed=loop_time() - self._began,
            at=time.time(),
            reason=reason,
            cause=cause,
            _client=client,
        )


def may_pass(error: Exception) -> bool:
    """Return whether a create that failed so may succeed later."""
    if isinstance(error, APIConnectionError):
        return error.passes
    if isinstance(error, APIStatusError):
        return error.status in PASSING_STATUSES and QUOTA_CODE not in (error.code, error.type)
    return isinstance(error, APIError)
