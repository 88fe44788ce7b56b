"""A cheap server of ten thousand runs: the answers are made in advance.

Runs in a process of its own, prints its port, and serves until its standard input is closed. It reads only the first
line of a request, with the ids at fixed positions. Requests have no bodies.

    POST /start?n=1000&seed=1&plan=at_once   draws the runs and begins; returns `started` and when each run `arrives`
    GET /v1/threads/thread_<24 digits>/runs/run_<24 digits>
    GET /ends                                returns when each run ended, and the costs; times are `time.monotonic()`

Runs with numbers from `n` on are for warm-up: each ends 1.5 s after its first poll.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

BODY_BYTES: Final = 1024
DIGITS: Final = 24
WARM_UP_S: Final = 1.5
EXPIRES_IN_S: Final = 86_400
SECOND_S: Final = 1.0 - 1e-6  # sums of floats come out a little short
BACKLOG: Final = 16_384

_PREFIX: Final = b"GET /v1/threads/thread_"
_RUN_AT: Final = len(_PREFIX) + DIGITS + len(b"/runs/run_")
_RUN_TO: Final = _RUN_AT + DIGITS


class Planned(NamedTuple):
    """A planned run: its arrival after the start and its duration, in seconds, and its kind."""

    arrives: float
    lasts: float
    kind: str


def at_once(count: int, seed: int) -> list[Planned]:
    """Draw runs that all begin at the start and last about 5 s."""
    draw = random.Random(seed)
    return [Planned(0.0, draw.lognormvariate(math.log(5.0), 0.6), "any") for _ in range(count)]


def mixed(count: int, seed: int) -> list[Planned]:
    """Draw runs that arrive over two minutes, 60 % of which last about 2 s and the others about 45 s."""
    draw = random.Random(seed)
    kinds = [("short", 2.0) if draw.random() < 0.6 else ("long", 45.0) for _ in range(count)]
    arrivals = sorted(draw.uniform(0.0, 120.0) for _ in range(count))
    return [
        Planned(arrives, draw.lognormvariate(math.log(median), 0.3), kind)
        for arrives, (kind, median) in zip(arrivals, kinds, strict=True)
    ]


PLANS: Final[Mapping[str, Callable[[int, int], list[Planned]]]] = {"at_once": at_once, "mixed": mixed}


def ids(number: int) -> tuple[str, str]:
    """Return the thread_id and the run_id of a run."""
    return f"thread_{number:0{DIGITS}}", f"run_{number:0{DIGITS}}"


def run_body(number: int, created_at: float, completed_at: float | None = None) -> bytes:
    """Return the JSON of a run as in the API, 1 KB for any status."""
    thread_id, run_id = ids(number)
    run = {
        "id": run_id,
        "object": "thread.run",
        "created_at": int(created_at),
        "assistant_id": "asst_abc123",
        "thread_id": thread_id,
        "status": "in_progress" if completed_at is None else "completed",
        "started_at": int(created_at),
        "expires_at": int(created_at) + EXPIRES_IN_S,
        "cancelled_at": None,
        "failed_at": None,
        "completed_at": None if completed_at is None else int(completed_at),
        "required_action": None,
        "last_error": None,
        "model": "gpt-4o",
        "instructions": "",
        "tools": [],
        "tool_resources": {},
        "metadata": {"user": "42"},
        "temperature": 1.0,
        "top_p": 1.0,
        "max_completion_tokens": None,
        "max_prompt_tokens": None,
        "truncation_strategy": {"type": "auto", "last_messages": None},
        "incomplete_details": None,
        "usage": None,
        "response_format": "auto",
        "tool_choice": "auto",
        "parallel_tool_calls": True,
    }
    left = BODY_BYTES - len(json.dumps(run))
    run["instructions"] = ("You help with the weather. " * (left // 27 + 1))[:left]
    return json.dumps(run).encode()


class Budget:
    """Accepts at most `most` requests in any one second."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: deque[float] = deque()

    def takes(self, now: float) -> bool:
        """Return whether a request at this time is accepted, and count it if so."""
        while self._taken and self._taken[0] <= now - SECOND_S:
            self._taken.popleft()
        if len(self._taken) >= self._most:
            return False
        self._taken.append(now)
        return True


