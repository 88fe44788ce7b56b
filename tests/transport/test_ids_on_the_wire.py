"""Ids: each is exactly one segment of the path, to the byte, or nothing is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from recording_server import RecordingServer

from asyncruns import Client, InvalidRequestError


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    async with RecordingServer() as server:
        yield server


@pytest.fixture
async def client(server: RecordingServer) -> AsyncIterator[Client]:
    async with Client(server.base_url) as client:
        yield client


@pytest.mark.parametrize(
    ("given", "segment"),
    [
        ("run_1-A", "run_1-A"),
        ("a/b", "a%2Fb"),
        ("a\\b", "a%5Cb"),
        ("a?b#c", "a%3Fb%23c"),
        ("a b", "a%20b"),
        ("a%2Fb", "a%252Fb"),
        ("ünï/日本", "%C3%BCn%C3%AF%2F%E6%97%A5%E6%9C%AC"),
        ("a\nb", "a%0Ab"),
        ("a..b", "a..b"),
        ("...", "..."),
        (".a", ".a"),
        ("a;b=c@d:e&f", "a%3Bb%3Dc%40d%3Ae%26f"),
    ],
)
async def test_an_id_is_one_segment_of_the_path(
    server: RecordingServer, client: Client, given: str, segment: str
) -> None:
    await client.threads.runs.retrieve("run_1", thread_id=given)
    await client.threads.runs.retrieve(given, thread_id="thread_1")
    await client.threads.runs.steps.list(given, thread_id=given, limit=1)
    assert server.targets == [
        f"/v1/threads/{segment}/runs/run_1",
        f"/v1/threads/thread_1/runs/{segment}",
        f"/v1/threads/{segment}/runs/{segment}/steps?limit=1",
    ]


BAD_IDS: list[Any] = [
    "",
    "  ",
    "\n",
    "%20",
    ".",
    "..",
    "%2e",
    "%2e%2e",
    "%2E.",
    "%252e.",
    "a/../b",
    "../x",
    "a/..",
    "..\\x",
    "a%2F..%2Fb",
    "a/./b",
    "\ud800",
    None,
    5,
    b"run_1",
    ["run_1"],
]


@pytest.mark.parametrize("bad", BAD_IDS, ids=repr)
async def test_an_id_that_would_change_the_path_is_not_sent(server: RecordingServer, client: Client, bad: Any) -> None:
    with pytest.raises(InvalidRequestError, match="thread_id"):
        await client.threads.retrieve(bad)
    with pytest.raises(InvalidRequestError, match="run_id"):
        await client.threads.runs.retrieve(bad, thread_id="thread_1")
    with pytest.raises(ValueError, match="thread_id"):
        await client.threads.runs.retrieve("run_1", thread_id=bad)
    assert server.seen == []


OPERATIONS: Mapping[str, tuple[Callable[[Client, str], Awaitable[object]], str]] = {
    "threads.update": (lambda c, bad: c.threads.update(bad), "thread_id"),
    "threads.delete": (lambda c, bad: c.threads.delete(bad), "thread_id"),
    "messages.create": (lambda c, bad: c.threads.messages.create(bad, content="Hi"), "thread_id"),
    "messages.list": (lambda c, bad: c.threads.messages.list(bad), "thread_id"),
    "messages.retrieve": (lambda c, bad: c.threads.messages.retrieve(bad, thread_id="thread_1"), "message_id"),
    "runs.create": (lambda c, bad: c.threads.runs.create(bad, assistant_id="asst_1"), "thread_id"),
    "runs.list": (lambda c, bad: c.threads.runs.list(bad), "thread_id"),
    "runs.update": (lambda c, bad: c.threads.runs.update(bad, thread_id="thread_1"), "run_id"),
    "runs.cancel": (lambda c, bad: c.threads.runs.cancel(bad, thread_id="thread_1"), "run_id"),
    "runs.submit_tool_outputs": (
        lambda c, bad: c.threads.runs.submit_tool_outputs(bad, thread_id="thread_1", tool_outputs=[]),
        "run_id",
    ),
    "steps.list": (lambda c, bad: c.threads.runs.steps.list(bad, thread_id="thread_1"), "run_id"),
    "steps.retrieve": (
        lambda c, bad: c.threads.runs.steps.retrieve(bad, thread_id="thread_1", run_id="run_1"),
        "step_id",
    ),
    "assistants.retrieve": (lambda c, bad: c.assistants.retrieve(bad), "assistant_id"),
    "assistants.delete": (lambda c, bad: c.assistants.delete(bad), "assistant_id"),
    "responses.retrieve": (lambda c, bad: c.responses.retrieve(bad), "response_id"),
    "responses.cancel": (lambda c, bad: c.responses.cancel(bad), "response_id"),
    "responses.delete": (lambda c, bad: c.responses.delete(bad), "response_id"),
    "responses.input_items.list": (lambda c, bad: c.responses.input_items.list(bad), "response_id"),
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_every_operation_refuses_such_an_id_by_its_name(
    server: RecordingServer, client: Client, name: str
) -> None:
    operation, parameter = OPERATIONS[name]
    for bad in ("..", ""):
        with pytest.raises(InvalidRequestError, match=parameter):
            await operation(client, bad)
    assert server.seen == []


async def test_a_refused_id_is_shown_in_short(client: Client) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await client.threads.retrieve("../" * 10_000)
    assert len(str(caught.value)) < 200
