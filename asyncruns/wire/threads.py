"""Threads and messages: https://platform.openai.com/docs/api-reference/messages/object"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import UNSET

from asyncruns.wire.codec import Maybe, Object, Unknown, may_be_text, text_of_unknown
from asyncruns.wire.common import Metadata, Time, Tool, ToolResources
from asyncruns.wire.runs import IncompleteDetails


class Thread(Object, frozen=True, kw_only=True):
    """A conversation."""

    id: str
    object: str = "thread"
    created_at: Time = UNSET
    metadata: Metadata = UNSET
    tool_resources: Maybe[ToolResources] = UNSET


class FileCitation(Object, frozen=True, kw_only=True, gc=False):
    """The file that a text cites; only v1 of the API has `quote`."""

    file_id: str = ""
    quote: Maybe[str] = UNSET


class FilePath(Object, frozen=True, kw_only=True, gc=False):
    """A file that the code interpreter created."""

    file_id: str = ""


class ImageFile(Object, frozen=True, kw_only=True, gc=False):
    """A file with an image; `detail` is "auto", "low" or "high"."""

    file_id: str = ""
    detail: Maybe[str] = UNSET


class ImageURL(Object, frozen=True, kw_only=True, gc=False):
    """The URL of an image; `detail` is "auto", "low" or "high"."""

    url: str = ""
    detail: Maybe[str] = UNSET


class FileCitationAnnotation(Object, frozen=True, kw_only=True, tag_field="type", tag="file_citation"):
    """A place in the text that cites a file."""

    type: ClassVar[Literal["file_citation"]] = "file_citation"
    text: str = ""
    start_index: Maybe[int] = UNSET
    end_index: Maybe[int] = UNSET
    file_citation: Maybe[FileCitation] = UNSET


class FilePathAnnotation(Object, frozen=True, kw_only=True, tag_field="type", tag="file_path"):
    """A place in the text that names a file created by the code interpreter."""

    type: ClassVar[Literal["file_path"]] = "file_path"
    text: str = ""
    start_index: Maybe[int] = UNSET
    end_index: Maybe[int] = UNSET
    file_path: Maybe[FilePath] = UNSET


class Text(Object, frozen=True, kw_only=True):
    """A text with its annotations."""

    value: str = ""
    annotations: Maybe[list[FileCitationAnnotation | FilePathAnnotation | Unknown]] = UNSET


class TextContentBlock(Object, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """A text part."""

    type: ClassVar[Literal["text"]] = "text"
    text: Annotated[Text, may_be_text(lambda text: {"value": text})] = Text()


class ImageFileContentBlock(Object, frozen=True, kw_only=True, tag_field="type", tag="image_file"):
    """An image, given by its file."""

    type: ClassVar[Literal["image_file"]] = "image_file"
    image_file: ImageFile = ImageFile()


class ImageURLContentBlock(Object, frozen=True, kw_only=True, tag_field="type", tag="image_url"):
    """An image, given by its URL."""

    type: ClassVar[Literal["image_url"]] = "image_url"
    image_url: ImageURL = ImageURL()


class RefusalContentBlock(Object, frozen=True, kw_only=True, tag_field="type", tag="refusal"):
    """A refusal, which the model wrote instead of an answer."""

    type: ClassVar[Literal["refusal"]] = "refusal"
    refusal: str = ""


MessageContent = TextContentBlock | ImageFileContentBlock | ImageURLContentBlock | RefusalContentBlock | Unknown

_AnyContent = Annotated[MessageContent, may_be_text(lambda text: {"type": "text", "text": {"value": text}})]


class Attachment(Object, frozen=True, kw_only=True):
    """A file attached to a message, and the tools that may read it."""

    file_id: Maybe[str] = UNSET
    tools: Maybe[list[Tool]] = UNSET


class Message(Object, frozen=True, kw_only=True):
    """A message. Its `status`, and the fields that belong to it, are only sent in streams."""

    id: str
    object: str = "thread.message"
    created_at: Time = UNSET
    thread_id: str = ""
    role: str = ""
    content: Maybe[Annotated[list[_AnyContent], may_be_text(lambda text: [text])]] = UNSET
    assistant_id: Maybe[str] = UNSET
    run_id: Maybe[str] = UNSET
    attachments: Maybe[list[Attachment]] = UNSET
    file_ids: Maybe[list[str]] = UNSET
    metadata: Metadata = UNSET
    status: Maybe[str] = UNSET
    completed_at: Time = UNSET
    incomplete_at: Time = UNSET
    incomplete_details: Maybe[IncompleteDetails] = UNSET

    @property
    def text(self) -> str:
        """Its text parts, joined; "" for a message without text."""
        return "".join(_text_in(block) for block in self.content or [])

    @property
    def refusal(self) -> str:
        """What the model wrote instead of an answer, if it refused; otherwise ""."""
        blocks = self.content or []
        return "".join(block.refusal for block in blocks if isinstance(block, RefusalContentBlock))


def _text_in(block: MessageContent) -> str:
    if isinstance(block, TextContentBlock):
        return block.text.value
    return text_of_unknown(block) if isinstance(block, Unknown) else ""
