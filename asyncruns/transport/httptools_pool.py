"""The connections of the lean transport: at most 100 to its one server, reused, and assigned in order of request."""

from __future__ import annotations

import asyncio
import math
from asyncio import Future
from collections import deque
from typing import Final

from asyncruns.transport.base import CONNECT_TIMEOUT_S, MAX_CONNECTIONS
from asyncruns.transport.dialer import Dialer
from asyncruns.transport.httptools_connection import Connection, RawAnswer, ServerDisconnected

_UNCHECKED_S: Final = 0.001  # a read uses a connection that was idle for less without checking it
_CLOSED: Final = "the client was closed"
_CLOSING_PASSES: Final = 10  # maximum number of passes of the loop in which it closes the sockets


class Pool:
    """The connections to one server, in the event loop in which it is made.

    Args:
        dialer: Makes the connections.
        max_body: Maximum number of bytes of a body.
    """

    def __init__(self, dialer: Dialer, max_body: int) -> None:
        self._dialer = dialer
        self._max_body = max_body
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        self._idle: deque[Connection] = deque()  # the most recently used one at the right
        self._busy: set[Connection] = set()
        self._open: set[Connection] = set()  # each occupies a place
        self._leaving: set[Connection] = set()  # closed, but the loop has not closed their sockets yet
        self._places = 0  # taken: by connections that are open, being made, or being handed to a waiter
        self._waiters: deque[Future[Connection | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def has_idle(self) -> bool:
        """Return whether there is an idle connection that seems to be alive."""
        return any(connection.looks_alive() for connection in self._idle)

    def close_idle(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def take_idle(self, now: float, *, is_read: bool) -> Connection | None:
        """Return an idle connection that is alive, or None if `take` must be called.

        Args:
            now: By the loop's clock.
            is_read: Whether the request that it is for may be sent again.
        """
        while self._idle:
            connection = self._idle.pop()
            idle_s = now - connection.idle_since
            if idle_s < connection.may_idle_s and (
                connection.looks_alive() if not is_read or idle_s > _UNCHECKED_S else not connection.is_closed
            ):
                return connection
            connection.close()
        return None

    async def take(self, *, fresh: bool) -> Connection:
        """Return a connection: a new one, or while there are 100, the next that becomes free, in order of request.

        Safe to cancel.

        Args:
            fresh: Whether it must be a new one.

        Raises:
            OSError, TimeoutError: It could not be made, or the pool was closed in the meantime.
        """
        if fresh and self._idle and self._places >= MAX_CONNECTIONS:
            self._idle.popleft().close()
        is_next = False
        while self._places >= MAX_CONNECTIONS:
            connection = await self._turn(is_next=is_next)
            is_next = True  # a request that has had its turn goes to the front
            if connection is None:
                return await self._connect()
            if connection.is_closed:  # it was closed before this task resumed
                continue
            if not fresh and connection.looks_alive():
                return connection
            self._open.discard(connection)  # so its place is kept for the new one
            connection.close()
            return await self._connect()
        self._places += 1
        return await self._connect()

    async def _turn(self, *, is_next: bool) -> Connection | None:
        """Wait for a connection, or for None: a free place, which is already counted as taken."""
        waiter: Future[Connection | None] = self._loop.create_future()
        if is_next:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                connection = waiter.result()
                if connection is None:
                    self._leave_place()
                elif not connection.is_closed:
                    self.released(connection)
            raise

    def send(self, connection: Connection, data: bytes, deadline: float, *, is_last: bool) -> Future[RawAnswer]:
        """Send a request over a connection of this pool, and return the future of its answer.

        When the answer is complete, the connection is free again; after a compressed answer, the caller decompresses it
        and then calls `give_back` or closes the connection. A caller that is cancelled calls `Connection.abandon`.

        The future raises an OSError or `BodyTooLarge` if no usable answer arrived, and a TimeoutError if none arrived
        by the deadline.
        """
        self._busy.add(connection)
        if deadline < self._timer_at:
            self._arm(deadline)
        return connection.request(data, deadline, is_last=is_last)

    def give_back(self, connection: Connection) -> None:
        """Take back a connection after a compressed answer, which has proved to be valid."""
        if not connection.is_closed:
            self.released(connection)

    def released(self, connection: Connection) -> None:
        self._busy.discard(connection)
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)
        expires_at = connection.idle_since + connection.may_idle_s
        if expires_at < self._timer_at:
            self._arm(expires_at)

    def lost(self, connection: Connection) -> None:
        self._leaving.add(connection)
        if connection not in self._open:
            return
        self._open.discard(connection)
        self._busy.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._leave_place()

    def gone(self, connection: Connection) -> None:
        self._leaving.discard(connection)

    def _leave_place(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._places -= 1

    # Timeouts: one timer serves all requests and all idle connections.

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._check_times)
        self._timer_at = when

    def _check_times(self) -> None:
        """Fail overdue requests, close connections that were idle for too long, and set the timer for the next."""
        self._timer, self._timer_at = None, math.inf
        now = self._loop.time()
        for connection in [each for each in self._busy if each.deadline <= now]:
            connection.fail(TimeoutError())
        for connection in [each for each in self._idle if each.idle_since + each.may_idle_s <= now]:
            connection.close()
        times = [each.deadline for each in self._busy]
        times += [each.idle_since + each.may_idle_s for each in self._idle]
        next_time = min(times, default=math.inf)
        if next_time < math.inf:
            self._arm(next_time)

    # Making connections

    async def _connect(self) -> Connection:
        """Make a connection for a place that is already taken; free the place if that fails."""
        connection = Connection(self, self._loop, self._max_body)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._dialer.connect(self._loop, connection)
            self._check_made(connection)
        except BaseException:
            connection.close()
            self._leave_place()
            raise
        self._open.add(connection)
        return connection

    def _check_made(self, connection: Connection) -> None:
        if self._is_closed:
            raise ConnectionAbortedError(_CLOSED)
        if connection.is_closed:
            raise connection.broke_with or ServerDisconnected("the server closed the connection at once")

    async def aclose(self) -> None:
        """Close all connections; requests in flight fail. Never raises; may be called twice."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, math.inf
        self._dialer.close()
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(ConnectionAbortedError(_CLOSED))
        for connection in list(self._open):
            connection.fail(ConnectionAbortedError(_CLOSED))
        passes = 0
        while self._leaving and passes < _CLOSING_PASSES:
            passes += 1
            await asyncio.sleep(0)
