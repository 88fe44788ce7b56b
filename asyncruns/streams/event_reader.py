"""Reads the body of one answer as server-sent events, also where the server sends JSON in their place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio

from asyncruns.abc import ByteStream
from asyncruns.errors import SHOWN_BODY_CHARACTERS, APIConnectionError, APIResponseValidationError, EventTooLargeError
from asyncruns.http import Request, request_id, server_time
from asyncruns.sse import MAX_EVENT_BYTES, BodyKind, Decoder, ServerSentEvent, body_kind
from asyncruns.wire.codec import parse
from asyncruns.wire.visible import visible


class EventReader:
    """The server-sent events in the body of one answer. What they mean, it does not know.

    Args:
        request: The request that was answered.
        body: The body of the answer.
        event_of: Returns the event that says what an object of the API says, from its text and its fields.

    Attributes:
        request: As given.
        request_id: What names the exchange to the server's operators, or "".
        redact: Takes the credentials out of what is to be shown; None where there is nothing to take out.
        is_streamed: Whether the body is events, as far as is known; else it is JSON.
        is_over: Whether nothing more can come: the body has ended, broke, or was closed.
    """

    def __init__(
        self, request: Request, body: ByteStream, event_of: Callable[[str, dict[str, Any]], ServerSentEvent]
    ) -> None:
        self.request: Request = request
        self.request_id: str = request_id(body.headers)
        self.redact: Callable[[bytes], bytes] | None = body.redact
        self.is_streamed: bool = True
        self.is_over: bool = False
        self._body = body
        self._event_of = event_of
        self._start: bytes | None = b""  # of the body; None when it is known to be events
        self._decoder = Decoder()
        told = server_time(body.headers)
        self._server_epoch = None if told is None else told - asyncio.get_running_loop().time()

    @property
    def server_time(self) -> float | None:
        """The server's clock now, in seconds of its epoch, by the answer's headers; None where they lack it."""
        return None if self._server_epoch is None else self._server_epoch + asyncio.get_running_loop().time()

    async def read(self) -> list[ServerSentEvent]:
        """Wait for more of the body, and return the events that it completes.

        Safe to cancel: no event is lost.

        Raises:
            APIConnectionError: The body broke off.
            EventTooLargeError: An event is larger than what is taken; the body is closed.
        """
        try:
            data = await self._body.read()
            events = self._events_in(data)
        except APIConnectionError:
            self.is_over = True
            raise
        except EventTooLargeError as error:
            refusal = error
        else:
            self.is_over = not data
            return events
        await self.close()
        raise self._located(refusal)  # outside of `except`: what is chained to it would show the body as it came

    async def drain(self, within: float) -> None:
        """Read the body to its end, for at most so many seconds, and drop what comes. Does not raise.

        A connection that is read to its end serves the next request.
        """
        with anyio.move_on_after(within):
            try:
                while await self._body.read():
                    pass
            except APIConnectionError:
                pass

    def abandon(self) -> None:
        """Note that no more is wanted, since the body is not what it should be; `close` is still to be called."""
        self.is_over = True

    async def close(self) -> None:
        """Stop reading. May be called twice."""
        self.is_over = True
        await self._body.aclose()

    def bad_event(self, sent: ServerSentEvent, message: str) -> APIResponseValidationError:
        """Return the error for an event that must not have come."""
        return APIResponseValidationError(
            message,
            status=self._body.status,
            body=self._redacted(sent.data.encode("utf-8", "replace")[:SHOWN_BODY_CHARACTERS]),
            request_id=self.request_id,
            method=self.request.method,
            path=self.request.path,
        )

    def _located(self, error: EventTooLargeError) -> EventTooLargeError:
        """Return the error of the decoder with what it cannot know: which exchange the event was of."""
        method, path = self.request.method, self.request.path
        return EventTooLargeError(
            f"{error.message}{visible(f' ({method} {path}).')}",
            status=error.status,
            body=self._redacted(error.body),
            request_id=self.request_id,
            method=method,
            path=path,
        )

    def _redacted(self, body: bytes) -> bytes:
        return body if self.redact is None else self.redact(body)

    def _events_in(self, data: bytes) -> list[ServerSentEvent]:
        """Return the events that bytes complete; b"" is the end of the body."""
        if self._start is None:
            return self._decoder.feed(data) if data else self._decoder.close()
        self._start += data
        kind = body_kind(self._start)
        if data and len(self._start) <= MAX_EVENT_BYTES:
            if kind is None:
                return []
            if kind is BodyKind.JSON and not self._start.rstrip().endswith((b"}", b"]")):
                return []
        if kind is BodyKind.JSON and (event := self._object_in(self._start, is_over=not data)) is not None:
            self.is_streamed = False
            return [event]
        if kind is BodyKind.JSON and len(self._start) <= MAX_EVENT_BYTES:
            return []
        start, self._start = self._start, None
        return self._decoder.feed(start) + ([] if data else self._decoder.close())

    def _object_in(self, body: bytes, *, is_over: bool) -> ServerSentEvent | None:
        """Return the event for a body that is JSON, though events were to come; None if the rest is missing yet."""
        text = body.decode("utf-8", "replace").strip().removeprefix("\ufeff")
        try:
            found = parse(text.encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return ServerSentEvent("message", text) if is_over else None
        is_object = isinstance(found, dict) and isinstance(found.get("id"), str) and "status" in found
        return self._event_of(text, found) if is_object else ServerSentEvent("message", text)
