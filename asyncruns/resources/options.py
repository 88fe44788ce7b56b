"""What any call takes beside its own parameters, and the request that comes of both."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypedDict

from asyncruns.errors import ConfigurationError, InvalidRequestError
from asyncruns.http import Request, as_text, query_of
from asyncruns.transport.auth import check_header
from asyncruns.wire import encode
from asyncruns.wire.codec import present

_TIMEOUTS: Final = ("request_timeout", "timeout")


class CallOptions(TypedDict, total=False):
    """What any call takes beside its own parameters; of the three extras, None is as if it were not given.

    Attributes:
        request_timeout: Seconds for each request of this call, instead of the client's; None is for ever.
        timeout: The same, by the name that users of the official client know. Of a watch, it is the whole wait.
        extra_headers: Sent with it, and instead of the client's of the same name.
        extra_query: Sent with it, and instead of the parameters of the same name; a list repeats its name with `[]`.
        extra_body: Fields that are put into the JSON body, over the parameters' own. They are not checked before
            sending, so this is the way for one that only this server takes.
    """

    request_timeout: float | None
    timeout: float | None
    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None


def check_names(given: Iterable[str], known: type) -> None:
    """Check the names of keyword arguments: one that nobody reads would be lost without a word.

    Args:
        given: The names.
        known: The `TypedDict` that describes them.

    Raises:
        TypeError: One is not known.
    """
    for name in given:
        if name not in known.__annotations__:
            near = difflib.get_close_matches(name, known.__annotations__, 1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            hint = "there is extra_body= for a field that only your server knows"
            raise TypeError(f"got an unexpected keyword argument {name!r}; {hint}{meant}")


def make_request(
    method: str,
    path: str,
    query: Mapping[str, Any] | None,
    body: Mapping[str, Any] | None,
    options: CallOptions | None,
) -> Request:
    """Make the request of a call.

    Raises:
        InvalidRequestError: Something in it can't be sent.
        TypeError: There is no such option.
    """
    if not options:
        return Request(
            method, path, query_of(query.items()) if query else (), None if body is None else json_body(body)
        )
    check_names(options, CallOptions)
    if extra_body := options.get("extra_body"):
        body = {**(body or {}), **extra_body}
    return Request(
        method,
        path,
        query_of({**(query or {}), **(options.get("extra_query") or {})}.items()),
        None if body is None else json_body(body),
        _headers(options),
        _timeout(options),
    )


def _headers(options: CallOptions) -> tuple[tuple[str, str], ...]:
    headers: tuple[tuple[str, Any], ...] = tuple(
        (name, as_text(value)) for name, value in (options.get("extra_headers") or {}).items()
    )
    for name, value in headers:
        try:
            check_header(name, value)
        except ConfigurationError as error:
            raise InvalidRequestError(f"extra_headers: {error}") from None  # the cause is the same text
    return headers


def _timeout(options: CallOptions) -> float | None:
    given: list[tuple[str, Any]] = [each for each in options.items() if each[0] in _TIMEOUTS]
    if not given:
        return None
    if len(given) > 1:
        raise InvalidRequestError(f"Give {' or '.join(_TIMEOUTS)}: they are the same")
    ((name, seconds),) = given
    if seconds is None:
        return math.inf
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise InvalidRequestError(f"{name} must be more than 0 seconds, or None for ever; got {seconds!r}")
    return seconds


def json_body(fields: Mapping[str, Any]) -> bytes:
    """Encode what was given of some fields.

    Raises:
        InvalidRequestError: There is no JSON for something in it.
    """
    try:
        return encode(present(fields))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The parameters can't be written as JSON: {error}") from error
