"""First mistakes with batches and files: the error names the mistake, and says what to write."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, assert_type

import pytest

from asyncruns import (
    AuthenticationError,
    BadRequestError,
    Client,
    ConfigurationError,
    Fleet,
    InvalidRequestError,
    NotFoundError,
    RunFailedError,
    RunWatcher,
)
from asyncruns.testing import BatchScenario, Emulator, InMemoryTransport
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
            way(client, "batch_1")
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


def questions() -> Iterator[dict[str, Any]]:
    yield {"model": "m"}


WRONG_REQUESTS = [
    ({"a": {"model": "m"}}, r"got dict: pass its items\(\) for pairs of custom id and body, or \[body\] for one"),
    ('{"model": "m"}', r"got str: for the lines of a file, pass \(json\.loads\(line\) for line in file\)"),
    (Path("requests.jsonl"), r"got PosixPath: for the lines of a file, pass \(json\.loads"),
    (questions, r"got function: call it, and pass what it returns: questions\(\)"),
    (['{"model": "m"}\n'], r"Request 1 is of the type str.*; for a line of JSON, pass json\.loads\(line\)"),
    (5, "got int$"),
]


@pytest.mark.parametrize(
    ("requests", "message"), WRONG_REQUESTS, ids=[type(wrong).__name__ for wrong, _ in WRONG_REQUESTS]
)
@pytest.mark.parametrize("wire", ["batches", "message_batches"])
async def test_what_is_no_iterable_of_requests_is_told_what_to_pass(
    client: Client, wire: str, requests: Any, message: str
) -> None:
    given: dict[str, Any] = {"endpoint": ENDPOINT} if wire == "batches" else {}
    with pytest.raises(InvalidRequestError, match=message):
        await getattr(client, wire).create(requests=requests, **given)


@pytest.mark.parametrize("wire", ["batches", "message_batches"])
async def test_what_a_generator_of_requests_raises_has_the_number_of_the_request(client: Client, wire: str) -> None:
    def lines() -> Iterator[Any]:
        for line in ('{"custom_id": "a", "params": {}, "body": {}}', "{nonsense"):
            found = json.loads(line)
            yield found["custom_id"], {}

    given: dict[str, Any] = {"endpoint": ENDPOINT} if wire == "batches" else {}
    with pytest.raises(json.JSONDecodeError) as caught:
        await getattr(client, wire).create(requests=lines(), **given)
    assert caught.value.__notes__ == ["Raised by the iterable of requests, in place of its item 2."]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("request-1", r"^Expected an iterable of custom ids, or of the requests; got str: pass a list"),
        ({"request-1": {}}, r"; got dict: pass its items\(\)"),
        ([1], r"^Item 1 of the ids is of the type int; pass custom ids, which are strings, or the requests"),
    ],
    ids=["str", "dict", "numbers"],
)
async def test_what_are_no_custom_ids_is_told_what_ids_are(client: Client, ids: Any, message: str) -> None:
    batch = await client.batches.create(requests=questions(), endpoint=ENDPOINT)
    outcome = await client.watch(batch)
    with pytest.raises(InvalidRequestError, match=message):
        await outcome.reconcile(ids)


async def test_a_stored_group_and_several_batches_are_told_how_they_are_watched(client: Client) -> None:
    group = await client.batches.create(requests=questions(), endpoint=ENDPOINT, delete_input_files=True)
    with pytest.raises(InvalidRequestError, match=r"pass BatchGroup\.of\(it\) to client\.watch"):
        await client.watch(group.to_dict())
    with pytest.raises(InvalidRequestError, match=r"got list: many are watched by a Fleet"):
        await client.watch(group.batches)  # type: ignore[call-overload]


async def test_the_error_of_a_batch_that_failed_speaks_of_a_batch() -> None:
    async with Client(transport=InMemoryTransport(batches=BatchScenario(end="failed"))) as client:
        outcome = await client.watch(await client.batches.create(requests=questions(), endpoint=ENDPOINT))
    with pytest.raises(RunFailedError, match=r"^The batch batch_\w+ is failed"):
        outcome.unwrap()


async def test_the_part_of_a_group_that_failed_is_named_in_a_sentence_of_its_own() -> None:
    async with Client(transport=InMemoryTransport(batches=BatchScenario(end="failed"))) as client:
        group = await client.batches.create(requests=questions(), endpoint=ENDPOINT, delete_input_files=True)
        outcome = await client.watch(group)
    with pytest.raises(RunFailedError, match=r"[^.]\. This is part 1 of 1 of the group\.$"):
        outcome.unwrap()


async def test_message_batches_have_their_name_in_anthropics_client_too(client: Client) -> None:
    batch = await client.messages.batches.create(requests=[("a", {"model": "m", "max_tokens": 5, "messages": []})])
    assert_type(batch, MessageBatch)
    assert (await client.message_batches.retrieve(batch.id)).id == batch.id
    assert [listed.id async for listed in client.messages.batches.list()] == [batch.id]


def test_a_client_of_anthropic_is_not_one_of_openai() -> None:
    theirs = type("AsyncAnthropic", (), {"__module__": "anthropic._client"})()
    with pytest.raises(ConfigurationError, match=r"not the AsyncAnthropic of anthropic: use Client\.anthropic\("):
        Client.from_openai(theirs)


async def test_a_content_that_was_read_is_not_empty_the_second_time(client: Client) -> None:
    file = await client.files.create(file=("a.txt", b"one\ntwo"), purpose="user_data")
    content = await client.files.content(file.id)
    assert await content.read() == b"one\ntwo"
    for again in (content.read, content.text):
        with pytest.raises(InvalidRequestError, match="was read already; ask for the content again"):
            await again()
    in_pieces = await client.files.content(file.id)
    assert [line async for line in in_pieces.lines()] == [b"one", b"two"]
    assert await in_pieces.read() == b""  # the rest


async def test_a_content_that_was_read_overwrites_no_file(client: Client, tmp_path: Path) -> None:
    file = await client.files.create(file=("a.txt", b"one"), purpose="user_data")
    content = await client.files.content(file.id)
    await content.write_to_file(tmp_path / "a.txt")
    with pytest.raises(InvalidRequestError, match="was read already"):
        await content.write_to_file(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_bytes() == b"one"
