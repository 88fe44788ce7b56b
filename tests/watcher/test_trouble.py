"""Watching while the network and the server fail."""

from __future__ import annotations

import asyncio
import logging
import pickle
from typing import Any

import anyio
import pytest
from scripted import Scene, error, lost, ok, refused, run_body, scene
from shells import OneWatch, Shell

from asyncruns import (
    Completed,
    Connectivity,
    ConnectivityChanged,
    GaveUp,
    NeedsCaller,
    Reason,
    RunWatcher,
    Toolset,
    WatchGaveUpError,
)
from asyncruns.http import Response
from asyncruns.wire import Message, Run, decode

CALL = ("call_1", "f", "{}")


def counting() -> tuple[Toolset, list[int]]:
    runs: list[int] = []

    async def f() -> str:
        runs.append(1)
        return "out"

    return Toolset([f]), runs


async def watch(shell: Shell, stage: Scene, **options: object):  # type: ignore[no-untyped-def]
    async with shell(stage, stage.ref, **options) as watcher:
        return await watcher.wait()


HTML = Response(200, {"content-type": "text/html"}, b"<html>proxy</html>")


@pytest.mark.parametrize(
    "trouble",
    [error(500), error(502), error(503), error(429), HTML, Response(200, {}, b""), Response(200, {}, b'{"id": "ru')],
    ids=["500", "502", "503", "429", "html", "empty", "truncated"],
)
async def test_ten_bad_answers_in_a_row_do_not_end_the_watch(shell: Shell, trouble: Response) -> None:
    stage = scene(ok("in_progress"), *[trouble] * 10, ok("completed"))
    outcome = await watch(shell, stage)
    assert isinstance(outcome, Completed)
    assert outcome.polls == 12


async def test_dropped_and_refused_connections_do_not_end_the_watch(shell: Shell) -> None:
    stage = scene(refused(), lost(), ok("queued"), lost(), refused(), ok("completed"))
    events = []
    async with shell(stage, stage.ref) as watcher:
        async for event in watcher:
            if isinstance(event, ConnectivityChanged):
                events.append(event.connectivity)
    assert isinstance(watcher.outcome, Completed)
    assert events == [Connectivity.DEGRADED, Connectivity.HEALTHY] * 2


async def test_a_server_that_is_not_there_ends_the_watch_when_the_outage_budget_is_spent(shell: Shell) -> None:
    stage = scene(refused())
    outcome = await watch(shell, stage, max_outage=20.0)
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.UNREACHABLE
    assert 20.0 <= outcome.elapsed <= 31.0
    assert "refused" in str(outcome.cause)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (error(401), Reason.UNAUTHORIZED),
        (error(403), Reason.UNAUTHORIZED),
        (error(429, code="insufficient_quota"), Reason.QUOTA_SPENT),
        (error(400), Reason.REJECTED),
        (error(302), Reason.REJECTED),
    ],
)
async def test_a_failure_that_cannot_pass_ends_the_watch_at_once(
    shell: Shell, answer: Response, reason: Reason
) -> None:
    outcome = await watch(shell, scene(ok("queued"), answer))
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is reason
    assert outcome.polls == 2
    assert "req_1" in str(outcome.cause)


async def test_a_deleted_run_ends_the_watch(shell: Shell) -> None:
    outcome = await watch(shell, scene(*[ok("queued")] * 20, error(404)))
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.GONE
    assert outcome.polls == 21


async def test_a_replica_that_lacks_a_new_run_does_not_end_the_watch(shell: Shell) -> None:
    outcome = await watch(shell, scene(ok("queued"), error(404), error(404), ok("completed")))
    assert outcome.status == "completed"


async def test_a_retry_after_of_hours_does_not_block_past_the_timeout(shell: Shell) -> None:
    answer = Response(503, {"retry-after": "7200"}, b"")
    outcome = await watch(shell, scene(ok("queued"), answer), timeout=30.0)
    assert outcome.elapsed == pytest.approx(30.0, abs=0.1)


