"""Uploads on the wire: their framing, their repetition, their end when something fails, and their timeouts."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import aiohttp
import anyio
import pytest
from openai import AsyncOpenAI
from recording_server import DROP, RecordingServer, Seen, reply
from transports import make_transport, over

from asyncruns import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    BearerAuth,
    Client,
    InternalServerError,
    InvalidRequestError,
)
from asyncruns.http import Request, Upload
from asyncruns.resources.uploads import GivenFile
from asyncruns.transport.aiohttp_upload import UploadPayload
from asyncruns.transport.retry import RetryTransport

CONTENT = b"0123456789abcdef" * 40_000
FILE = {"id": "file-1", "object": "file", "bytes": len(CONTENT), "filename": "in.jsonl", "purpose": "batch"}
GOOD = reply(200, FILE)


class Counted(Upload):
    """A body of zeros; notes how often it was opened and closed, and fails where it is told to.

    Args:
        pieces: How many pieces of 64 KiB it has.
        failure: Raised after the first piece.
    """

    content_type = "text/plain"

    def __init__(self, pieces: int, failure: Exception | None = None) -> None:
        self.size = pieces * 65536
        self._failure = failure
        self.opened = self.closed = 0

    async def open(self) -> AsyncGenerator[bytes]:
        self.opened += 1
        try:
            for _ in range(self.size // 65536):
                yield bytes(65536)
                if self._failure is not None:
                    raise self._failure
        finally:
            await asyncio.sleep(0)  # such as to close a file in a thread
            self.closed += 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(CONTENT)
    return path


@contextlib.asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Serve each connection with a function, and return the base URL."""
    tasks = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(task := asyncio.current_task())
        try:
            await serve(reader, writer)
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for task in list(tasks):
            assert task is not None
            task.cancel()
        await server.wait_closed()


def form(seen: Seen) -> tuple[bytes, bytes]:
    """Return what comes before the content of the file, and the content; check the framing."""
    content_type = seen.header("Content-Type") or ""
    boundary = content_type.removeprefix("multipart/form-data; boundary=").encode()
    assert seen.header("Content-Length") == str(len(seen.body))
    assert seen.header("Transfer-Encoding") is None
    before, _, rest = seen.body.rpartition(b"\r\n\r\n")
    content, end, after = rest.rpartition(b"\r\n--" + boundary + b"--\r\n")
    assert end
    assert after == b""
    return before, content


async def test_a_file_is_sent_with_its_length_and_not_in_chunks(path: Path) -> None:
    async with RecordingServer(GOOD) as server, Client(server.base_url) as client:
        file = await client.files.create(file=path, purpose="batch")
        assert (file.id, file.filename, file.bytes) == ("file-1", "in.jsonl", len(CONTENT))
        before, content = form(server.seen[0])
        assert content == CONTENT
        assert b'name="purpose"\r\n\r\nbatch\r\n' in before
        assert b'name="file"; filename="in.jsonl"\r\nContent-Type: application/octet-stream' in before
        assert (server.seen[0].method, server.seen[0].target) == ("POST", "/v1/files")


@over("aiohttp")
@pytest.mark.parametrize("file", [Path("in.jsonl"), b"abc", ('a"b.jsonl', b"1", "application/jsonl")])
async def test_the_form_is_that_of_the_official_client(
    path: Path, monkeypatch: pytest.MonkeyPatch, file: GivenFile
) -> None:
    monkeypatch.chdir(path.parent)
    async with (
        RecordingServer(GOOD) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="key") as theirs,
        Client(server.base_url) as ours,
    ):
        expires_after: Any = {"anchor": "created_at", "seconds": 3600}
        given: Any = file
        await theirs.files.create(file=given, purpose="batch", expires_after=expires_after)
        await ours.files.create(file=file, purpose="batch", expires_after=expires_after)
        boundaries = [(seen.header("Content-Type") or "").partition("boundary=")[2].encode() for seen in server.seen]
        forms = [seen.body.replace(each, b"") for seen, each in zip(server.seen, boundaries, strict=True)]
        assert forms[0] == forms[1]


async def test_the_options_of_a_call_apply() -> None:
    async with RecordingServer(GOOD) as server, Client(server.base_url) as client:
        await client.files.create(
            file=b"x",
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 60},
            extra_headers={"X-Mine": "1"},
            extra_query={"q": "2"},
            extra_body={"mine": "3"},
        )
        before, _ = form(server.seen[0])
        assert b'name="mine"\r\n\r\n3\r\n' in before
        assert b'name="expires_after[seconds]"\r\n\r\n60\r\n' in before
        assert server.targets == ["/v1/files?q=2"]
        assert server.seen[0].header("X-Mine") == "1"


