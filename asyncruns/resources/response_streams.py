"""The events of a response as they happen: https://platform.openai.com/docs/api-reference/responses-streaming"""

from __future__ import annotations

from collections.abc import AsyncIterator

from asyncruns.abc import ByteStream
from asyncruns.accumulator.responses import ResponseAccumulator
from asyncruns.http import Request
from asyncruns.lifecycle.values import RunRef
from asyncruns.resources.streams import EventStream
from asyncruns.wire.response_events import (
    ResponseEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
    decode_response_event,
)
from asyncruns.wire.responses import IN_PROGRESS, QUEUED, ModelResponse


class ResponseStream(EventStream[ModelResponse, ResponseStreamEvent]):
    """The events of a response, one by one: `async for event in stream`; see `asyncruns.wire` for what they are.

    An event's data counts, not its name: the response is over when `response.status` says so. A stream that breaks
    raises; that of a background response is taken up again, without giving an event twice, with
    `client.responses.retrieve(id, stream=True, starting_after=stream.sequence_number)`.
    """

    dialect: str = "response"

    def __init__(
        self, request: Request, body: ByteStream, *, response_id: str = "", starting_after: int | None = None
    ) -> None:
        super().__init__(request, body)
        self._told = ResponseAccumulator()
        self._told.sequence_number = starting_after
        self._response_id = response_id
        self._is_taken_up = bool(response_id) and starting_after is not None

    def _decoded(self, name: str, text: str) -> ResponseStreamEvent:
        event = decode_response_event(name, text)
        self._told.receive(event)
        return event

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

    async def text_deltas(self) -> AsyncIterator[str]:
        """Give the pieces of the text as they come, and pass over all else.

        Raises:
            APIError: The server gave up the stream with an error, or the stream broke.
        """
        async for event in self:
            if isinstance(event, ResponseTextDeltaEvent):
                if event.delta:
                    yield event.delta
            else:
                self._check_error(event)

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

    def go_on(self, request: Request, body: ByteStream) -> None:
        super().go_on(request, body)
        self._told = ResponseAccumulator()  # each round is a response of its own
        self._response_id, self._is_taken_up = "", False

    def __repr__(self) -> str:
        status = self.response.status if self.response else "nothing seen"
        return f"<ResponseStream {self.response.id if self.response else self._response_id or '?'} {status}>"
