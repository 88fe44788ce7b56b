"""A cheap server of runs: each run begins when it is first polled, makes one tool call, and completes.

Runs in a process of its own, prints its port, and serves until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Final

WORKS_S: Final = 6.0  # before the tool call, and again before it completes
_PATH: Final = re.compile(rb"(GET|POST) /v1/threads/[^/]+/runs/([^/ ]+)(/submit_tool_outputs)? ")


class Runs:
    """The runs by id, with the times of the first request and of the submit."""

    def __init__(self) -> None:
        self._begun: dict[bytes, float] = {}
        self._submitted: dict[bytes, float] = {}

    def answer(self, request: bytes) -> bytes:
        """Return the answer to one request, as bytes of HTTP."""
        found = _PATH.match(request)
        if not found:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        run_id, now = found[2], time.monotonic()
        begun = self._begun.setdefault(run_id, now)
        if found[3]:
            self._submitted.setdefault(run_id, now)
        submitted = self._submitted.get(run_id)
        if submitted is None:
            status = "in_progress" if now - begun < WORKS_S else "requires_action"
        else:
            status = "in_progress" if now - submitted < WORKS_S else "completed"
        body = json.dumps(_run(run_id.decode(), status)).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        return head + body


def _run(run_id: str, status: str) -> dict[str, object]:
    action = None
    if status == "requires_action":
        function = {"name": "look_up", "arguments": '{"key": "a"}'}
        calls = [{"id": f"call_{run_id}", "type": "function", "function": function}]
        action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}
    return {
        "id": run_id,
        "object": "thread.run",
        "created_at": 1_750_000_000,
        "assistant_id": "asst_abc123",
        "thread_id": "thread_abc123",
        "status": status,
        "required_action": action,
        "expires_at": None,
        "last_error": None,
        "model": "gpt-4o",
        "instructions": "You help with the weather. " * 20,
        "tools": [],
        "metadata": {"user": "42"},
        "usage": None,
    }


class Connection(asyncio.Protocol):
    """One connection; requests may arrive in parts."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            length = re.search(rb"(?i)content-length: *(\d+)", self._read[:end])
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._read) < whole:
                return
            request, self._read = self._read[:whole], self._read[whole:]
            assert isinstance(self._transport, asyncio.WriteTransport)
            self._transport.write(self._runs.answer(request))


async def main() -> None:
    loop = asyncio.get_running_loop()
    runs = Runs()
    server = await loop.create_server(lambda: Connection(runs), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
