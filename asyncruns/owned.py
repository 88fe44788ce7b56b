"""For what owns a task in the background: to wait for its end, and to raise what broke it."""

from __future__ import annotations

import asyncio
import math

import anyio

from asyncruns.asking import loop_time


def raise_failure(task: asyncio.Task[None]) -> None:
    """Raise what broke the background task, if anything did; a lone error without the group around it."""
    failure = None if task.cancelled() else task.exception()
    while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]
    if failure is not None:
        raise failure


async def joined(task: asyncio.Task[None], *, by: float = math.inf) -> None:
    """Wait until a task has ended, even when we are cancelled ourselves: it holds a submit or a cancel at most.

    Args:
        task: The task.
        by: When it is cancelled.
    """
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        if loop_time() >= by:
            task.cancel()
            by = math.inf
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task}, timeout=None if by == math.inf else by - loop_time())
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
