"""Real sockets, real time, and a server in another process that is killed, stopped, or disconnected."""

from __future__ import annotations

import asyncio
import pickle
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hostile_world import free_port
from kept_server import ROUNDS
from shells import Shell, watched
from tcp_proxy import TcpProxy

from asyncruns import APIConnectionError, Client, Completed, GaveUp, Reason, Toolset
from asyncruns.abc import Transport
from asyncruns.http import Request, Response
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire import Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real_time,
    pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals"),
]

RUNS = 6
LAG_S = 0.5  # instead of 5 s, which this server does not need


@pytest.fixture(autouse=True)
def _short_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncruns.lifecycle.ledger.SUBMIT_LAG_S", LAG_S)
    monkeypatch.setattr("asyncruns.lifecycle.machine.NOT_FOUND_GRACE_S", LAG_S)


class ServerProcess:
    """The server, the file with its state, and what is done to it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.file = folder / "state"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        script = str(Path(__file__).with_name("kept_server.py"))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, script, str(self.port), str(self.file), stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"ready\n"

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await process.communicate()

    def submissions(self) -> list[list[dict[str, str]]]:
        """Return the accepted rounds of each run, from the file."""
        if not self.file.exists():
            return []
        store, _ = self._state()
        return [[dict(one.outputs) for one in run.submissions] for run in store.runs.all.values()]

    def refused(self) -> list[str]:
        return list(self._state()[1])

    def _state(self) -> Any:
        return pickle.loads(self.file.read_bytes())

    async def until_submitted(self, rounds: int) -> None:
        """Wait until this many rounds were accepted, of all runs together."""
        while sum(map(len, self.submissions())) < rounds:
            await asyncio.sleep(0.005)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    server = ServerProcess(tmp_path)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


class Telling(Transport):
    """Forwards requests, and records what became of the submits."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.submits = 0
        self.lost = 0
        self.not_sent = 0

    async def send(self, request: Request) -> Response:
        is_submit = request.path.endswith("/submit_tool_outputs")
        self.submits += is_submit
        try:
            return await self._inner.send(request)
        except APIConnectionError as error:
            self.lost += is_submit and error.sent
            self.not_sent += is_submit and not error.sent
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()


class Watches:
    """Several runs at once, each with a watch and a record of what its tools did."""

    def __init__(self, client: Client, shell: Shell) -> None:
        self._client = client
        self._shell = shell
        self.transport = Telling(client.transport)
        client.transport = self.transport
        self.executed: Counter[tuple[int, int]] = Counter()

    async def all(self) -> list[AnyOutcome[Run]]:
        assistant = await self._client.assistants.create(model="gpt-4o")
        return await asyncio.gather(*(self._one(number, assistant.id) for number in range(RUNS)))

    async def _one(self, number: int, assistant_id: str) -> AnyOutcome[Run]:
        async def f(n: int) -> str:
            self.executed[number, n] += 1
            await asyncio.sleep(0.02 * number)  # so that they are at different points
            return f"{number} {n}"

        runs = self._client.threads.runs
        thread = await self._client.threads.create()
        run = await runs.create(thread.id, assistant_id=assistant_id)
        return await watched(self._shell, self._client, run, tools=Toolset([f]), timeout=20.0)


def check_all_went_well(server: ServerProcess, watches: Watches, outcomes: list[AnyOutcome[Run]]) -> None:
    assert [type(outcome) for outcome in outcomes] == [Completed] * RUNS
    wanted = {(number, call.arguments["n"]) for number in range(RUNS) for round_ in ROUNDS for call in round_}  # type: ignore[index]
    assert watches.executed == Counter(wanted)  # each once
    # Some answers to submits were lost, of submits with and without effect; those without effect were sent again.
    transport, needed = watches.transport, RUNS * len(ROUNDS)
    assert transport.lost > 0
    assert transport.submits >= needed
    accepted = sorted([sorted(outputs.values()) for outputs in rounds] for rounds in server.submissions())
    assert accepted == [
        [sorted(f"{number} {call.arguments['n']}" for call in round_) for round_ in ROUNDS]  # type: ignore[index]
        for number in range(RUNS)
    ]


async def test_a_server_that_is_killed_and_started_again_loses_no_run(server: ServerProcess, shell: Shell) -> None:
    """Some submits arrived but their answers are lost, some did not arrive, and some were refused a connection."""
    async with Client(server.base_url) as client, asyncio.TaskGroup() as group:
        watches = Watches(client, shell)
        waiting = group.create_task(watches.all())
        for rounds in (3, RUNS + 3):
            await server.until_submitted(rounds)
            await server.kill()
            await server.start()
        check_all_went_well(server, watches, await waiting)
    assert server.refused() == []


async def test_a_server_that_forgot_its_runs_ends_their_watches(server: ServerProcess, shell: Shell) -> None:
    async with Client(server.base_url) as client, asyncio.TaskGroup() as group:
        watches = Watches(client, shell)
        waiting = group.create_task(watches.all())
        await server.until_submitted(3)
        await server.kill()
        server.file.unlink()
        await server.start()
        async with asyncio.timeout(10.0):
            outcomes = await waiting
    assert all(isinstance(outcome, GaveUp) and outcome.reason is Reason.GONE for outcome in outcomes)
    assert max(watches.executed.values()) == 1


async def test_a_server_that_is_stopped_for_a_while_is_waited_for(server: ServerProcess, shell: Shell) -> None:
    """Requests time out, but the server still acts on them when it continues."""
    async with Client(server.base_url, request_timeout=0.4) as client, asyncio.TaskGroup() as group:
        watches = Watches(client, shell)
        waiting = group.create_task(watches.all())
        await server.until_submitted(3)
        server.signal(signal.SIGSTOP)
        await asyncio.sleep(0.6)
        server.signal(signal.SIGCONT)
        check_all_went_well(server, watches, await waiting)
    assert all(message.startswith("Runs in status") for message in server.refused())


async def test_a_proxy_that_is_killed_and_started_again_loses_no_run(server: ServerProcess, shell: Shell) -> None:
    proxy = TcpProxy(free_port(), server.port)
    await proxy.start()
    async with Client(f"http://127.0.0.1:{proxy.port}/v1") as client, asyncio.TaskGroup() as group:
        watches = Watches(client, shell)
        waiting = group.create_task(watches.all())
        await server.until_submitted(RUNS - 1)
        await proxy.kill()
        await asyncio.sleep(0.1)
        await proxy.start()
        check_all_went_well(server, watches, await waiting)
    await proxy.kill()
    assert proxy.accepted > RUNS
    assert server.refused() == []
