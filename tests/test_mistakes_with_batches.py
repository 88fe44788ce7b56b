"""First mistakes with batches and files: the error names the mistake, and says what to write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from asyncruns import (
    AuthenticationError,
    BadRequestError,
    Client,
    Fleet,
    InvalidRequestError,
    NotFoundError,
    RunWatcher,
)
from asyncruns.testing import Emulator, InMemoryTransport
from asyncruns.wire import Batch, FileObject, MessageBatch

ENDPOINT = "/v1/chat/completions"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client(transport=InMemoryTransport()) as client:
        yield client


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda client: client.batches.retrieve(Batch(id="batch_1", status="completed")),
            r"^batch_id must be a non-empty string, got .*: pass its id, batch\.id$",
        ),
        (
            lambda client: client.batches.cancel({"id": "batch_1"}),
            r'^batch_id must be .*: pass its id, batch\["id"\]$',
        ),
        (
            lambda client: client.message_batches.delete(MessageBatch(id="msgbatch_1", processing_status="ended")),
            r"^message_batch_id must be .*: pass its id, message_batch\.id$",
        ),
        (
            lambda client: client.files.content(FileObject(id="file_1")),
            r"^file_id must be .*: pass its id, file\.id$",
        ),
        (lambda client: client.watch(batch_id=Batch(id="batch_1", status="")), r"^batch_id must .*, batch\.id$"),
        (lambda client: client.batches.retrieve(None), r"^batch_id must be a non-empty string, got None$"),
        (lambda client: client.batches.retrieve(".."), r"^batch_id '\.\.' is not an id"),
    ],
    ids=["batch", "dict", "message batch", "file", "watch", "None", "dots"],
)
async def test_an_object_in_place_of_its_id_is_named(
    client: Client, call: Callable[[Client], Awaitable[Any]], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        await call(client)


@pytest.mark.parametrize("way", [Fleet, RunWatcher])
async def test_an_id_alone_says_where_it_can_be_passed(client: Client, way: Callable[..., Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        if way is Fleet:
            async with Fleet(client) as fleet:
                fleet.watch("batch_1")  # type: ignore[call-overload]
        else:
            RunWatcher(client, "batch_1")
    assert str(caught.value) == (
        "Expected a run, not only an id; got str 'batch_1': pass batch_id='batch_1' to client.watch or fleet.watch; "
        "a RunWatcher takes the batch, or RunRef('batch', ('batch_1',))"
    )


async def test_the_next_step_of_an_error_is_a_sentence_of_its_own(client: Client) -> None:
    with pytest.raises(NotFoundError, match=r"[^.]\. Check the id"):
        await client.batches.retrieve("batch_1")


async def test_a_plain_client_of_anthropics_api_is_told_of_its_own() -> None:
    async with Emulator() as emulator, Client(emulator.base_url) as client:
        with pytest.raises(BadRequestError, match=r"header is required.*\. Use Client\.anthropic\(\)"):
            await client.message_batches.retrieve("msgbatch_1")


async def test_a_wrong_key_of_anthropics_api_is_not_taken_for_a_missing_header() -> None:
    async with Emulator(api_key="right") as emulator, Client.anthropic("no", base_url=emulator.base_url) as client:
        with pytest.raises(AuthenticationError, match="Check the key"):
            await client.message_batches.retrieve("msgbatch_1")
