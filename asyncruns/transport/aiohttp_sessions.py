"""Chooses the connection for a request, and keeps aiohttp from sending it twice.

When a pooled connection breaks, aiohttp repeats idempotent requests (GET, PUT, DELETE) by itself. To prevent that, a
middleware, the public way to intervene, replaces the errors after which aiohttp does so by others.

A server may close its connections unannounced, or lose them: then the whole pool is dead, and another connection from
it is no better than the one that broke. So after a lost answer, the idle connections are closed before the next read;
and for a while, each request that changes something gets a new connection, which is used once (see `trust`).
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

import aiohttp

from asyncruns._private import close_idle, close_stray, has_idle, loop_of, middlewares_of
from asyncruns.errors import ConfigurationError
from asyncruns.transport.base import KEEPALIVE_S, MAX_CONNECTIONS
from asyncruns.transport.per_loop import PerLoop
from asyncruns.transport.trust import Trust

NO_KEEPALIVE_S: Final = 1e-6  # not force_close=True, which would add `Connection: close` to each request
# How many passes the loop gets to notice that a connection was closed: it needs two for plain TCP, three for TLS.
CLOSING_PASSES: Final = 4


class Broken(aiohttp.ClientConnectionError):
    """A connection broke after the request was sent. `error` is what aiohttp raised, and would repeat on."""

    def __init__(self, error: aiohttp.ClientError) -> None:
        super().__init__(str(error))
        self.error = error


class ClientClosed(ConnectionAbortedError):
    """The session was closed while a request waited for a connection. Nothing was sent."""


def check_cancelled(session: aiohttp.ClientSession) -> None:
    """Check that a request was cancelled by its caller: a session that is closed cancels those that wait for it.

    Raises:
        ClientClosed: The session was closed, and nobody cancelled the task.
    """
    task = asyncio.current_task()
    if session.closed and (task is None or not task.cancelling()):
        raise ClientClosed("the client was closed")


async def send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request, and keep aiohttp from repeating it; a middleware.

    Raises:
        Broken: The connection broke.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # no connection was made; aiohttp does not repeat that
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise Broken(error) from error


async def send_fresh(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request over a new connection, by closing the idle ones just before; a middleware."""
    close_idle(request.session.connector, request.connection_key)
    return await send_once(request, handler)


async def send_untyped(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Remove the content type that a borrowed session adds to a request without a body; a middleware."""
    request.headers.popall("Content-Type", None)
    return await handler(request)


class Sessions:
    """The sessions of one transport: a borrowed one, or two of its own, one with a pool and one without.

    Any of them sends each request once. The middlewares of a borrowed session still run, and may send more requests.

    Args:
        borrowed: The caller's session, or None. It is never closed here.
        trust: Decides whether the pool may be used; is informed of the answers.
        closes_each: Whether to use each connection only once, in any case.
        trust_env: As in `aiohttp.ClientSession`, for the sessions of its own.
        timeout: For the sessions of its own.

    Raises:
        ConfigurationError: `borrowed` is neither an `aiohttp.ClientSession` nor similar to one.
    """

    def __init__(
        self,
        borrowed: aiohttp.ClientSession | None,
        trust: Trust,
        *,
        closes_each: bool,
        trust_env: bool,
        timeout: aiohttp.ClientTimeout,
    ) -> None:
        given: object = borrowed  # callers may pass anything
        acts_so = hasattr(given, "request") and hasattr(given, "closed") and not isinstance(given, type)
        if given is not None and not acts_so:
            kind = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
            raise ConfigurationError(f"session must be an aiohttp.ClientSession; got {kind}")
        self._trust = trust
        self._emptied_at = 0  # the value of `trust.suspicions` when the pool was last emptied
        self._borrowed = borrowed
        self._closes_each = closes_each
        self._trust_env = trust_env
        self._timeout = timeout
        self._pooled: PerLoop[aiohttp.ClientSession] = PerLoop(
            partial(self._open, KEEPALIVE_S, self._send_pooled), aiohttp.ClientSession.close
        )
        self._unpooled: PerLoop[aiohttp.ClientSession] = PerLoop(
            partial(self._open, NO_KEEPALIVE_S, send_once), aiohttp.ClientSession.close
        )

    def choose(
        self, method: str, *, closes: bool = False
    ) -> tuple[aiohttp.ClientSession, tuple[aiohttp.ClientMiddlewareType, ...] | None]:
        """Return the session for a request, and the middlewares to pass with it, or None to use those of the session.

        Args:
            method: The method of the request: GET may always use the pool.
            closes: Whether the connection is to be used only once.

        Raises:
            ConfigurationError: The sessions are closed, or another loop uses them.
        """
        pooled = self._usable()
        now = asyncio.get_running_loop().time()
        connector = getattr(pooled, "connector", None)  # a borrowed object may lack it
        is_fresh = closes or self._closes_each or self._trust.wants_fresh(method, now, partial(has_idle, connector))
        if self._borrowed is not None:
            # Middlewares of a request replace those of its session, so the latter are passed along.
            send = send_fresh if is_fresh else self._send_pooled
            return pooled, (send, *middlewares_of(pooled))
        return (self._unpooled.get() if is_fresh else pooled), None

    def _usable(self) -> aiohttp.ClientSession:
        if self._borrowed is None:
            return self._pooled.get()
        self._pooled.check_open()
        if self._borrowed.closed:
            raise ConfigurationError("The session passed as session= is closed")
        if loop_of(self._borrowed) not in (None, asyncio.get_running_loop()):
            raise ConfigurationError(
                "The session passed as session= belongs to another event loop: create the session and the client in "
                "the function that this loop runs; or leave out session=, and the client opens connections in each loop"
            )
        return self._borrowed

    def _open(self, keepalive_s: float, middleware: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=keepalive_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=self._trust_env,
            timeout=self._timeout,
            middlewares=(middleware,),
        )

    async def _send_pooled(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send a request once, and note whether the answer came over a reused connection; a middleware.

        A suspect pool is emptied first. Once per suspicion is enough: connections that enter it later have just carried
        an answer.
        """
        if self._emptied_at != self._trust.suspicions:
            self._emptied_at = self._trust.suspicions
            close_idle(request.session.connector, request.connection_key)
        close_stray(request.session.connector, request.connection_key)
        if self._trust.keeps:  # nothing more to learn
            return await send_once(request, handler)
        is_reused = has_idle(request.session.connector, request.connection_key)
        answer = await send_once(request, handler)
        self._trust.came_over_the_pool(asyncio.get_running_loop().time(), is_reused=is_reused)
        return answer

    async def aclose(self) -> None:
        """Close the sessions, except a borrowed one. May be called twice."""
        await self._pooled.aclose()
        await self._unpooled.aclose()


async def let_the_loop_notice() -> None:
    """Yield until the loop has noticed which idle connections the server closed.

    After code that blocked the loop, such a connection looks alive until the loop has read its end; a request over it
    would be lost.
    """
    for _ in range(CLOSING_PASSES):
        await asyncio.sleep(0)
