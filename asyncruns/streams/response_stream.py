"""The events of a response as they happen: https://platform.openai.com/docs/api-reference/responses-streaming"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from asyncruns.abc import ByteStream
from asyncruns.http import Request
from asyncruns.lifecycle.values import RunRef
from asyncruns.sse import ServerSentEvent
from asyncruns.streams.reopened import Known, Reopened, items_in
from asyncruns.streams.response_accumulator import ResponseAccumulator
from asyncruns.streams.run_stream import EventStream
from asyncruns.wire.response_events import (
    RESPONSE_EVENTS,
    TEXT_DELTA,
    ResponseEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
    decode_response_event,
)
from asyncruns.wire.responses import COMPLETED, IN_PROGRESS, QUEUED, ModelResponse
from asyncruns.wire.runs import ENDED_STATUSES


class ResponseStream(EventStream[ModelResponse, ResponseStreamEvent]):
    """The events of a response, one by one: `async for event in stream`; see `asyncruns.wire` for what they are.

    An event's data counts, not its name: the response is over when `response.status` says so. A stream that breaks
    raises, and so does one with an event of another response; `text_deltas` raises for one that ends too early, which
    `is_whole` tells. That of a background response is taken up again, without giving an event twice, with
    `client.responses.retrieve(id, stream=True, starting_after=stream.sequence_number)`; a watch does that by itself.
    """

    dialect: str = "response"
    _of_the_stream = EventStream._of_the_stream | {ResponseEvent}

    def __init__(
        self, request: Request, body: ByteStream, *, response_id: str = "", starting_after: int | None = None
    ) -> None:
        super().__init__(request, body, response_id)
        self._response_id = response_id
        self._is_taken_up = bool(response_id) and starting_after is not None
        self._forget()
        self._told.sequence_number = starting_after
        self._told.events = 0 if starting_after is None else starting_after + 1

    def _forget(self) -> None:
        """Begin with a response of which nothing was told."""
        self._told = ResponseAccumulator()
        self._pieces: list[str] = []  # of the text
        self._last_piece: ResponseTextDeltaEvent | None = None
        self._reopened: Reopened | None = None

    def _decoded(self, name: str, text: str) -> ResponseStreamEvent:
        return decode_response_event(name, text)

    def _take(self, event: ResponseStreamEvent) -> ResponseStreamEvent | None:
        if self._reopened is not None:
            if self._reopened.is_foreign(event):
                raise self._foreign(ServerSentEvent("", ""), getattr(event, "item_id", ""))
            is_end = isinstance(event, ResponseEvent) and event.response.status in ENDED_STATUSES
            found = self._reopened.new(event, is_end=is_end)
            if found is None:
                return None
            event = found
        self._told.receive(event)
        if type(event) is ResponseTextDeltaEvent:
            self._pieces.append(event.delta)
            self._last_piece = event
        return event

    def _object_event(self, text: str, fields: dict[str, Any]) -> ServerSentEvent:
        if isinstance(fields.get("type"), str):  # an event, and not a response
            return ServerSentEvent("message", text)
        name = f"response.{fields['status']}"
        name = name if name in RESPONSE_EVENTS else "response.in_progress"
        return ServerSentEvent(name, f'{{"type":"{name}","response":{text}}}')

    def _owner_in(self, event: ResponseStreamEvent) -> str:
        return event.response.id if isinstance(event, ResponseEvent) else ""

    def _status_in(self, event: ResponseStreamEvent) -> str | None:
        return event.response.status if isinstance(event, ResponseEvent) else None

    def _done_is_the_end(self) -> bool:
        return False

    def _next_step(self) -> str:
        found = self.response.id if self.response else self._response_id
        if not found:
            return "The response may exist, and nothing can find it."
        number = self.sequence_number
        after = "" if number is None else f", starting_after={number}"
        return (
            f"If it is in the background, the response {found} goes on at the server: take it up again with "
            f"client.responses.retrieve({found!r}, stream=True{after}), or watch it."
        )

    @property
    def response(self) -> ModelResponse | None:
        """The response with all its deltas so far; None until an event told of it."""
        return self._told.response

    @property
    def sequence_number(self) -> int | None:
        """Of the last event that had one, or None."""
        return self._told.sequence_number

    @property
    def resource(self) -> ModelResponse | None:
        return self._told.response

    @property
    def ref(self) -> RunRef | None:
        return RunRef(self.dialect, (self._response_id,)) if self._is_taken_up else None

    def run_in(self, event: object) -> ModelResponse | None:
        if not isinstance(event, ResponseEvent):
            return None
        told = event.response
        # Some servers end with a response that lacks its output, which the deltas have told.
        return told if told.output or told.status in (QUEUED, IN_PROGRESS) else self._told.response or told

    def text_in(self, event: object) -> str:
        return event.delta if isinstance(event, ResponseTextDeltaEvent) else ""

    def rest_in(self, event: object) -> ResponseTextDeltaEvent | None:
        if not isinstance(event, ResponseEvent) or event.response.status not in ENDED_STATUSES:
            return None
        rest = self._rest_of(event.response)
        if rest is None and self._reopened is not None:
            self.is_whole = False  # what was taken up does not fit the whole
        return self._completing(rest) if rest else None

    def missing(self, run: ModelResponse, messages: Sequence[Any]) -> list[ResponseTextDeltaEvent] | None:
        if run.id != self._own_id:  # one that was not streamed
            self._forget()
            self._own_id, self._is_taken_up = run.id, False
        rest = self._rest_of(run)
        if rest is None:
            return None
        return [self._completing(rest)] if rest else []

    def _rest_of(self, response: ModelResponse) -> str | None:
        """Return the text of a response that no piece told of; None if the pieces do not fit it."""
        told, whole = "".join(self._pieces), response.output_text
        if self._is_taken_up:  # what came before is not known
            at = whole.find(told) if told else -1
            return whole[at + len(told) :] if at >= 0 and whole.find(told, at + 1) < 0 else None
        if whole.startswith(told):
            return whole[len(told) :]
        return "" if response.status != COMPLETED and told.startswith(whole) else None

    def _completing(self, rest: str) -> ResponseTextDeltaEvent:
        self._pieces.append(rest)
        last = self._last_piece
        if last is None:
            return ResponseTextDeltaEvent(type=TEXT_DELTA, delta=rest)
        return replace(last, delta=rest, sequence_number=UNSET, logprobs=UNSET)

    def reopen(self, request: Request, body: ByteStream) -> None:
        told, items = self._told, items_in(self.response)
        if (last := self._last_piece) is not None and isinstance(last.output_index, int) and last.item_id:
            items[last.output_index] = last.item_id
        known = Known(
            number=told.sequence_number,
            events=told.events,
            has_no_gaps=told.has_no_gaps,
            text="".join(self._pieces),
            items=items,
            withholds=self._reopened is not None and self._reopened.withholds,
        )
        self._begin(request, body)
        self._reopened = Reopened(known)

    def continue_with(self, request: Request, body: ByteStream) -> None:
        super().continue_with(request, body)
        self._forget()  # each round is a response of its own
        self._own_id = self._response_id = ""
        self._is_taken_up = False

    def __repr__(self) -> str:
        status = self.response.status if self.response else "nothing seen"
        return f"<ResponseStream {self.response.id if self.response else self._response_id or '?'} {status}>"
