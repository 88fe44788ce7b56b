"""The stream of a response: its events, in the order of the official API.

https://platform.openai.com/docs/api-reference/responses-streaming

Without I/O, like `streaming.py`. The events and their times are fixed at creation, and a cancel only ends them early.
So a client that resumes the stream receives the same events with the same numbers. The events of a response in the
foreground all come at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from asyncruns.testing.emulator.fields import Body
from asyncruns.testing.emulator.response import EmulatedResponse
from asyncruns.testing.emulator.streaming import ARGUMENTS_PIECE, LONGEST_WAIT_S, PIECE, framed
from asyncruns.testing.emulator.timeline import reached

Planned = tuple[float, str, Body]
"""The time of an event (epoch seconds), its type, and its fields."""

# For each type of part, the field of its text, and the other fields of the events about the text.
_PARTS: Final[Mapping[str, tuple[str, Body]]] = {"output_text": ("text", {"logprobs": []}), "refusal": ("refusal", {})}


class ResponseFeed:
    """Makes the events of a response from its creation to its end.

    Args:
        now: Returns the time, in epoch seconds.
        starting_after: Number of the last event that the client already has; -1 is none.
    """

    def __init__(self, response: EmulatedResponse, now: Callable[[], float], *, starting_after: int = -1) -> None:
        self._response = response
        self._now = now
        self._known = starting_after

    def events(self) -> Iterator[bytes | float]:
        """Yield the events, and between them times to wait for, in epoch seconds."""
        number = 0
        for moment, kind, fields in self._plan():
            while not reached(self._now(), min(moment, self._response.end()[1])):
                yield min(moment, self._now() + LONGEST_WAIT_S)  # a client may cancel it
            status, end = self._response.end()
            if status == "cancelled" and reached(moment, end):
                break
            # Skipped events are numbered as well, so that a resumed stream continues with the same numbers.
            yield from self._said(number, kind, fields)
            number += 1
        while not reached(self._now(), self._response.end()[1]):
            yield self._now() + LONGEST_WAIT_S
        status, _ = self._response.end()
        yield from self._said(number, f"response.{status}", {"response": self._response.body(self._now())})

    def _said(self, number: int, kind: str, fields: Body) -> Iterator[bytes]:
        if number > self._known:
            yield framed(kind, {"type": kind, "sequence_number": number, **fields})

    def _plan(self) -> Iterator[Planned]:
        """Yield the events before the end, for a response that is not cancelled."""
        response = self._response
        begun = response.created
        yield begun, "response.created", self._begun("queued" if response.background else "in_progress")
        if response.background:
            yield begun, "response.queued", self._begun("queued")
            begun += response.scenario.queued
        yield begun, "response.in_progress", self._begun("in_progress")
        working = response.scenario.working if response.background else 0.0
        for index, item in enumerate(response.output("completed") if response.writes else []):
            yield from _calling(begun + working, index, item) if response.calls else self._writing(begun, working, item)

    def _begun(self, status: str) -> Body:
        # As of the creation. A response that takes no time, as in the foreground, has already ended then: undo that.
        body = self._response.body(self._response.created)
        nothing = dict.fromkeys(("completed_at", "error", "incomplete_details", "usage"))
        return {"response": {**body, **nothing, "status": status, "output": []}}

    def _writing(self, begun: float, working: float, item: Body) -> Iterator[Planned]:
        """Yield the message, word by word, over the time for which the response works."""
        (whole,) = item["content"]
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        item = {**item, "status": self._response.scenario.end}
        end = begun + working
        added = {"output_index": 0, "item": {**item, "status": "in_progress", "content": []}}
        yield begun, "response.output_item.added", added
        kind = whole["type"]
        name, more = _PARTS[kind]
        yield begun, "response.content_part.added", {**place, "part": {**whole, name: ""}}
        pieces = PIECE.findall(whole[name])
        for number, piece in enumerate(pieces, 1):
            moment = begun + working * number / (len(pieces) + 1)
            yield moment, f"response.{kind}.delta", {**place, "delta": piece, **more}
        yield end, f"response.{kind}.done", {**place, name: whole[name], **more}
        yield end, "response.content_part.done", {**place, "part": whole}
        yield end, "response.output_item.done", {"output_index": 0, "item": item}


def _calling(moment: float, index: int, item: Body) -> Iterator[Planned]:
    """Yield a call, with its arguments in pieces, as models write them."""
    place = {"item_id": item["id"], "output_index": index}
    begun = {**item, "status": "in_progress", "arguments": ""}
    yield moment, "response.output_item.added", {"output_index": index, "item": begun}
    text = item["arguments"]
    for begin in range(0, len(text), ARGUMENTS_PIECE):
        piece = text[begin : begin + ARGUMENTS_PIECE]
        yield moment, "response.function_call_arguments.delta", {**place, "delta": piece}
    whole = {**place, "name": item["name"], "arguments": text}
    yield moment, "response.function_call_arguments.done", whole
    yield moment, "response.output_item.done", {"output_index": index, "item": item}
