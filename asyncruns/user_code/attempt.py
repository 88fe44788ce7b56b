"""The line between the caller's code and ours: what tools, approvals, handlers and observers raise ends here.

Two things pass, or nothing could be stopped: our own cancellation, which no code in between can swallow, and Ctrl-C.
Coroutines of the caller's run in a task of their own: what they do to their task's cancellation is then no matter of
ours, as with an `asyncio.TaskGroup` that failed, which up to Python 3.12 leaves its task marked as being cancelled. One
that ignores its cancellation is abandoned (see `driven/`).
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
    """Do what may raise anything and does not wait, and give what came of it.

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
    """Call a function of the caller's, which may be async, and give its result, or what it raised.

    Safe to cancel: a coroutine is cancelled and awaited, and abandoned where it ignores that.

    Args:
        function: What to call.
        *arguments: What with.
        what: The subject of warnings, such as "An observer".
        context: The context variables that it sees; the current ones by default. What it sets is seen by itself only.
        owners: The objects that it works for (see `driven.OWNERS`); those of the caller by default.

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
