"""The events of a response as they happen: https://platform.openai.com/docs/api-reference/responses-streaming"""

from __future__ import annotations

from asyncruns.abc import ByteStream
from asyncruns.http import Request
from asyncruns.streams.event_stream import EventStream
from asyncruns.streams.response_source import ResponseSource
from asyncruns.wire.response_events import ResponseStreamEvent
from asyncruns.wire.responses import ModelResponse


class ResponseStream(EventStream[ModelResponse, ResponseStreamEvent]):
    """The events of a response, one by one: `async for event in stream`. Their types are in `asyncruns.wire`.

    Rely on an event's data, not its name: the response is over when `response.status` says so. Iteration raises if the
    stream breaks, or if an event belongs to another response. If the stream ends too early, `is_whole` is False and
    `text_deltas` raises. To continue the stream of a background response without repeated events, use
    `client.responses.retrieve(id, stream=True, starting_after=stream.sequence_number)`; a watch does that by itself.
    """

    _source: ResponseSource

    def __init__(
        self, request: Request, body: ByteStream, *, response_id: str = "", starting_after: int | None = None
    ) -> None:
        super().__init__(ResponseSource(request, body, response_id=response_id, starting_after=starting_after))

    @property
    def response(self) -> ModelResponse | None:
        """The response with all its deltas so far; None until an event contains it."""
        return self._source.told.response

    @property
    def sequence_number(self) -> int | None:
        """The `sequence_number` of the last event that had one, or None."""
        return self._source.told.sequence_number

    def __repr__(self) -> str:
        status = self.response.status if self.response else "nothing seen"
        return f"<ResponseStream {self._source.response_id or '?'} {status}>"
