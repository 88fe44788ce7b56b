"""Runs `examples/web_backend` under uvicorn in a process of its own, with an emulator that sends it webhooks."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from asyncruns.testing import Emulator, Scenario
from asyncruns.testing.emulator import default_scenario

ROOT = Path(__file__).parent.parent.parent
SECRET = "whsec_" + b64encode(secrets.token_bytes(24)).decode()


class Backend:
    """A running backend, as a browser and a sender of webhooks see it."""

    def __init__(self, url: str, emulator: Emulator, process: asyncio.subprocess.Process) -> None:
        self.url = url
        self.emulator = emulator
        self.process = process
        self.http = aiohttp.ClientSession(url)

    async def ask(self, text: str, **more: Any) -> str:
        async with self.http.post("/questions", json={"text": text, **more}) as response:
            assert response.status == 200, await response.text()
            found: str = (await response.json())["id"]
            return found

    async def events(self, question: str) -> AsyncIterator[dict[str, Any]]:
        """Yield what a tab gets, without the question itself."""
        async with self.http.get(f"/questions/{question}/events") as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            async for line in response.content:
                if line.startswith(b"data: {"):
                    yield json.loads(line.removeprefix(b"data: "))

    async def health(self) -> dict[str, Any]:
        async with self.http.get("/health") as response:
            found: dict[str, Any] = await response.json()
            return found

    async def stop(self) -> None:
        """End it as a platform does."""
        self.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(self.process.wait(), 15)

    def cancelled(self) -> int:
        return sum(seen.operation == "cancel" for seen in self.emulator.requests)


@asynccontextmanager
async def backend(scenario: Scenario | None = None) -> AsyncIterator[Backend]:
    """Run the backend; by default each run calls each tool once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    async with Emulator(
        default_scenario if scenario is None else lambda request: scenario,
        webhook_url=f"{url}/webhooks",
        webhook_secret=SECRET,
    ) as emulator:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "examples.web_backend.app:app"),
            *("--port", str(port), "--timeout-graceful-shutdown", "1", "--log-level", "warning"),
            cwd=ROOT,
            env={**os.environ, "ASYNCRUNS_BASE_URL": emulator.base_url, "OPENAI_WEBHOOK_SECRET": SECRET},
            stderr=asyncio.subprocess.PIPE,
        )
        running = Backend(url, emulator, process)
        try:
            await _started(running)
            yield running
        finally:
            await running.http.close()
            if process.returncode is None:
                process.kill()
                await process.wait()
            if process.stderr is not None:
                await process.stderr.read()


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
