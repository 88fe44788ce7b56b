"""Objects that several parts of the wire share: times, lists, deletions, tools, token counts and errors.

Documentation of the objects: https://platform.openai.com/docs/api-reference/assistants
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar

from msgspec import UNSET

from asyncruns.wire.codec import Maybe, Object, Unknown

T = TypeVar("T")

Time = Maybe[int | float | str]
"""Seconds since the Unix epoch. Some servers send fractions, milliseconds or ISO strings; `epoch_seconds` reads all."""

# A time in 2025 is 1.75e9 in seconds and 1.75e12 in milliseconds. 1e11 s, and likewise 1e14 ms, is the year 5138.
_NO_TIME_FROM: Final = 1e14
_MILLISECONDS_ABOVE: Final = 1e11


def epoch_seconds(value: object) -> float | None:
    """Return a time of the wire in seconds since the Unix epoch, or None if there is none or it is malformed.

    Numbers above 1e11 are milliseconds. Strings are ISO 8601; one without a time zone is in UTC.
    """
    if isinstance(value, str):
        return _seconds_of_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 < value < _NO_TIME_FROM:  # some servers send 0 for "no time"
        return None
    return value / 1000.0 if value > _MILLISECONDS_ABOVE else float(value)


def count_in(details: object, name: str) -> int:
    """Return a number of tokens in an object of details; 0 if it is not there."""
    count = details.get(name) if isinstance(details, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else 0


def _seconds_of_text(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if seconds > 0 else None


Metadata = Maybe[dict[str, Any]]
"""At most 16 pairs of strings by the documentation; lenient servers also send other values."""


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
    # These two names are those of the wire, not of the documentation.
    prompt_token_details: Maybe[dict[str, Any]] = UNSET
    completion_tokens_details: Maybe[dict[str, Any]] = UNSET


class LastError(Object, frozen=True, kw_only=True, gc=False):
    """Why a run or a step failed.

    The set of codes is open. `rate_limit_exceeded` means here that the run has failed; it is no HTTP 429.
    """

    code: Maybe[str] = UNSET
    message: Maybe[str] = UNSET


class FunctionDefinition(Object, frozen=True, kw_only=True):
    """A function as the model knows it; `parameters` is its JSON Schema."""

    name: str = ""
    description: Maybe[str] = UNSET
    parameters: Maybe[dict[str, Any]] = UNSET
    strict: Maybe[bool] = UNSET


# Members of a union have a tag: msgspec checks and writes it as `type`, and it is no field of the struct. The ClassVar
# makes it readable as `tool.type`. `Unknown` takes all objects with other tags.


class FunctionTool(Object, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """A function that the caller runs."""

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
    """File search, as v1 of the API names it."""

    type: ClassVar[Literal["retrieval"]] = "retrieval"


Tool = FunctionTool | CodeInterpreterTool | FileSearchTool | RetrievalTool | Unknown


class CodeInterpreterResources(Object, frozen=True, kw_only=True):
    """Files that the code interpreter may read."""

    file_ids: Maybe[list[str]] = UNSET


class FileSearchResources(Object, frozen=True, kw_only=True):
    """Vector stores that file search may read."""

    vector_store_ids: Maybe[list[str]] = UNSET


class ToolResources(Object, frozen=True, kw_only=True):
    """Files and vector stores that the server's own tools may read."""

    code_interpreter: Maybe[CodeInterpreterResources] = UNSET
    file_search: Maybe[FileSearchResources] = UNSET


class ErrorObject(Object, frozen=True, kw_only=True, gc=False):
    """A server's error; `code` is null in about half of them."""

    message: Maybe[str] = UNSET
    type: Maybe[str] = UNSET
    param: Maybe[str] = UNSET
    code: Maybe[str | int] = UNSET


class ErrorBody(Object, frozen=True, kw_only=True):
    """All the shapes in which servers send an error, in one struct.

    `{"error": {...}}`, `{"error": "text"}`, `{"detail": ...}`, and the flat `{"code", "message", "request_id"}`.
    """

    error: Maybe[ErrorObject | str] = UNSET
    detail: Any = UNSET
    code: Maybe[str | int] = UNSET
    message: Maybe[str] = UNSET
    request_id: Maybe[str] = UNSET
