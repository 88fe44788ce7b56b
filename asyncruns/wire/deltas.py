"""What the deltas of a stream of a run carry: https://platform.openai.com/docs/api-reference/assistants-streaming

A delta names what it belongs to by `index`; a server that leaves it out means the place in the list.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET

from asyncruns.wire.codec import JsonText, Maybe, Object, PlainText, Unknown, may_be_text
from asyncruns.wire.steps import CodeInterpreterImageFile
from asyncruns.wire.threads import FileCitation, FilePath, ImageFile, ImageURL


class FileCitationDeltaAnnotation(Object, frozen=True, kw_only=True, tag_field="type", tag="file_citation"):
    """A place in the text that stands on a file."""

    type: ClassVar[Literal["file_citation"]] = "file_citation"
    index: Maybe[int] = UNSET
    text: Maybe[str] = UNSET
    start_index: Maybe[int] = UNSET
    end_index: Maybe[int] = UNSET
    file_citation: Maybe[FileCitation] = UNSET


class FilePathDeltaAnnotation(Object, frozen=True, kw_only=True, tag_field="type", tag="file_path"):
    """A place in the text that names a file which the code interpreter made."""

    type: ClassVar[Literal["file_path"]] = "file_path"
    index: Maybe[int] = UNSET
    text: Maybe[str] = UNSET
    start_index: Maybe[int] = UNSET
    end_index: Maybe[int] = UNSET
    file_path: Maybe[FilePath] = UNSET


# A text comes in thousands of pieces; what one is made of cannot refer to itself, so it is kept from the collector.


class TextDelta(Object, frozen=True, kw_only=True, gc=False):
    """More of a text."""

    value: Maybe[str] = UNSET
    annotations: Maybe[list[FileCitationDeltaAnnotation | FilePathDeltaAnnotation | Unknown]] = UNSET


class TextDeltaBlock(Object, frozen=True, kw_only=True, tag_field="type", tag="text", gc=False):
    """More of a text part."""

    type: ClassVar[Literal["text"]] = "text"
    index: Maybe[int] = UNSET
    text: Maybe[Annotated[TextDelta, may_be_text(lambda text: {"value": text})]] = UNSET


class RefusalDeltaBlock(Object, frozen=True, kw_only=True, tag_field="type", tag="refusal", gc=False):
    """More of what the model says instead of an answer."""

    type: ClassVar[Literal["refusal"]] = "refusal"
    index: Maybe[int] = UNSET
    refusal: Maybe[str] = UNSET


class ImageFileDeltaBlock(Object, frozen=True, kw_only=True, tag_field="type", tag="image_file"):
    """An image by its file."""

    type: ClassVar[Literal["image_file"]] = "image_file"
    index: Maybe[int] = UNSET
    image_file: Maybe[ImageFile] = UNSET


class ImageURLDeltaBlock(Object, frozen=True, kw_only=True, tag_field="type", tag="image_url"):
    """An image by its address."""

    type: ClassVar[Literal["image_url"]] = "image_url"
    index: Maybe[int] = UNSET
    image_url: Maybe[ImageURL] = UNSET


MessageDeltaContent = TextDeltaBlock | RefusalDeltaBlock | ImageFileDeltaBlock | ImageURLDeltaBlock | Unknown

_AnyContent = Annotated[MessageDeltaContent, may_be_text(lambda text: {"type": "text", "text": {"value": text}})]


class MessageDeltaFields(Object, frozen=True, kw_only=True, gc=False):
    """What is new in a message."""

    role: Maybe[str] = UNSET
    content: Maybe[Annotated[list[_AnyContent], may_be_text(lambda text: [text])]] = UNSET
    file_ids: Maybe[list[str]] = UNSET


class MessageDelta(Object, frozen=True, kw_only=True, gc=False):
    """A change of the message `id`."""

    id: str
    object: str = "thread.message.delta"
    delta: MessageDeltaFields = MessageDeltaFields()

    @property
    def text(self) -> str:
        """The text that it adds; "" where it adds none."""
        blocks = self.delta.content or []
        return "".join(block.text.value or "" for block in blocks if isinstance(block, TextDeltaBlock) and block.text)


class MessageCreationDelta(Object, frozen=True, kw_only=True, gc=False):
    """Which message the step makes."""

    message_id: Maybe[str] = UNSET


class MessageCreationDeltaDetails(Object, frozen=True, kw_only=True, tag_field="type", tag="message_creation"):
    """A step that makes a message."""

    type: ClassVar[Literal["message_creation"]] = "message_creation"
    message_creation: Maybe[Annotated[MessageCreationDelta, may_be_text(lambda text: {"message_id": text})]] = UNSET


class FunctionDelta(Object, frozen=True, kw_only=True, gc=False):
    """More of a call of the caller's function: `arguments` is the next piece of its JSON text."""

    name: Maybe[str] = UNSET
    arguments: Maybe[JsonText] = UNSET
    output: Maybe[JsonText] = UNSET


