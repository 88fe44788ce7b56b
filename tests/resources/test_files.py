"""`client.files`: its paths and parameters, and its errors."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from asyncruns import Client, InvalidRequestError, NotFoundError
from asyncruns.resources.file_threads import in_thread
from asyncruns.testing import Fault, InMemoryTransport

FILE = {"id": "file-1", "object": "file", "bytes": 3, "filename": "in.jsonl", "purpose": "batch", "mystery": 1}


def server_of(*bodies: object) -> InMemoryTransport:
    server = InMemoryTransport()
    server.inject(*(Fault(body=body) for body in bodies))  # type: ignore[arg-type]
    return server


def asked(server: InMemoryTransport) -> list[tuple[str, str, str]]:
    return [(seen.method, seen.path, seen.query) for seen in server.requests]


async def test_a_file_is_fetched_and_deleted() -> None:
    server = server_of(FILE, {"id": "file-1", "object": "file", "deleted": True})
    async with Client(transport=server) as client:
        file = await client.files.retrieve("file-1")
        assert (file.id, file.filename, file.purpose, file.bytes) == ("file-1", "in.jsonl", "batch", 3)
        assert (await client.files.delete("file-1")).deleted
    assert asked(server) == [("GET", "/v1/files/file-1", ""), ("DELETE", "/v1/files/file-1", "")]


async def test_files_are_listed_over_all_pages() -> None:
    first = {"object": "list", "data": [{**FILE, "id": "file-2"}], "has_more": True, "last_id": "file-2"}
    last = {"object": "list", "data": [FILE], "has_more": False}
    server = server_of(first, last)
    async with Client(transport=server) as client:
        listed = client.files.list(purpose="batch", limit=10_000, order="desc", after="file-3")
        assert [file.id async for file in listed] == ["file-2", "file-1"]
    query = "purpose=batch&limit=10000&order=desc&after="
    assert asked(server) == [("GET", "/v1/files", f"{query}{after}") for after in ("file-3", "file-2")]


async def test_a_page_of_files_has_its_own_limit() -> None:
    async with Client(transport=server_of()) as client:
        with pytest.raises(InvalidRequestError, match="1 to 10000 is allowed"):
            await client.files.list(limit=10_001)
        with pytest.raises(InvalidRequestError, match="1 to 100 is allowed"):
            await client.assistants.list(limit=101)
    async with Client(transport=server_of({"data": []}), validate=False) as client:
        assert (await client.files.list(limit=10_001)).data == []


async def test_a_file_that_is_not_there_is_an_error() -> None:
    async with Client(transport=InMemoryTransport()) as client:
        for call in (client.files.retrieve, client.files.delete, client.files.content):
            with pytest.raises(NotFoundError):
                await call("file-1")


@pytest.mark.parametrize("file_id", ["", "..", "%2e%2e"])
async def test_an_id_that_is_none_is_refused(file_id: str) -> None:
    async with Client(transport=server_of()) as client:
        with pytest.raises(InvalidRequestError, match="file_id"):
            await client.files.content(file_id)


async def test_an_unknown_option_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    server = server_of()
    async with Client(transport=server) as client:
        with pytest.raises(TypeError, match="unexpected keyword argument 'chunk'"):
            await client.files.create(file=b"x", purpose="batch", chunk=1)  # type: ignore[call-arg]
        with pytest.raises(InvalidRequestError, match=r"'gone\.jsonl' can't be read"):
            await client.files.create(file=tmp_path / "gone.jsonl", purpose="batch")
    assert server.requests == []


@pytest.mark.real_time
async def test_a_cancel_waits_until_the_thread_has_left_the_file() -> None:
    entered, may_leave, left = threading.Event(), threading.Event(), []

    def use() -> None:
        entered.set()
        may_leave.wait(5)
        left.append(True)

    using = asyncio.create_task(in_thread(use))
    while not entered.is_set():
        await asyncio.sleep(0.001)
    using.cancel()
    await asyncio.sleep(0.01)
    assert not using.done()
    may_leave.set()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert left == [True]
