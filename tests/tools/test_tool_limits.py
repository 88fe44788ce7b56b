"""Places in the limits of the caller, the toolset and the process's threads: granted in order, and always released."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator

import pytest
from toolcalls import a_call, error_of

from asyncruns.errors import ConfigurationError
from asyncruns.tools import ConcurrencyLimit, Toolset
from asyncruns.tools import worker_threads as threads

PATIENCE_SECONDS = 5.0


class Work:
    """A tool that runs until it is released, and counts the running calls."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.running = 0
        self.most = 0

    async def __call__(self) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.release.wait()
        finally:
            self.running -= 1
        return "done"


async def several_steps() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("at_once", [0, -1])
def test_a_limit_has_at_least_one_place(at_once: int) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        ConcurrencyLimit(at_once)


@pytest.mark.parametrize(
    ("mine", "shared", "most"), [(2, None, 2), (None, 3, 3), (2, 3, 2), (3, 2, 2), (None, None, 6)]
)
async def test_the_smaller_limit_counts(mine: int | None, shared: int | None, most: int) -> None:
    work, limit = Work(), ConcurrencyLimit(mine)
    tools = Toolset({"work": work}, max_concurrency=shared)
    outputs = asyncio.gather(*(tools.call(a_call("work"), limit=limit) for _ in range(6)))
    await several_steps()
    assert work.running == most
    work.release.set()
    assert await outputs == ["done"] * 6
    assert work.most == most
    assert limit.running == 0


async def test_a_waiter_for_the_callers_limit_holds_no_place_in_the_toolset() -> None:
    work, full, free = Work(), ConcurrencyLimit(1), ConcurrencyLimit(1)
    tools = Toolset({"work": work}, max_concurrency=2)
    crowd = [asyncio.ensure_future(tools.call(a_call("work"), limit=full)) for _ in range(5)]
    await several_steps()
    other = asyncio.ensure_future(tools.call(a_call("work"), limit=free))
    await several_steps()
    assert work.running == 2
    work.release.set()
    assert await asyncio.gather(*crowd, other) == ["done"] * 6


async def test_a_call_that_fails_before_the_tool_runs_takes_no_place() -> None:
    limit = ConcurrencyLimit(1)
    await limit.acquire()

    def take(days: int) -> int:
        return days

    tools = Toolset([take])
    assert "no tool named" in error_of(await tools.call(a_call("other"), limit=limit))
    assert "Invalid arguments" in error_of(await tools.call(a_call("take", "["), limit=limit))


ORDERS = list(itertools.permutations(range(3)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize(("mine", "shared"), [(1, None), (None, 1), (1, 1), (2, 1)])
async def test_all_places_are_released_in_whatever_order_waiters_are_cancelled(
    order: tuple[int, ...], steps: int, mine: int | None, shared: int | None
) -> None:
    work, limit = Work(), ConcurrencyLimit(mine)
    tools = Toolset({"work": work}, max_concurrency=shared)
    tasks = [asyncio.ensure_future(tools.call(a_call("work"), limit=limit)) for _ in range(3)]
    await several_steps()
    for index in order:
        tasks[index].cancel()
        for _ in range(steps):
            await asyncio.sleep(0)
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*tasks, return_exceptions=True))
    assert limit.running == 0
    assert work.running == 0
    work.release.set()
    again = [tools.call(a_call("work"), limit=limit) for _ in range(3)]
    assert await asyncio.gather(*again) == ["done"] * 3
    assert repr(tools) == "<Toolset work; 0 running>"


async def test_a_place_is_released_after_a_timeout_and_a_failure() -> None:
    limit = ConcurrencyLimit(1)
    tools = Toolset(timeout=5)

    @tools.tool
    async def hang() -> None:
        await asyncio.Event().wait()

    @tools.tool
    async def fail() -> None:
        raise ValueError

    assert "did not finish" in error_of(await tools.call(a_call("hang"), limit=limit))
    assert "failed" in error_of(await tools.call(a_call("fail"), limit=limit))
    assert limit.running == 0


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()
    for thread in threading.enumerate():
        if thread.name.startswith(threads.THREAD_NAME_PREFIX):
            thread.join(PATIENCE_SECONDS)


async def test_abandoned_threads_count_until_they_finish(gate: threading.Event) -> None:
    tools = Toolset(timeout=5)

    @tools.tool
    def hang() -> None:
        gate.wait(PATIENCE_SECONDS)

    @tools.tool
    def quick() -> str:
        return "done"

    loop = asyncio.get_running_loop()
    outputs = await asyncio.gather(*(tools.call(a_call("hang")) for _ in range(threads.MAX_THREADS)))
    assert {error_of(output) for output in outputs} == {"The tool hang did not finish within 5 seconds."}
    assert threads.running() == threads.MAX_THREADS
    began = loop.time()
    queued = asyncio.ensure_future(tools.call(a_call("quick")))
    await asyncio.sleep(1000)  # far longer than its timeout, which does not run while the call queues
    assert not queued.done()
    assert loop.time() - began >= 1000
    gate.set()
    assert await queued == "done"
    assert threads.running() < threads.MAX_THREADS
