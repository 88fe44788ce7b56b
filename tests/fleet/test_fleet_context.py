"""The caller's code sees the context variables of the call that watched the run, each time in a copy."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from stage import ONE_CALL, Stage

from asyncruns import Completed, Fleet, RunWatcher, Toolset
from asyncruns.lifecycle import Call
from asyncruns.testing import FunctionCall
from asyncruns.wire import Run

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="none")
REQUEST: contextvars.ContextVar[dict[str, int]] = contextvars.ContextVar("request")


class Seen:
    """The caller's code of all kinds: each notes the tenant that it sees, and sets another one."""

    def __init__(self) -> None:
        self.by_kind: dict[str, list[str]] = {}

    def see(self, kind: str) -> None:
        self.by_kind.setdefault(kind, []).append(TENANT.get())
        TENANT.set(kind)

    def options(self) -> dict[str, Any]:
        tools = Toolset(approve=self.approve, if_exception=self.policy, on_error=self.on_error)
        tools.tool(self.f)
        tools.tool(self.g)
        tools.tool(self.fail)
        return {
            "tools": tools,
            "on_requires_action": self.on_requires_action,
            "on_status": self.on_status,
            "on_terminal": self.on_terminal,
        }

    async def f(self, n: int) -> str:
        self.see("async tool")
        await asyncio.sleep(0.1)
        return "done"

    def g(self) -> str:
        self.see("sync tool")
        return "done"

    async def fail(self) -> None:
        raise ValueError

    def approve(self, call: Call, arguments: dict[str, Any]) -> bool:
        self.see("approve")
        return True

    async def policy(self, call: Call, error: Exception) -> str:
        self.see("policy")
        return "failed"

    def on_error(self, call: Call, error: Exception) -> None:
        self.by_kind.setdefault("on_error", []).append(TENANT.get())

    def on_requires_action(self, calls: list[Call]) -> None:
        self.see("on_requires_action")

    def on_status(self, change: object) -> None:
        self.see("on_status")

    async def on_terminal(self, outcome: object) -> None:
        self.see("on_terminal")

    def on_outcome(self, outcome: object) -> None:
        self.see("on_outcome")


ROUND = (*ONE_CALL, FunctionCall("g"), FunctionCall("fail"))
KINDS = {
    "async tool",
    "sync tool",
    "approve",
    "policy",
    "on_error",
    "on_requires_action",
    "on_status",
    "on_terminal",
}


async def as_tenant(name: str, do: Callable[[], Awaitable[Any]]) -> Any:
    async def work() -> Any:
        TENANT.set(name)
        return await do()

    return await asyncio.create_task(work())


async def by_fleet(stage: Stage, run: Run, options: dict[str, Any]) -> Any:
    async with Fleet(stage.client) as fleet:
        return await as_tenant("caller", lambda: fleet.watch(run, **options).wait())


async def by_a_fleet_with_options(stage: Stage, run: Run, options: dict[str, Any]) -> Any:
    async with Fleet(stage.client, **options) as fleet:
        return await as_tenant("caller", lambda: fleet.watch(run).wait())


async def by_add_many(stage: Stage, run: Run, options: dict[str, Any]) -> Any:
    async with Fleet(stage.client, **options) as fleet:
        await as_tenant("caller", lambda: fleet.add_many([run]))
        return await anext(aiter(fleet))


async def by_client(stage: Stage, run: Run, options: dict[str, Any]) -> Any:
    return await as_tenant("caller", lambda: stage.client.watch(run, **options))


async def by_watcher(stage: Stage, run: Run, options: dict[str, Any]) -> Any:
    watcher = RunWatcher(stage.client, run, **options)
    await as_tenant("caller", watcher.__aenter__)
    try:
        return await watcher.wait()
    finally:
        await watcher.__aexit__(None, None, None)