class Runs:
    """The runs, their answers, and the costs of serving them."""

    def __init__(self, budget: int | None) -> None:
        """Make the server's state; with a budget, more polls than that in any one second are answered with 429."""
        self.connections = self.most_connections = 0
        self._budget = Budget(budget) if budget else None
        self._ends: list[float] = []
        self._created: list[float] = []
        self._waiting: list[bytes] = []
        self._warming: dict[int, float] = {}
        self._polls = self._refused = 0
        self._cpu = time.process_time()
        self._seconds: list[tuple[int, float]] = []
        self.each_second()

    def each_second(self) -> None:
        """Make the head that the answers of the next second share, and record the costs of the last second."""
        self._head = (
            f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: {formatdate(usegmt=True)}\r\n"
            "x-request-id: req_0123456789abcdef0123456789abcdef\r\nopenai-processing-ms: 60\r\n"
            f"openai-version: 2020-10-01\r\ncontent-length: {BODY_BYTES}\r\n\r\n"
        ).encode()
        self._seconds.append((self._polls, time.process_time()))

    def answer(self, line: bytes) -> bytes:
        """Return the answer to a poll, as bytes of HTTP."""
        number, now = int(line[_RUN_AT:_RUN_TO]), time.monotonic()
        if self._budget is not None and not self._budget.takes(now):
            self._refused += 1
            return _error(429)
        if number >= len(self._ends):
            return self._warm_up(number, now)
        self._polls += 1
        if now < self._ends[number]:
            return self._head + self._waiting[number]
        return self._head + run_body(number, self._created[number], time.time() - (now - self._ends[number]))

    def control(self, line: bytes) -> bytes:
        """Return the answer to `/start` or `/ends`."""
        url = urlsplit(line.split(b" ", 2)[1].decode())
        if url.path == "/start":
            options = dict(parse_qsl(url.query))
            return _json(self._start(PLANS[options["plan"]](int(options["n"]), int(options["seed"]))))
        return _json(self._report()) if url.path == "/ends" else _error(404)

    def _start(self, plan: list[Planned]) -> dict[str, object]:
        self._created = [time.time() + run.arrives for run in plan]
        self._waiting = [run_body(n, created) for n, created in enumerate(self._created)]
        self._cpu, self._polls, self._refused = time.process_time(), 0, 0
        self._seconds.clear()
        self._seconds.append((0, self._cpu))
        self.most_connections = self.connections
        now = time.monotonic()
        self._ends = [now + run.arrives + run.lasts for run in plan]
        return {"started": now, "arrives": [run.arrives for run in plan], "kinds": [run.kind for run in plan]}

    def _report(self) -> dict[str, object]:
        busiest = max(
            ((after[0] - before[0], after[1] - before[1]) for before, after in itertools.pairwise(self._seconds)),
            default=(0, 0.0),
        )
        return {
            "ends": self._ends,
            "polls": self._polls,
            "refused": self._refused,
            "most_connections": self.most_connections,
            "cpu_seconds": time.process_time() - self._cpu,
            "busiest_second": {"polls": busiest[0], "cpu_share": busiest[1]},
        }

    def _warm_up(self, number: int, now: float) -> bytes:
        lasted = now - self._warming.setdefault(number, now)
        return self._head + run_body(number, time.time() - lasted, time.time() if lasted >= WARM_UP_S else None)


def _json(value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def _error(status: int) -> bytes:
    body = b'{"error": {"message": "No.", "type": "requests", "param": null, "code": null}}'
    head = b"HTTP/1.1 %d No\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
    return head + body


class Connection(asyncio.Protocol):
    """One connection. It counts from its first poll on, so that connections of the benchmark itself are not counted."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._rest = b""
        self._counts = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._write = transport.write

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        if data.find(b"\r\n\r\n") == len(data) - 4:  # exactly one complete request, as nearly always
            self._rest = b""
            self._write(self._answer(data))
            return
        *requests, self._rest = data.split(b"\r\n\r\n")
        for request in requests:
            self._write(self._answer(request))

    def _answer(self, request: bytes) -> bytes:
        if not request.startswith(_PREFIX):
            return self._runs.control(request)
        if not self._counts:
            self._counts = True
            self._runs.connections += 1
            self._runs.most_connections = max(self._runs.most_connections, self._runs.connections)
        return self._runs.answer(request)

    def connection_lost(self, error: Exception | None) -> None:
        if self._counts:
            self._runs.connections -= 1


async def serve(budget: int | None) -> None:
    loop = asyncio.get_running_loop()
    runs = Runs(budget)
    server = await loop.create_server(lambda: Connection(runs), "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)

    async def tick() -> None:
        while True:
            await asyncio.sleep(1.0)
            runs.each_second()

    ticking = asyncio.create_task(tick())
    await loop.run_in_executor(None, sys.stdin.read)
    ticking.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--budget", type=int, help="polls that are accepted in any one second; the answer to more is 429"
    )
    asyncio.run(serve(parser.parse_args().budget))


if __name__ == "__main__":
    main()
