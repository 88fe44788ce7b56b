"""The source of a `RunStream`: decodes and accumulates events, and computes the text that no event contained."""

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
from asyncruns.wire.status_names import COMPLETED
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
        told: The accumulated events.
    """

    dialect: ClassVar[str] = THREAD_RUN
    needs_messages: ClassVar[bool] = True
    # Without deltas, which are frequent and contain no run id.
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
        # Some servers send no event of the run, or none of its end, but one of the end of its message.
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
        """The id of the run from the last event with one, or from the request; "" until it is known."""
        return self.told.run.id if self.told.run else self._given_id

    @property
    def resource(self) -> Run | None:
        return self.told.run

    def run_in(self, event: object) -> Run | None:
        return event.data if isinstance(event, RunEvent) else None

    def text_in(self, event: object) -> str:
        return event.data.text if isinstance(event, MessageDeltaEvent) else ""

    @property
    def text(self) -> str:
        return "".join(message.text for message in self.told.messages)

    def rest_in(self, event: object) -> MessageDeltaEvent | None:
        if not isinstance(event, MessageEvent) or event.data.role == "user":  # a user's text is not part of the answer
            return None
        whole, before = event.data.text, self.told.text_before(event.data.id)
        return (
            _delta(event.data.id, whole[len(before) :])
            if len(whole) > len(before) and whole.startswith(before)
            else None
        )

    def missing(self, run: Run, messages: Sequence[Any]) -> list[MessageDeltaEvent] | None:
        streamed = {message.id: message.text for message in self.told.messages}
        whole = [message for message in messages if isinstance(message, Message) and message.role != "user"]
        strangers = streamed.keys() - {message.id for message in whole}
        # The streams of some servers have other message ids than their lists, so all texts are joined and compared.
        if any(streamed[message_id] for message_id in strangers):
            before, text = "".join(streamed.values()), "".join(message.text for message in whole)
            rest = text[len(before) :]
            return None if not text.startswith(before) else [_delta(list(streamed)[-1], rest)] if rest else []
        # Messages before the first one of this stream belong to an earlier stream of the run.
        first = next((place for place, message in enumerate(whole) if message.id in streamed), 0)
        found: list[MessageDeltaEvent] = []
        for message in whole[first:]:
            before = streamed.get(message.id, "")
            if message.text.startswith(before):
                found += [_delta(message.id, rest)] if (rest := message.text[len(before) :]) else []
            elif run.status == COMPLETED or not before.startswith(message.text):
                return None
            # Accumulate the whole message, so that the same text is not returned again.
            self.told.receive(MessageEvent(f"{message.object}.{message.status or COMPLETED}", message))
        return found


def _delta(message_id: str, text: str) -> MessageDeltaEvent:
    fields = MessageDeltaFields(content=[TextDeltaBlock(index=0, text=TextDelta(value=text))])
    return MessageDeltaEvent("thread.message.delta", MessageDelta(id=message_id, delta=fields))