async def test_a_retry_after_of_hours_does_not_end_the_watch(shell: Shell) -> None:
    long = [Response(status, {"retry-after": "7200"}, b"") for status in (503, 429, 500)]
    outcome = await watch(shell, scene(ok("queued"), *long, ok("completed")), timeout=None)
    assert isinstance(outcome, Completed)
    assert 180.0 <= outcome.elapsed < 210.0


async def test_the_outcome_of_a_watch_that_only_got_html_has_its_first_bytes(shell: Shell) -> None:
    outcome = await watch(shell, scene(HTML), max_outage=20.0)
    assert outcome.reason is Reason.UNREACHABLE
    assert "<html>proxy</html>" in str(outcome.cause)


async def test_a_hanging_request_does_not_hold_the_watch_beyond_its_timeout(shell: Shell) -> None:
    outcome = await watch(shell, scene(ok("queued"), takes=1000.0), timeout=5.0)
    assert isinstance(outcome, GaveUp)
    assert outcome.elapsed == pytest.approx(5.0, abs=0.1)


async def test_a_stale_read_after_the_submit_does_not_run_the_tool_again(shell: Shell) -> None:
    stale = ok("requires_action", CALL)
    stage = scene(stale, stale, stale, ok("in_progress"), stale, ok("completed"), submits=[ok("queued")])
    tools, runs = counting()
    assert isinstance(await watch(shell, stage, tools=tools), Completed)
    assert len(runs) == 1
    assert stage.transport.count("submit") == 1


async def test_a_lost_answer_to_a_submit_is_found_by_polls(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), ok("in_progress"), ok("completed"), submits=[lost()])
    tools, runs = counting()
    assert isinstance(await watch(shell, stage, tools=tools), Completed)
    assert (len(runs), stage.transport.count("submit")) == (1, 1)


async def test_a_submit_that_did_not_arrive_is_sent_again_after_the_lag(shell: Shell) -> None:
    asking = ok("requires_action", CALL)
    stage = scene(*[asking] * 12, ok("completed"), submits=[lost(), ok("queued")])
    tools, runs = counting()
    assert isinstance(await watch(shell, stage, tools=tools), Completed)
    first, second = stage.transport.times("submit")
    assert second - first >= 5.0
    assert stage.transport.bodies("submit")[0] == stage.transport.bodies("submit")[1]
    assert len(runs) == 1


async def test_a_late_submit_is_no_error_and_the_run_ends_as_it_ended(shell: Shell) -> None:
    late = error(400, 'Runs in status "expired" do not accept tool outputs.')
    stage = scene(ok("requires_action", CALL), ok("expired"), submits=[late])
    tools, _ = counting()
    outcome = await watch(shell, stage, tools=tools)
    assert outcome.status == "expired"


@pytest.mark.parametrize("status", ["queued", "in_progress", "completed"])
async def test_a_submit_by_another_client_is_no_error_and_the_watch_goes_on(shell: Shell, status: str) -> None:
    late = error(400, f'Runs in status "{status}" do not accept tool outputs.')
    stage = scene(ok("requires_action", CALL), ok("in_progress"), ok("completed"), submits=[late])
    tools, runs = counting()
    assert isinstance(await watch(shell, stage, tools=tools), Completed)
    assert (len(runs), stage.transport.count("submit")) == (1, 1)


async def test_a_submit_that_is_refused_keeps_the_outputs(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), submits=[error(400, "tool_outputs: no")])
    tools, _ = counting()
    outcome = await watch(shell, stage, tools=tools)
    assert isinstance(outcome, NeedsCaller)
    assert outcome.outputs == (("call_1", "out"),)
    assert outcome.reason is Reason.SUBMIT_REFUSED


async def test_a_poll_from_before_a_cancel_does_not_turn_the_status_back(shell: Shell) -> None:
    stage = scene(ok("in_progress"), ok("cancelled"), cancels=[ok("cancelling")], takes=1.0, cancels_take=0.1)
    statuses: list[str] = []
    async with shell(stage, stage.ref, on_status=lambda change: statuses.append(change.status)) as watcher:
        await anyio.sleep(1.5)  # the second poll is in flight
        await watcher.cancel_run()
        await watcher.wait()
    assert stage.transport.count("poll") >= 3
    assert statuses == ["in_progress", "cancelling", "cancelled"]


