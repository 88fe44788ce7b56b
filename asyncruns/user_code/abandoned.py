"""What is left of code that ignores its cancellation: kept as it is, and not waited for when the loop is closed."""

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
    """Holds something for ever: it holds itself, and the garbage collector does not see it.

    A coroutine with a bare `except:` must not be collected, not even when the interpreter exits: a GeneratorExit is
    raised in it then, and it goes on, in a loop that nothing ends.
    """

    held: Any
    itself: Any = None


def keep(held: object) -> _Kept:
    """Keep something for ever, or until `release`."""
    kept = _Kept(held)
    kept.itself = kept
    return kept


def _release(kept: _Kept) -> None:
    kept.held = kept.itself = None


def mark() -> object:
    """Mark the tasks that the current one begins from now on, and those that these begin."""
    own = object()
    _MARK.set(own)
    return own


def leave_tasks_of(own: object) -> None:
    """Unregister the tasks with this mark that were cancelled and have not ended, so that nothing waits for them.

    `asyncio.run` waits at the end for all tasks that are registered. The others are left as they are: nobody asked them
    to end.
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
    # Python 3.11 shows it to the garbage collector only; the context of a callback may come after it.
    return next((each for each in gc.get_referents(task) if isinstance(each, Context)), None)
