"""Uploads and downloads without a socket, also within the budget of a fleet."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from asyncruns import APITimeoutError, Client, Fleet
from asyncruns.abc import ByteStream
from asyncruns.fleet.permits import PermittedTransport
from asyncruns.http import Request, Response
from asyncruns.resources.uploads import upload_of
from asyncruns.testing import Fault, InMemoryTransport

CONTENT = b"".join(b"line %d\n" % number for number in range(50_000))
FILE = {"id": "file-1", "object": "file", "bytes": len(CONTENT)}
GET = Request("GET", "/nowhere/file-1/content")


async def test_an_upload_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(CONTENT)
    server = InMemoryTransport()
    server.inject(Fault(status=429), Fault(body=FILE))
    async with Client(transport=server) as client:
        assert (await client.files.create(file=tmp_path / "in.jsonl", purpose="batch")).id == "file-1"
    for seen in server.requests:
        assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
        assert CONTENT in seen.body
        assert b'filename="in.jsonl"' in seen.body


async def test_a_download_comes_in_pieces() -> None:
    server = InMemoryTransport()
    server.inject(Fault(body=CONTENT))
    stream = await server.download(GET)
    assert isinstance(stream, ByteStream)
    pieces = []
    while piece := await stream.read():
        pieces.append(piece)
    assert len(pieces) > 1
    assert b"".join(pieces) == CONTENT
    await stream.aclose()


async def test_a_download_that_fails_is_returned_whole() -> None:
    answer = await InMemoryTransport().download(GET)
    assert isinstance(answer, Response)
    assert answer.status == 404


async def test_a_download_that_is_cut_breaks_off_there_and_is_taken_up() -> None:
    server = InMemoryTransport()
    middle = len(CONTENT) // 2
    header = {"Content-Range": f"bytes {middle}-{len(CONTENT) - 1}/{len(CONTENT)}"}
    server.inject(Fault(body=CONTENT, damage="cut"), Fault(drop=True), Fault(status=503))
    server.inject(Fault(status=206, body=CONTENT[middle:], headers=header))
    async with Client(transport=server) as client:
        content = await client.files.content("file-1")
        assert [line async for line in content.lines()] == CONTENT.splitlines()
    assert [seen.headers.get("range") for seen in server.requests] == [None, *[f"bytes={middle}-"] * 3]


async def test_a_download_that_is_late_times_out() -> None:
    server = InMemoryTransport(request_timeout=5)
    server.inject(Fault(body=CONTENT, delay_after=6))
    async with Client(transport=server, max_retries=0) as client:
        with pytest.raises(APITimeoutError):
            await client.files.content("file-1")


async def test_files_are_sent_within_the_budget_of_a_fleet() -> None:
    server = InMemoryTransport()
    server.inject(Fault(status=429, headers={"Retry-After": "3"}), Fault(body=FILE))
    server.inject(Fault(status=429, headers={"Retry-After": "3"}), Fault(body=CONTENT))
    async with Client(transport=server) as client, Fleet(client) as fleet:
        transport = PermittedTransport(client, fleet._hub.runner.permits)
        began = asyncio.get_running_loop().time()
        upload = await upload_of(CONTENT, {})
        assert (await transport.send(Request("POST", "/files", upload=upload))).status == 200
        stream = await transport.download(GET)
        assert isinstance(stream, ByteStream)
        assert CONTENT.startswith(await stream.read())
        assert asyncio.get_running_loop().time() - began >= 6
