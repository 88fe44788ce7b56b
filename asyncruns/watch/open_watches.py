"""For what owns a task in the background, or owes the server something: how it is waited for when its caller leaves.

Leaving is bounded everywhere by the same few seconds. Closing a client waits for the watches that are being left, so
that the connections are there as long as they are needed: `asyncio.gather` under a timeout goes on while its children
still leave, and so does whoever cancels a task without awaiting it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

import anyio

from asyncruns._loop import loop_time, wake
from asyncruns.errors import APIStatusError, InvalidRequestError
from asyncruns.user_code import answers_for, works_for

T = TypeVar("T")

log: Final = logging.getLogger("asyncruns.watcher")

LEAVING_GRACE_S: Final = 5.0  # how long leaving waits for the answer to a submit, a cancel or a create
ENDING_GRACE_S: Final = 2.5  # and then for the task itself: observers may take 2 s
PASSES: Final = 8  # of the event loop, in which a task that was just cancelled begins to leave


def raise_failure(task: asyncio.Task[None]) -> None:
    """Raise what broke the background task, if anything did; a lone error without the group around it."""
    failure = None if task.cancelled() else task.exception()
    while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]
    if failure is not None:
        raise failure


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


def check_is_here(loop: asyncio.AbstractEventLoop | None, what: str) -> None:
    """Check that we run in the event loop of a watch or a fleet.

    Args:
        loop: Where it was entered; None when it was not.
        what: What it is, for the message.

    Raises:
        InvalidRequestError: We run in a thread, or in another loop; nothing was done.
    """
    if loop is None or asyncio._get_running_loop() is loop:
        return
    where = "a thread without an event loop" if asyncio._get_running_loop() is None else "another event loop"
    raise InvalidRequestError(
        f"This {what} was entered in an event loop of its own, and is called from {where}. Call its functions with "
        f"loop.call_soon_threadsafe(function, ...), and its coroutines with "
        f"asyncio.run_coroutine_threadsafe(coroutine, loop), where loop is the one that entered it"
    )


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


class OpenWatch:
    """A watch that goes on, or a create that begins one.

    Attributes:
        leave: Makes the watch end by the given time, with its run cancelled, and may set a later `by`; None when
            closing the client is no reason to end it.
        by: Until when it is waited for, by the loop's clock; infinity while nobody leaves it.
        is_settled: Whether it owes the server nothing any more.
    """

    __slots__ = ("_settled", "by", "is_settled", "leave", "loop")

    def __init__(self, leave: Callable[[float], object] | None = None) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.leave: Callable[[float], object] | None = leave
        self.by: float = math.inf
        self.is_settled: bool = False
        self._settled: asyncio.Future[None] = self.loop.create_future()

    def settle(self) -> None:
        """Note that nothing is owed any more; may be called twice."""
        self.is_settled = True
        if not self.loop.is_closed():
            wake(self._settled)

    async def settled(self, by: float) -> None:
        """Wait until nothing is owed any more, or until this time. Safe to cancel."""
        await asyncio.wait({self._settled}, timeout=max(by - loop_time(), 0.0))


class OpenWatches:
    """The watches that go on over one client."""

    def __init__(self) -> None:
        self._all: dict[OpenWatch, None] = {}

    def add(self, leave: Callable[[float], object] | None = None) -> OpenWatch:
        """Note that a watch begins; `OpenWatch` describes the argument."""
        watch = OpenWatch(leave)
        self._all[watch] = None
        return watch

    def remove(self, watch: OpenWatch) -> None:
        """Note that a watch has ended."""
        watch.settle()
        self._all.pop(watch, None)

    @contextlib.contextmanager
    def beginning(self, *, cancels: bool) -> Iterator[OpenWatch]:
        """Note that a watch is about to begin: something at the server may need it.

        Args:
            cancels: Whether it cancels its run on leaving, so that closing the client waits for it.
        """
        watch = self.add((lambda by: None) if cancels else None)
        try:
            yield watch
        finally:
            self.remove(watch)

    async def finished(self, *, ends: bool) -> None:
        """Wait for what is being left, and for no longer than that may take.

        In a task of its own: when that is cancelled, as at the end of the loop, it waits on, and raises the
        cancellation then.

        Args:
            ends: Whether nothing can go on after this: then watches that cancel their runs on leaving are left, too.
        """
        interrupted: asyncio.CancelledError | None = None
        passes = PASSES
        while self._here():
            try:
                if passes:
                    passes -= 1
                    await asyncio.sleep(0)
                elif not await self._one_settled(ends=ends):
                    break
            except asyncio.CancelledError as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted

    async def _one_settled(self, *, ends: bool) -> bool:
        """Wait for one of them; tell whether there was one to wait for."""
        now = loop_time()
        for watch in self._here() if ends else ():
            if watch.by == math.inf and watch.leave is not None:
                watch.leave(now + LEAVING_GRACE_S)
                watch.by = now + LEAVING_GRACE_S if watch.by == math.inf else watch.by  # a fleet may take longer
        left = [watch for watch in self._here() if not watch.is_settled and now < watch.by < math.inf]
        if not left:
            return False
        await left[0].settled(left[0].by)
        return True

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to wait for in this loop."""
        return not self._here()

    def _here(self) -> list[OpenWatch]:
        loop = asyncio.get_running_loop()
        return [watch for watch in self._all if watch.loop is loop]


def open_watches_of(client: object) -> OpenWatches:
    """Give those of the client that a connection belongs to, or of nobody."""
    found = getattr(client, "open_watches", None)
    return found if isinstance(found, OpenWatches) else OpenWatches()


class Keeper:
    """Awaits requests that begin a run, and does not lose what they begin.

    When the caller is cancelled meanwhile, the answer is still waited for, for some seconds.

    Args:
        watches: Those of the client.
        late: Takes what came after the caller was cancelled; None is an answer that nothing was begun.
        lost: Called when the caller was cancelled, and no good answer came.
        cancels: Whether `late` cancels what was begun, so that closing the client waits for the answer.
    """

    def __init__(
        self,
        watches: OpenWatches,
        *,
        late: Callable[[Any], Awaitable[object]],
        lost: Callable[[], object],
        cancels: bool,
    ) -> None:
        self._watches = watches
        self._late, self._lost = late, lost
        self._cancels = cancels

    async def keep(self, create: Coroutine[Any, Any, T], find: Callable[[], Coroutine[Any, Any, T]] | None = None) -> T:
        """Send a request, and return its answer.

        Args:
            create: Sends it.
            find: Finds what was begun when the request itself is cut off, as at the end of the loop; None for nothing.
        """
        task = asyncio.create_task(create, name="asyncruns create")
        with self._watches.beginning(cancels=self._cancels) as watch:
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                by = loop_time() + LEAVING_GRACE_S
                watch.by = by + LEAVING_GRACE_S + ENDING_GRACE_S  # what was begun is then left in its turn
                with contextlib.suppress(asyncio.CancelledError):
                    await joined(task, by=by)
                    if task.cancelled() and find is not None and loop_time() < by:
                        task = asyncio.create_task(find(), name="asyncruns find")
                        await joined(task, by=by)
                try:
                    await self._tell(task)
                except Exception:
                    log.exception("What a cancelled caller had begun could not be dealt with; it may go on")
                raise
            return task.result()

    async def _tell(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._lost()
        elif (error := task.exception()) is None:
            await self._late(task.result())
        elif not isinstance(error, APIStatusError) or error.status >= 500:  # else nothing was begun
            self._lost()


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
