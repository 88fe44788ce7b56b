"""What a recorder writes: every exchange, no credential, line by line; and that it changes nothing for the client."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from asyncruns import APIConnectionError, BearerAuth, Client, Completed, ConfigurationError
from asyncruns.abc import ByteStream, Telemetry, Transport
from asyncruns.http import Request, Response
from asyncruns.otel import OpenTelemetry
from asyncruns.testing import Emulator, Fault, InMemoryTransport, Recorder, Replay, Scenario
from asyncruns.testing.recorder import LONGEST_DOWNLOAD_BYTES
from asyncruns.wire.secret_fields import without_secret_fields

SECRET = "sk-a-very-secret-key-0123456789"
Answer = Callable[[Request], "Response | ByteStream"]


class Served(Transport):
    """Answers as a function says; a stream is one of these pieces."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def send(self, request: Request) -> Response:
        answer = self._answer(request)
        assert isinstance(answer, Response)
        return answer

    async def stream(self, request: Request) -> Response | ByteStream:
        return self._answer(request)

    download = stream

    async def aclose(self) -> None:
        pass


class Pieces(ByteStream):
    def __init__(self, *pieces: bytes | Exception) -> None:
        self.status = 200
        self.headers = {"content-type": "text/event-stream"}
        self._pieces = [*pieces, b""]

    async def read(self) -> bytes:
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def aclose(self) -> None:
        pass


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text_of(path).splitlines()]


async def read_all(stream: Response | ByteStream) -> list[bytes]:
    assert isinstance(stream, ByteStream)
    pieces = []
    while piece := await stream.read():
        pieces.append(piece)
    return pieces


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "day.jsonl"


@pytest.fixture
async def guarded() -> AsyncIterator[Emulator]:
    async with Emulator(Scenario(answer=f"The key is {SECRET}."), api_key=SECRET) as emulator:
        yield emulator


# The file


async def test_each_exchange_is_a_request_and_what_came_of_it(path: Path) -> None:
    recorder = Recorder(InMemoryTransport(latency=0.25), path)
    async with Client(transport=recorder) as client:
        thread = await client.threads.create(metadata={"a": "b"})
    head, request, answer = lines_of(path)
    assert head["kind"] == "recording"
    assert head["format"] == 1
    assert {name: request[name] for name in ("kind", "n", "at", "how", "method", "path", "json")} == {
        "kind": "request", "n": 1, "at": 0.0, "how": "send", "method": "POST", "path": "/threads",
        "json": {"metadata": {"a": "b"}},
    }  # fmt: skip
    assert (answer["kind"], answer["n"], answer["after"], answer["status"]) == ("answer", 1, 0.25, 200)
    assert answer["json"]["id"] == thread.id


