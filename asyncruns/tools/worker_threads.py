"""Run blocking functions in daemon threads of our own.

A thread cannot be killed, so after a timeout or a cancellation it is abandoned: it continues to run, its result is
discarded, and its place in the limit stays taken until it really ends. Do not use the threads of anyio or of an
executor: both delay the interpreter's exit, and anyio releases the place of an abandoned thread while it still runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar

from asyncruns._loop import admitted
from asyncruns.errors import InvalidRequestError
from asyncruns.tools.concurrency import ConcurrencyLimit

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS: Final = 64
THREAD_NAME_PREFIX: Final = "asyncruns-tool-"

_THREADS: Final = ConcurrencyLimit(MAX_THREADS)


def running() -> int:
    """Return the number of places for threads that are taken, including those of abandoned threads."""
    return _THREADS.running


class _Job:
    """A function call in a thread. The thread writes `result` and `error` before `done` is set."""

    def __init__(self, function: Callable[[], Any], limit: ConcurrencyLimit) -> None:
        self.function = function
        self.limit = limit
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.abandoned = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Call the function; runs in the thread."""
        try:
            self.result = self.function()
        except BaseException as error:  # no exception may reach threading.excepthook
            self.error = error
        finally:
            self.limit.release()
        if self.abandoned:
            self.discard()
            return
        try:
            self.loop.call_soon_threadsafe(self.deliver)
        except RuntimeError:  # the loop is closed: no task waits for the result
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
        """Discard the result; a coroutine is closed, or Python would warn that it was never awaited."""
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
            # SystemExit and KeyboardInterrupt end nothing when a thread raises them; raised in the loop they would
            # stop it.
            raise RuntimeError(f"{type(error).__name__} was raised in a thread") from error
        finally:
            del error  # its traceback holds this frame: a reference cycle


class Place:
    """A place for a thread. Leaving the block releases it, once; after a thread has started, the thread releases it."""

    __slots__ = ("is_held", "limit")

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self.limit: ConcurrencyLimit = limit
        self.is_held: bool = True

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_held:  # both `ToolFunction.run`, which waited for it, and `run_in_thread` leave the block
            self.is_held = False
            self.limit.release()


async def place_for_thread(limit: ConcurrencyLimit | None = None) -> Place:
    """Wait for a place for a thread; a thousand waiters cost little. Safe to cancel: no place is taken then.

    Args:
        limit: The limit to take a place in; by default one limit of 64 threads for the whole process.
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

    If the function returns an awaitable, it is awaited here, in the loop.

    Safe to cancel: while the call waits for a place, nothing has happened; afterwards the thread is abandoned: it
    continues to run in the background and keeps its place until it ends.

    Args:
        function: The function to call, without arguments.
        name: Name of the tool, for the name of the thread.
        limit: The limit to take a place in; by default one limit of 64 threads for the whole process.
        place: A place from `place_for_thread`, if the caller already has one.
        on_start: Called in the loop as soon as the thread has started, so that a timeout does not include waiting.

    Raises:
        RuntimeError: No thread could be started, or the function raised SystemExit or KeyboardInterrupt, which is then
            the `__cause__`.
        BaseException: Any other exception of the function.
    """
    with place or await place_for_thread(limit) as place:
        await admitted()  # starting a thread takes a while; do not start many in one iteration of the loop
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


async def to_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function in a thread that Ctrl-C does not wait for, such as `input` in a handler or an approval.

    As `asyncio.to_thread`, but in a daemon thread: at its end, `asyncio.run` waits for the threads of that function, so
    after Ctrl-C a program would hang until Enter is pressed
    (https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.shutdown_default_executor). At most 64 run at
    a time in the process, those of tools included.

    Safe to cancel: the thread is abandoned; it goes on, and what the function returns is discarded.

    Args:
        function: The function to call.
        *args: Its arguments.
        **kwargs: Its arguments by name.

    Raises:
        InvalidRequestError: It is a coroutine function.
        RuntimeError: No thread could be started, or the function raised SystemExit or KeyboardInterrupt.
        BaseException: Any other exception of the function.
    """
    if inspect.iscoroutinefunction(function):
        raise InvalidRequestError(f"{function.__qualname__} is a coroutine function: await it, without a thread")
    name = getattr(function, "__name__", "function")
    result: T = await run_in_thread(partial(function, *args, **kwargs), name=name)
    return result
