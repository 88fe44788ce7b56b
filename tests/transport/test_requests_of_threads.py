"""What the operations of threads and messages send, to the byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from msgspec import UNSET
from recording_server import RecordingServer

from asyncruns import BearerAuth, Client

Operation = Callable[[Client], Awaitable[object]]


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    async with RecordingServer() as server:
        yield server


@pytest.fixture
async def client(server: RecordingServer) -> AsyncIterator[Client]:
    async with Client(server.base_url, auth=BearerAuth("sk-test")) as client:
        yield client


READS: Mapping[str, tuple[Operation, str, str]] = {
    "threads.retrieve": (lambda c: c.threads.retrieve("thread_1"), "GET", "/v1/threads/thread_1"),
    "threads.delete": (lambda c: c.threads.delete("thread_1"), "DELETE", "/v1/threads/thread_1"),
    "threads.list": (lambda c: c.threads.list(), "GET", "/v1/threads"),
    "threads.list with everything": (
        lambda c: c.threads.list(limit=100, order="asc", after="thread_a", before="thread_b"),
        "GET",
        "/v1/threads?limit=100&order=asc&after=thread_a&before=thread_b",
    ),
    "messages.retrieve": (
        lambda c: c.threads.messages.retrieve("msg_1", thread_id="thread_1"),
        "GET",
        "/v1/threads/thread_1/messages/msg_1",
    ),
    "messages.delete": (
        lambda c: c.threads.messages.delete("msg_1", thread_id="thread_1"),
        "DELETE",
        "/v1/threads/thread_1/messages/msg_1",
    ),
    "messages.list": (
        lambda c: c.threads.messages.list("thread_1"),
        "GET",
        "/v1/threads/thread_1/messages",
    ),
    "messages.list with everything": (
        lambda c: c.threads.messages.list(
            "thread_1", limit=5, order="desc", after="msg_a", before="msg_b", run_id="run_1"
        ),
        "GET",
        "/v1/threads/thread_1/messages?limit=5&order=desc&after=msg_a&before=msg_b&run_id=run_1",
    ),
}

WRITES: Mapping[str, tuple[Operation, str, bytes]] = {
    "threads.create": (lambda c: c.threads.create(), "/v1/threads", b"{}"),
    "threads.create with everything": (
        lambda c: c.threads.create(
            messages=[{"role": "user", "content": "Grüß Gott"}],
            metadata={"a": "b"},
            tool_resources={"code_interpreter": {"file_ids": ["file_1"]}},
        ),
        "/v1/threads",
        '{"messages":[{"role":"user","content":"Grüß Gott"}],"metadata":{"a":"b"},'
        '"tool_resources":{"code_interpreter":{"file_ids":["file_1"]}}}'.encode(),
    ),
    "threads.create from a generator": (
        lambda c: c.threads.create(messages=({"role": "user", "content": text} for text in "ab")),
        "/v1/threads",
        b'{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}',
    ),
    "threads.update": (
        lambda c: c.threads.update("thread_1", metadata={"a": "b"}),
        "/v1/threads/thread_1",
        b'{"metadata":{"a":"b"}}',
    ),
    "threads.create_and_run": (
        lambda c: c.threads.create_and_run(
            assistant_id="asst_1",
            thread={"messages": [{"role": "user", "content": "Hi"}]},
            instructions="Be brief.",
            parallel_tool_calls=False,
        ),
        "/v1/threads/runs",
        b'{"assistant_id":"asst_1","thread":{"messages":[{"role":"user","content":"Hi"}]},'
        b'"instructions":"Be brief.","parallel_tool_calls":false}',
    ),
    "messages.create": (
        lambda c: c.threads.messages.create("thread_1", content="Hi"),
        "/v1/threads/thread_1/messages",
        b'{"role":"user","content":"Hi"}',
    ),
    "messages.create with everything": (
        lambda c: c.threads.messages.create(
            "thread_1",
            role="assistant",
            content=[{"type": "text", "text": "Hi"}],
            attachments=[{"file_id": "file_1", "tools": [{"type": "file_search"}]}],
            metadata=None,
        ),
        "/v1/threads/thread_1/messages",
        b'{"role":"assistant","content":[{"type":"text","text":"Hi"}],'
        b'"attachments":[{"file_id":"file_1","tools":[{"type":"file_search"}]}],"metadata":null}',
    ),
    "messages.update": (
        lambda c: c.threads.messages.update("msg_1", thread_id="thread_1", metadata={"a": "ö"}),
        "/v1/threads/thread_1/messages/msg_1",
        '{"metadata":{"a":"ö"}}'.encode(),
    ),
    "messages.update without anything": (
        lambda c: c.threads.messages.update("msg_1", thread_id="thread_1"),
        "/v1/threads/thread_1/messages/msg_1",
        b"{}",
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


# Each operation that takes metadata, with the part of the body before it.
WITH_METADATA: Mapping[str, tuple[Callable[..., Awaitable[object]], str]] = {
    "assistants.create": (lambda c, **given: c.assistants.create(model="m", **given), '"model":"m"'),
    "assistants.update": (lambda c, **given: c.assistants.update("asst_1", **given), ""),
    "threads.create": (lambda c, **given: c.threads.create(**given), ""),
    "threads.update": (lambda c, **given: c.threads.update("thread_1", **given), ""),
    "threads.create_and_run": (
        lambda c, **given: c.threads.create_and_run(assistant_id="asst_1", **given),
        '"assistant_id":"asst_1"',
    ),
    "messages.create": (
        lambda c, **given: c.threads.messages.create("thread_1", content="Hi", **given),
        '"role":"user","content":"Hi"',
    ),
    "messages.update": (lambda c, **given: c.threads.messages.update("msg_1", thread_id="thread_1", **given), ""),
    "runs.create": (
        lambda c, **given: c.threads.runs.create("thread_1", assistant_id="asst_1", **given),
        '"assistant_id":"asst_1"',
    ),
    "runs.update": (lambda c, **given: c.threads.runs.update("run_1", thread_id="thread_1", **given), ""),
}


@pytest.mark.parametrize("name", WITH_METADATA)
async def test_absent_null_and_empty_metadata_differ(server: RecordingServer, client: Client, name: str) -> None:
    operation, before = WITH_METADATA[name]
    given: tuple[dict[str, Any], ...] = ({}, {"metadata": UNSET}, {"metadata": None}, {"metadata": {}})
    for each in given:
        await operation(client, **each)
    sent = ("", "", '"metadata":null', '"metadata":{}')
    bodies = ["{" + ",".join(part for part in (before, metadata) if part) + "}" for metadata in sent]
    assert [seen.body.decode() for seen in server.seen] == bodies


async def test_the_metadata_of_a_new_thread_is_sent_unchanged(server: RecordingServer, client: Client) -> None:
    threads: tuple[dict[str, Any], ...] = ({}, {"metadata": None}, {"metadata": {}})
    for thread in threads:
        await client.threads.create_and_run(assistant_id="asst_1", thread=thread)
    assert [seen.body for seen in server.seen] == [
        b'{"assistant_id":"asst_1","thread":{}}',
        b'{"assistant_id":"asst_1","thread":{"metadata":null}}',
        b'{"assistant_id":"asst_1","thread":{"metadata":{}}}',
    ]
