"""The official client reads what we create from requests, and we read the results of what it creates."""

from __future__ import annotations

import json
from typing import Any, Final

import openai
import pytest

from asyncruns import Client
from asyncruns.testing import BatchScenario, Emulator
from asyncruns.wire import Batch

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
ENDPOINT: Final = "/v1/chat/completions"
pytestmark = pytest.mark.real_time


@pytest.mark.slow
async def test_the_official_client_reads_the_results_of_our_requests() -> None:
    quick = BatchScenario(validating=0.0, working=0.05, finalizing=0.0)
    async with Emulator(batches=quick) as server, Client(server.base_url, http="httptools") as client:
        batch = await client.batches.create(requests=[("a", BODY), ("b", BODY)], endpoint=ENDPOINT)
        assert isinstance(batch, Batch)
        await client.watch(batch)
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="any-key") as official:
            found = await official.batches.retrieve(batch.id)
            assert found.output_file_id
            text = (await official.files.content(found.output_file_id)).text
    lines = [json.loads(line) for line in text.splitlines()]
    assert sorted(line["custom_id"] for line in lines) == ["a", "b"]


@pytest.mark.slow
async def test_we_read_the_results_of_a_batch_of_the_official_client() -> None:
    quick = BatchScenario(validating=0.0, working=0.05, finalizing=0.0, failing={"b"})
    lines = [{"custom_id": name, "method": "POST", "url": ENDPOINT, "body": BODY} for name in ("a", "b")]
    data = "\n".join(map(json.dumps, lines)).encode()
    async with (
        Emulator(batches=quick) as server,
        Client(server.base_url) as client,
        openai.AsyncOpenAI(base_url=server.base_url, api_key="any-key") as official,
    ):
        file = await official.files.create(file=("requests.jsonl", data), purpose="batch")
        batch = await official.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
        given: Any = batch
        outcome = await client.watch(given)
        found = await outcome.reconcile(lines)
        assert (found.answered, found.failed) == (("a",), ("b",))
        assert [result.text async for result in client.batches.results(given)] == ["You said: Hi", ""]
        assert [request async for request in outcome.unanswered()] == [("b", BODY)]
