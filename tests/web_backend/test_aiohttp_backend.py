"""The example for aiohttp.web, with several workers, as its users, its platform and a sender of webhooks see it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from backend import ROOT, SECRET

from asyncruns import SQLiteJournal
from asyncruns.testing import Emulator, FunctionCall, Scenario

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio, pytest.mark.slow]
EXAMPLE = ROOT / "examples" / "aiohttp_backend.py"
CALLING = Scenario(working=0.3, rounds=((FunctionCall("get_weather", {"city": "Paris"}),),), answer="Sunny.")
PATIENCE_S = 15.0


class Workers:
    """The workers on one port, or on two. The ports are held, so that nothing else gets them."""

    def __init__(self, folder: Path, emulator: Emulator, ports: list[int], http: aiohttp.ClientSession) -> None:
        self.emulator = emulator
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.running: list[asyncio.subprocess.Process] = []
        self._folder, self._ports, self._http = folder, ports, http

    async def start(self, *ports: int) -> None:
        """Start a worker for each port that is named by its number, and wait until it answers."""
        settings = {"ASYNCRUNS_BASE_URL": self.emulator.base_url, "ASYNCRUNS_API_KEY": "any-key"}
        for port in ports:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "error", "-u", str(EXAMPLE)),
                cwd=self._folder,
                env={**os.environ, **settings, "OPENAI_WEBHOOK_SECRET": SECRET, "PORT": str(self._ports[port])},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            self.running.append(process)
        for process in self.running[-len(ports) :]:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
            assert b"Running" in line, await process.communicate()

    async def stop(self, process: asyncio.subprocess.Process, how: signal.Signals) -> str:
        """End a worker as a platform does, or as a crash does; return what it has logged."""
        self.running.remove(process)
        process.send_signal(how)
        _, logged = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert process.returncode == (0 if how is signal.SIGTERM else -how)
        return logged.decode()

    async def ask(self, text: str) -> str:
        async with self._http.post(f"{self.urls[0]}/questions", data=text) as response:
            assert response.status == 202, await response.text()
            name: str = (await response.json())["id"]
            return name

    async def get(self, name: str) -> tuple[int, Any]:
        async with self._http.get(f"{self.urls[-1]}/questions/{name}") as response:
            return response.status, await response.json() if response.ok else await response.text()

    async def answer(self, name: str) -> Any:
        """Fetch the state of a question until there is an answer; return that."""
        async with asyncio.timeout(PATIENCE_S):
            while (found := await self.get(name))[0] == 202:
                await asyncio.sleep(0.1)
        assert found[0] == 200
        return found[1]

    async def announce(self, event: dict[str, Any]) -> int:
        """Send a webhook that is not signed; return the status of the answer."""
        async with self._http.post(f"{self.urls[-1]}/webhooks", json=event) as response:
            return response.status

    async def all_created(self) -> None:
        """Wait until the journal has the responses of all questions."""
        async with SQLiteJournal(self._folder / "questions.db") as journal, asyncio.timeout(PATIENCE_S):
            while not all(record.ref for record in await journal.read()):
                await asyncio.sleep(0.02)

    def seen(self, operation: str) -> list[str]:
        return [seen.path for seen in self.emulator.requests if seen.operation == operation]


@asynccontextmanager
async def workers(folder: Path, scenario: Scenario, *starts: int, **more: Any) -> AsyncIterator[Workers]:
    """Start workers; webhooks go to the last port."""
    with socket.socket() as first, socket.socket() as second:
        sockets = [first, second][: max(starts) + 1]
        for held in sockets:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(("127.0.0.1", 0))
        ports = [held.getsockname()[1] for held in sockets]
        url = f"http://127.0.0.1:{ports[-1]}/webhooks"
        connector = aiohttp.TCPConnector(force_close=True)  # each request may meet another worker
        async with (
            Emulator(lambda request: scenario, webhook_url=url, webhook_secret=SECRET, **more) as emulator,
            aiohttp.ClientSession(connector=connector) as http,
        ):
            running = Workers(folder, emulator, ports, http)
            try:
                await running.start(*starts)
                yield running
            finally:
                for process in [*running.running]:
                    await running.stop(process, signal.SIGKILL)


async def test_no_question_is_lost_or_answered_twice_when_all_workers_are_killed(tmp_path: Path) -> None:
    async with workers(tmp_path, CALLING, 0, 0) as running:
        names = [await running.ask("Weather in Paris?") for _ in range(6)]
        await running.all_created()  # and no output was submitted yet: a tool takes 1 s
        for process in [*running.running]:
            await running.stop(process, signal.SIGKILL)
        await running.start(0, 0)
        answers = await asyncio.gather(*[running.answer(name) for name in names])
        assert answers == [{"status": "completed", "answer": "Sunny."}] * len(names)
        assert len(running.seen("create_response")) == len(running.seen("submit")) == len(names)


async def test_a_question_that_was_just_asked_survives_a_kill(tmp_path: Path) -> None:
    async with workers(tmp_path, CALLING, 0) as running:
        names = [await running.ask("Weather in Paris?") for _ in range(3)]
        await running.stop(running.running[0], signal.SIGKILL)
        await running.start(0)
        for name in names:
            assert await running.answer(name) == {"status": "completed", "answer": "Sunny."}


async def test_a_worker_that_is_stopped_leaves_its_questions_to_another(tmp_path: Path) -> None:
    async with workers(tmp_path, CALLING, 0) as running:
        name = await running.ask("Weather in Paris?")
        await running.all_created()
        await running.start(0)
        assert await running.stop(running.running[0], signal.SIGTERM) == ""
        assert await running.answer(name) == {"status": "completed", "answer": "Sunny."}
        assert len(running.seen("create_response")) == len(running.seen("submit")) == 1
        assert not running.seen("cancel")


async def test_a_webhook_at_one_worker_makes_another_one_poll(tmp_path: Path) -> None:
    polled_rarely = {"poll_after_ms": 30_000.0}
    async with workers(tmp_path, Scenario(working=3.0, answer="Sunny."), 0, 1, **polled_rarely) as running:
        name = await running.ask("Weather in Paris?")
        assert await running.get(name) == (202, {"status": "running", "answer": None})
        assert await running.answer(name) == {"status": "completed", "answer": "Sunny."}
        assert len(running.seen("poll")) <= 3


async def test_unknown_questions_and_webhooks_that_are_not_signed_are_refused(tmp_path: Path) -> None:
    async with workers(tmp_path, CALLING, 0) as running:
        for name in ("0" * 32, "none", "..%2fquestions.db"):
            assert (await running.get(name))[0] == 404
        assert await running.announce({"type": "response.completed"}) == 400
