"""The official client against the emulator's files and batches, so that its users can rely on the emulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from batch_doors import lines_of
from openai.types import Batch
from openai.types.chat import ChatCompletion

from asyncruns.testing import BatchScenario, Emulator

FAST = BatchScenario(validating=0.02, working=0.02, finalizing=0.02, failing={"r-1"})

# In real time: its HTTP client resolves names in a thread, and its timeouts use the real clock.
pytestmark = pytest.mark.real_time


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[openai.AsyncOpenAI]:
    emulator.script_batches(FAST)
    async with openai.AsyncOpenAI(base_url=emulator.base_url, api_key="sk-test", max_retries=0) as client:
        yield client


async def begun(client: openai.AsyncOpenAI, content: bytes) -> Batch:
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )


async def polled(client: openai.AsyncOpenAI, batch: Batch) -> Batch:
    """Poll a batch until it has ended."""
    async with asyncio.timeout(10):
        while batch.status in ("validating", "in_progress", "finalizing", "cancelling"):
            await asyncio.sleep(0.01)
            batch = await client.batches.retrieve(batch.id)
    return batch


async def test_a_batch_is_polled_to_its_end_and_its_results_are_typed(client: openai.AsyncOpenAI) -> None:
    batch = await begun(client, lines_of(3))
    assert (batch.status, batch.metadata, batch.errors) == ("validating", {"a": "b"}, None)
    batch = await polled(client, batch)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (3, 2, 1)
    assert batch.usage is not None
    assert batch.usage.total_tokens == 30
    assert batch.output_file_id is not None
    content = await client.files.content(batch.output_file_id)
    texts = []
    async for line in content.response.aiter_lines():
        _, _, rest = line.partition('"body":')
        completion = ChatCompletion.model_validate_json(rest[: rest.rindex('},"error"')])
        texts.append(completion.choices[0].message.content)
    assert sorted(filter(None, texts)) == ["You said: r-0", "You said: r-2"]


async def test_errors_of_lines_are_typed(client: openai.AsyncOpenAI) -> None:
    batch = await polled(client, await begun(client, b"no json\n"))
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(error.code, error.line) for error in batch.errors.data] == [("invalid_json_line", 1)]


async def test_files_come_from_paths_and_are_listed_and_deleted(client: openai.AsyncOpenAI, tmp_path: Path) -> None:
    path = tmp_path / 'a "b".jsonl'
    path.write_bytes(lines_of(2))
    file = await client.files.create(
        file=path, purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (file.bytes, file.purpose, file.status) == (len(lines_of(2)), "batch", "processed")
    assert file.expires_at == file.created_at + 3600
    assert [one.id async for one in client.files.list(limit=1)] == [file.id]
    assert (await client.files.delete(file.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.content(file.id)


async def test_batches_are_listed_and_cancelled(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.script_batches(BatchScenario(cancelling=0.0))
    ids = [(await begun(client, lines_of(1))).id for _ in range(3)]
    assert [batch.id async for batch in client.batches.list(limit=2)] == ids[::-1]
    cancelled = await polled(client, await client.batches.cancel(ids[0]))
    assert cancelled.status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="Cannot find file"):
        await client.batches.create(input_file_id="file-x", endpoint="/v1/chat/completions", completion_window="24h")
