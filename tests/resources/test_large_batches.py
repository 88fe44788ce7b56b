"""The memory that a batch of 50,000 requests and 195 MB takes, and how long it keeps the event loop, in a process."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from asyncruns import Client

REQUESTS = 50_000
LENGTH = 3_800
MOST_GROWTH = 64 * 1024 * 1024
LONGEST_STALL_S = 0.5  # with room for a machine that does other things


@pytest.mark.slow
def test_a_batch_of_195_mb_takes_little_memory_and_never_stalls_the_loop() -> None:
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["what"] for report in reports] == ["create", "reconcile", "unanswered"]
    assert max(report["grown"] for report in reports) < MOST_GROWTH, reports
    assert max(report["stall"] for report in reports) < LONGEST_STALL_S, reports


def bodies() -> Iterator[dict[str, Any]]:
    return ({"model": "m", "input": f"{number:{LENGTH}}"} for number in range(REQUESTS))


def app() -> Any:
    """Return a server that counts what it receives, and sends a result for each request but the last."""
    from aiohttp import web

    batch = {"id": "batch_1", "object": "batch", "status": "completed", "input_file_id": "in", "output_file_id": "out"}

    async def receive(request: web.Request) -> web.Response:
        size = sum([len(piece) async for piece in request.content.iter_any()])
        return web.json_response({"id": "in", "object": "file", "bytes": size})

    async def create(request: web.Request) -> web.Response:
        return web.json_response(batch)

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        text = "x" * LENGTH
        for number in range(1, REQUESTS + (request.match_info["id"] == "in")):
            name = f"request-{number}"
            body = {"id": "1", "choices": [{"message": {"content": text}}]}
            line = {"custom_id": name, "body": body, "response": {"status_code": 200, "body": body}}
            await response.write(json.dumps(line).encode() + b"\n")
        return response

    served = web.Application(client_max_size=2 * 10**8)
    served.router.add_post("/files", receive)
    served.router.add_post("/batches", create)
    served.router.add_get("/files/{id}/content", send)
    return served


class Meter:
    """Measures how far the memory grows, and how long the loop is kept at once."""

    def __init__(self) -> None:
        self._start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._stall = 0.0
        self._task = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self._stall = max(self._stall, time.perf_counter() - before)

    def report(self, what: str) -> None:
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._start) * 1024
        sys.stdout.write(json.dumps({"what": what, "grown": grown, "stall": round(self._stall, 4)}) + "\n")
        self._stall = 0.0


async def main() -> None:
    """Create a batch, reconcile it, and ask what is not answered; report after each."""
    from aiohttp import web

    runner = web.AppRunner(app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with Client(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        await client.batches.create(requests=[next(bodies())], endpoint="/v1/embeddings")  # imports everything
        meter = Meter()
        batch = await client.batches.create(requests=bodies(), endpoint="/v1/embeddings")
        meter.report("create")
        outcome = await client.watch(batch)
        found = await outcome.reconcile(f"request-{number}" for number in range(1, REQUESTS + 1))
        assert (len(found.answered), found.missing) == (REQUESTS - 1, (f"request-{REQUESTS}",))
        meter.report("reconcile")
        assert [custom_id async for custom_id, _ in outcome.unanswered()] == [f"request-{REQUESTS}"]
        meter.report("unanswered")
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
