"""Calls that wait for an approval, and calls of the server's own tools."""

from __future__ import annotations

import asyncio
import json
from email.utils import formatdate
from typing import Any

import anyio
import pytest
from scripted import Scene, ok, run_body, scene
from shells import OneWatch, Shell

from asyncruns import CallsLeftToServer, Completed, InvalidRequestError, NeedsCaller, Reason, Toolset
from asyncruns.http import Response
from asyncruns.lifecycle import Call, CallKind

ROUND = (("call_1", "f", '{"n": 1}'), ("call_2", "f", '{"n": 2}'))


def asking(*calls: dict[str, Any], kind: str = "submit_tool_approval") -> Response:
    body = run_body("requires_action")
    body["required_action"] = {"type": kind, kind: {"tool_calls": list(calls)}}
    return Response(200, {}, json.dumps(body).encode())


def mcp(call_id: str = "call_1", name: str = "search") -> dict[str, Any]:
    return {"id": call_id, "type": "mcp", "name": name, "server_label": "docs", "arguments": '{"q":1}'}


def function(call_id: str, name: str = "f") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}


def approving(*calls: dict[str, Any]) -> Scene:
    return scene(asking(*calls), submits=[ok("queued")], takes=0.01)


async def first_submit(stage: Scene, watcher: OneWatch) -> Any:
    async with watcher:
        for _ in range(100):
            if stage.transport.count("submit"):
                break
            await anyio.sleep(0.1)
    return stage.transport.bodies("submit")[0]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (True, {"approve": True}),
        (False, {"approve": False}),
        ({"call_1": True}, {"approve": True}),
        ({"call_1": {"approve": True, "headers": {"x": "1"}}}, {"approve": True, "headers": {"x": "1"}}),
        ([{"tool_call_id": "call_1", "approve": False}], {"approve": False}),
    ],
)
async def test_approvals_are_sent_in_the_form_of_the_server(shell: Shell, given: Any, sent: dict[str, Any]) -> None:
    stage = approving(mcp())
    body = await first_submit(stage, shell(stage, stage.ref, on_approval=lambda calls: given))
    assert body == {"tool_approvals": [{**sent, "tool_call_id": "call_1"}]}


async def test_the_handler_sees_what_would_be_done_and_where(shell: Shell) -> None:
    stage = approving(mcp())
    seen: list[Call] = []

    async def approve(calls: list[Call]) -> bool:
        seen.extend(calls)
        return True

    await first_submit(stage, shell(stage, stage.ref, on_approval=approve))
    assert seen == [
        Call(id="call_1", name="search", arguments='{"q":1}', kind=CallKind.APPROVAL, type="mcp", server_label="docs")
    ]


async def test_one_call_may_be_approved_and_another_refused(shell: Shell) -> None:
    stage = approving(mcp("call_1"), mcp("call_2", "delete"))
    watcher = shell(stage, stage.ref, on_approval=lambda calls: {c.id: c.name == "search" for c in calls})
    body = await first_submit(stage, watcher)
    assert [(one["tool_call_id"], one["approve"]) for one in body["tool_approvals"]] == [
        ("call_1", True),
        ("call_2", False),
    ]


async def test_without_an_approval_handler_approvals_go_to_the_other_handler_and_never_to_a_toolset(
    shell: Shell,
) -> None:
    stage = approving(mcp())
    body = await first_submit(stage, shell(stage, stage.ref, on_requires_action=lambda calls: {"call_1": True}))
    assert body == {"tool_approvals": [{"approve": True, "tool_call_id": "call_1"}]}

    def search() -> str:
        raise AssertionError("a tool of ours has the name of one of theirs")

    stage = approving(mcp())
    async with shell(stage, stage.ref, tools=Toolset([search])) as watcher:
        outcome = await watcher.wait()
        assert isinstance(outcome, NeedsCaller)
        assert outcome.reason is Reason.UNANSWERED
        with pytest.raises(InvalidRequestError, match="waits for an approval"):
            await watcher.submit({"call_1": "yes"})
        await watcher.submit({"call_1": False})
        await anyio.sleep(0.1)
    assert stage.transport.bodies("submit") == [{"tool_approvals": [{"approve": False, "tool_call_id": "call_1"}]}]


@pytest.mark.parametrize("given", ["yes", 1, {"call_1": "yes"}, {"call_9": True}, [{"approve": True}], {"call_1": {}}])
async def test_other_values_are_never_taken_for_an_approval(shell: Shell, given: Any) -> None:
    stage = approving(mcp())
    async with shell(stage, stage.ref, on_approval=lambda calls: given) as watcher:
        outcome = await watcher.wait()
    assert isinstance(outcome, NeedsCaller)
    assert outcome.reason is Reason.HANDLER_FAILED
    assert isinstance(outcome.cause, InvalidRequestError)
    assert stage.transport.count("submit") == 0


@pytest.mark.parametrize("given", [None, {}])
async def test_a_handler_may_leave_approvals_to_the_caller(shell: Shell, given: Any) -> None:
    stage = approving(mcp())
    async with shell(stage, stage.ref, on_approval=lambda calls: given) as watcher:
        outcome = await watcher.wait()
    assert isinstance(outcome, NeedsCaller)
    assert outcome.reason is Reason.UNANSWERED


