"""Which connection a request goes over, and that aiohttp sends it once.

aiohttp sends GET, PUT and DELETE once more by itself when a connection breaks. A middleware, which is the public way to
get between, turns the errors after which it does that into others.

A server may close its connections without a word, or lose them: then the whole pool is dead, and another connection
from it is no better than the one that broke. So after a lost answer the idle ones are closed before the next read; and
what changes something goes over connections that are made for it and used once, for a while.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

import aiohttp

from asyncruns._private import close_idle, has_idle, middlewares_of
from asyncruns.errors import ConfigurationError
from asyncruns.transport.base import KEEPALIVE_S, MAX_CONNECTIONS
from asyncruns.transport.one_loop import OneLoop
from asyncruns.transport.trust import Trust

NO_KEEPALIVE_S: Final = 1e-6  # force_close would do the same, and send `Connection: close` with each request
CLOSING_PASSES: Final = (
    4  # of the loop, in which it notices that a connection was closed: plain after two, TLS after three
)


class Broken(aiohttp.ClientConnectionError):
    """A connection broke after the request was sent. `error` is what aiohttp raised."""

    def __init__(self, error: aiohttp.ClientError) -> None:
        super().__init__(str(error))
        self.error = error


async def send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request, and keep aiohttp from sending it again by itself; a middleware.

    Raises:
        Broken: The connection broke.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # no connection was made, and aiohttp does not try again
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise Broken(error) from error


async def send_fresh(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request over a new connection: the idle ones are closed just before; a middleware."""
    close_idle(request.session.connector, request.connection_key)
    return await send_once(request, handler)


async def send_untyped(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Leave out the content type that a borrowed session adds to a request without a body; a middleware."""
    request.headers.popall("Content-Type", None)
    return await handler(request)


class Sessions:
    """The sessions of one transport: a borrowed one, or two of its own, one with a pool and one without.

    Each request is sent once over all of them. The middlewares of a borrowed session run as ever, and what they send
    again is theirs.

    Args:
        trust: Tells which connections may be used, and learns of each answer.
        closes_each: Whether each connection is to be used once, in any case.

    Raises:
        ConfigurationError: What was given for a session is none of aiohttp, and does not act like one.
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
        given: object = borrowed  # whatever its annotation says
        acts_so = hasattr(given, "request") and hasattr(given, "closed") and not isinstance(given, type)
        if given is not None and not acts_so:
            kind = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
            raise ConfigurationError(f"session must be an aiohttp.ClientSession; got {kind}")
        self._trust = trust
        self._emptied_at = 0  # by the number of suspicions
        self._borrowed = borrowed
        self._closes_each = closes_each
        self._trust_env = trust_env
        self._timeout = timeout
        self._pooled: aiohttp.ClientSession | None = None
        self._unpooled: aiohttp.ClientSession | None = None
        self._one_loop = OneLoop()

    def choose(
        self, method: str, *, closes: bool = False
    ) -> tuple[aiohttp.ClientSession, tuple[aiohttp.ClientMiddlewareType, ...] | None]:
        """Return the session for a request, and the middlewares to give with it; None for the session's own.

        Args:
            closes: Whether the connection is to be used once.

        Raises:
            ConfigurationError: There is none any more, or it belongs to another loop.
        """
        pooled = self._usable()
        now = asyncio.get_running_loop().time()
        connector = getattr(pooled, "connector", None)  # what is borrowed may only act like a session
        is_fresh = closes or self._closes_each or self._trust.wants_fresh(method, now, partial(has_idle, connector))
        if self._borrowed is not None:
            send = send_fresh if is_fresh else self._send_pooled
            return pooled, (send, *middlewares_of(pooled))
        if not is_fresh:
            return pooled, None
        if self._unpooled is None:
            self._unpooled = self._open(NO_KEEPALIVE_S, send_once)
        return self._unpooled, None

    def _usable(self) -> aiohttp.ClientSession:
        if self._borrowed is not None:
            self._one_loop.check_open()
            if self._borrowed.closed:
                raise ConfigurationError("The session that was given as session= is closed")
            return self._borrowed
        self._one_loop.check()
        if self._pooled is None:
            self._pooled = self._open(KEEPALIVE_S, self._send_pooled)
        return self._pooled

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
        """Send a request once, and note whether a connection from the pool gave the answer; a middleware.

        A pool that is suspect is emptied first, once: what comes back to it afterwards has just given an answer.
        """
        if self._emptied_at != self._trust.suspicions:
            self._emptied_at = self._trust.suspicions
            close_idle(request.session.connector, request.connection_key)
        if self._trust.keeps:
            return await send_once(request, handler)
        is_reused = has_idle(request.session.connector, request.connection_key)
        answer = await send_once(request, handler)
        self._trust.came_over_the_pool(asyncio.get_running_loop().time(), is_reused=is_reused)
        return answer

    async def aclose(self) -> None:
        """Close the sessions of our own. May be called twice."""
        self._one_loop.close()
        sessions = (self._pooled, self._unpooled)
        self._pooled = self._unpooled = None
        for session in sessions:
            if session is not None:
                await session.close()


async def let_the_loop_notice() -> None:
    """Let the loop read what has arrived: whether a server has closed a connection that is idle in the pool.

    After code that blocked the loop, such a connection polls alive until then, and a request over it is lost.
    """
    for _ in range(CLOSING_PASSES):
        await asyncio.sleep(0)