async def test_an_unknown_status_ends_the_watch_after_a_minute(shell: Shell) -> None:
    outcome = await watch(shell, scene(ok("hibernating")), timeout=None)
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.UNKNOWN_STATUS
    assert outcome.status == "hibernating"
    assert 59.0 < outcome.elapsed < 62.0


async def test_a_timeout_over_an_unknown_status_says_that_the_status_is_unknown(shell: Shell) -> None:
    outcome = await watch(shell, scene(ok("done")), timeout=3.0)
    assert isinstance(outcome, GaveUp)
    for each in (outcome, pickle.loads(pickle.dumps(outcome))):
        with pytest.raises(WatchGaveUpError, match=r"the status 'done', which its dialect does not know; .*timeout"):
            each.unwrap()


async def test_cancelling_does_not_end_the_watch(shell: Shell) -> None:
    outcome = await watch(shell, scene(ok("cancelling"), ok("cancelling"), ok("cancelled")))
    assert outcome.status == "cancelled"


async def test_calls_of_an_unknown_type_are_surfaced(shell: Shell) -> None:
    body = ok("requires_action", CALL).body.replace(b'"function", "function"', b'"knowledge", "function"')
    stage = scene(Response(200, {}, body))
    tools, runs = counting()
    outcome = await watch(shell, stage, tools=tools)
    assert isinstance(outcome, NeedsCaller)
    assert [call.type for call in outcome.calls] == ["knowledge"]
    assert runs == []


async def test_observers_that_raise_or_are_slow_change_nothing(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    stage = scene(ok("queued"), ok("in_progress"), ok("completed"))

    async def dawdle(change: object) -> None:
        await anyio.sleep(1000.0)

    def complain(outcome: object) -> None:
        raise ValueError("mine")

    with caplog.at_level(logging.ERROR):
        assert (await watch(shell, stage, on_status=dawdle)).elapsed < 2.0
        assert isinstance(await watch(shell, scene(ok("completed")), on_terminal=complain), Completed)
    assert "on_terminal raised" in caplog.text


async def test_the_messages_may_lag_behind_completion(shell: Shell) -> None:
    stage = scene(ok("completed"))
    said = decode(
        b'{"id": "msg_1", "role": "assistant", "content": [{"type": "text", "text": {"value": "Hi"}}]}', Message
    )
    stage.messages = [[], [], [said]]
    outcome = await watch(shell, stage)
    assert await outcome.text() == "Hi"


async def test_the_text_of_a_run_without_messages_is_empty(shell: Shell) -> None:
    outcome = await watch(shell, scene(ok("completed")))
    began = anyio.current_time()
    assert await outcome.text() == ""
    assert anyio.current_time() - began < 5.0


# Leaving


async def test_leaving_waits_for_a_pending_submit(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), submits=[ok("queued")], takes=2.0)
    tools, _ = counting()
    async with shell(stage, stage.ref, tools=tools):
        while not stage.transport.count("submit"):
            await anyio.sleep(0.5)
    assert stage.transport.finished[-1] == "submit"


async def test_cancelling_the_waiter_does_not_lose_a_pending_submit(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), submits=[ok("queued")], takes=2.0)
    tools, _ = counting()
    task = asyncio.create_task(watch(shell, stage, tools=tools))
    while not stage.transport.count("submit"):
        await anyio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.transport.finished[-1] == "submit"


async def test_a_scope_that_times_out_does_not_lose_a_pending_submit(shell: Shell) -> None:
    stage = scene(ok("requires_action", CALL), submits=[ok("queued")], takes=2.0)
    tools, _ = counting()
    with anyio.move_on_after(3.0) as scope:
        await watch(shell, stage, tools=tools)
    assert scope.cancelled_caught
    assert stage.transport.finished[-1] == "submit"


