"""Which watch or fleet the caller's code works for, so that it is refused to wait for what waits for it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Final
from weakref import WeakKeyDictionary

from asyncruns.errors import InvalidRequestError

OWNERS: Final[ContextVar[tuple[Any, ...]]] = ContextVar("asyncruns_owners", default=())
"""The objects that the caller's code works for. The first has the run as `ref`, which warnings name."""

ANSWERING: Final = object()
"""Among the owners of handlers and tools, whose run waits for them; observers have no one wait."""

_WORKING: Final[WeakKeyDictionary[asyncio.Task[Any], tuple[Any, ...]]] = WeakKeyDictionary()


def begin_work(task: asyncio.Task[Any]) -> None:
    """Note that a task runs code of the caller's, for the owners in the current context."""
    _WORKING[task] = OWNERS.get()


def works_for(owner: object) -> bool:
    """Return whether the current task runs a tool, a handler or an observer of this object."""
    task = asyncio.current_task()
    return task is not None and any(each is owner for each in _WORKING.get(task, ()))


def answers_for(owner: object) -> bool:
    """Return whether the current task runs a tool or a handler of this object, and so can't wait for its end."""
    return works_for(owner) and works_for(ANSWERING)


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
