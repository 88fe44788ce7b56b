"""Batches are created from requests: uploaded, cut into groups, created once, and what fails says what is there."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncruns import (
    APIConnectionError,
    APIStatusError,
    BadRequestError,
    BatchGroup,
    BatchGroupError,
    Client,
    InternalServerError,
    InvalidRequestError,
)
from asyncruns.resources import request_files
from asyncruns.testing import BatchScenario, Fault, InMemoryTransport
from asyncruns.wire import Batch

ENDPOINT = "/v1/embeddings"


def bodies(count: int) -> list[dict[str, Any]]:
    return [{"model": "m", "input": f"Q{number}"} for number in range(count)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def server() -> InMemoryTransport:
    return InMemoryTransport()


@pytest.fixture
async def client(server: InMemoryTransport) -> AsyncIterator[Client]:
    async with Client(transport=server) as client:
        yield client


def operations(server: InMemoryTransport) -> Counter[str]:
    return Counter(request.operation for request in server.requests)


# One batch


async def test_requests_become_one_batch_of_one_file(server: InMemoryTransport, client: Client) -> None:
    batch = await client.batches.create(
        requests=bodies(3),
        endpoint=ENDPOINT,
        metadata={"who": "me"},
        output_expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert isinstance(batch, Batch)
    assert batch.endpoint == ENDPOINT
    assert batch.metadata
    assert batch.metadata["who"] == "me"
    assert batch.input_file_id
    lines = (await (await client.files.content(batch.input_file_id)).text()).splitlines()
    assert [json.loads(line)["body"] for line in lines] == bodies(3)
    assert operations(server) == {"create_file": 1, "create_batch": 1, "file_content": 1}


async def test_lines_have_their_endpoint(client: Client) -> None:
    line = {"custom_id": "a", "method": "POST", "url": ENDPOINT, "body": bodies(1)[0]}
    batch = await client.batches.create(requests=[line])
    assert isinstance(batch, Batch)
    assert batch.endpoint == ENDPOINT


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"requests": [], "endpoint": ENDPOINT},
        {"requests": bodies(1)},
        {"requests": [*bodies(2), {"model": "other"}], "endpoint": ENDPOINT},
        {"requests": bodies(1), "input_file_id": "file-1", "endpoint": ENDPOINT},
        {"input_file_id": "file-1"},
        {"input_file_id": "file-1", "endpoint": ENDPOINT, "max_enqueued_tokens": 10},
        {"requests": bodies(1), "endpoint": ENDPOINT, "max_enqueued_tokens": 0},
        {"requests": bodies(1), "endpoint": ENDPOINT, "max_enqueued_tokens": True},
    ],
)
async def test_what_cannot_be_sent_is_refused_before_anything_is_sent(
    server: InMemoryTransport, client: Client, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequestError):
        await client.batches.create(**arguments)
    assert not server.requests


async def test_a_raw_call_takes_no_requests(server: InMemoryTransport, client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="with_raw_response"):
        await client.batches.with_raw_response.create(requests=bodies(1), endpoint=ENDPOINT)
    assert not server.requests


async def test_a_create_whose_answer_was_lost_is_adopted(server: InMemoryTransport, client: Client) -> None:
    server.inject(Fault(on="create_batch", drop=True, acts=True, times=1))
    batch = await client.batches.create(requests=bodies(2), endpoint=ENDPOINT)
    assert isinstance(batch, Batch)
    assert [found.id async for found in client.batches.list()] == [batch.id]


async def test_an_upload_whose_answer_was_lost_is_not_repeated(server: InMemoryTransport, client: Client) -> None:
    server.inject(Fault(on="create_file", drop=True, acts=True, times=1))
    with pytest.raises(APIConnectionError, match="may exist"):
        await client.batches.create(requests=bodies(2), endpoint=ENDPOINT)
    assert operations(server) == {"create_file": 1}


async def test_a_batch_that_is_refused_names_its_file(server: InMemoryTransport, client: Client) -> None:
    for status, advice in ((403, "{}: pass it as input_file_id"), (400, "{} with the requests stays at the server")):
        server.inject(Fault(on="create_batch", status=status, message="No batches today", times=1))
        with pytest.raises(APIStatusError) as caught:
            await client.batches.create(requests=bodies(2), endpoint=ENDPOINT)
        file = (await client.files.list()).data[0]
        assert advice.format(file.id) in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"endpoint": "v1/embeddings"}, r'endpoint must be a path, such as "/v1/chat/completions"; got .v1/embeddings'),
        ({"endpoint": "/v1/\ud800"}, "Request 1 can't be written as JSON"),
        ({"metadata": {"k": "v" * 513}}, "metadata.* at most 512 characters"),
        ({"metadata": ["k"]}, "metadata must be a mapping; got list"),
        ({"output_expires_after": 3600}, "output_expires_after must be a mapping; got int"),
        ({"output_expires_after": {"seconds": object()}}, "can't be written as JSON"),
    ],
)
async def test_a_wrong_parameter_is_refused_before_anything_is_sent(
    server: InMemoryTransport, client: Client, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        given: dict[str, Any] = {"requests": bodies(2), "endpoint": ENDPOINT, **wrong}
        await client.batches.create(**given)
    assert not server.requests


async def test_a_file_may_be_given_as_the_object_but_not_as_a_path(server: InMemoryTransport, client: Client) -> None:
    line = {"custom_id": "a", "method": "POST", "url": ENDPOINT, "body": bodies(1)[0]}
    file = await client.files.create(file=json.dumps(line).encode(), purpose="batch")
    assert (await client.batches.create(input_file_id=file, endpoint=ENDPOINT)).input_file_id == file.id
    sent = len(server.requests)
    for wrong in ("./in.jsonl", Path("in.jsonl"), ""):
        with pytest.raises(InvalidRequestError, match=r"must be the id of a file at the server.*Upload the file first"):
            await client.batches.create(input_file_id=wrong, endpoint=ENDPOINT)  # type: ignore[arg-type]
    assert len(server.requests) == sent


async def test_ids_of_a_server_cannot_break_a_message(server: InMemoryTransport, client: Client) -> None:
    server.inject(Fault(on="create_file", rewrite=lambda file: {**file, "id": "file-\x1b[31m\n"}, times=None))
    server.inject(Fault(on="create_batch", status=403, times=None))
    with pytest.raises(APIStatusError) as caught:
        await client.batches.create(requests=bodies(2), endpoint=ENDPOINT)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_caller_that_is_cancelled_leaves_no_temporary_file(server: InMemoryTransport, client: Client) -> None:
    server.inject(Fault(on="create_file", delay_before=10.0))
    task = asyncio.create_task(client.batches.create(requests=bodies(2), endpoint=ENDPOINT))
    await asyncio.sleep(5.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# Groups


async def test_50001_requests_are_a_group(client: Client) -> None:
    group = await client.batches.create(requests=bodies(50_001), endpoint=ENDPOINT, metadata={"who": "me"})
    assert isinstance(group, BatchGroup)
    assert [part.requests for part in group.parts] == [50_000, 1]
    assert len(group.batches) == 2
    assert [batch.metadata and batch.metadata["who"] for batch in group.batches] == ["me", "me"]
    assert group.endpoint == ENDPOINT


async def test_parts_without_room_are_held_back(server: InMemoryTransport, client: Client) -> None:
    group = await client.batches.create(requests=bodies(10), endpoint=ENDPOINT, max_enqueued_tokens=24)
    assert [part.batch is not None for part in group.parts] == [True, False, False]
    assert operations(server) == {"create_file": 3, "create_batch": 1}
    small = await client.batches.create(requests=bodies(1), endpoint=ENDPOINT, max_enqueued_tokens=30)
    assert [part.batch is not None for part in small.parts] == [True]


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_files, "MOST_LINES_OF_FILE", 2)


@pytest.mark.usefixtures("small_files")
async def test_a_create_that_fails_says_what_runs_and_what_to_do(server: InMemoryTransport, client: Client) -> None:
    server.inject(Fault(on="create_batch", status=400, message="Enough", skip=2, times=1))
    with pytest.raises(BatchGroupError) as caught:
        await client.batches.create(requests=bodies(10), endpoint=ENDPOINT)
    group: BatchGroup = caught.value.group
    assert [part.batch is not None for part in group.parts] == [True, True, False, False, False]
    assert "Enough" in group.parts[2].error
    assert isinstance(caught.value.__cause__, BadRequestError)
    message = str(caught.value)
    assert "Part 3 of 5 could not be created" in message
    assert all(batch.id in message for batch in group.batches)
    assert "client.watch(error.group)" in message

    outcome = await client.watch(group)  # as the message says
    assert outcome.status == "completed"
    assert (await outcome.reconcile(bodies(10))).is_complete
    assert operations(server)["create_file"] == 5
    assert operations(server)["create_batch"] == 6


@pytest.mark.usefixtures("small_files")
async def test_an_upload_that_fails_names_the_files_that_nothing_needs(
    server: InMemoryTransport, client: Client
) -> None:
    server.inject(Fault(on="create_file", status=500, skip=1, times=None))
    with pytest.raises(InternalServerError, match="No batch was created") as caught:
        await client.batches.create(requests=bodies(6), endpoint=ENDPOINT)
    (file,) = [file async for file in client.files.list()]
    assert file.id in str(caught.value)
    assert "create_batch" not in operations(server)


@pytest.mark.usefixtures("small_files")
async def test_all_batches_of_a_group_are_cancelled(server: InMemoryTransport, client: Client) -> None:
    server.script_batches(BatchScenario(working=1.0), BatchScenario(working=1000.0))
    group = await client.batches.create(requests=bodies(6), endpoint=ENDPOINT)
    assert isinstance(group, BatchGroup)
    await asyncio.sleep(10.0)
    cancelled = await client.batches.cancel(group)
    assert [batch.status for batch in cancelled.batches] == ["completed", "cancelling", "cancelling"]
    outcome = await client.watch(cancelled)
    assert [each.status for each in outcome.outcomes] == ["completed", "cancelled", "cancelled"]
    assert outcome.status == "cancelled"


@pytest.mark.usefixtures("small_files")
async def test_the_other_batches_of_a_group_are_cancelled_if_one_is_gone(
    server: InMemoryTransport, client: Client
) -> None:
    server.script_batches(BatchScenario(working=1000.0))
    group = await client.batches.create(requests=bodies(4), endpoint=ENDPOINT)
    assert isinstance(group, BatchGroup)
    server.inject(Fault(on="cancel", status=404, times=1))
    with pytest.raises(Exception, match="404"):
        await client.batches.cancel(group)
    assert [batch.status async for batch in client.batches.list()].count("cancelling") == 1
