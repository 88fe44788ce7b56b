"""Runs `examples/web_backend` under uvicorn in a process of its own, with an emulator that sends it webhooks."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from asyncruns.testing import Emulator, Scenario
from asyncruns.testing.emulator import default_scenario

ROOT = Path(__file__).parent.parent.parent
MOST_FAILURES = 100  # to connect, in a row, 0.2 s apart
SECRET = "whsec_" + b64encode(secrets.token_bytes(24)).decode()


class Backend:
    """A running backend, as a browser and a sender of webhooks see it."""

    def __init__(self, url: str, emulator: Emulator, journal: Path) -> None:
        self.url = url
        self.emulator = emulator
        self.process: asyncio.subprocess.Process
        self.http = aiohttp.ClientSession(url)
        self._settings = {"OPENAI_WEBHOOK_SECRET": SECRET, "JOURNAL": str(journal), "RELOAD_S": "2"}

    async def ask(self, text: str, **more: Any) -> str:
        async with self.http.post("/questions", json={"text": text, **more}) as response:
            assert response.status == 200, await response.text()
            found: str = (await response.json())["id"]
            return found

    async def events(self, question: str) -> AsyncIterator[dict[str, Any]]:
        """Yield what a tab gets, without the question itself; connect again as a browser does until there is an end."""
        failures = 0
        while True:
            try:
                async with self.http.get(f"/questions/{question}/events") as response:
                    assert response.status == 200, await response.text()
                    assert response.content_type == "text/event-stream"
                    failures = 0
                    async for line in response.content:
                        if line.startswith(b"data: {"):
                            yield (event := json.loads(line.removeprefix(b"data: ")))
                            if event["event"] == "Ended":
                                return
            except aiohttp.ClientConnectionError:  # its worker was killed after it had accepted the connection, say
                failures += 1
                if failures > MOST_FAILURES:
                    raise
            await asyncio.sleep(0.2)

    async def health(self) -> dict[str, Any]:
        async with self.http.get("/health") as response:
            found: dict[str, Any] = await response.json()
            return found

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it as a platform does."""
        self.process.send_signal(how)
        await asyncio.wait_for(self.process.wait(), 15)
        await self.process.communicate()

    async def start(self, *options: str) -> None:
        """Start it, or start it again, and wait until it answers."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "examples.web_backend.app:app", "--port", self.url.rpartition(":")[2]),
            *("--timeout-graceful-shutdown", "1", "--log-level", "warning", *options),
            cwd=ROOT,
            env={**os.environ, "ASYNCRUNS_BASE_URL": self.emulator.base_url, **self._settings},
            stderr=asyncio.subprocess.PIPE,
        )
        await _started(self)

    def workers(self) -> list[int]:
        """Return the ids of the worker processes that uvicorn has started with `--workers`."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]

    def seen(self, operation: str) -> int:
        return sum(seen.operation == operation for seen in self.emulator.requests)


@asynccontextmanager
async def backend(
    scenario: Scenario | None = None, *options: str, poll_after_ms: float | None = None
) -> AsyncIterator[Backend]:
    """Run the backend, with these options of uvicorn; by default each run calls each tool once."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
            script = default_scenario if scenario is None else lambda request: scenario
            emulator = Emulator(
                script, webhook_url=f"{url}/webhooks", webhook_secret=SECRET, poll_after_ms=poll_after_ms
            )
            await stack.enter_async_context(emulator)  # before the port is free, or it could get this one
        running = Backend(url, emulator, Path(folder, "questions.db"))
        try:
            await running.start(*options)
            yield running
        finally:
            await running.http.close()
            if running.process.returncode is None:
                running.process.terminate()  # a kill would leave the workers
                await running.process.communicate()


async def _started(running: Backend) -> None:
    for _ in range(300):
        try:
            await running.health()
        except aiohttp.ClientConnectionError:
            assert running.process.returncode is None, await running.process.communicate()
            await asyncio.sleep(0.1)
        else:
            return
    raise AssertionError("the backend did not start")
