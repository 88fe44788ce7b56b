"""The options that every call takes besides its own parameters, and the request built from both."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypedDict

from asyncruns.errors import ConfigurationError, InvalidRequestError
from asyncruns.http import Request, as_text, query_of
from asyncruns.tools import Toolset
from asyncruns.transport.auth import check_header
from asyncruns.wire import encode
from asyncruns.wire.codec import present

_TIMEOUTS: Final = ("request_timeout", "timeout")


class CallOptions(TypedDict, total=False):
    """The options that every call takes besides its own parameters. For `extra_...`, None is the same as absent.

    Attributes:
        request_timeout: Seconds for each request of this call, in place of the client's; None is no limit.
        timeout: The same, under the official client's name. For a watch it is the whole wait instead.
        extra_headers: Headers to add; they replace the client's headers of the same name.
        extra_query: Query parameters to add; they replace the call's own of the same name. A list is sent as
            `name[]=a&name[]=b`.
        extra_body: Fields to add to the JSON body; they replace the call's own. They are not checked before sending, so
            use them for fields that only your server knows.
    """

    request_timeout: float | None
    timeout: float | None
    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None


def check_names(given: Iterable[str], known: type) -> None:
    """Check the names of keyword arguments: a misspelt one would otherwise be ignored silently.

    Args:
        given: The names.
        known: The `TypedDict` that lists the valid names.

    Raises:
        TypeError: A name is not valid.
    """
    for name in given:
        if name not in known.__annotations__:
            near = difflib.get_close_matches(name, known.__annotations__, 1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            hint = "there is extra_body= for fields that only your server knows"
            raise TypeError(f"got an unexpected keyword argument {name!r}; {hint}{meant}")


def make_request(
    method: str,
    path: str,
    query: Mapping[str, Any] | None,
    body: Mapping[str, Any] | None,
    options: CallOptions | None,
) -> Request:
    """Build the request of a call.

    Raises:
        InvalidRequestError: A parameter or option can't be sent.
        TypeError: There is no such option.
    """
    if not options:  # the usual case, and polls are frequent
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
        raise InvalidRequestError(f"Pass {' or '.join(_TIMEOUTS)}, not both: they mean the same")
    ((name, seconds),) = given
    if seconds is None:
        return math.inf  # None in a `Request` is the client's own timeout
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise InvalidRequestError(f"{name} must be more than 0 seconds, or None for no limit; got {seconds!r}")
    return seconds


def json_body(fields: Mapping[str, Any]) -> bytes:
    """Encode the fields that are not UNSET as JSON.

    Raises:
        InvalidRequestError: A value can't be written as JSON.
    """
    try:
        return encode(present(fields))
    except (TypeError, ValueError, RecursionError) as error:
        hint = _hint_of_tools(fields.get("tools"))
        raise InvalidRequestError(f"The parameters can't be written as JSON: {error}{hint}") from error


def _hint_of_tools(tools: Any) -> str:
    """Return what to pass for `tools` instead of a Toolset or of functions; "" for anything else."""
    if isinstance(tools, Toolset):
        made = "tools"
    elif isinstance(tools, list | tuple) and (named := [each for each in tools if inspect.isroutine(each)]):
        made = f"Toolset([{', '.join(each.__name__ for each in named)}])"
    else:
        return ""
    definitions = f"{made}.definitions()"
    return f'. tools= takes definitions: pass {definitions}, or for responses {definitions[:-1]}wire="responses")'
