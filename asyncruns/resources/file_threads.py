"""Reads and writes files outside of the event loop; nothing here may block the loop, or leave a thread behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from asyncruns._loop import until_done

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Call a function in a thread of the loop's executor, whose jobs also virtual time waits for.

    A cancel waits until the function has returned, so that its file can be closed then.

    Raises:
        Exception: What the function raised.
    """
    job = asyncio.get_running_loop().run_in_executor(None, function, *args)
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        await until_done(job)
        raise
