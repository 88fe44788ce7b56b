"""The events of a run as they happen: https://platform.openai.com/docs/api-reference/assistants-streaming

Reading is the only thing that moves the stream: nothing runs in the background, and who reads slowly slows the server.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

import anyio
from msgspec.structs import replace

from asyncruns.abc import ByteStream, RunEvents
from asyncruns.errors import (
    SHOWN_BODY_CHARACTERS,
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    EventTooLargeError,
    InvalidRequestError,
)
from asyncruns.http import Request, Response, request_id, server_time
from asyncruns.sse import MAX_EVENT_BYTES, BodyKind, Decoder, ServerSentEvent, body_kind
from asyncruns.streams.opening import WholeBody, accepting
from asyncruns.streams.opening import open_stream as open_stream
from asyncruns.streams.run_accumulator import RunAccumulator
from asyncruns.wire import Message, Run, RunStep, Thread
from asyncruns.wire.codec import encode, parse
from asyncruns.wire.common import ErrorObject
from asyncruns.wire.deltas import MessageDelta, MessageDeltaFields, TextDelta, TextDeltaBlock
from asyncruns.wire.runs import COMPLETED, ENDED_STATUSES, REQUIRES_ACTION
from asyncruns.wire.stream_events import (
    DoneEvent,
    ErrorEvent,
    MessageDeltaEvent,
    MessageEvent,
    RunEvent,
    RunStepEvent,
    ThreadStreamEvent,
    UndecodableEvent,
    UnknownEvent,
    decode_thread_event,
)
from asyncruns.wire.visible import on_one_line, visible

R = TypeVar("R")
E = TypeVar("E")
_OF_THE_STREAM: Final[frozenset[object]] = frozenset(
    {DoneEvent, ErrorEvent, UndecodableEvent, RunEvent, RunStepEvent, MessageEvent}
)

_END_GRACE_S: Final = 0.25  # for what follows the run's end: `done`, and the connection's own end
_PAUSE_GRACE_S: Final = 1.0  # the same where the run waits for the caller, or after an error: more may follow


class EventStream(RunEvents[R], Generic[R, E]):
    """What the streams of both wires have in common. For one reader; to be closed, or used with `async with`.

    A stream ends with the event that tells of the run's end, also if the server leaves the connection open. Where a
    server answers with the run itself in place of a stream, there is one event, which holds that.

    Attributes:
        error: What the server said when it gave the stream up, or None.
        is_done: Whether the server said that the stream is over. Some never say it.
        is_whole: Whether the stream told all: the end of the run, or that it waits for the caller.
        request_id: What names the exchange to the server's operators, or "".
    """

    _of_the_stream: ClassVar[frozenset[object]] = _OF_THE_STREAM  # the events that tell of the stream or its run

    def __init__(self, request: Request, body: ByteStream, own_id: str = "") -> None:
        self._is_claimed = False
        self._own_id = own_id  # of what it tells of, as soon as that is known
        self._begin(request, body)

    def _begin(self, request: Request, body: ByteStream) -> None:
        self.error: ErrorObject | None = None
        self.is_done: bool = False
        self.is_whole: bool = False
        self.has_ended: bool = False
        self.is_streamed: bool = True
        self.request_id: str = request_id(body.headers)
        self.redact: Callable[[bytes], bytes] | None = body.redact
        self._request = request
        self._body = body
        self._start: bytes | None = b""  # of the body; None when it is known to be events
        self._decoder = Decoder()
        self._ready: deque[ServerSentEvent] = deque()
        self._is_over = False
        self._is_left = False  # by the caller
        self._grace: float | None = None  # for how many seconds more may follow what was told last
        self._grace_ends = math.inf
        told = server_time(body.headers)
        self._server_epoch = None if told is None else told - asyncio.get_running_loop().time()

    @abstractmethod
    def _decoded(self, name: str, text: str) -> E:
        """Return the typed event."""

    @abstractmethod
    def _take(self, event: E) -> E | None:
        """Take notice of an event; return it, or None if it brings nothing new."""

    @abstractmethod
    def _object_event(self, text: str, fields: dict[str, Any]) -> ServerSentEvent:
        """Return the event that tells what an object tells, which came in place of events."""

    @abstractmethod
    def _owner_in(self, event: E) -> str:
        """Return the id of the run that an event says it is of, or ""."""

    @abstractmethod
    def _status_in(self, event: E) -> str | None:
        """Return the status of the run, if the event tells that."""

    @abstractmethod
    def _done_is_the_end(self) -> bool:
        """Tell whether nothing is missing if the stream is over without the run's end."""

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
            APIResponseValidationError: An event is of another run than this; as above.
            EventTooLargeError: An event is larger than what is taken; as above.
            InvalidRequestError: A watch reads the stream; see `RunWatcher.stream_events`.
        """
        if self._is_claimed:
            raise InvalidRequestError(
                "A watch reads this stream: iterate over watcher.text_deltas(), or watcher.stream_events()"
            )
        while self._ready or await self._has_more():
            if (event := self._next()) is not None:
                return event
        raise StopAsyncIteration

    async def next_event(self) -> E | None:
        while self._ready or await self._has_more():
            if (event := self._next()) is not None:
                return event
        return None

    def _next(self) -> E | None:
        """Return the next event that is there, or None if it brings nothing new."""
        sent = self._ready.popleft()
        event = self._decoded(sent.event, sent.data)
        if type(event) in self._of_the_stream:
            noted = self._noted(sent, event)
            return None if noted is None else self._take(noted)
        if self._grace is not None:
            self._goes_on()
        return self._take(event)

    async def _has_more(self) -> bool:
        """Wait until there is an event, or there will be none."""
        while not self._ready:
            if self._is_over or self.is_done or not self.is_streamed or not await self._fetch_in_time():
                await self._finish()
                return False
        return True

    async def _fetch_in_time(self) -> bool:
        """Read on, after the run's end not for long; tell whether more may come."""
        if self._grace is None:
            await self._fetch()
            return True
        now = asyncio.get_running_loop().time()
        self._grace_ends = min(self._grace_ends, now + self._grace)
        with anyio.move_on_after(self._grace_ends - now):
            try:
                await self._fetch()
            except APIConnectionError:
                if not self.has_ended:
                    raise
            return True
        return False

    def _noted(self, sent: ServerSentEvent, event: E) -> E | None:
        """Take notice of what an event says of the stream itself; return it, or None if nobody is to see it."""
        if isinstance(event, DoneEvent):
            self.is_done = True
            self.is_whole = self.is_whole or self._done_is_the_end()
            self._ready.clear()
            return event
        event = self._redacted(sent, event)
        if isinstance(event, ErrorEvent):
            self.error = event.data
            self._grace = _PAUSE_GRACE_S if self._grace is None else self._grace
        owner = self._owner_in(event)
        if owner and self._own_id and owner != self._own_id:
            error = self._foreign(sent, owner)
            if not self.has_ended:
                raise error
            return None
        if (status := self._status_in(event)) is not None:
            self._own_id = owner or self._own_id
            self._told_status(status)
        return event

    def _told_status(self, status: str) -> None:
        if status in ENDED_STATUSES:
            self.is_whole = self.has_ended = True
            self._grace = _END_GRACE_S
        elif status == REQUIRES_ACTION and not self.has_ended:
            self.is_whole = True
            self._grace = _PAUSE_GRACE_S
        else:
            self._goes_on()

    def _goes_on(self) -> None:
        if not self.has_ended:
            self.is_whole, self._grace, self._grace_ends = False, None, math.inf

    def _foreign(self, sent: ServerSentEvent, owner: str) -> APIError:
        """Return the error for an event of another run, which a proxy may have mixed up; the stream is over."""
        self._is_over = True
        self._ready.clear()
        body = sent.data.encode("utf-8", "replace")[:SHOWN_BODY_CHARACTERS]
        method, path = self._request.method, self._request.path
        return APIResponseValidationError(
            f"The stream of {method} {path} told of {owner!r}, and not of {self._own_id!r} only. {self._next_step()}",
            status=self._body.status,
            body=body if self.redact is None else self.redact(body),
            request_id=self.request_id,
            method=method,
            path=path,
        )

    def _redacted(self, sent: ServerSentEvent, event: E) -> E:
        """Take our credentials out of what may be shown."""
        if self.redact is None or not isinstance(event, ErrorEvent | UndecodableEvent):
            return event
        text = self.redact(sent.data.encode("utf-8", "replace")).decode("utf-8", "replace")
        return event if text == sent.data else self._decoded(sent.event, text)

    async def _fetch(self) -> None:
        try:
            data = await self._body.read()
            self._ready.extend(self._events_in(data))
        except APIConnectionError as error:
            self._is_over = True
            error.extend(visible(self._next_step()))
            raise
        except EventTooLargeError as error:
            self._is_over = True
            await self._body.aclose()
            error.method, error.path, error.request_id = self._request.method, self._request.path, self.request_id
            if self.redact is not None:
                error.body = self.redact(error.body)
            error.extend(visible(f"({error.method} {error.path}). {self._next_step()}"))
            raise
        self._is_over = not data

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
        return self._object_event(text, found) if is_object else ServerSentEvent("message", text)

    async def _finish(self) -> None:
        if self.is_done and not self._is_over:
            # What follows is nobody's; but a connection that is read to its end serves the next request.
            with anyio.move_on_after(_END_GRACE_S):
                try:
                    while await self._body.read():
                        pass
                except APIConnectionError:
                    pass
        await self._shut()

    async def _shut(self) -> None:
        self._is_over = True
        self._ready.clear()
        await self._body.aclose()

    async def close(self) -> None:
        """Stop reading; iterating ends then. May be called twice.

        What the stream tells of goes on at the server: cancel it there if nobody wants it.
        """
        self._is_left = True
        await self._shut()

    async def text_deltas(self) -> AsyncIterator[str]:
        """Give the pieces of the text as they come, and pass over all else.

        What no piece told of and an event shows whole, such as the last one, comes as one more piece.

        Raises:
            APIError: The server gave up the stream with an error, or the stream broke or ended before the run did, so
                that the text may not be whole.
        """
        async for event in self:
            if text := self.text_in(event):
                yield text
            elif (rest := self.rest_in(event)) is not None:
                yield self.text_in(rest)
            else:
                self._check_error(event)
        self._check_whole()

    def _check_whole(self) -> None:
        """Check that nothing is missing of what was read to its end.

        Raises:
            APIConnectionError: The stream ended too early.
        """
        if self.is_whole or self._is_left:
            return
        method, path = self._request.method, self._request.path
        what = f"The stream of {method} {path} ended before it told of an end, so that its text may not be whole"
        if not self.is_streamed:
            what = f"The server answered {method} {path} with what has begun, and not with a stream"
        raise APIConnectionError(f"{what}. {self._next_step()}", sent=True, method=method, path=path)

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
        error = APIError(on_one_line(message), method=method, path=path)
        code = str(event.data.code) if event.data.code else None
        return error.classify(code=code, type=event.data.type or None, param=event.data.param or None)

    def untold(self) -> APIError:
        method, path = self._request.method, self._request.path
        message = f"The stream of {method} {path} ended, or fell silent, before it told of a run. {self._next_step()}"
        return APIConnectionError(message, sent=True, method=method, path=path)

    def asking(self, request: Request) -> Request:
        body = {**parse(request.body or b"{}"), "stream": True}
        return accepting(replace(request, body=encode(body)))

    def continue_with(self, request: Request, body: ByteStream) -> None:
        self._begin(request, body)

    def accepting(self, request: Request) -> Request:
        return accepting(request)

    def events_of(self, response: Response) -> ByteStream | None:
        return WholeBody(response) if body_kind(response.body) is BodyKind.EVENTS else None