@pytest.mark.parametrize("watch", [by_fleet, by_a_fleet_with_options, by_add_many, by_client, by_watcher])
async def test_all_code_of_the_caller_sees_the_context_of_the_call_that_watched_the_run(
    stage: Stage, watch: Callable[..., Awaitable[Any]]
) -> None:
    seen = Seen()
    TENANT.set("the entering task")
    run = await stage.run(rounds=(ROUND, ROUND), working=2.0)
    assert isinstance(await watch(stage, run, seen.options()), Completed)
    assert set(seen.by_kind) == KINDS
    allowed = {"policy": {"caller"}, "on_error": {"caller"}}
    for kind, tenants in seen.by_kind.items():
        assert set(tenants) == allowed.get(kind, {"caller"}), kind
    assert TENANT.get() == "the entering task"


async def test_a_round_of_one_call_sees_the_context_of_the_call_that_watched_the_run(stage: Stage) -> None:
    seen = Seen()
    run = await stage.run(rounds=(ONE_CALL, ONE_CALL))
    async with Fleet(stage.client) as fleet:
        await as_tenant("caller", lambda: fleet.watch(run, **seen.options()).wait())
    assert seen.by_kind["async tool"] == ["caller", "caller"]


async def test_each_of_many_runs_has_the_context_of_its_own_call(stage: Stage) -> None:
    found: dict[str, list[str]] = {}
    tools = Toolset()

    @tools.tool
    async def f(n: int) -> str:
        found.setdefault("tool", []).append(TENANT.get())
        return "done"

    def on_outcome(outcome: Any) -> None:
        found.setdefault("on_outcome", []).append(TENANT.get())

    runs = await stage.runs(3, rounds=(ONE_CALL,))
    async with Fleet(stage.client, tools=tools, on_outcome=on_outcome) as fleet:
        for number, run in enumerate(runs):
            contextvars.copy_context().run(lambda n=number, run=run: (TENANT.set(str(n)), fleet.watch(run)))  # type: ignore[misc]
    assert {kind: sorted(tenants) for kind, tenants in found.items()} == {
        "tool": ["0", "1", "2"],
        "on_outcome": ["0", "1", "2"],
    }


async def test_each_of_many_runs_that_are_added_together_has_the_context_in_which_it_was_added(stage: Stage) -> None:
    """Runs added in the same context share one copy of it; what is equal, but another object, is not the same."""
    found: list[object] = []
    requests = [{"a": 1}, {"a": 1}, {"a": 1}]

    async def each() -> AsyncIterator[Run]:
        for request, runs in zip(requests, [await stage.runs(2) for _ in requests], strict=True):
            REQUEST.set(request)
            for run in runs:
                yield run

    def on_terminal(outcome: object) -> None:
        found.append(REQUEST.get())

    async with Fleet(stage.client) as fleet:
        assert await fleet.add_many(each(), on_terminal=on_terminal) == 6
        members = list(fleet._hub.runner.roster)
        assert len({id(member.listeners[0]) for member in members}) == 3
    assert sorted(map(id, found)) == sorted([id(request) for request in requests] * 2)


async def test_each_watch_of_a_run_has_its_observers_called_in_its_own_context(stage: Stage) -> None:
    found: list[tuple[str, str]] = []
    run = await stage.run(working=5.0)

    def observer(name: str) -> Callable[[object], None]:
        return lambda value: found.append((name, TENANT.get()))

    async with Fleet(stage.client) as fleet:
        for name in ("a", "b"):
            context = contextvars.copy_context()
            context.run(TENANT.set, name)
            context.run(fleet.watch, run, on_terminal=observer(name))
    assert sorted(found) == [("a", "a"), ("b", "b")]


async def test_a_task_that_submits_does_not_pass_on_its_context(stage: Stage) -> None:
    """The next round begins because another task submitted; its tools still see the context of the caller."""
    seen = Seen()
    run = await stage.run(rounds=((FunctionCall("other"),), ONE_CALL))
    options = {**seen.options(), "tools": Toolset({"f": seen.f}, if_unknown_tool="surface")}
    async with RunWatcher(stage.client, run, **options) as watcher:
        (call,) = (await watcher.wait()).calls
        await as_tenant("another", lambda: watcher.submit({call.id: "done"}))
        assert isinstance(await watcher.wait(), Completed)
    assert seen.by_kind["async tool"] == ["none"]
