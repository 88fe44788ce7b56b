"""The line between the caller's code and ours: what tools, approvals, handlers and observers raise ends here.

Two things pass, or nothing could be stopped: our own cancellation, which no code in between can swallow, and Ctrl-C.
Coroutines of the caller's run in a task of their own: what they do to their task's cancellation is then no matter of
ours, as with an `asyncio.TaskGroup` that failed, which up to Python 3.12 leaves its task marked as being cancelled.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class Raised(msgspec.Struct, frozen=True):
    """What came in place of a result.

    Attributes:
        error: What was raised; where it was no Exception (SystemExit, a stray CancelledError), a RuntimeError that has
            it as its `__cause__`.
    """

    error: Exception


async def attempt(work: Callable[[], Awaitable[T]]) -> T | Raised:
    """Do what may raise anything, and give what came of it.

    Safe to cancel: the work is cancelled, and awaited, again and again if it swallows that.

    Raises:
        asyncio.CancelledError: We were cancelled, whatever the work made of that.
        KeyboardInterrupt: It was raised in the loop's thread.
    """
    task = asyncio.create_task(_outcome_of(work))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
            task.cancel()
    if cancelled is not None:
        raise cancelled
    return Raised(_as_exception(asyncio.CancelledError())) if task.cancelled() else task.result()


def attempt_now(work: Callable[[], T]) -> T | Raised:
    """Do what may raise anything and does not wait, and give what came of it.

    Raises:
        KeyboardInterrupt: It was raised.
    """
    try:
        return work()
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        return Raised(_as_exception(error))


async def attempt_call(function: Callable[..., Any], *arguments: object) -> Any:
    """Call a function of the caller's, which may be async, and give its result, or what it raised.

    Safe to cancel, as `attempt`.
    """
    given = attempt_now(lambda: function(*arguments))
    if not inspect.isawaitable(given):
        return given
    return await attempt(lambda: given)


async def _outcome_of(work: Callable[[], Awaitable[T]]) -> T | Raised:
    try:
        return await work()
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        return Raised(_as_exception(error))


def _as_exception(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    wrapped = RuntimeError(f"{type(error).__name__} was raised")
    wrapped.__cause__ = error
    return wrapped