class RunStream(EventStream[Run, ThreadStreamEvent]):
    """The events of a run, one by one: `async for event in stream`; see `asyncruns.wire` for what they are.

    An event's data counts, not its name: the run is over when `run.status` says so. A stream ends when the run waits
    for outputs; submitting these with `stream=True` gives the next stream. It may also end too early, without a word,
    or after an `ErrorEvent`: then retrieve the run, or watch it; `is_whole` tells, and `text_deltas` raises. A stream
    that breaks raises, and so does one with an event of another run.
    """

    dialect: str = "thread.run"

    needs_messages: bool = True

    def __init__(self, request: Request, body: ByteStream, *, run_id: str = "", thread_id: str = "") -> None:
        super().__init__(request, body, run_id)
        self._told = RunAccumulator()
        self._run_id = run_id
        self._thread_id = thread_id

    def _decoded(self, name: str, text: str) -> ThreadStreamEvent:
        return decode_thread_event(name, text)

    def _take(self, event: ThreadStreamEvent) -> ThreadStreamEvent:
        self._told.receive(event)
        return event

    def _object_event(self, text: str, fields: dict[str, Any]) -> ServerSentEvent:
        return ServerSentEvent(f"thread.run.{fields['status']}", text)

    def _owner_in(self, event: ThreadStreamEvent) -> str:
        if isinstance(event, RunEvent):
            return event.data.id
        return event.data.run_id or "" if isinstance(event, MessageEvent | RunStepEvent) else ""

    def _status_in(self, event: ThreadStreamEvent) -> str | None:
        return event.data.status if isinstance(event, RunEvent) else None

    def _done_is_the_end(self) -> bool:
        # Some servers do not tell of the run at all, or not of its end, but of that of its message.
        message = self.message
        return self.run is None or (message is not None and message.status == COMPLETED)

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

    @property
    def resource(self) -> Run | None:
        return self._told.run

    def run_in(self, event: object) -> Run | None:
        return event.data if isinstance(event, RunEvent) else None

    def text_in(self, event: object) -> str:
        return event.data.text if isinstance(event, MessageDeltaEvent) else ""

    def rest_in(self, event: object) -> MessageDeltaEvent | None:
        if not isinstance(event, MessageEvent) or event.data.role == "user":
            return None
        whole, told = event.data.text, self._told.text_before(event.data.id)
        return _delta(event.data.id, whole[len(told) :]) if len(whole) > len(told) and whole.startswith(told) else None

    def missing(self, run: Run, messages: Sequence[Any]) -> list[MessageDeltaEvent] | None:
        told = {message.id: message.text for message in self.messages}
        whole = [message for message in messages if isinstance(message, Message) and message.role != "user"]
        strangers = told.keys() - {message.id for message in whole}
        if any(told[message_id] for message_id in strangers):  # streams of some servers have ids of their own
            before, text = "".join(told.values()), "".join(message.text for message in whole)
            rest = text[len(before) :]
            return None if not text.startswith(before) else [_delta(self.messages[-1].id, rest)] if rest else []
        # What was written before the first message of this stream, another stream told.
        first = next((place for place, message in enumerate(whole) if message.id in told), 0)
        found = []
        for message in whole[first:]:
            before = told.get(message.id, "")
            if message.text.startswith(before):
                found += [_delta(message.id, rest)] if (rest := message.text[len(before) :]) else []
            elif run.status == COMPLETED or not before.startswith(message.text):
                return None
            self._told.receive(MessageEvent(f"{message.object}.{message.status or COMPLETED}", message))
        return found

    def __repr__(self) -> str:
        status = self.run.status if self.run else "nothing seen"
        return f"<RunStream {self.run.id if self.run else self._run_id or '?'} {status}>"


def _delta(message_id: str, text: str) -> MessageDeltaEvent:
    fields = MessageDeltaFields(content=[TextDeltaBlock(index=0, text=TextDelta(value=text))])
    return MessageDeltaEvent("thread.message.delta", MessageDelta(id=message_id, delta=fields))
