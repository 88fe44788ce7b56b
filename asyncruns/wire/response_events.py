"""The events of a response's stream: https://platform.openai.com/docs/api-reference/responses-streaming

Events with the same fields share a struct; `type` distinguishes them, and its set is open. A stream that broke is
reopened after the last `sequence_number` received, with `starting_after`. Decoding never raises, whatever a server
sends.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from asyncruns.wire.codec import Maybe, Object, convert, decoder, parse
from asyncruns.wire.response_items import ReasoningText, ResponseItem
from asyncruns.wire.response_parts import ResponseAnnotation, ResponseContent
from asyncruns.wire.responses import ModelResponse
from asyncruns.wire.stream_events import (
    DONE,
    DoneEvent,
    ErrorEvent,
    UndecodableEvent,
    UnknownEvent,
    error_in,
    is_expected,
)


class _Event(Object, frozen=True, kw_only=True):
    type: str = ""
    sequence_number: Maybe[int] = UNSET

    @property
    def event(self) -> str:
        """Its type, under the attribute name that the events of runs have for it."""
        return self.type


class _ItemEvent(_Event, frozen=True, kw_only=True):
    item_id: str = ""
    output_index: Maybe[int] = UNSET
    content_index: Maybe[int] = UNSET
    summary_index: Maybe[int] = UNSET
    command_index: Maybe[int] = UNSET


class ResponseEvent(_Event, frozen=True, kw_only=True):
    """`response.created`, `.queued`, `.in_progress`, `.completed` ...: the response changed.

    The `status` of the response counts, not the type of the event.
    """

    response: ModelResponse


class ResponseOutputItemEvent(_Event, frozen=True, kw_only=True):
    """`response.output_item.added` and `.done`: an item of the output in its present state."""

    item: ResponseItem
    output_index: Maybe[int] = UNSET


class ResponseContentPartEvent(_ItemEvent, frozen=True, kw_only=True):
    """`response.content_part.added` and `.done`: a part of a message in its present state."""

    part: ResponseContent


class ResponseReasoningPartEvent(_ItemEvent, frozen=True, kw_only=True):
    """`response.reasoning_summary_part.added` and `.done`: a part of a summary in its present state."""

    part: ReasoningText
    status: Maybe[str] = UNSET


class ResponseTextDeltaEvent(_ItemEvent, frozen=True, kw_only=True):
    """`response.output_text.delta`: the next piece of the model's text."""

    delta: str
    logprobs: Maybe[list[Any]] = UNSET


class ResponseDeltaEvent(_ItemEvent, frozen=True, kw_only=True):
    """`response.*.delta`: the next piece of arguments, code, reasoning, a refusal, audio, shell output and the like."""

    delta: Maybe[str | dict[str, Any]] = UNSET


class ResponseDoneEvent(_ItemEvent, frozen=True, kw_only=True):
    """`response.*.done`: the whole of what came in deltas, in the field that the API has for it."""

    text: Maybe[str] = UNSET
    refusal: Maybe[str] = UNSET
    arguments: Maybe[str] = UNSET
    input: Maybe[str] = UNSET
    code: Maybe[str] = UNSET
    command: Maybe[str] = UNSET
    output: Maybe[list[Any]] = UNSET
    logprobs: Maybe[list[Any]] = UNSET


class ResponseToolEvent(_ItemEvent, frozen=True, kw_only=True):
    """`response.web_search_call.searching` and the like: the progress of one of the server's own tools."""

    command: Maybe[str] = UNSET


class ResponseAnnotationEvent(_ItemEvent, frozen=True, kw_only=True):
    """`response.output_text.annotation.added`: a new annotation of the model's text."""

    annotation: Maybe[ResponseAnnotation] = UNSET
    annotation_index: Maybe[int] = UNSET


class ResponseImageEvent(_ItemEvent, frozen=True, kw_only=True):
    """`response.image_generation_call.partial_image`: a preview of an image, in base64."""

    partial_image_b64: str = ""
    partial_image_index: Maybe[int] = UNSET
    background: Maybe[str] = UNSET
    output_format: Maybe[str] = UNSET
    quality: Maybe[str] = UNSET
    size: Maybe[str] = UNSET


TypedResponseEvent = (
    ResponseEvent
    | ResponseOutputItemEvent
    | ResponseContentPartEvent
    | ResponseReasoningPartEvent
    | ResponseTextDeltaEvent
    | ResponseDeltaEvent
    | ResponseDoneEvent
    | ResponseToolEvent
    | ResponseAnnotationEvent
    | ResponseImageEvent
)
ResponseStreamEvent = TypedResponseEvent | ErrorEvent | DoneEvent | UnknownEvent | UndecodableEvent

