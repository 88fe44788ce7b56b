"""Requests for a stream, and answers that are one, also where a server's answer does not look like one.

Some servers ignore `stream=True`, and what was asked for has begun all the same: their answer is the run. Some say
`application/json` over events, or `text/event-stream` over JSON. So what a body is, its first characters say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from asyncruns.abc import ByteStream
from asyncruns.http import Request, Response
from asyncruns.sse import EVENT_STREAM, BodyKind, body_kind
from asyncruns.wire.codec import encode, parse


class WholeBody(ByteStream):
    """A body that came whole, as a stream of bytes."""

    def __init__(self, response: Response) -> None:
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        self.redact: Callable[[bytes], bytes] | None = response.redact
        self._body = response.body

    async def read(self) -> bytes:
        body, self._body = self._body, b""
        return body

    async def aclose(self) -> None:
        self._body = b""


def accepting(request: Request) -> Request:
    """Return the request with a header that asks for a stream, unless the caller gave another."""
    if any(name.lower() == "accept" for name, _ in request.headers):
        return request
    return replace(request, headers=(*request.headers, ("Accept", EVENT_STREAM)))


def asking(request: Request) -> Request:
    """Return the request with what asks for a stream in its body and its headers."""
    body = {**parse(request.body or b"{}"), "stream": True}
    return accepting(replace(request, body=encode(body)))


def events_of(response: Response) -> ByteStream | None:
    """Return the events in an answer that came whole, or None if it is something else."""
    return WholeBody(response) if body_kind(response.body) is BodyKind.EVENTS else None


def object_of(response: Response) -> ByteStream | None:
    """Return an answer that is an object of the API, which has an id, as a stream of bytes; else None."""
    try:
        found = parse(response.body)
    except (ValueError, RecursionError):
        return None
    has_id = isinstance(found, dict) and isinstance(found.get("id"), str) and bool(found["id"])
    return WholeBody(response) if has_id else None
