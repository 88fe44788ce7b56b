"""What a watch and a fleet share of the event loop: its clock, waking, admission, and the one task that each owns.

Admission: a thousand first requests in one pass of the loop would take 0.1 s or more, in which nothing else runs. So
each pass admits 4. The thousandth request starts no later than it would have without this, and later polls are spread.

Leaving: the time that leaving takes is bounded by the same constants everywhere.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import anyio

from asyncruns.errors import InvalidRequestError

LEAVING_GRACE_S: Final = 5.0  # how long leaving waits for a pending submit, cancel or create
ENDING_GRACE_S: Final = 2.5  # how long leaving then waits for the task itself, whose observers may take 2 s
OBSERVER_GRACE_S: Final = 2.0  # how long leaving waits for observers that are not called yet, or not done
ADMITTED_AT_ONCE: Final = 4  # in one pass; each takes some 0.3 ms: creating a watch, sending a request, a new thread


class _Gate:
    """The queue of those that wait for admission in one loop, first come, first served."""

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
    """Wait until the caller may start something, at most 4 in one pass of the loop. Safe to cancel."""
    await _GATES.setdefault(asyncio.get_running_loop(), _Gate()).pass_through()


def loop_time() -> float:
    """Return the time of the running loop, in seconds; all times of a watch are by this clock."""
    return asyncio.get_running_loop().time()


def wall_time() -> float:
    """Return the seconds since the epoch: of this machine's clock, or of a loop that has a clock of its own."""
    own: Callable[[], float] | None = getattr(asyncio.get_running_loop(), "wall_time", None)
    return time.time() if own is None else own()


def wake(waiting: asyncio.Future[None] | None) -> None:
    """Set the result of a future that something waits for; may be called twice, and with None."""
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


async def joined(task: asyncio.Task[Any], *, by: float = math.inf) -> None:
    """Wait until a task has ended, even if the caller is cancelled: the task may have a submit or a cancel in flight.

    Args:
        task: The task to wait for.
        by: When to cancel the task, by the loop's clock; by default never.

    Raises:
        asyncio.CancelledError: The caller was cancelled; raised after the task has ended.
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


async def until_done(future: asyncio.Future[Any]) -> None:
    """Wait until a future is done, also if the caller is cancelled meanwhile; the cancel is raised then.

    The future must be certain to be done soon.

    Raises:
        asyncio.CancelledError: The caller was cancelled.
    """
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):  # a scope of anyio cancels each `await` in it, again and again
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
    if cancelled is not None:
        raise cancelled


async def outlasting(work: Callable[[], Awaitable[object]], scope: anyio.CancelScope) -> None:
    """Run some work in a task of a group, and run it again if anything but the group cancels the task.

    At its end, `asyncio.run` cancels every task once; a watch that must still cancel its run goes on, and needs this.

    Args:
        work: The async function to call, and to call again after a cancellation.
        scope: The cancel scope of the group, which does end the work.
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
    """The one background task of a watch or a fleet (its owner).

    Task groups are entered and left inside this task, so the owner may be left from any task.

    Args:
        what: What the owner is called in messages: "watcher" or "fleet".
        log: Where a failure is logged that cannot be raised.
        entering: The code that enters the owner, for the message if it was not entered.
        once: The message if it is entered a second time.
    """

    def __init__(self, what: str, *, log: logging.Logger, entering: str, once: str) -> None:
        self._log = log
        self._what, self._entering, self._once = what, entering, once
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_raised = False
        self._entered_by: asyncio.Task[Any] | None = None

    def check_unused(self) -> None:
        """Check that the owner was not entered before, and bind it to the running loop.

        Raises:
            InvalidRequestError: It was.
        """
        if self._task is not None:
            raise InvalidRequestError(self._once)
        self._loop = asyncio.get_running_loop()
        self._entered_by = asyncio.current_task()

    async def start(
        self,
        work: Callable[[asyncio.Future[None]], Coroutine[Any, Any, None]],
        *,
        name: str,
        on_done: Callable[[], object],
        leave: Callable[[], Awaitable[object]],
    ) -> None:
        """Start the task, and wait until its work has begun.

        Safe to cancel: `leave` is awaited first.

        Args:
            work: The task's coroutine function. It sets the result of the given future when it has begun.
            name: The task's name.
            on_done: Called when the task has ended.
            leave: Leaves the owner if the caller is cancelled before the work has begun.
        """
        begun = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(work(begun), name=name)
        self._task.add_done_callback(lambda _: on_done())
        self._task.add_done_callback(lambda _: begun.cancel())  # a task that is cancelled at once never begins
        try:
            await begun
        except asyncio.CancelledError:
            await leave()
            raise

    @property
    def was_started(self) -> bool:
        """Whether the task was started."""
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
        """Check that the caller runs in the event loop that entered the owner; passes if none has.

        Raises:
            InvalidRequestError: The caller runs in a thread or in another loop; nothing was done.
        """
        loop = self._loop
        if loop is None or asyncio._get_running_loop() is loop:
            return
        where = "a thread without an event loop" if asyncio._get_running_loop() is None else "another event loop"
        raise InvalidRequestError(
            f"This {self._what} was entered in one event loop, and is called from {where}. Call its functions with "
            "loop.call_soon_threadsafe(function, ...), and its coroutines with "
            "asyncio.run_coroutine_threadsafe(coroutine, loop), where loop is the one that entered it"
        )

    async def join(self, by: float) -> None:
        """Wait until the task has ended; it is cancelled 2.5 s after this time of the loop's clock. See `joined`."""
        if self._task is not None:
            await joined(self._task, by=by + ENDING_GRACE_S)

    def raise_failure(self) -> None:
        """Raise the exception that ended the task, if any; a single exception without the group around it."""
        # The task that entered the owner gets the failure in any case, at the latest when it leaves.
        self._is_raised = self._is_raised or asyncio.current_task() is self._entered_by
        task = self._task
        failure = None if task is None or task.cancelled() else task.exception()
        while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
            failure = failure.exceptions[0]
        if failure is not None:
            raise failure

    def raise_once(self, error: BaseException | None, message: str, *arguments: object) -> None:
        """Raise the exception that ended the task, unless it was already raised to the caller.

        If the owner's block is left with another exception, log it instead: that one must not be replaced.

        Args:
            error: The exception that leaves the owner's block; None if there is none.
            message: The message to log.
            *arguments: The arguments of the message.
        """
        task = self._task
        if self._is_raised or task is None:
            return
        if error is None:
            self.raise_failure()
        elif not task.cancelled() and task.exception() is not None:
            self._log.error(message, *arguments, exc_info=task.exception())
