"""Runs the caller's coroutines so that one that ignores its cancellation can be abandoned, as a thread can.

A task can't be abandoned: while it is pending, the loop resumes it, and `asyncio.run` waits for it at the end, for
ever. So a `UserTask` has a task of its own, which resumes the caller's coroutine by hand (`__await__`), as a task
would. When the coroutine is abandoned, the task ends, and the coroutine is never resumed: it stays where it is, and
keeps all that it holds.

An example: a tool catches its CancelledError and sleeps on. It is cancelled again after 2 s and abandoned after 2.5 s.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any, Final, Generic, TypeVar

import anyio
import msgspec

from asyncruns.errors import InvalidRequestError
from asyncruns.user_code.abandoned import keep, leave_tasks_of, mark
from asyncruns.user_code.interrupts import is_interrupt
from asyncruns.user_code.owners import ANSWERING, OWNERS, begin_work

T = TypeVar("T")

CANCEL_AGAIN_AFTER_S: Final = 2.0  # enough for a cleanup: a rollback, a connection that is closed
ABANDON_AFTER_S: Final = 0.5  # after the second cancellation; 2.5 s in all, as leaving takes 5 s at most

_logger = logging.getLogger("asyncruns.tools")


class Raised(msgspec.Struct, frozen=True):
    """An exception in place of a result.

    Attributes:
        error: What was raised. If that is not an Exception (SystemExit, a stray CancelledError), a RuntimeError with it
            as `__cause__`.
    """

    error: Exception

    @classmethod
    def by(cls, error: BaseException) -> Raised:
        """Wrap what was raised."""
        if isinstance(error, Exception):
            return cls(error)
        wrapped = RuntimeError(f"{type(error).__name__} was raised")
        wrapped.__cause__ = error
        return cls(wrapped)


class UserTask(Generic[T]):
    """One coroutine of the caller, in a task of its own.

    `asyncio.current_task`, `asyncio.timeout`, task groups and the cancel scopes of anyio work in the coroutine as in
    any other task.

    Args:
        coroutine: The coroutine to run. Nothing else may resume it.
        what: The subject of warnings, such as "The tool f".
        context: The context variables that it sees; by default a copy of the current ones.

    Attributes:
        has_expired: Whether it ran longer than `expire_in` allows; its result is then too late.
        is_abandoned: Whether it ignored its cancellation, and is not resumed any more.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], what: str, context: Context | None = None) -> None:
        self._coroutine = coroutine
        self._what = what
        self._context = context
        self._mark: object | None = None
        self._loop = asyncio.get_running_loop()  # kept, as it is not the running loop while `asyncio.run` cancels tasks
        self._task: asyncio.Task[T | Raised] | None = None
        self._news: _News | None = None  # what the task waits for
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self.has_expired: bool = False
        self.is_abandoned: bool = False

    async def result(self) -> T | Raised:
        """Run the coroutine to its end, and return its result or what it raised.

        Safe to cancel: the coroutine is cancelled and awaited. If it does not end, it is cancelled again after 2 s, and
        abandoned 0.5 s later.

        Raises:
            asyncio.CancelledError: The caller was cancelled, whatever the coroutine made of that.
            KeyboardInterrupt: Ctrl-C was pressed while the coroutine ran.
        """
        self._task = task = asyncio.create_task(self._run(), context=self._context)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                if cancelled is None:
                    await _End(task, self)
                else:
                    with anyio.CancelScope(shield=True):  # a cancelled scope of anyio cancels in each pass of the loop
                        await _End(task, self)
            except asyncio.CancelledError as error:
                cancelled = error
        if self._timer is not None:
            self._timer.cancel()
        if inspect.getcoroutinestate(self._coroutine) == inspect.CORO_CREATED:  # cancelled before it ran
            self._coroutine.close()
        if self.is_abandoned:
            leave_tasks_of(self._mark)
            self._warn_of_abandoning()
        if cancelled is not None:
            raise cancelled
        return Raised.by(asyncio.CancelledError()) if task.cancelled() else task.result()

    def expire_in(self, seconds: float) -> None:
        """Stop the coroutine after this many seconds."""
        if not self._is_stopping:
            self._set_timer(seconds, self._expire)

    def _expire(self) -> None:
        if self._task is not None and not self._task.done():
            self.has_expired = True
            self.stop()

    def stop(self) -> None:
        """Cancel the coroutine; if it does not end, abandon it."""
        if self._task is not None:
            self._task.cancel()
        if not self._is_stopping:
            self._is_stopping = True
            self._set_timer(CANCEL_AGAIN_AFTER_S, self._stop_again)

    def _stop_again(self) -> None:
        self.stop()
        self._set_timer(ABANDON_AFTER_S, self._abandon)

    def _abandon(self) -> None:
        if self._task is not None and not self._task.done():
            self.is_abandoned = True
            if self._news is not None:
                self._news.notify()

    def _set_timer(self, seconds: float, do: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, do)

    def _warn_of_abandoning(self) -> None:
        owners = OWNERS.get() if self._context is None else self._context.get(OWNERS, ())
        whose = f" of {owners[0].ref}" if owners else ""
        _logger.warning(
            "%s%s ignored its cancellation for %g s and is abandoned: it is never resumed, and keeps what it holds. "
            "Let it pass on CancelledError",
            self._what,
            whose,
            CANCEL_AGAIN_AFTER_S + ABANDON_AFTER_S,
        )

    # The task

    async def _run(self) -> T | Raised:
        task = asyncio.current_task()
        if task is not None:
            begin_work(task)
        self._mark = mark()
        return await self

    def __await__(self) -> Generator[Any, Any, T | Raised]:
        resume: Callable[[], Any] = partial(self._coroutine.send, None)
        while not self.is_abandoned:
            try:
                awaited = resume()
            except StopIteration as end:
                result: T = end.value
                return result
            except BaseException as error:
                if is_interrupt(error):
                    raise
                return Raised.by(error)
            try:
                yield from self._until_done(awaited)
            except GeneratorExit:  # the loop is closed
                self._coroutine.close()
                raise
            except BaseException as error:
                resume = partial(self._coroutine.throw, error)
            else:
                resume = partial(self._coroutine.send, None)
            awaited = None
        keep(self._coroutine)
        return Raised(TimeoutError(f"{self._what} ignored its cancellation"))

    def _until_done(self, awaited: Any) -> Generator[Any, Any, None]:
        """Wait for what the coroutine awaits, or until it is abandoned. A cancellation is passed to what is awaited."""
        loop = asyncio.get_running_loop()
        is_ours = asyncio.isfuture(awaited) and awaited.get_loop() is loop and awaited is not asyncio.current_task()
        if not is_ours or not awaited._asyncio_future_blocking:
            # None is one pass of the loop, as in `sleep(0)`. The rest is a mistake, such as awaiting a future of
            # another loop: the task raises the right error in the coroutine.
            yield awaited
            return
        awaited._asyncio_future_blocking = False  # as a task does when it takes over a future that was yielded
        _check_is_another(awaited)
        self._news = news = _News(awaited)
        try:
            yield from news
        finally:
            awaited.remove_done_callback(news.notify)
            self._news = None


