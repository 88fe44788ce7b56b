"""A cheap server of runs that work, may ask for one tool call, work again, and complete.

`journal_fleet.py` and `temporal.py` start it as a process of its own; it prints its port, and serves until its standard
input is closed. All runs begin at the first request; they last as long as their numbers say. `GET /report` returns when
each ended, by `time.monotonic()`, and what was asked.

    python benchmarks/journal_server.py --runs 10000 --lasts 150 [--tools]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import time
from typing import Any, Final

_PATH: Final = re.compile(rb"(GET|POST) /v1/threads/[^/]+/runs/run_(\d+)(/submit_tool_outputs)? ")
_LENGTH: Final = re.compile(rb"(?i)content-length: *(\d+)")
LEAST: Final = 0.4  # of the longest


class Runs:
    """When each run asks for its call, and ends."""

    def __init__(self, count: int, lasts: float, tools: bool) -> None:
        draw = random.Random(1)
        self._lasts = [draw.uniform(LEAST * lasts, lasts) for _ in range(count)]
        self._tools = tools
        self._began: float | None = None
        self._submitted: dict[int, float] = {}
        self._polls = self._submits = self._twice = 0
        self._polled: set[int] = set()
        self._first_polls_took_s: float | None = None
        self._created_at = int(time.time())

    def answer(self, request: bytes) -> bytes:
        """Return the answer to one request, as bytes of HTTP."""
        if request.startswith(b"GET /report"):
            return _http(self._report())
        found = _PATH.match(request)
        if not found:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        number, now = int(found[2]), time.monotonic()
        if self._began is None:
            self._began = now
        if found[3]:
            self._submits += 1
            self._twice += number in self._submitted
            self._submitted.setdefault(number, now)
        else:
            self._polls += 1
            self._polled.add(number)
            if self._first_polls_took_s is None and len(self._polled) == len(self._lasts):
                self._first_polls_took_s = now - self._began
        return _http(self._run(number, self._status(number, now)))

    def _ends_at(self, number: int) -> float | None:
        """Return when a run ends; None if that is not known yet. With a call, it works for half of its time before."""
        lasts = self._lasts[number]
        if not self._tools:
            return (self._began or 0.0) + lasts
        submitted = self._submitted.get(number)
        return None if submitted is None else submitted + lasts / 2

    def _status(self, number: int, now: float) -> str:
        ends_at = self._ends_at(number)
        if ends_at is not None:
            return "in_progress" if now < ends_at else "completed"
        return "in_progress" if now < (self._began or 0.0) + self._lasts[number] / 2 else "requires_action"

    def _report(self) -> dict[str, Any]:
        ends = [self._ends_at(number) for number in range(len(self._lasts))]
        return {
            "ends": ends,
            "polls": self._polls,
            "submits": self._submits,
            "submitted_twice": self._twice,
            "first_polls_took_s": self._first_polls_took_s,
        }

    def _run(self, number: int, status: str) -> dict[str, Any]:
        function = {"name": "look_up", "arguments": f'{{"key": "{number}"}}'}
        calls = [{"id": f"call_{number:024}", "type": "function", "function": function}]
        action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}
        return {
            "id": f"run_{number:024}",
            "object": "thread.run",
            "created_at": self._created_at,
            "assistant_id": "asst_abc123",
            "thread_id": f"thread_{number:024}",
            "status": status,
            "required_action": action if status == "requires_action" else None,
            "expires_at": self._created_at + 86_400,
            "last_error": None,
            "model": "gpt-4o",
            "instructions": "You help with the weather. " * 20,
            "tools": [],
            "metadata": {"user": "42"},
            "usage": None,
        }


def _http(body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data


class Connection(asyncio.Protocol):
    """One connection; requests may arrive in parts."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._read, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._read) < whole:
                return
            request, self._read = self._read[:whole], self._read[whole:]
            self._transport.write(self._runs.answer(request))


async def serve(runs: Runs) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(runs), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--lasts", type=float, required=True, help="seconds that the longest run lasts")
    parser.add_argument("--tools", action="store_true")
    args = parser.parse_args()
    asyncio.run(serve(Runs(args.runs, args.lasts, args.tools)))


if __name__ == "__main__":
    main()
