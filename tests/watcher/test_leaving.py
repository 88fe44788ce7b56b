"""Cancelling, callbacks and leaving at awkward moments."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from scripted import error, ok, run_body, scene
from shells import Shell

from asyncruns import (
    Cancelled,
    Completed,
    GaveUp,
    InvalidRequestError,
    NeedsCaller,
    Reason,
    RunWatcher,
    Toolset,
)
from asyncruns.lifecycle import Call
from asyncruns.wire import Run, decode, encode

CALL = ("call_1", "f", "{}")


async def test_a_cancel_right_after_entering_is_not_lost(shell: Shell) -> None:
    stage = scene(ok("in_progress"), ok("cancelled"), cancels=[ok("cancelling")])
    async with shell(stage, stage.ref) as watcher:
        await watcher.cancel_run()
        assert isinstance(await watcher.wait(), Cancelled)
    assert stage.transport.count("cancel") == 1


async def test_a_run_whose_calls_are_not_answered_can_be_cancelled(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), ok("cancelled"), cancels=[ok("cancelling")])
    async with shell(stage, stage.ref) as watcher:
        assert isinstance(await watcher.wait(), NeedsCaller)
        await watcher.cancel_run()
        outcome = await watcher.wait()
    assert isinstance(outcome, Cancelled)
    assert outcome.cancel_requested


async def test_a_cancel_after_the_run_has_ended_does_nothing(shell: Shell) -> None:
    stage = scene(ok("completed"))
    async with shell(stage, stage.ref) as watcher:
        await watcher.wait()
        await watcher.cancel_run()
    assert stage.transport.count("cancel") == 0


async def test_a_run_that_was_given_up_can_be_cancelled(shell: Shell) -> None:
    stage = scene(*[ok("in_progress")] * 6, ok("cancelled"), cancels=[ok("cancelling")])
    async with shell(stage, stage.ref, timeout=2.0) as watcher:
        assert isinstance(await watcher.wait(), GaveUp)
        await watcher.cancel_run()
        outcome = await watcher.wait()
    assert isinstance(outcome, Cancelled)
    assert outcome.cancel_requested


async def test_a_watcher_that_was_left_says_where_else_to_cancel(shell: Shell) -> None:
    stage = scene(ok("in_progress"))
    async with shell(stage, stage.ref) as watcher:
        pass
    with pytest.raises(InvalidRequestError, match="client"):
        await watcher.cancel_run()


async def test_no_tool_begins_after_a_cancel(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), cancels=[ok("cancelling")], takes=0.01)
    begun: list[str] = []

    async def f() -> None:
        begun.append("f")

    async with shell(stage, stage.ref, tools=Toolset([f])) as watcher:
        async for event in watcher:
            if type(event).__name__ == "ActionRequired":
                await watcher.cancel_run()
                break
        await anyio.sleep(3.0)
    assert begun == []


async def test_tools_are_stopped_before_a_cancel_is_sent(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), ok("cancelled"), cancels=[ok("cancelling")])
    cancels_before: list[int] = []

    async def f() -> None:
        try:
            await anyio.sleep(60.0)
        finally:
            cancels_before.append(stage.transport.count("cancel"))

    async with shell(stage, stage.ref, tools=Toolset([f])) as watcher:
        await anyio.sleep(1.0)
        await watcher.cancel_run()
        assert isinstance(await watcher.wait(), Cancelled)
    assert cancels_before == [0]
    assert stage.transport.count("submit") == 0


async def test_a_server_that_does_not_cancel_leaves_the_calls_to_the_caller(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), cancels=[error(400, "Not supported")])

    async def f() -> None:
        await anyio.sleep(60.0)

    async with shell(stage, stage.ref, tools=Toolset([f])) as watcher:
        await anyio.sleep(5.0)
        await watcher.cancel_run()
        outcome = await watcher.wait()
    assert isinstance(outcome, NeedsCaller)
    assert outcome.reason is Reason.CANCEL_REFUSED
    assert "Not supported" in str(outcome.cause)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_submit_that_hangs_delays_leaving_for_a_few_seconds_only(shell: Shell, times: int) -> None:
    stage = scene(ok("requires_action", CALL), submits=[ok("queued")])

    async def hang(calls: list[Call]) -> dict[str, str]:
        stage.transport.submits_take = 10_000.0
        return {"call_1": "out"}

    async def watch() -> None:
        async with shell(stage, stage.ref, on_requires_action=hang, timeout=None) as watcher:
            await watcher.wait()

    task = asyncio.create_task(watch())
    await anyio.sleep(10.0)
    began = anyio.current_time()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.1)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert anyio.current_time() - began < 6.0


async def test_a_hanging_observer_delays_neither_the_outcome_nor_leaving_for_long(shell: Shell) -> None:
    stage = scene(ok("in_progress"))

    async def hang(change: object) -> None:
        await anyio.sleep(10_000.0)

    began = anyio.current_time()
    async with shell(stage, stage.ref, on_status=hang, timeout=5.0) as watcher:
        await watcher.wait()
        assert anyio.current_time() - began == pytest.approx(5.0, abs=0.1)
    assert anyio.current_time() - began < 8.0


async def cancelled_elsewhere() -> None:
    task = asyncio.create_task(asyncio.sleep(60.0))
    await asyncio.sleep(0)
    task.cancel()
    await task


async def test_a_handler_that_raises_the_cancellation_of_something_else_has_failed(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL))

    async def handler(calls: list[Call]) -> None:
        await cancelled_elsewhere()

    async with shell(stage, stage.ref, on_requires_action=handler) as watcher:
        outcome = await watcher.wait()
    assert isinstance(outcome, NeedsCaller)
    assert outcome.reason is Reason.HANDLER_FAILED
    assert "CancelledError" in str(outcome.cause)


async def test_an_observer_that_raises_the_cancellation_of_something_else_changes_nothing(shell: Shell) -> None:
    stage = scene(ok("in_progress"), ok("completed"))

    async def observer(change: object) -> None:
        await cancelled_elsewhere()

    async with shell(stage, stage.ref, on_status=observer) as watcher:
        assert isinstance(await watcher.wait(), Completed)


async def test_events_go_to_one_reader(shell: Shell) -> None:
    stage = scene(ok("in_progress"))
    async with shell(stage, stage.ref) as watcher:
        first = asyncio.ensure_future(anext(aiter(watcher)))
        await asyncio.sleep(0)
        with pytest.raises(InvalidRequestError, match="one reader"):
            await anext(aiter(watcher))
        await first


async def test_an_error_of_the_watch_is_logged_if_the_body_fails_too(caplog: pytest.LogCaptureFixture) -> None:
    stage = scene(ZeroDivisionError("bug"))
    with pytest.raises(ValueError, match="mine"):
        async with RunWatcher(stage, stage.ref):
            await anyio.sleep(1.0)
            raise ValueError("mine")
    assert "ZeroDivisionError" in caplog.text


async def test_an_error_of_the_watch_that_was_handled_is_not_raised_again() -> None:
    stage = scene(ZeroDivisionError("bug"))
    async with RunWatcher(stage, stage.ref) as watcher:
        with pytest.raises(ZeroDivisionError):
            await watcher.wait()


async def test_ids_that_are_not_those_of_the_run_are_refused() -> None:
    stage = scene(ok("queued"))
    run = decode(encode(run_body("queued")), Run)
    RunWatcher(stage, run, thread_id="thread_1", run_id="run_1")
    with pytest.raises(InvalidRequestError, match="run_id='run_9'"):
        RunWatcher(stage, run, run_id="run_9")
