"""The caller's code in a watch: it is abandoned if it ignores its cancellation, and can't wait for its own watch.

Whatever it does, the watch has an outcome, its block can be left, and no other watch notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from scripted import Scene, ok, scene
from shells import OneWatch, Shell

from asyncruns import Completed, GaveUp, InvalidRequestError, NeedsCaller, Reason, RunWatcher, Toolset
from asyncruns.lifecycle import Call

ONE = ("call_1", "f", "{}")
TWO = ("call_2", "g", "{}")
GRACE_S = 2.5


async def stubborn(*arguments: object) -> Any:
    while True:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(3600.0)


async def endless() -> Any:
    return await stubborn()


def sent(stage: Scene) -> list[dict[str, str]]:
    return [
        {one["tool_call_id"]: one["output"] for one in body["tool_outputs"]}
        for body in stage.transport.bodies("submit")
    ]


def asking(*calls: tuple[str, str, str]) -> Scene:
    return scene(ok("requires_action", *(calls or (ONE,))), submits=[ok("completed")])


# Code that ignores its cancellation


async def test_a_tool_that_ignores_its_timeout_is_answered_as_timed_out_beside_the_others(
    shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    stage = asking(ONE, TWO)
    tools = Toolset({"f": endless, "g": lambda: "done"}, timeout=5.0)
    async with shell(stage, stage.ref, tools=tools) as watcher:
        outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert outcome.elapsed == pytest.approx(5.0 + GRACE_S, abs=0.2)
    ((outputs,),) = (sent(stage),)
    assert "did not finish within 5 seconds" in outputs["call_1"]
    assert outputs["call_2"] == "done"
    (warning,) = [message for message in caplog.messages if "abandoned" in message]
    assert warning.startswith("The tool f (the call 'call_1') of thread_1/run_1 ignored its cancellation for 2.5 s")


OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "a tool": lambda: {"tools": Toolset({"f": endless})},
    "approve": lambda: {"tools": Toolset({"f": lambda: 1}, approve=stubborn)},
    "a policy": lambda: {"tools": Toolset({"f": lambda: 1 // 0}, if_exception=stubborn)},
    "on_requires_action": lambda: {"on_requires_action": stubborn},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
async def test_code_that_ignores_the_end_of_the_watch_delays_neither_the_outcome_nor_leaving(
    shell: Shell, options: Callable[[], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    stage = asking()
    began = anyio.current_time()
    async with shell(stage, stage.ref, timeout=10.0, **options()) as watcher:
        outcome = await watcher.wait()
        assert anyio.current_time() - began == pytest.approx(10.0, abs=0.1)
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.TIMEOUT
    assert anyio.current_time() - began == pytest.approx(10.0 + GRACE_S, abs=0.2)
    assert stage.transport.count("submit") == 0
    assert len([message for message in caplog.messages if "abandoned" in message]) == 1
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
async def test_a_watch_that_is_cancelled_ends_although_the_code_of_the_caller_does_not(
    shell: Shell, options: Callable[[], dict[str, Any]]
) -> None:
    stage = asking()

    async def watch() -> None:
        async with shell(stage, stage.ref, **options()) as watcher:
            await watcher.wait()

    task = asyncio.create_task(watch())
    await asyncio.sleep(5.0)
    began = anyio.current_time()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert anyio.current_time() - began == pytest.approx(GRACE_S, abs=0.2)


@pytest.mark.parametrize("name", ["on_status", "on_terminal"])
async def test_an_observer_that_ignores_its_cancellation_delays_leaving_for_a_few_seconds_only(
    shell: Shell, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage = scene(ok("completed"))
    began = anyio.current_time()
    observer: dict[str, Any] = {name: stubborn}
    async with shell(stage, stage.ref, **observer) as watcher:
        assert isinstance(await watcher.wait(), Completed)
    assert anyio.current_time() - began == pytest.approx(2.0 + GRACE_S, abs=0.2)
    assert next(message for message in caplog.messages if "abandoned" in message).startswith(
        f"{name} of thread_1/run_1 ignored"
    )


async def test_what_a_tool_returns_after_the_watch_is_not_submitted(shell: Shell) -> None:
    async def f() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600.0)
        return "late"

    stage = asking()
    async with shell(stage, stage.ref, tools=Toolset([f]), timeout=10.0) as watcher:
        assert isinstance(await watcher.wait(), GaveUp)
    assert stage.transport.count("submit") == 0


async def test_a_cancelled_run_is_not_delayed_by_a_tool_that_goes_on(shell: Shell) -> None:
    stage = scene(ok("requires_action", ONE), cancels=[ok("cancelled")])
    async with shell(stage, stage.ref, tools=Toolset({"f": endless})) as watcher:
        await asyncio.sleep(1.0)
        began = anyio.current_time()
        await watcher.cancel_run()
        assert (await watcher.wait()).status == "cancelled"
        assert anyio.current_time() - began < 1.0


# Code that uses its own watch


async def outcome_with(
    shell: Shell, stage: Scene, act: Callable[[OneWatch], Awaitable[object]], **options: Any
) -> tuple[Any, list[BaseException]]:
    """Watch a run whose tool does this with its own watch; return the outcome, and the errors that the tool got."""
    raised: list[BaseException] = []

    async def f() -> str:
        try:
            await act(watch)
        except BaseException as error:
            raised.append(error)
            raise
        return "done"

    async with shell(stage, stage.ref, tools=Toolset([f]), **options) as watch:
        outcome = await watch.wait()
    return outcome, raised


async def test_a_tool_cannot_leave_its_own_watch_and_the_model_reads_that_it_failed(shell: Shell) -> None:
    stage = asking()
    outcome, (error,) = await outcome_with(shell, stage, lambda watch: watch.__aexit__(None, None, None))
    assert isinstance(outcome, Completed)
    assert "can't leave" in str(error)
    assert sent(stage) == [{"call_1": '{"error":"The tool f failed."}'}]


async def test_a_tool_cannot_wait_for_its_own_watch(shell: Shell) -> None:
    stage = asking()
    outcome, (error,) = await outcome_with(shell, stage, lambda watch: watch.wait())
    assert isinstance(outcome, Completed)
    assert "would wait for itself" in str(error)


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_handler_can_neither_leave_nor_wait_for_its_own_watch(shell: Shell, leaves: bool) -> None:
    stage = asking()

    async def handle(calls: list[Call]) -> None:
        await (watch.__aexit__(None, None, None) if leaves else watch.wait())

    watch: OneWatch = shell(stage, stage.ref, on_requires_action=handle)
    async with watch:
        outcome = await watch.wait()
    assert isinstance(outcome, NeedsCaller)
    assert outcome.reason is Reason.HANDLER_FAILED
    assert ("can't leave" if leaves else "wait for itself") in str(outcome.cause)


async def test_an_observer_cannot_leave_its_own_watch(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    stage = scene(ok("queued"), ok("completed"))

    async def observe(event: object) -> None:
        await watch.__aexit__(None, None, None)

    async with shell(stage, stage.ref, on_status=observe) as watch:
        assert isinstance(await watch.wait(), Completed)
    assert "on_status raised" in caplog.text
    assert "can't leave" in caplog.text


async def test_a_tool_that_waits_for_its_own_watch_in_another_task_ends_with_the_watch(shell: Shell) -> None:
    stage = asking()

    async def wait(watch: OneWatch) -> None:
        await asyncio.create_task(watch.wait())

    outcome, _ = await outcome_with(shell, stage, wait, timeout=10.0)
    assert isinstance(outcome, GaveUp)


async def test_a_tool_may_have_another_task_leave_its_own_watch(shell: Shell) -> None:
    stage = asking()
    leaving: list[asyncio.Task[None]] = []

    async def leave(watch: OneWatch) -> None:
        leaving.append(asyncio.create_task(watch.__aexit__(None, None, None)))
        await asyncio.sleep(3600.0)

    began = anyio.current_time()
    with pytest.raises(Exception, match="was left"):
        await outcome_with(shell, stage, leave)
    await leaving[0]
    assert anyio.current_time() - began < 3.0


async def test_a_tool_may_cancel_its_own_run(shell: Shell) -> None:
    stage = scene(ok("requires_action", ONE), cancels=[ok("cancelled")])

    async def cancel(watch: OneWatch) -> None:
        await watch.cancel_run()
        await asyncio.sleep(3600.0)

    outcome, (error,) = await outcome_with(shell, stage, cancel)
    assert outcome.status == "cancelled"
    assert isinstance(error, asyncio.CancelledError)
    assert stage.transport.count("submit") == 0


async def test_a_tool_cannot_await_the_task_that_watches_its_run() -> None:
    stage = asking()
    watching: list[asyncio.Task[Any]] = []
    raised: list[BaseException] = []

    async def f() -> None:
        try:
            await watching[0]
        except InvalidRequestError as error:
            raised.append(error)
            raise

    async def watch() -> Any:
        async with RunWatcher(stage, stage.ref, tools=Toolset([f])) as watcher:
            return await watcher.wait()

    watching.append(asyncio.create_task(watch()))
    assert isinstance(await watching[0], Completed)
    assert "await the task that watches its own run" in str(raised[0])


@pytest.mark.parametrize("error", [GeneratorExit, SystemExit, KeyboardInterrupt, StopIteration, asyncio.CancelledError])
async def test_whatever_a_tool_raises_the_run_goes_on(shell: Shell, error: type[BaseException]) -> None:
    async def f() -> None:
        await asyncio.sleep(0.1)
        raise error

    def g() -> None:
        raise error

    stage = asking(ONE, TWO)
    async with shell(stage, stage.ref, tools=Toolset([f, g])) as watcher:
        assert isinstance(await watcher.wait(), Completed)
    failed = '{{"error":"The tool {} failed."}}'
    assert sent(stage) == [{"call_1": failed.format("f"), "call_2": failed.format("g")}]


@pytest.mark.parametrize("error", [GeneratorExit, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("is_async", [True, False])
async def test_whatever_a_handler_raises_the_watch_ends_as_needing_the_caller(
    shell: Shell, error: type[BaseException], is_async: bool
) -> None:
    async def later(calls: list[Call]) -> None:
        raise error

    def at_once(calls: list[Call]) -> None:
        raise error

    stage = asking()
    async with shell(stage, stage.ref, on_requires_action=later if is_async else at_once) as watcher:
        outcome = await watcher.wait()
    assert isinstance(outcome, NeedsCaller)
    assert outcome.cause is not None
    assert isinstance(outcome.cause.__cause__, error)


@pytest.mark.parametrize("error", [GeneratorExit, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("is_async", [True, False])
async def test_whatever_an_observer_raises_the_watch_goes_on(
    shell: Shell, error: type[BaseException], is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    seen = []

    async def later(value: object) -> None:
        seen.append(value)
        raise error

    def at_once(value: object) -> None:
        seen.append(value)
        raise error

    stage = scene(ok("queued"), ok("completed"))
    with caplog.at_level(logging.ERROR):
        async with shell(stage, stage.ref, on_status=later if is_async else at_once) as watcher:
            assert isinstance(await watcher.wait(), Completed)
    assert len(seen) == 2
