"""The official clients of both APIs read the batches that we created, and we watch those that they created."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from requests_made import custom_ids, expected_text, fails, lines_of, messages_of

from asyncruns import Client


async def check_official_clients(base_url: str, ids: Mapping[str, str]) -> None:
    """Check both directions on both wires.

    Args:
        base_url: The URL of OGX.
        ids: Ids of batches that we created, which have ended, by their names.
    """
    openai = AsyncOpenAI(base_url=base_url, api_key="any")
    anthropic = AsyncAnthropic(base_url=base_url.removesuffix("/v1"), api_key="any")
    async with openai, anthropic:
        await they_read_ours(openai, ids)
        await they_read_our_messages(anthropic, ids)
        async with Client(base_url) as client, Client.anthropic("any", base_url=base_url) as messages:
            await we_read_theirs(client, openai)
            await we_read_their_messages(messages, anthropic)


async def they_read_ours(openai: AsyncOpenAI, ids: Mapping[str, str]) -> None:
    """Read our batches, their files and the list with the official client."""
    listed = [batch.id async for batch in openai.batches.list(limit=2)]
    for name, batch_id in ids.items():
        if not batch_id.startswith("batch_"):
            continue
        batch = await openai.batches.retrieve(batch_id)
        assert batch.status == "completed", batch
        assert batch.metadata is not None
        assert batch.metadata["campaign"] == name, batch
        assert batch.output_file_id is not None
        assert batch_id in listed
        output = await openai.files.content(batch.output_file_id)
        answered = [json.loads(line)["custom_id"] for line in output.text.splitlines()]
        assert answered == [custom_id for custom_id in custom_ids(name) if not fails(custom_id)]
        given = await openai.files.content(batch.input_file_id)
        assert [json.loads(line) for line in given.text.splitlines()] == lines_of(name)


async def they_read_our_messages(anthropic: AsyncAnthropic, ids: Mapping[str, str]) -> None:
    """Read our message batches and their results with the official client."""
    for name, batch_id in ids.items():
        if batch_id.startswith("batch_"):
            continue
        batch = await anthropic.messages.batches.retrieve(batch_id)
        assert batch.processing_status == "ended", batch
        kinds = {
            result.custom_id: result.result.type async for result in await anthropic.messages.batches.results(batch_id)
        }
        assert kinds == {id_: "errored" if fails(id_) else "succeeded" for id_ in custom_ids(name)}


async def we_read_theirs(client: Client, openai: AsyncOpenAI) -> None:
    """Watch a batch that the official client created, given as its object, and read its results."""
    name = "theirs"
    lines = "".join(json.dumps(line) + "\n" for line in lines_of(name))
    file = await openai.files.create(file=("theirs.jsonl", lines.encode()), purpose="batch")
    batch = await openai.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"campaign": name}
    )
    await check_outcome(await client.watch(batch), name)


async def we_read_their_messages(client: Client, anthropic: AsyncAnthropic) -> None:
    """Watch a message batch that the official client created, given as its object, and read its results."""
    name = "theirs"
    requests: Any = messages_of(name)
    batch = await anthropic.messages.batches.create(requests=requests)
    await check_outcome(await client.watch(batch), name)


async def check_outcome(outcome: Any, name: str) -> None:
    """Check the results of a batch that has completed."""
    outcome.unwrap()
    told = await outcome.reconcile(custom_ids(name))
    assert list(told.failed) == [custom_id for custom_id in custom_ids(name) if fails(custom_id)], told
    assert not told.missing, told
    assert not told.unexpected, told
    async for result in outcome.results():
        assert result.kind == "failed" or result.text == expected_text(result.custom_id), result
