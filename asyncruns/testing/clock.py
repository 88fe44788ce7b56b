"""An event loop with virtual time: a ten-minute wait takes milliseconds.

::

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())

and for every async test of a suite (pytest-asyncio 1.5 or later), in `conftest.py`::

    def pytest_asyncio_loop_factories(config, item):
        return {"virtual": VirtualTimeLoop}

An ordinary loop waits until its next timer; this one advances its clock to that time instead. Sockets stay real, so a
server and a client on 127.0.0.1 in the same loop work. Code under test needs no clock parameter: `asyncio.sleep`,
`anyio.sleep`, `loop.time` and every timeout use the loop's clock.

It waits in real time for work outside the loop that it knows of: executor jobs whose future is pending, functions that
`anyio.to_thread` runs, and threads whose name starts with `asyncruns-tool`. Each delays virtual time for at most
`patience` seconds, so a hung one costs that only once. It cannot know of other processes, other hosts and other
threads, and does not wait for them: their answers may arrive after a timeout in virtual time. A loop that has no timer
at all waits in real time, as any loop does.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from queue import Queue
from typing import Any, Final, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary, WeakSet

THREAD_PATIENCE_S: Final = 0.2
TOOL_THREAD_PREFIX: Final = "asyncruns-tool"
_ANYIO_THREAD: Final = "AnyIO worker thread"

# Loopback delivery is nearly always done when `send` returns; on a loaded machine it is done a moment later. The pauses
# are counted, not measured: each lets others run, also where this process has to wait long for its next turn.
_PAUSES: Final = 4
_PAUSE_S: Final = 0.0001
_SLICE_S: Final = 0.001
# What a slice counts for at most: while the machine runs something else, a thread can't get on either.
_LONGEST_SLICE_S: Final = 0.002
# Not 0: code that treats a time of 0 as "none" would behave differently.
_FIRST_TIME_S: Final = 1000.0

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_Ready = list[tuple[selectors.SelectorKey, int]]


class _VirtualSelector(selectors.BaseSelector):
    """A real selector that advances the virtual time instead of waiting."""

    def __init__(self, patience: float) -> None:
        self.now = _FIRST_TIME_S
        self.jobs: WeakSet[asyncio.Future[Any]] = WeakSet()
        self._patience = patience
        self._real = selectors.DefaultSelector()
        self.waited: WeakKeyDictionary[object, float] = WeakKeyDictionary()

    def select(self, timeout: float | None = None) -> _Ready:
        if timeout is None:  # no timer is set: only something outside the loop can wake it, so this wait is real
            return self._real.select(None)
        ready = self._real.select(0)
        if ready or timeout <= 0:
            return ready
        ready = self._poll_again() or self._wait_for_threads()
        if not ready:
            self.now += timeout
        return ready

    def _poll_again(self) -> _Ready:
        """Wait a moment for data that is still in the loopback interface."""
        if len(self._real.get_map()) <= 1:  # the pipe that wakes the loop is always there
            return []
        for _ in range(_PAUSES):
            time.sleep(_PAUSE_S)  # not `select(_PAUSE_S)`: epoll rounds up to a whole millisecond
            if ready := self._real.select(0):
                return ready
        return []

    def _wait_for_threads(self) -> _Ready:
        """Wait while threads work that will call back, each for at most `patience` seconds."""
        while busy := self._busy():
            began = time.perf_counter()
            ready = self._real.select(_SLICE_S)  # in slices: a thread may end without calling back
            spent = min(time.perf_counter() - began, _LONGEST_SLICE_S)
            for each in busy:
                self.waited[each] = self.waited.get(each, 0.0) + spent
            if ready:
                return ready
        return self._real.select(0)  # a thread that ended since the last `select` called back before it ended

    def _busy(self) -> list[object]:
        work: list[object] = [job for job in self.jobs if not job.done()]
        work += [thread for thread in threading.enumerate() if _is_at_work(thread)]
        return [each for each in work if self.waited.get(each, 0.0) < self._patience]

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


def _is_at_work(thread: threading.Thread) -> bool:
    """Return whether a thread is one that will call back."""
    if thread.name != _ANYIO_THREAD:
        return thread.name.startswith(TOOL_THREAD_PREFIX)
    # anyio keeps its threads for the next function, which comes through a queue.
    queue = getattr(thread, "queue", None)
    return isinstance(queue, Queue) and queue.unfinished_tasks > 0


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits for its own timers; see the module's docstring.

    Args:
        patience: Real seconds for which one busy thread may delay virtual time. Time in which a loaded machine runs
            something else does not count.
    """

    def __init__(self, *, patience: float = THREAD_PATIENCE_S) -> None:
        self._virtual = _VirtualSelector(patience)
        self._epoch = time.time()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return the virtual time in seconds; it starts at 1000 and only a wait advances it."""
        return self._virtual.now

    def wall_time(self) -> float:
        """Return the time in seconds since the epoch that events carry: it advances with the virtual time."""
        return self._epoch + self.time() - _FIRST_TIME_S

    def run_in_executor(self, executor: Any, func: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[_T]:
        """Run a function in an executor; virtual time stands still until it ends, for at most `patience` seconds."""
        future = super().run_in_executor(executor, func, *args)
        self._virtual.jobs.add(future)
        return future

    def call_soon_threadsafe(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call a function soon, from any thread."""
        thread = threading.current_thread()
        if getattr(callback, "__self__", None) is thread:  # so threads of anyio return results
            self._virtual.waited.pop(thread, None)  # the next function has its own patience
        return super().call_soon_threadsafe(callback, *args, context=context)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Join the executor's threads, however long that takes.

        `timeout` (Python 3.12 and later pass 300 s) is ignored: in virtual time it would expire at once.
        """
        await super().shutdown_default_executor()
