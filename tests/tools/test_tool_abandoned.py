"""The caller's coroutines that ignore their cancellation are abandoned; all others work as in tasks of their own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from toolcalls import Hook, a_call, error_of, output_of

from asyncruns.errors import ToolError
from asyncruns.lifecycle import Call
from asyncruns.tools import Toolset
from asyncruns.user_code import task

GRACE_S = 2.5
CALL = a_call("f")


async def stubborn() -> str:
    while True:  # like a retry loop with a bare `except:`
        with contextlib.suppress(BaseException):
            await asyncio.sleep(3600.0)


async def slow_to_clean_up() -> None:
    try:
        await asyncio.sleep(3600.0)
    finally:
        try:
            await asyncio.sleep(3600.0)
        finally:
            await asyncio.sleep(3600.0)


async def spinning() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.001)


async def with_stubborn_children() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(stubborn())
        group.create_task(stubborn())


async def awaiting_a_stubborn_task() -> None:
    await asyncio.create_task(stubborn())


async def gathering() -> None:
    await asyncio.gather(stubborn(), stubborn())


async def in_a_task_group_of_anyio() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(stubborn)


async def in_a_scope_of_anyio() -> None:
    with anyio.move_on_after(0.1):
        await stubborn()


def a_coroutine_from_a_thread() -> Awaitable[str]:
    return stubborn()


ALL = [
    stubborn,
    slow_to_clean_up,
    spinning,
    with_stubborn_children,
    awaiting_a_stubborn_task,
    gathering,
    a_coroutine_from_a_thread,
]


async def warnings_after(caplog: pytest.LogCaptureFixture, doing: Awaitable[object]) -> list[str]:
    with caplog.at_level(logging.WARNING):
        await doing
    return [message for message in caplog.messages if "abandoned" in message]


@pytest.mark.parametrize("tool", ALL, ids=lambda tool: tool.__name__)
async def test_a_tool_that_ignores_its_timeout_is_abandoned_and_the_model_is_told(
    tool: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    hook = Hook()
    loop = asyncio.get_running_loop()
    began = loop.time()
    output = await output_of(tool, timeout=5.0, on_error=hook)
    assert error_of(output) == "The tool f did not finish within 5 seconds."
    assert loop.time() - began == pytest.approx(5.0 + GRACE_S, abs=0.2)
    assert [type(error) for error in hook.errors] == [TimeoutError]
    (warning,) = [message for message in caplog.messages if "abandoned" in message]
    assert warning.startswith("The tool f (the call 'call_1') ignored its cancellation for 2.5 s")


@pytest.mark.parametrize("tool", ALL, ids=lambda tool: tool.__name__)
async def test_a_tool_that_ignores_the_cancellation_of_its_caller_is_abandoned(tool: Callable[[], Any]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(output_of(tool))
    await asyncio.sleep(1.0)
    began = loop.time()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(1.0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert loop.time() - began <= 3.2


@pytest.mark.real_time
@pytest.mark.parametrize("tool", [in_a_task_group_of_anyio, in_a_scope_of_anyio], ids=lambda tool: tool.__name__)
async def test_a_tool_that_ignores_a_scope_of_its_own_is_abandoned_and_does_not_spin_afterwards(
    tool: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In real time: a cancelled scope runs a callback in each iteration of the loop, so virtual time stands still."""
    monkeypatch.setattr(task, "CANCEL_AGAIN_AFTER_S", 0.05)
    monkeypatch.setattr(task, "ABANDON_AFTER_S", 0.05)
    assert "did not finish" in error_of(await output_of(tool, timeout=0.2))
    began = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - began < 0.1


async def test_a_scope_of_anyio_around_a_call_does_not_spin_while_the_tool_ends() -> None:
    cancelled = 0

    async def f() -> None:
        nonlocal cancelled
        while True:
            try:
                await asyncio.sleep(3600.0)
            except asyncio.CancelledError:
                cancelled += 1

    with anyio.move_on_after(1.0):
        await output_of(f)
    assert cancelled == 2


async def test_an_abandoned_coroutine_is_never_resumed() -> None:
    gc.collect()  # objects of other tests may close themselves in tasks, which must have ended before the last check
    event = asyncio.Event()
    steps: list[str] = []

    async def f() -> None:
        while True:
            try:
                await event.wait()
                steps.append("resumed")
                await asyncio.sleep(0)
            except BaseException as error:
                steps.append(type(error).__name__)

    await output_of(f, timeout=1.0)
    assert steps == ["CancelledError", "CancelledError"]
    event.set()
    await asyncio.sleep(100.0)
    gc.collect()
    assert steps == ["CancelledError", "CancelledError"]
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_what_is_returned_after_the_timeout_is_discarded() -> None:
    async def f() -> str:
        try:
            await asyncio.sleep(3600.0)
        except asyncio.CancelledError:
            await asyncio.sleep(1.0)
        return "late"

    assert "did not finish" in error_of(await output_of(f, timeout=1.0))


