"""The framing of bodies, over both transports: every form of HTTP/1, whole, byte by byte, and invalid."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncGenerator
from typing import Final

import pytest
from recording_server import RecordingServer, Seen, reply
from transports import make_transport, over

from asyncruns import APIConnectionError
from asyncruns.http import Request

GET: Final = Request("GET", "/x")
BODY: Final = b'{"id": "x_1"}'
OK: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def deflated(data: bytes, bits: int) -> bytes:
    packer = zlib.compressobj(wbits=bits)
    return packer.compress(data) + packer.flush()


def sized(packed: bytes, coding: str) -> bytes:
    return OK + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b" % (coding.encode(), len(packed), packed)


# Answers, each with its status, its body, and whether its connection stays open.
FRAMINGS: Final[dict[str, tuple[bytes, int, bytes, bool]]] = {
    "a length": (OK + b"Content-Length: 13\r\n\r\n" + BODY, 200, BODY, True),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "one chunk": (CHUNKED + b"d\r\n" + BODY + b"\r\n0\r\n\r\n", 200, BODY, True),
    "chunks of one byte": (
        CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n", 200, BODY, True,
    ),
    "no chunk": (CHUNKED + b"0\r\n\r\n", 200, b"", True),
    "an extension": (CHUNKED + b'0000d;x="y"\r\n' + BODY + b"\r\n0\r\n\r\n", 200, BODY, True),
    "trailers": (CHUNKED + b"D\r\n" + BODY + b"\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n", 200, BODY, True),
    "the connection's end": (OK + b"\r\n" + BODY, 200, BODY, False),
    "a last answer": (OK + b"Connection: close\r\nContent-Length: 13\r\n\r\n" + BODY, 200, BODY, False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 13\r\n\r\n" + BODY, 200, BODY, False),
    "HTTP/1.0, kept": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 13\r\n\r\n" + BODY, 200, BODY, True,
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "204 with a length": (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, b"", True),
    "304 with the length of an absent body": (
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 13\r\n\r\n", 304, b"", True,
    ),
    "100 before": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 13\r\n\r\n" + BODY, 200, BODY, True),
    "two of 1xx before": (
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"
        + OK + b"Content-Length: 13\r\n\r\n" + BODY, 200, BODY, True,
    ),
    "no reason": (b"HTTP/1.1 404\r\nContent-Length: 2\r\n\r\n{}", 404, b"{}", True),
    "gzip": (sized(gzip.compress(BODY), "gzip"), 200, BODY, True),
    "gzip in small chunks": (
        OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"1\r\n%c\r\n" % byte for byte in gzip.compress(BODY)) + b"0\r\n\r\n", 200, BODY, True,
    ),
    "deflate": (sized(deflated(BODY, zlib.MAX_WBITS), "deflate"), 200, BODY, True),
    "deflate without its head": (sized(deflated(BODY, -zlib.MAX_WBITS), "deflate"), 200, BODY, True),
    "gzip of much": (sized(gzip.compress(bytes(range(256)) * 4096), "gzip"), 200, bytes(range(256)) * 4096, True),
}  # fmt: skip


def in_pieces(answer: bytes, size: int, *, stays: bool) -> object:
    async def pieces() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(answer), size):
            yield answer[start : start + size]
            await asyncio.sleep(0)
        if stays:
            await asyncio.Event().wait()

    return lambda seen: pieces()


@pytest.mark.parametrize("name", FRAMINGS)
async def test_a_body_ends_where_it_should_and_its_connection_is_reused_if_possible(name: str) -> None:
    answer, status, body, stays_open = FRAMINGS[name]
    # The server closes the connection after a generator, which an answer that ends with its connection requires.
    first = answer if stays_open else in_pieces(answer, len(answer), stays=name != "the connection's end")
    async with RecordingServer(first, reply()) as server:  # type: ignore[arg-type]
        transport = make_transport(server.base_url, request_timeout=5)
        response = await transport.send(GET)
        assert (response.status, response.body) == (status, body)
        assert (await transport.send(GET)).status == 200
        assert server.connections == (1 if stays_open else 2)
        await transport.aclose()


@pytest.mark.parametrize("name", [name for name in FRAMINGS if name != "gzip of much"])
@pytest.mark.parametrize("size", [1, 7])
async def test_a_body_may_arrive_in_small_pieces(name: str, size: int) -> None:
    answer, status, body, _ = FRAMINGS[name]
    async with RecordingServer(in_pieces(answer, size, stays=name != "the connection's end")) as server:  # type: ignore[arg-type]
        transport = make_transport(server.base_url, request_timeout=5)
        response = await transport.send(GET)
        assert (response.status, response.body) == (status, body)
        await transport.aclose()


async def test_headers_are_complete_and_found_in_any_case() -> None:
    head = OK + b"X-One:  a b \t\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty:\r\nX-Odd: \xc3\xb6\xff\r\n"
    async with RecordingServer(head + b"Content-Length: 0\r\n\r\n") as server:
        transport = make_transport(server.base_url)
        headers = (await transport.send(GET)).headers
        await transport.aclose()
    assert (headers["x-one"], headers["X-ONE"], headers["x-empty"]) == ("a b", "a b", "")
    assert headers.getall("Set-Cookie") == ["a=1", "b=2"]  # type: ignore[attr-defined]
    assert headers["x-odd"] == "ö\udcff"


WRONG: Final[dict[str, bytes]] = {
    "two lengths": OK + b"Content-Length: 13\r\nContent-Length: 12\r\n\r\n" + BODY,
    "a length together with chunks": OK
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n"
    + BODY
    + b"\r\n0\r\n\r\n",
    "an invalid length": OK + b"Content-Length: many\r\n\r\n" + BODY,
    "a negative length": OK + b"Content-Length: -1\r\n\r\n" + BODY,
    "a length beyond any": OK + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    "an invalid chunk": CHUNKED + b"xyz\r\n" + BODY,
    "a chunk beyond any": CHUNKED + b"ffffffffffffffffff\r\n" + BODY,
    "a chunk longer than it says": CHUNKED + b"3\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a space before a colon": OK + b"X : y\r\nContent-Length: 13\r\n\r\n" + BODY,
    "a zero in a header": OK + b"X: y\0z\r\nContent-Length: 13\r\n\r\n" + BODY,
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 13\r\n\r\n" + BODY,
    "another protocol": b"220 mail.example ready\r\n",
    "a page without a head": b"<!DOCTYPE html><html>" + BODY,
    "invalid gzip": sized(BODY, "gzip"),
    "invalid deflate": sized(BODY, "deflate"),
}


# aiohttp accepts these.
WRONG_IF_STRICT: Final[dict[str, bytes]] = {
    "a folded header": OK + b"X: y\r\n z\r\nContent-Length: 13\r\n\r\n" + BODY,
    "lines that end with LF": OK.replace(b"\r", b"") + b"Content-Length: 13\n\n" + BODY,
    "half a gzip": sized(gzip.compress(BODY * 100)[:-9], "gzip"),
    "gzip as a transfer coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\nd\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunks within something": OK + b"Transfer-Encoding: chunked, identity\r\n\r\n" + BODY,
    "another version": b"HTTP/2.0 200 OK\r\nContent-Length: 13\r\n\r\n" + BODY,
    "another protocol that looks alike": b"RTSP/1.0 200 OK\r\nContent-Length: 13\r\n\r\n" + BODY,
    "another protocol from here on": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("name", WRONG)
async def test_an_invalid_answer_is_lost_and_its_connection_is_closed(name: str, method: str) -> None:
    await is_lost(WRONG[name], method)


@over("httptools")
@pytest.mark.parametrize("name", WRONG_IF_STRICT)
async def test_answers_are_parsed_strictly(name: str) -> None:
    await is_lost(WRONG_IF_STRICT[name], "GET")


async def is_lost(wrong: bytes, method: str) -> None:
    def wrong_once(seen: Seen) -> bytes:
        return wrong if len(server.seen) == 1 else reply()

    async with RecordingServer(wrong_once) as server:
        transport = make_transport(server.base_url, request_timeout=5)
        with pytest.raises(APIConnectionError, match="may have acted") as caught:
            await transport.send(Request(method, "/x"))
        assert caught.value.sent
        assert (await transport.send(GET)).status == 200
        assert (len(server.seen), server.connections) == (2, 2)
        await transport.aclose()


@pytest.mark.parametrize("name", ["a length", "one chunk", "trailers", "gzip", "100 before"])
async def test_a_truncated_answer_is_lost(name: str) -> None:
    answer = FRAMINGS[name][0]
    for end in range(len(answer)):
        async with RecordingServer(in_pieces(answer[:end], len(answer), stays=False)) as server:  # type: ignore[arg-type]
            transport = make_transport(server.base_url, request_timeout=5)
            with pytest.raises(APIConnectionError) as caught:
                await transport.send(GET)
            assert caught.value.sent
            await transport.aclose()
