"""Creates a thread if needed, a message on it, and a run: the first half of `Client.run`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from asyncruns.errors import APIError
from asyncruns.resources.adoption import is_lost
from asyncruns.resources.run_parameters import RunParameters
from asyncruns.resources.thread_lock import OnBusy
from asyncruns.resources.threads import Threads
from asyncruns.tools import Toolset
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.wire import FunctionTool, Run, Thread
from asyncruns.wire.shown_text import on_one_line

log: Final = logging.getLogger("asyncruns.watch")

THREAD_TRIES: Final = 2  # each lost answer may leave an orphaned thread, so few


async def start_run(
    threads: Threads,
    thread_id: str | None,
    assistant_id: str,
    message: str | Iterable[Mapping[str, Any]],
    parameters: RunParameters,
    *,
    on_busy: OnBusy,
    adopt: bool,
    guard: CreateGuard,
) -> Run:
    """Add a message to a thread, or to a new one if `thread_id` is None, and start a run; see `Client.run`.

    Safe to cancel; what was created stays. The guard handles a run whose create is then pending.

    Raises:
        APIError: The thread, the message or the run could not be created.
    """
    content = message if isinstance(message, str) else list(message)  # may be sent twice: an iterator would be used up
    if thread_id is None:
        thread_id = (await _new_thread(threads, content, tries=THREAD_TRIES if adopt else 1)).id
    else:
        await threads.messages.create(thread_id, content=content, on_busy=on_busy, adopt=adopt)
    return await threads.runs._create_kept(
        thread_id, assistant_id, parameters, on_busy=on_busy, adopt=adopt, guard=guard
    )


async def _new_thread(threads: Threads, content: str | list[Mapping[str, Any]], *, tries: int) -> Thread:
    """Create a thread with a message; after a lost answer, create another one.

    No server lists threads by their metadata, so a thread whose answer was lost can't be found. But an orphaned thread
    is harmless and costs nothing, as no run is on it.

    Raises:
        APIError: The server refused the request, or all answers were lost.
    """
    while True:
        tries -= 1
        try:
            return await threads.create(messages=[{"role": "user", "content": content}])
        except APIError as error:
            if tries < 1 or not is_lost(error):
                raise


def warn_of_unknown_tools(run: Run, tools: Toolset | None) -> None:
    """Log a warning if the toolset has tools that the run was not created with: the model cannot call them."""
    if tools is None or not isinstance(run.tools, list):
        return
    known = {tool.function.name for tool in run.tools if isinstance(tool, FunctionTool)}
    unknown = [name for name in tools.names if name not in known]
    if unknown:
        log.warning(
            "The run %s does not know the tools %s, so they will not be called; create the assistant with "
            "tools=toolset.definitions()",
            on_one_line(run.id),
            ", ".join(unknown),
        )