async def test_a_tool_can_send_the_model_a_text_at_its_timeout() -> None:
    async def f() -> None:
        try:
            await asyncio.sleep(3600.0)
        except asyncio.CancelledError:
            raise ToolError("Too many rows; ask for fewer.") from None

    assert error_of(await output_of(f, timeout=1.0)) == "Too many rows; ask for fewer."


async def test_a_cleanup_of_two_seconds_is_awaited(caplog: pytest.LogCaptureFixture) -> None:
    cleaned = []

    async def f() -> None:
        try:
            await asyncio.sleep(3600.0)
        finally:
            await asyncio.sleep(1.9)
            cleaned.append(True)

    assert await warnings_after(caplog, output_of(f, timeout=1.0)) == []
    assert cleaned == [True]


async def test_a_tool_that_swallows_one_cancellation_ends_at_the_second(caplog: pytest.LogCaptureFixture) -> None:
    ended = []

    async def f() -> None:
        try:
            try:
                await asyncio.sleep(3600.0)
            except asyncio.CancelledError:
                await asyncio.sleep(3600.0)
        finally:
            ended.append(True)

    assert await warnings_after(caplog, output_of(f, timeout=1.0)) == []
    assert ended == [True]


async def test_an_abandoned_tool_releases_its_place() -> None:
    tools = Toolset({"f": stubborn}, max_concurrency=1, timeout=1.0)
    tools.tool(lambda: "done", name="h")
    first = asyncio.create_task(tools.call(CALL))
    assert await tools.call(a_call("h")) == "done"
    assert "did not finish" in await first


# Approvals and policies


async def test_an_approval_that_ignores_its_cancellation_is_abandoned(caplog: pytest.LogCaptureFixture) -> None:
    async def approve(call: Call, arguments: dict[str, Any]) -> str:
        return await stubborn()

    async def call() -> None:
        with anyio.move_on_after(1.0):
            await output_of(lambda: 1, approve=approve)

    (warning,) = await warnings_after(caplog, call())
    assert warning.startswith("approve (the call 'call_1' of f)")


async def test_a_policy_that_ignores_its_cancellation_is_abandoned(caplog: pytest.LogCaptureFixture) -> None:
    async def policy(call: Call, error: Exception) -> str:
        return await stubborn()

    async def call() -> None:
        with anyio.move_on_after(1.0):
            await output_of(lambda: 1 // 0, if_exception=policy)

    (warning,) = await warnings_after(caplog, call())
    assert warning.startswith("The function of if_exception (the call 'call_1' of f)")


# What a tool may use


async def test_timeouts_of_asyncio_work_in_a_tool() -> None:
    async def f() -> str:
        for _ in range(2):
            try:
                async with asyncio.timeout(1.0):
                    await asyncio.sleep(3600.0)
            except TimeoutError:
                pass
        async with asyncio.timeout(1.0) as scope:
            await asyncio.sleep(0.5)
        assert not scope.expired()
        task = asyncio.current_task()
        assert task is not None
        return f"{task.cancelling()} {await asyncio.wait_for(asyncio.sleep(0.1, 'done'), 1.0)}"

    assert await output_of(f, timeout=60.0) == "0 done"


async def test_task_groups_work_in_a_tool() -> None:
    async def fail() -> None:
        await asyncio.sleep(0.1)
        raise LookupError("no")

    async def f() -> str:
        stopped = []

        async def wait() -> None:
            try:
                await asyncio.sleep(3600.0)
            finally:
                stopped.append(True)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(wait())
                group.create_task(fail())
        except* LookupError:
            pass
        first, second = await asyncio.gather(asyncio.sleep(0.1, 1), asyncio.sleep(0.2, 2))
        return f"{stopped} {first} {second}"

    assert await output_of(f) == "[True] 1 2"


async def test_scopes_and_task_groups_of_anyio_work_in_a_tool() -> None:
    async def f() -> str:
        with anyio.move_on_after(1.0) as scope:
            await anyio.sleep(3600.0)
        assert scope.cancelled_caught
        with anyio.CancelScope(shield=True), anyio.move_on_after(0.1):
            await anyio.sleep(3600.0)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 3600.0)
            await anyio.sleep(0.1)
            group.cancel_scope.cancel()
        with pytest.raises(TimeoutError), anyio.fail_after(0.1):
            await anyio.sleep_forever()
        send, receive = anyio.create_memory_object_stream[str](1)
        async with send, receive:
            await send.send("done")
            return await receive.receive()

    assert await output_of(f, timeout=60.0) == "done"


async def test_each_call_of_a_tool_has_a_task_of_its_own() -> None:
    tasks = []

    async def f() -> None:
        before = asyncio.current_task()
        await asyncio.sleep(0.1)
        await asyncio.sleep(0)
        assert asyncio.current_task() is before
        tasks.append(before)

    tools = Toolset([f])
    await asyncio.gather(tools.call(CALL), tools.call(CALL))
    assert len({*tasks, asyncio.current_task()}) == 3


