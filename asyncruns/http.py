"""HTTP requests and responses as plain values, and functions that build paths and queries and read headers.

Does no I/O. Milliseconds of the wire are converted here: everywhere else durations are in seconds.
"""

from __future__ import annotations

import datetime
import decimal
import email.utils
import enum
import math
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from functools import lru_cache
from itertools import chain
from typing import Final
from urllib.parse import quote, unquote

from msgspec import Struct

from asyncruns.errors import InvalidRequestError

Query = tuple[tuple[str, str], ...]


class Upload(ABC):
    """A body that is sent piece by piece and never held whole, such as that of a file.

    Attributes:
        size: Its length in bytes.
        content_type: What the header `Content-Type` says.
    """

    size: int
    content_type: str

    @abstractmethod
    def open(self) -> AsyncGenerator[bytes]:
        """Return the pieces from the beginning; may be called again, for another attempt. The caller closes it.

        Raises:
            Exception: While iterating, if the body can't be read, or was changed. `Transport.send` raises it, too.
        """


async def pieces_of(upload: Upload) -> AsyncGenerator[bytes]:
    """Yield the pieces of an upload, never more bytes than its size. The caller closes the generator.

    Raises:
        InvalidRequestError: The upload has another size than it says.
        Exception: What the upload raises.
    """
    left = upload.size
    async with aclosing(upload.open()) as pieces:
        async for piece in pieces:
            left -= len(piece)
            if left < 0:
                break
            yield piece
    if left:
        found = "more" if left < 0 else f"{left} fewer"
        raise InvalidRequestError(f"{upload!r} has {found} bytes than its size, {upload.size}; was it changed?")


class Request(Struct, frozen=True):
    """One request, relative to the base URL.

    Attributes:
        method: The HTTP method.
        path: Begins with a slash; each segment is already quoted (see `join_path`).
        query: Pairs, in order; a name may occur more than once.
        body: JSON bytes, or None.
        headers: Sent in addition to the headers that every request of the client has.
        timeout: Seconds for this request, infinity for no limit; None is the client's own.
        upload: A body that is sent piece by piece, in place of `body`; None without one.
    """

    method: str
    path: str
    query: Query = ()
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    timeout: float | None = None
    upload: Upload | None = None

    def __repr__(self) -> str:
        # A header, a query or a body may hold a credential.
        return f"<Request {self.method} {self.path}>"


class Response(Struct, frozen=True):
    """One response.

    Attributes:
        status: The HTTP status.
        headers: A mapping that finds names in lower case.
        body: The body, complete and decompressed.
        attempts: What earlier attempts of the same request came to, for messages.
        redact: Removes credentials from bytes that are to be shown; None if there are none to remove. The body of an
            error response is already redacted.
        base_url: The URL at which the API begins, for messages; "" if the transport does not know it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    attempts: tuple[str, ...] = ()
    redact: Callable[[bytes], bytes] | None = None
    base_url: str = ""


# Paths

_PLAIN_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_-]+)+")
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN_ID_CHARACTERS: Final = 80


def join_path(*segments: str) -> str:
    """Return the path of these segments, ids among them, each quoted so that it remains one segment.

    Raises:
        InvalidRequestError: A segment is not a string, is empty, or has a step in a path (`.` or `..`), plain or
            encoded, alone or beside a slash: URL libraries and proxies resolve those, quoted or not.
    """
    try:
        path = "/" + "/".join(segments)
    except TypeError:  # a segment is no string, which is reported below
        path = ""
    if _PLAIN_PATH.fullmatch(path) and path.count("/") == len(segments):  # the usual case, at once
        return path
    return "/" + "/".join(
        [segment if _is_plain(segment) else _quoted(segments, place) for place, segment in enumerate(segments)]
    )


def _is_plain(segment: object) -> bool:
    return isinstance(segment, str) and _PLAIN_ID.fullmatch(segment) is not None


def _quoted(segments: tuple[str, ...], place: int) -> str:
    name = _name_of_id(segments[:place])
    segment = require_id(name, segments[place])
    decoded = segment  # each layer between us and the server may decode once: "%252e%252e" -> "%2e%2e" -> ".."
    while (once_more := unquote(decoded)) != decoded:
        decoded = once_more
    if not decoded.strip() or not {".", ".."}.isdisjoint(re.split(r"[/\\]", decoded)):
        problem = "it is blank, or would be resolved as `.` or `..` in a path"
        raise InvalidRequestError(f"{name} {_shown(segment)} is not an id: {problem}")
    try:
        return quote(segment, safe="")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{name} {_shown(segment)} is not an id: it cannot be encoded as UTF-8") from error


def _name_of_id(before: tuple[str, ...]) -> str:
    """Return the name of the id that follows these segments: /threads/{thread_id}/runs/{run_id}."""
    if before[-1:] == ("batches",):
        return "message_batch_id" if before[-2:-1] == ("messages",) else "batch_id"
    return f"{before[-1].removesuffix('s')}_id" if before else "id"


def require_id(name: str, value: object) -> str:
    """Return an id as a string; an enum member as its value.

    Args:
        name: The parameter's name, for the message.
        value: The id.

    Raises:
        InvalidRequestError: It does not stand for a string (see `as_text`), or is blank.
    """
    text = as_text(value)
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequestError(f"{name} must be a non-empty string, got {_shown(value)}{_own_id_of(name, value)}")
    return text


def _own_id_of(name: str, value: object) -> str:
    """Return the hint to pass the id of an object that has one, in place of the object; otherwise ""."""
    what = name.removesuffix("_id")
    if isinstance(value, Mapping):
        return f': pass its id, {what}["id"]' if isinstance(value.get("id"), str) else ""
    return f": pass its id, {what}.id" if isinstance(getattr(value, "id", None), str) else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_ID_CHARACTERS else text[:_SHOWN_ID_CHARACTERS] + "..."


# Headers

# Both in the order in which they are tried.
_MILLISECONDS: Final = ("openai-poll-after-ms", "retry-after-ms", "x-ms-retry-after-ms")
_REQUEST_IDS: Final = ("x-request-id", "x-portkey-request-id", "apim-request-id", "x-ms-request-id", "request-id")


def wait_hint(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the server asks the client to wait, or None. Zero and negative values are not changed.

    Reads the first valid one of `openai-poll-after-ms`, `retry-after-ms` and `x-ms-retry-after-ms`, then `Retry-After`
    (seconds or a date, https://www.rfc-editor.org/rfc/rfc9110#name-retry-after). A date counts from the server's own
    `Date`; without that it is ignored, since our clock may differ.
    """
    for name in _MILLISECONDS:
        value = _number(headers.get(name))
        if value is not None:
            return value / 1000.0
    text = headers.get("retry-after")
    if text is None:
        return None
    seconds = _number(text)
    if seconds is not None:
        return seconds
    until, now = _http_date(text), server_time(headers)
    return None if until is None or now is None else until - now


