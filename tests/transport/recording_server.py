"""An HTTP server on 127.0.0.1 that records the exact bytes of each request, and answers from a script.

It uses no HTTP library, so that it records what was on the wire, and can misbehave.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

# Can be decoded as any object of the API.
ANYTHING: Final[Mapping[str, object]] = {"id": "x_1", "status": "queued", "data": []}

DROP: Final = b""  # close the connection after reading the request
SILENCE: Final = None  # keep the connection open, and never answer


@dataclass(frozen=True)
class Seen:
    """A request as it was received."""

    head: str
    body: bytes

    @property
    def method(self) -> str:
        return self.head.split(" ")[0]

    @property
    def target(self) -> str:
        return self.head.split(" ")[1]

    def all(self, name: str) -> list[str]:
        """Return every value of a header."""
        pairs = [line.split(": ", 1) for line in self.head.split("\r\n")[1:]]
        return [value for found, value in pairs if found.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the one value of a header, or None; fail if there are several."""
        found = self.all(name)
        assert len(found) <= 1, f"{name} was sent {len(found)} times"
        return found[0] if found else None


Answer = bytes | None | Callable[[Seen], bytes | AsyncGenerator[bytes, None]]


def reply(status: int = 200, body: object = ANYTHING, /, **headers: str) -> bytes:
    """Return an answer. A string or bytes are its body unchanged, other values as JSON. `_` in names stands for `-`."""
    if isinstance(body, str):
        data, kind = body.encode(), "text/html"
    elif isinstance(body, bytes):
        data, kind = body, "application/octet-stream"
    else:
        data, kind = json.dumps(body).encode(), "application/json"
    named = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""]).encode() + data


class RecordingServer:
    """Answers with the items of the script in order, and repeats the last one."""

    def __init__(self, *script: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self._tls = tls
        self._script: list[Answer] = list(script) or [reply()]
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def targets(self) -> list[str]:
        return [seen.target for seen in self.seen]

    @property
    def origin(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._answer_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has closed the connection
        except asyncio.CancelledError:
            pass  # the test is over; a cancelled handler would be reported as failed
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").removesuffix("\r\n\r\n")
        seen = Seen(head, b"")
        seen = Seen(head, await reader.readexactly(int(seen.header("Content-Length") or 0)))
        self.seen.append(seen)
        answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if answer is None:
            await reader.read()
            return False
        made = answer(seen) if callable(answer) else answer
        if isinstance(made, bytes):
            writer.write(made)
            await writer.drain()
            return made != DROP
        async with aclosing(made):
            async for piece in made:
                writer.write(piece)
                await writer.drain()
        return False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        await self._server.wait_closed()


async def unused_origin() -> str:
    """Return an origin where no server listens."""
    async with RecordingServer() as server:
        return server.origin
