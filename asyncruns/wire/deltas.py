"""The contents of the deltas in a run's stream: https://platform.openai.com/docs/api-reference/assistants-streaming

The `index` of a piece is its place in the list that the delta adds to. If a server omits it, the piece's place in the
delta's own list counts.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET

from asyncruns.wire.codec import JsonText, Maybe, Object, PlainText, Unknown, may_be_text
from asyncruns.wire.steps import CodeInterpreterImageFile
from asyncruns.wire.threads import FileCitation, FilePath, ImageFile, ImageURL


class FileCitationDeltaAnnotation(Object, frozen=True, kw_only=True, tag_field="type", tag="file_citation"):
    """A place in the text that cites a file."""

    type: ClassVar[Literal["file_citation"]] = "file_citation"
    index: Maybe[int] = UNSET
    text: Maybe[str] = UNSET
    start_index: Maybe[int] = UNSET
    end_index: Maybe[int] = UNSET
    file_citation: Maybe[FileCitation] = UNSET


class FilePathDeltaAnnotation(Object, frozen=True, kw_only=True, tag_field="type", tag="file_path"):
    """A place in the text that names a file created by the code interpreter."""

    type: ClassVar[Literal["file_path"]] = "file_path"
    index: Maybe[int] = UNSET
    text: Maybe[str] = UNSET
    start_index: Maybe[int] = UNSET
    end_index: Maybe[int] = UNSET
    file_path: Maybe[FilePath] = UNSET


# A text comes in thousands of deltas. Their structs cannot be part of a reference cycle, so the garbage collector does
# not have to track them (`gc=False`).


class TextDelta(Object, frozen=True, kw_only=True, gc=False):
    """The next piece of a text."""

    value: Maybe[str] = UNSET
    annotations: Maybe[list[FileCitationDeltaAnnotation | FilePathDeltaAnnotation | Unknown]] = UNSET


class TextDeltaBlock(Object, frozen=True, kw_only=True, tag_field="type", tag="text", gc=False):
    """The next piece of a text part."""

    type: ClassVar[Literal["text"]] = "text"
    index: Maybe[int] = UNSET
    text: Maybe[Annotated[TextDelta, may_be_text(lambda text: {"value": text})]] = UNSET


class RefusalDeltaBlock(Object, frozen=True, kw_only=True, tag_field="type", tag="refusal", gc=False):
    """The next piece of a refusal, which the model writes instead of an answer."""

    type: ClassVar[Literal["refusal"]] = "refusal"
    index: Maybe[int] = UNSET
    refusal: Maybe[str] = UNSET


class ImageFileDeltaBlock(Object, frozen=True, kw_only=True, tag_field="type", tag="image_file"):
    """An image, given by its file."""

    type: ClassVar[Literal["image_file"]] = "image_file"
    index: Maybe[int] = UNSET
    image_file: Maybe[ImageFile] = UNSET


class ImageURLDeltaBlock(Object, frozen=True, kw_only=True, tag_field="type", tag="image_url"):
    """An image, given by its URL."""

    type: ClassVar[Literal["image_url"]] = "image_url"
    index: Maybe[int] = UNSET
    image_url: Maybe[ImageURL] = UNSET


MessageDeltaContent = TextDeltaBlock | RefusalDeltaBlock | ImageFileDeltaBlock | ImageURLDeltaBlock | Unknown

_AnyContent = Annotated[MessageDeltaContent, may_be_text(lambda text: {"type": "text", "text": {"value": text}})]


class MessageDeltaFields(Object, frozen=True, kw_only=True, gc=False):
    """The new parts of a message."""

    role: Maybe[str] = UNSET
    content: Maybe[Annotated[list[_AnyContent], may_be_text(lambda text: [text])]] = UNSET
    file_ids: Maybe[list[str]] = UNSET


class MessageDelta(Object, frozen=True, kw_only=True, gc=False):
    """An addition to the message `id`."""

    id: str
    object: str = "thread.message.delta"
    delta: MessageDeltaFields = MessageDeltaFields()

    @property
    def text(self) -> str:
        """The text that it adds; "" if it adds none."""
        blocks = self.delta.content or []
        return "".join(block.text.value or "" for block in blocks if isinstance(block, TextDeltaBlock) and block.text)


class MessageCreationDelta(Object, frozen=True, kw_only=True, gc=False):
    """The id of the message that the step creates."""

    message_id: Maybe[str] = UNSET


class MessageCreationDeltaDetails(Object, frozen=True, kw_only=True, tag_field="type", tag="message_creation"):
    """A step that creates a message."""

    type: ClassVar[Literal["message_creation"]] = "message_creation"
    message_creation: Maybe[Annotated[MessageCreationDelta, may_be_text(lambda text: {"message_id": text})]] = UNSET


class FunctionDelta(Object, frozen=True, kw_only=True, gc=False):
    """The next piece of a call of the caller's function: `arguments` is the next piece of their JSON text."""

    name: Maybe[str] = UNSET
    arguments: Maybe[JsonText] = UNSET
    output: Maybe[JsonText] = UNSET


class FunctionToolCallDelta(Object, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """The next piece of a call of a function; only the first piece has the `id`."""

    type: ClassVar[Literal["function"]] = "function"
    index: Maybe[int] = UNSET
    id: Maybe[str] = UNSET
    function: Maybe[FunctionDelta] = UNSET


class CodeInterpreterLogsDelta(Object, frozen=True, kw_only=True, tag_field="type", tag="logs", gc=False):
    """The next piece of the code's output text."""

    type: ClassVar[Literal["logs"]] = "logs"
    index: Maybe[int] = UNSET
    logs: Maybe[PlainText] = UNSET


class CodeInterpreterImageDelta(Object, frozen=True, kw_only=True, tag_field="type", tag="image"):
    """An image that the code created."""

    type: ClassVar[Literal["image"]] = "image"
    index: Maybe[int] = UNSET
    image: Maybe[CodeInterpreterImageFile] = UNSET


_AnyOutput = Annotated[
    CodeInterpreterLogsDelta | CodeInterpreterImageDelta | Unknown,
    may_be_text(lambda text: {"type": "logs", "logs": text}),
]


class CodeInterpreterDelta(Object, frozen=True, kw_only=True):
    """The next piece of the code, or of its outputs."""

    input: Maybe[str] = UNSET
    outputs: Maybe[Annotated[list[_AnyOutput], may_be_text(lambda text: [text])]] = UNSET


class CodeInterpreterToolCallDelta(Object, frozen=True, kw_only=True, tag_field="type", tag="code_interpreter"):
    """The next piece of a call of the code interpreter."""

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
    """A file search, as v1 of the API names it."""

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
    """The new parts of a step."""

    step_details: Maybe[MessageCreationDeltaDetails | ToolCallsDeltaDetails | Unknown] = UNSET


class RunStepDelta(Object, frozen=True, kw_only=True):
    """An addition to the step `id`."""

    id: str
    object: str = "thread.run.step.delta"
    delta: RunStepDeltaFields = RunStepDeltaFields()


def index_of(piece: object) -> int | None:
    """Return the `index` of a piece of a delta, whatever its type, or None if it has none."""
    found = piece.raw.get("index") if isinstance(piece, Unknown) else getattr(piece, "index", None)
    if isinstance(found, float) and found.is_integer():
        return int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def id_of(piece: object) -> str:
    """Return the `id` of a piece of a delta, whatever its type, or "" if it has none."""
    found = getattr(piece, "id", None)
    return found if isinstance(found, str) else ""