def server_time(headers: Mapping[str, str]) -> float | None:
    """Return the server's time, from `Date`, in seconds since the epoch; None if that is missing or malformed."""
    text = headers.get("date")
    return None if text is None else _http_date(text)


class RateLimit(Struct, frozen=True, gc=False):
    """The number of requests that a server still accepts.

    Attributes:
        remaining: Number of requests until the reset.
        limit: Number of requests between two resets; None if the server does not say.
        reset: Seconds until the full limit is available again; None if the server does not say.
    """

    remaining: float
    limit: float | None = None
    reset: float | None = None


# "(?!s)": in "120ms" the "m" does not mean minutes.
_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d*)?|\.\d+)s)?(?:(\d+(?:\.\d*)?|\.\d+)ms)?")


def rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Return the rate limit in `x-ratelimit-remaining-requests`, `-limit-requests` and `-reset-requests`, or None.

    https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers; Anthropic has names of its own, and the
    time of the reset: https://docs.anthropic.com/en/api/rate-limits#response-headers
    """
    remaining = _number(headers.get("x-ratelimit-remaining-requests"))
    if remaining is None:
        return _anthropic_rate_limit(headers)
    return RateLimit(
        remaining,
        _number(headers.get("x-ratelimit-limit-requests")),
        _duration(headers.get("x-ratelimit-reset-requests")),
    )


def _anthropic_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    remaining = _number(headers.get("anthropic-ratelimit-requests-remaining"))
    if remaining is None:
        return None
    until, now = _rfc3339(headers.get("anthropic-ratelimit-requests-reset")), server_time(headers)
    return RateLimit(
        remaining,
        _number(headers.get("anthropic-ratelimit-requests-limit")),
        None if until is None or now is None else max(until - now, 0.0),
    )


def _rfc3339(text: str | None) -> float | None:
    try:
        date = datetime.datetime.fromisoformat(text or "")
        return (date if date.tzinfo is not None else date.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _duration(text: str | None) -> float | None:
    """Return the seconds of "6m0s" (360.0), "120ms" (0.12), "1.5s" or "2"; None if the text is no duration."""
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    found = _DURATION.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        return None
    parts = [float(part or 0.0) for part in found.groups()]
    seconds = sum(part * unit for part, unit in zip(parts, (3600.0, 60.0, 1.0, 0.001), strict=True))
    return seconds if math.isfinite(seconds) else None


def request_id(headers: Mapping[str, str]) -> str:
    """Return the id by which the server's operators find this request, or ""."""
    return next((found for name in _REQUEST_IDS if (found := headers.get(name))), "")


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None  # float() also reads "nan" and "inf"


@lru_cache(maxsize=64)  # `Date` changes once a second, and thousands of responses have the same
def _http_date(text: str) -> float | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
        # A date without a zone, such as asctime's, is in UTC (RFC 9110, 5.6.7), not in the zone of this machine.
        return (date if date.tzinfo is not None else date.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


# Values in the types in which callers have them


def as_text(value: object) -> object:
    """Return a value as a string if its type has one obvious text: an enum member, a UUID, a date, a Decimal or a path.

    The text of an enum member is that of its value. Other values are returned unchanged.
    """
    if type(value) is str:
        return value
    match value:
        case enum.Enum():  # before `str`: a `StrEnum` member is both
            return _query_text(value.value)
        case str():
            return str.__str__(value)  # a subclass may override `__str__`
        case datetime.date() | datetime.time():
            return value.isoformat()
        case uuid.UUID():
            return str(value)
        case decimal.Decimal():
            return format(value, "f")
        case os.PathLike():
            return os.fspath(value)
        case _:
            return value


def query_of(pairs: Iterable[tuple[str, object]]) -> Query:
    """Return the query for these parameters.

    None is omitted, True is "true", a list repeats its name with `[]`, and a mapping puts its keys in brackets:
    `include=["a", "b"]` becomes `include[]=a&include[]=b`, and `metadata={"k": 1}` becomes `metadata[k]=1`.
    """
    return tuple(chain.from_iterable(_query_pairs(str(as_text(name)), value) for name, value in pairs))


def _query_pairs(name: str, value: object) -> Iterator[tuple[str, str]]:
    value = as_text(value)
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _query_pairs(f"{name}[{_query_text(key)}]", item)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for item in value:
            yield from _query_pairs(f"{name}[]", item)
    elif value is not None:
        yield name, _query_text(value)


def _query_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.decode(errors="replace") if isinstance(value, bytes) else str(as_text(value))
