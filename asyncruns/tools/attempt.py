"""The line between the caller's code and ours: what tools, approvals and policies raise ends here.

Two things pass, or nothing could be stopped: our own cancellation, which no code in between can swallow, and Ctrl-C.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

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

    Raises:
        asyncio.CancelledError: This task was cancelled, even if the work swallowed that or raised something else.
        KeyboardInterrupt: It was raised in the loop's thread.
    """
    cancels_before = _cancels()
    result: T | Raised
    try:
        result = await work()
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except asyncio.CancelledError as error:
        if _cancels():
            raise
        result = Raised(_as_exception(error))
    except BaseException as error:
        result = Raised(_as_exception(error))
    if _cancels() > cancels_before:
        raise asyncio.CancelledError from result.error if isinstance(result, Raised) else None
    return result


def _as_exception(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    wrapped = RuntimeError(f"{type(error).__name__} was raised")
    wrapped.__cause__ = error
    return wrapped


def _cancels() -> int:
    """Give how many cancellations of this task are under way."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
