"""Accumulates the events of a response's stream: the response with its output as of the last event. Without I/O."""

from __future__ import annotations

from typing import Any

from asyncruns.streams.merging import Growing, Tree, item_at, items_at, pieces_at
from asyncruns.wire.codec import Maybe, plain
from asyncruns.wire.response_events import (
    DONE_FIELDS,
    FIELDS,
    ResponseAnnotationEvent,
    ResponseContentPartEvent,
    ResponseDeltaEvent,
    ResponseDoneEvent,
    ResponseEvent,
    ResponseOutputItemEvent,
    ResponseReasoningPartEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
)
from asyncruns.wire.responses import ModelResponse

_GROWING = (  # the events that add to the output
    ResponseTextDeltaEvent,
    ResponseDeltaEvent,
    ResponseDoneEvent,
    ResponseOutputItemEvent,
    ResponseContentPartEvent,
    ResponseReasoningPartEvent,
    ResponseAnnotationEvent,
)


class ResponseAccumulator:
    """Accumulates the events of one stream, or of several that continue one another with `starting_after`.

    A whole response in an event replaces the accumulated one, unless it has no output, as some servers send it: then
    the accumulated output stays.

    Attributes:
        sequence_number: The number of the last event that had one, or None; a broken stream is reopened after it.
        events: Number of events, including those before a stream that began in the middle.
    """

    def __init__(self) -> None:
        self.sequence_number: int | None = None
        self.events: int = 0
        self._response: Growing[ModelResponse] | None = None

    def continue_after(self, sequence_number: int) -> None:
        """Note that the stream begins in the middle, after the event with this number."""
        self.sequence_number = sequence_number
        self.events = sequence_number + 1  # as if numbered from 0; see `has_no_gaps`

    def receive(self, event: ResponseStreamEvent) -> None:
        """Add the next event. Never raises."""
        number = getattr(event, "sequence_number", None)
        self.events += 1
        if isinstance(number, int):
            self.sequence_number = number
        if isinstance(event, _GROWING):
            if self._response is not None:
                self._response.add(event)
        elif isinstance(event, ResponseEvent):
            if self._response is None or event.response.output:
                self._response = Growing(ModelResponse, plain(event.response), _fold_events)
            else:
                self._response.add(event)

    @property
    def has_no_gaps(self) -> bool:
        """Whether the events are numbered without gaps, from 0 or 1."""
        # Five events have the numbers 0 to 4 or 1 to 5: the last number minus the count is -1 or 0.
        return self.sequence_number is not None and self.sequence_number - self.events in (-1, 0)

    @property
    def response(self) -> ModelResponse | None:
        """The response with all events so far; None until an event contains it."""
        return None if self._response is None else self._response.whole


def _fold_events(tree: Tree, events: list[Any]) -> None:
    for event in events:
        _fold_event(tree, event)


def _fold_event(tree: Tree, event: Any) -> None:
    if isinstance(event, ResponseEvent):  # without output, see `receive`: keep what the deltas added up to
        fields = plain(event.response)
        tree.update({name: value for name, value in fields.items() if value is not None and name != "output"})
        return
    items = items_at(tree, "output")
    if isinstance(event, ResponseOutputItemEvent):
        items[items.places.find(_given(event.output_index), _id_of(event.item), 0, is_alone=True)] = plain(event.item)
        return
    item = item_at(items, items.places.find(_given(event.output_index), event.item_id, 0, is_alone=True))
    if isinstance(event, ResponseContentPartEvent):
        items_at(item, "content")[event.content_index or 0] = plain(event.part)
    elif isinstance(event, ResponseReasoningPartEvent):
        items_at(item, "summary")[event.summary_index or 0] = plain(event.part)
    elif isinstance(event, ResponseAnnotationEvent):
        part = item_at(items_at(item, "content"), event.content_index or 0)
        annotations = items_at(part, "annotations")
        index = _given(event.annotation_index)
        annotations[max(annotations, default=-1) + 1 if index is None else index] = plain(event.annotation)
    else:
        _fold_text(item, event)


def _given(index: Maybe[int]) -> int | None:
    return index if isinstance(index, int) else None


def _id_of(item: object) -> str:
    found = getattr(item, "id", None)
    return found if isinstance(found, str) else ""


def _fold_text(item: Tree, event: ResponseTextDeltaEvent | ResponseDeltaEvent | ResponseDoneEvent) -> None:
    is_done = isinstance(event, ResponseDoneEvent)
    where = (DONE_FIELDS if is_done else FIELDS).get(event.type)
    if where is None:
        return
    kind, parts, part_kind, field = where
    item.setdefault("type", kind)  # if the event that began the item was missed
    node = item
    if parts:
        index = event.summary_index if parts == "summary" else event.content_index
        node = item_at(items_at(item, parts), index or 0)
        node.setdefault("type", part_kind)
    if isinstance(event, ResponseDoneEvent):  # contains the whole text, which replaces the pieces
        text = getattr(event, field, None)
        if isinstance(text, str):
            node[field] = text
    elif isinstance(event.delta, str):
        pieces_at(node, field).append(event.delta)