def _check_is_another(awaited: asyncio.Future[Any]) -> None:
    """Check that a tool or a handler does not await the task that watches its own run.

    Raises:
        InvalidRequestError: It does: both would wait for each other, and a timeout would cancel both.
    """
    owners = OWNERS.get() if isinstance(awaited, asyncio.Task) else ()
    if ANSWERING in owners and any(getattr(owner, "entered", None) is awaited for owner in owners):
        raise InvalidRequestError(
            "A tool or a handler can't await the task that watches its own run: that task waits for its output"
        )


class _News(asyncio.Future[None]):
    """Done when what is awaited is done, or when `notify` is called; cancelling it cancels what is awaited."""

    def __init__(self, awaited: asyncio.Future[Any]) -> None:
        super().__init__(loop=awaited.get_loop())
        self._awaited = awaited
        awaited.add_done_callback(self.notify)

    def cancel(self, msg: Any | None = None) -> bool:
        return self._awaited.cancel(msg)

    def notify(self, _: object = None) -> None:
        if not self.done():
            self.set_result(None)


class _End(_News):
    """Done when the task of a coroutine is done; cancelling it stops the coroutine, in the same pass of the loop."""

    def __init__(self, task: asyncio.Task[Any], driven: UserTask[Any]) -> None:
        super().__init__(task)
        self._driven = driven

    def cancel(self, msg: Any | None = None) -> bool:
        self._driven.stop()
        return asyncio.Future.cancel(self, msg)
