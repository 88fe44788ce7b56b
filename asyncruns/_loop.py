"""What a watch and a fleet share of the event loop: its clock, waking, admission, and the one task that each owns.

Admission: a thousand first requests in one pass of the loop take a tenth of a second, in which nothing else runs. So
each pass admits a few; that delays the thousandth by as long, and spreads all later polls.

Leaving: how long leaving waits is bounded by the same few seconds everywhere.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import anyio

from asyncruns.errors import InvalidRequestError

LEAVING_GRACE_S: Final = 5.0  # how long leaving waits for a pending submit, cancel or create
ENDING_GRACE_S: Final = 2.5  # and then for the task itself: observers may take 2 s
OBSERVER_GRACE_S: Final = 2.0  # how long leaving waits for observers that have not seen everything yet
ADMITTED_AT_ONCE: Final = 4  # of some 0.3 ms each: making a watch, sending a request, starting a thread


class _Gate:
    """Those who wait for their turn in one loop, in their order."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._is_open = False

    async def pass_through(self) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[future] = None
        if not self._is_open:
            self._is_open = True
            loop.call_soon(self._admit, loop)
        try:
            await future
        finally:
            self._waiting.pop(future, None)

    def _admit(self, loop: asyncio.AbstractEventLoop) -> None:
        for future in list(itertools.islice(self._waiting, ADMITTED_AT_ONCE)):
            del self._waiting[future]
            if not future.done():
                future.set_result(None)
        self._is_open = bool(self._waiting)
        if self._is_open:
            loop.call_soon(self._admit, loop)


_GATES: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Gate]] = weakref.WeakKeyDictionary()


async def admitted() -> None:
    """Wait for our turn to begin. Safe to cancel."""
    await _GATES.setdefault(asyncio.get_running_loop(), _Gate()).pass_through()


def loop_time() -> float:
    """Give the loop's clock, which all times of a watch are of."""
    return asyncio.get_running_loop().time()


def wake(waiting: asyncio.Future[None] | None) -> None:
    """Let who waits go on; may be called twice."""
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


async def joined(task: asyncio.Task[Any], *, by: float = math.inf) -> None:
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


async def outlasting(work: Callable[[], Awaitable[object]], scope: anyio.CancelScope) -> None:
    """Do some work in a task of a group, and go on with it when the task is cancelled by somebody else.

    At the end of `asyncio.run` every task is cancelled once, and those that still owe the server something go on.

    Args:
        work: What is done; called again after a cancellation.
        scope: The group's, which ends it.
    """
    while True:
        try:
            await work()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if scope.cancel_called or task is None:
                raise
            task.uncancel()
        else:
            return


class OwnedTask:
    """The one task in which all happens that a watch or a fleet does in the background.

    Its task groups are entered and left inside of it, so its owner may be left from any task.

    Args:
        what: What the owner is, for messages: "watcher" or "fleet".
        log: Where a failure is logged that can't be raised.
        entering: How the owner is entered, for the message when it was not.
        once: The message when it is entered for the second time.
    """

    def __init__(self, what: str, *, log: logging.Logger, entering: str, once: str) -> None:
        self._log = log
        self._what, self._entering, self._once = what, entering, once
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_told = False

    def check_unused(self) -> None:
        """Check that the owner was not entered before, and bind it to the running loop.

        Raises:
            InvalidRequestError: It was.
        """
        if self._task is not None:
            raise InvalidRequestError(self._once)
        self._loop = asyncio.get_running_loop()

    async def start(
        self,
        work: Callable[[asyncio.Future[None]], Coroutine[Any, Any, None]],
        *,
        name: str,
        on_done: Callable[[], object],
        leave: Callable[[], Awaitable[object]],
    ) -> None:
        """Start the task, and wait until its work has begun.

        Args:
            work: What the task does. It sets the future when it has begun.
            name: Of the task.
            on_done: Called when the task has ended.
            leave: Leaves the owner when the caller is cancelled meanwhile.
        """
        begun = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(work(begun), name=name)
        self._task.add_done_callback(lambda _: on_done())
        try:
            await begun
        except asyncio.CancelledError:
            await leave()
            raise

    @property
    def was_started(self) -> bool:
        """Whether there was a task at all."""
        return self._task is not None

    @property
    def is_done(self) -> bool:
        """Whether the task has ended."""
        return self._task is not None and self._task.done()

    def check_entered(self) -> None:
        """Check that the owner was entered, in this event loop.

        Raises:
            InvalidRequestError: It was not.
        """
        if self._task is None:
            raise InvalidRequestError(f"Enter the {self._what} first: async with {self._entering}")
        self.check_is_here()

    def check_is_here(self) -> None:
        """Check that the caller runs in the event loop that entered the owner, if any has.

        Raises:
            InvalidRequestError: The caller runs in a thread, or in another loop; nothing was done.
        """
        loop = self._loop
        if loop is None or asyncio._get_running_loop() is loop:
            return
        where = "a thread without an event loop" if asyncio._get_running_loop() is None else "another event loop"
        raise InvalidRequestError(
            f"This {self._what} was entered in an event loop of its own, and is called from {where}. Call its "
            "functions with loop.call_soon_threadsafe(function, ...), and its coroutines with "
            "asyncio.run_coroutine_threadsafe(coroutine, loop), where loop is the one that entered it"
        )

    async def join(self, by: float) -> None:
        """Wait until the task has ended; it is cancelled at this time of the loop's clock. See `joined`."""
        if self._task is not None:
            await joined(self._task, by=by + ENDING_GRACE_S)

    def raise_failure(self) -> None:
        """Raise what broke the task, if anything did; a lone error without the group around it."""
        self._is_told = True
        task = self._task
        failure = None if task is None or task.cancelled() else task.exception()
        while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
            failure = failure.exceptions[0]
        if failure is not None:
            raise failure

    def raise_once(self, error: BaseException | None, message: str, *arguments: object) -> None:
        """Raise what broke the task, unless the caller has had it; log it where another error is on its way already.

        Args:
            error: What leaves the owner's block; None for nothing.
            message: What is logged.
            *arguments: Of the message.
        """
        task = self._task
        if self._is_told or task is None:
            return
        if error is None:
            self.raise_failure()
        elif not task.cancelled() and task.exception() is not None:
            self._log.error(message, *arguments, exc_info=task.exception())
