"""Takes up what a journal has of single watches: the watches that ended processes have left there.

It must not keep what it does not hand out: that is released at once, and what was never entered when the client closes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import anyio

from asyncruns.abc import Journal, RunClient
from asyncruns.errors import APIError, InvalidRequestError, JournalError
from asyncruns.lifecycle import RunRef
from asyncruns.lifecycle.records import WatchRecord, ref_of
from asyncruns.tools import Toolset
from asyncruns.watch.begin_recording import claim_to_record, with_its_tools
from asyncruns.watch.holders import let_go
from asyncruns.watch.logs import WATCH_LOG, log_unwritten, warn_of_unresumed
from asyncruns.watch.open_watches import OpenWatches, open_watches_of
from asyncruns.watch.options import WatchOptions, check_watch_options
from asyncruns.watch.recorded_end import recorded_cause
from asyncruns.watch.recorder import WatchRecorder
from asyncruns.watch.watcher import RunWatcher

TOLD_BY_FLEETS: Final = "An earlier process has recorded that it was not created: Fleet.resume() tells that"
Create = Callable[[WatchRecorder, WatchOptions], Awaitable[tuple[RunClient[Any], Any]]]
"""Creates the run of a watch that was to be created; returns the client that watches it, and the run."""


async def resumed_watchers(
    client: RunClient[Any],
    options: WatchOptions,
    context_factory: Callable[[RunRef, Any], object] | None,
    create: Create,
    toolsets: Iterable[Toolset],
) -> list[RunWatcher[Any]]:
    """Claim the watches that no living process goes on with, and return a watcher for each, not entered.

    Safe to cancel: none is owned then. `Client.resume` describes the rest.
    """
    watches = open_watches_of(client)
    if watches.journal is None:
        raise InvalidRequestError("This client has no journal to resume from: Client(journal=...)")
    check_watch_options(options)
    recorders = await claim_to_record(watches.journal)
    made: dict[str, RunWatcher[Any]] = {}

    def own_options(record: WatchRecord) -> WatchOptions:
        own: WatchOptions = {**options, "label": record.label}
        if context_factory is not None:
            own["context"] = context_factory(ref_of(record), record.label)
        return own

    async def take_up(recorder: WatchRecorder, own: WatchOptions) -> None:
        record = recorder.record
        try:
            if record.ref is None and record.outcome is not None:
                raise recorded_cause(record) or APIError(TOLD_BY_FLEETS)
            own["tools"] = with_its_tools(record, options.get("tools"), toolsets)
            watched, run = (client, record.ref) if record.ref is not None else await create(recorder, own)
            watcher: RunWatcher[Any] = RunWatcher(watched, run, **own)
        except (InvalidRequestError, APIError, JournalError) as error:
            warn_of_unresumed(WATCH_LOG, ref_of(record), error)
        else:
            watcher._take_up(recorder)
            made[recorder.key] = watcher

    try:
        given = [(recorder, own_options(recorder.record)) for recorder in recorders]
        async with anyio.create_task_group() as group:  # runs that are still to be created are created all at once
            for recorder, own in given:
                group.start_soon(take_up, recorder, own)
        watches.claimed.update({recorder.key: recorder for recorder in recorders if recorder.key in made})
    finally:
        left = [each for each in recorders if watches.claimed.get(each.key) is not each]
        await _name([each for each in left if each.record.ref is not None and not each.is_forgotten])
        await _release(watches.journal, left)
    return [made[recorder.key] for recorder in recorders if recorder.key in made]


async def release_unentered(watches: OpenWatches) -> None:
    """Leave the watches that were resumed, and never entered, to any process. Never raises."""
    claimed, watches.claimed = watches.claimed, {}
    if watches.journal is not None:
        await _release(watches.journal, claimed.values())


async def _name(recorders: Iterable[WatchRecorder]) -> None:
    """Write which runs were created for watches that are not taken up, so that they are not created again."""
    for recorder in recorders:
        try:
            await recorder.named()
        except JournalError as error:
            log_unwritten(WATCH_LOG, ref_of(recorder.record), "which run was created", error)


async def _release(journal: Journal, recorders: Iterable[WatchRecorder]) -> None:
    keys = [recorder.key for recorder in recorders]
    try:
        if keys:
            with contextlib.suppress(JournalError):  # it was closed before, and has released them then
                await journal.release(keys)
    finally:
        for recorder in recorders:
            let_go(journal, recorder.key, recorder)