# The types of each struct's events, without "response.". Other types are `UnknownEvent`s.
_TYPES: Final[dict[Any, str]] = {
    ResponseEvent: "created queued in_progress completed failed incomplete cancelled",
    ResponseOutputItemEvent: "output_item.added output_item.done",
    ResponseContentPartEvent: "content_part.added content_part.done",
    ResponseReasoningPartEvent: "reasoning_summary_part.added reasoning_summary_part.done",
    ResponseTextDeltaEvent: "output_text.delta",
    ResponseDeltaEvent: (
        "audio.delta audio.transcript.delta code_interpreter_call_code.delta custom_tool_call_input.delta "
        "function_call_arguments.delta mcp_call_arguments.delta reasoning_summary_text.delta reasoning_text.delta "
        "refusal.delta shell_call_command.delta shell_call_output_content.delta"
    ),
    ResponseDoneEvent: (
        "audio.done audio.transcript.done code_interpreter_call_code.done custom_tool_call_input.done "
        "function_call_arguments.done mcp_call_arguments.done output_text.done reasoning_summary_text.done "
        "reasoning_text.done refusal.done shell_call_command.done shell_call_output_content.done"
    ),
    ResponseToolEvent: (
        "code_interpreter_call.completed code_interpreter_call.in_progress code_interpreter_call.interpreting "
        "compaction.compacting file_search_call.completed file_search_call.in_progress file_search_call.searching "
        "image_generation_call.completed image_generation_call.generating image_generation_call.in_progress "
        "mcp_call.completed mcp_call.failed mcp_call.in_progress mcp_list_tools.completed mcp_list_tools.failed "
        "mcp_list_tools.in_progress shell_call_command.added web_search_call.completed web_search_call.in_progress "
        "web_search_call.searching"
    ),
    ResponseAnnotationEvent: "output_text.annotation.added",
    ResponseImageEvent: "image_generation_call.partial_image",
}
TEXT_DELTA: Final = "response.output_text.delta"
RESPONSE_EVENTS: Final = frozenset(f"response.{name}" for name in _TYPES[ResponseEvent].split())
_BY_TYPE: Final = {f"response.{name}": kind for kind, names in _TYPES.items() for name in names.split()}


def decode_response_event(name: str, text: str) -> ResponseStreamEvent:
    """Decode an event of a response's stream. Never raises.

    Args:
        name: The event's name, "message" if the server sent none.
        text: The event's data.
    """
    # The fast way: the name decides the struct, if the type in the data is the same.
    kind = _BY_TYPE.get(name)
    if kind is not None:
        try:
            event: ResponseStreamEvent = decoder(kind).decode(text)
        except (ValueError, RecursionError):
            pass
        else:
            if event.event == name:
                return event
    return _decode_openly(name, text, kind)


def _decode_openly(name: str, text: str, kind: Any) -> ResponseStreamEvent:
    # The type in the data counts; the name is used only if the data has no known type.
    if name == "done" or text.strip() == DONE:
        return DoneEvent(name, text)
    if name == "error":
        return ErrorEvent(name, error_in(text))
    try:
        raw = parse(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        return UndecodableEvent(name, text, str(error)) if is_expected(name, kind) else UnknownEvent(name, text)
    if not isinstance(raw, dict):
        return UnknownEvent(name, text) if kind is None else UndecodableEvent(name, text, "Expected an object")
    said = raw.get("type")
    if said == "error" or (said is None and kind is None and raw.get("error")):
        return ErrorEvent(name, error_in(text))
    kind = _BY_TYPE.get(said, kind) if isinstance(said, str) else kind
    if kind is None:
        return UnknownEvent(name, text)
    try:
        found: ResponseStreamEvent = convert({**raw, "type": said if isinstance(said, str) and said else name}, kind)
    except (ValueError, RecursionError) as error:
        return UndecodableEvent(name, text, str(error))
    return found


_PARTS: Final = {
    "output_text": ("message", "content", "output_text", "text"),
    "refusal": ("message", "content", "refusal", "refusal"),
    "reasoning_text": ("reasoning", "content", "reasoning_text", "text"),
    "reasoning_summary_text": ("reasoning", "summary", "summary_text", "text"),
    "function_call_arguments": ("function_call", "", "", "arguments"),
    "mcp_call_arguments": ("mcp_call", "", "", "arguments"),
    "custom_tool_call_input": ("custom_tool_call", "", "", "input"),
    "code_interpreter_call_code": ("code_interpreter_call", "", "", "code"),
}
FIELDS: Final = {f"response.{name}.delta": where for name, where in _PARTS.items()}
"""Where a delta is added: the item's type, its list of parts ("" for the item itself), the part's type, the field."""
DONE_FIELDS: Final = {f"response.{name}.done": where for name, where in _PARTS.items()}
"""The same for the event with the whole value."""
