"""What a toolset's policies, approvals and limits come to in a watch."""

from __future__ import annotations

import anyio
import pytest
from scripted import Scene, ok, scene

from asyncruns import CallNotAnsweredError, InvalidRequestError, NeedsCaller, Reason, RunWatcher, Toolset
from asyncruns.lifecycle import Call

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


async def test_a_failure_that_is_surfaced_costs_the_other_calls_nothing_and_can_be_answered() -> None:
    stage = asking()
    async with RunWatcher(stage, stage.ref, tools=toolset(if_exception="surface"), timeout=60.0) as watcher:
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


async def test_a_call_that_is_refused_is_answered_so() -> None:
    stage = asking()
    asked: list[str] = []

    async def approve(call: Call, arguments: dict[str, object]) -> bool:
        asked.append(call.name)
        return call.name != "bad"

    async with RunWatcher(stage, stage.ref, tools=toolset(approve=approve)) as watcher:
        await watcher.wait()
    assert sorted(asked) == ["bad", "good", "slow"]
    outputs = {one["tool_call_id"]: one["output"] for one in stage.transport.bodies("submit")[0]["tool_outputs"]}
    assert "refused" in outputs["call_2"]


@pytest.mark.parametrize(("limit", "seconds"), [(None, 5.0), (2, 10.0), (1, 15.0)])
async def test_a_watch_may_run_a_few_calls_at_once_only(limit: int | None, seconds: float) -> None:
    calls = [(f"call_{n}", "f", "{}") for n in range(3)]
    stage = scene(ok("requires_action", *calls), submits=[ok("completed")])

    async def f() -> None:
        await anyio.sleep(5.0)

    began = anyio.current_time()
    async with RunWatcher(stage, stage.ref, tools=Toolset([f]), max_concurrent_calls=limit) as watcher:
        await watcher.wait()
    assert anyio.current_time() - began == pytest.approx(seconds, abs=0.2)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
async def test_a_limit_that_is_none_is_refused(limit: object) -> None:
    stage = asking()
    with pytest.raises(InvalidRequestError, match="max_concurrent_calls"):
        RunWatcher(stage, stage.ref, max_concurrent_calls=limit)  # type: ignore[arg-type]
