"""Filters the events of a response's stream that was reopened, so that each piece of text is delivered once.

Servers differ in what they send after a reopening with `starting_after`: the events after that number, some earlier
events again, all events from the beginning, or events with new numbers. A piece counts as new only if its number
follows the last one or, when all events are repeated, if its place in the text is beyond the known text.

For example, "Hel" (3) and "lo" (4) arrived, then the stream broke. After reopening with `starting_after=4`:

- " you" (5) is new, by its number; "lo" (4) is not.
- If `response.created` (0) comes first, all is repeated: "Hel" and "lo" are skipped, since they lie within the known
  text; " you" lies beyond it.

When neither rule is certain, pieces are withheld: no piece is better than a wrong one. The ended response contains the
whole text, and the missing rest of it is then delivered as one piece (`ResponseSource.rest_in`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from asyncruns.wire.response_events import ResponseEvent, ResponseStreamEvent, ResponseTextDeltaEvent
from asyncruns.wire.stream_events import DoneEvent, ErrorEvent, UndecodableEvent, UnknownEvent

_CREATED = "response.created"


class Known(Struct, frozen=True, kw_only=True):
    """What is known from before the stream broke.

    Attributes:
        number: The last `sequence_number`, or None if there was none.
        events: Number of events.
        has_no_gaps: Whether the events were numbered without gaps, from 0 or 1.
        text: All pieces of text, joined.
        items: The ids of the items, by their `output_index`.
        withholds: Whether pieces were already being withheld.
    """

    number: int | None
    events: int
    has_no_gaps: bool
    text: str
    items: Mapping[int, str]
    withholds: bool = False


class Repeats:
    """Filters the events of a reopened stream, one by one.

    Attributes:
        withholds: Whether the place of a piece in the text was uncertain, so no further pieces are delivered.
    """

    def __init__(self, known: Known) -> None:
        self._known = known
        self._number = known.number
        self._pieces = [known.text]
        self._repeated: list[str] = []  # consecutive pieces with old numbers
        self._events = 0  # since the reopening
        self._place = 0  # in the text, if all events are repeated
        self._repeats_all: bool | None = None  # None until the first event
        self.withholds: bool = known.withholds

    def is_foreign(self, event: ResponseStreamEvent) -> bool:
        """Return whether an event belongs to an item of another response: a proxy may mix up streams."""
        index, item_id = getattr(event, "output_index", None), getattr(event, "item_id", "")
        return bool(item_id) and isinstance(index, int) and self._known.items.get(index, item_id) != item_id

    def new(self, event: ResponseStreamEvent, *, is_end: bool) -> ResponseStreamEvent | None:
        """Return the part of an event that is new, or None.

        Args:
            event: The next event.
            is_end: Whether the event reports the response's end, which is always new.
        """
        if is_end or isinstance(event, DoneEvent | ErrorEvent | UndecodableEvent | UnknownEvent):
            return event
        number = event.sequence_number if isinstance(event.sequence_number, int) else None
        if self._repeats_all is None:
            is_first = isinstance(event, ResponseEvent) and event.type == _CREATED
            self._repeats_all = is_first and (number is None or self._number is None or number <= self._number)
        self._events += 1
        if isinstance(event, ResponseTextDeltaEvent):
            return self._new_text(event, number)
        return event if self._follows(number) else None

    def _follows(self, number: int | None) -> bool:
        if number is None or self._number is None:  # without numbers, only their count shows it
            return not self._repeats_all or self._events > self._known.events
        if number <= self._number:
            return False
        if number > self._number + 1 and self._known.has_no_gaps:
            self.withholds = True  # events are missing, possibly pieces of text
        self._number = number
        return True

    def _new_text(self, event: ResponseTextDeltaEvent, number: int | None) -> ResponseTextDeltaEvent | None:
        if self._repeats_all:
            return self._beyond(event, number)
        follows = self._follows(number) and number is not None
        if not follows and number is not None:
            self._repeated.append(event.delta)
            return None
        if self._repeated and not "".join(self._pieces).endswith("".join(self._repeated)):
            self.withholds = True  # pieces with old numbers were no repetition, so the numbers mean nothing
        self._repeated.clear()
        self.withholds = self.withholds or not follows
        return None if self.withholds else self._given(event)

    def _beyond(self, event: ResponseTextDeltaEvent, number: int | None) -> ResponseTextDeltaEvent | None:
        """Return what a piece adds to the known text; withhold it if its beginning differs from that text."""
        # Known "Hello", and "lo you" begins at 3: two characters are shared, must be equal, and are cut off.
        begin, self._place = self._place, self._place + len(event.delta)
        if number is not None and self._number is not None:
            self._number = max(number, self._number)
        known = self._known.text
        shared = max(len(known) - begin, 0)
        if self.withholds or known[begin : self._place] != event.delta[:shared]:
            self.withholds = True
            return None
        new = event.delta[shared:]
        return self._given(event if not shared else replace(event, delta=new)) if new or not shared else None

    def _given(self, event: ResponseTextDeltaEvent) -> ResponseTextDeltaEvent:
        self._pieces.append(event.delta)
        return event


def items_in(response: Any) -> dict[int, str]:
    """Return the ids of the items in a response's output, by their place."""
    items = (response.output if response is not None else None) or []
    return {
        place: item.id for place, item in enumerate(items) if isinstance(getattr(item, "id", None), str) and item.id
    }