async def test_a_raw_call_returns_the_whole_answer(path: Path) -> None:
    async with RecordingServer(GOOD) as server, Client(server.base_url) as client:
        raw = await client.files.with_raw_response.create(file=path, purpose="batch")
        assert (raw.status, raw.parse().id) == (200, "file-1")


async def test_a_refreshed_credential_sends_the_file_from_its_beginning(path: Path) -> None:
    tokens = iter(["old", "new"])
    async with (
        RecordingServer(reply(401), GOOD) as server,
        Client(server.base_url, auth=BearerAuth(lambda: next(tokens))) as client,
    ):
        await client.files.create(file=path, purpose="batch")
        assert [seen.header("Authorization") for seen in server.seen] == ["Bearer old", "Bearer new"]
        assert [form(seen)[1] for seen in server.seen] == [CONTENT] * 2


async def test_a_file_that_is_refused_for_its_rate_is_sent_again(path: Path) -> None:
    async with RecordingServer(reply(429), reply(429), GOOD) as server, Client(server.base_url) as client:
        with path.open("rb") as file:
            await client.files.create(file=file, purpose="batch")
        assert [form(seen)[1] for seen in server.seen] == [CONTENT] * 3


@pytest.mark.parametrize(
    ("answer", "kind"), [(DROP, APIConnectionError), (None, APITimeoutError), (reply(500), InternalServerError)]
)
async def test_a_file_whose_answer_is_lost_is_not_sent_again(answer: bytes, kind: type[Exception]) -> None:
    async with RecordingServer(answer) as server, Client(server.base_url) as client:
        with pytest.raises(kind, match=r"The file 'a\.jsonl' may exist: check `files\.list\(purpose='batch'\)` before"):
            await client.files.create(file=("a.jsonl", CONTENT), purpose="batch")
        assert len(server.seen) == 1


async def test_a_file_that_is_refused_does_not_exist() -> None:
    async with RecordingServer(reply(400)) as server, Client(server.base_url) as client:
        with pytest.raises(BadRequestError) as caught:
            await client.files.create(file=b"x", purpose="batch")
        assert "may exist" not in str(caught.value)


async def test_a_redirect_is_not_followed() -> None:
    async with RecordingServer(reply(307, Location="/v1/files/")) as server, Client(server.base_url) as client:
        with pytest.raises(APIStatusError):
            await client.files.create(file=b"x", purpose="batch")
        assert len(server.seen) == 1


async def test_a_file_that_is_gone_at_the_second_attempt_is_named(path: Path) -> None:
    def refuse(seen: Seen) -> bytes:
        path.unlink()
        return reply(429)

    async with RecordingServer(refuse, GOOD) as server, Client(server.base_url) as client:
        with pytest.raises(InvalidRequestError, match=r"'in\.jsonl' can't be read: .*No such file"):
            await client.files.create(file=path, purpose="batch")
        assert len(server.seen) == 1


async def test_a_file_that_shrinks_while_it_is_sent_is_named_and_the_server_has_none() -> None:
    class Shrinking(io.BytesIO):
        name = "in.jsonl"

        def read(self, size: int | None = -1) -> bytes:
            return super().read(size) if self.tell() < 1000 else b""

    async with RecordingServer(GOOD) as server, Client(server.base_url) as client:
        with pytest.raises(InvalidRequestError, match=r"'in\.jsonl' was changed while it was sent"):
            await client.files.create(file=Shrinking(CONTENT), purpose="batch")
        assert server.seen == []
        await client.files.create(file=b"x", purpose="batch")


@pytest.mark.parametrize("failure", [RuntimeError("mine"), OSError(5, "mine"), TimeoutError("mine")])
async def test_what_a_body_raises_is_raised_by_send(failure: Exception) -> None:
    upload = Counted(100, failure)
    async with RecordingServer(GOOD) as server:
        transport = make_transport(server.base_url)
        with pytest.raises(type(failure), match="mine") as caught:
            await transport.send(Request("POST", "/files", upload=upload))
        assert caught.value is failure
        assert (upload.opened, upload.closed, server.seen) == (1, 1, [])
        await transport.aclose()


async def test_the_size_of_a_body_is_checked() -> None:
    upload = Counted(3)
    upload.size += 1
    async with RecordingServer(GOOD) as server:
        transport = make_transport(server.base_url)
        with pytest.raises(InvalidRequestError, match="has 1 fewer bytes than its size, 196609"):
            await transport.send(Request("POST", "/files", upload=upload))
        assert server.seen == []
        await transport.aclose()


async def test_an_answer_before_the_end_of_the_body_ends_the_upload() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(413, {"error": {"message": "too large"}}))
        await asyncio.sleep(1000)

    upload = Counted(2000)
    async with serving(refuse) as base_url:
        transport = make_transport(base_url)
        response = await transport.send(Request("POST", "/files", upload=upload))
        assert response.status == 413
        assert (upload.opened, upload.closed) == (1, 1)
        await transport.aclose()


