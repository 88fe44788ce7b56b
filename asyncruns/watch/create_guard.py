"""Awaits the requests that create a run, so that what they create is not lost when the caller is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from asyncruns._loop import ENDING_GRACE_S, LEAVING_GRACE_S, joined, loop_time
from asyncruns.errors import APIStatusError
from asyncruns.watch.open_watches import OpenWatches

T = TypeVar("T")

log: Final = logging.getLogger("asyncruns.watch")


class CreateGuard:
    """Awaits requests that begin a run, and does not lose what they begin.

    When the caller is cancelled meanwhile, the answer is still waited for, for some seconds.

    Args:
        watches: Those of the client.
        late: Takes what came after the caller was cancelled; None is an answer that nothing was begun.
        lost: Called when the caller was cancelled, and no good answer came.
        cancels: Whether `late` cancels what was begun, so that closing the client waits for the answer.
    """

    def __init__(
        self,
        watches: OpenWatches,
        *,
        late: Callable[[Any], Awaitable[object]],
        lost: Callable[[], object],
        cancels: bool,
    ) -> None:
        self._watches = watches
        self._late, self._lost = late, lost
        self._cancels = cancels

    async def keep(self, create: Coroutine[Any, Any, T], find: Callable[[], Coroutine[Any, Any, T]] | None = None) -> T:
        """Send a request, and return its answer.

        Args:
            create: Sends it.
            find: Finds what was begun when the request itself is cut off, as at the end of the loop; None for nothing.
        """
        task = asyncio.create_task(create, name="asyncruns create")
        with self._watches.beginning(cancels=self._cancels) as watch:
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                by = loop_time() + LEAVING_GRACE_S
                watch.leave_by(by + LEAVING_GRACE_S + ENDING_GRACE_S)  # what was begun is then left in its turn
                with contextlib.suppress(asyncio.CancelledError):
                    await joined(task, by=by)
                    if task.cancelled() and find is not None and loop_time() < by:
                        task = asyncio.create_task(find(), name="asyncruns find")
                        await joined(task, by=by)
                try:
                    await self._tell(task)
                except Exception:
                    log.exception("What a cancelled caller had begun could not be dealt with; it may go on")
                raise
            return task.result()

    async def _tell(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._lost()
        elif (error := task.exception()) is None:
            await self._late(task.result())
        elif not isinstance(error, APIStatusError) or error.status >= 500:  # else nothing was begun
            self._lost()
