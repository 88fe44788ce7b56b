"""What events, handlers and approvals carry: when, of which run, for which caller, and what a tool reports."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import time
from typing import Any

import anyio
import msgspec
import pytest
from rich.console import Console
from wires import ONE_CALL, TWO_CALLS, TWO_ROUNDS, Tools, Wire

from asyncruns import (
    ActionRequired,
    CallAnswered,
    Calls,
    Completed,
    Ended,
    Fleet,
    InvalidRequestError,
    NeedsCaller,
    Reason,
    ToolContext,
    ToolError,
    ToolReported,
    Toolset,
)
from asyncruns._loop import loop_time
from asyncruns.lifecycle import Call, Notice
from asyncruns.testing import FunctionCall, Scenario

VALUE = object()


async def events_of(wire: Wire, run: Any, **options: Any) -> list[Notice | Ended[Any]]:
    async with wire.watcher(run, **options) as watch:
        return [event async for event in watch]


async def test_each_event_has_its_time_its_run_and_the_value_of_the_caller(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=TWO_ROUNDS, queued=0.1, working=0.1)
    events = await events_of(wire, run, tools=tools, context=VALUE)
    times = [event.at for event in events]
    assert times == sorted(times)
    assert 2.0 < times[-1] - times[0] < 20.0  # two rounds of tools that take a second
    assert abs(times[0] - time.time()) < 60.0
    ended = events[-1]
    assert isinstance(ended, Ended)
    assert {event.ref for event in events} <= set(ended.outcome.refs)
    assert all(event.context is VALUE for event in events)
    assert ended.outcome.context is VALUE
    for event in events:
        assert event.to_dict()["at"] == event.at
        assert "object object" not in event.to_json() + repr(event)
        assert pickle.loads(pickle.dumps(event)).context is None


async def test_observers_get_the_value_too(wire: Wire, tools: Tools) -> None:
    seen: dict[str, Any] = {}
    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.1)
    outcome = await wire.watch(
        run,
        tools=tools,
        context=VALUE,
        on_status=lambda event: seen.setdefault("status", event),
        on_terminal=lambda outcome: seen.setdefault("terminal", outcome),
    )
    await anyio.sleep(0.1)
    assert seen["status"].context is VALUE
    assert seen["status"].ref == outcome.refs[0]
    assert seen["terminal"].context is VALUE


async def test_on_event_gets_every_event(wire: Wire, tools: Tools) -> None:
    told: list[Any] = []
    run = await wire.start(rounds=TWO_ROUNDS, queued=0.1, working=0.1)
    read = await events_of(wire, run, tools=tools, on_event=told.append)
    await anyio.sleep(0.1)
    assert len(told) - len(read) in (0, 1)  # a fleet reports the status of the caller's object before there is a reader
    assert [repr(event) for event in told[-len(read) :]] == [repr(event) for event in read]
    assert isinstance(told[-1], Ended)


async def test_an_answered_call_says_which_tool_and_whether_it_failed(wire: Wire) -> None:
    tools = Toolset()

    @tools.tool
    async def get_weather(city: str) -> str:
        raise ToolError(f"No station in {city}")

    @tools.tool
    async def add(a: int, b: int) -> int:
        return a + b

    run = await wire.start(rounds=((*TWO_CALLS, FunctionCall("missing", {})),), queued=0.1, working=0.1)
    events = await events_of(wire, run, tools=tools)
    assert {(event.tool, event.failed) for event in events if isinstance(event, CallAnswered)} == {
        ("get_weather", True),
        ("add", False),
        ("missing", True),
    }


async def test_an_output_of_a_handler_has_not_failed(wire: Wire) -> None:
    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.1)
    events = await events_of(wire, run, on_requires_action=lambda calls: {call.id: "7" for call in calls})
    assert [(event.tool, event.failed) for event in events if isinstance(event, CallAnswered)] == [("add", False)]


@pytest.mark.parametrize("in_thread", [False, True], ids=["coroutine", "thread"])
async def test_a_tool_reports_its_progress(wire: Wire, in_thread: bool) -> None:
    kept: list[ToolContext[Any]] = []

    def steps(context: ToolContext[Any]) -> str:
        context.report({"done": 1, "of": 2})
        context.report("nearly")
        kept.append(context)
        return "7"

    async def coroutine(a: int, b: int, context: ToolContext[Any]) -> str:
        return steps(context)

    def function(a: int, b: int, context: ToolContext[Any]) -> str:
        return steps(context)

    tools = Toolset({"add": function if in_thread else coroutine})
    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.1)
    events = await events_of(wire, run, tools=tools, context=VALUE)
    reports = [event for event in events if isinstance(event, ToolReported)]
    assert [(event.tool, event.progress) for event in reports] == [("add", {"done": 1, "of": 2}), ("add", "nearly")]
    assert reports[0].context is VALUE
    order = [type(event) for event in events]
    assert order.index(ActionRequired) < order.index(ToolReported) < order.index(CallAnswered)
    kept[0].report("too late")
    await anyio.sleep(0.1)


async def test_progress_after_the_output_is_ignored(wire: Wire) -> None:
    contexts: list[ToolContext[Any]] = []

    async def add(a: int, b: int, context: ToolContext[Any]) -> str:
        contexts.append(context)
        return "7"

    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.5)
    events: list[Any] = []
    async with wire.watcher(run, tools=Toolset([add])) as watch:
        async for event in watch:
            events.append(event)
            if isinstance(event, CallAnswered):
                contexts[0].report("too late")
    assert not any(isinstance(event, ToolReported) for event in events)


async def test_a_slow_reader_gets_the_newest_progress_of_each_call(wire: Wire) -> None:
    async def get_weather(city: str, context: ToolContext[Any]) -> str:
        for step in range(1000):
            context.report(step)
        await anyio.sleep(1.0)
        return "Sunny"

    async def add(a: int, b: int, context: ToolContext[Any]) -> str:
        context.report("of add")
        await anyio.sleep(1.0)
        return "7"

    run = await wire.start(rounds=(TWO_CALLS,), queued=0.1, working=0.1)
    reports: list[Any] = []
    async with wire.watcher(run, tools=Toolset([get_weather, add])) as watch:
        async for event in watch:
            if isinstance(event, ActionRequired):
                await anyio.sleep(0.5)
            elif isinstance(event, ToolReported):
                reports.append(event.progress)
    assert len(reports) <= 257
    assert "of add" in reports
    assert [step for step in reports if step != "of add"][-1] == 999


async def test_a_handler_knows_the_run_the_value_and_the_deadline(wire: Wire) -> None:
    seen: list[Calls] = []

    async def handler(calls: Calls) -> dict[str, str]:
        seen.append(calls)
        return {call.id: "7" for call in calls}

    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.1)
    outcome = await wire.watch(run, on_requires_action=handler, context=VALUE, timeout=60.0)
    assert isinstance(outcome, Completed)
    (calls,) = seen
    assert calls.ref == outcome.refs[0]
    assert calls.context is VALUE
    assert calls.metadata == {}
    assert loop_time() < calls.answer_by < loop_time() + 60.0


async def test_slow_outputs_of_a_handler_do_not_delay_the_tools_of_other_calls(wire: Wire, tools: Tools) -> None:
    answered: dict[str, float] = {}
    asked = 0.0

    async def ask_a_person(call: Call) -> str:
        await anyio.sleep(5.0)
        return "Rainy"

    def handler(calls: Calls) -> dict[str, Any]:
        return {call.id: ask_a_person(call) for call in calls if call.name == "get_weather"}

    run = await wire.start(rounds=(TWO_CALLS,), queued=0.1, working=0.1)
    async with wire.watcher(run, tools=tools, on_requires_action=handler) as watch:
        async for event in watch:
            if isinstance(event, ActionRequired):
                asked = event.at
            elif isinstance(event, CallAnswered):
                answered[event.tool] = event.at - asked
        outcome = await watch.wait()
    assert answered["add"] == pytest.approx(1.0, abs=0.2)
    assert answered["get_weather"] == pytest.approx(5.0, abs=0.2)
    assert wire.submitted(outcome) == [["3", "Rainy"]]
    assert tools.ran == ["add"]


async def test_a_slow_output_that_raises_leaves_its_call_to_the_caller(wire: Wire, tools: Tools) -> None:
    async def fail(call: Call) -> str:
        await anyio.sleep(0.5)
        raise LookupError(call.name)

    def handler(calls: Calls) -> list[dict[str, Any]]:
        return [{"tool_call_id": call.id, "output": fail(call)} for call in calls if call.name == "add"]

    run = await wire.start(rounds=(TWO_CALLS,), queued=0.1, working=0.1)
    outcome = await wire.watch(run, tools=tools, on_requires_action=handler)
    assert isinstance(outcome, NeedsCaller)
    assert outcome.reason is Reason.HANDLER_FAILED
    assert isinstance(outcome.cause, LookupError)
    assert [text for _, text in outcome.outputs] == ["Sunny in Paris"]


@pytest.mark.parametrize("when", ["unknown call", "left at once"])
async def test_a_slow_output_that_nothing_awaits_is_closed(wire: Wire, when: str) -> None:
    async def never(call: Call) -> str:
        raise AssertionError(call)

    def handler(calls: Calls) -> dict[str, Any]:
        if when == "unknown call":
            return {"call_x": never(calls[0])}
        asyncio.get_running_loop().call_soon(leave.set)
        return {call.id: never(call) for call in calls} if leave.is_set() else {calls[0].id: anyio.sleep(60.0)}

    leave = asyncio.Event()
    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.1)
    async with wire.watcher(run, on_requires_action=handler) as watch:
        if when == "unknown call":
            outcome = await watch.wait()
            assert isinstance(outcome, NeedsCaller)
            assert isinstance(outcome.cause, InvalidRequestError)
        else:
            await leave.wait()


async def test_an_approval_of_a_tool_may_know_the_run(wire: Wire) -> None:
    seen: list[Any] = []

    def approve(call: Call, arguments: dict[str, Any], context: ToolContext[Any]) -> bool:
        seen.append((arguments, context.value, context.ref))
        return True

    tools = Toolset(approve=approve)
    tools.tool(lambda **given: 7, name="add", parameters={"type": "object"}, idempotent=True)
    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.1)
    outcome = await wire.watch(run, tools=tools, context=VALUE)
    assert seen == [({"a": 3, "b": 4}, VALUE, outcome.refs[0])]
    assert tools.is_idempotent("add")
    assert not tools.is_idempotent("missing")


async def test_an_approval_with_a_default_of_its_own_gets_two_arguments(wire: Wire) -> None:
    def approve(call: Call, arguments: dict[str, Any], log: Any = None) -> str | bool:
        return log is None or "no"

    tools = Tools()
    tools.tool(tools.add, name="plus", approve=approve)
    run = await wire.start(rounds=((FunctionCall("plus", {"a": 1, "b": 1}),),), queued=0.1, working=0.1)
    assert wire.submitted(await wire.watch(run, tools=tools)) == [["2"]]


async def test_a_refused_call_has_failed(wire: Wire) -> None:
    tools = Toolset()
    tools.tool(
        lambda **given: 7, name="add", parameters={"type": "object"}, approve=lambda call, given: "Not on Sundays"
    )
    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.1)
    events = await events_of(wire, run, tools=tools)
    assert [event.failed for event in events if isinstance(event, CallAnswered)] == [True]


async def test_the_run_says_how_long_it_took_itself(wire: Wire) -> None:
    run = await wire.start(queued=3.0, working=4.0)
    await anyio.sleep(30.0)
    outcome = await wire.watch(run)
    assert isinstance(outcome, Completed)
    assert outcome.elapsed < 5.0
    assert outcome.run_elapsed == pytest.approx(7.0, abs=1.0)
    assert json.loads(outcome.to_json())["run_elapsed"] == outcome.run_elapsed


async def test_a_run_that_gave_up_has_no_span_of_its_own(wire: Wire) -> None:
    run = await wire.start(queued=3.0, working=60.0)
    outcome = await wire.watch(run, timeout=1.0)
    assert outcome.run_elapsed is None


async def test_an_observer_of_a_whole_fleet_gets_each_event_once(wire: Wire) -> None:
    told: list[Any] = []
    wire.emulator.script(Scenario(queued=0.1, working=0.1), **wire._creator())
    run = await wire.start(queued=0.1, working=0.1)
    async with Fleet(wire.connection, on_event=told.append) as fleet:
        for _ in range(3):
            fleet.watch(run)
    assert len([event for event in told if isinstance(event, Ended)]) == 1
    for stream in (wire.streams or {}).values():
        await stream.close()


class Secret:
    token = "sk-hidden"

    def __repr__(self) -> str:
        return self.token


async def test_nothing_that_walks_through_fields_shows_the_value(wire: Wire, tools: Tools) -> None:
    secret = Secret()
    contexts: list[ToolContext[Any]] = []
    asked: list[Calls] = []

    async def add(a: int, b: int, context: ToolContext[Any]) -> int:
        contexts.append(context)
        return 7

    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.1)
    options: Any = {"tools": Toolset([add]), "on_requires_action": asked.append, "context": secret}
    events = await events_of(wire, run, **options)
    ended = events[-1]
    assert isinstance(ended, Ended)
    assert all(each.context is secret for each in (ended.outcome, *events, *asked))
    shown = Console(file=io.StringIO(), width=500)
    for each in (ended.outcome, contexts[0], *events):
        shown.print(each)
    for event in events[:-1]:
        shown.print(msgspec.structs.asdict(event), msgspec.to_builtins(event, enc_hook=str))  # type: ignore[arg-type]
    assert isinstance(shown.file, io.StringIO)
    assert "sk-hidden" not in shown.file.getvalue()
    assert pickle.loads(pickle.dumps(asked[0])) == list(asked[0])


@pytest.mark.parametrize("form", ["twice", "no id"])
async def test_what_a_handler_returned_in_a_wrong_form_is_closed(wire: Wire, form: str) -> None:
    async def never() -> str:
        raise AssertionError

    def handler(calls: Calls) -> Any:
        if form == "no id":
            return {7: never()}
        return [{"tool_call_id": calls[0].id, "output": never()} for _ in range(2)]

    run = await wire.start(rounds=(ONE_CALL,), queued=0.1, working=0.1)
    outcome = await wire.watch(run, on_requires_action=handler)
    assert isinstance(outcome, NeedsCaller)
    assert isinstance(outcome.cause, InvalidRequestError)


async def test_a_refusal_is_told_apart_from_an_empty_answer(wire: Wire) -> None:
    refused = await wire.watch(await wire.start(refusal="I can't.", queued=0.1, working=0.1))
    assert (await refused.text(), await refused.refusal()) == ("", "I can't.")
    answered = await wire.watch(await wire.start(answer="Yes.", queued=0.1, working=0.1))
    assert (await answered.text(), await answered.refusal()) == ("Yes.", "")


async def test_two_calls_of_one_id_harm_no_other_watch(wire: Wire) -> None:
    """Some servers use the same ids in each round, so a tool of the last one may still run."""
    going = asyncio.Event()

    async def add(a: int, b: int, context: ToolContext[Any]) -> int:
        context.report(a)
        going.set()
        await anyio.sleep(3.0)
        return a + b

    calls = (FunctionCall("add", {"a": 1, "b": 2}),), (FunctionCall("add", {"a": 3, "b": 4}),)
    run = await wire.start(rounds=calls, reuse_call_ids=True, queued=0.1, working=0.1)
    async with wire.watcher(run, tools=Toolset([add])) as watch:
        async for event in watch:
            if isinstance(event, ActionRequired) and not going.is_set():
                await going.wait()
                await watch.submit({event.calls[0].id: "from the caller"})
        outcome = await watch.wait()
    assert isinstance(outcome, Completed)
    assert wire.submitted(outcome) == [["from the caller"], ["7"]]
