"""Keeps what is left of code that ignored its cancellation, so that it neither runs again nor blocks the loop's end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, Final

import msgspec

from asyncruns._private import stop_scopes_of

_MARK: Final[ContextVar[object]] = ContextVar("asyncruns_mark", default=None)


class _Kept(msgspec.Struct, gc=False):
    """Holds an object for ever, by a reference to itself that the garbage collector does not see (`gc=False`).

    An abandoned coroutine with a bare `except:` must never be collected, not even when the interpreter exits: Python
    would raise a GeneratorExit in it, which it catches, and it would run on without end.
    """

    held: Any
    itself: Any = None


def keep(held: object) -> _Kept:
    """Keep an object alive for ever, or until `_release`."""
    kept = _Kept(held)
    kept.itself = kept
    return kept


def _release(kept: _Kept) -> None:
    kept.held = kept.itself = None


def mark() -> object:
    """Mark the tasks that the current task starts from now on, and those that they start; return the mark."""
    own = object()
    _MARK.set(own)
    return own


def leave_tasks_of(own: object) -> None:
    """Unregister the tasks with this mark that were cancelled and have not ended, so that nothing waits for them.

    At its end, `asyncio.run` waits for all registered tasks. Tasks that were not cancelled stay registered: nothing has
    asked them to end yet.
    """
    for task in asyncio.all_tasks():
        if not task.cancelling():
            continue
        context = _context_of(task)
        if context is None or context.get(_MARK) is not own:
            continue
        kept = keep(task)
        task.add_done_callback(lambda _, kept=kept: _release(kept))  # type: ignore[misc]
        asyncio._unregister_task(task)
        stop_scopes_of(task)


def _context_of(task: asyncio.Task[Any]) -> Context | None:
    get_context: Callable[[], Context] | None = getattr(task, "get_context", None)
    if get_context is not None:
        return get_context()  # Python 3.12
    # In Python 3.11, only the garbage collector can see it. The first one is the task's: contexts of callbacks follow.
    return next((each for each in gc.get_referents(task) if isinstance(each, Context)), None)
