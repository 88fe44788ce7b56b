"""A server on 127.0.0.1 that streams a script in chosen chunks, and notices when its client leaves."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Final, Self

END: Final = "end the body"
BREAK: Final = "close the connection in the middle of the body"
STOP: Final = "send nothing more, and keep the connection open"
FLOOD: Final = "repeat the previous piece endlessly"

Piece = bytes | float | str
RUN: Final = {"id": "run_1", "object": "thread.run", "thread_id": "thread_1", "assistant_id": "asst_1"}


def event(name: str, data: object) -> bytes:
    """Return an event in the framing of the official server."""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"event: {name}\ndata: {text}\n\n".encode()


def run(status: str, name: str | None = None, **fields: object) -> bytes:
    return event(name or f"thread.run.{status}", {**RUN, "status": status, **fields})


def message(status: str, **fields: object) -> bytes:
    body = {"id": "msg_1", "object": "thread.message", "role": "assistant", "content": [], "status": status, **fields}
    return event(f"thread.message.{status}", body)


def delta(text: str) -> bytes:
    content = [{"index": 0, "type": "text", "text": {"value": text}}]
    body = {"id": "msg_1", "object": "thread.message.delta", "delta": {"content": content}}
    return event("thread.message.delta", body)


DONE: Final = event("done", "[DONE]")


class StreamServer:
    """Answers every request with the script: bytes are sent as a chunk, a float is a pause in seconds.

    Attributes:
        script: The pieces to send.
        requests: Head and body of each request.
        connections: Number of connections that were opened.
        sent: Number of bytes of the script that the kernel accepted.
        left: Set when a client has closed its connection before the body's end.
    """

    def __init__(self, *script: Piece, status: int = 200, kind: str = "text/event-stream") -> None:
        self.script = script
        self.requests: list[tuple[str, bytes]] = []
        self.connections = 0
        self.sent = 0
        self.left = asyncio.Event()
        self._status = status
        self._kind = kind
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def body(self, number: int = -1) -> Any:
        return json.loads(self.requests[number][1])

    @property
    def base_url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except ConnectionError:
            self.left.set()
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lengths = [line.split(":")[1] for line in head.splitlines() if line.lower().startswith("content-length")]
        self.requests.append((head, await reader.readexactly(int(lengths[0]) if lengths else 0)))
        if self.script[0] == STOP:  # before the headers
            assert await reader.read() == b""
            self.left.set()
            return False
        writer.write(
            f"HTTP/1.1 {self._status} Said\r\nContent-Type: {self._kind}\r\nx-request-id: req_1\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        before = b""
        for piece in self.script:
            if isinstance(piece, bytes):
                before = piece
                await self._write(writer, piece)
            elif isinstance(piece, float):
                await asyncio.sleep(piece)
            elif piece == FLOOD:
                while True:
                    await self._write(writer, before)
            elif piece == STOP:
                await writer.drain()
                assert await reader.read() == b""
                self.left.set()
            elif piece == BREAK:
                await writer.drain()
                return False
            else:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        return True

    async def _write(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
        self.sent += len(piece)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
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
