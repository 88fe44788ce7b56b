"""Opens streams, also where a server answers with something that only looks like none.

Some servers ignore `stream=True`, and what was asked for has begun all the same: their answer is the run. Some say
`application/json` over events, or `text/event-stream` over JSON. So what a body is, its first characters say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from asyncruns.abc import ByteStream
from asyncruns.dialects.errors import bad_answer
from asyncruns.errors import InvalidRequestError
from asyncruns.http import Request, Response
from asyncruns.sse import EVENT_STREAM, BodyKind, body_kind
from asyncruns.wire.codec import parse

if TYPE_CHECKING:
    from asyncruns.resources.base import Resource


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


async def open_stream(resource: Resource, request: Request) -> ByteStream:
    """Send a request that asks for a stream, and return the stream.

    Where the server answers with the object itself, the stream has one event, which holds that.

    Raises:
        APIStatusError: The server refused.
        APIResponseValidationError: It answered with something else; what was asked for may be done.
    """
    if resource._raw:
        raise InvalidRequestError("with_raw_response gives whole answers; leave it out for stream=True")
    answer = await resource._server.transport.stream(accepting(request))
    if isinstance(answer, ByteStream):
        return answer
    if answer.status >= 300:
        raise resource._error(request, answer)
    if body_kind(answer.body) is BodyKind.EVENTS or holds_an_object(answer.body):
        return WholeBody(answer)
    raise bad_answer(request, answer, ValueError("no stream of events"))


def holds_an_object(body: bytes) -> bool:
    """Tell whether a body is an object of the API, which has an id."""
    try:
        found = parse(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get("id"), str) and bool(found["id"])


def accepting(request: Request) -> Request:
    """Return the request with a header that asks for a stream, unless the caller gave another."""
    if any(name.lower() == "accept" for name, _ in request.headers):
        return request
    return replace(request, headers=(*request.headers, ("Accept", EVENT_STREAM)))
