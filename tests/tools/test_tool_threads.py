"""Our own threads: limited, counted until they end, and never an obstacle to the interpreter's exit."""

from __future__ import annotations

import asyncio
import gc
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from asyncruns.lifecycle import Call
from asyncruns.tools import Toolset
from asyncruns.tools import worker_threads as threads
from asyncruns.tools.concurrency import ConcurrencyLimit
from asyncruns.tools.worker_threads import run_in_thread

PATIENCE_SECONDS = 5.0


class Gate:
    """A function that blocks until it is opened, and counts the calls inside."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = threading.Semaphore(0)

    def __call__(self) -> str:
        self.inside.release()
        self.open.wait(PATIENCE_SECONDS)
        return "through"

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.inside.acquire(timeout=PATIENCE_SECONDS)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()
    join_tool_threads()


def join_tool_threads() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith(threads.THREAD_NAME_PREFIX):
            thread.join(PATIENCE_SECONDS)


@contextmanager
def nothing_unraisable() -> Iterator[None]:
    """Collect garbage, so that a warning about an unawaited coroutine fails this test and not a later one."""
    yield
    gc.collect()


async def several_steps() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_thread_is_a_daemon_named_after_the_tool() -> None:
    thread = await run_in_thread(threading.current_thread, name="poll")
    assert thread.daemon
    assert thread.name == "asyncruns-tool-poll"
    assert threads.running() == 0


async def test_the_place_is_kept_until_the_thread_ends(gate: Gate) -> None:
    limit = ConcurrencyLimit(1)
    first = asyncio.ensure_future(run_in_thread(gate, name="first", limit=limit))
    await several_steps()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.ensure_future(run_in_thread(lambda: "second", name="second", limit=limit))
    await several_steps()
    assert limit.running == 1
    assert not second.done()
    gate.open.set()
    assert await second == "second"
    assert limit.running == 0


async def test_at_most_as_many_threads_run_as_the_limit_allows(gate: Gate) -> None:
    limit = ConcurrencyLimit(3)
    tasks = [asyncio.ensure_future(run_in_thread(gate, name="g", limit=limit)) for _ in range(7)]
    await several_steps()
    gate.wait_for(3)
    assert limit.running == 3
    assert not gate.inside.acquire(blocking=False)
    gate.open.set()
    assert await asyncio.gather(*tasks) == ["through"] * 7
    assert limit.running == 0


async def test_on_start_is_called_when_the_thread_has_started(gate: Gate) -> None:
    limit = ConcurrencyLimit(1)
    started: list[str] = []
    tasks = [
        asyncio.ensure_future(run_in_thread(gate, name=n, limit=limit, on_start=lambda n=n: started.append(n)))  # type: ignore[misc]
        for n in ("a", "b")
    ]
    await several_steps()
    assert started == ["a"]
    gate.open.set()
    await asyncio.gather(*tasks)
    assert started == ["a", "b"]


async def test_a_thread_that_cannot_start_releases_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    limit = ConcurrencyLimit(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            await run_in_thread(lambda: 1, name="x", limit=limit)
    assert await run_in_thread(lambda: 1, name="x", limit=limit) == 1


async def late_result() -> str:
    return "late"


async def test_a_coroutine_that_no_task_awaits_is_closed(gate: Gate) -> None:
    def return_late() -> object:
        gate()
        return late_result()

    with nothing_unraisable():
        task = asyncio.ensure_future(run_in_thread(return_late, name="late"))
        await several_steps()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open.set()
        join_tool_threads()
        await several_steps()


@pytest.mark.parametrize("result_first", [True, False])
async def test_a_cancellation_together_with_the_result_discards_the_result(gate: Gate, result_first: bool) -> None:
    def return_late() -> object:
        gate()
        return late_result()

    with nothing_unraisable():
        task = asyncio.ensure_future(run_in_thread(return_late, name="late"))
        await several_steps()
        gate.open.set()
        join_tool_threads()  # its result is scheduled: the next iteration of the loop delivers it
        if result_first:
            asyncio.get_running_loop().call_soon(task.cancel)
        else:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_a_thread_may_end_after_its_loop_is_closed(gate: Gate) -> None:
    async def leave() -> None:
        task = asyncio.ensure_future(run_in_thread(gate, name="left"))
        await several_steps()
        task.cancel()

    with nothing_unraisable():
        asyncio.run(leave())
        assert threads.running() == 1
        gate.open.set()
        join_tool_threads()
        assert threads.running() == 0


def test_a_loop_may_be_closed_without_cancelling(gate: Gate) -> None:
    limit = ConcurrencyLimit(1)
    loop = asyncio.new_event_loop()
    running = loop.create_task(run_in_thread(gate, name="left", limit=limit))
    waiting = loop.create_task(run_in_thread(gate, name="never", limit=limit))
    loop.run_until_complete(several_steps())
    loop.close()
    gate.open.set()
    join_tool_threads()
    assert limit.running == 0
    for task in (running, waiting):
        coroutine = task.get_coro()
        assert coroutine is not None
        coroutine.close()


def test_one_limit_serves_many_loops() -> None:
    limit = ConcurrencyLimit(1)

    async def twice() -> list[Any]:
        return await asyncio.gather(*(run_in_thread(lambda: 1, name="x", limit=limit) for _ in range(2)))

    assert [asyncio.run(twice()) for _ in range(3)] == [[1, 1]] * 3


async def test_a_place_granted_to_a_cancelled_waiter_passes_to_the_next() -> None:
    limit = ConcurrencyLimit(1)
    await limit.acquire()
    second, third = (asyncio.ensure_future(limit.acquire()) for _ in range(2))
    await several_steps()
    limit.release()  # the place is granted to the second waiter, which has not woken yet
    second.cancel()
    await third
    assert second.cancelled()
    assert limit.running == 1
    limit.release()
    assert limit.running == 0


async def test_places_are_granted_in_order() -> None:
    limit = ConcurrencyLimit(1)
    order: list[int] = []

    async def take(number: int) -> None:
        async with limit:
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(take(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]


def test_a_hung_tool_does_not_delay_the_interpreters_exit() -> None:
    program = """
