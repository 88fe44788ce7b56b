"""Runs that wait for an approval, as in Azure AI Foundry: surfaced, and answered only by the caller.

https://learn.microsoft.com/azure/ai-foundry/agents/how-to/tools/model-context-protocol
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest
from recording_server import RecordingServer, reply

from asyncruns import ActionRequired, Client, Completed, NeedsCaller, RunWatcher, Toolset
from asyncruns.lifecycle.values import CallKind
from asyncruns.wire.runs import RequiredActionMCPToolCall

CALLS: Final = [
    {"id": "call_1", "type": "mcp", "name": "search", "server_label": "docs", "arguments": '{"q":1}'},
    {"id": "call_2", "type": "mcp", "name": "delete_everything", "server_label": "docs", "arguments": "{}"},
]


def run(status: str, **more: object) -> bytes:
    return reply(200, {"id": "run_1", "thread_id": "thread_1", "status": status, **more})


def approval(*calls: Mapping[str, Any], **more: object) -> bytes:
    action = {"type": "submit_tool_approval", "submit_tool_approval": {"tool_calls": list(calls)}, **more}
    return run("requires_action", required_action=action)


async def search(q: int) -> str:
    raise AssertionError("an approval is not a call to execute")


async def test_an_approval_is_surfaced_never_executed_and_answered_by_the_caller() -> None:
    script = approval(*CALLS), approval(*CALLS), run("queued"), run("completed")
    async with RecordingServer(*script) as server:
        base = f"{server.origin}/api/projects/P"
        async with Client.azure(base, api_version="v1", api_key="k") as client:
            waiting = await client.threads.runs.retrieve("run_1", thread_id="thread_1")
            action = waiting.required_action
            assert action
            assert action.type == "submit_tool_approval"
            assert action.submit_tool_approval
            assert action.submit_tool_approval.tool_calls == [
                RequiredActionMCPToolCall(id="call_1", name="search", server_label="docs", arguments='{"q":1}'),
                RequiredActionMCPToolCall(id="call_2", name="delete_everything", server_label="docs", arguments="{}"),
            ]
            outcome = await client.watch(waiting, tools=Toolset([search]))
            assert isinstance(outcome, NeedsCaller)
            assert [(call.id, call.type, call.kind, call.name, call.arguments) for call in outcome.calls] == [
                ("call_1", "mcp", CallKind.APPROVAL, "search", '{"q":1}'),
                ("call_2", "mcp", CallKind.APPROVAL, "delete_everything", "{}"),
            ]
            assert outcome.outputs == ()
            assert {seen.method for seen in server.seen} == {"GET"}
            run_ = await client.threads.runs.submit_tool_outputs(
                "run_1",
                thread_id="thread_1",
                tool_approvals=[{"tool_call_id": call.id, "approve": call.name == "search"} for call in outcome.calls],
            )
            submit = server.seen[-1]
            assert (submit.method, submit.target) == (
                "POST",
                "/api/projects/P/threads/thread_1/runs/run_1/submit_tool_outputs?api-version=v1",
            )
            assert submit.body == (
                b'{"tool_approvals":[{"tool_call_id":"call_1","approve":true},{"tool_call_id":"call_2","approve":false}]}'
            )
            assert isinstance(await client.watch(run_), Completed)


async def test_a_round_with_an_approval_runs_only_the_function_call_and_reports_both() -> None:
    ours = {"id": "call_0", "type": "function", "function": {"name": "double", "arguments": '{"n":2}'}}
    both = approval(CALLS[0], submit_tool_outputs={"tool_calls": [ours]})

    async def double(n: int) -> str:
        return str(2 * n)

    async with RecordingServer(both) as server, Client.azure(server.origin, api_version="v1", api_key="k") as client:
        outcome = await client.watch(thread_id="thread_1", run_id="run_1", tools=Toolset([double, search]))
        assert isinstance(outcome, NeedsCaller)
        assert [(call.id, call.type) for call in outcome.calls] == [("call_1", "mcp")]
        assert outcome.outputs == (("call_0", "4"),)
        assert {seen.method for seen in server.seen} == {"GET"}


@pytest.mark.parametrize("action", [{}, {"required_action": None}, {"required_action": {}}], ids=repr)
@pytest.mark.parametrize("status", ["queued", "in_progress", "completed", "requires_action"])
async def test_a_required_action_may_be_absent(status: str, action: dict[str, Any]) -> None:
    async with (
        RecordingServer(run(status, **action), run("completed")) as server,
        Client.azure(server.origin, api_version="v1", api_key="k") as client,
    ):
        found = await client.threads.runs.retrieve("run_1", thread_id="thread_1")
        assert not (found.required_action and found.required_action.submit_tool_approval)
        async with RunWatcher(client, found, tools=Toolset([search])) as watcher:
            events = [event async for event in watcher]
        assert not any(isinstance(event, ActionRequired) for event in events)
        assert isinstance(watcher.outcome, Completed)
