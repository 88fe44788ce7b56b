"""Closes in a forked child what its parent has open, since SQLite must not go on with it there.

SQLite keeps which locks its process has. A forked child inherits that, but not the locks, and would take them for its
own when it opens the same file: then the files beside it are deleted under it. A fork waits until the parent's threads
are not within SQLite. Nothing here touches what the parent has.
"""

from __future__ import annotations

import os
import threading
from typing import Final, Protocol
from weakref import WeakSet


class ForkAware(Protocol):
    """What a forked child must abandon.

    Attributes:
        in_use: Held while a thread is within SQLite.
    """

    in_use: threading.Lock

    def abandon(self) -> None:
        """Close what the parent had opened, without a change to its files. Never raises."""
        ...


_OPEN: Final[WeakSet[ForkAware]] = WeakSet()
_OPEN_IN_USE: Final = threading.Lock()
_forking: Final[list[ForkAware]] = []


def abandon_at_fork(database: ForkAware) -> None:
    """Abandon a database in each child that is forked from now on."""
    with _OPEN_IN_USE:
        _OPEN.add(database)


def _before() -> None:
    _OPEN_IN_USE.acquire()
    for database in list(_OPEN):
        database.in_use.acquire()
        _forking.append(database)


def _after_in_child() -> None:
    for database in _forking:
        database.abandon()
    _after()


def _after() -> None:
    while _forking:
        _forking.pop().in_use.release()
    _OPEN_IN_USE.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
