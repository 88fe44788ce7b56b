"""The events of a run as they happen: https://platform.openai.com/docs/api-reference/assistants-streaming

Reading is the only thing that moves the stream: nothing runs in the background, and who reads slowly slows the server.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

import anyio
from msgspec.structs import replace

from asyncruns.abc import ByteStream, RunEvents
from asyncruns.accumulator.runs import RunAccumulator
from asyncruns.dialects.errors import bad_answer
from asyncruns.errors import APIConnectionError, APIError, EventTooLargeError, InvalidRequestError
from asyncruns.http import Request, request_id, server_time
from asyncruns.resources.looks import extended
from asyncruns.sse import Decoder, ServerSentEvent
from asyncruns.wire import Message, Run, RunStep, Thread
from asyncruns.wire.codec import encode, parse
from asyncruns.wire.common import ErrorObject
from asyncruns.wire.stream_events import (
    DoneEvent,
    ErrorEvent,
    MessageDeltaEvent,
    RunEvent,
    ThreadStreamEvent,
    UndecodableEvent,
    UnknownEvent,
    decode_thread_event,
)
from asyncruns.wire.visible import on_one_line

if TYPE_CHECKING:
    from asyncruns.resources.base import Resource

R = TypeVar("R")
E = TypeVar("E")
_OF_THE_STREAM: Final[frozenset[object]] = frozenset({DoneEvent, ErrorEvent, UndecodableEvent})

EVENT_STREAM: Final = "text/event-stream"
_END_GRACE_S: Final = 0.25  # for the connection's end to follow the stream's, so that it can be used again


async def open_stream(resource: Resource, request: Request) -> ByteStream:
    """Send a request that asks for a stream, and give it.

    Raises:
        APIStatusError: The server refused.
        APIResponseValidationError: It answered with something else; what was asked for may be done.
    """
    if resource._raw:
        raise InvalidRequestError("with_raw_response gives whole answers; leave it out for stream=True")
    answer = await resource._server.transport.stream(_accepting(request))
    if isinstance(answer, ByteStream):
        return answer
    if answer.status < 300:
        raise bad_answer(request, answer, ValueError("no stream of events"))
    raise resource._error(request, answer)


def _accepting(request: Request) -> Request:
    if any(name.lower() == "accept" for name, _ in request.headers):
        return request
    return replace(request, headers=(*request.headers, ("Accept", EVENT_STREAM)))


class EventStream(RunEvents[R], Generic[R, E]):
    """What the streams of both wires have in common. For one reader; to be closed, or used with `async with`.

    Attributes:
        error: What the server said when it gave the stream up, or None.
        is_done: Whether the server said that the stream is over. Some never say it.
        request_id: What names the exchange to the server's operators, or "".
    """

    def __init__(self, request: Request, body: ByteStream) -> None:
        self._is_claimed = False
        self._begin(request, body)

    def _begin(self, request: Request, body: ByteStream) -> None:
        self.error: ErrorObject | None = None
        self.is_done: bool = False
        self.request_id: str = request_id(body.headers)
        self.redact: Callable[[bytes], bytes] | None = body.redact
        self._request = request
        self._body = body
        self._decoder = Decoder()
        self._ready: deque[ServerSentEvent] = deque()
        self._is_over = False
        told = server_time(body.headers)
        self._server_epoch = None if told is None else told - asyncio.get_running_loop().time()

    @abstractmethod
    def _decoded(self, name: str, text: str) -> E:
        """Give the typed event, having taken notice of it."""

    @abstractmethod
    def _next_step(self) -> str:
        """Say what to do when the stream has broken."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """Give the next event.

        Safe to cancel: no event is lost, and what the stream tells of goes on at the server.

        Raises:
            APIConnectionError: The stream broke; what it told of goes on at the server.
            APITimeoutError: No byte came within the request's timeout; as above.
            EventTooLargeError: An event is larger than what is taken; as above.
            InvalidRequestError: A watch reads the stream; see `RunWatcher.stream_events`.
        """
        if self._is_claimed:
            raise InvalidRequestError(
                "A watch reads this stream: iterate over watcher.text_deltas(), or watcher.stream_events()"
            )
        if not self._ready and not await self._has_more():
            raise StopAsyncIteration
        return self._next()

    async def next_event(self) -> E | None:
        return self._next() if self._ready or await self._has_more() else None

    async def _has_more(self) -> bool:
        """Wait until there is an event, or there will be none."""
        while not self._ready:
            if self._is_over or self.is_done:
                await self._finish()
                return False
            await self._fetch()
        return True

    def _next(self) -> E:
        sent = self._ready.popleft()
        event = self._decoded(sent.event, sent.data)
        return self._noted(sent, event) if type(event) in _OF_THE_STREAM else event

    def _noted(self, sent: ServerSentEvent, event: E) -> E:
        if isinstance(event, DoneEvent):
            self.is_done = True
            self._ready.clear()
            return event
        event = self._redacted(sent, event)
        if isinstance(event, ErrorEvent):
            self.error = event.data
        return event

    def _redacted(self, sent: ServerSentEvent, event: E) -> E:
        """Take our credentials out of what may be shown."""
        if self._body.redact is None:
            return event
        text = self._body.redact(sent.data.encode("utf-8", "replace")).decode("utf-8", "replace")
        return event if text == sent.data else self._decoded(sent.event, text)

    async def _fetch(self) -> None:
        try:
            data = await self._body.read()
            self._ready.extend(self._decoder.feed(data) if data else self._decoder.close())
        except APIConnectionError as error:
            self._is_over = True
            extended(error, self._next_step())
            raise
        except EventTooLargeError as error:
            self._is_over = True
            await self._body.aclose()
            error.method, error.path, error.request_id = self._request.method, self._request.path, self.request_id
            if self._body.redact is not None:
                error.body = self._body.redact(error.body)
            extended(error, f"({error.method} {error.path}). {self._next_step()}")
            raise
        self._is_over = not data

    async def _finish(self) -> None:
        if self.is_done and not self._is_over:
            # What follows is nobody's; but a connection that is read to its end serves the next request.
            with anyio.move_on_after(_END_GRACE_S):
                try:
                    while await self._body.read():
                        pass
                except APIConnectionError:
                    pass
        await self.close()

    async def close(self) -> None:
        """Stop reading; iterating ends then. May be called twice.

        What the stream tells of goes on at the server: cancel it there if nobody wants it.
        """
        self._is_over = True
        self._ready.clear()
        await self._body.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _check_error(self, event: E) -> None:
        """Raise what an iterator over pieces can't give as an event."""
        error = self.error_in(event)
        if error is not None:
            raise error

    # What a watch needs

    @property
    def server_time(self) -> float | None:
        return None if self._server_epoch is None else self._server_epoch + asyncio.get_running_loop().time()

    def claim(self) -> None:
        if self._is_claimed:
            raise InvalidRequestError("Another watch reads this stream; watch its run by its ids, without the stream")
        self._is_claimed = True

    def is_known(self, event: object) -> bool:
        return not isinstance(event, UnknownEvent | UndecodableEvent)

    def error_in(self, event: object) -> APIError | None:
        if not isinstance(event, ErrorEvent):
            return None
        said = event.data.message or event.data.code or "no details"
        method, path = self._request.method, self._request.path
        message = f"The server gave up the stream of {method} {path}: {said}. {self._next_step()}"
        return APIError(on_one_line(message), method=method, path=path)

    def untold(self) -> APIError:
        method, path = self._request.method, self._request.path
        message = f"The stream of {method} {path} ended, or fell silent, before it told of a run. {self._next_step()}"
        return APIConnectionError(message, sent=True, method=method, path=path)

    def asking(self, request: Request) -> Request:
        body = {**parse(request.body or b"{}"), "stream": True}
        return _accepting(replace(request, body=encode(body)))

    def go_on(self, request: Request, body: ByteStream) -> None:
        self._begin(request, body)


