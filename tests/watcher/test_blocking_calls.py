"""Nothing in the package blocks the event loop: BlockBuster is on in all tests, and these tests show that it works."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockingError
from scripted import ok, scene
from shells import Shell

import asyncruns
from asyncruns import BearerAuth, Client, Completed, StatusChanged, Toolset
from asyncruns.testing import Emulator, FunctionCall, Scenario
from asyncruns.transport.aiohttp import AiohttpTransport

PACKAGE = Path(asyncruns.__file__).parent

BLOCKING = {
    "sleep": "import time; time.sleep(0.001)",
    "read a file": "open(__import__('sys').executable, 'rb').read(1)",
    "read a path": "__import__('pathlib').Path('/etc/hostname').read_text()",
    "connect": "__import__('socket').create_connection(('127.0.0.1', 1), 1)",
    "look up a name": "__import__('socket').getaddrinfo('127.0.0.1', 80)",
    "start a process": "__import__('subprocess').run(['true'])",
    "wait for a thread": "t = __import__('threading'); lock = t.Lock(); lock.acquire(); lock.acquire(timeout=0.001)",
    "list a directory": "__import__('os').listdir('/')",
}


def in_package(source: str, module: str = "made_up.py") -> Callable[..., None]:
    """Return a function whose code appears in tracebacks as part of the package."""
    space: dict[str, Any] = {"__name__": "asyncruns.made_up"}
    exec(compile(f"def block(*_):\n    {source}\n", str(PACKAGE / module), "exec"), space)
    block: Callable[..., None] = space["block"]
    return block


@pytest.mark.parametrize("source", BLOCKING.values(), ids=BLOCKING.keys())
async def test_a_blocking_call_in_the_package_is_found(source: str) -> None:
    with pytest.raises(BlockingError):
        in_package(source)()


@pytest.mark.real_time
async def test_a_blocking_call_in_the_package_is_found_in_real_time_too() -> None:
    with pytest.raises(BlockingError, match=r"time\.sleep"):
        in_package("__import__('time').sleep(0.001)")()


async def test_a_blocking_call_in_a_watch_is_found(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator.script(Scenario(), assistant_id="asst_1")
    async with Client(emulator.base_url, auth=BearerAuth("test")) as client:
        thread = await client.threads.create()
        run = await client.threads.runs.create(thread.id, assistant_id="asst_1")
        block = in_package("__import__('time').sleep(0.001)", "transport/aiohttp.py")
        monkeypatch.setattr(AiohttpTransport, "_headers", block)
        with pytest.raises(BlockingError, match=r"time\.sleep"):
            await client.watch(run)


async def test_a_sync_tool_blocks_in_a_thread_only(shell: Shell) -> None:
    stage = scene(ok("requires_action", ("call_1", "f", "{}")), ok("completed"), submits=[ok("queued")])

    def f() -> str:
        time.sleep(0.001)
        return threading.current_thread().name

    async with shell(stage, stage.ref, tools=Toolset([f])) as watcher:
        assert isinstance(await watcher.wait(), Completed)
    assert stage.transport.bodies("submit")[0]["tool_outputs"][0]["output"].startswith("asyncruns-tool")


async def test_an_observer_that_blocks_is_found(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    """It is the caller's code, but the package calls it in the loop; so BlockBuster finds it for users."""
    stage = scene(ok("in_progress"), ok("completed"))

    def block(change: StatusChanged[Any]) -> None:
        time.sleep(0.001)

    async with shell(stage, stage.ref, on_status=block) as watcher:
        await watcher.wait()
    assert "BlockingError" in caplog.text


async def test_the_clock_may_wait_for_what_is_real(emulator: Emulator) -> None:
    """The virtual loop sleeps a little in the running loop, to let the loopback device deliver what was sent."""
    emulator.script(Scenario(rounds=((FunctionCall("f"),),)), assistant_id="asst_1")
    async with Client(emulator.base_url) as client:
        outcome = await client.run(assistant_id="asst_1", message="Go", tools=Toolset({"f": lambda: time.sleep(0.01)}))
    assert isinstance(outcome, Completed)


def test_nothing_is_blocked_outside_of_a_loop() -> None:
    in_package("__import__('time').sleep(0)")()
    assert asyncio.run(asyncio.sleep(0, "done")) == "done"
