"""Tells what is new of a response's stream that was reopened, so that each piece of text is given once.

Servers differ in what they send then: what comes after the number that was asked for, some of it once more, all from
the beginning, or with numbers of its own. A piece counts as new only if its number follows, or, where all comes from
the beginning, if its place in the text does. Where neither is sure, no piece is given: the response, once it has ended,
has the rest of the text, which comes as one piece then.
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
    """What was told before the stream broke.

    Attributes:
        number: The last `sequence_number`, or None if there was none.
        events: How many events there were.
        has_no_gaps: Whether each number followed the one before.
        text: All pieces of text, joined.
        items: The ids of the items, by their `output_index`.
        withholds: Whether pieces were withheld already.
    """

    number: int | None
    events: int
    has_no_gaps: bool
    text: str
    items: Mapping[int, str]
    withholds: bool = False


class Reopened:
    """Polls the events of such a stream, one by one.

    Attributes:
        withholds: Whether it is not known where a piece of text belongs, so that no further piece is given.
    """

    def __init__(self, known: Known) -> None:
        self._known = known
        self._number = known.number
        self._pieces = [known.text]
        self._repeated: list[str] = []  # pieces that came again
        self._events = 0
        self._place = 0  # in the text, where all comes from the beginning
        self._repeats_all: bool | None = None
        self.withholds: bool = known.withholds

    def is_foreign(self, event: ResponseStreamEvent) -> bool:
        """Tell whether an event is of an item that another response must have: a proxy may mix streams up."""
        index, item_id = getattr(event, "output_index", None), getattr(event, "item_id", "")
        return bool(item_id) and isinstance(index, int) and self._known.items.get(index, item_id) != item_id

    def new(self, event: ResponseStreamEvent, *, is_end: bool) -> ResponseStreamEvent | None:
        """Return what is new of an event, or None.

        Args:
            event: The next one.
            is_end: Whether it tells of the response's end, which is always new.
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
        if number is None or self._number is None:
            return not self._repeats_all or self._events > self._known.events
        if number <= self._number:
            return False
        if number > self._number + 1 and self._known.has_no_gaps:
            self.withholds = True  # something is missing
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
            self.withholds = True  # what came had other numbers, and was not what had come before
        self._repeated.clear()
        self.withholds = self.withholds or not follows
        return None if self.withholds else self._given(event)

    def _beyond(self, event: ResponseTextDeltaEvent, number: int | None) -> ResponseTextDeltaEvent | None:
        """Return what a piece adds to the text that is known, if the rest of it is the same."""
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
    """Return the ids of the items of a response's output, by their place."""
    items = (response.output if response is not None else None) or []
    return {
        place: item.id for place, item in enumerate(items) if isinstance(getattr(item, "id", None), str) and item.id
    }