class RunStream(EventStream[Run, ThreadStreamEvent]):
    """The events of a run, one by one: `async for event in stream`; see `asyncruns.wire` for what they are.

    An event's data counts, not its name: the run is over when `run.status` says so. A stream ends when the run waits
    for outputs; submitting these with `stream=True` gives the next stream. It may also end too early, without a word,
    or after an `ErrorEvent`: then retrieve the run, or watch it. A stream that breaks raises.
    """

    dialect: str = "thread.run"

    def __init__(self, request: Request, body: ByteStream, *, run_id: str = "", thread_id: str = "") -> None:
        super().__init__(request, body)
        self._told = RunAccumulator()
        self._run_id = run_id
        self._thread_id = thread_id

    def _decoded(self, name: str, text: str) -> ThreadStreamEvent:
        event = decode_thread_event(name, text)
        self._told.receive(event)
        return event

    def _next_step(self) -> str:
        run_id = self.run.id if self.run else self._run_id
        thread_id = (self.run.thread_id if self.run else "") or self._thread_id
        if not run_id:
            where = f" on the thread {thread_id}" if thread_id else ""
            return f"The run may exist and go on{where}: list the runs there before creating another."
        return (
            f"The run {run_id} goes on at the server: watch it with client.watch(thread_id=..., run_id=...), or "
            "retrieve it."
        )

    @property
    def run(self) -> Run | None:
        """The run as last seen, or None."""
        return self._told.run

    @property
    def thread(self) -> Thread | None:
        """The thread, where it was created together with the run, or None."""
        return self._told.thread

    @property
    def message(self) -> Message | None:
        """The message that is being written, or was last, with all its deltas so far; or None."""
        return self._told.message

    @property
    def messages(self) -> list[Message]:
        """All messages so far, with all their deltas."""
        return self._told.messages

    @property
    def step(self) -> RunStep | None:
        """The step that the last event about a step was of, with all its deltas so far; or None."""
        return self._told.step

    @property
    def steps(self) -> list[RunStep]:
        """All steps so far, with all their deltas."""
        return self._told.steps

    async def text_deltas(self) -> AsyncIterator[str]:
        """Give the pieces of the text as they come, and pass over all else.

        Raises:
            APIError: The server gave up the stream with an error, or the stream broke.
        """
        async for event in self:
            if isinstance(event, MessageDeltaEvent):
                if text := event.data.text:
                    yield text
            else:
                self._check_error(event)

    @property
    def resource(self) -> Run | None:
        return self._told.run

    def run_in(self, event: object) -> Run | None:
        return event.data if isinstance(event, RunEvent) else None

    def text_in(self, event: object) -> str:
        return event.data.text if isinstance(event, MessageDeltaEvent) else ""

    def __repr__(self) -> str:
        status = self.run.status if self.run else "nothing seen"
        return f"<RunStream {self.run.id if self.run else self._run_id or '?'} {status}>"
