"""For what owns a task in the background: to wait for its end, and to raise what broke it."""

from __future__ import annotations

import asyncio
import math

import anyio

from asyncruns.asking import loop_time
from asyncruns.driven import answers_for, works_for
from asyncruns.errors import InvalidRequestError


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


def check_is_here(loop: asyncio.AbstractEventLoop | None, what: str) -> None:
    """Check that we run in the event loop of a watch or a fleet.

    Args:
        loop: Where it was entered; None when it was not.
        what: What it is, for the message.

    Raises:
        InvalidRequestError: We run in a thread, or in another loop; nothing was done.
    """
    if loop is None or asyncio._get_running_loop() is loop:
        return
    where = "a thread without an event loop" if asyncio._get_running_loop() is None else "another event loop"
    raise InvalidRequestError(
        f"This {what} was entered in an event loop of its own, and is called from {where}. Call its functions with "
        f"loop.call_soon_threadsafe(function, ...), and its coroutines with "
        f"asyncio.run_coroutine_threadsafe(coroutine, loop), where loop is the one that entered it"
    )


def check_may_leave(owner: object, what: str) -> None:
    """Check that no tool, handler or observer leaves the watch or the fleet that it works for.

    Raises:
        InvalidRequestError: One does; nothing was done.
    """
    if works_for(owner):
        raise InvalidRequestError(
            f"A tool, a handler or an observer can't leave the {what} that it works for, which would wait for its end; "
            "leave it in a task of its own, or cancel the run with cancel_run()"
        )


def check_may_wait(owner: object, what: str) -> None:
    """Check that no tool or handler waits for what waits for it.

    Raises:
        InvalidRequestError: One does.
    """
    if answers_for(owner):
        raise InvalidRequestError(
            f"A tool or a handler can't wait for the end of the {what} that waits for its output: it would wait for "
            "itself"
        )
