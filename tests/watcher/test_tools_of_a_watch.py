"""The effect of a toolset's policies, approvals and limits in a watch."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator

import anyio
import pytest
from scripted import Scene, error, ok, scene
from shells import Shell

from asyncruns import (
    CallNotAnsweredError,
    Completed,
    GaveUp,
    InvalidRequestError,
    NeedsCaller,
    Reason,
    RunWatcher,
    Toolset,
)
from asyncruns.lifecycle import Call
from asyncruns.tools import worker_threads as threads

ROUND = (("call_1", "good", "{}"), ("call_2", "bad", "{}"), ("call_3", "slow", "{}"))


def asking() -> Scene:
    return scene(ok("requires_action", *ROUND), submits=[ok("completed")])


def toolset(**options: object) -> Toolset:
    tools = Toolset(**options)  # type: ignore[arg-type]

    @tools.tool
    async def good() -> str:
        return "out"

    @tools.tool
    async def bad() -> str:
        raise ZeroDivisionError("secret")

    @tools.tool
    async def slow() -> str:
        await anyio.sleep(10.0)
        return "late"

    return tools


async def test_a_failure_that_is_surfaced_costs_the_other_calls_nothing_and_can_be_answered(shell: Shell) -> None:
    stage = asking()
    async with shell(stage, stage.ref, tools=toolset(if_exception="surface"), timeout=60.0) as watcher:
        outcome = await watcher.wait()
        assert isinstance(outcome, NeedsCaller)
        assert outcome.reason is Reason.HANDLER_FAILED
        assert isinstance(outcome.cause, CallNotAnsweredError)
        assert isinstance(outcome.cause.__cause__, ZeroDivisionError)
        assert [call.name for call in outcome.calls] == ["bad"]
        assert dict(outcome.outputs) == {"call_1": "out", "call_3": "late"}
        await watcher.submit({"call_2": "by hand"})
        assert (await watcher.wait()).status == "completed"
    assert len(stage.transport.bodies("submit")[0]["tool_outputs"]) == 3


async def test_the_model_reads_that_a_call_was_refused(shell: Shell) -> None:
    stage = asking()
    asked: list[str] = []

    async def approve(call: Call, arguments: dict[str, object]) -> bool:
        asked.append(call.name)
        return call.name != "bad"

    async with shell(stage, stage.ref, tools=toolset(approve=approve)) as watcher:
        await watcher.wait()
    assert sorted(asked) == ["bad", "good", "slow"]
    outputs = {one["tool_call_id"]: one["output"] for one in stage.transport.bodies("submit")[0]["tool_outputs"]}
    assert "refused" in outputs["call_2"]


@pytest.mark.parametrize(("limit", "seconds"), [(None, 5.0), (2, 10.0), (1, 15.0)])
async def test_a_watch_may_run_a_few_calls_at_once_only(shell: Shell, limit: int | None, seconds: float) -> None:
    calls = [(f"call_{n}", "f", "{}") for n in range(3)]
    stage = scene(ok("requires_action", *calls), submits=[ok("completed")])

    async def f() -> None:
        await anyio.sleep(5.0)

    began = anyio.current_time()
    async with shell(stage, stage.ref, tools=Toolset([f]), max_concurrent_calls=limit) as watcher:
        await watcher.wait()
    assert anyio.current_time() - began == pytest.approx(seconds, abs=0.2)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
async def test_an_invalid_limit_is_refused(limit: object) -> None:
    stage = asking()
    with pytest.raises(InvalidRequestError, match="max_concurrent_calls"):
        RunWatcher(stage, stage.ref, max_concurrent_calls=limit)  # type: ignore[call-overload]


ONE = ("call_1", "f", "{}")


async def hang() -> None:
    await anyio.sleep_forever()


async def block_the_loop() -> str:
    end = time.perf_counter() + 0.01
    while time.perf_counter() < end:  # a busy loop, which blocks
        pass
    return "late"


def hang_in_a_thread() -> None:
    threading.Event().wait(0.5)


@pytest.fixture
def threads_end() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith(threads.THREAD_NAME_PREFIX):
            thread.join(5.0)


@pytest.mark.parametrize(
    ("tool", "output"),
    [
        pytest.param(lambda: None, "null", id="None"),
        pytest.param(lambda: 5, "5", id="number"),
        pytest.param(lambda: b"\xff\xfe", "//4=", id="bytes"),
        pytest.param(lambda: {"error": None}, '{"error":null}', id="null-error"),
        pytest.param(lambda: "x" * 1_000_000, "more than the limit", id="huge"),
        pytest.param(object, "The tool f failed.", id="object"),
        pytest.param(hang, "did not finish within 5 seconds", id="hangs"),
        pytest.param(hang_in_a_thread, "did not finish within 5 seconds", id="hangs-in-a-thread"),
        pytest.param(block_the_loop, "late", id="blocks"),
    ],
)
@pytest.mark.usefixtures("threads_end")
async def test_whatever_a_tool_does_the_watch_goes_on(shell: Shell, tool: Callable[[], object], output: str) -> None:
    stage = scene(ok("requires_action", ONE), submits=[ok("completed")])
    async with shell(stage, stage.ref, tools=Toolset({"f": tool}, timeout=5.0)) as watcher:
        assert isinstance(await watcher.wait(), Completed)
    ((sent,),) = [body["tool_outputs"] for body in stage.transport.bodies("submit")]
    assert isinstance(sent["output"], str)
    assert output in sent["output"]


@pytest.mark.real_time
async def test_a_sync_tool_does_not_stall_the_loop(shell: Shell) -> None:
    stage = scene(ok("requires_action", ONE), submits=[ok("completed")])
    loop = asyncio.get_running_loop()
    beats: list[float] = []
    warm = scene(ok("completed"))
    async with shell(warm, warm.ref) as watcher:  # the first watch of a process loads modules
        await watcher.wait()

    async def beat() -> None:
        while True:
            beats.append(loop.time())
            await asyncio.sleep(0.005)

    beating = asyncio.create_task(beat())
    async with shell(stage, stage.ref, tools=Toolset({"f": lambda: time.sleep(0.3)})) as watcher:
        outcome = await watcher.wait()
    beating.cancel()
    assert outcome.elapsed >= 0.3
    assert max(after - before for before, after in itertools.pairwise(beats)) < 0.15


async def test_a_sync_tool_that_hangs_is_abandoned_when_the_watch_ends(shell: Shell) -> None:
    release = threading.Event()
    hanging: list[threading.Thread] = []

    def f() -> None:
        hanging.append(threading.current_thread())
        release.wait(10.0)

    before = threads.running()
    stage = scene(ok("requires_action", ONE))
    async with shell(stage, stage.ref, tools=Toolset([f]), timeout=30.0) as watcher:
        outcome = await watcher.wait()
    assert isinstance(outcome, GaveUp)
    assert outcome.elapsed == pytest.approx(30.0, abs=0.1)
    assert threads.running() == before + 1
    release.set()
    hanging[0].join()
    assert threads.running() == before


@pytest.mark.parametrize("status", ["failed", "expired", "cancelled", "completed"])
async def test_a_run_that_ends_stops_its_tools(shell: Shell, status: str) -> None:
    stage = scene(ok("requires_action", ONE), ok("requires_action", ONE), ok(status), submits=[error(400)])
    stopped: list[float] = []

    async def f() -> None:
        try:
            await anyio.sleep(300.0)
        finally:
            stopped.append(anyio.current_time())

    began = anyio.current_time()
    async with shell(stage, stage.ref, tools=Toolset([f])) as watcher:
        assert (await watcher.wait()).status == status
    assert stopped
    assert stopped[0] - began < 6.0
    assert stage.transport.count("submit") == 0
