"""The content of a file: it is read once and whole, however often the connection breaks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from broken_downloads import Downloads, Pieces, lost
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from asyncruns import APIConnectionError, APIResponseValidationError, Client, InvalidRequestError, NotFoundError
from asyncruns.abc import ByteStream
from asyncruns.http import Request, Response
from asyncruns.resources.file_content import LONGEST_LINE_BYTES, FileContent
from asyncruns.testing import VirtualTimeLoop

TEXT = b"".join(b"line %d of the file\n" % number for number in range(9))


def client_of(server: Downloads) -> Client:
    return Client(transport=server, max_retries=0)


async def opened(server: Downloads) -> FileContent:
    return await client_of(server).files.content("file-1")


async def test_a_content_is_read_in_pieces() -> None:
    server = Downloads(TEXT)
    content = await opened(server)
    assert b"".join([piece async for piece in content]) == TEXT
    assert [request.path for request in server.requests] == ["/files/file-1/content"]
    assert dict(server.requests[0].headers) == {"Accept-Encoding": "identity"}


async def test_it_is_read_whole_or_as_text() -> None:
    assert await (await opened(Downloads(TEXT))).read() == TEXT
    assert await (await opened(Downloads("é".encode() + b"\xff"))).text() == "é\ufffd"


async def test_it_is_written_to_a_file(tmp_path: Path) -> None:
    server = Downloads(TEXT, breaks=[30, 5])
    await (await opened(server)).write_to_file(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == TEXT
    assert server.streams[-1].is_closed


async def test_a_file_that_cannot_be_written_is_an_error_of_the_system_and_closes_the_content(tmp_path: Path) -> None:
    server = Downloads(TEXT)
    with pytest.raises(IsADirectoryError):
        await (await opened(server)).write_to_file(tmp_path)
    assert server.streams[-1].is_closed


@pytest.mark.parametrize("ending", [b"", b"\n"])
@pytest.mark.parametrize("between", [b"\n", b"\r\n"])
async def test_it_is_read_line_by_line(between: bytes, ending: bytes) -> None:
    lines = [b"a" * length for length in (0, 1, 6, 7, 8, 20)]
    content = await opened(Downloads(between.join(lines) + ending, breaks=[3, 4, 5]))
    assert [line async for line in content.lines()] == lines


async def test_ways_to_read_continue_where_another_one_stopped() -> None:
    content = await opened(Downloads(TEXT))
    async for line in content.lines():
        assert line == b"line 0 of the file"
        break
    async for line in content.lines():
        assert line == b"line 1 of the file"
        break
    assert await content.read() == TEXT[2 * len(b"line 0 of the file\n") :]


async def test_a_line_without_end_does_not_fill_the_memory() -> None:
    class Zeros(Pieces):
        async def read(self) -> bytes:
            return bytes(LONGEST_LINE_BYTES // 8)

    class Endless(Downloads):
        async def download(self, request: Request) -> Response | ByteStream:
            return Zeros(request, 200, {}, b"", breaks=False)

    content = await opened(Endless(b"x"))
    with pytest.raises(APIResponseValidationError, match="line of more than 67108864 bytes"):
        _ = [line async for line in content.lines()]


@pytest.mark.parametrize("ranges", ["exact", "earlier", "ignored", "unsaid", "short", "refused"])
def test_nothing_is_missing_and_nothing_comes_twice_wherever_it_breaks(ranges: str) -> None:
    @given(st.lists(st.integers(0, 60), max_size=8))
    def check(breaks: list[int]) -> None:
        got: list[bytes] = []
        server = Downloads(TEXT, breaks=breaks, ranges=ranges)

        async def whole() -> bytes:
            content = await opened(server)
            while True:
                try:
                    async for piece in content:
                        got.append(piece)
                    return b"".join(got)
                except APIConnectionError:
                    pass

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            assert runner.run(whole()) == TEXT
        assert all(stream.is_closed for stream in server.streams)

    check()


async def test_it_is_taken_up_from_the_first_byte_that_was_not_read() -> None:
    server = Downloads(TEXT, breaks=[20, 0, 30])
    assert await (await opened(server)).read() == TEXT
    assert server.asked == [None, "bytes=20-", "bytes=20-", "bytes=50-"]


async def test_a_break_after_the_last_byte_is_the_end() -> None:
    server = Downloads(TEXT, breaks=[len(TEXT)])
    assert await (await opened(server)).read() == TEXT
    assert server.asked == [None, f"bytes={len(TEXT)}-"]


async def test_a_content_that_is_compressed_on_the_wire_is_read_again_from_its_beginning() -> None:
    server = Downloads(TEXT, breaks=[20], headers={"Content-Encoding": "gzip"})
    assert await (await opened(server)).read() == TEXT
    assert server.asked == [None, None]


async def test_another_part_than_asked_for_is_an_error() -> None:
    content = await opened(Downloads(TEXT, breaks=[20], ranges="later"))
    with pytest.raises(APIResponseValidationError, match=r"another part .* \(20 bytes were read before"):
        await content.read()


async def test_a_content_that_became_shorter_is_an_error() -> None:
    server = Downloads(TEXT, breaks=[40], ranges="ignored")
    content = await opened(server)
    server.content = TEXT[:30]
    with pytest.raises(APIResponseValidationError, match="fewer bytes than the 40"):
        await content.read()


async def test_five_tries_without_a_further_byte_are_an_error_after_which_reading_continues() -> None:
    server = Downloads(TEXT, breaks=[20, 0, 0, 0, 0, 0])
    content = await opened(server)
    got: list[bytes] = []
    began = asyncio.get_running_loop().time()
    with pytest.raises(APIConnectionError, match=r"it broke \(20 bytes were read before"):
        async for piece in content:
            got.append(piece)
    assert 15.5 <= asyncio.get_running_loop().time() - began <= 18  # pauses of 0.5, 1, 2, 4 and 8 s, and a bit
    assert len(server.requests) == 6
    assert b"".join(got) + await content.read() == TEXT


async def test_progress_begins_the_count_of_tries_anew() -> None:
    server = Downloads(TEXT, breaks=[1] * 50)
    assert await (await opened(server)).read() == TEXT


async def test_a_server_that_is_down_for_a_while_counts_as_a_break() -> None:
    down = Response(503, CIMultiDict({"Retry-After": "20"}), b"")
    server = Downloads(TEXT, breaks=[20], before=[None, down, lost, down])
    began = asyncio.get_running_loop().time()
    assert await (await opened(server)).read() == TEXT
    assert asyncio.get_running_loop().time() - began > 40


async def test_a_file_that_is_deleted_meanwhile_is_an_error_at_once() -> None:
    gone = Response(404, CIMultiDict(), b'{"error": {"message": "No such File object: file-1"}}')
    content = await opened(Downloads(TEXT, breaks=[20], before=[None, gone]))
    with pytest.raises(NotFoundError, match=r"No such File object: file-1.* \(20 bytes were read before"):
        await content.read()


async def test_a_file_that_is_not_there_is_an_error_before_anything_is_read() -> None:
    with pytest.raises(NotFoundError):
        await opened(Downloads(TEXT, before=[Response(404, CIMultiDict(), b"{}")]))


async def test_leaving_the_block_closes_the_connection() -> None:
    server = Downloads(TEXT)
    async with await opened(server) as content:
        async for _ in content:
            break
    assert server.streams[0].is_closed
    with pytest.raises(InvalidRequestError, match="is closed"):
        await content.read()


async def test_its_repr_shows_its_state() -> None:
    content = await opened(Downloads(TEXT))
    assert repr(content) == "<FileContent of /files/file-1/content, 0 bytes read, open>"
    await content.read()
    assert repr(content) == f"<FileContent of /files/file-1/content, {len(TEXT)} bytes read, at its end>"


async def test_a_transport_that_does_not_download_in_pieces_returns_the_whole() -> None:
    class Plain(Downloads):
        async def download(self, request: Request) -> Response | ByteStream:
            return Response(200, CIMultiDict(), TEXT)

    content = await opened(Plain(b""))
    assert [line async for line in content.lines()] == TEXT.splitlines()


async def test_raw_calls_have_no_content() -> None:
    raw = client_of(Downloads(TEXT)).files.with_raw_response
    with pytest.raises(AttributeError, match="content"):
        _ = raw.content


# What servers do with ranges


async def test_a_416_is_the_end_only_if_the_total_says_so() -> None:
    server = Downloads(TEXT, breaks=[20], ranges="refused")
    assert await (await opened(server)).read() == TEXT
    assert server.asked == [None, "bytes=20-", None]


async def test_a_416_without_a_total_is_the_end_only_if_the_length_is_known() -> None:
    nothing = Response(416, CIMultiDict(), b"")
    server = Downloads(TEXT, breaks=[20], before=[None, nothing])
    assert await (await opened(server)).read() == TEXT
    assert server.asked == [None, "bytes=20-", None]
    server = Downloads(TEXT, breaks=[len(TEXT)], before=[None, nothing], headers={"Content-Length": str(len(TEXT))})
    assert await (await opened(server)).read() == TEXT
    assert server.asked == [None, f"bytes={len(TEXT)}-"]


async def test_a_part_that_ends_early_is_not_the_end() -> None:
    server = Downloads(TEXT, breaks=[len(TEXT) - 25], ranges="short")
    began = asyncio.get_running_loop().time()
    assert await (await opened(server)).read() == TEXT
    assert len(server.asked) == 4
    assert asyncio.get_running_loop().time() - began < 1.5  # one break, and no pauses between the parts


async def test_parts_without_any_bytes_are_an_error() -> None:
    content = await opened(Downloads(TEXT, breaks=[20], ranges="empty"))
    with pytest.raises(APIConnectionError, match=r"ended \d+ bytes before its end \(20 bytes were read before"):
        await content.read()
