"""How a command runs and ends: exit codes and signals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any, Final

USAGE: Final = 2  # as in argparse; the others are 128 plus the signal: SIGINT, SIGPIPE, SIGTERM
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
TERMINATED: Final = 143


def run(work: Coroutine[Any, Any, int]) -> int:
    """Run a command and return its exit code.

    Ctrl-C and SIGTERM cancel it, so that it closes and deletes what it created; a second Ctrl-C does not wait for that.
    """
    terminated = False

    async def guarded() -> int:
        task = asyncio.current_task()

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            if task is not None:
                task.cancel()

        with contextlib.suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await work

    try:
        return asyncio.run(guarded())
    except KeyboardInterrupt:
        return INTERRUPTED
    except asyncio.CancelledError:
        if not terminated:
            raise
        return TERMINATED


def lone_error(error: BaseException) -> BaseException:
    """Return the first error inside exception groups: task groups wrap even a single error, and most are alike."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