async def test_a_cancelled_upload_is_closed() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1000)

    upload = Counted(2000)
    async with serving(swallow) as base_url:
        transport = make_transport(base_url)
        sending = asyncio.create_task(transport.send(Request("POST", "/files", upload=upload)))
        await asyncio.sleep(1)
        assert upload.opened == 1
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert upload.closed == 1
        await transport.aclose()


async def test_an_upload_without_progress_times_out() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1000)

    upload = Counted(2000)
    async with serving(swallow) as base_url:
        transport = make_transport(base_url, request_timeout=20)
        began = asyncio.get_running_loop().time()
        with pytest.raises(APITimeoutError) as caught:
            await transport.send(Request("POST", "/files", upload=upload))
        assert not caught.value.sent
        assert asyncio.get_running_loop().time() - began == pytest.approx(20, abs=2)
        assert upload.closed == 1
        await transport.aclose()


async def test_an_upload_that_makes_progress_may_last_longer_than_the_timeout() -> None:
    async def read_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(16):
            await asyncio.sleep(10)
            await reader.readexactly(upload.size // 16)
        await asyncio.sleep(10)
        writer.write(GOOD)

    upload = Counted(512)
    async with serving(read_slowly) as base_url:
        transport = make_transport(base_url, request_timeout=15)
        began = asyncio.get_running_loop().time()
        response = await transport.send(Request("POST", "/files", upload=upload))
        assert response.status == 200
        assert asyncio.get_running_loop().time() - began >= 170
        await transport.aclose()


async def test_an_upload_that_breaks_off_had_no_effect_and_is_sent_again() -> None:
    received: list[int] = []

    async def break_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if len(received) < 2:
            received.append(len(await reader.readexactly(100_000)))
            return
        received.append(len(await reader.readexactly(upload.size)))
        writer.write(GOOD)
        await writer.drain()

    upload = Counted(512)
    async with serving(break_twice) as base_url:
        transport = RetryTransport(make_transport(base_url))
        response = await transport.send(Request("POST", "/files", upload=upload))
        assert (response.status, response.attempts) == (200, ("APIConnectionError", "APIConnectionError"))
        assert received == [100_000, 100_000, upload.size]
        assert (upload.opened, upload.closed) == (3, 3)
        await transport.aclose()


async def test_an_upload_that_always_breaks_off_is_an_error_that_says_so() -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(100_000)

    async with serving(break_off) as base_url, Client(base_url, max_retries=0) as client:
        with pytest.raises(APIConnectionError, match="Only a part of the upload was sent") as caught:
            await client.files.create(file=bytes(2**25), purpose="batch")
        assert not caught.value.sent
        assert "may" not in str(caught.value)


async def test_a_borrowed_session_sends_files(path: Path) -> None:
    methods = []

    async def note(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        methods.append(request.method)
        return await handler(request)

    async with RecordingServer(reply(429), GOOD) as server, aiohttp.ClientSession(middlewares=(note,)) as session:
        async with Client(server.base_url, session=session) as client:
            await client.files.create(file=path, purpose="batch")
        assert [form(seen)[1] for seen in server.seen] == [CONTENT] * 2
        assert methods == ["POST", "POST"]


async def test_a_session_that_repeats_a_request_sends_the_file_from_its_beginning(path: Path) -> None:
    async def twice(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        (await handler(request)).close()
        return await handler(request)

    async with RecordingServer(GOOD) as server, aiohttp.ClientSession(middlewares=(twice,)) as session:
        async with Client(server.base_url, session=session) as client:
            await client.files.create(file=path, purpose="batch")
        assert [form(seen)[1] for seen in server.seen] == [CONTENT] * 2


@pytest.mark.parametrize("in_scope", [True, False])
async def test_leaving_waits_until_the_body_is_closed_however_often_it_is_cancelled(in_scope: bool) -> None:
    closed: list[bool] = []

    class Late(Upload):
        size = 10
        content_type = "text/plain"

        async def open(self) -> AsyncGenerator[bytes]:
            try:
                yield b"12345"
            finally:
                await asyncio.sleep(1.0)
                closed.append(True)

    class Full:
        async def write(self, piece: bytes) -> None:
            await asyncio.sleep(1000.0)

    payload = UploadPayload(Late(), lambda sent: None)
    writing = asyncio.create_task(payload.write(cast("Any", Full())))
    await asyncio.sleep(0.1)
    if in_scope:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await payload.stop()
    else:
        stopping = asyncio.create_task(payload.stop())
        for _ in range(3):
            await asyncio.sleep(0.1)
            stopping.cancel()
        await asyncio.wait({stopping})
        assert stopping.cancelled()
    assert closed == [True]
    await asyncio.wait({writing})
