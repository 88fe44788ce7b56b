"""A server of HTTP/1.1 on 127.0.0.1, with TLS or without, that closes connections as the test specifies.

Its certificates are only for these tests: they are self-signed, so no client trusts them by default.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

# For host.example, valid for a hundred years.
CERTIFICATE: Final = """\
-----BEGIN CERTIFICATE-----
MIIBnjCCAUSgAwIBAgIUHAtR/wILy+eqQdXXNwwviIT0P+4wCgYIKoZIzj0EAwIw
FzEVMBMGA1UEAwwMaG9zdC5leGFtcGxlMCAXDTI2MTEyOTA0MzgzMFoYDzIxMjYx
MTA1MDQzODMwWjAXMRUwEwYDVQQDDAxob3N0LmV4YW1wbGUwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAARGd1nLNUO4YefkvukFFd6127I8AWfXGV1myaCBgyLt+2Zr
NgvP6hQtiAykheOPCBj970f/ehU0Z5NktLRmFYS9o2wwajAdBgNVHQ4EFgQUmh3N
9JtwKCO+vv25+5lYJGOiG/UwHwYDVR0jBBgwFoAUmh3N9JtwKCO+vv25+5lYJGOi
G/UwDwYDVR0TAQH/BAUwAwEB/zAXBgNVHREEEDAOggxob3N0LmV4YW1wbGUwCgYI
KoZIzj0EAwIDSAAwRQIgPf9+ZLxfjB9vPD9Np9ruDsRFx09fuBIqiGFiKrDef4MC
IQDdBDbmgffMgVOSpj4eaepqbuiGrOn+j9p1Vz1161eglA==
-----END CERTIFICATE-----
"""
KEY: Final = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgP4YqIM7X9GD3oUsz
fBPPOKuxnvFUkYXnVQ0jYOxEIMqhRANCAARGd1nLNUO4YefkvukFFd6127I8AWfX
GV1myaCBgyLt+2ZrNgvP6hQtiAykheOPCBj970f/ehU0Z5NktLRmFYS9
-----END PRIVATE KEY-----
"""


def server_tls() -> ssl.SSLContext:
    """Return the context of a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("certificate", CERTIFICATE), ("key", KEY)):
            (Path(folder) / name).write_text(text)
        context.load_cert_chain(Path(folder) / "certificate", Path(folder) / "key")
    return context


Act = Callable[[str, str], Mapping[str, Any] | None]
"""Called with method and path; returns the body of the answer, or None to close the connection without one."""


class RawServer:
    """Answers requests, and closes each connection unannounced after some seconds.

    Attributes:
        heads: The head of each request that arrived.
    """

    def __init__(self, act: Act, *, closes_after: float | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._act = act
        self._closes_after = closes_after
        self._tls = tls
        self._tasks: set[asyncio.Task[Any]] = set()
        self.heads: list[str] = []
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    def arrived(self, method: str) -> int:
        """Return the number of requests of this method that arrived."""
        return sum(head.startswith(method + " ") for head in self.heads)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            while await self._answer(reader, writer):
                pass
        writer.close()
        self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n"))}
        await reader.readexactly(int(fields.get("content-length", 0)))
        self.heads.append(head)
        method, path = head.split(" ")[:2]
        body = self._act(method, path)
        if body is None:
            writer.transport.abort()
            return False
        data = json.dumps(body).encode()
        lines = ("HTTP/1.1 200 OK", "Content-Type: application/json", f"Content-Length: {len(data)}", "", "")
        writer.write("\r\n".join(lines).encode() + data)
        await writer.drain()
        if self._closes_after is not None:
            await asyncio.sleep(self._closes_after)
        return self._closes_after is None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[RawServer]:
        """Serve within the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks)
            await server.wait_closed()