async def test_a_tool_that_cancels_itself_has_failed() -> None:
    async def f() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(3600.0)

    assert error_of(await output_of(f)) == "The tool f failed."


async def test_a_tool_that_awaits_itself_has_failed() -> None:
    async def f() -> None:
        task = asyncio.current_task()
        assert task is not None
        await task

    hook = Hook()
    assert error_of(await output_of(f, on_error=hook)) == "The tool f failed."
    assert "cannot await on itself" in str(hook.errors[0])


async def test_what_a_tool_awaits_is_cancelled_with_it() -> None:
    inner: list[asyncio.Task[None]] = []

    async def f() -> None:
        inner.append(asyncio.create_task(asyncio.sleep(3600.0)))
        await inner[0]

    await output_of(f, timeout=1.0)
    assert inner[0].cancelled()


async def test_a_call_sees_the_context_of_its_caller_and_does_not_change_it() -> None:
    var = contextvars.ContextVar("var", default="nobody")
    seen: list[str] = []

    async def f() -> None:
        seen.append(var.get())
        var.set("the tool")
        await asyncio.sleep(0.1)
        seen.append(var.get())

    def g() -> None:
        seen.append(var.get())
        var.set("the thread")

    def approve(call: Call, arguments: dict[str, Any]) -> bool:
        seen.append(var.get())
        var.set("approve")
        return True

    tools = Toolset([f, g], approve=approve)
    var.set("the caller")
    await tools.call(a_call("f"))
    await tools.call(a_call("g"))
    assert seen == ["the caller", "the caller", "the tool", "the caller", "the caller"]
    assert var.get() == "the caller"


async def test_a_tool_that_is_cancelled_before_its_first_step_leaves_no_coroutine_unawaited() -> None:
    for steps in range(6):
        task = asyncio.ensure_future(output_of(stubborn))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    gc.collect()


# What a tool may raise


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, asyncio.CancelledError])
@pytest.mark.parametrize("before", [0, 1])
async def test_a_tool_fails_whatever_it_raises(error: type[BaseException], before: int) -> None:
    async def f() -> None:
        for _ in range(before):
            await asyncio.sleep(0.1)
        raise error

    def g() -> None:
        raise error

    for tool in (f, g):
        hook = Hook()
        assert error_of(await output_of(tool, on_error=hook)) == "The tool f failed."
        assert len(hook.errors) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_a_call_has_an_output_whatever_an_approval_or_a_hook_raises(
    error: type[BaseException],
) -> None:
    def fail(*arguments: object) -> bool:
        raise error

    async def fail_later(*arguments: object) -> bool:
        await asyncio.sleep(0.1)
        raise error

    for approve in (fail, fail_later):
        assert "could not be approved" in error_of(await output_of(lambda: 1, approve=approve))
    for policy in (fail, fail_later):
        assert "failed" in error_of(await output_of(lambda: 1 // 0, if_exception=policy, on_error=fail))


@pytest.mark.real_time
@pytest.mark.parametrize("is_async", [True, False])
def test_ctrl_c_passes_through_a_tool(is_async: bool) -> None:
    def interrupt(*arguments: object) -> bool:
        signal.raise_signal(signal.SIGINT)
        return True

    async def tool() -> None:
        await asyncio.sleep(0)
        interrupt()

    tools = Toolset({"f": tool}) if is_async else Toolset({"f": lambda: 1}, approve=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(tools.call(CALL))
        with pytest.raises(KeyboardInterrupt):  # under `asyncio.run`, the first SIGINT cancels the main task
            asyncio.run(tools.call(CALL))
    finally:
        signal.signal(signal.SIGINT, before)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


@pytest.mark.real_time
def test_a_second_ctrl_c_ends_a_tool_that_does_not_await() -> None:
    async def f() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(output_of(f))
    finally:
        signal.signal(signal.SIGINT, before)


# Leaving the process

PROGRAM = """
import asyncio, time
from asyncruns.lifecycle.values import Call
from asyncruns.tools import Toolset

async def stubborn():
    while True:
        try:
            await asyncio.sleep(3600)
        except:
            pass

async def with_children():
    async with asyncio.TaskGroup() as group:
        group.create_task(stubborn())

async def main():
    tools = Toolset({"f": TOOL}, timeout=0.05)
    print(await tools.call(Call(id="c", name="f")))

began = time.process_time()
asyncio.run(main())
print("CPU", time.process_time() - began < 1.0)
"""


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.parametrize("tool", ["stubborn", "with_children"])
def test_an_abandoned_tool_does_not_delay_the_exit(tool: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM.replace("TOOL", tool)],
        capture_output=True,
        timeout=30,
        check=True,
        text=True,
    )
    assert "did not finish within 0.05 seconds" in done.stdout
    assert "CPU True" in done.stdout
    assert "Traceback" not in done.stderr
