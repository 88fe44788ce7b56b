"""The first half of `Client.run`: what is created is checked and held as a value, and then created.

For a run: a thread if needed, a message on it, and the run; `Responses` does the same for a response.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from asyncruns.abc import RunClient
from asyncruns.errors import APIError
from asyncruns.http import join_path, require_id
from asyncruns.limits import Limits
from asyncruns.resources.adoption import is_lost
from asyncruns.resources.keyed import check_key, create_once, with_key
from asyncruns.resources.options import check_names
from asyncruns.resources.run_parameters import RunParameters
from asyncruns.resources.thread_lock import OnBusy, check_on_busy
from asyncruns.resources.threads import Threads
from asyncruns.tools import Toolset
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.wire import FunctionTool, Run, Thread
from asyncruns.wire.shown_text import on_one_line

log: Final = logging.getLogger("asyncruns.watch")

THREAD_TRIES: Final = 2  # each lost answer may leave an orphaned thread, so few


class NewRun(Struct, frozen=True):
    """A run or a response that is to be created; its arguments were checked.

    Attributes:
        client: The client that watches it.
        create: Creates it, and returns it. Safe to cancel; what was created stays, and the guard handles a run whose
            create is then pending. Raises an `APIError` if it could not be created.
    """

    client: RunClient[Any]
    create: Callable[[CreateGuard], Awaitable[Any]]


class StartOfRun(Struct, frozen=True, kw_only=True):
    """A run that is to be started on a thread; the attributes are described by `Client.run`."""

    assistant_id: str
    content: str | list[Any]
    parameters: RunParameters
    thread_id: str | None
    on_busy: OnBusy
    adopt: bool
    key: str | None
    tools: Toolset | None

    def check(self, limits: Limits | None) -> None:
        """Check the arguments before anything is sent.

        Raises:
            InvalidRequestError: One is invalid, or beyond these limits; None for no limits.
            TypeError: There is no such parameter.
        """
        check_on_busy(self.on_busy)
        require_id("assistant_id", self.assistant_id)
        if self.thread_id is not None:
            join_path(self.thread_id)
        check_names(self.parameters, RunParameters)
        if limits is not None:
            limits.check(self.parameters, tools=limits.run_tools)
        if self.key is not None:
            check_key(self.key, self.thread_id, self.parameters, limits or Limits())

    async def run(self, threads: Threads, guard: CreateGuard) -> Run:
        """Add the message to the thread, or to a new one, and start the run.

        Safe to cancel; what was created stays. The guard handles a run whose create is then pending.

        Raises:
            APIError: The thread, the message or the run could not be created.
        """
        if self.thread_id is None:
            thread = await _new_thread(threads, self.content, tries=THREAD_TRIES if self.adopt else 1)
            run = await self._create(threads, thread.id, guard)
        elif self.key is None:
            await threads.messages.create(self.thread_id, content=self.content, on_busy=self.on_busy, adopt=self.adopt)
            run = await self._create(threads, self.thread_id, guard)
        else:
            run = await self._create_once(threads, self.thread_id, self.key, guard)
        warn_of_unknown_tools(run, self.tools)
        return run

    async def _create(self, threads: Threads, thread_id: str, guard: CreateGuard) -> Run:
        return await threads.runs._create_kept(
            thread_id, self.assistant_id, self.parameters, on_busy=self.on_busy, adopt=self.adopt, guard=guard
        )

    async def _create_once(self, threads: Threads, thread_id: str, key: str, guard: CreateGuard) -> Run:
        metadata = with_key(self.parameters.get("metadata"), key)
        keyed = replace(self, parameters={**self.parameters, "metadata": metadata}, on_busy="raise")

        async def create_message() -> None:
            await threads.messages.create(
                thread_id, content=self.content, metadata=with_key(None, key), adopt=self.adopt
            )

        return await create_once(
            threads,
            thread_id,
            key,
            create_message,
            lambda: keyed._create(threads, thread_id, guard),
            on_busy=self.on_busy,
        )


async def _new_thread(threads: Threads, content: str | list[Any], *, tries: int) -> Thread:
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
