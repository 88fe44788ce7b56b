"""Watches a run from its create, or its ids, to its outcome: what the client and the resources offer in one call."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, TypeVar

from asyncruns._loop import admitted
from asyncruns.abc import MultiWireClient, RunClient
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.watch.open_watches import open_watches_of
from asyncruns.watch.options import WatchOptions
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.watcher import RunWatcher, cancel_unwatched

R = TypeVar("R")

log: Final = logging.getLogger("asyncruns.watch")


def create_guard_for(client: RunClient[Any], options: WatchOptions) -> CreateGuard:
    """Give what awaits the create of a run that is then to be watched with these options.

    When the caller is cancelled meanwhile, the run that comes of it is cancelled as well, where leaving its watch would
    do that; else a warning names it.
    """
    cancels = options.get("on_exit") == "cancel"

    async def late(run: Any) -> None:
        if run is None:
            return
        if cancels:
            await cancel_unwatched(client, run, options)
        else:
            ref = client.dialect.identify(run, {})
            log.warning("The caller of the run %s was cancelled while it was created; the run goes on", ref)

    def lost() -> None:
        log.warning("A caller was cancelled while its run was created, and no answer came; a run may go on")

    return CreateGuard(open_watches_of(client), late=late, lost=lost, cancels=cancels)


async def watch_to_outcome(
    client: RunClient[R] | MultiWireClient,
    run: Any,
    options: WatchOptions,
    *,
    thread_id: str | None = None,
    run_id: str | None = None,
) -> AnyOutcome[R]:
    """Watch a run to its end, in its turn; `RunWatcher` describes the arguments.

    A caller that is cancelled before its turn leaves the run like one that is cancelled later.
    """
    if isinstance(client, MultiWireClient):
        client = client.for_run(run if thread_id is None and run_id is None else None)
    watched: RunClient[R] = client

    def watcher() -> RunWatcher[R]:
        return RunWatcher(watched, run, thread_id=thread_id, run_id=run_id, **options)

    cancels = options.get("on_exit") == "cancel"
    try:
        with open_watches_of(client).beginning(cancels=cancels):
            await admitted()  # before the watcher is made, which takes a while for a thousand of them
    except asyncio.CancelledError:
        if cancels:
            async with watcher():
                raise
        raise
    async with watcher() as entered:
        outcome = await entered.wait()
    return entered.outcome or outcome  # leaving may have cancelled a run that went on
