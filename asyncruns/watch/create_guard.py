"""Awaits the requests that create a run, so that a run is not lost when its caller is cancelled in between."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from asyncruns._loop import ENDING_GRACE_S, LEAVING_GRACE_S, joined, loop_time
from asyncruns.errors import APIConnectionError, APIStatusError
from asyncruns.watch.open_watches import OpenWatches
from asyncruns.watch.recorder import WatchRecorder

T = TypeVar("T")

log: Final = logging.getLogger("asyncruns.watch")


class SendsLater(Protocol):
    """Sends requests when a budget allows."""

    def write_first(self, write: Callable[[], Awaitable[object]]) -> None:
        """Call this once, directly before the next request that changes something."""
        ...


class CreateGuard:
    """Awaits a request that creates a run; a caller that is cancelled still waits for the answer, for at most 5 s.

    Args:
        watches: The open watches of the client.
        late: Called with the run, when its answer arrived after the caller was cancelled; with None when the answer
            says that no run was created.
        lost: Called when the caller was cancelled, and it is not known whether a run was created.
        cancels: Whether `late` cancels the run, so that closing the client must wait for the answer.
        recorder: Notes in a journal how far the create has come; None without one. An attribute, too.
        sender: Sends the requests later, as a budget allows; None if they are sent at once.
    """

    def __init__(
        self,
        watches: OpenWatches,
        *,
        late: Callable[[Any], Awaitable[object]],
        lost: Callable[[], object],
        cancels: bool,
        recorder: WatchRecorder | None = None,
        sender: SendsLater | None = None,
    ) -> None:
        self._watches = watches
        self._late, self._lost = late, lost
        self._cancels = cancels
        self.recorder: WatchRecorder | None = recorder
        self._sender = sender

    async def note(self) -> None:
        """Note in the journal, if there is one, that the create is about to be sent. Safe to cancel.

        Raises:
            JournalError: It could not be written. The request that comes next raises it if that is sent later.
        """
        if self.recorder is None:
            return
        if self._sender is None:
            await self.recorder.will_create("create")
        else:
            self._sender.write_first(partial(self.recorder.will_create, "create"))

    async def keep(self, create: Coroutine[Any, Any, T], find: Callable[[], Coroutine[Any, Any, T]] | None = None) -> T:
        """Send a request, and return its answer.

        Safe to cancel: the answer is awaited for at most 5 s and passed to `late`, or `lost` is called; `late` then has
        as long as leaving a watch.

        Args:
            create: Sends the request.
            find: Looks up what was created if the request itself is cut off, as at the end of `asyncio.run`; None if
                that is not possible.
        """
        task = asyncio.create_task(create, name="asyncruns create")
        with self._watches.beginning(cancels=self._cancels) as watch:
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                by = loop_time() + LEAVING_GRACE_S
                # 5 s for the answer, then 5 s + 2.5 s for `late`, which may leave a watch of the run.
                watch.extend_to(by + LEAVING_GRACE_S + ENDING_GRACE_S)
                with contextlib.suppress(asyncio.CancelledError):  # the caller may be cancelled more than once
                    await joined(task, by=by)
                if task.cancelled() and find is not None and loop_time() < by:
                    task = asyncio.create_task(find(), name="asyncruns find")
                    with contextlib.suppress(asyncio.CancelledError):
                        await joined(task, by=by)
                try:
                    await self._report(task)
                except Exception:
                    log.exception(
                        "A caller was cancelled while its run was created, and handling the run then failed; it may go "
                        "on at the server"
                    )
                raise
            return task.result()

    async def _report(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._lost()
        elif (error := task.exception()) is None:
            await self._late(task.result())
        elif not _had_no_effect(error):
            self._lost()


def _had_no_effect(error: BaseException) -> bool:
    """Return whether a create that failed so has certainly created nothing."""
    if isinstance(error, APIConnectionError):
        return not error.sent
    return isinstance(error, APIStatusError) and error.status < 500
