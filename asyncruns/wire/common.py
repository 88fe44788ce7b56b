"""What the objects of the wire have in common: lists, deletions, tools, token counts, the error object.

Descriptions of the objects: https://platform.openai.com/docs/api-reference/assistants
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar

from msgspec import UNSET

from asyncruns.wire.codec import Maybe, Object, Unknown

T = TypeVar("T")

Time = Maybe[int | float | str]
"""Seconds of the Unix epoch; some servers send fractions, milliseconds or ISO texts: `epoch_seconds` reads them all."""

_NO_TIME_FROM: Final = 1e14  # nor a millisecond
_MILLISECONDS_ABOVE: Final = 1e11  # no second of the epoch is so large before the year 5138


def epoch_seconds(value: object) -> float | None:
    """Give a time of the wire in seconds of the Unix epoch; None where there is none, or none that can be read.

    Milliseconds (above 1e11) and ISO 8601 texts are understood; a text without a zone is UTC.
    """
    if isinstance(value, str):
        return _seconds_of_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 < value < _NO_TIME_FROM:  # 0 stands for none at some servers
        return None
    return value / 1000.0 if value > _MILLISECONDS_ABOVE else float(value)


def _seconds_of_text(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if seconds > 0 else None


Metadata = Maybe[dict[str, Any]]
"""Up to 16 pairs; strings in the documentation, and other things at lenient servers."""


class Page(Object, Generic[T], frozen=True, kw_only=True):
    """One page of a list."""

    data: list[T]
    object: str = "list"
    first_id: Maybe[str] = UNSET
    last_id: Maybe[str] = UNSET
    has_more: Maybe[bool] = UNSET


class Deleted(Object, frozen=True, kw_only=True, gc=False):
    """The answer to a deletion."""

    id: str
    object: str = ""
    deleted: bool = True


class Usage(Object, frozen=True, kw_only=True):
    """Tokens that a run or a step used."""

    prompt_tokens: Maybe[int] = UNSET
    completion_tokens: Maybe[int] = UNSET
    total_tokens: Maybe[int] = UNSET
    # So spelled on the wire, and not in the documentation.
    prompt_token_details: Maybe[dict[str, Any]] = UNSET
    completion_tokens_details: Maybe[dict[str, Any]] = UNSET


class LastError(Object, frozen=True, kw_only=True, gc=False):
    """Why a run or a step failed. The code is open; `rate_limit_exceeded` here is a failed run, not an HTTP 429."""

    code: Maybe[str] = UNSET
    message: Maybe[str] = UNSET


class FunctionDefinition(Object, frozen=True, kw_only=True):
    """A function as the model knows it; `parameters` is its JSON Schema."""

    name: str = ""
    description: Maybe[str] = UNSET
    parameters: Maybe[dict[str, Any]] = UNSET
    strict: Maybe[bool] = UNSET


class FunctionTool(Object, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """A function of the caller's."""

    type: ClassVar[Literal["function"]] = "function"
    function: FunctionDefinition = FunctionDefinition()


class CodeInterpreterTool(Object, frozen=True, kw_only=True, tag_field="type", tag="code_interpreter"):
    """The server's own code interpreter."""

    type: ClassVar[Literal["code_interpreter"]] = "code_interpreter"


class FileSearchTool(Object, frozen=True, kw_only=True, tag_field="type", tag="file_search"):
    """The server's own file search; `file_search` holds its options."""

    type: ClassVar[Literal["file_search"]] = "file_search"
    file_search: Maybe[dict[str, Any]] = UNSET


class RetrievalTool(Object, frozen=True, kw_only=True, tag_field="type", tag="retrieval"):
    """What file search was called in v1."""

    type: ClassVar[Literal["retrieval"]] = "retrieval"


Tool = FunctionTool | CodeInterpreterTool | FileSearchTool | RetrievalTool | Unknown


class CodeInterpreterResources(Object, frozen=True, kw_only=True):
    """Files that the code interpreter may read."""

    file_ids: Maybe[list[str]] = UNSET


class FileSearchResources(Object, frozen=True, kw_only=True):
    """Vector stores that file search may read."""

    vector_store_ids: Maybe[list[str]] = UNSET


class ToolResources(Object, frozen=True, kw_only=True):
    """What the server's own tools may read."""

    code_interpreter: Maybe[CodeInterpreterResources] = UNSET
    file_search: Maybe[FileSearchResources] = UNSET


class ErrorObject(Object, frozen=True, kw_only=True, gc=False):
    """The server's error; `code` is null about half of the time."""

    message: Maybe[str] = UNSET
    type: Maybe[str] = UNSET
    param: Maybe[str] = UNSET
    code: Maybe[str | int] = UNSET


class ErrorBody(Object, frozen=True, kw_only=True):
    """The shapes in which servers send an error, one beside the other.

    `{"error": {...}}`, `{"error": "text"}`, `{"detail": ...}`, and flat `{"code", "message", "request_id"}`.
    """

    error: Maybe[ErrorObject | str] = UNSET
    detail: Any = UNSET
    code: Maybe[str | int] = UNSET
    message: Maybe[str] = UNSET
    request_id: Maybe[str] = UNSET
