"""Both ways into the emulator for tests of files and batches: the same requests over a socket and in memory."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from asyncruns.http import Request, Upload, query_of
from asyncruns.testing import Emulator, InMemoryTransport

CHAT = "/v1/chat/completions"
VERSION = {"anthropic-version": "2023-06-01"}
BOUNDARY = "a-boundary"


@dataclass(frozen=True)
class Answer:
    """An answer as a test reads it; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def lines(self) -> list[Any]:
        return [msgspec.json.decode(line) for line in self.body.splitlines()]

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])


class Held(Upload):
    """An upload from memory, in two pieces."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self.size, self.content_type = len(body), content_type
        self._body = body

    async def open(self) -> AsyncGenerator[bytes]:
        half = len(self._body) // 2
        yield self._body[:half]
        yield self._body[half:]


class Door:
    """Sends requests to a server, and knows the operations that tests need most."""

    def __init__(self, server: Emulator | InMemoryTransport, session: aiohttp.ClientSession | None) -> None:
        self.server = server
        self._session = session

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        upload: Upload | None = None,
        **query: Any,
    ) -> Answer:
        headers = {**(headers or {}), **(VERSION if path.startswith("/messages/") else {})}
        raw = None if body is None else msgspec.json.encode(body)
        if self._session is None:
            assert isinstance(self.server, InMemoryTransport)
            request = Request(method, path, query_of(query.items()), raw, tuple(headers.items()), upload=upload)
            response = await self.server.send(request)
            return Answer(response.status, response.headers, response.body)
        assert isinstance(self.server, Emulator)
        if upload is not None:
            raw, headers["Content-Type"] = b"".join([piece async for piece in upload.open()]), upload.content_type
        url, data = self.server.base_url + path, None if raw is None else io.BytesIO(raw)
        async with self._session.request(
            method, url, data=data, headers=headers, params=query_of(query.items())
        ) as got:
            return Answer(got.status, got.headers, await got.read())

    async def upload(self, content: bytes, *, filename: str = "in.jsonl", **fields: str) -> Answer:
        body = form_of(content, filename, {"purpose": "batch", **fields})
        return await self.ask("POST", "/files", upload=Held(body, f"multipart/form-data; boundary={BOUNDARY}"))

    async def begin(self, content: bytes, **parameters: Any) -> str:
        """Upload a file and create a batch of it; return the batch's id."""
        file_id = (await self.upload(content)).json["id"]
        given = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", **parameters}
        answer = await self.ask("POST", "/batches", given)
        assert answer.status == 200, answer.body
        return str(answer.json["id"])

    async def batch(self, batch_id: str) -> dict[str, Any]:
        return dict((await self.ask("GET", f"/batches/{batch_id}")).json)

    async def ended(self, batch_id: str, seconds: float = 10.0) -> dict[str, Any]:
        """Return the batch after some seconds."""
        await asyncio.sleep(seconds)
        return await self.batch(batch_id)

    async def results(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the lines of the output file and of the error file, by custom ids."""
        both = []
        for name in ("output_file_id", "error_file_id"):
            answer = await self.ask("GET", f"/files/{batch[name]}/content") if batch[name] else None
            both.append({} if answer is None else {line["custom_id"]: line for line in answer.lines})
        return both[0], both[1]

    async def begin_messages(self, *custom_ids: str, **params: Any) -> str:
        requests = [{"custom_id": custom_id, "params": message_params(custom_id, **params)} for custom_id in custom_ids]
        answer = await self.ask("POST", "/messages/batches", {"requests": requests})
        assert answer.status == 200, answer.body
        return str(answer.json["id"])

    async def message_batch(self, batch_id: str) -> dict[str, Any]:
        return dict((await self.ask("GET", f"/messages/batches/{batch_id}")).json)


@asynccontextmanager
async def opened(kind: str, **options: Any) -> AsyncIterator[Door]:
    """Open a door, "socket" or "memory", to a new server."""
    if kind == "memory":
        yield Door(InMemoryTransport(**options), None)
        return
    async with Emulator(**options) as server, aiohttp.ClientSession() as session:
        yield Door(server, session)


def form_of(content: bytes, filename: str, fields: Mapping[str, str]) -> bytes:
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    head = f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\nContent-Type: text/plain\r\n\r\n'
    parts.append(head.encode() + content)
    return b"".join(f"--{BOUNDARY}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


def line_of(custom_id: str, url: str = CHAT, **body: Any) -> bytes:
    given = {"model": "m", "messages": [{"role": "user", "content": custom_id}], **body}
    return msgspec.json.encode({"custom_id": custom_id, "method": "POST", "url": url, "body": given}) + b"\n"


def lines_of(count: int) -> bytes:
    return b"".join(line_of(f"r-{number}") for number in range(count))


def message_params(said: str, **params: Any) -> dict[str, Any]:
    return {"model": "claude", "max_tokens": 10, "messages": [{"role": "user", "content": said}], **params}


def only(items: Iterable[Any]) -> Any:
    (item,) = items
    return item
