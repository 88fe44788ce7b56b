"""Reads the body of one response as server-sent events, even if the server sends JSON instead.

It splits a body into events and never interprets them; an error it raises names the request, and never shows a
credential.
"""

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
from asyncruns.wire.shown_text import visible


class EventReader:
    """The server-sent events in the body of one response.

    Args:
        request: The request that was answered.
        body: The body of the response.
        event_of: Returns the event that is equivalent to a JSON object of the API, from its text and its fields.

    Attributes:
        request: The request that was answered.
        request_id: The id by which the server's operators can find the exchange, or "".
        redact: Removes credentials from bytes that are to be shown; None if there are none to remove.
        is_streamed: False once the body turned out to be JSON.
        is_over: Whether nothing more can arrive: the body ended, broke, or was closed.
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
        self._start: bytes | None = b""  # of the body, until its kind is known; None once it is read as events
        self._decoder = Decoder()
        sent_at = server_time(body.headers)
        # The server's time at zero of the loop's clock: the wall clock of this machine may be wrong.
        self._server_epoch = None if sent_at is None else sent_at - asyncio.get_running_loop().time()

    @property
    def server_time(self) -> float | None:
        """The server's current time in seconds of the epoch, from the response's `Date`; None if it has none."""
        return None if self._server_epoch is None else self._server_epoch + asyncio.get_running_loop().time()

    async def read(self) -> list[ServerSentEvent]:
        """Wait for the next bytes of the body, and return the events that they complete, if any.

        Safe to cancel: no event is lost.

        Raises:
            APIConnectionError: The body broke off.
            EventTooLargeError: An event has more than 16 MiB; the body is closed.
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
        raise self._located(refusal)  # outside `except`: a chained exception would show the body with its credentials

    async def drain(self, within: float) -> None:
        """Read and discard the rest of the body, for at most `within` seconds. Does not raise.

        A connection whose body was read to its end can be used for the next request.
        """
        with anyio.move_on_after(within):
            try:
                while await self._body.read():
                    pass
            except APIConnectionError:
                pass

    def abandon(self) -> None:
        """Mark the body as over, since it is not what it should be. `close` must still be called."""
        self.is_over = True

    async def close(self) -> None:
        """Stop reading. May be called twice."""
        self.is_over = True
        await self._body.aclose()

    def bad_event(self, sent: ServerSentEvent, message: str) -> APIResponseValidationError:
        """Return the error for an event that must not be in this stream."""
        return APIResponseValidationError(
            message,
            status=self._body.status,
            body=self._redacted(sent.data.encode("utf-8", "replace")[:SHOWN_BODY_CHARACTERS]),
            request_id=self.request_id,
            method=self.request.method,
            path=self.request.path,
        )

    def _located(self, error: EventTooLargeError) -> EventTooLargeError:
        """Return the decoder's error with the request and its id, which the decoder does not know."""
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
        """Return the events that `data` completes; b"" is the end of the body."""
        if self._start is None:
            return self._decoder.feed(data) if data else self._decoder.close()
        self._start += data
        kind = body_kind(self._start)
        # A server may keep the connection open after a JSON body, so its end shows only in the text. That is parsed
        # when it ends in a bracket, which may be an inner one, and not after each read.
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
        # Events, or something else: the decoder takes both, and limits the size.
        start, self._start = self._start, None
        return self._decoder.feed(start) + ([] if data else self._decoder.close())

    def _object_in(self, body: bytes, *, is_over: bool) -> ServerSentEvent | None:
        """Return the event for a body that is JSON instead of events; None if it is not complete yet."""
        text = body.decode("utf-8", "replace").strip().removeprefix("\ufeff")
        try:
            found = parse(text.encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return ServerSentEvent("message", text) if is_over else None
        # Any other object, such as an error, is passed on as an event without a name, and decoded like one.
        is_object = isinstance(found, dict) and isinstance(found.get("id"), str) and "status" in found
        return self._event_of(text, found) if is_object else ServerSentEvent("message", text)