def test_only_its_owner_may_read_the_file(path: Path) -> None:
    before = os.umask(0)
    try:
        Recorder(InMemoryTransport(), path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_exists_is_neither_overwritten_nor_continued(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="exists"):
        Recorder(InMemoryTransport(), path)
    assert path.read_text() == "mine"


def test_a_client_in_place_of_its_transport_is_refused(path: Path) -> None:
    client: Any = Client(transport=InMemoryTransport())
    with pytest.raises(ConfigurationError, match=r"client\.transport"):
        Recorder(client, path)
    assert not path.exists()


async def test_a_line_is_there_when_the_request_is_under_way(path: Path) -> None:
    recorder = Recorder(InMemoryTransport(latency=10.0), path)
    async with Client(transport=recorder) as client:
        task = asyncio.create_task(client.threads.create())
        await asyncio.sleep(1.0)
        assert [line["kind"] for line in lines_of(path)] == ["recording", "request"]
        task.cancel()
        await asyncio.wait({task})
    assert lines_of(path)[-1] == {"kind": "left", "n": 1, "after": 1.0}


# Credentials


@pytest.mark.parametrize("telemetry", [None, OpenTelemetry()])
async def test_no_credential_is_in_the_file(guarded: Emulator, path: Path, telemetry: Telemetry | None) -> None:
    async with (
        Client(
            guarded.base_url,
            auth=BearerAuth(SECRET),
            organization="org-4711",
            project="proj-4711",
            default_headers={"X-Api-Key": SECRET, "Cookie": "session=4711"},
            default_query={"api-key": SECRET},
            telemetry=telemetry,
        ) as server,
        Client(transport=Recorder(server.transport, path)) as client,
    ):
        outcome = await client.run(model="gpt-4o", message=f"My key is {SECRET}")
        assert await outcome.text() == f"The key is {SECRET}."  # what the client gets is as it was
        await client.threads.create(
            extra_headers={"OpenAI-Organization": "org-4711", "X-Custom-Token": "4711", "Mcp-Session-Id": "4711"},
            extra_query={"sig": "4711"},
        )
        with pytest.raises(APIConnectionError):
            guarded.inject(Fault(on="create_thread", drop=True, times=9))
            await client.threads.create()
    text = text_of(path)
    assert SECRET not in text
    assert "4711" not in text
    assert guarded.base_url not in text
    assert "The key is ***." in text


async def test_headers_query_and_fields_are_hidden_by_their_names(path: Path) -> None:
    headers = {
        "Set-Cookie": "a=4711",
        "OpenAI-Organization": "org-4711",
        "X-Ratelimit-Remaining-Tokens": "12",
        "X-Portkey-Request-Id": "req-1",
        "Location": "https://host/file?sig=4711",
    }
    body = b'{"tools": [{"authorization": "4711", "headers": {"X-Me": "4711"}}], "client_secret" : "47\\"11"}'
    recorder = Recorder(Served(lambda request: Response(200, headers, body)), path)
    asked = Request("POST", "/x", (("api-key", "4711"), ("order", "asc")), body, (("Authorization", "Bearer 4711"),))
    answer = await recorder.send(asked)
    assert answer.body == body
    assert '"11' not in text_of(path)
    assert "4711" not in text_of(path)
    _, request, answered = lines_of(path)
    assert request["query"] == [["api-key", "***"], ["order", "asc"]]
    assert request["headers"] == {"authorization": "***"}
    assert request["json"] == {"tools": [{"authorization": "***", "headers": {"***": "***"}}], "client_secret": "***"}
    assert answered["headers"] == {
        "set-cookie": "***",
        "openai-organization": "***",
        "x-ratelimit-remaining-tokens": "12",
        "x-portkey-request-id": "req-1",
        "location": "https://host/file?***",
    }


async def test_the_callers_function_removes_what_users_wrote(path: Path) -> None:
    recorder = Recorder(InMemoryTransport(), path, redact=lambda body: body.replace(b"Alice", b"someone"))
    async with Client(transport=recorder) as client:
        outcome = await client.run(model="gpt-4o", message="I am Alice")
        assert await outcome.text() == "You said: I am Alice"
    assert "Alice" not in text_of(path)
    assert "I am someone" in text_of(path)


async def test_a_credential_that_a_stream_cuts_in_two_is_found(path: Path) -> None:
    stream = Pieces(b"data: sec", b"ret\r", b"\n\r\ndata: more", b" secret", b"\n\n", b"data: secr")
    stream.redact = lambda body: body.replace(b"secret", b"***")
    recorder = Recorder(Served(lambda request: stream), path)
    pieces = await read_all(await recorder.stream(Request("GET", "/x")))
    assert b"".join(pieces) == b"data: secret\r\n\r\ndata: more secret\n\ndata: secr"
    texts = [line["text"] for line in lines_of(path) if line["kind"] == "event"]
    assert texts == ["data: ***\r\n\r\n", "data: more ***\n\n", "data: secr"]


# Bodies


@pytest.mark.parametrize(
    ("body", "written"),
    [
        (b'{\n  "a": 1.50,\n  "b": []\n}', ("json", {"a": 1.5, "b": []})),
        (b"<html>\r\n\xc3\xa9", ("text", "<html>\r\n\u00e9")),
        (b'{"a": "\\ud800"}', ("text", '{"a": "\\ud800"}')),
        (b"[" * 100_000, ("text", "[" * 100_000)),
        (b"\xff\x00", ("base64", "/wA=")),
        (b"", ("text", "")),
    ],
    ids=["json", "html", "half a surrogate", "deep", "binary", "empty"],
)
async def test_a_body_is_written_as_json_text_or_base64(path: Path, body: bytes, written: tuple[str, Any]) -> None:
    recorder = Recorder(Served(lambda request: Response(200, {}, body)), path)
    await recorder.send(Request("GET", "/x"))
    assert lines_of(path)[-1][written[0]] == written[1]
    replayed = await Replay(path).send(Request("GET", "/x"))
    assert replayed.body == (b'{"a": 1.50, "b": []}' if written[0] == "json" else body)


async def test_a_short_download_is_written_whole_and_a_long_one_by_its_size(path: Path) -> None:
    bodies = {"/short": b"line\n" * 10, "/long": b"x" * (LONGEST_DOWNLOAD_BYTES + 1)}
    recorder = Recorder(Served(lambda request: Pieces(*_cut(bodies[request.path]))), path)
    for name, body in bodies.items():
        assert b"".join(await read_all(await recorder.download(Request("GET", name)))) == body
    short, long = (line for line in lines_of(path) if line["kind"] == "end")
    assert (short["size"], short["text"]) == (50, "line\n" * 10)
    assert long["size"] == LONGEST_DOWNLOAD_BYTES + 1
    assert "text" not in long


def _cut(body: bytes) -> tuple[bytes, ...]:
    return tuple(body[at : at + 65536] for at in range(0, len(body), 65536))


async def test_a_stream_that_is_left_early_and_one_that_breaks(path: Path) -> None:
    lost = APIConnectionError("The connection broke", sent=True)
    recorder = Recorder(Served(lambda request: Pieces(b"data: 1\n\ndata: 2", lost)), path)
    left = await recorder.stream(Request("GET", "/left"))
    assert isinstance(left, ByteStream)
    await left.read()
    await left.aclose()
    await left.aclose()
    with pytest.raises(APIConnectionError):
        await read_all(await recorder.stream(Request("GET", "/broken")))
    assert [(line["n"], line["kind"]) for line in lines_of(path)[1:]] == [
        (1, "request"), (1, "opened"), (1, "event"), (1, "event"), (1, "left"),
        (2, "request"), (2, "opened"), (2, "event"), (2, "event"), (2, "error"),
    ]  # fmt: skip


# Trouble with the file


def _raise(body: bytes) -> bytes:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("trouble", ["full", "redact"])
async def test_requests_go_on_if_a_line_cannot_be_written(
    trouble: str, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(InMemoryTransport(), path, redact=_raise if trouble == "redact" else None)
    if trouble == "full":
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, recorder._file._descriptor)
        os.close(full)
    with caplog.at_level(logging.WARNING, "asyncruns.testing"):
        async with Client(transport=recorder) as client:
            assert isinstance(await client.run(model="gpt-4o", message="Hello"), Completed)
    (warning,) = caplog.messages
    assert str(path) in warning
    assert "Requests go on" in warning
    assert "Hello" not in warning


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (r'{"headers": {"X-A": "4711}{\"4711"}, "x": 1}', '{"headers": {"***": "***"}, "x": 1}'),
        ('{"server_url": "https://mcp.example/s/4711/mcp?k=4711"}', '{"server_url": "https://mcp.example/***"}'),
        (r'{"server_url":"https:\/\/a:4711@mcp.example:8\/"}', '{"server_url":"https://mcp.example:8/***"}'),
        ('{"server_url": "https://mcp.example"}', '{"server_url": "https://mcp.example"}'),
        ('{"server_url": "http://[4711"}', '{"server_url": "***"}'),
        (
            '{"authorization": "4711", "require_approval": "never"}',
            '{"authorization": "***", "require_approval": "never"}',
        ),
        ('{"headers": null, "url": "https://example/4712"}', '{"headers": null, "url": "https://example/4712"}'),
    ],
)
def test_what_authenticates_at_an_mcp_server_is_left_out(written: str, kept: str) -> None:
    assert without_secret_fields(written.encode()) == kept.encode()
    assert without_secret_fields(kept.encode()) == kept.encode()
