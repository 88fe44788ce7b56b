"""The watches that are open over a client, so that closing the client waits for those that are being left.

A watch that is being left may still have to send a cancel, and needs connections for that. Its caller may not wait for
it: `asyncio.gather` under a timeout returns while its children still leave, and so does code that cancels a task
without awaiting it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from asyncruns._loop import LEAVING_GRACE_S, loop_time, wake
from asyncruns.abc import Journal, WatchTrace
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import RunRef
from asyncruns.user_code.guarded_telemetry import GuardedTelemetry

if TYPE_CHECKING:
    from asyncruns.watch.recorder import WatchRecorder

LEAVING_PASSES: Final = 8  # passes of the event loop, within which a task that was just cancelled begins to leave


class OpenWatch:
    """A watch that goes on, or a create that begins one.

    Attributes:
        loop: The event loop of the watch.
        leave: Makes the watch finish by the given time, with its run cancelled, and may set a later `by`; None if
            closing the client does not end the watch.
        by: When closing the client stops waiting for it, by the loop's clock; infinity while its caller stays.
        is_settled: Whether nothing is left to be sent to the server.
    """

    __slots__ = ("_settled", "by", "is_settled", "leave", "loop")

    def __init__(self, leave: Callable[[float], object] | None = None) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.leave: Callable[[float], object] | None = leave
        self.by: float = math.inf
        self.is_settled: bool = False
        self._settled: asyncio.Future[None] = self.loop.create_future()

    def settle(self) -> None:
        """Note that nothing is left to be sent; may be called twice."""
        self.is_settled = True
        if not self.loop.is_closed():
            wake(self._settled)

    def extend_to(self, by: float) -> None:
        """Record that closing the client waits until this time, even if an earlier one was given before."""
        self.by = by

    def leave_by(self, by: float) -> None:
        """Note that its caller leaves, and waits until this time at most; an earlier time that was set before stays."""
        self.by = min(self.by, by)

    async def settled(self, by: float) -> None:
        """Wait until nothing is left to be sent, or until this time. Safe to cancel."""
        await asyncio.wait({self._settled}, timeout=max(by - loop_time(), 0.0))


class OpenWatches:
    """The open watches of one client.

    Attributes:
        journal: Where the client's watches write down what must not be lost; None for nowhere.
        claimed: What records the watches that were claimed there, and are not entered yet, by their keys.
        telemetry: Follows them, to make traces and metrics; None for nothing.
        server: The base URL of the client's server; "" if it is not known.
    """

    def __init__(self) -> None:
        self.journal: Journal | None = None
        self.claimed: dict[str, WatchRecorder] = {}
        self.telemetry: GuardedTelemetry | None = None
        self.server: str = ""
        self._all: dict[OpenWatch, None] = {}

    def add(self, leave: Callable[[float], object] | None = None) -> OpenWatch:
        """Add a watch that begins; `OpenWatch` describes the argument."""
        watch = OpenWatch(leave)
        self._all[watch] = None
        return watch

    def remove(self, watch: OpenWatch) -> None:
        """Remove a watch that has finished."""
        watch.settle()
        self._all.pop(watch, None)

    @contextlib.contextmanager
    def beginning(self, *, cancels: bool) -> Iterator[OpenWatch]:
        """Count a watch that is about to begin: a run that is being created may have to be cancelled.

        Args:
            cancels: Whether it cancels its run on leaving, so that closing the client waits for it.
        """
        watch = self.add((lambda by: None) if cancels else None)
        try:
            yield watch
        finally:
            self.remove(watch)

    async def finished(self, *, ends: bool) -> None:
        """Wait for the watches of this loop that are being left, each at most until its `by`.

        To be run in a task of its own. If that task is cancelled, as at the end of `asyncio.run`, this still waits, and
        raises the cancellation at the end.

        Args:
            ends: Whether the connections are closed afterwards: then watches that cancel their runs on leaving are made
                to leave now.
        """
        interrupted: asyncio.CancelledError | None = None
        passes = LEAVING_PASSES
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
        """Wait for one watch that is being left; return whether there was one."""
        now = loop_time()
        for watch in self._here() if ends else ():
            if watch.by == math.inf and watch.leave is not None:
                watch.leave(now + LEAVING_GRACE_S)
                if watch.by == math.inf:  # otherwise `leave` has set it: a fleet may take longer
                    watch.leave_by(now + LEAVING_GRACE_S)
        left = [watch for watch in self._here() if not watch.is_settled and now < watch.by < math.inf]
        if not left:
            return False
        await left[0].settled(left[0].by)
        return True

    @property
    def is_empty(self) -> bool:
        """Whether no watch is open in this loop."""
        return not self._here()

    def _here(self) -> list[OpenWatch]:
        loop = asyncio.get_running_loop()
        return [watch for watch in self._all if watch.loop is loop]


def take_claimed(client: object, recorder: WatchRecorder) -> None:
    """Note that a watch that was claimed is entered.

    Raises:
        InvalidRequestError: The client was closed in the meantime, so that the watch was released.
    """
    claimed = open_watches_of(client).claimed
    if claimed.get(recorder.key) is not recorder:
        raise InvalidRequestError("The client was closed since this watch was resumed, so it was left in the journal")
    del claimed[recorder.key]


def telemetry_of(client: object) -> GuardedTelemetry | None:
    """Return what follows the watches over a client; None if nothing does."""
    watches = getattr(client, "_open_watches", None)
    return watches.telemetry if isinstance(watches, OpenWatches) else None


def trace_of(client: object, ref: RunRef, run: object, link: str = "") -> WatchTrace | None:
    """Return what follows a watch over this client that begins now; None if nothing does.

    Args:
        client: The client.
        ref: The ref of the run.
        run: The run, if it is known.
        link: The `traceparent` of an earlier watch of the run.
    """
    telemetry = telemetry_of(client)
    return None if telemetry is None else telemetry.watch(ref, run, open_watches_of(client).server, link)


def keeps_open_watches(client: object) -> bool:
    """Return whether closing this client waits for watches: a caller's own `RunClient` does not."""
    return isinstance(getattr(client, "_open_watches", None), OpenWatches)


def open_watches_of(client: object) -> OpenWatches:
    """Return the open watches of a client; an empty, unshared object if the client keeps none."""
    found = getattr(client, "_open_watches", None)
    return found if isinstance(found, OpenWatches) else OpenWatches()
