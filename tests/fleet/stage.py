"""A server in memory for the tests of a fleet, runs on it, and a transport that can fail like no server does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import anyio

from asyncruns import Client, Toolset
from asyncruns.abc import ByteStream, Transport
from asyncruns.http import Request, Response
from asyncruns.testing import FunctionCall, InMemoryTransport, Scenario
from asyncruns.wire import ModelResponse, Run

ASSISTANT: Final = "asst_1"
MODEL: Final = "gpt-test"
ONE_CALL: Final = (FunctionCall("f", {"n": 1}),)
LATENCY_S: Final = 0.01


class Passing(Transport):
    """Passes requests on; calls `before` with each of them first, which may raise."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.before: Callable[[Request], object] = lambda request: None
        self.unanswered = 0
        self.most_unanswered = 0

    async def send(self, request: Request) -> Response:
        self.before(request)
        self.unanswered += 1
        self.most_unanswered = max(self.most_unanswered, self.unanswered)
        try:
            return await self._inner.send(request)
        finally:
            self.unanswered -= 1

    async def stream(self, request: Request) -> Response | ByteStream:
        return await self._inner.stream(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


class Stage:
    """A server, a client of it, and what both have seen."""

    def __init__(self) -> None:
        self.server = InMemoryTransport(latency=LATENCY_S)
        self.transport = Passing(self.server)
        self.client = Client(transport=self.transport, max_retries=0)

    async def run(self, **scenario: Any) -> Run:
        """Start a run with this scenario."""
        self.server.script(Scenario(**scenario), assistant_id=ASSISTANT)
        return await self.client.threads.create_and_run(assistant_id=ASSISTANT)

    async def runs(self, count: int, **scenario: Any) -> list[Run]:
        return [await self.run(**scenario) for _ in range(count)]

    async def response(self, **scenario: Any) -> ModelResponse:
        """Start a response with this scenario."""
        self.server.script(Scenario(**scenario), model=MODEL)
        return await self.client.responses.create(model=MODEL, input="Hello", background=True)

    def count(self, operation: str, run: Run | ModelResponse | None = None) -> int:
        return len(self.times(operation, run))

    def times(self, operation: str, run: Run | ModelResponse | None = None) -> list[float]:
        """Return the times of the requests of an operation, for all runs or for one."""
        requests = [seen for seen in self.server.requests if seen.operation == operation]
        return [seen.at for seen in requests if run is None or seen.run_id == run.id]


class Tools(Toolset):
    """One tool, which takes some seconds, and whose calls are counted."""

    def __init__(self, takes: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.takes = takes
        self.ran = 0
        self.stopped = 0
        self.running = 0
        self.most_running = 0
        self.tool(self.f)

    async def f(self, n: int) -> str:
        self.ran += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await anyio.sleep(self.takes)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        finally:
            self.running -= 1
        return f"out {n}"


def other_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
