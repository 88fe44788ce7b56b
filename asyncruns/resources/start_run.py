"""The first half of `Client.run`: what is created is checked and held as a value, and then created.

For a run: a thread if needed, a message on it, and the run; `Responses` does the same for a response. With a journal,
`recorded_start.py` does it so that another process can go on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from asyncruns.errors import APIError, InvalidRequestError
from asyncruns.http import join_path, require_id
from asyncruns.lifecycle.ledger import SUBMIT_LAG_S
from asyncruns.limits import Limits
from asyncruns.resources.adoption import is_lost
from asyncruns.resources.keyed import check_key, create_once, with_key
from asyncruns.resources.new_run import written_down
from asyncruns.resources.options import check_names
from asyncruns.resources.run_parameters import RunParameters
from asyncruns.resources.thread_lock import OnBusy, check_on_busy
from asyncruns.resources.threads import Threads
from asyncruns.tools import Toolset
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.watch.recorder import WatchRecorder
from asyncruns.wire import FunctionTool, Run, Thread
from asyncruns.wire.names import THREAD_RUN
from asyncruns.wire.shown_text import on_one_line

log: Final = logging.getLogger("asyncruns.watch")

THREAD_TRIES: Final = 2  # each lost answer may leave an orphaned thread, so few
_ANY_KEY: Final = "0" * 32
_WRITTEN_DOWN: Final = ("assistant_id", "content", "parameters", "thread_id", "on_busy", "adopt", "key")


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
            JournalError: There is a journal, and it could not be written; what comes next was not sent.
        """
        if guard.recorder is not None:
            run = await self._create_recorded(threads, guard, guard.recorder)
        elif self.thread_id is None:
            thread = await _new_thread(threads, self.content, tries=THREAD_TRIES if self.adopt else 1)
            run = await self._create(threads, thread.id, guard)
        elif self.key is None:
            await threads.messages.create(self.thread_id, content=self.content, on_busy=self.on_busy, adopt=self.adopt)
            run = await self._create(threads, self.thread_id, guard)
        else:
            run = await self._create_once(threads, self.thread_id, self.key, guard, settle=0.0)
        warn_of_unknown_tools(run, self.tools)
        return run

    def to_ask_again(self) -> dict[str, Any]:
        """Return what it takes to ask for this run again, as plain JSON.

        Raises:
            InvalidRequestError: It cannot be written down, or the run cannot carry a key, by which it would be found.
        """
        if self.thread_id is not None and self.key is None:
            try:
                check_key(_ANY_KEY, self.thread_id, self.parameters, Limits())
            except InvalidRequestError as error:
                raise InvalidRequestError(f"With a journal, a run on a thread has a key of its own. {error}") from None
        return written_down(THREAD_RUN, {name: getattr(self, name) for name in _WRITTEN_DOWN})

    @classmethod
    def asked_again(cls, creating: Mapping[str, Any], tools: Toolset | None) -> StartOfRun:
        """Return the run that a journal says was asked for.

        Raises:
            InvalidRequestError: This is not what `to_ask_again` returns; another version has written it, perhaps.
        """
        try:
            return cls(tools=tools, **{name: creating[name] for name in _WRITTEN_DOWN})
        except KeyError as error:
            raise InvalidRequestError(f"The journal does not say how to create the run: {error} is missing") from error

    async def _create_recorded(self, threads: Threads, guard: CreateGuard, recorder: WatchRecorder) -> Run:
        """Create the run as `run` does, or find what an earlier process has created of it."""
        step = recorder.record.submitting  # that process had come so far; nothing if it had not begun
        settle = SUBMIT_LAG_S if step else 0.0
        if self.thread_id is None:
            return await self._create_with_thread(threads, guard, recorder, step[-1] if step else None)
        await guard.note()
        if step or self.key is not None:
            return await self._create_once(threads, self.thread_id, self.key or recorder.key, guard, settle=settle)
        await self._message(threads, self.thread_id, recorder.key, on_busy=self.on_busy)
        return await self._with(recorder.key)._create(threads, self.thread_id, guard)

    async def _create_with_thread(
        self, threads: Threads, guard: CreateGuard, recorder: WatchRecorder, thread_id: str | None
    ) -> Run:
        """Create the run on a thread of its own, or on the one that an earlier process has created for it."""
        if thread_id is None:
            thread = await _new_thread(threads, self.content, tries=THREAD_TRIES if self.adopt else 1)
            await recorder.will_create("thread", thread.id)
            return await self._create(threads, thread.id, guard)

        def create() -> Awaitable[Run]:
            return self._create(threads, thread_id, guard)

        return await create_once(threads, thread_id, None, None, create, on_busy="raise", settle=SUBMIT_LAG_S)

    async def _create(self, threads: Threads, thread_id: str, guard: CreateGuard) -> Run:
        return await threads.runs._create_kept(
            thread_id, self.assistant_id, self.parameters, on_busy=self.on_busy, adopt=self.adopt, guard=guard
        )

    async def _create_once(
        self, threads: Threads, thread_id: str, key: str, guard: CreateGuard, *, settle: float
    ) -> Run:
        keyed = replace(self._with(key), on_busy="raise")
        return await create_once(
            threads,
            thread_id,
            key,
            lambda: self._message(threads, thread_id, key, on_busy="raise"),
            lambda: keyed._create(threads, thread_id, guard),
            on_busy=self.on_busy,
            settle=settle,
        )

    def _with(self, key: str) -> StartOfRun:
        metadata = with_key(self.parameters.get("metadata"), key)
        return replace(self, parameters={**self.parameters, "metadata": metadata})

    async def _message(self, threads: Threads, thread_id: str, key: str, *, on_busy: OnBusy) -> object:
        metadata = with_key(None, key)
        return await threads.messages.create(
            thread_id, content=self.content, metadata=metadata, on_busy=on_busy, adopt=self.adopt
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
