"""Makes connections to one server: looks up its addresses, races connections to them, and starts TLS."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl as ssl_module
from collections.abc import Sequence
from functools import cache
from ipaddress import ip_address
from typing import Final

import aiohappyeyeballs
from yarl import URL

NEXT_ADDRESS_S: Final = 0.25  # before the next address is tried in parallel, https://www.rfc-editor.org/rfc/rfc8305
ADDRESSES_S: Final = 10.0  # how long looked-up addresses are used

_Address = aiohappyeyeballs.AddrInfoType


class Dialer:
    """Connects to one server.

    Args:
        url: The scheme, host and port of the server.
        ssl: A context, True for the usual checks, False for none. Not used if the scheme is http.
    """

    def __init__(self, url: URL, ssl: ssl_module.SSLContext | bool) -> None:
        self._host: str = url.raw_host or ""
        self._port: int = url.port or 0
        self._ssl: ssl_module.SSLContext | bool | None = ssl if url.scheme == "https" else None
        self._literal: _Address | None = _literal(self._host, self._port)
        self._lookup: asyncio.Task[Sequence[_Address]] | None = None
        self._looked_up_at = -math.inf

    async def connect(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        """Connect a protocol to the server, with TLS if the scheme is https, at the address that accepts first.

        Safe to cancel.

        Raises:
            OSError: The server cannot be reached, or is not trusted.
        """
        context = await self._context()
        sock = await aiohappyeyeballs.start_connection(
            await self._addresses(loop), happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1, loop=loop
        )
        server_hostname = None if context is None else self._host.rstrip(".")
        await loop.create_connection(lambda: protocol, sock=sock, ssl=context, server_hostname=server_hostname)

    async def _context(self) -> ssl_module.SSLContext | None:
        if isinstance(self._ssl, bool):
            self._ssl = await asyncio.to_thread(_context_of, self._ssl)  # reads the trusted certificates from disk
        return self._ssl

    async def _addresses(self, loop: asyncio.AbstractEventLoop) -> Sequence[_Address]:
        if self._literal is not None:
            return [self._literal]
        if self._lookup is None or (self._lookup.done() and loop.time() > self._looked_up_at + ADDRESSES_S):
            self._looked_up_at = loop.time()
            self._lookup = loop.create_task(self._look_up(loop), name="asyncruns addresses")
            self._lookup.add_done_callback(self._looked_up)
        lookup = self._lookup
        await asyncio.wait({lookup})  # does not cancel the lookup, which other requests wait for, too
        if lookup.cancelled():
            raise ConnectionAbortedError("the client was closed")
        return lookup.result()

    async def _look_up(self, loop: asyncio.AbstractEventLoop) -> Sequence[_Address]:
        flags = socket.AI_ADDRCONFIG
        return await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=flags)

    def _looked_up(self, lookup: asyncio.Task[Sequence[_Address]]) -> None:
        if lookup.cancelled() or lookup.exception() is not None:
            self._lookup = None  # the next connection looks up again

    def close(self) -> None:
        """Stop a lookup of the addresses."""
        if self._lookup is not None:
            self._lookup.cancel()


@cache
def _context_of(is_verified: bool) -> ssl_module.SSLContext:
    context = ssl_module.create_default_context()
    if not is_verified:
        context.check_hostname, context.verify_mode = False, ssl_module.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _literal(host: str, port: int) -> _Address | None:
    """Return the address if the host is one, or None if it is a name."""
    try:
        version = ip_address(host).version
    except ValueError:
        return None
    if version == 4:
        return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)
    if "%" in host:  # with a zone, which has to be resolved
        return None
    return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0)