async def test_a_slow_approval_does_not_delay_the_functions_of_the_round(shell: Shell) -> None:
    body = run_body("requires_action")
    body["required_action"] = {
        "submit_tool_approval": {"tool_calls": [mcp("call_1")]},
        "submit_tool_outputs": {"tool_calls": [function("call_2")]},
    }
    stage = scene(Response(200, {}, json.dumps(body).encode()), submits=[ok("queued")])
    done = asyncio.Event()

    async def approve(calls: list[Call]) -> bool:
        await done.wait()
        return True

    async def f() -> str:
        done.set()
        return "out"

    watcher = shell(stage, stage.ref, tools=Toolset([f]), on_approval=approve, timeout=60.0)
    body = await first_submit(stage, watcher)
    assert body == {
        "tool_outputs": [{"tool_call_id": "call_2", "output": "out"}],
        "tool_approvals": [{"approve": True, "tool_call_id": "call_1"}],
    }


async def test_calls_of_the_servers_own_tools_are_left_to_it_and_reported_once(shell: Shell) -> None:
    own = {"id": "call_1", "type": "azure_function", "name": "queue"}
    waiting = asking(own, kind="submit_tool_outputs")
    stage = scene(*[waiting] * 5, ok("completed"))
    reported: list[Any] = []
    async with shell(stage, stage.ref, on_requires_action=lambda calls: {"call_1": "rubbish"}) as watcher:
        async for event in watcher:
            if isinstance(event, CallsLeftToServer):
                reported.append([call.id for call in event.calls])
        assert isinstance(await watcher.wait(), Completed)
    assert reported == [["call_1"]]
    assert stage.transport.count("submit") == 0


async def test_of_a_mixed_round_only_the_function_calls_are_answered(shell: Shell) -> None:
    own = {"id": "call_1", "type": "azure_function", "name": "queue"}
    stage = scene(asking(own, function("call_2"), kind="submit_tool_outputs"), submits=[ok("completed")])

    async def f() -> str:
        return "out"

    async with shell(stage, stage.ref, tools=Toolset([f])) as watcher:
        assert isinstance(await watcher.wait(), Completed)
    assert stage.transport.bodies("submit") == [{"tool_outputs": [{"tool_call_id": "call_2", "output": "out"}]}]


async def test_the_rest_of_a_round_that_another_client_answered_in_part_is_answered(shell: Shell) -> None:
    both, rest = ok("requires_action", *ROUND), ok("requires_action", ROUND[1])
    stage = scene(both, rest, submits=[ok("completed")])

    async def f(n: int) -> str:
        await anyio.sleep(10.0)
        return "out"

    async with shell(stage, stage.ref, tools=Toolset([f])) as watcher:
        assert isinstance(await watcher.wait(), Completed)
    assert stage.transport.bodies("submit") == [{"tool_outputs": [{"tool_call_id": "call_2", "output": "out"}]}]


async def test_a_server_that_took_only_some_outputs_gets_the_rest_and_no_tool_runs_again(
    shell: Shell,
) -> None:
    both, rest = ok("requires_action", *ROUND), ok("requires_action", ROUND[1])
    stage = scene(both, rest, submits=[rest, ok("completed")])
    ran: list[int] = []

    async def f(n: int) -> str:
        ran.append(n)
        return "out"

    async with shell(stage, stage.ref, tools=Toolset([f])) as watcher:
        assert isinstance(await watcher.wait(), Completed)
    assert [[one["tool_call_id"] for one in body["tool_outputs"]] for body in stage.transport.bodies("submit")] == [
        ["call_1", "call_2"],
        ["call_2"],
    ]
    assert sorted(ran) == [1, 2]


async def test_an_approval_is_not_stopped_when_functions_of_the_round_are_late(shell: Shell) -> None:
    started = anyio.current_time()

    def poll() -> Response:
        if anyio.current_time() - started >= 30.0:
            return ok("expired")
        body = run_body("requires_action", expires_at=1_700_000_030)
        body["required_action"] = {
            "submit_tool_approval": {"tool_calls": [mcp("call_1")]},
            "submit_tool_outputs": {"tool_calls": [function("call_2", "slow")]},
        }
        date = formatdate(1_700_000_000 + anyio.current_time() - started, usegmt=True)
        return Response(200, {"date": date}, json.dumps(body).encode())

    async def approve(calls: list[Call]) -> bool:
        await anyio.sleep(27.0)
        return True

    async def slow() -> None:
        await anyio.sleep(1000.0)

    stage = scene(poll, submits=[ok("completed")])
    async with shell(stage, stage.ref, tools=Toolset([slow]), on_approval=approve) as watcher:
        assert isinstance(await watcher.wait(), Completed)
    (body,) = stage.transport.bodies("submit")
    assert body["tool_approvals"] == [{"approve": True, "tool_call_id": "call_1"}]
    assert "in time" in body["tool_outputs"][0]["output"]


@pytest.mark.parametrize("output", [float("nan"), {1, 2}, "\ud800", pytest.param(object(), id="object")], ids=repr)
async def test_an_output_that_cannot_be_sent_is_refused_with_a_clear_message(shell: Shell, output: Any) -> None:
    stage = scene(asking(function("call_1"), kind="submit_tool_outputs"), submits=[ok("completed")])
    async with shell(stage, stage.ref) as watcher:
        await watcher.wait()
        try:
            await watcher.submit({"call_1": output})
        except InvalidRequestError:
            assert stage.transport.count("submit") == 0
        else:
            assert isinstance(await watcher.wait(), Completed)
