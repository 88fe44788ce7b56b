"""One thread of our own, as an executor: a loop with virtual time waits for its jobs, as for those of any executor.

It is a daemon: unlike the threads of `concurrent.futures`, it never holds up the end of the interpreter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
_P = ParamSpec("_P")
_Job = Callable[[], object]


class OwnThread(Executor):
    """Runs jobs one after the other in a thread of its own, which starts at once.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True).start()

    def submit(self, fn: Callable[_P, T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[T]:
        """Run a function after those that were submitted before."""
        future: Future[T] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        self._jobs.put(job)
        return future

    def end(self, last: Callable[[], object]) -> None:
        """End the thread after its pending jobs and a last one; return at once."""
        self._jobs.put(last)
        self._jobs.put(None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the thread after its pending jobs; return at once."""
        self._jobs.put(None)


def _work(jobs: SimpleQueue[Any]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # a journal that is not used any more must not be kept by its last job
