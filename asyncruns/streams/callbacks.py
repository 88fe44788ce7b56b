"""Which methods of an event handler an event calls, and in which order: that of the official client.

https://github.com/openai/openai-python/blob/main/helpers.md#assistant-events

Without I/O: here are names and arguments, and `event_handler.py` calls. What has ended, an event's data says, and not
its name. Each text, image and call is begun once and done once, by its index, also where the pieces of several come in
turn; the official client goes by which piece came last, and tells of a call's end again when the run ends. A call has
ended when another begins and its arguments are whole, and otherwise with its step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from asyncruns.streams.merging import Places
from asyncruns.streams.run_stream import RunStream
from asyncruns.wire import (
    FunctionToolCall,
    ImageFileContentBlock,
    Message,
    Run,
    RunStep,
    TextContentBlock,
    ToolCallsStepDetails,
    Unknown,
)
from asyncruns.wire.codec import parse
from asyncruns.wire.deltas import MessageDelta, RunStepDelta, TextDeltaBlock, ToolCallsDeltaDetails, id_of, index_of
from asyncruns.wire.statuses import ENDED_STATUSES, REQUIRES_ACTION
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
        self._messages: dict[str, _Parts] = {}
        self._steps: dict[str, _Parts] = {}

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
            self._messages.setdefault(message.id, _Parts()).know(message.content or [])
            yield "on_message_created", (message,)
        elif (message.status or name.rpartition(".")[2]) in ENDED_STATUSES:
            if (parts := self._messages.get(message.id)) is not None:
                yield from _parts_done(parts, message.content or [])
            yield "on_message_done", (message,)

    def _message_grew(self, delta: MessageDelta, message: Message) -> Iterator[Callback]:
        parts, content = self._messages.setdefault(message.id, _Parts()), message.content or []
        pieces = parts.placed(delta.delta.content or [])
        fresh = [index for index, _ in pieces if parts.begin(index)]
        for index in fresh:
            block = parts.at(content, index)
            if isinstance(block, TextContentBlock):
                yield "on_text_created", (block.text,)
        for index, piece in pieces:
            block = parts.at(content, index)
            if isinstance(piece, TextDeltaBlock) and piece.text and isinstance(block, TextContentBlock):
                yield "on_text_delta", (piece.text, block.text)
            if index in fresh:
                # Two texts may come in turn, so that one is whole when the message is; all else comes one by one.
                keep = TextContentBlock if isinstance(block, TextContentBlock) else ()
                yield from _parts_done(parts, content, before=index, keep=keep)
        yield "on_message_delta", (delta.delta, message)

    def _step_changed(self, name: str, step: RunStep) -> Iterator[Callback]:
        if name.endswith(".created"):
            if isinstance(step.step_details, ToolCallsStepDetails):
                self._steps.setdefault(step.id, _Parts()).know(step.step_details.tool_calls or [])
            yield "on_run_step_created", (step,)
        elif step.status in ENDED_STATUSES:
            yield from self._calls_done(step.id)
            yield "on_run_step_done", (step,)

    def _step_grew(self, change: RunStepDelta, step: RunStep) -> Iterator[Callback]:
        pieces, whole = change.delta.step_details, step.step_details
        parts = self._steps.setdefault(step.id, _Parts())
        if not parts.latest:
            for other in self._steps:
                yield from self._calls_done(other, only=_is_whole)
        if isinstance(pieces, ToolCallsDeltaDetails) and isinstance(whole, ToolCallsStepDetails):
            for index, piece in parts.placed(pieces.tool_calls or []):
                call = parts.at(whole.tool_calls or [], index)
                if not parts.begin(index):
                    yield "on_tool_call_delta", (piece, call)
                else:
                    yield from self._calls_done(step.id, only=_is_whole)
                    yield "on_tool_call_created", (call,)
                parts.latest[index] = call
        yield "on_run_step_delta", (change.delta, step)

    def _calls_done(self, step_id: str, only: Callable[[StepToolCall], bool] | None = None) -> Iterator[Callback]:
        parts = self._steps.get(step_id)
        for index, call in parts.latest.items() if parts is not None else ():
            if parts is not None and (only is None or only(call)) and parts.end(index):
                yield "on_tool_call_done", (call,)

    def _run_changed(self, run: Run) -> Iterator[Callback]:
        if run.status in ENDED_STATUSES or run.status == REQUIRES_ACTION:
            for step_id in self._steps:
                yield from self._calls_done(step_id)


class _Parts:
    """The parts of a message, or the calls of a step: which have begun, and which have ended.

    Attributes:
        begun: Those that have begun and not ended, by index.
        latest: Each call as it stands after its last piece.
    """

    def __init__(self) -> None:
        self.begun: set[int] = set()
        self.latest: dict[int, Any] = {}
        self._ended: set[int] = set()
        self._places = Places()

    def placed(self, pieces: Sequence[T]) -> list[tuple[int, T]]:
        """Return pieces with the indexes of what they belong to."""
        is_alone = len(pieces) == 1
        return [
            (self._places.find(index_of(piece), id_of(piece), place, is_alone=is_alone), piece)
            for place, piece in enumerate(pieces)
        ]

    def know(self, items: Sequence[object]) -> None:
        """Take notice of what was there before the first piece."""
        for place, item in enumerate(items):
            self._places.find(place, id_of(item), place, is_alone=False)

    def at(self, items: Sequence[T], index: int) -> T | None:
        """Return the item with an index; the last one if it is missing, None if there is none at all."""
        position = self._places.position(index)
        return (items[position] if position < len(items) else items[-1]) if items else None

    def begin(self, index: int) -> bool:
        """Note that there is a piece of a part; tell whether it is the first."""
        if index in self.begun or index in self._ended:
            return False
        self.begun.add(index)
        return True

    def end(self, index: int) -> bool:
        """Note that a part has ended; tell whether that is news."""
        if index not in self.begun:
            return False
        self.begun.discard(index)
        self._ended.add(index)
        return True


def _parts_done(
    parts: _Parts, content: Sequence[Any], *, before: int | None = None, keep: Any = ()
) -> Iterator[Callback]:
    """Tell of the end of all parts, or of those before one that begins, but for a kind that may go on beside it."""
    for index in sorted(parts.begun):
        block = parts.at(content, index)
        if index == before or isinstance(block, keep):
            continue
        parts.end(index)
        if isinstance(block, TextContentBlock):
            yield "on_text_done", (block.text,)
        elif isinstance(block, ImageFileContentBlock):
            yield "on_image_file_done", (block.image_file,)


def _is_whole(call: StepToolCall) -> bool:
    """Tell whether the arguments of a call are a whole object, to which no further piece can belong."""
    raw = call.raw if isinstance(call, Unknown) else {}
    text = call.function.arguments if isinstance(call, FunctionToolCall) else raw.get("arguments")
    try:
        return isinstance(text, str) and isinstance(parse(text.encode("utf-8", "replace")), dict)
    except (ValueError, RecursionError):
        return False
