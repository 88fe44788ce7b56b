"""Builds requests for a stream, and recognises responses that are one.

Some servers ignore `stream=True` and answer with the run, which has been started nevertheless. Some label events as
`application/json`, or JSON as `text/event-stream`. So the first characters of a body decide what it is, never its
content type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from asyncruns.abc import ByteStream
from asyncruns.http import Request, Response
from asyncruns.sse import EVENT_STREAM, BodyKind, body_kind
from asyncruns.wire.codec import encode, parse


class WholeBody(ByteStream):
    """A body that is complete already, as a stream of bytes."""

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
    """Return the request with an `Accept` header for a stream, unless the caller set one."""
    if any(name.lower() == "accept" for name, _ in request.headers):
        return request
    return replace(request, headers=(*request.headers, ("Accept", EVENT_STREAM)))


def asking(request: Request) -> Request:
    """Return the request with `"stream": true` in its body and an `Accept` header for a stream."""
    body = {**parse(request.body or b"{}"), "stream": True}
    return accepting(replace(request, body=encode(body)))


def events_of(response: Response) -> ByteStream | None:
    """Return a complete response as a stream of bytes if it consists of events; otherwise None."""
    return WholeBody(response) if body_kind(response.body) is BodyKind.EVENTS else None


def object_of(response: Response) -> ByteStream | None:
    """Return a complete response as a stream of bytes if it is a JSON object with an id; otherwise None."""
    try:
        found = parse(response.body)
    except (ValueError, RecursionError):
        return None
    has_id = isinstance(found, dict) and isinstance(found.get("id"), str) and bool(found["id"])
    return WholeBody(response) if has_id else None
