"""What the operations of runs, steps and assistants send, to the byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
from recording_server import RecordingServer

from asyncruns import BearerAuth, Client, InvalidRequestError
from asyncruns.resources.base import FILE_SEARCH_CONTENT

Operation = Callable[[Client], Awaitable[object]]

RUN = "/v1/threads/thread_1/runs/run_1"
# As the official client writes it, except for `*`, which needs no quoting.
INCLUDED = "include%5B%5D=step_details.tool_calls%5B*%5D.file_search.results%5B*%5D.content"


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    async with RecordingServer() as server:
        yield server


@pytest.fixture
async def client(server: RecordingServer) -> AsyncIterator[Client]:
    async with Client(server.base_url, auth=BearerAuth("sk-test")) as client:
        yield client


READS: Mapping[str, tuple[Operation, str, str]] = {
    "runs.retrieve": (lambda c: c.threads.runs.retrieve("run_1", thread_id="thread_1"), "GET", RUN),
    "runs.list": (lambda c: c.threads.runs.list("thread_1"), "GET", "/v1/threads/thread_1/runs"),
    "runs.list with everything": (
        lambda c: c.threads.runs.list("thread_1", limit=100, order="asc", after="run_a", before="run_b"),
        "GET",
        "/v1/threads/thread_1/runs?limit=100&order=asc&after=run_a&before=run_b",
    ),
    "steps.list": (lambda c: c.threads.runs.steps.list("run_1", thread_id="thread_1"), "GET", f"{RUN}/steps"),
    "steps.list with everything": (
        lambda c: c.threads.runs.steps.list(
            "run_1",
            thread_id="thread_1",
            limit=1,
            order="desc",
            after="step_a",
            before="step_b",
            include=[FILE_SEARCH_CONTENT, "more"],
        ),
        "GET",
        f"{RUN}/steps?limit=1&order=desc&after=step_a&before=step_b&{INCLUDED}&include%5B%5D=more",
    ),
    "steps.retrieve": (
        lambda c: c.threads.runs.steps.retrieve("step_1", thread_id="thread_1", run_id="run_1"),
        "GET",
        f"{RUN}/steps/step_1",
    ),
    "steps.retrieve with include": (
        lambda c: c.threads.runs.steps.retrieve(
            "step_1", thread_id="thread_1", run_id="run_1", include=[FILE_SEARCH_CONTENT]
        ),
        "GET",
        f"{RUN}/steps/step_1?{INCLUDED}",
    ),
    "assistants.retrieve": (lambda c: c.assistants.retrieve("asst_1"), "GET", "/v1/assistants/asst_1"),
    "assistants.list": (lambda c: c.assistants.list(), "GET", "/v1/assistants"),
    "assistants.list with everything": (
        lambda c: c.assistants.list(limit=2, order="desc", after="asst_a", before="asst_b"),
        "GET",
        "/v1/assistants?limit=2&order=desc&after=asst_a&before=asst_b",
    ),
    "assistants.delete": (lambda c: c.assistants.delete("asst_1"), "DELETE", "/v1/assistants/asst_1"),
}

WRITES: Mapping[str, tuple[Operation, str, bytes]] = {
    "runs.create": (
        lambda c: c.threads.runs.create("thread_1", assistant_id="asst_1"),
        "/v1/threads/thread_1/runs",
        b'{"assistant_id":"asst_1"}',
    ),
    "runs.create with parameters": (
        lambda c: c.threads.runs.create(
            "thread_1",
            assistant_id="asst_1",
            include=[FILE_SEARCH_CONTENT],
            temperature=0.0,
            top_p=None,
            max_prompt_tokens=256,
            truncation_strategy={"type": "last_messages", "last_messages": 2},
            tool_choice={"type": "function", "function": {"name": "f"}},
            response_format="auto",
        ),
        f"/v1/threads/thread_1/runs?{INCLUDED}",
        b'{"assistant_id":"asst_1","temperature":0.0,"top_p":null,"max_prompt_tokens":256,'
        b'"truncation_strategy":{"type":"last_messages","last_messages":2},'
        b'"tool_choice":{"type":"function","function":{"name":"f"}},"response_format":"auto"}',
    ),
    "runs.update": (
        lambda c: c.threads.runs.update("run_1", thread_id="thread_1", metadata={"a": "b"}),
        RUN,
        b'{"metadata":{"a":"b"}}',
    ),
    # No body, and yet JSON by its header, as from the official client.
    "runs.cancel": (lambda c: c.threads.runs.cancel("run_1", thread_id="thread_1"), f"{RUN}/cancel", b""),
    "runs.submit_tool_outputs": (
        lambda c: c.threads.runs.submit_tool_outputs(
            "run_1", thread_id="thread_1", tool_outputs=[{"tool_call_id": "call_1", "output": "22°"}]
        ),
        f"{RUN}/submit_tool_outputs",
        '{"tool_outputs":[{"tool_call_id":"call_1","output":"22°"}]}'.encode(),
    ),
    "runs.submit_tool_outputs with approvals": (
        lambda c: c.threads.runs.submit_tool_outputs(
            "run_1",
            thread_id="thread_1",
            tool_approvals=[
                {"tool_call_id": "call_1", "approve": True, "headers": {"Authorization": "Bearer x"}},
                {"tool_call_id": "call_2", "approve": False},
            ],
        ),
        f"{RUN}/submit_tool_outputs",
        b'{"tool_approvals":[{"tool_call_id":"call_1","approve":true,"headers":{"Authorization":"Bearer x"}},'
        b'{"tool_call_id":"call_2","approve":false}]}',
    ),
    "runs.submit_tool_outputs with both": (
        lambda c: c.threads.runs.submit_tool_outputs(
            "run_1", thread_id="thread_1", tool_outputs=iter([]), tool_approvals=[]
        ),
        f"{RUN}/submit_tool_outputs",
        b'{"tool_outputs":[],"tool_approvals":[]}',
    ),
    "runs.submit_tool_outputs with what only this server knows": (
        lambda c: c.threads.runs.submit_tool_outputs("run_1", thread_id="thread_1", extra_body={"answers": [1]}),
        f"{RUN}/submit_tool_outputs",
        b'{"answers":[1]}',
    ),
    "assistants.update": (
        lambda c: c.assistants.update(
            "asst_1",
            model="m",
            name=None,
            description="",
            instructions="Be brief.",
            tools=[],
            tool_resources=None,
            metadata={"a": "b"},
            temperature=0,
            top_p=1.0,
            response_format={"type": "json_object"},
            reasoning_effort="low",
        ),
        "/v1/assistants/asst_1",
        b'{"model":"m","name":null,"description":"","instructions":"Be brief.","tools":[],"tool_resources":null,'
        b'"metadata":{"a":"b"},"temperature":0,"top_p":1.0,"response_format":{"type":"json_object"},'
        b'"reasoning_effort":"low"}',
    ),
    "assistants.update without anything": (lambda c: c.assistants.update("asst_1"), "/v1/assistants/asst_1", b"{}"),
    "assistants.create": (
        lambda c: c.assistants.create(model="m", tools=[{"type": "file_search"}], name=None, reasoning_effort="low"),
        "/v1/assistants",
        b'{"model":"m","name":null,"tools":[{"type":"file_search"}],"reasoning_effort":"low"}',
    ),
}


@pytest.mark.parametrize("name", READS)
async def test_an_operation_without_a_body_sends(server: RecordingServer, client: Client, name: str) -> None:
    operation, method, target = READS[name]
    await operation(client)
    (seen,) = server.seen
    assert (seen.method, seen.target, seen.body) == (method, target, b"")
    assert seen.header("Content-Type") is None


@pytest.mark.parametrize("name", WRITES)
async def test_an_operation_with_a_body_sends(server: RecordingServer, client: Client, name: str) -> None:
    operation, target, body = WRITES[name]
    await operation(client)
    (seen,) = server.seen
    assert (seen.method, seen.target, seen.body) == ("POST", target, body)
    assert seen.header("Content-Type") == ("application/json" if body else None)
    assert seen.header("Content-Length") == str(len(body))


async def test_a_submit_of_neither_outputs_nor_approvals_is_refused(server: RecordingServer, client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="Pass tool_outputs, or tool_approvals"):
        await client.threads.runs.submit_tool_outputs("run_1", thread_id="thread_1")
    with pytest.raises(InvalidRequestError, match="Pass tool_outputs, or tool_approvals"):
        await client.threads.runs.submit_tool_outputs("run_1", thread_id="thread_1", extra_body={})
    assert server.seen == []
