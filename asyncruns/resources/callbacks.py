"""Which methods of an event handler an event calls, and in which order: that of the official client.

https://github.com/openai/openai-python/blob/main/helpers.md#assistant-events

Without I/O: here are names and arguments, and `event_handler.py` calls. What has ended, an event's data says, and not
its name. Each text, image and call is done once; the official client tells of a call's end again when the run ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from asyncruns.resources.streams import RunStream
from asyncruns.wire import (
    ImageFileContentBlock,
    Message,
    Run,
    RunStep,
    TextContentBlock,
    ToolCallsStepDetails,
)
from asyncruns.wire.deltas import MessageDelta, RunStepDelta, TextDeltaBlock, ToolCallsDeltaDetails
from asyncruns.wire.runs import CANCELLED, COMPLETED, EXPIRED, FAILED, INCOMPLETE, REQUIRES_ACTION
from asyncruns.wire.steps import StepToolCall
from asyncruns.wire.stream_events import (
    MessageDeltaEvent,
    MessageEvent,
    RunEvent,
    RunStepDeltaEvent,
    RunStepEvent,
    ThreadStreamEvent,
)

T = TypeVar("T")
Callback = tuple[str, tuple[Any, ...]]
"""The name of a method, and its arguments."""

ENDED: Final = frozenset({COMPLETED, INCOMPLETE, FAILED, CANCELLED, EXPIRED})
_OF_MESSAGES: Final = ("on_text_created", "on_text_delta", "on_text_done", "on_image_file_done", "on_message_delta")
_OF_STEPS: Final = ("on_tool_call_created", "on_tool_call_delta", "on_tool_call_done", "on_run_step_delta")


class Callbacks:
    """Tells what the events of one stream call, as they come.

    Args:
        stream: Has taken notice of an event before it comes here.
        is_wanted: Tells whether anybody listens to a method; what a message or a step has come to is not put together
            for nobody.
    """

    def __init__(self, stream: RunStream, is_wanted: Callable[[str], bool]) -> None:
        self._stream = stream
        self._tells_of_messages = any(map(is_wanted, _OF_MESSAGES))
        self._tells_of_steps = any(map(is_wanted, _OF_STEPS))
        self._message_id = ""
        self._begun: set[int] = set()  # the parts of that message
        self._part: int | None = None  # the one that grows
        self._step_id = ""
        self._place: int | None = None  # of the call that grows
        self._call: StepToolCall | None = None

    def of(self, event: ThreadStreamEvent) -> Iterator[Callback]:
        """Give the calls for an event. To be used up before the next event is read."""
        yield "on_event", (event,)
        match event:
            case MessageDeltaEvent(data=delta):
                if self._tells_of_messages and (message := self._stream.message) is not None:
                    yield from self._message_grew(delta, message)
            case RunStepDeltaEvent(data=change):
                if self._tells_of_steps and (step := self._stream.step) is not None:
                    yield from self._step_grew(change, step)
            case MessageEvent(event=name, data=message):
                yield from self._message_changed(name, message)
            case RunStepEvent(event=name, data=step):
                yield from self._step_changed(name, step)
            case RunEvent(data=run):
                yield from self._run_changed(run)
            case _:
                pass

    def _message_changed(self, name: str, message: Message) -> Iterator[Callback]:
        if name.endswith(".created"):
            self._turn_to(message)
            yield "on_message_created", (message,)
        elif (message.status or name.rpartition(".")[2]) in ENDED:
            self._turn_to(message)
            yield from self._part_done(message)
            yield "on_message_done", (message,)

    def _message_grew(self, delta: MessageDelta, message: Message) -> Iterator[Callback]:
        self._turn_to(message)
        parts = list(_placed(delta.delta.content or []))
        for place, _ in parts:
            block = _at(message.content or [], place)
            if place not in self._begun and isinstance(block, TextContentBlock):
                yield "on_text_created", (block.text,)
            self._begun.add(place)
        for place, part in parts:
            block = _at(message.content or [], place)
            if isinstance(part, TextDeltaBlock) and part.text and isinstance(block, TextContentBlock):
                yield "on_text_delta", (part.text, block.text)
            if place != self._part:
                yield from self._part_done(message)
                self._part = place
        yield "on_message_delta", (delta.delta, message)

    def _part_done(self, message: Message) -> Iterator[Callback]:
        place, self._part = self._part, None
        block = None if place is None else _at(message.content or [], place)
        if isinstance(block, TextContentBlock):
            yield "on_text_done", (block.text,)
        elif isinstance(block, ImageFileContentBlock):
            yield "on_image_file_done", (block.image_file,)

    def _turn_to(self, message: Message) -> None:
        if message.id != self._message_id:
            self._message_id, self._part, self._begun = message.id, None, set()

    def _step_changed(self, name: str, step: RunStep) -> Iterator[Callback]:
        if name.endswith(".created"):
            yield "on_run_step_created", (step,)
        elif step.status in ENDED:
            yield from self._call_done()
            yield "on_run_step_done", (step,)

    def _step_grew(self, change: RunStepDelta, step: RunStep) -> Iterator[Callback]:
        if step.id != self._step_id:
            yield from self._call_done()
            self._step_id = step.id
        pieces, whole = change.delta.step_details, step.step_details
        if isinstance(pieces, ToolCallsDeltaDetails) and isinstance(whole, ToolCallsStepDetails):
            for place, piece in _placed(pieces.tool_calls or []):
                call = _at(whole.tool_calls or [], place)
                if place == self._place:
                    yield "on_tool_call_delta", (piece, call)
                else:
                    yield from self._call_done()
                    self._place = place
                    yield "on_tool_call_created", (call,)
                self._call = call
        yield "on_run_step_delta", (change.delta, step)

    def _call_done(self) -> Iterator[Callback]:
        call, self._call, self._place = self._call, None, None
        if call is not None:
            yield "on_tool_call_done", (call,)

    def _run_changed(self, run: Run) -> Iterator[Callback]:
        if run.status in ENDED or run.status == REQUIRES_ACTION:
            yield from self._call_done()


def _placed(pieces: Sequence[T]) -> Iterator[tuple[int, T]]:
    """Give pieces with the indexes that they name; where one names none, its place in the list counts."""
    for place, piece in enumerate(pieces):
        index = getattr(piece, "index", None)
        yield (index if isinstance(index, int) else place), piece


def _at(items: Sequence[T], place: int) -> T | None:
    """Give an item by its index; the last where there is none of it, None where there is none at all."""
    return (items[place] if 0 <= place < len(items) else items[-1]) if items else None
