"""What becomes of the run when its watch is left."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import msgspec
import pytest
from scripted import Scene, Scripted, error, ok, scene
from shells import Shell

from asyncruns import (
    APITimeoutError,
    Cancelled,
    Client,
    Completed,
    GaveUp,
    InvalidRequestError,
    NeedsCaller,
    Reason,
    RunGoneError,
    RunRef,
    RunWatcher,
    Toolset,
)
from asyncruns.http import Response
from asyncruns.testing import Emulator, Scenario
from asyncruns.watch.outcome import AnyOutcome

CALL = ("call_1", "f", "{}")


def going_on(*ends: Scripted, cancels: list[Scripted] | None = None, polls: int = 1, **more: float) -> Scene:
    """Return a scene whose run is in progress for this many polls, and then shows the given ends."""
    return scene(*[ok("in_progress")] * polls, *ends, cancels=cancels or [ok("cancelling")], **more)


async def test_by_default_the_run_is_left_as_it_is(shell: Shell) -> None:
    stage = going_on()
    async with shell(stage, stage.ref):
        await anyio.sleep(1.0)
    assert stage.transport.count("cancel") == 0


async def test_leaving_cancels_the_run_if_requested(shell: Shell) -> None:
    stage = going_on(ok("cancelled"))
    async with shell(stage, stage.ref, on_exit="cancel") as watcher:
        pass
    assert stage.transport.count("cancel") == 1
    assert isinstance(watcher.outcome, Cancelled)
    assert watcher.outcome.cancel_requested


async def test_a_run_that_has_ended_is_not_cancelled(shell: Shell) -> None:
    stage = scene(ok("completed"))
    async with shell(stage, stage.ref, on_exit="cancel") as watcher:
        await watcher.wait()
    assert stage.transport.count("cancel") == 0


async def test_a_body_that_raises_cancels_too_and_its_error_propagates_unchanged(shell: Shell) -> None:
    stage = going_on(ok("cancelled"))
    with pytest.raises(ValueError, match="mine"):
        async with shell(stage, stage.ref, on_exit="cancel"):
            await anyio.sleep(0.1)
            raise ValueError("mine")
    assert stage.transport.count("cancel") == 1


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_caller_cancels_the_run(shell: Shell, times: int) -> None:
    stage = going_on(ok("cancelling"), ok("cancelled"))

    async def watch() -> None:
        async with shell(stage, stage.ref, on_exit="cancel") as watcher:
            await watcher.wait()

    task = asyncio.create_task(watch())
    await anyio.sleep(0.1)
    for _ in range(times):
        task.cancel()
        await anyio.sleep(0.001)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.transport.count("cancel") == 1
    assert stage.transport.finished[-1] == "poll"


async def test_a_scope_that_times_out_cancels_the_run(shell: Shell) -> None:
    stage = going_on(ok("cancelled"))
    watcher = shell(stage, stage.ref, on_exit="cancel")
    with anyio.move_on_after(0.1):
        async with watcher:
            await watcher.wait()
    assert stage.transport.count("cancel") == 1
    assert isinstance(watcher.outcome, Cancelled)


async def test_a_watch_that_gave_up_cancels_the_run(shell: Shell) -> None:
    stage = going_on(ok("cancelled"), polls=6)
    async with shell(stage, stage.ref, timeout=2.0, on_exit="cancel") as watcher:
        assert isinstance(await watcher.wait(), GaveUp)
    assert stage.transport.count("cancel") == 1
    assert isinstance(watcher.outcome, Cancelled)


async def test_a_run_whose_calls_are_not_answered_is_cancelled(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), ok("cancelled"), cancels=[ok("cancelling")])
    async with shell(stage, stage.ref, on_exit="cancel") as watcher:
        assert isinstance(await watcher.wait(), NeedsCaller)
    assert isinstance(watcher.outcome, Cancelled)


async def test_a_completion_that_was_faster_is_the_outcome(shell: Shell) -> None:
    stage = going_on(ok("completed"), cancels=[error(400, "Cannot cancel run with status 'completed'.")])
    async with shell(stage, stage.ref, on_exit="cancel") as watcher:
        pass
    assert isinstance(watcher.outcome, Completed)
    assert watcher.outcome.cancel_requested


async def test_a_cancel_that_hangs_delays_leaving_for_a_few_seconds_only(shell: Shell) -> None:
    stage = going_on(ok("cancelling"))
    began = anyio.current_time()
    async with shell(stage, stage.ref, on_exit="cancel") as watcher:
        pass
    assert anyio.current_time() - began == pytest.approx(5.0, abs=0.5)
    assert isinstance(watcher.outcome, GaveUp)
    assert watcher.outcome.reason is Reason.NOT_CANCELLED
    assert isinstance(watcher.outcome.cancel_error, APITimeoutError)
    assert watcher.outcome.cancel_requested
    assert watcher.status == "cancelling"


async def test_a_server_that_does_not_answer_delays_leaving_for_a_few_seconds_only(shell: Shell) -> None:
    stage = going_on(takes=1000.0)
    began = anyio.current_time()
    async with shell(stage, stage.ref, on_exit="cancel"):
        pass
    assert anyio.current_time() - began < 6.0
    assert stage.transport.count("cancel") == 1


async def test_a_server_that_does_not_cancel_does_not_delay_leaving(shell: Shell) -> None:
    stage = going_on(cancels=[error(400, "Not supported")])
    began = anyio.current_time()
    async with shell(stage, stage.ref, on_exit="cancel"):
        pass
    assert anyio.current_time() - began < 1.0


@pytest.mark.parametrize("refusal", [error(400, "Run is queued"), error(409), error(422, "?"), error(404), error(503)])
async def test_a_cancel_that_is_refused_while_the_run_is_queued_is_sent_again_when_it_runs(
    shell: Shell, refusal: Scripted
) -> None:
    polls = [*[ok("queued")] * 4, ok("in_progress"), ok("cancelled")]
    stage = scene(*polls, cancels=[refusal, ok("cancelling")])
    async with shell(stage, stage.ref, on_exit="cancel") as watcher:
        await anyio.sleep(0.1)
    assert stage.transport.count("cancel") == 2
    assert isinstance(watcher.outcome, Cancelled)
    assert watcher.outcome.cancel_requested
    assert watcher.outcome.cancel_error is None


async def test_a_cancel_that_the_caller_requests_is_sent_again_as_well(shell: Shell) -> None:
    polls = [*[ok("queued")] * 4, ok("in_progress"), ok("cancelled")]
    stage = scene(*polls, cancels=[error(400, "Run is queued"), ok("cancelling")])
    async with shell(stage, stage.ref) as watcher:
        await anyio.sleep(0.1)
        await watcher.cancel_run()
        outcome = await watcher.wait()
    assert stage.transport.count("cancel") == 2
    assert isinstance(outcome, Cancelled)


@pytest.mark.parametrize("status", [400, 409, 422])
@pytest.mark.parametrize("end", ["completed", "failed", "expired", "cancelled"])
async def test_after_a_refusal_in_unknown_words_a_poll_shows_the_truth(shell: Shell, status: int, end: str) -> None:
    stage = going_on(ok(end), cancels=[error(status, "No way")])
    began = anyio.current_time()
    async with shell(stage, stage.ref, on_exit="cancel") as watcher:
        await anyio.sleep(0.1)
    assert anyio.current_time() - began < 1.0
    assert watcher.outcome is not None
    assert watcher.outcome.status == end


async def test_what_could_not_be_cancelled_is_a_warning_and_in_the_outcome(
    shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    reported: list[AnyOutcome[Any]] = []
    stage = going_on(cancels=[error(400, "No way")])
    began = anyio.current_time()
    async with shell(stage, stage.ref, on_exit="cancel", on_terminal=reported.append) as watcher:
        pass
    assert anyio.current_time() - began == pytest.approx(5.0, abs=0.5)
    assert isinstance(watcher.outcome, GaveUp)
    assert watcher.outcome.reason is Reason.NOT_CANCELLED
    assert not watcher.outcome.cancel_requested
    assert "No way" in str(watcher.outcome.cancel_error)
    assert reported == [watcher.outcome]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "thread_1/run_1" in record.getMessage()
    assert "No way" in record.getMessage()


@pytest.mark.parametrize("refusal", [error(404), error(405), error(501), error(400, "Cancel is not supported here")])
async def test_a_server_that_has_no_cancel_is_known_by_its_refusal(shell: Shell, refusal: Scripted) -> None:
    stage = going_on(cancels=[refusal])
    async with shell(stage, stage.ref, on_exit="cancel") as watcher:
        await anyio.sleep(10.0)
        began = anyio.current_time()
    assert anyio.current_time() - began < 1.0
    assert stage.transport.count("cancel") == 1
    assert isinstance(watcher.outcome, GaveUp)
    assert watcher.outcome.cancel_error is not None


async def test_a_pause_that_the_server_asks_for_does_not_lose_the_cancel() -> None:
    throttled = Response(429, {"retry-after": "30"}, b"{}")
    stage = going_on(*[ok("in_progress")] * 20, ok("cancelled"), cancels=[throttled, ok("cancelled")])
    async with RunWatcher(stage, stage.ref, on_exit="cancel") as watcher:
        pass
    assert stage.transport.count("cancel") == 2
    assert isinstance(watcher.outcome, Cancelled)


async def test_no_tool_runs_while_leaving_waits_for_another_status(shell: Shell) -> None:
    ran: list[str] = []

    async def f() -> str:
        ran.append("f")
        return "out"

    polls = [*[ok("queued")] * 3, ok("requires_action", CALL), ok("cancelled")]
    stage = scene(*polls, cancels=[error(400, "Run is queued"), ok("cancelling")])
    async with shell(stage, stage.ref, tools=Toolset([f]), on_exit="cancel") as watcher:
        await anyio.sleep(0.1)
    assert isinstance(watcher.outcome, Cancelled)
    assert (ran, stage.transport.count("submit")) == ([], 0)


async def test_a_pending_cancel_is_waited_for_whatever_else_leaving_does(shell: Shell) -> None:
    stage = going_on(*[ok("in_progress")] * 3, ok("cancelled"), cancels=[error(503), ok("cancelling")])
    async with shell(stage, stage.ref) as watcher:
        await anyio.sleep(0.1)
        await watcher.cancel_run()
        await anyio.sleep(0.1)
    assert stage.transport.count("cancel") == 2
    assert isinstance(watcher.outcome, Cancelled)


async def test_a_submit_that_hangs_does_not_keep_the_cancel_from_being_sent(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), submits=[ok("queued")], cancels=[ok("cancelling")])
    stage.transport.submits_take = 10_000.0

    async def f() -> str:
        return "out"

    async with shell(stage, stage.ref, tools=Toolset([f]), on_exit="cancel"):
        await anyio.sleep(1.0)
    assert stage.transport.count("submit") == 1
    assert stage.transport.count("cancel") == 1


async def test_a_pending_submit_is_waited_for_before_the_cancel(shell: Shell) -> None:
    polls = [ok("requires_action", CALL), ok("cancelled")]
    stage = scene(*polls, submits=[ok("queued")], cancels=[ok("cancelling")])
    stage.transport.submits_take = 1.0

    async def f() -> str:
        return "out"

    async with shell(stage, stage.ref, tools=Toolset([f]), on_exit="cancel") as watcher:
        await anyio.sleep(0.5)
    assert stage.transport.finished.index("submit") < stage.transport.finished.index("cancel")
    assert isinstance(watcher.outcome, Cancelled)


async def test_an_unknown_value_of_on_exit_is_refused() -> None:
    stage = going_on()
    with pytest.raises(InvalidRequestError, match='"leave" or "cancel"'):
        RunWatcher(stage, stage.ref, on_exit="stop")  # type: ignore[call-overload]


async def test_client_watch_returns_what_became_of_a_run_that_it_cancelled() -> None:
    lasting = Scenario(end="never", cancelling=0.2)
    async with Emulator(lasting) as emulator, Client(emulator.base_url) as client:
        thread = await client.threads.create()
        emulator.script(lasting, assistant_id="asst_1")
        run = await client.threads.runs.create(thread.id, assistant_id="asst_1")
        outcome = await client.watch(run, timeout=2.0, on_exit="cancel")
        assert isinstance(outcome, Cancelled)
        assert outcome.cancel_requested
        again = await client.threads.runs.watch(run.id, thread_id=thread.id)
        assert isinstance(again, Cancelled)
        assert not again.cancel_requested


async def test_a_ref_continues_where_another_watch_left_off(emulator: Emulator) -> None:
    emulator.script(Scenario(working=60.0), assistant_id="asst_1")
    async with Client(emulator.base_url) as first:
        left = await first.run(assistant_id="asst_1", message="Go", timeout=5.0)
    assert isinstance(left, GaveUp)
    written_down = msgspec.json.encode(left.ref)
    async with Client(emulator.base_url) as second:
        outcome = await second.watch(msgspec.json.decode(written_down, type=RunRef))
    assert isinstance(outcome, Completed)
    assert outcome.ref == left.ref


async def test_a_run_that_is_gone_raises_an_error_of_its_own(shell: Shell) -> None:
    stage = scene(ok("in_progress"), error(404))
    async with shell(stage, stage.ref) as watcher:
        outcome = await watcher.wait()
    with pytest.raises(RunGoneError, match="deleted or purged"):
        outcome.unwrap()
