"""Begins runs on either wire, and watches them in each way: shared by the suites that cover all combinations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Literal

import anyio
import pytest
from hostile_world import free_port
from shells import SHELLS, OneWatch, Shell

from asyncruns import Client, Toolset
from asyncruns.abc import RunClient
from asyncruns.streams.event_stream import source_of
from asyncruns.streams.response_stream import ResponseStream
from asyncruns.streams.run_stream import RunStream
from asyncruns.testing import Emulator, FunctionCall, Scenario
from asyncruns.watch.outcome import AnyOutcome

Name = Literal["threads", "responses"]
MODEL: Final = "gpt-test"
ASSISTANT: Final = "asst_1"
TWO_CALLS: Final = (FunctionCall("get_weather", {"city": "Paris"}), FunctionCall("add", {"a": 1, "b": 2}))
ONE_CALL: Final = (FunctionCall("add", {"a": 3, "b": 4}),)
TWO_ROUNDS: Final = (TWO_CALLS, ONE_CALL)
PAUSES: Final = {"threads": "requires_action", "responses": "completed"}  # the status of a run that has calls open


class Wire:
    """Begins runs on one wire, and returns their watches in one of the shells."""

    def __init__(self, name: Name, emulator: Emulator, client: Client, shell: Shell, *, streams: bool) -> None:
        self.name = name
        self.shell = shell
        self.streams: dict[str, RunStream | ResponseStream] | None = {} if streams else None
        self.emulator = emulator
        self.client = client
        self.connection: RunClient[Any] = client if name == "threads" else client.responses.continued()

    @property
    def has_new_run_each_round(self) -> bool:
        return self.name == "responses"

    async def start(self, **scenario: Any) -> Any:
        """Begin a run of a scenario."""
        self.emulator.script(Scenario(**scenario), **self._creator())
        stream: Any = {} if self.streams is None else {"stream": True}
        if self.name == "responses":
            begun: Any = await self.client.responses.create(model=MODEL, input="Hello", background=True, **stream)
        else:
            thread = await self.client.threads.create(messages=[{"role": "user", "content": "Hello"}])
            begun = await self.client.threads.runs.create(thread.id, assistant_id=ASSISTANT, **stream)
        if self.streams is None:
            return begun
        await anext(begun)
        run: Any = source_of(begun).resource
        self.streams[run.id] = begun
        return run

    def watcher(self, run: Any, **options: Any) -> OneWatch:
        if self.streams is not None:
            run = self.streams.pop(run.id, run)  # a second watch has no stream
        return self.shell(self.connection, run, **options)

    async def watch(self, run: Any, **options: Any) -> AnyOutcome[Any]:
        async with self.watcher(run, **options) as watcher:
            return await watcher.wait()

    async def run(self, scenario: Scenario, **options: Any) -> AnyOutcome[Any]:
        """Create and watch a run in one call, as `Client.run` does."""
        self.emulator.script(scenario, **self._creator())
        start = {"assistant_id": ASSISTANT} if self.name == "threads" else {"model": MODEL}
        outcome: AnyOutcome[Any] = await self.client.run(message="Hello", **start, **options)  # type: ignore[call-overload]
        return outcome

    async def cancel(self, run: Any) -> None:
        """Cancel the run as another client."""
        if self.name == "threads":
            await self.client.threads.runs.cancel(run.id, thread_id=run.thread_id)
        else:
            await self.client.responses.cancel(run.id)

    async def delete(self, run: Any) -> None:
        """Delete the run, as far as the API allows."""
        if self.name == "threads":
            await self.client.threads.delete(run.thread_id)
        else:
            await self.client.responses.delete(run.id)

    def submitted(self, outcome: AnyOutcome[Any]) -> list[list[str]]:
        """Return the outputs of each round that was accepted before this outcome."""
        return [sorted(round_.values()) for round_ in self.emulator.submitted(outcome.ref.ids[-1])]

    def count(self, operation: str) -> int:
        return sum(seen.operation == operation for seen in self.emulator.requests)

    def _creator(self) -> dict[str, Any]:
        return {"assistant_id": ASSISTANT} if self.name == "threads" else {"model": MODEL}


WAYS: Final = [*SHELLS, "streamed", "streamed fleet"]
about_polls = pytest.mark.parametrize("way", SHELLS)  # a stream would show it before a poll


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["threads", "responses"])
async def wire(request: pytest.FixtureRequest, way: str) -> AsyncIterator[Wire]:
    async with Emulator(port=free_port()) as emulator, Client(emulator.base_url) as client:
        shell = SHELLS["fleet" if "fleet" in way else "watcher"]
        yield Wire(request.param, emulator, client, shell, streams="streamed" in way)


class Tools(Toolset):
    """Tools that take a second each, and record when they began."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []
        self.tool(self.get_weather)
        self.tool(self.add)

    async def get_weather(self, city: str) -> str:
        self.ran.append("get_weather")
        await anyio.sleep(1.0)
        return f"Sunny in {city}"

    async def add(self, a: int, b: int) -> int:
        self.ran.append("add")
        await anyio.sleep(1.0)
        return a + b


@pytest.fixture
def tools() -> Tools:
    return Tools()
