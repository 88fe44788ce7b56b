"""Watches the batches of a group, in a fleet of their own, and creates those that are held back as others end.

No batch is created twice for one input file while the first may go on: before the first create, and after each one that
failed, the list of batches is searched for the file, as another process may have created the batch. (Two watches of one
group at the same time may still both create a part: watch it once.)
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
from asyncruns.errors import APIError, APIStatusError, RunCancelledError
from asyncruns.fleet.fleet import Fleet
from asyncruns.fleet.watch_handle import Watch
from asyncruns.lifecycle import Reason, RunRef
from asyncruns.resources.batch_group import BatchGroup, with_part
from asyncruns.resources.batches import Batches
from asyncruns.resources.group_outcome import GroupOutcome
from asyncruns.transport.retry import PASSING_STATUSES
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.watch.options import SharedOptions, WatchOptions, check_watch_options
from asyncruns.watch.outcome import AnyOutcome, Cancelled, Completed, Failed, GaveUp
from asyncruns.watch.to_outcome import create_guard_for
from asyncruns.wire import Batch
from asyncruns.wire.common import epoch_seconds
from asyncruns.wire.shown_text import on_one_line

PAUSES_S: Final = (60.0, 120.0, 300.0, 600.0, 1200.0)
"""The pauses before further tries, while nothing of the group is left to wait for; after the last one it gives up."""
SEARCHED_BATCHES: Final = 5000  # a server may repeat its pages for ever
NO_LIST_STATUSES: Final = frozenset({404, 405})
CLOCKS_MARGIN_S: Final = 60.0  # the times of the list may come from another machine than that of the file

log: Final = logging.getLogger("asyncruns.fleet")


async def watch_group(batches: Batches, group: BatchGroup, options: WatchOptions) -> GroupOutcome:
    """Watch the batches of a group to their ends, and create those that are held back.

    Held back are parts for which `max_enqueued_tokens` has no room, and parts that failed because the server had too
    many tokens in its queue: they are created again when another part has ended, or, if there is none left to wait for,
    after 1, 2, 5, 10 and 20 minutes. So are parts whose create failed for a reason that may pass. If a part is
    cancelled, the parts that were not created then are not created at all.

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
        self._is_held = False  # nothing is created until another part ends, or a pause has passed
        self._pauses = 0  # since a part ended
        self._refusals: dict[int, APIError] = {}
        self._was_searched = False

    async def finish(self) -> GroupOutcome:
        """Watch the group until nothing is left to wait for, and return the outcome."""
        options: dict[str, Any] = {name: value for name, value in self._options.items() if name != "on_exit"}
        on_exit: Literal["cancel", "drain"] = "cancel" if self._options.get("on_exit") == "cancel" else "drain"
        try:
            async with Fleet(self._batches.alone, on_exit=on_exit, **cast("SharedOptions", options)) as fleet:
                for place in sorted(set(range(len(self._group.parts))) - set(self._waiting)):
                    self._watch(fleet, place)
                while self._running or self._waiting:
                    await self._create_what_fits(fleet)
                    await self._next_end()
        finally:
            for task in self._running:
                task.cancel()
        return GroupOutcome(group=self._group, outcomes=tuple(map(self._outcome, range(len(self._group.parts)))))

    # Creating

    async def _create_what_fits(self, fleet: Fleet[Batch]) -> None:
        while self._waiting and not self._is_held and self._has_room(self._waiting[0]):
            if self._cancelled is not None:
                error = RunCancelledError("Another part was cancelled, so this one was not created", self._cancelled)
                self._give_up_waiting(Reason.NOT_CREATED, error)
            elif self._left() == 0.0:
                self._give_up_waiting(Reason.TIMEOUT, None)
            elif not self._was_searched:
                await self._search(fleet)
            else:
                await self._create(fleet, self._waiting[0])

    def _has_room(self, place: int) -> bool:
        limit, parts = self._group.max_enqueued_tokens, self._group.parts
        if limit is None or not self._running:
            return True
        return sum(parts[running].tokens for running in self._running.values()) + parts[place].tokens <= limit

    async def _create(self, fleet: Fleet[Batch], place: int) -> None:
        try:
            batch = await self._guard.keep(self._batches._create_part(self._group, place))
        except APIError as error:
            self._note_refusal(place, error)
        else:
            self._take(fleet, place, batch)

    def _take(self, fleet: Fleet[Batch], place: int, batch: Batch) -> None:
        self._waiting.remove(place)
        self._refusals.pop(place, None)
        self._group = with_part(self._group, place, batch=batch)
        self._watch(fleet, place)

    def _note_refusal(self, place: int, error: APIError) -> None:
        """Note that a part could not be created, or that it is not known whether it was."""
        self._was_searched = False
        self._refusals[place] = error
        self._group = with_part(self._group, place, batch=self._group.parts[place].batch, error=str(error))
        if may_pass(error):
            self._is_held = True
        else:
            self._waiting.remove(place)
            self._given_up[place] = Reason.NOT_CREATED, error

    async def _search(self, fleet: Fleet[Batch]) -> None:
        """Find the batches of parts that seem not to be created, by their input files."""
        places = {self._group.parts[place].input_file_id: place for place in self._waiting}
        since = self._group.created_at - CLOCKS_MARGIN_S
        self._was_searched = True
        seen = 0
        try:
            async for batch in self._batches.list(limit=100):
                seen += 1
                place = places.pop(batch.input_file_id or "", None)  # the newest one of a file counts
                known = None if place is None else self._group.parts[place].batch
                if place is not None and (known is None or known.id != batch.id):
                    log.info("Part %d of a group was created already, as %s", place + 1, on_one_line(batch.id))
                    self._take(fleet, place, batch)
                is_older = (epoch_seconds(batch.created_at) or since) < since
                if not places or is_older or seen >= SEARCHED_BATCHES:
                    return
        except APIError as error:
            if not (isinstance(error, APIStatusError) and error.status in NO_LIST_STATUSES):
                self._note_refusal(self._waiting[0], error)

    # Watching

    def _watch(self, fleet: Fleet[Batch], place: int) -> None:
        options: SharedOptions = {} if self._until is None else {"timeout": self._left()}
        watch = self._watches[place] = fleet.watch(cast("Batch", self._group.parts[place].batch), **options)
        task = asyncio.create_task(watch.wait(), name="asyncruns part of a group")
        self._running[task] = place

    async def _next_end(self) -> None:
        """Wait until a part ends; if none is running and some wait, until the next try, or give them up."""
        if self._running:
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await self._note_end(self._running.pop(task), task.result())
        elif self._waiting and self._pauses < len(PAUSES_S):
            pause = PAUSES_S[self._pauses]
            await anyio.sleep(pause if self._until is None else min(pause, self._left()))
            self._pauses += 1
            self._is_held = False
        elif self._waiting:
            self._give_up_waiting(Reason.NOT_CREATED, None)

    async def _note_end(self, place: int, outcome: AnyOutcome[Batch]) -> None:
        if isinstance(outcome, Failed) and is_token_limit(outcome.run):
            self._waiting = sorted([*self._waiting, place])
            self._is_held = True
            return
        self._is_held, self._pauses = False, 0
        if isinstance(outcome, Cancelled):
            self._cancelled = outcome
        counts = outcome.run.request_counts if isinstance(outcome, Completed) else None
        part = self._group.parts[place]
        if self._group.delete_input_files and counts and counts.completed == part.requests:
            await self._delete(part.input_file_id)

    async def _delete(self, file_id: str) -> None:
        try:
            await self._batches._files.delete(file_id)
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


def may_pass(error: APIError) -> bool:
    """Return whether a create that failed so may succeed later."""
    return not isinstance(error, APIStatusError) or error.status in PASSING_STATUSES
