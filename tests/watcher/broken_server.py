"""A server of one background response whose streams break, and are reopened as the test specifies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from asyncruns.abc import ByteStream, Transport
from asyncruns.errors import APIConnectionError
from asyncruns.http import Request, Response

PIECES: Final = ("One ", "two ", "three ", "four ", "five.")
TEXT: Final = "".join(PIECES)
Events = list[dict[str, Any]]
BREAK: Final = None
"""In place of an event: the connection breaks."""


def response(status: str, text: str | None = None, **fields: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text}]
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
    output = [] if text is None else [message]
    return {"id": "resp_1", "object": "response", "status": status, "background": True, "output": output, **fields}


def events_of(pieces: Sequence[str] = PIECES, *, numbered: bool = True, response_id: str = "resp_1") -> Events:
    """Return the events of the stream of a response, from its beginning to its end."""
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
    found: Events = [
        {"type": "response.created", "response": response("queued", id=response_id)},
        {"type": "response.in_progress", "response": response("in_progress", id=response_id)},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *({"type": "response.output_text.delta", **place, "delta": piece} for piece in pieces),
        {"type": "response.output_text.done", **place, "text": "".join(pieces)},
        {"type": "response.completed", "response": response("completed", "".join(pieces), id=response_id)},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(found)] if numbered else found


class Body(ByteStream):
    """Returns one event for each read."""

    def __init__(self, events: Sequence[dict[str, Any] | None], pause: float = 0.01) -> None:
        self.status = 200
        self.headers: Mapping[str, str] = {}
        self._events = list(events)
        self._pause = pause

    async def read(self) -> bytes:
        await asyncio.sleep(self._pause)
        if not self._events:
            return b""
        event = self._events.pop(0)
        if event is None:
            self._events.clear()
            raise APIConnectionError("the connection broke", sent=True)
        return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()

    async def aclose(self) -> None:
        self._events.clear()


def answer(status: int, body: object) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {"content-type": "application/json"}, data)


Reopen = Callable[[str, int | None], Any]
"""Called with the path and the sequence number; returns events, an answer, or an exception to raise."""


class BrokenServer(Transport):
    """Streams the response until the stream breaks; the response ends after `lasts` seconds.

    Attributes:
        reopened: The path and the sequence number of each request to reopen the stream.
        polls: Number of polls.
    """

    def __init__(
        self, first: Sequence[dict[str, Any] | None], reopen: Reopen, *, lasts: float = 4.0, text: str = TEXT
    ) -> None:
        self.first, self._reopen, self._lasts, self._text = first, reopen, lasts, text
        self.reopened: list[tuple[str, int | None]] = []
        self.polls = 0
        self._began = 0.0

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def send(self, request: Request) -> Response:
        await asyncio.sleep(0.01)
        assert (request.method, request.path) == ("GET", "/responses/resp_1")
        self.polls += 1
        has_ended = self._now() - self._began >= self._lasts
        return answer(200, response("completed", self._text) if has_ended else response("in_progress"))

    async def stream(self, request: Request) -> Response | ByteStream:
        await asyncio.sleep(0.01)
        if request.method == "POST":
            self._began = self._now()
            return Body(self.first)
        query = dict(request.query)
        after = int(query["starting_after"]) if "starting_after" in query else None
        assert (query.get("stream") == "true") is not request.path.endswith("/events")
        self.reopened.append((request.path, after))
        found = self._reopen(request.path, after)
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, Response | ByteStream) else Body(found)

    async def aclose(self) -> None:
        pass
