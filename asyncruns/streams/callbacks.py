"""Which methods of an event handler an event calls, in the order of the official client. Without I/O.

https://github.com/openai/openai-python/blob/main/helpers.md#assistant-events

This module yields method names and arguments; `event_handler.py` makes the calls. Whether something has ended is read
from an event's data; the event's name counts only for a message without a status.

Each text, image and tool call begins once and is done once, by its index, even if the pieces of several are
interleaved. (The official client assumes that a part has ended when a piece of another arrives, and reports the end of
a call again when the run ends.) A call is done when another call begins and its own arguments are complete; otherwise
when its step ends, or when the run ends or requires action.
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
from asyncruns.wire.status_names import ENDED_STATUSES, REQUIRES_ACTION
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
"""The name of a handler's method, and its arguments."""

_OF_MESSAGES: Final = ("on_text_created", "on_text_delta", "on_text_done", "on_image_file_done", "on_message_delta")
_OF_STEPS: Final = ("on_tool_call_created", "on_tool_call_delta", "on_tool_call_done", "on_run_step_delta")


class Callbacks:
    """Maps the events of one stream to the methods they call.

    Args:
        stream: The stream, which has already accumulated an event when the event is passed to `of`.
        is_wanted: Returns whether the handler overrides a method. Snapshots of messages or steps are not built if no
            method uses them.
    """

    def __init__(self, stream: RunStream, is_wanted: Callable[[str], bool]) -> None:
        self._stream = stream
        self._wants_messages = any(map(is_wanted, _OF_MESSAGES))
        self._wants_steps = any(map(is_wanted, _OF_STEPS))
        self._messages: dict[str, _Parts] = {}
        self._steps: dict[str, _Parts] = {}

    def of(self, event: ThreadStreamEvent) -> Iterator[Callback]:
        """Yield the calls for an event. Must be exhausted before the next event is read."""
        yield "on_event", (event,)
        match event:
            case MessageDeltaEvent(data=delta):
                if self._wants_messages and (message := self._stream.message) is not None:
                    yield from self._message_grew(delta, message)
            case RunStepDeltaEvent(data=change):
                if self._wants_steps and (step := self._stream.step) is not None:
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
            # Content that is there from the beginning shifts the places of the pieces that follow.
            self._messages.setdefault(message.id, _Parts()).know(message.content or [])
            yield "on_message_created", (message,)
        elif (message.status or name.rpartition(".")[2]) in ENDED_STATUSES:  # "thread.message.completed", say
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
                # The pieces of two texts may be interleaved, so a text that begins does not end another: both are done
                # with the message. An image ends all parts before it.
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
        if not parts.latest:  # the first piece of this step: calls of earlier steps are done
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
                parts.latest[index] = call  # for `on_tool_call_done`: the event that ends the step may lack its calls
        yield "on_run_step_delta", (change.delta, step)

    def _calls_done(self, step_id: str, only: Callable[[StepToolCall], bool] | None = None) -> Iterator[Callback]:
        """Yield `on_tool_call_done` for the calls of a step that have not ended; with `only`, for some of them."""
        parts = self._steps.get(step_id)
        for index, call in parts.latest.items() if parts is not None else ():
            if parts is not None and (only is None or only(call)) and parts.end(index):
                yield "on_tool_call_done", (call,)

    def _run_changed(self, run: Run) -> Iterator[Callback]:
        if run.status in ENDED_STATUSES or run.status == REQUIRES_ACTION:
            # A step whose calls wait for outputs has not ended, but its calls are complete.
            for step_id in self._steps:
                yield from self._calls_done(step_id)


class _Parts:
    """The parts of a message, or the calls of a step: which have begun, and which have ended.

    Attributes:
        begun: Indexes of the parts that have begun and not ended.
        latest: Each call as of its last piece, by index.
    """

    def __init__(self) -> None:
        self.begun: set[int] = set()
        self.latest: dict[int, Any] = {}
        self._ended: set[int] = set()
        self._places = Places()

    def placed(self, pieces: Sequence[T]) -> list[tuple[int, T]]:
        """Return each piece with the index of the part that it belongs to."""
        is_alone = len(pieces) == 1
        return [
            (self._places.find(index_of(piece), id_of(piece), place, is_alone=is_alone), piece)
            for place, piece in enumerate(pieces)
        ]

    def know(self, items: Sequence[object]) -> None:
        """Note the items that were there before the first piece."""
        for place, item in enumerate(items):
            self._places.find(place, id_of(item), place, is_alone=False)

    def at(self, items: Sequence[T], index: int) -> T | None:
        """Return the item with this index; the last item if it is missing, or None if there are no items."""
        position = self._places.position(index)
        return (items[position] if position < len(items) else items[-1]) if items else None

    def begin(self, index: int) -> bool:
        """Note a piece of a part; return whether it is the first one."""
        if index in self.begun or index in self._ended:
            return False
        self.begun.add(index)
        return True

    def end(self, index: int) -> bool:
        """Note that a part has ended; return False if it had ended before or never began."""
        if index not in self.begun:
            return False
        self.begun.discard(index)
        self._ended.add(index)
        return True


def _parts_done(
    parts: _Parts, content: Sequence[Any], *, before: int | None = None, keep: Any = ()
) -> Iterator[Callback]:
    """Yield the calls for the end of all parts, except `before`, which has just begun, and parts of the kind `keep`."""
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
    """Return whether the arguments of a call are a complete JSON object, to which nothing can be added."""
    raw = call.raw if isinstance(call, Unknown) else {}
    text = call.function.arguments if isinstance(call, FunctionToolCall) else raw.get("arguments")
    try:
        return isinstance(text, str) and isinstance(parse(text.encode("utf-8", "replace")), dict)
    except (ValueError, RecursionError):
        return False
