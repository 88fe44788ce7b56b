"""Accumulates the events of a run's stream: the run, its messages and its steps as of the last event. Without I/O."""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec import UNSET

from asyncruns.streams.merging import Growing, Tree, item_at, items_at, merge, pieces_at
from asyncruns.wire import Message, Run, RunStep, Thread
from asyncruns.wire.codec import plain
from asyncruns.wire.deltas import MessageDelta, MessageDeltaFields, RunStepDelta, TextDeltaBlock
from asyncruns.wire.status_names import ENDED_STATUSES, IN_PROGRESS
from asyncruns.wire.stream_events import (
    MessageDeltaEvent,
    MessageEvent,
    RunEvent,
    RunStepDeltaEvent,
    RunStepEvent,
    ThreadEvent,
    ThreadStreamEvent,
)

MessageOrStep = TypeVar("MessageOrStep", Message, RunStep)


class RunAccumulator:
    """Accumulates the events of one stream, or of several that follow one another.

    A whole message or step in an event replaces the accumulated one. A delta for a message or step that has ended is
    ignored. A delta for one that is not known begins it.

    Attributes:
        run: The run as last seen, or None.
        thread: The thread, if it was created together with the run, or None.
    """

    def __init__(self) -> None:
        self.run: Run | None = None
        self.thread: Thread | None = None
        self._messages: dict[str, Message | Growing[Message]] = {}
        self._steps: dict[str, RunStep | Growing[RunStep]] = {}
        self._last_message = ""
        self._last_step = ""
        self._replaced: Message | Growing[Message] | None = None  # as it was before the last whole message

    def receive(self, event: ThreadStreamEvent) -> None:
        """Add the next event. Never raises."""
        match event:
            case MessageDeltaEvent():
                delta = event.data
                self._last_message = delta.id
                growing = self._messages.get(delta.id)
                if not isinstance(growing, Growing):
                    growing = _grown(Message, self._messages, delta.id, growing)
                if growing is not None:
                    growing.add(delta)
            case RunStepDeltaEvent(data=change):
                self._last_step = change.id
                step = self._steps.get(change.id)
                if not isinstance(step, Growing):
                    step = _grown(RunStep, self._steps, change.id, step)
                if step is not None:
                    step.add(change)
            case MessageEvent(data=message):
                self._last_message = message.id
                self._replaced = self._messages.get(message.id)
                self._messages[message.id] = message
            case RunStepEvent(data=whole):
                self._last_step = whole.id
                self._steps[whole.id] = whole
            case RunEvent(data=run):
                self.run = run
            case ThreadEvent(data=thread):
                self.thread = thread
            case _:
                pass  # errors, `done`, and events that could not be decoded

    def text_before(self, message_id: str) -> str:
        """Return the text that a message had before the last event replaced it; "" if it was not known."""
        before = None if self._replaced is None else _whole_of(self._replaced)
        return before.text if before is not None and before.id == message_id else ""

    @property
    def message(self) -> Message | None:
        """The message of the last event about a message, with all events so far; or None."""
        found = self._messages.get(self._last_message)
        return None if found is None else _whole_of(found)

    @property
    def messages(self) -> list[Message]:
        """All messages with all events so far, in the order in which they began."""
        return [_whole_of(each) for each in self._messages.values()]

    @property
    def step(self) -> RunStep | None:
        """The step of the last event about a step, with all events so far; or None."""
        found = self._steps.get(self._last_step)
        return None if found is None else _whole_of(found)

    @property
    def steps(self) -> list[RunStep]:
        """All steps with all events so far, in the order in which they began."""
        return [_whole_of(each) for each in self._steps.values()]


def _whole_of(item: MessageOrStep | Growing[MessageOrStep]) -> MessageOrStep:
    return item.whole if isinstance(item, Growing) else item


def _grown(
    type_: type[MessageOrStep],
    items: dict[str, MessageOrStep | Growing[MessageOrStep]],
    item_id: str,
    begun: MessageOrStep | None,
) -> Growing[MessageOrStep] | None:
    """Replace an item with one that deltas can be added to, and return that; None if the item has ended."""
    if begun is not None and begun.status in ENDED_STATUSES:
        return None
    # A step always has a status; a message has one only in a stream.
    begun = begun or type_(id=item_id, status=IN_PROGRESS)
    growing = items[item_id] = Growing(type_, plain(begun), _fold_deltas)
    return growing


def _fold_deltas(tree: Tree, deltas: list[Any]) -> None:
    # Nearly all deltas append to the text of the delta before: the list of its pieces is looked up once, not each time.
    index, pieces = None, None
    for delta in deltas:
        found = _text_alone_in(delta)
        if found is None:
            merge(tree, plain(delta.delta))
            index = pieces = None
            continue
        if pieces is None or found[0] != index:
            index = found[0]
            part = item_at(items_at(tree, "content"), index)
            part.setdefault("type", TextDeltaBlock.type)
            pieces = pieces_at(item_at(part, "text"), "value")
        pieces.append(found[1])


def _text_alone_in(delta: MessageDelta | RunStepDelta) -> tuple[int, str] | None:
    """Return the index and the text of a delta that contains nothing else; None for any other delta.

    Nearly all deltas are like this, and need not be converted to JSON for a merge.
    """
    fields = delta.delta
    if not isinstance(fields, MessageDeltaFields):
        return None
    content = fields.content
    if not content or len(content) != 1 or fields.role or fields.file_ids:
        return None
    block = content[0]
    if not isinstance(block, TextDeltaBlock):
        return None
    text = block.text
    if not text or text.annotations is not UNSET or not text.value:
        return None
    return block.index or 0, text.value