import asyncio, threading
from asyncruns.lifecycle.values import Call
from asyncruns.tools import Toolset
tools = Toolset({"hang": lambda: threading.Event().wait()}, timeout=0.05)
print(asyncio.run(tools.call(Call(id="c", name="hang"))))
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        timeout=30,
        check=True,
        text=True,
    )
    assert "did not finish within 0.05 seconds" in done.stdout
    assert "Error" not in done.stderr


async def test_a_tool_that_is_cancelled_before_its_thread_begins_releases_its_place_once() -> None:
    """At every step: while it waits for a place, while it waits for admission, or in the thread."""

    def nothing() -> None:
        pass

    tools = Toolset([nothing])
    for steps in range(12):
        task = asyncio.ensure_future(tools.call(Call(id="call_1", name="nothing", arguments="{}")))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        join_tool_threads()
        assert threads.running() == 0


ASKING = """
import asyncio, asyncruns
from asyncruns import Client, Toolset
from asyncruns.testing import Emulator, FunctionCall, Scenario

async def approve(call, arguments):
    return await asyncruns.to_thread(input, "Approve? ") == "y"

tools = Toolset(approve=approve)
tools.tool(lambda **given: 7, name="add", parameters={"type": "object"})

async def main():
    async with Emulator() as emulator, Client(emulator.base_url) as client:
        emulator.script(Scenario(rounds=((FunctionCall("add", {}),),)), assistant_id="asst_1")
        await client.run(assistant_id="asst_1", message="Hello", tools=tools)

asyncio.run(main())
"""


def read_until(terminal: int, text: bytes) -> None:
    shown = b""
    while text not in shown:
        assert select.select([terminal], [], [], 10.0)[0], shown
        shown += os.read(terminal, 4096)


@pytest.mark.slow
def test_ctrl_c_ends_a_program_that_asks_for_an_approval_at_the_terminal() -> None:
    terminal, inner = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", ASKING], stdin=inner, stdout=inner, stderr=inner) as program:
        os.close(inner)
        try:
            read_until(terminal, b"Approve? ")
            time.sleep(0.2)  # the thread is in `input` by now
            program.send_signal(signal.SIGINT)
            read_until(terminal, b"KeyboardInterrupt")
            program.wait(timeout=10.0)
        finally:
            program.kill()
            os.close(terminal)
