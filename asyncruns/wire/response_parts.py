"""The parts of the messages of a response, and their annotations.

https://platform.openai.com/docs/api-reference/responses/object#responses-object-output
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from msgspec import UNSET

from asyncruns.wire.codec import Maybe, Object, PlainText, Unknown


class ResponseFileCitation(Object, frozen=True, kw_only=True, tag_field="type", tag="file_citation", gc=False):
    """A file that the text cites; `index` is its place in the list of files."""

    type: ClassVar[Literal["file_citation"]] = "file_citation"
    file_id: str = ""
    filename: Maybe[str] = UNSET
    index: Maybe[int] = UNSET


class ResponseURLCitation(Object, frozen=True, kw_only=True, tag_field="type", tag="url_citation", gc=False):
    """A web page that a place in the text cites."""

    type: ClassVar[Literal["url_citation"]] = "url_citation"
    url: str = ""
    title: Maybe[str] = UNSET
    start_index: Maybe[int] = UNSET
    end_index: Maybe[int] = UNSET


class ResponseContainerFileCitation(
    Object, frozen=True, kw_only=True, tag_field="type", tag="container_file_citation", gc=False
):
    """A file in a container of the code interpreter that a place in the text cites."""

    type: ClassVar[Literal["container_file_citation"]] = "container_file_citation"
    container_id: str = ""
    file_id: str = ""
    filename: Maybe[str] = UNSET
    start_index: Maybe[int] = UNSET
    end_index: Maybe[int] = UNSET


class ResponseFilePath(Object, frozen=True, kw_only=True, tag_field="type", tag="file_path", gc=False):
    """A file that the text names."""

    type: ClassVar[Literal["file_path"]] = "file_path"
    file_id: str = ""
    index: Maybe[int] = UNSET


ResponseAnnotation = (
    ResponseFileCitation | ResponseURLCitation | ResponseContainerFileCitation | ResponseFilePath | Unknown
)


class ResponseOutputText(Object, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    """Text that the model wrote, with its annotations, and with `logprobs` only if requested with `include`."""

    type: ClassVar[Literal["output_text"]] = "output_text"
    text: PlainText = ""
    annotations: Maybe[list[ResponseAnnotation]] = UNSET
    logprobs: Maybe[list[Any]] = UNSET


class ResponseOutputRefusal(Object, frozen=True, kw_only=True, tag_field="type", tag="refusal", gc=False):
    """A refusal, which the model wrote instead of an answer."""

    type: ClassVar[Literal["refusal"]] = "refusal"
    refusal: PlainText = ""


class ResponseInputText(Object, frozen=True, kw_only=True, tag_field="type", tag="input_text", gc=False):
    """Text that was passed to the model."""

    type: ClassVar[Literal["input_text"]] = "input_text"
    text: PlainText = ""


class ResponseInputImage(Object, frozen=True, kw_only=True, tag_field="type", tag="input_image", gc=False):
    """An image that was passed to the model, by its URL or its file."""

    type: ClassVar[Literal["input_image"]] = "input_image"
    detail: Maybe[str] = UNSET
    file_id: Maybe[str] = UNSET
    image_url: Maybe[str] = UNSET


class ResponseInputFile(Object, frozen=True, kw_only=True, tag_field="type", tag="input_file", gc=False):
    """A file that was passed to the model: its id, its URL or its contents."""

    type: ClassVar[Literal["input_file"]] = "input_file"
    file_id: Maybe[str] = UNSET
    file_url: Maybe[str] = UNSET
    file_data: Maybe[str] = UNSET
    filename: Maybe[str] = UNSET


ResponseContent = (
    ResponseOutputText | ResponseOutputRefusal | ResponseInputText | ResponseInputImage | ResponseInputFile | Unknown
)
