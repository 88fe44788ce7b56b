"""What goes to a transport and comes back, as values, and the readers of the headers that matter here.

Milliseconds of the wire end here: all durations are seconds.
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import Final
from urllib.parse import quote, unquote

from msgspec import Struct

from asyncruns.errors import InvalidRequestError

Query = tuple[tuple[str, str], ...]


class Request(Struct, frozen=True):
    """One request, relative to the base URL.

    Attributes:
        method: The HTTP method.
        path: Begins with a slash; each segment is quoted already (see `join_path`).
        query: Pairs in order; a name may come twice.
        body: JSON bytes, or None.
        headers: Beside those that every request of the client carries.
        timeout: Seconds for this request, infinity for ever; None is the client's own.
    """

    method: str
    path: str
    query: Query = ()
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    timeout: float | None = None

    def __repr__(self) -> str:
        # A header, a query or a body may hold a credential.
        return f"<Request {self.method} {self.path}>"


class Response(Struct, frozen=True):
    """One answer.

    Attributes:
        status: The HTTP status.
        headers: Finds names in lower case.
        body: Complete and decompressed.
        attempts: What came of earlier tries of the same request, for messages.
        redact: Takes the credentials out of a body that is to be shown; None where there is nothing to take out. The
            body of an error answer has gone through it already.
        base_url: Where the API begins, as far as the transport knows; for messages.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    attempts: tuple[str, ...] = ()
    redact: Callable[[bytes], bytes] | None = None
    base_url: str = ""


# Paths

_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN_ID_CHARACTERS: Final = 80


def join_path(*segments: str) -> str:
    """Join segments to a path, ids among them, each quoted so that it stays in its place.

    Raises:
        InvalidRequestError: A segment is empty, no text, or would be taken for a step in the path (`.`, `..`, also
            encoded or inside): URL libraries and proxies resolve those, quoted or not.
    """
    return "/" + "/".join(
        [segment if _is_plain(segment) else _quoted(segments, place) for place, segment in enumerate(segments)]
    )


def _is_plain(segment: object) -> bool:
    return isinstance(segment, str) and _PLAIN_ID.fullmatch(segment) is not None


def _quoted(segments: tuple[str, ...], place: int) -> str:
    name = f"{segments[place - 1].removesuffix('s')}_id" if place else "id"  # /threads/{thread_id}/runs/{run_id}
    segment = require_id(name, segments[place])
    decoded = segment
    while (once_more := unquote(decoded)) != decoded:
        decoded = once_more
    if not decoded.strip() or not {".", ".."}.isdisjoint(re.split(r"[/\\]", decoded)):
        raise InvalidRequestError(f"{name} {_shown(segment)} is no id: it may not be empty, nor a step in a path")
    try:
        return quote(segment, safe="")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{name} {_shown(segment)} is no id: it can't be encoded as UTF-8") from error


def require_id(name: str, value: object) -> str:
    """Return an id as plain text; an enum member by its value.

    Raises:
        InvalidRequestError: It is no text, or nothing is in it; the message names the parameter.
    """
    text = as_text(value)
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequestError(f"{name} must be a non-empty string, got {_shown(value)}")
    return text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_ID_CHARACTERS else text[:_SHOWN_ID_CHARACTERS] + "..."


# Headers

_MILLISECONDS: Final = ("openai-poll-after-ms", "retry-after-ms", "x-ms-retry-after-ms")
_REQUEST_IDS: Final = ("x-request-id", "x-portkey-request-id", "apim-request-id", "x-ms-request-id", "request-id")


def wait_hint(headers: Mapping[str, str]) -> float | None:
    """Give the seconds that the server asks to wait, or None; zero and negative ones as they came.

    Reads `openai-poll-after-ms`, `retry-after-ms`, `x-ms-retry-after-ms` and `Retry-After` (seconds or a date,
    https://www.rfc-editor.org/rfc/rfc9110#name-retry-after).
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
    """Give the server's clock, from `Date`, in seconds of the epoch; None where it sends none that can be read."""
    text = headers.get("date")
    return None if text is None else _http_date(text)


class RateLimit(Struct, frozen=True, gc=False):
    """What a server says of the requests that it still takes.

    Attributes:
        remaining: How many it takes until the reset.
        limit: How many it takes between two resets; None where it does not say.
        reset: In how many seconds it takes all again; None where it does not say.
    """

    remaining: float
    limit: float | None = None
    reset: float | None = None


_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d*)?|\.\d+)s)?(?:(\d+(?:\.\d*)?|\.\d+)ms)?")


def rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Give what `x-ratelimit-remaining-requests` and its neighbours say, or None.

    https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
    """
    remaining = _number(headers.get("x-ratelimit-remaining-requests"))
    if remaining is None:
        return None
    return RateLimit(
        remaining,
        _number(headers.get("x-ratelimit-limit-requests")),
        _duration(headers.get("x-ratelimit-reset-requests")),
    )


def _duration(text: str | None) -> float | None:
    """Give the seconds of "6m0s", "120ms", "1.5s" or "2"."""
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
    """Give what names this exchange to the server's operators, or ""."""
    return next((found for name in _REQUEST_IDS if (found := headers.get(name))), "")


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@lru_cache(maxsize=64)  # a date changes once a second, and thousands of answers carry the same
def _http_date(text: str) -> float | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
        # One without a zone, such as asctime's, is in UTC (RFC 9110, 5.6.7), and not in the zone of this machine.
        return (date if date.tzinfo is not None else date.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


# Values, as people have them


def as_text(value: object) -> object:
    """Return a value as text if its kind stands for one text: an enum member, a UUID, a date, a Decimal or a path.

    An enum member is its value. Everything else is returned as it is.
    """
    if type(value) is str:
        return value
    match value:
        case enum.Enum():
            return _query_text(value.value)
        case str():
            return str.__str__(value)
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
    """Return the query of some parameters.

    None is left out, true is "true", a list repeats its name with `[]`, and a mapping puts its keys in brackets.
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
