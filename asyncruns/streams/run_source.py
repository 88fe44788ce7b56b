"""The source of a `RunStream`: which run an event is of, what it adds to the text, and which text no event told of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from asyncruns.abc import ByteStream
from asyncruns.http import Request
from asyncruns.sse import ServerSentEvent
from asyncruns.streams.run_accumulator import RunAccumulator
from asyncruns.streams.source import EventSource
from asyncruns.wire import Message, Run
from asyncruns.wire.deltas import MessageDelta, MessageDeltaFields, TextDelta, TextDeltaBlock
from asyncruns.wire.names import THREAD_RUN
from asyncruns.wire.statuses import COMPLETED
from asyncruns.wire.stream_events import (
    DoneEvent,
    ErrorEvent,
    MessageDeltaEvent,
    MessageEvent,
    RunEvent,
    RunStepEvent,
    ThreadStreamEvent,
    UndecodableEvent,
    decode_thread_event,
)


class RunSource(EventSource[Run, ThreadStreamEvent]):
    """The events of one run.

    Attributes:
        told: What they have told so far.
    """

    dialect: ClassVar[str] = THREAD_RUN
    needs_messages: ClassVar[bool] = True
    _of_the_stream = frozenset({DoneEvent, ErrorEvent, UndecodableEvent, RunEvent, RunStepEvent, MessageEvent})
    _decoded = staticmethod(decode_thread_event)

    def __init__(self, request: Request, body: ByteStream, *, run_id: str, thread_id: str) -> None:
        super().__init__(request, body, run_id)
        self.told: RunAccumulator = RunAccumulator()
        self._given_id = run_id
        self._given_thread_id = thread_id

    @staticmethod
    def _object_event(text: str, fields: dict[str, Any]) -> ServerSentEvent:
        return ServerSentEvent(f"thread.run.{fields['status']}", text)

    def _take(self, event: ThreadStreamEvent) -> ThreadStreamEvent:
        self.told.receive(event)
        return event

    def _owner_in(self, event: ThreadStreamEvent) -> tuple[str, str | None]:
        if isinstance(event, RunEvent):
            return event.data.id, event.data.status
        return (event.data.run_id or "" if isinstance(event, MessageEvent | RunStepEvent) else ""), None

    def _done_is_the_end(self) -> bool:
        # Some servers do not tell of the run at all, or not of its end, but of that of its message.
        message = self.told.message
        return self.told.run is None or (message is not None and message.status == COMPLETED)

    def _next_step(self) -> str:
        run_id, thread_id = self.run_id, (self.told.run.thread_id if self.told.run else "") or self._given_thread_id
        if not run_id:
            where = f" on the thread {thread_id}" if thread_id else ""
            return f"The run may exist and go on{where}: list the runs there before creating another."
        return (
            f"The run {run_id} goes on at the server: watch it with client.watch(thread_id=..., run_id=...), or "
            "retrieve it."
        )

    @property
    def run_id(self) -> str:
        """The id of the run as last told, or as it was asked for; "" as long as it is not known."""
        return self.told.run.id if self.told.run else self._given_id

    @property
    def resource(self) -> Run | None:
        return self.told.run

    def run_in(self, event: object) -> Run | None:
        return event.data if isinstance(event, RunEvent) else None

    def text_in(self, event: object) -> str:
        return event.data.text if isinstance(event, MessageDeltaEvent) else ""

    def rest_in(self, event: object) -> MessageDeltaEvent | None:
        if not isinstance(event, MessageEvent) or event.data.role == "user":
            return None
        whole, told = event.data.text, self.told.text_before(event.data.id)
        return _delta(event.data.id, whole[len(told) :]) if len(whole) > len(told) and whole.startswith(told) else None

    def missing(self, run: Run, messages: Sequence[Any]) -> list[MessageDeltaEvent] | None:
        told = {message.id: message.text for message in self.told.messages}
        whole = [message for message in messages if isinstance(message, Message) and message.role != "user"]
        strangers = told.keys() - {message.id for message in whole}
        if any(told[message_id] for message_id in strangers):  # streams of some servers have ids of their own
            before, text = "".join(told.values()), "".join(message.text for message in whole)
            rest = text[len(before) :]
            return None if not text.startswith(before) else [_delta(list(told)[-1], rest)] if rest else []
        # What was written before the first message of this stream, another stream told.
        first = next((place for place, message in enumerate(whole) if message.id in told), 0)
        found: list[MessageDeltaEvent] = []
        for message in whole[first:]:
            before = told.get(message.id, "")
            if message.text.startswith(before):
                found += [_delta(message.id, rest)] if (rest := message.text[len(before) :]) else []
            elif run.status == COMPLETED or not before.startswith(message.text):
                return None
            self.told.receive(MessageEvent(f"{message.object}.{message.status or COMPLETED}", message))
        return found


def _delta(message_id: str, text: str) -> MessageDeltaEvent:
    fields = MessageDeltaFields(content=[TextDeltaBlock(index=0, text=TextDelta(value=text))])
    return MessageDeltaEvent("thread.message.delta", MessageDelta(id=message_id, delta=fields))
