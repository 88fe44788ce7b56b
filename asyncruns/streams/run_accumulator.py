"""What the stream of a run has told so far: the run, its messages and its steps as they stand after each delta."""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec import UNSET

from asyncruns.streams.merging import Growing, Tree, item_at, items_at, merge, pieces_at
from asyncruns.wire import Message, Run, RunStep, Thread
from asyncruns.wire.codec import plain
from asyncruns.wire.deltas import MessageDelta, MessageDeltaFields, RunStepDelta, TextDeltaBlock
from asyncruns.wire.statuses import ENDED_STATUSES, IN_PROGRESS
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
    """Takes the events of one stream, or of several that follow one another.

    A message or a step that comes whole replaces what its deltas came to; a delta that is late, after the end of what
    it belongs to, changes nothing. Deltas of a message whose beginning was missed begin one.

    Attributes:
        run: The run as last seen, or None.
        thread: The thread, where it was created together with the run, or None.
    """

    def __init__(self) -> None:
        self.run: Run | None = None
        self.thread: Thread | None = None
        self._messages: dict[str, Message | Growing[Message]] = {}
        self._steps: dict[str, RunStep | Growing[RunStep]] = {}
        self._last_message = ""
        self._last_step = ""
        self._replaced: Message | Growing[Message] | None = None

    def receive(self, event: ThreadStreamEvent) -> None:
        """Take the next event. Never raises."""
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
                pass  # an error, an end, and what could not be read tell nothing of these

    def text_before(self, message_id: str) -> str:
        """Return the text that a message had before it came whole, by the last event; "" if it was not known."""
        before = None if self._replaced is None else _whole_of(self._replaced)
        return before.text if before is not None and before.id == message_id else ""

    @property
    def message(self) -> Message | None:
        """The message that the last event about a message was of, as it is now; or None."""
        found = self._messages.get(self._last_message)
        return None if found is None else _whole_of(found)

    @property
    def messages(self) -> list[Message]:
        """All messages as they are now, in the order in which they began."""
        return [_whole_of(each) for each in self._messages.values()]

    @property
    def step(self) -> RunStep | None:
        """The step that the last event about a step was of, as it is now; or None."""
        found = self._steps.get(self._last_step)
        return None if found is None else _whole_of(found)

    @property
    def steps(self) -> list[RunStep]:
        """All steps as they are now, in the order in which they began."""
        return [_whole_of(each) for each in self._steps.values()]


def _whole_of(item: MessageOrStep | Growing[MessageOrStep]) -> MessageOrStep:
    return item.whole if isinstance(item, Growing) else item


def _grown(
    type_: type[MessageOrStep],
    items: dict[str, MessageOrStep | Growing[MessageOrStep]],
    item_id: str,
    begun: MessageOrStep | None,
) -> Growing[MessageOrStep] | None:
    """Make an item one that grows; None where it has ended."""
    if begun is not None and begun.status in ENDED_STATUSES:
        return None
    # A step has a status always; a message has one in a stream only.
    begun = begun or type_(id=item_id, status=IN_PROGRESS)
    growing = items[item_id] = Growing(type_, plain(begun), _fold_deltas)
    return growing


def _fold_deltas(tree: Tree, deltas: list[Any]) -> None:
    index, pieces = None, None  # of the text that the delta before was of
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
    """Give the index and the text of a delta that has nothing else, as nearly all: it need not become JSON first."""
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
