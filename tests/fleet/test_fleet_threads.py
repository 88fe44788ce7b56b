"""A fleet and a watcher belong to the event loop that entered them: calls from other threads and loops are refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from stage import Stage, other_tasks

from asyncruns import Completed, Fleet, InvalidRequestError, RunWatcher


async def in_a_thread(do: Callable[[], Any]) -> Any:
    """Call `do` in a thread without a loop; run a coroutine there as far as it gets without one."""

    def work() -> Any:
        result = do()
        if asyncio.iscoroutine(result):
            try:
                return result.send(None)
            finally:
                result.close()
        return result

    return await asyncio.to_thread(work)


async def in_another_loop(do: Callable[[], Any]) -> Any:
    async def work() -> Any:
        result = do()
        return await result if asyncio.iscoroutine(result) else result

    return await asyncio.to_thread(asyncio.run, work())


ELSEWHERE = pytest.mark.parametrize("elsewhere", [in_a_thread, in_another_loop])


async def first(source: Any) -> Any:
    async for each in source:
        return each
    return None


OF_A_FLEET: dict[str, Callable[[Any, Any, Any], Any]] = {
    "watch": lambda fleet, watch, run: fleet.watch(run),
    "add_many": lambda fleet, watch, run: fleet.add_many([run]),
    "drain": lambda fleet, watch, run: fleet.drain(),
    "iterate": lambda fleet, watch, run: first(fleet),
    "statistics": lambda fleet, watch, run: fleet.statistics(),
    "leave": lambda fleet, watch, run: fleet.__aexit__(None, None, None),
    "watch.wait": lambda fleet, watch, run: watch.wait(),
    "watch.iterate": lambda fleet, watch, run: first(watch),
    "watch.cancel": lambda fleet, watch, run: watch.cancel(),
    "watch.cancel_run": lambda fleet, watch, run: watch.cancel_run(),
    "watch.submit": lambda fleet, watch, run: watch.submit({}),
    "watch.explain": lambda fleet, watch, run: watch.explain(),
}


@ELSEWHERE
@pytest.mark.parametrize("act", OF_A_FLEET.values(), ids=OF_A_FLEET)
async def test_a_fleet_refuses_calls_from_other_threads_and_loops_and_goes_on(
    stage: Stage, elsewhere: Callable[..., Any], act: Callable[..., Any]
) -> None:
    run, other = await stage.run(working=5.0), await stage.run(working=5.0)
    async with Fleet(stage.client) as fleet:
        watch = fleet.watch(run)
        with pytest.raises(InvalidRequestError, match="run_coroutine_threadsafe"):
            await elsewhere(lambda: act(fleet, watch, other))
        assert fleet.statistics().active == 1
    assert isinstance(watch.outcome, Completed)
    assert stage.count("poll", other) == 0
    assert other_tasks() == []


OF_A_WATCHER: dict[str, Callable[[Any], Any]] = {
    "wait": lambda watcher: watcher.wait(),
    "iterate": lambda watcher: first(watcher),
    "submit": lambda watcher: watcher.submit({}),
    "cancel_run": lambda watcher: watcher.cancel_run(),
    "leave": lambda watcher: watcher.__aexit__(None, None, None),
}


@ELSEWHERE
@pytest.mark.parametrize("act", OF_A_WATCHER.values(), ids=OF_A_WATCHER)
async def test_a_watcher_refuses_calls_from_other_threads_and_loops_and_goes_on(
    stage: Stage, elsewhere: Callable[..., Any], act: Callable[..., Any]
) -> None:
    async with RunWatcher(stage.client, await stage.run(working=5.0)) as watcher:
        with pytest.raises(InvalidRequestError, match="run_coroutine_threadsafe"):
            await elsewhere(lambda: act(watcher))
        assert isinstance(await watcher.wait(), Completed)
    assert stage.count("cancel") == 0


async def test_a_thread_may_add_runs_as_the_message_says(stage: Stage) -> None:
    run, other = await stage.run(working=5.0), await stage.run(working=5.0)
    loop = asyncio.get_running_loop()
    async with Fleet(stage.client) as fleet:

        async def watch_it() -> Any:
            return await fleet.watch(other)

        added = threading.Event()

        def work() -> Any:
            loop.call_soon_threadsafe(fleet.watch, run)
            added.set()
            return asyncio.run_coroutine_threadsafe(watch_it(), loop).result(5.0)

        assert isinstance(await asyncio.to_thread(work), Completed)
    assert fleet.statistics().ended == 2


@ELSEWHERE
async def test_before_and_after_its_block_a_fleet_says_so(stage: Stage, elsewhere: Callable[..., Any]) -> None:
    run = await stage.run()
    fleet: Fleet[Any] = Fleet(stage.client)
    with pytest.raises(InvalidRequestError, match="Enter the fleet first"):
        await elsewhere(lambda: fleet.watch(run))
    async with fleet:
        pass
    with pytest.raises(InvalidRequestError, match="was left"):
        fleet.watch(run)
    with pytest.raises(InvalidRequestError, match=r"was left|run_coroutine_threadsafe"):
        await elsewhere(lambda: fleet.watch(run))
    assert stage.count("poll") == 0
