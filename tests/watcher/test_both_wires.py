"""The promises of a watch, on each wire and in each shell: one suite for all combinations.

What only the polls of one wire can show is tested separately, at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, Final

import anyio
import msgspec
import pytest
from shells import Shell, watched
from wires import ONE_CALL, PAUSES, TWO_CALLS, TWO_ROUNDS, Tools, Wire, about_polls

from asyncruns import (
    Cadence,
    Cancelled,
    Client,
    Completed,
    Connectivity,
    ConnectivityChanged,
    Ended,
    Expired,
    Failed,
    GaveUp,
    Incomplete,
    InvalidRequestError,
    NeedsCaller,
    OutputsSubmitted,
    Reason,
    RunFailedError,
    RunGoneError,
    RunNeedsCallerError,
    RunRef,
    ToolError,
    Toolset,
    WatchGaveUpError,
)
from asyncruns.lifecycle import CancelRefused
from asyncruns.lifecycle.values import Call, CallKind
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario

# Rounds of calls


async def test_each_call_of_each_round_runs_once_and_those_of_a_round_at_once(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=TWO_ROUNDS, queued=0.1, working=0.1)
    outcome = await wire.watch(run, tools=tools)
    assert isinstance(outcome, Completed)
    assert sorted(tools.ran) == ["add", "add", "get_weather"]
    assert outcome.elapsed < 4.0  # a second for each round
    assert wire.submitted(outcome) == [["3", "Sunny in Paris"], ["7"]]
    assert wire.count("submit") == 2
    assert await outcome.text() == "get_weather: Sunny in Paris\nadd: 3\nadd: 7"
    assert outcome.unwrap().status == outcome.status == "completed"
    assert [message.role for message in await outcome.messages()] == ["assistant"]


async def test_one_call_begins_a_run_and_watches_it(wire: Wire, tools: Tools) -> None:
    outcome = await wire.run(Scenario(rounds=TWO_ROUNDS, answer="21 degrees"), tools=tools)
    assert isinstance(outcome, Completed)
    assert await outcome.text() == "21 degrees"


async def test_an_outcome_has_the_refs_of_all_that_was_watched(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=TWO_ROUNDS)
    async with wire.watcher(run, tools=tools) as watcher:
        first = wire.connection.dialect.identify(run, {})
        outcome = await watcher.wait()
        assert watcher.ref == outcome.ref
    assert outcome.refs[0] == first
    assert outcome.refs[-1] == outcome.ref
    assert len(set(outcome.refs)) == len(outcome.refs) == (3 if wire.has_new_run_each_round else 1)
    assert outcome.ref.ids[-1] == outcome.unwrap().id


async def test_a_saved_ref_continues_where_another_watch_left_off(wire: Wire, tools: Tools) -> None:
    left = await wire.watch(await wire.start(rounds=(TWO_CALLS,), working=60.0), timeout=5.0)
    assert isinstance(left, GaveUp)
    ref = msgspec.json.decode(msgspec.json.encode(left.ref), type=RunRef)
    assert ref == left.ref
    outcome = await watched(wire.shell, wire.client.for_run(ref), ref, tools=tools)
    assert isinstance(outcome, Completed)
    assert outcome.refs[0] == ref


@pytest.mark.parametrize("second", [{"a": 1, "b": 1}, {"a": 9, "b": 9}], ids=["the same", "another"])
async def test_ids_of_calls_may_be_the_same_in_every_round(wire: Wire, tools: Tools, second: dict[str, int]) -> None:
    rounds = ((FunctionCall("add", {"a": 1, "b": 1}),), (FunctionCall("add", second),))
    outcome = await wire.watch(await wire.start(rounds=rounds, reuse_call_ids=True), tools=tools)
    assert isinstance(outcome, Completed)
    assert wire.submitted(outcome) == [["2"], [str(second["a"] + second["b"])]]
    assert len(tools.ran) == len({("add", 1), ("add", second["a"])})


async def test_calls_that_are_open_already_are_answered_on_the_first_poll(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=(TWO_CALLS,))
    await anyio.sleep(60.0)
    assert isinstance(await wire.watch(run, tools=tools), Completed)


async def test_the_model_reads_what_tools_do_wrong(wire: Wire) -> None:
    calls = ("unknown", "broken", "explained", "binary", ("number", "not json"), ("number", "[1]"), ("number", ""))
    asked = tuple(FunctionCall(*([call] if isinstance(call, str) else call)) for call in calls)

    async def broken() -> None:
        raise RuntimeError("the password is hunter2")

    async def explained() -> None:
        raise ToolError("Ask for another city.")

    tools = Toolset({"number": lambda: 5, "broken": broken, "explained": explained, "binary": lambda: b"\xff\x00"})
    outcome = await wire.watch(await wire.start(rounds=(asked,)), tools=tools)
    assert isinstance(outcome, Completed)
    (outputs,) = wire.submitted(outcome)
    assert len(outputs) == len(asked)
    assert "5" in outputs
    for part in ("There is no tool named unknown", "The tool broken failed", "Ask for another city", "Invalid arg"):
        assert any(part in output for output in outputs), part
    assert "hunter2" not in str(outputs)


async def test_tools_in_threads_are_run_too(wire: Wire) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    outcome = await wire.watch(await wire.start(rounds=(ONE_CALL,)), tools=Toolset([add]))
    assert wire.submitted(outcome) == [["7"]]


# Answering calls


async def test_a_watch_without_tools_is_resumed_by_the_caller(wire: Wire) -> None:
    run = await wire.start(rounds=(TWO_CALLS,))
    async with wire.watcher(run) as watcher:
        outcome = await watcher.wait()
        assert isinstance(outcome, NeedsCaller)
        assert (outcome.reason, outcome.status) == (Reason.UNANSWERED, PAUSES[wire.name])
        assert [call.name for call in outcome.calls] == ["get_weather", "add"]
        with pytest.raises(RunNeedsCallerError, match="get_weather"):
            outcome.unwrap()
        await anyio.sleep(30.0)
        with pytest.raises(InvalidRequestError, match="call_x"):
            await watcher.submit({"call_x": "1"})
        await watcher.submit({outcome.calls[0].id: "done"})
        await watcher.submit({outcome.calls[1].id: "done"})
        again = await watcher.wait()
    assert isinstance(again, Completed)
    assert wire.submitted(again) == [["done", "done"]]


async def test_a_handler_answers_first_and_leaves_the_rest_to_the_toolset(wire: Wire, tools: Tools) -> None:
    asked: list[list[str]] = []

    async def handler(calls: list[Call]) -> dict[str, str]:
        asked.append([call.name for call in calls])
        return {call.id: "Rain" for call in calls if call.name == "get_weather"}

    run = await wire.start(rounds=(TWO_CALLS, TWO_CALLS))
    outcome = await wire.watch(run, tools=tools, on_requires_action=handler)
    assert isinstance(outcome, Completed)
    assert asked == [["get_weather", "add"]] * 2
    assert wire.submitted(outcome) == [["3", "Rain"]] * 2
    assert tools.ran == ["add", "add"]


async def test_a_handler_that_raises_ends_the_watch_with_its_error(wire: Wire) -> None:
    def handler(calls: object) -> None:
        raise ValueError("mine")

    outcome = await wire.watch(await wire.start(rounds=(TWO_CALLS,)), on_requires_action=handler)
    assert isinstance(outcome, NeedsCaller)
    assert outcome.reason is Reason.HANDLER_FAILED
    assert isinstance(outcome.cause, ValueError)


@about_polls
@pytest.mark.parametrize("approve", [True, False])
async def test_an_approval_is_never_run_but_answered_by_its_handler(wire: Wire, tools: Tools, approve: bool) -> None:
    call = {"id": "appr_1", "name": "add", "arguments": '{"a":1,"b":2}', "server_label": "docs"}

    def ask_for_approval(body: dict[str, Any]) -> None:
        if wire.name == "responses":
            body["output"] = [{**call, "type": "mcp_approval_request"}] if body["output"] else []
        elif body["required_action"]:
            calls = {"tool_calls": [{**call, "type": "mcp"}]}
            body["required_action"] = {"type": "submit_tool_approval", "submit_tool_approval": calls}

    done = await wire.start()
    run = await wire.start(rounds=(ONE_CALL,))
    await anyio.sleep(10.0)
    wire.emulator.inject(Fault(on="poll", rewrite=ask_for_approval, run_id=run.id, times=None))
    shown = (wire.emulator.runs if wire.name == "threads" else wire.emulator.responses)[done.id]
    if wire.name == "threads":
        shown = {**shown, "id": run.id, "thread_id": run.thread_id}
    wire.emulator.inject(Fault(on="submit", body=shown))
    asked: list[Call] = []

    async def on_approval(calls: list[Call]) -> bool:
        asked.extend(calls)
        return approve

    outcome = await wire.watch(run, tools=tools, on_approval=on_approval)
    assert isinstance(outcome, Completed)
    assert [(call.kind, call.name, call.server_label) for call in asked] == [(CallKind.APPROVAL, "add", "docs")]
    assert tools.ran == []
    (submit,) = [seen for seen in wire.emulator.requests if seen.operation == "submit"]
    sent = msgspec.json.decode(submit.body)
    if wire.name == "threads":
        assert sent == {"tool_approvals": [{"tool_call_id": "appr_1", "approve": approve}]}
    else:
        answer = {"type": "mcp_approval_response", "approval_request_id": "appr_1", "approve": approve}
        assert sent["input"] == [answer]


# Faults on the way


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 502},
        {"status": 503, "headers": {"Retry-After": "1"}},
        {"status": 429},
        {"damage": "html"},
        {"damage": "empty"},
        {"damage": "half"},
        {"damage": "cut"},
        {"drop": True},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values() if not isinstance(value, dict)),
)
@about_polls
async def test_ten_bad_polls_in_a_row_do_not_end_the_watch(wire: Wire, tools: Tools, fault: dict[str, Any]) -> None:
    run = await wire.start(rounds=(TWO_CALLS,))
    wire.emulator.inject(Fault(on="poll", times=10, skip=1, **fault))
    connectivity = []
    async with wire.watcher(run, tools=tools) as watcher:
        async for event in watcher:
            if isinstance(event, ConnectivityChanged):
                connectivity.append(event.connectivity)
    assert isinstance(watcher.outcome, Completed)
    assert sorted(tools.ran) == ["add", "get_weather"]
    assert wire.submitted(watcher.outcome) == [["3", "Sunny in Paris"]]
    assert connectivity[0] is Connectivity.DEGRADED
    assert connectivity[-1] is Connectivity.HEALTHY


@about_polls
async def test_a_long_outage_ends_the_watch(wire: Wire) -> None:
    run = await wire.start(end="never")
    wire.emulator.inject(Fault(on="poll", status=500, skip=1, times=None))
    outcome = await wire.watch(run, max_outage=20.0)
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.UNREACHABLE
    assert 20.0 <= outcome.elapsed < 40.0


async def test_a_server_that_restarts_between_polls_is_waited_for(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=(TWO_CALLS,), working=5.0)
    async with wire.watcher(run, tools=tools) as watcher:
        await anyio.sleep(1.0)
        await wire.emulator.stop()
        await anyio.sleep(10.0)
        await wire.emulator.start()
        outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert sorted(tools.ran) == ["add", "get_weather"]


async def test_a_submit_whose_connection_is_refused_is_sent_again(wire: Wire) -> None:
    ran: list[int] = []

    async def add(a: int, b: int) -> int:
        ran.append(a)
        await wire.emulator.stop()
        return a + b

    run = await wire.start(rounds=(ONE_CALL,))
    async with wire.watcher(run, tools=Toolset([add])) as watcher:
        await anyio.sleep(20.0)
        assert ran == [3]
        await wire.emulator.start()
        outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert wire.submitted(outcome) == [["7"]]
    assert ran == [3]


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "3"}], ids=["bare", "with a time"])
async def test_a_throttled_submit_is_sent_again(wire: Wire, tools: Tools, headers: dict[str, str]) -> None:
    run = await wire.start(rounds=(TWO_CALLS,))
    wire.emulator.inject(Fault(on="submit", status=429, headers=headers, times=3))
    outcome = await wire.watch(run, tools=tools)
    assert isinstance(outcome, Completed)
    assert sorted(tools.ran) == ["add", "get_weather"]
    assert wire.count("submit") == 4
    times = [seen.at for seen in wire.emulator.requests if seen.operation == "submit"]
    assert all(later - earlier >= (3.0 if headers else 0.1) for earlier, later in pairwise(times))
    assert len(outcome.refs) == (2 if wire.has_new_run_each_round else 1)


async def test_the_outcome_of_a_refused_submit_has_its_outputs(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=(TWO_CALLS,))
    wire.emulator.inject(Fault(on="submit", status=401, times=None))
    outcome = await wire.watch(run, tools=tools)
    assert isinstance(outcome, NeedsCaller)
    assert outcome.reason is Reason.SUBMIT_REFUSED
    assert [output for _, output in outcome.outputs] == ["Sunny in Paris", "3"]
    assert sorted(tools.ran) == ["add", "get_weather"]


@pytest.mark.parametrize("stale", [1.0, 4.0])
async def test_stale_polls_do_not_run_a_tool_again(wire: Wire, tools: Tools, stale: float) -> None:
    run = await wire.start(rounds=TWO_ROUNDS)
    wire.emulator.inject(Fault(on="poll", stale=stale, times=None, every=2))
    outcome = await wire.watch(run, tools=tools)
    assert isinstance(outcome, Completed)
    assert sorted(tools.ran) == ["add", "add", "get_weather"]
    assert wire.submitted(outcome) == [["3", "Sunny in Paris"], ["7"]]
    assert wire.count("submit") == 2


async def test_a_deleted_run_ends_the_watch(wire: Wire) -> None:
    run = await wire.start(end="never")
    async with wire.watcher(run) as watcher:
        await anyio.sleep(20.0)
        await wire.delete(run)
        outcome = await watcher.wait()
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.GONE
    with pytest.raises(RunGoneError, match="deleted or purged"):
        outcome.unwrap()


@about_polls
async def test_a_run_that_never_existed_is_not_found(wire: Wire) -> None:
    run = await wire.start(end="never")
    ref = wire.connection.dialect.identify(run, {})
    await wire.delete(run)
    outcome = await wire.watch(ref)
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.NOT_FOUND
    assert outcome.run is None


async def test_a_replica_that_lacks_a_new_run_does_not_end_the_watch(wire: Wire) -> None:
    run = await wire.start()
    wire.emulator.inject(Fault(on="poll", status=404, times=3))
    assert isinstance(await wire.watch(run), Completed)


@about_polls
async def test_a_replica_that_lacks_a_new_follow_up_does_not_end_the_watch(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=(TWO_CALLS,), working=10.0)
    lacking: list[Fault] = []

    def on_status(change: object) -> None:
        if wire.count("submit") and not lacking:
            lacking.append(Fault(on="poll", status=404, times=2))
            wire.emulator.inject(*lacking)

    outcome = await wire.watch(run, tools=tools, on_status=on_status)
    assert lacking
    if wire.has_new_run_each_round:
        assert isinstance(outcome, Completed)
    else:  # the run existed before the submit
        assert outcome.reason is Reason.GONE


@pytest.mark.parametrize("status", [401, 403, 400])
async def test_a_failure_that_cannot_pass_ends_the_watch_at_once(wire: Wire, status: int) -> None:
    run = await wire.start(end="never")
    wire.emulator.inject(Fault(on="poll", status=status, skip=1))
    outcome = await wire.watch(run)
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is (Reason.REJECTED if status == 400 else Reason.UNAUTHORIZED)
    assert outcome.polls == 2


async def test_an_unknown_status_is_waited_for_and_given_up(wire: Wire) -> None:
    run = await wire.start(end="never")
    wire.emulator.inject(Fault(on="poll", rewrite=lambda body: {**body, "status": "pondering"}, skip=1, times=None))
    outcome = await wire.watch(run, max_unknown_status=10.0)
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, outcome.status) == (Reason.UNKNOWN_STATUS, "pondering")


# How runs end


async def test_a_failed_run(wire: Wire) -> None:
    run = await wire.start(end="failed", error_code="rate_limit_exceeded", error_message="try in 6s")
    outcome = await wire.watch(run)
    assert isinstance(outcome, Failed)
    assert outcome.error
    assert (outcome.error.code, outcome.error.message) == ("rate_limit_exceeded", "try in 6s")
    with pytest.raises(RunFailedError, match="rate_limit_exceeded: try in 6s"):
        await outcome.text()


async def test_a_failure_after_a_round_is_reported_as_such(wire: Wire, tools: Tools) -> None:
    outcome = await wire.watch(await wire.start(rounds=(TWO_CALLS,), end="failed"), tools=tools)
    assert isinstance(outcome, Failed)
    assert wire.submitted(outcome) == [["3", "Sunny in Paris"]]


async def test_an_incomplete_run(wire: Wire) -> None:
    outcome = await wire.watch(await wire.start(end="incomplete"))
    assert isinstance(outcome, Incomplete)
    assert outcome.error
    assert outcome.error.code.startswith("max_")


@about_polls
async def test_a_run_that_never_ends_is_given_up(wire: Wire) -> None:
    outcome = await wire.watch(await wire.start(end="never"), cadence=Cadence.fixed(300.0))
    if wire.name == "threads":
        assert isinstance(outcome, Expired)
        assert 590.0 < outcome.elapsed < 910.0
    else:  # responses do not expire, and may take hours
        assert outcome.reason is Reason.TIMEOUT
        assert outcome.elapsed == pytest.approx(24 * 3600.0, abs=1.0)


async def test_a_timeout_is_for_the_whole_watch(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=TWO_ROUNDS, end="never")
    outcome = await wire.watch(run, tools=tools, timeout=12.5)
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, outcome.status) == (Reason.TIMEOUT, "in_progress")
    assert outcome.elapsed == pytest.approx(12.5, abs=0.1)
    with pytest.raises(WatchGaveUpError, match=r"in_progress.*12\.5 s"):
        outcome.unwrap()
    assert len(tools.ran) == 3


async def test_a_timeout_cuts_hanging_requests_and_tools(wire: Wire) -> None:
    async def add(a: int, b: int) -> None:
        await asyncio.get_running_loop().create_future()

    outcome = await wire.watch(await wire.start(rounds=(ONE_CALL,)), tools=Toolset([add]), timeout=5.0)
    assert (outcome.reason, [call.name for call in outcome.calls]) == (Reason.TIMEOUT, ["add"])
    assert outcome.elapsed == pytest.approx(5.0, abs=0.1)
    run = await wire.start(end="never")
    wire.emulator.inject(Fault(on="poll", delay_after=1000.0, skip=1, times=None))
    outcome = await wire.watch(run, timeout=5.0)
    assert outcome.reason is Reason.TIMEOUT
    assert outcome.elapsed == pytest.approx(5.0, abs=0.1)


@about_polls
async def test_a_run_that_has_ended_already_takes_one_poll(wire: Wire) -> None:
    run = await wire.start()
    await anyio.sleep(60.0)
    outcome = await wire.watch(run)
    assert isinstance(outcome, Completed)
    assert outcome.polls == 1
    assert (await wire.watch(outcome.run)).polls == 0


# Cancelling


async def test_a_run_that_goes_on_can_be_cancelled(wire: Wire) -> None:
    run = await wire.start(end="never")
    async with wire.watcher(run) as watcher:
        await anyio.sleep(5.0)
        await watcher.cancel_run()
        outcome = await watcher.wait()
    assert isinstance(outcome, Cancelled)
    assert outcome.cancel_requested
    assert wire.count("cancel") == 1


async def test_a_cancel_after_a_round_cancels_what_goes_on_then(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=(TWO_CALLS,), end="never")
    async with wire.watcher(run, tools=tools) as watcher:
        await anyio.sleep(10.0)
        await watcher.cancel_run()
        outcome = await watcher.wait()
    assert isinstance(outcome, Cancelled)
    assert wire.submitted(outcome) == [["3", "Sunny in Paris"]]


async def test_a_cancel_while_tools_run_stops_them_and_nothing_is_submitted(wire: Wire) -> None:
    stopped = anyio.Event()

    async def add(a: int, b: int) -> None:
        try:
            await anyio.sleep(300.0)
        finally:
            stopped.set()

    run = await wire.start(rounds=(ONE_CALL,))
    async with wire.watcher(run, tools=Toolset([add])) as watcher:
        await anyio.sleep(10.0)
        await watcher.cancel_run()
        outcome = await watcher.wait()
        assert stopped.is_set()
    if wire.name == "threads":
        assert isinstance(outcome, Cancelled)
    else:  # a response that asks for calls has completed
        assert isinstance(outcome, NeedsCaller)
        assert outcome.reason is Reason.CANCEL_REFUSED
        assert [call.name for call in outcome.calls] == ["add"]
    assert outcome.elapsed < 15.0
    assert wire.count("submit") == 0


async def test_a_cancel_follows_a_submit_however_long_that_takes(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=(TWO_CALLS,), end="never")
    wire.emulator.inject(Fault(on="submit", delay_before=20.0))
    async with wire.watcher(run, tools=tools) as watcher:
        while not wire.count("submit"):
            await anyio.sleep(0.1)
        await watcher.cancel_run()
        outcome = await watcher.wait()
        await anyio.sleep(60.0)
    assert isinstance(outcome, Cancelled)
    states = {**wire.emulator.runs, **wire.emulator.responses}.values()
    assert not [body["id"] for body in states if body["status"] in ("queued", "in_progress")]


async def test_a_cancel_after_the_end_does_nothing(wire: Wire) -> None:
    async with wire.watcher(await wire.start()) as watcher:
        outcome = await watcher.wait()
        await watcher.cancel_run()
        assert await watcher.wait() is outcome
    assert not outcome.cancel_requested
    assert wire.count("cancel") == 0


async def test_a_completion_that_was_faster_than_the_cancel_is_the_outcome(wire: Wire) -> None:
    run = await wire.start(working=20.0, cancelling=60.0)
    async with wire.watcher(run) as watcher:
        await anyio.sleep(2.0)
        await watcher.cancel_run()
        outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert outcome.cancel_requested


async def test_a_cancel_that_comes_too_late_does_not_change_the_outcome(wire: Wire) -> None:
    run = await wire.start(working=5.0)
    async with wire.watcher(run) as watcher:
        await anyio.sleep(1.0)
        wire.emulator.inject(Fault(on="cancel", delay_before=10.0))
        wire.emulator.inject(Fault(on="poll", stale=4.0, times=12))
        await watcher.cancel_run()
        outcome = await watcher.wait()
    assert isinstance(outcome, Completed)


async def test_a_cancel_that_sticks_is_bounded(wire: Wire) -> None:
    run = await wire.start(end="never", cancelling=float("inf"))
    async with wire.watcher(run, timeout=None) as watcher:
        await anyio.sleep(2.0)
        await watcher.cancel_run()
        outcome = await watcher.wait()
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.CANCEL_UNCONFIRMED
    assert outcome.elapsed == pytest.approx(62.0, abs=1.0)


async def test_a_failed_cancel_is_sent_again_and_a_refused_one_is_reported(wire: Wire) -> None:
    run = await wire.start(end="never")
    wire.emulator.inject(Fault(on="cancel", status=503, times=2))
    async with wire.watcher(run) as watcher:
        await watcher.cancel_run()
        assert isinstance(await watcher.wait(), Cancelled)
    run = await wire.start(working=5.0)
    wire.emulator.inject(Fault(on="cancel", status=403))
    events = []
    async with wire.watcher(run) as watcher:
        await watcher.cancel_run()
        async for event in watcher:
            events.append(event)
    assert isinstance(watcher.outcome, Completed)
    assert any(isinstance(event, CancelRefused) for event in events)


async def test_a_cancel_by_another_client_ends_the_watch(wire: Wire) -> None:
    run = await wire.start(end="never")
    async with wire.watcher(run) as watcher:
        await anyio.sleep(5.0)
        await wire.cancel(run)
        outcome = await watcher.wait()
    assert isinstance(outcome, Cancelled)
    assert not outcome.cancel_requested


# Leaving


async def test_leaving_leaves_the_run_as_it_is(wire: Wire) -> None:
    run = await wire.start(end="never")
    async with wire.watcher(run):
        await anyio.sleep(1.0)
    assert wire.count("cancel") == 0


async def test_leaving_may_cancel_the_run(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=(TWO_CALLS,), end="never")
    async with wire.watcher(run, tools=tools, timeout=8.0, on_exit="cancel") as watcher:
        assert isinstance(await watcher.wait(), GaveUp)
    assert isinstance(watcher.outcome, Cancelled)
    assert watcher.outcome.cancel_requested


async def test_one_call_may_cancel_the_run(wire: Wire) -> None:
    outcome = await wire.run(Scenario(end="never"), timeout=3.0, on_exit="cancel")
    assert isinstance(outcome, Cancelled)


async def test_a_cancelled_caller_cancels_the_run_if_requested(wire: Wire) -> None:
    run = await wire.start(end="never")
    task = asyncio.create_task(wire.watch(run, on_exit="cancel"))
    await anyio.sleep(3.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(await wire.watch(run), Cancelled)
    assert wire.count("cancel") == 1


async def test_a_run_that_has_ended_is_not_cancelled_by_leaving(wire: Wire) -> None:
    assert isinstance(await wire.watch(await wire.start(), on_exit="cancel"), Completed)
    assert wire.count("cancel") == 0


async def test_leaving_does_not_cancel_a_response_that_waits_for_outputs(wire: Wire, tools: Tools) -> None:
    """Nothing goes on at the server, so the reason of the outcome stays."""
    run = await wire.start(rounds=TWO_ROUNDS)
    async with wire.watcher(run, tools=tools, max_rounds=1, on_exit="cancel") as watcher:
        await watcher.wait()
    if wire.name == "threads":
        assert isinstance(watcher.outcome, Cancelled)
    else:
        assert isinstance(watcher.outcome, NeedsCaller)
        assert watcher.outcome.reason is Reason.MAX_ROUNDS
        assert wire.count("cancel") == 0


async def test_leaving_waits_for_a_pending_submit(wire: Wire) -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    run = await wire.start(rounds=(ONE_CALL,), end="never")
    wire.emulator.inject(Fault(on="submit", delay_before=2.0))
    async with wire.watcher(run, tools=Toolset([add]), on_exit="cancel") as watcher:
        while not wire.count("submit"):
            await anyio.sleep(0.1)
    assert isinstance(watcher.outcome, Cancelled)
    assert wire.submitted(watcher.outcome) == [["7"]]
    assert watcher.outcome.ref == watcher.ref


# Observing


async def test_statuses_and_the_outcome_are_observed(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=(TWO_CALLS,))
    statuses: list[str] = []
    ends: list[object] = []
    outcome = await wire.watch(
        run, tools=tools, on_status=lambda change: statuses.append(change.status), on_terminal=ends.append
    )
    assert statuses == ["queued", "in_progress", PAUSES[wire.name], "queued", "in_progress", "completed"]
    assert ends == [outcome]


async def test_observers_that_raise_or_hang_do_not_delay_the_outcome(wire: Wire, tools: Tools) -> None:
    async def hang(change: object) -> None:
        await anyio.sleep(1000.0)

    def fail(outcome: object) -> None:
        raise ValueError("mine")

    outcome = await wire.watch(await wire.start(rounds=(TWO_CALLS,)), tools=tools, on_status=hang, on_terminal=fail)
    assert isinstance(outcome, Completed)
    assert outcome.elapsed < 5.0


async def test_events_come_in_order_and_each_round_is_reported_once(wire: Wire, tools: Tools) -> None:
    async with wire.watcher(await wire.start(rounds=TWO_ROUNDS), tools=tools) as watcher:
        events = [event async for event in watcher]
    kinds = [type(event).__name__ for event in events if type(event).__name__ != "StatusChanged"]
    rounds = [["ActionRequired", *["CallAnswered"] * len(round_), "OutputsSubmitted"] for round_ in TWO_ROUNDS]
    assert kinds == [*rounds[0], *rounds[1], "Ended"]
    assert isinstance(events[-1], Ended)
    submitted = [
        sorted(output for _, output in event.outputs) for event in events if isinstance(event, OutputsSubmitted)
    ]
    assert submitted == [["3", "Sunny in Paris"], ["7"]]


# A submit whose answer is lost: the wires differ in what a poll can show

LOST: Final[tuple[dict[str, Any], ...]] = (
    {"drop": True},
    {"status": 500},
    {"status": 504},
    {"damage": "html"},
    {"damage": "half"},
)


def lost(fault: dict[str, Any], *, acts: bool) -> Fault:
    """Return a fault that loses the answer to a submit, after the server acted or before."""
    return Fault(on="submit", acts=acts and fault.get("damage") != "half", **fault)


@pytest.fixture
async def threads(shell: Shell) -> AsyncIterator[Wire]:
    async with Emulator() as emulator, Client(emulator.base_url) as client:
        yield Wire("threads", emulator, client, shell, streams=False)


@pytest.fixture
async def responses(shell: Shell) -> AsyncIterator[Wire]:
    async with Emulator() as emulator, Client(emulator.base_url) as client:
        yield Wire("responses", emulator, client, shell, streams=False)


@pytest.mark.parametrize("acts", [True, False])
@pytest.mark.parametrize("fault", LOST, ids=str)
async def test_on_threads_polls_show_what_became_of_a_lost_submit(
    threads: Wire, tools: Tools, fault: dict[str, Any], acts: bool
) -> None:
    run = await threads.start(rounds=TWO_ROUNDS)
    threads.emulator.inject(lost(fault, acts=acts))
    outcome = await threads.watch(run, tools=tools)
    assert isinstance(outcome, Completed)
    assert sorted(tools.ran) == ["add", "add", "get_weather"]
    assert threads.submitted(outcome) == [["3", "Sunny in Paris"], ["7"]]


@pytest.mark.parametrize("acts", [True, False])
@pytest.mark.parametrize("fault", LOST, ids=str)
async def test_on_responses_a_lost_submit_ends_the_watch_with_its_outputs(
    responses: Wire, tools: Tools, fault: dict[str, Any], acts: bool
) -> None:
    run = await responses.start(rounds=TWO_ROUNDS)
    responses.emulator.inject(lost(fault, acts=acts))
    async with responses.watcher(run, tools=tools) as watcher:
        outcome = await watcher.wait()
        await anyio.sleep(60.0)
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.SUBMIT_LOST
    assert outcome.cause is not None
    assert [output for _, output in outcome.outputs] == ["Sunny in Paris", "3"]
    assert sorted(tools.ran) == ["add", "get_weather"]
    assert responses.count("submit") == 1
    assert outcome.ref.ids == (run.id,)
    with pytest.raises(WatchGaveUpError, match="a new run may go on"):
        outcome.unwrap()


@pytest.mark.parametrize("acts", [True, False])
@pytest.mark.parametrize("fault", LOST, ids=str)
async def test_on_responses_a_lost_submit_may_be_sent_again_and_leaves_an_orphan(
    responses: Wire, tools: Tools, fault: dict[str, Any], acts: bool
) -> None:
    run = await responses.start(rounds=TWO_ROUNDS)
    responses.emulator.inject(lost(fault, acts=acts))
    outcome = await responses.watch(run, tools=tools, on_lost_submit="resend")
    assert isinstance(outcome, Completed)
    assert sorted(tools.ran) == ["add", "add", "get_weather"]
    assert responses.submitted(outcome) == [["3", "Sunny in Paris"], ["7"]]
    assert len(outcome.refs) == 3
    orphans = set(responses.emulator.responses) - {id_ for ref in outcome.refs for id_ in ref.ids}
    assert len(orphans) == (1 if acts or fault.get("damage") == "half" else 0)


@pytest.mark.parametrize("on_lost_submit", ["give_up", "resend"])
async def test_on_responses_a_lost_submit_ends_a_watch_whose_run_is_cancelled(
    responses: Wire, tools: Tools, on_lost_submit: str
) -> None:
    run = await responses.start(rounds=(TWO_CALLS,), end="never")
    responses.emulator.inject(Fault(on="submit", drop=True, acts=True, delay_before=5.0))
    async with responses.watcher(run, tools=tools, on_lost_submit=on_lost_submit) as watcher:
        while not responses.count("submit"):
            await anyio.sleep(0.1)
        await watcher.cancel_run()
        outcome = await watcher.wait()
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.SUBMIT_LOST
    assert responses.count("submit") == 1


async def test_on_responses_each_lost_submit_is_sent_again(responses: Wire, tools: Tools) -> None:
    run = await responses.start(rounds=(TWO_CALLS,))
    responses.emulator.inject(Fault(on="submit", drop=True, acts=True, times=4))
    outcome = await responses.watch(run, tools=tools, on_lost_submit="resend")
    assert isinstance(outcome, Completed)
    assert sorted(tools.ran) == ["add", "get_weather"]
    assert responses.count("submit") == 5
    assert len(responses.emulator.responses) == 2 + 4


async def test_on_responses_a_create_is_repeated_only_if_requested(responses: Wire) -> None:
    responses.emulator.inject(Fault(on="create_response", drop=True, acts=True, times=2))
    outcome = await responses.run(Scenario(), on_lost_submit="resend")
    assert isinstance(outcome, Completed)
    assert len(responses.emulator.responses) == 3