class FunctionToolCallDelta(Object, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """More of a call of a function; its `id` comes with the first piece only."""

    type: ClassVar[Literal["function"]] = "function"
    index: Maybe[int] = UNSET
    id: Maybe[str] = UNSET
    function: Maybe[FunctionDelta] = UNSET


class CodeInterpreterLogsDelta(Object, frozen=True, kw_only=True, tag_field="type", tag="logs", gc=False):
    """More of what the code wrote."""

    type: ClassVar[Literal["logs"]] = "logs"
    index: Maybe[int] = UNSET
    logs: Maybe[PlainText] = UNSET


class CodeInterpreterImageDelta(Object, frozen=True, kw_only=True, tag_field="type", tag="image"):
    """An image that the code made."""

    type: ClassVar[Literal["image"]] = "image"
    index: Maybe[int] = UNSET
    image: Maybe[CodeInterpreterImageFile] = UNSET


_AnyOutput = Annotated[
    CodeInterpreterLogsDelta | CodeInterpreterImageDelta | Unknown,
    may_be_text(lambda text: {"type": "logs", "logs": text}),
]


class CodeInterpreterDelta(Object, frozen=True, kw_only=True):
    """More of the code, or of what came of it."""

    input: Maybe[str] = UNSET
    outputs: Maybe[Annotated[list[_AnyOutput], may_be_text(lambda text: [text])]] = UNSET


class CodeInterpreterToolCallDelta(Object, frozen=True, kw_only=True, tag_field="type", tag="code_interpreter"):
    """More of a call of the code interpreter."""

    type: ClassVar[Literal["code_interpreter"]] = "code_interpreter"
    index: Maybe[int] = UNSET
    id: Maybe[str] = UNSET
    code_interpreter: Maybe[CodeInterpreterDelta] = UNSET


class FileSearchToolCallDelta(Object, frozen=True, kw_only=True, tag_field="type", tag="file_search"):
    """A file search."""

    type: ClassVar[Literal["file_search"]] = "file_search"
    index: Maybe[int] = UNSET
    id: Maybe[str] = UNSET
    file_search: Maybe[dict[str, Any]] = UNSET


class RetrievalToolCallDelta(Object, frozen=True, kw_only=True, tag_field="type", tag="retrieval"):
    """What a file search was called in v1."""

    type: ClassVar[Literal["retrieval"]] = "retrieval"
    index: Maybe[int] = UNSET
    id: Maybe[str] = UNSET
    retrieval: Maybe[dict[str, Any]] = UNSET


ToolCallDelta = (
    FunctionToolCallDelta | CodeInterpreterToolCallDelta | FileSearchToolCallDelta | RetrievalToolCallDelta | Unknown
)


class ToolCallsDeltaDetails(Object, frozen=True, kw_only=True, tag_field="type", tag="tool_calls"):
    """A step that calls tools."""

    type: ClassVar[Literal["tool_calls"]] = "tool_calls"
    tool_calls: Maybe[list[ToolCallDelta]] = UNSET


class RunStepDeltaFields(Object, frozen=True, kw_only=True):
    """What is new in a step."""

    step_details: Maybe[MessageCreationDeltaDetails | ToolCallsDeltaDetails | Unknown] = UNSET


class RunStepDelta(Object, frozen=True, kw_only=True):
    """A change of the step `id`."""

    id: str
    object: str = "thread.run.step.delta"
    delta: RunStepDeltaFields = RunStepDeltaFields()


def index_of(piece: object) -> int | None:
    """Return the `index` that a piece of a delta names, whatever its type; None if it names none."""
    found = piece.raw.get("index") if isinstance(piece, Unknown) else getattr(piece, "index", None)
    if isinstance(found, float) and found.is_integer():
        return int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def id_of(piece: object) -> str:
    """Return the `id` that a piece of a delta names, whatever its type, or ""."""
    found = getattr(piece, "id", None)
    return found if isinstance(found, str) else ""
