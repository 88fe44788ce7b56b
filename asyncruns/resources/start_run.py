"""Everything up to a run: a thread, the message on it, the run."""

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
from asyncruns.wire.visible import on_one_line

log: Final = logging.getLogger("asyncruns.watch")

THREAD_TRIES: Final = 2


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
    """Put a message on a thread, a new one where none is given, and start a run on it; `Client.run` describes it.

    Safe to cancel; what was created stays. The guard takes care of a run whose create is pending then.

    Raises:
        APIError: Something could not be created.
    """
    content = message if isinstance(message, str) else list(message)  # it may be sent twice
    if thread_id is None:
        thread_id = (await _new_thread(threads, content, tries=THREAD_TRIES if adopt else 1)).id
    else:
        await threads.messages.create(thread_id, content=content, on_busy=on_busy, adopt=adopt)
    return await threads.runs._create_kept(
        thread_id, assistant_id, parameters, on_busy=on_busy, adopt=adopt, guard=guard
    )


async def _new_thread(threads: Threads, content: str | list[Mapping[str, Any]], *, tries: int) -> Thread:
    """Create a thread with a message.

    No server lists threads by their metadata, so one whose answer was lost can't be found. An orphan does nothing and
    costs nothing, as no run is on it: so another one is created.
    """
    while True:
        tries -= 1
        try:
            return await threads.create(messages=[{"role": "user", "content": content}])
        except APIError as error:
            if tries < 1 or not is_lost(error):
                raise


def warn_of_unknown_tools(run: Run, tools: Toolset | None) -> None:
    """Say so when a toolset will never be asked: the model only calls what the run was created with."""
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
