"""Watches a run to its outcome in one call, as `Client.watch` and the resources offer it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, TypeVar, cast

from asyncruns._loop import admitted
from asyncruns.abc import MultiWireClient, RunClient
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.watch.open_watches import open_watches_of
from asyncruns.watch.options import WatchOptions
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.recorder import WatchRecorder
from asyncruns.watch.watcher import RunWatcher, cancel_unwatched, outcome_of_watch, settle_later
from asyncruns.wire.shown_text import on_one_line

R = TypeVar("R")

log: Final = logging.getLogger("asyncruns.watch")


def create_guard_for(
    client: RunClient[Any], options: WatchOptions, recorder: WatchRecorder | None = None
) -> CreateGuard:
    """Return the guard for the create of a run that is then watched with these options.

    If the caller is cancelled before the answer to the create arrives, the run is cancelled with `on_exit="cancel"`;
    otherwise a warning names it.
    """
    cancels = options.get("on_exit") == "cancel"

    async def late(run: Any) -> None:
        if run is None:
            return
        if cancels:
            await cancel_unwatched(client, run, options)
        else:
            ref = client.dialect.identify(run, {})
            if recorder is not None:
                recorder.created(ref)
            log.warning(
                "A caller was cancelled while its run %s was created; the run goes on at the server",
                on_one_line(str(ref)),
            )

    def lost() -> None:
        log.warning("A caller was cancelled while its run was created, and no answer came; a run may go on")

    return CreateGuard(open_watches_of(client), late=late, lost=lost, cancels=cancels, recorder=recorder)


async def watch_to_outcome(
    client: RunClient[R] | MultiWireClient,
    run: Any,
    options: WatchOptions,
    *,
    thread_id: str | None = None,
    run_id: str | None = None,
    recorder: WatchRecorder | None = None,
    token: str | None = None,
) -> AnyOutcome[R]:
    """Watch a run until it ends, and return the outcome; `RunWatcher` describes the other arguments.

    Safe to cancel: the run is left as `on_exit` says, also if the watch has not begun yet.

    Args:
        recorder: What has recorded the create of the run.
    """
    if isinstance(client, MultiWireClient) and token is None:
        client = client.for_run(run if thread_id is None and run_id is None else None)
    watched = cast("RunClient[R]", client)

    def watcher() -> RunWatcher[R]:
        if token is not None:
            return RunWatcher(watched, token=token, **options)
        made: RunWatcher[R] = RunWatcher(watched, run, thread_id=thread_id, run_id=run_id, **options)
        made._created_with = recorder
        return made

    cancels = options.get("on_exit") == "cancel"
    try:
        with open_watches_of(client).beginning(cancels=cancels):
            await admitted()  # before the watcher is created: a thousand of them at once would block the loop
    except asyncio.CancelledError:
        if cancels:
            async with watcher():
                raise
        if recorder is not None:
            settle_later(recorder, recorder.settled(None, None), watched)
        raise
    return await outcome_of_watch(watcher())
