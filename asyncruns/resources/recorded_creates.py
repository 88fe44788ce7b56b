"""Creates a run, and watches it to its outcome: the whole of `Client.run`, with a journal or without.

With a journal, nothing is sent before that has what it takes to ask again.
"""

from __future__ import annotations

import asyncio
from typing import Any

from asyncruns.errors import JournalError
from asyncruns.resources.new_run import NewRun
from asyncruns.watch.begin_recording import check_label, recorder_of_create
from asyncruns.watch.open_watches import open_watches_of
from asyncruns.watch.options import WatchOptions
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.recorder import WatchRecorder
from asyncruns.watch.to_outcome import create_guard_for, watch_to_outcome
from asyncruns.watch.watcher import settle_later


async def run_to_outcome(new: NewRun, options: WatchOptions) -> AnyOutcome[Any]:
    """Create a run, watch it until it ends, and return the outcome; `Client.run` describes the options.

    Safe to cancel: see `Client.run`. With a journal, a create that was begun then is left to `resume`, unless `on_exit`
    is "cancel".

    Raises:
        JournalError: The journal could not be written, and nothing was sent.
        NotOwnerError: The run, found by its key, has another watch.
        APIError: The run could not be created.
    """
    journal = open_watches_of(new.client).journal
    if journal is None or options.get("observe_only") or new.to_ask_again is None:
        run = await new.create(create_guard_for(new.client, options))
        return await watch_to_outcome(new.client, run, options)
    check_label(options.get("label"))
    recorder = recorder_of_create(journal, new.to_ask_again(), options.get("label"), options.get("tools"))
    run = await _created(new, options, recorder)
    recorder.created(new.client.dialect.identify(run, {}))
    return await watch_to_outcome(new.client, run, options, recorder=recorder)


async def _created(new: NewRun, options: WatchOptions, recorder: WatchRecorder) -> Any:
    try:
        await _added(recorder)
        return await new.create(create_guard_for(new.client, options, recorder))
    except asyncio.CancelledError:
        cancels = options.get("on_exit") == "cancel"
        settle_later(recorder, recorder.abandon() if cancels else recorder.settled(None, None), new.client)
        raise
    except Exception:
        await recorder.abandon()
        raise


async def _added(recorder: WatchRecorder) -> None:
    try:
        await recorder.add()
    except JournalError as error:
        raise type(error)(f"Nothing was sent, as it could not be written down before: {error}") from error
