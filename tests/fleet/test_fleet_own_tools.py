"""Tools that act on their own fleet, or never end: the other runs are not affected."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from stage import ONE_CALL, Stage, other_tasks

from asyncruns import Completed, Fleet, GaveUp, InvalidRequestError, Toolset
from asyncruns.fleet import Watch


async def stubborn() -> str:
    while True:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(3600.0)


ACTS: dict[str, Callable[[Fleet[Any], Watch[Any]], Any]] = {
    "leave": lambda fleet, watch: fleet.__aexit__(None, None, None),
    "drain": lambda fleet, watch: fleet.drain(),
    "wait": lambda fleet, watch: watch.wait(),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
async def test_a_tool_can_neither_leave_nor_wait_for_its_own_fleet(stage: Stage, act: Callable[..., Any]) -> None:
    run, other = await stage.run(rounds=(ONE_CALL,)), await stage.run(working=20.0)
    raised: list[BaseException] = []

    async def f(n: int) -> None:
        try:
            await act(fleet, watch)
        except InvalidRequestError as error:
            raised.append(error)
            raise

    async with Fleet(stage.client, tools=Toolset([f])) as fleet:
        watch, second = fleet.watch(run), fleet.watch(other)
    assert isinstance(watch.outcome, Completed)
    assert isinstance(second.outcome, Completed)
    assert len(raised) == 1
    assert list(stage.server.submitted(run.id)[0].values()) == ['{"error":"The tool f failed."}']


async def test_a_tool_may_wait_for_another_run_of_its_fleet(stage: Stage) -> None:
    run, other = await stage.run(rounds=(ONE_CALL,)), await stage.run(working=20.0)

    async def f(n: int) -> str:
        return (await fleet.watch(other)).status

    async with Fleet(stage.client, tools=Toolset([f])) as fleet:
        fleet.watch(run)
    assert list(stage.server.submitted(run.id)[0].values()) == ["completed"]


async def test_a_tool_in_a_thread_that_adds_a_run_fails_and_leaves_nothing_behind(stage: Stage) -> None:
    run, other = await stage.run(rounds=(ONE_CALL,)), await stage.run(working=20.0)

    def f(n: int) -> str:
        return repr(fleet.watch(other))

    async with Fleet(stage.client, tools=Toolset([f])) as fleet:
        watch = fleet.watch(run)
    assert isinstance(watch.outcome, Completed)
    assert fleet.statistics().ended == 1
    assert stage.count("poll", other) == 0


async def test_a_tool_may_cancel_its_own_watch(stage: Stage) -> None:
    run, other = await stage.run(rounds=(ONE_CALL,)), await stage.run(working=20.0)

    async def f(n: int) -> None:
        assert watch.cancel()
        await asyncio.sleep(3600.0)

    async with Fleet(stage.client, tools=Toolset([f])) as fleet:
        watch, second = fleet.watch(run), fleet.watch(other)
        with pytest.raises(asyncio.CancelledError, match="was cancelled"):
            await watch
    assert isinstance(second.outcome, Completed)
    assert stage.count("submit") == 0


async def test_tools_that_never_end_delay_neither_other_runs_nor_leaving(stage: Stage) -> None:
    runs = [*await stage.runs(5, rounds=(ONE_CALL,)), await stage.run(working=5.0)]

    async def f(n: int) -> str:
        return await stubborn()

    began = anyio.current_time()
    async with Fleet(stage.client, tools=Toolset([f]), timeout=10.0) as fleet:
        watches = [fleet.watch(run) for run in runs]
    assert [type(watch.outcome) for watch in watches] == [GaveUp] * 5 + [Completed]
    assert anyio.current_time() - began == pytest.approx(12.5, abs=0.5)
    assert other_tasks() == []


async def test_an_observer_that_ignores_its_cancellation_holds_up_leaving_for_some_seconds_only(stage: Stage) -> None:
    async def on_outcome(outcome: object) -> None:
        await stubborn()

    async with Fleet(stage.client, on_outcome=on_outcome) as fleet:
        await fleet.watch(await stage.run())
        began = anyio.current_time()
    assert anyio.current_time() - began == pytest.approx(4.5, abs=0.2)
    assert other_tasks() == []
