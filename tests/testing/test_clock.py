"""The virtual clock: it skips waits, and stands still while real work is in progress."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import aiohttp
import anyio
import anyio.to_thread
import pytest
from aiohttp import web

from asyncruns.testing import VirtualTimeLoop


def took(began: float) -> float:
    return time.perf_counter() - began


async def test_a_long_wait_takes_no_real_time_and_exact_virtual_time() -> None:
    began, start = time.perf_counter(), asyncio.get_running_loop().time()
    await asyncio.sleep(600)
    assert asyncio.get_running_loop().time() - start == 600
    assert took(began) < 1


async def test_waits_longer_than_the_loops_own_maximum_are_exact() -> None:
    start = asyncio.get_running_loop().time()
    await asyncio.sleep(10 * 24 * 3600)
    assert asyncio.get_running_loop().time() - start == pytest.approx(10 * 24 * 3600)


async def test_timers_fire_in_their_order() -> None:
    order: list[str] = []

    async def note(name: str, delay: float) -> None:
        await asyncio.sleep(delay)
        order.append(name)

    await asyncio.gather(note("c", 30), note("a", 10), note("b", 20))
    assert order == ["a", "b", "c"]


async def test_a_timeout_expires_in_virtual_time() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()


async def test_a_callback_that_blocks_does_not_advance_virtual_time() -> None:
    start = asyncio.get_running_loop().time()
    time.sleep(0.01)  # noqa: ASYNC251 - this tests blocking
    assert asyncio.get_running_loop().time() == start


async def test_a_server_and_a_client_in_the_same_loop_talk_without_virtual_time_passing() -> None:
    loop = asyncio.get_running_loop()

    async def answer(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(float(request.query["delay"]))
        return web.Response(text="done")

    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with aiohttp.ClientSession() as session:
        for delay in ("0", "0", "7.5"):
            start = loop.time()
            async with session.get(url, params={"delay": delay}) as response:
                assert await response.text() == "done"
            assert loop.time() - start == float(delay)
    await runner.cleanup()


@pytest.mark.parametrize("duration", [0.005, 0.05])
async def test_a_job_in_the_executor_holds_virtual_time_still(duration: float) -> None:
    loop = asyncio.get_running_loop()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.25)
            ticks += 1

    ticker = asyncio.create_task(tick())
    start = loop.time()
    await asyncio.to_thread(time.sleep, duration)
    assert loop.time() == start
    assert ticks == 0
    ticker.cancel()


async def test_each_of_many_jobs_in_a_row_has_its_own_patience() -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    timer = loop.call_later(1, lambda: None)
    for _ in range(30):
        await asyncio.to_thread(time.sleep, 0.01)
    assert loop.time() == start
    timer.cancel()


async def test_a_job_that_hangs_costs_the_patience_once() -> None:
    release = threading.Event()
    job = asyncio.get_running_loop().run_in_executor(None, release.wait)
    began = time.perf_counter()
    for _ in range(20):
        await asyncio.sleep(100)
    assert 0.15 < took(began) < 1
    release.set()
    await job


async def test_functions_that_anyio_runs_in_a_thread_hold_virtual_time_still() -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    timer = loop.call_later(1, lambda: None)
    for _ in range(30):
        await anyio.to_thread.run_sync(time.sleep, 0.01)
    assert loop.time() == start
    timer.cancel()


async def test_a_function_that_hangs_in_a_thread_of_anyio_costs_the_patience_once() -> None:
    release = threading.Event()
    began = time.perf_counter()
    try:
        with anyio.move_on_after(1000):
            await anyio.to_thread.run_sync(release.wait, abandon_on_cancel=True)
        for _ in range(20):
            await asyncio.sleep(100)
        assert 0.15 < took(began) < 1
    finally:
        release.set()


async def test_a_job_that_is_no_longer_awaited_does_not_hold_virtual_time_still() -> None:
    release = threading.Event()
    job = asyncio.get_running_loop().run_in_executor(None, release.wait)
    job.cancel()
    began = time.perf_counter()
    await asyncio.sleep(100)
    assert took(began) < 0.15
    release.set()


def call_back(loop: asyncio.AbstractEventLoop, duration: float, callback: Callable[[], None]) -> None:
    time.sleep(duration)
    loop.call_soon_threadsafe(callback)


async def test_a_tool_thread_holds_virtual_time_still_until_it_calls_back() -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    start = loop.time()
    thread = threading.Thread(target=call_back, args=(loop, 0.05, done.set), name="asyncruns-tool-1", daemon=True)
    thread.start()
    async with asyncio.timeout(60):
        await done.wait()
    assert loop.time() == start
    thread.join()


async def test_a_tool_thread_that_hangs_costs_the_patience_once() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="asyncruns-tool-hung", daemon=True)
    thread.start()
    began = time.perf_counter()
    for _ in range(20):
        await asyncio.sleep(100)
    assert 0.15 < took(began) < 1
    release.set()
    thread.join()


async def test_other_threads_are_not_waited_for() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="something else")
    thread.start()
    began = time.perf_counter()
    await asyncio.sleep(100)
    assert took(began) < 0.15
    release.set()
    thread.join()


async def test_only_a_loop_with_sockets_pauses_before_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="something else", daemon=True)
    thread.start()
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    await asyncio.sleep(100)
    assert pauses == []
    loop = asyncio.get_running_loop()
    silent, other = socket.socketpair()
    loop.add_reader(silent, lambda: None)
    await asyncio.sleep(100)
    assert len(pauses) == 4  # their number, and not a time that a loaded machine may use up
    loop.remove_reader(silent)
    silent.close()
    other.close()
    release.set()
    thread.join()


async def test_without_a_timer_the_wait_is_real() -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    start = loop.time()
    thread = threading.Thread(target=call_back, args=(loop, 0.02, done.set))
    thread.start()
    await done.wait()
    assert loop.time() == start
    thread.join()


def test_the_loop_can_be_used_with_a_runner() -> None:
    async def main() -> float:
        await asyncio.to_thread(int)
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(main()) == 1000 + 86_400


def test_the_patience_can_be_set() -> None:
    async def main() -> None:
        release = threading.Event()
        job = asyncio.get_running_loop().run_in_executor(None, release.wait)
        await asyncio.sleep(100)
        release.set()
        await job

    began = time.perf_counter()
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience=0.0)) as runner:
        runner.run(main())
    assert took(began) < 0.15


@pytest.mark.real_time
async def test_a_marked_test_has_real_time() -> None:
    assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
    began = time.perf_counter()
    await asyncio.sleep(0.01)
    assert took(began) >= 0.009


def test_the_loop_does_not_import_aiohttp() -> None:
    code = "import sys; from asyncruns.testing import VirtualTimeLoop; assert 'aiohttp' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
