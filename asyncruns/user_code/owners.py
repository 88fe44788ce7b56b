"""Records which watch or fleet the caller's code works for, so that a tool that would wait for itself gets an error."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Final
from weakref import WeakKeyDictionary

from asyncruns.errors import InvalidRequestError

OWNERS: Final[ContextVar[tuple[Any, ...]]] = ContextVar("asyncruns_owners", default=())
"""The objects that the caller's code works for. The first one has the run's ref as `ref`, which warnings name."""

ANSWERING: Final = object()
"""Is among the owners of handlers and tools, since their run waits for them; nothing waits for observers."""

_WORKING: Final[WeakKeyDictionary[asyncio.Task[Any], tuple[Any, ...]]] = WeakKeyDictionary()


def begin_work(task: asyncio.Task[Any]) -> None:
    """Record that a task runs the caller's code, for the owners in the current context."""
    _WORKING[task] = OWNERS.get()


def works_for(owner: object) -> bool:
    """Return whether the current task runs a tool, a handler or an observer of this object."""
    task = asyncio.current_task()
    return task is not None and any(each is owner for each in _WORKING.get(task, ()))


def answers_for(owner: object) -> bool:
    """Return whether the current task runs a tool or a handler of this object, so that it can't wait for its end."""
    return works_for(owner) and works_for(ANSWERING)


def check_may_leave(owner: object, what: str) -> None:
    """Check that the current task does not leave the watch or fleet that it works for.

    Args:
        owner: The watch or fleet.
        what: What it is called in the message.

    Raises:
        InvalidRequestError: It does; nothing was done.
    """
    if works_for(owner):
        raise InvalidRequestError(
            f"A tool, a handler or an observer can't leave the {what} that it works for, because leaving waits for its "
            "end: leave in a task of its own, or cancel the run with cancel_run()"
        )


def check_may_wait(owner: object, what: str) -> None:
    """Check that the current task is no tool or handler that the watch or fleet waits for.

    Args:
        owner: The watch or fleet.
        what: What it is called in the message.

    Raises:
        InvalidRequestError: It is; it would wait for itself.
    """
    if answers_for(owner):
        raise InvalidRequestError(
            f"A tool or a handler can't wait for the end of the {what} that waits for its output: it would wait for "
            "itself"
        )
