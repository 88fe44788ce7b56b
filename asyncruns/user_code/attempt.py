"""The boundary to the caller's code: exceptions of tools, approvals, handlers and observers are caught here.

Only two things pass, without which nothing could be stopped: the cancellation of the calling task, which the caller's
code cannot swallow, and Ctrl-C.

The caller's coroutines run in tasks of their own, so that what they do to their task does not affect the calling task:
up to Python 3.12, an `asyncio.TaskGroup` that failed leaves its task marked as cancelled. A coroutine that ignores its
cancellation is abandoned (see `task.py`).
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, TypeVar

from asyncruns.user_code import OWNERS, Raised, UserTask, is_interrupt

__all__ = ["Raised", "attempt_call", "attempt_now"]

T = TypeVar("T")


def attempt_now(work: Callable[[], T]) -> T | Raised:
    """Call a synchronous function of the caller, and return its result or what it raised.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    try:
        return work()
    except BaseException as error:
        if is_interrupt(error):
            raise
        return Raised.by(error)


async def attempt_call(
    function: Callable[..., Any],
    *arguments: object,
    what: str,
    context: Context | None = None,
    owners: tuple[object, ...] = (),
) -> Any:
    """Call a function of the caller, which may be async, and return its result or what it raised (as `Raised`).

    Safe to cancel: a coroutine is cancelled and awaited, and abandoned if it ignores that.

    Args:
        function: The function to call.
        *arguments: Its arguments.
        what: The subject of warnings, such as "on_status".
        context: The context variables that the function sees, in a copy, so that what it sets is its own; by default
            the current ones.
        owners: The objects that the function works for (see `user_code.OWNERS`); by default those of the context.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    context = contextvars.copy_context() if context is None else context.copy()
    if owners:
        context.run(OWNERS.set, owners)
    given = attempt_now(lambda: context.run(function, *arguments))
    if not inspect.isawaitable(given):
        return given
    coroutine = given if inspect.iscoroutine(given) else _awaited(given)
    return await UserTask(coroutine, what, context).result()


async def _awaited(given: Awaitable[T]) -> T:
    return await given
