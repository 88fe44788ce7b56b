"""Run blocking functions in daemon threads of our own.

Threads cannot be killed, so one that is no longer waited for is abandoned: it goes on, its result is dropped, and its
place in the limit stays taken until it really ends. The threads of anyio and of the executor are not used: they hold up
the interpreter's exit, and anyio gives an abandoned thread's place back while it still runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from asyncruns._loop import admitted
from asyncruns.tools.concurrency import ConcurrencyLimit

MAX_THREADS: Final = 64
THREAD_NAME_PREFIX: Final = "asyncruns-tool-"

_THREADS: Final = ConcurrencyLimit(MAX_THREADS)


def running() -> int:
    """Give how many places for threads are taken, those of abandoned threads included."""
    return _THREADS.running


class _Job:
    """A function on its way through a thread. The fields are written by the thread before `done` is set."""

    def __init__(self, function: Callable[[], Any], limit: ConcurrencyLimit) -> None:
        self.function = function
        self.limit = limit
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.abandoned = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do the work; runs in the thread."""
        try:
            self.result = self.function()
        except BaseException as error:  # nothing may reach threading.excepthook
            self.error = error
        finally:
            self.limit.release()
        if self.abandoned:
            self.discard()
            return
        try:
            self.loop.call_soon_threadsafe(self.deliver)
        except RuntimeError:  # the loop is closed: nobody waits
            self.discard()

    def deliver(self) -> None:
        """Wake the waiter; runs in the loop."""
        if self.done.done():
            self.discard()
        else:
            self.done.set_result(None)

    def abandon(self) -> None:
        self.abandoned = True
        if self.done.done() and not self.done.cancelled():
            self.discard()

    def discard(self) -> None:
        """Drop the result; a coroutine is closed, or Python would warn that it was never awaited."""
        if inspect.iscoroutine(self.result):
            self.result.close()
        self.result = None

    def outcome(self) -> Any:
        error, self.error = self.error, None
        if error is None:
            return self.result
        try:
            if isinstance(error, Exception | asyncio.CancelledError):
                raise error
            # In a thread these stop nothing; raised in the loop they would stop it.
            raise RuntimeError(f"{type(error).__name__} was raised in a thread") from error
        finally:
            del error  # it holds this frame


class Place:
    """A place for a thread; it is given back on leaving, once, unless a thread has begun, which then does that."""

    __slots__ = ("is_held", "limit")

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self.limit: ConcurrencyLimit = limit
        self.is_held: bool = True

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_held:  # who waited for it and who begins the thread may both leave it
            self.is_held = False
            self.limit.release()


async def place_for_thread(limit: ConcurrencyLimit | None = None) -> Place:
    """Wait for a place; a thousand may wait here, at little cost. Safe to cancel: then none is taken.

    Args:
        limit: Who waits for whom; by default all share one limit of 64 threads.
    """
    limit = _THREADS if limit is None else limit
    await limit.acquire()
    return Place(limit)


async def run_in_thread(
    function: Callable[[], Any],
    *,
    name: str,
    limit: ConcurrencyLimit | None = None,
    place: Place | None = None,
    on_start: Callable[[], object] | None = None,
) -> Any:
    """Call a blocking function in a daemon thread, with a copy of the caller's context variables.

    An awaitable that it gives is awaited here, afterwards.

    Safe to cancel: while it queues, nothing has happened; afterwards the thread is abandoned, goes on in the
    background, and keeps its place until it ends.

    Args:
        function: What to call.
        name: What the thread is named after.
        limit: Who waits for whom; by default all share one limit of 64 threads.
        place: Of `place_for_thread`, by who has waited already.
        on_start: Called in the loop as soon as the thread runs, so that queueing does not count.

    Raises:
        RuntimeError: No thread could be started, or the function raised SystemExit or KeyboardInterrupt (then its
            `__cause__`).
        BaseException: Whatever else the function raised.
    """
    with place or await place_for_thread(limit) as place:
        await admitted()  # starting a thread takes a while, and many may end at the same time
        job = _Job(function, place.limit)
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(job.run,), name=THREAD_NAME_PREFIX + name, daemon=True)
        thread.start()
        place.is_held = False
    if on_start is not None:
        on_start()
    try:
        await job.done
    except BaseException:
        job.abandon()
        raise
    result = job.outcome()
    return await result if inspect.isawaitable(result) else result
