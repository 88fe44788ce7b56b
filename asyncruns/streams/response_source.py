"""The source of a `ResponseStream`: decodes and accumulates events, and computes the text that no event contained.

The stream of a background response can be reopened; `repeats.py` then filters what is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from msgspec import UNSET
from msgspec.structs import replace

from asyncruns.abc import ByteStream
from asyncruns.http import Request
from asyncruns.lifecycle.values import RunRef
from asyncruns.sse import ServerSentEvent
from asyncruns.streams.repeats import Known, Repeats, items_in
from asyncruns.streams.response_accumulator import ResponseAccumulator
from asyncruns.streams.source import EventSource
from asyncruns.wire.names import RESPONSE
from asyncruns.wire.response_events import (
    RESPONSE_EVENTS,
    TEXT_DELTA,
    ResponseEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
    decode_response_event,
)
from asyncruns.wire.responses import ModelResponse
from asyncruns.wire.status_names import COMPLETED, ENDED_STATUSES, IN_PROGRESS, QUEUED
from asyncruns.wire.stream_events import DoneEvent, ErrorEvent, UndecodableEvent


class ResponseSource(EventSource[ModelResponse, ResponseStreamEvent]):
    """The events of one response and of its follow-ups: each round of outputs creates another response.

    Attributes:
        told: The accumulated events of the current response.
    """

    dialect: ClassVar[str] = RESPONSE
    _of_the_stream = frozenset({DoneEvent, ErrorEvent, UndecodableEvent, ResponseEvent})
    _decoded = staticmethod(decode_response_event)

    def __init__(
        self, request: Request, body: ByteStream, *, response_id: str, starting_after: int | None = None
    ) -> None:
        super().__init__(request, body, response_id)
        self._given_id = response_id
        self._began_later = bool(response_id) and starting_after is not None
        self._forget()
        if starting_after is not None:
            self.told.continue_after(starting_after)

    def _forget(self) -> None:
        """Start over with a response of which nothing is known."""
        self.told: ResponseAccumulator = ResponseAccumulator()
        self._pieces: list[str] = []  # of the text, as they were delivered
        self._last_piece: ResponseTextDeltaEvent | None = None
        self._reopened: Repeats | None = None

    @staticmethod
    def _object_event(text: str, fields: dict[str, Any]) -> ServerSentEvent:
        if isinstance(fields.get("type"), str):  # an event that was sent as plain JSON; a response has no `type`
            return ServerSentEvent("message", text)
        name = f"response.{fields['status']}"
        name = name if name in RESPONSE_EVENTS else "response.in_progress"
        return ServerSentEvent(name, f'{{"type":"{name}","response":{text}}}')

    def _take(self, event: ResponseStreamEvent) -> ResponseStreamEvent | None:
        if self._reopened is not None:
            if self._reopened.is_foreign(event):
                raise self._foreign(ServerSentEvent("", ""), getattr(event, "item_id", ""))
            is_end = isinstance(event, ResponseEvent) and event.response.status in ENDED_STATUSES
            found = self._reopened.new(event, is_end=is_end)
            if found is None:
                return None
            event = found
        self.told.receive(event)
        if type(event) is ResponseTextDeltaEvent:
            self._pieces.append(event.delta)
            self._last_piece = event
        return event

    def _owner_in(self, event: ResponseStreamEvent) -> tuple[str, str | None]:
        return (event.response.id, event.response.status) if isinstance(event, ResponseEvent) else ("", None)

    def _done_is_the_end(self) -> bool:
        return False  # a complete stream has the response with its final status

    def _next_step(self) -> str:
        found = self.response_id
        if not found:
            return "The response may exist, but cannot be found without its id."
        number = self.sequence_number
        after = "" if number is None else f", starting_after={number}"
        return (
            f"If it is in the background, the response {found} goes on at the server: reopen its stream with "
            f"client.responses.retrieve({found!r}, stream=True{after}), or watch it."
        )

    @property
    def response_id(self) -> str:
        """The id of the response from the last event with one, or from the request; "" until it is known."""
        return self.told.response.id if self.told.response else self._given_id

    @property
    def resource(self) -> ModelResponse | None:
        return self.told.response

    @property
    def ref(self) -> RunRef | None:
        return RunRef(self.dialect, (self._given_id,)) if self._began_later else None

    @property
    def sequence_number(self) -> int | None:
        return self.told.sequence_number

    def run_in(self, event: object) -> ModelResponse | None:
        if not isinstance(event, ResponseEvent):
            return None
        found = event.response
        # Some servers end with a response without its output; the deltas contained it.
        return found if found.output or found.status in (QUEUED, IN_PROGRESS) else self.told.response or found

    def text_in(self, event: object) -> str:
        return event.delta if isinstance(event, ResponseTextDeltaEvent) else ""

    @property
    def text(self) -> str:
        response = self.told.response
        return "" if response is None else "".join(message.text for message in response.messages)

    def rest_in(self, event: object) -> ResponseTextDeltaEvent | None:
        if not isinstance(event, ResponseEvent) or event.response.status not in ENDED_STATUSES:
            return None
        rest = self._rest_of(event.response)
        if rest is None and self._reopened is not None:
            self.progress.lacks_text()  # the pieces since the reopening are not part of the whole text
        return self._completing(rest) if rest else None

    def missing(self, run: ModelResponse, messages: Sequence[Any]) -> list[ResponseTextDeltaEvent] | None:
        if run.id != self._own_id:  # a follow-up that was not streamed
            self._forget()
            self._own_id, self._began_later = run.id, False
        rest = self._rest_of(run)
        if rest is None:
            return None
        return [self._completing(rest)] if rest else []

    def _rest_of(self, response: ModelResponse) -> str | None:
        """Return the rest of a response's text, after all pieces so far; None if the text does not contain the pieces.

        With the pieces "Hel" and "lo", and the text "Hello you", that is " you".
        """
        streamed, whole = "".join(self._pieces), response.output_text
        if self._began_later:  # the text before is not known, so the pieces must occur exactly once
            at = whole.find(streamed) if streamed else -1
            return whole[at + len(streamed) :] if at >= 0 and whole.find(streamed, at + 1) < 0 else None
        if whole.startswith(streamed):
            return whole[len(streamed) :]
        # A response that failed or was cancelled may have lost the end of its text.
        return "" if response.status != COMPLETED and streamed.startswith(whole) else None

    def _completing(self, rest: str) -> ResponseTextDeltaEvent:
        self._pieces.append(rest)
        last = self._last_piece
        if last is None:
            return ResponseTextDeltaEvent(type=TEXT_DELTA, delta=rest)
        # One more delta of the same part; the number and the log probabilities belong to the last one alone.
        return replace(last, delta=rest, sequence_number=UNSET, logprobs=UNSET)

    def reopen(self, request: Request, body: ByteStream) -> None:
        before, items = self.told, items_in(self.told.response)
        # A delta names its item even if the stream never contained the item itself.
        if (last := self._last_piece) is not None and isinstance(last.output_index, int) and last.item_id:
            items[last.output_index] = last.item_id
        known = Known(
            number=before.sequence_number,
            events=before.events,
            has_no_gaps=before.has_no_gaps,
            text="".join(self._pieces),
            items=items,
            withholds=self._reopened is not None and self._reopened.withholds,
        )
        self._begin(request, body)
        self._reopened = Repeats(known)

    def continue_with(self, request: Request, body: ByteStream) -> None:
        super().continue_with(request, body)
        self._forget()  # each round creates another response
        self._own_id = self._given_id = ""
        self._began_later = False
