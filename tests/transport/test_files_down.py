"""Downloads on the wire: any type and size, taken up again where they broke."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncGenerator

import pytest
from recording_server import RecordingServer, Seen, reply
from transports import make_transport

from asyncruns import APIConnectionError, BearerAuth, Client, ConfigurationError, NotFoundError
from asyncruns.abc import ByteStream
from asyncruns.http import Request, Response

CONTENT = b"".join(b'{"custom_id": "request-%d"}\n' % number for number in range(20_000))
PATH = "/files/file-1/content"


def start_of(seen: Seen) -> int:
    found = re.fullmatch(r"bytes=(\d+)-", seen.header("Range") or "bytes=0-")
    assert found is not None
    return int(found[1])


def part(seen: Seen, *, keeps_ranges: bool = True) -> bytes:
    """Return the answer of a server that has the content."""
    start = start_of(seen)
    if not start or not keeps_ranges:
        return reply(200, CONTENT)
    if start >= len(CONTENT):
        return reply(416)
    return reply(206, CONTENT[start:], Content_Range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")


async def breaks(seen: Seen) -> AsyncGenerator[bytes, None]:
    """Send the first 100,000 bytes of an answer, and close the connection."""
    yield part(seen)[:100_000]


async def falls_silent(seen: Seen) -> AsyncGenerator[bytes, None]:
    """Send the first 100,000 bytes of an answer, and then nothing."""
    yield part(seen)[:100_000]
    await asyncio.sleep(10_000)


async def chunked(seen: Seen) -> AsyncGenerator[bytes, None]:
    """Send all bytes in a chunk, and close the connection before the chunk that ends the body."""
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(CONTENT), CONTENT)


async def test_a_content_is_read_piece_by_piece() -> None:
    async with RecordingServer(part) as server, Client(server.base_url) as client:
        content = await client.files.content("file-1")
        pieces = [piece async for piece in content]
        assert b"".join(pieces) == CONTENT
        assert len(pieces) > 1
        assert server.targets == ["/v1/files/file-1/content"]
        assert server.seen[0].header("Accept-Encoding") == "identity"
        assert server.seen[0].header("Range") is None


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/html", "application/octet-stream"])
async def test_its_type_does_not_matter(kind: str) -> None:
    async with RecordingServer(reply(200, CONTENT, Content_Type=kind)) as server, Client(server.base_url) as client:
        assert await (await client.files.content("file-1")).read() == CONTENT


async def test_its_size_is_not_limited() -> None:
    async with RecordingServer(part) as server:
        transport = make_transport(server.base_url, max_body=1000)
        answer = await transport.download(Request("GET", PATH))
        assert isinstance(answer, ByteStream)
        size = 0
        while piece := await answer.read():
            size += len(piece)
        assert size == len(CONTENT)
        await transport.aclose()


async def test_an_error_is_returned_whole() -> None:
    async with RecordingServer(reply(404, {"error": {"message": "gone"}})) as server:
        transport = make_transport(server.base_url)
        answer = await transport.download(Request("GET", PATH))
        assert isinstance(answer, Response)
        assert (answer.status, answer.body) == (404, b'{"error": {"message": "gone"}}')
        await transport.aclose()


async def test_it_is_taken_up_where_the_connection_broke() -> None:
    async with RecordingServer(breaks, breaks, part) as server, Client(server.base_url) as client:
        content = await client.files.content("file-1")
        assert [line async for line in content.lines()] == CONTENT.splitlines()
        first, second, third = map(start_of, server.seen)
        assert first == 0 < second < third < 200_000


async def test_it_is_taken_up_at_a_server_without_ranges() -> None:
    async with (
        RecordingServer(breaks, lambda seen: part(seen, keeps_ranges=False)) as server,
        Client(server.base_url) as client,
    ):
        assert await (await client.files.content("file-1")).read() == CONTENT
        assert len(server.seen) == 2


async def test_a_server_that_falls_silent_is_asked_again() -> None:
    async with RecordingServer(falls_silent, part) as server, Client(server.base_url, request_timeout=10) as client:
        assert await (await client.files.content("file-1")).read() == CONTENT
        assert len(server.seen) == 2


async def test_a_break_after_the_last_byte_is_the_end() -> None:
    async with RecordingServer(chunked, part) as server, Client(server.base_url) as client:
        assert await (await client.files.content("file-1")).read() == CONTENT
        assert start_of(server.seen[1]) == len(CONTENT)


async def test_a_content_that_is_compressed_nevertheless_is_decompressed() -> None:
    squeezed = gzip.compress(CONTENT)
    async with (
        RecordingServer(reply(200, squeezed, Content_Encoding="gzip")) as server,
        Client(server.base_url) as client,
    ):
        assert await (await client.files.content("file-1")).read() == CONTENT


async def test_opening_is_repeated_and_credentials_are_refreshed() -> None:
    tokens = iter(["old", "new"])
    async with (
        RecordingServer(reply(401), reply(503), part) as server,
        Client(server.base_url, auth=BearerAuth(lambda: next(tokens))) as client,
    ):
        assert await (await client.files.content("file-1")).read() == CONTENT
        assert [seen.header("Authorization") for seen in server.seen] == ["Bearer old", "Bearer new", "Bearer new"]


async def test_a_file_that_is_not_there_is_an_error_at_once() -> None:
    async with RecordingServer(reply(404)) as server, Client(server.base_url) as client:
        with pytest.raises(NotFoundError):
            await client.files.content("file-1")
        assert len(server.seen) == 1


async def test_a_server_that_is_gone_is_an_error_after_some_tries() -> None:
    async with RecordingServer(breaks) as server:
        client = Client(server.base_url)
        content = await client.files.content("file-1")
        size = len(await anext(content))
    async with client:
        with pytest.raises(APIConnectionError, match=r"\(try 3, .*\(\d+ bytes were read before\)"):
            while piece := await anext(content, None):
                size += len(piece)
        assert size < 100_000


async def test_a_client_that_is_closed_reads_no_further() -> None:
    async with RecordingServer(falls_silent) as server:
        async with Client(server.base_url) as client:
            content = await client.files.content("file-1")
            await anext(content)
        with pytest.raises(ConfigurationError, match="The client is closed"):
            _ = [piece async for piece in content]


async def test_leaving_early_closes_the_connection() -> None:
    async with RecordingServer(falls_silent) as server, Client(server.base_url) as client:
        async with await client.files.content("file-1") as content:
            assert await anext(content)
        async with await client.files.content("file-1") as content:
            assert await anext(content)
        assert server.connections == 2


async def test_ids_remain_one_segment_of_the_path() -> None:
    async with RecordingServer(part) as server, Client(server.base_url) as client:
        await (await client.files.content("a/b?c")).read()
        assert server.targets == ["/v1/files/a%2Fb%3Fc/content"]