async def test_leaving_leaves_nothing_behind(shell: Shell) -> None:
    stage = scene(ok("in_progress"))
    before = asyncio.all_tasks()
    async with shell(stage, stage.ref):
        await anyio.sleep(3.0)
    assert asyncio.all_tasks() == before


async def test_an_error_of_the_body_propagates_unchanged(shell: Shell) -> None:
    stage = scene(ok("in_progress"))
    with pytest.raises(ValueError, match="mine"):
        async with shell(stage, stage.ref):
            await anyio.sleep(1.0)
            raise ValueError("mine")


async def test_a_watcher_may_be_left_from_another_task(shell: Shell) -> None:
    stage = scene(ok("in_progress"))
    watcher = shell(stage, stage.ref)
    await watcher.__aenter__()
    await anyio.sleep(2.0)
    await asyncio.create_task(watcher.__aexit__(None, None, None))
    assert stage.transport.count("poll") >= 3


async def test_an_iteration_may_be_stopped_and_started_again(shell: Shell) -> None:
    stage = scene(ok("queued"), ok("in_progress"), ok("completed"))
    async with shell(stage, stage.ref) as watcher:
        async for _ in watcher:
            break
        rest = [event async for event in watcher]
    assert [type(event).__name__ for event in rest] == ["StatusChanged", "StatusChanged", "Ended"]


async def test_a_bug_in_a_transport_is_raised_and_not_swallowed() -> None:
    stage = scene(ZeroDivisionError("bug"))
    with pytest.raises(ZeroDivisionError):
        await watch(RunWatcher, stage)
    with pytest.raises(ZeroDivisionError):
        async with RunWatcher(stage, stage.ref):
            await anyio.sleep(5.0)
    with pytest.raises(ZeroDivisionError):
        async with RunWatcher(stage, stage.ref) as watcher:
            async for _ in watcher:
                pass


async def test_an_iteration_ends_when_the_watcher_is_left(shell: Shell) -> None:
    stage = scene(ok("in_progress"))
    events: list[object] = []

    async def read(watcher: OneWatch) -> None:
        async for event in watcher:
            events.append(event)

    async with shell(stage, stage.ref) as watcher:
        reader = asyncio.create_task(read(watcher))
        await anyio.sleep(5.0)
    await reader
    assert len(events) == 1


async def test_waiting_before_entering_says_what_to_do() -> None:
    stage = scene(ok("queued"))
    with pytest.raises(ValueError, match="async with"):
        await RunWatcher(stage, stage.ref).wait()
    with pytest.raises(ValueError, match="async with"):
        await anext(aiter(RunWatcher(stage, stage.ref)))


async def test_a_watcher_watches_once() -> None:
    stage = scene(ok("completed"))
    async with RunWatcher(stage, stage.ref) as watcher:
        await watcher.wait()
    with pytest.raises(ValueError, match="once"):
        await watcher.__aenter__()


async def test_the_arguments_must_name_a_run() -> None:
    stage = scene(ok("queued"))
    run = decode(str(run_body("queued", thread_id="")).replace("'", '"').encode(), Run)
    wrong: list[dict[str, Any]] = [{}, {"run_id": "run_1"}, {"thread_id": "..", "run_id": "run_1"}, {"run": run}]
    for arguments in wrong:
        with pytest.raises(ValueError, match=r"thread_id|no id"):
            RunWatcher(stage, **arguments)
    with pytest.raises(ValueError, match="timeout"):
        RunWatcher(stage, stage.ref, timeout=-1)


async def test_a_repr_shows_live_state_in_one_line() -> None:
    stage = scene(ok("in_progress"))
    async with RunWatcher(stage, stage.ref) as watcher:
        assert repr(watcher) == "<RunWatcher thread_1/run_1 not seen, polling, 0 polls>"
        await anyio.sleep(0.1)
        assert repr(watcher) == "<RunWatcher thread_1/run_1 in_progress, polling, 1 polls>"
