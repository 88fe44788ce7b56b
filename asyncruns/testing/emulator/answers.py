"""The answers of an emulator as values, and their changes by faults.

Error texts are those of real servers, HTML pages those of a real proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

import msgspec

from asyncruns.testing.emulator.faults import Damage, Fault
from asyncruns.testing.emulator.message_errors import as_message_error

_LOWEST_SERVER_ERROR: Final = 500

# (type, code, message), looked up by the fault's code first, then by its status
_ERRORS: Final[Mapping[str | int, tuple[str, str | None, str]]] = {
    "insufficient_quota": (
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details. For more information on this "
        "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
    ),
    401: (
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided: sk-te***. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
    ),
    403: ("invalid_request_error", None, "You have insufficient permissions for this operation."),
    404: ("invalid_request_error", None, "No object found with that id."),
    409: ("invalid_request_error", None, "The resource was changed by another request. Please try again."),
    429: (
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached for gpt-4o on requests per min (RPM): Limit 500, Used 500, Requested 1. Please try again "
        "in 120ms. Visit https://platform.openai.com/account/rate-limits to learn more.",
    ),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    503: ("server_error", None, "The engine is currently overloaded, please try again later."),
}
_PAGES: Final = frozenset({502, 504})
_PAGE: Final = (
    "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
_SIGN_IN: Final = "Sign in to the network"


@dataclass(frozen=True, slots=True)
class EmulatedAnswer:
    """An HTTP answer; if its `Content-Length` is larger than the body, the connection ends early."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def spoiled(
    answer: EmulatedAnswer, fault: Fault, earlier: EmulatedAnswer | None, *, of_messages: bool = False
) -> EmulatedAnswer:
    """Return an answer as a fault changes it.

    Args:
        answer: The server's own answer; its body does not matter if the fault replaces it.
        earlier: The answer to repeat, if the fault is `damage="repeat"`.
        of_messages: Whether errors are those of Anthropic's wire.
    """
    if earlier is not None:
        answer = earlier
    elif fault.is_error and fault.body is None:
        answer = _error(answer, fault, of_messages=of_messages)
    if fault.body is not None:
        answer = replace(answer, body=_encoded(fault.body))
    if fault.rewrite is not None and answer.status == HTTPStatus.OK:  # a refusal of the server stays as it is
        body = msgspec.json.decode(answer.body)
        changed = fault.rewrite(body)
        answer = replace(answer, body=msgspec.json.encode(body if changed is None else changed))
    if fault.damage is not None:
        answer = _DAMAGED[fault.damage](answer)
    # Last, so that the fault's status and headers apply to a page or a repeated answer as well.
    status = answer.status if fault.status is None else fault.status
    return _with_headers(replace(answer, status=status), fault.headers)


def _error(answer: EmulatedAnswer, fault: Fault, *, of_messages: bool) -> EmulatedAnswer:
    status = fault.status or 0
    # 502 and 504 come from a proxy, which knows no JSON errors; a test that gives a text wants JSON all the same.
    if status in _PAGES and fault.message is None and fault.code is None:
        return _page(answer, f"{status} {HTTPStatus(status).phrase}")
    kind, code, message = _ERRORS.get(fault.code or status) or _ERRORS.get(status) or _unknown(status)
    error = {"message": fault.message or message, "type": kind, "param": None, "code": fault.code or code}
    body = {"error": error}
    if of_messages:
        body = as_message_error(body, status, answer.headers.get("request-id"))
    return replace(answer, body=msgspec.json.encode(body))


def _unknown(status: int) -> tuple[str, str | None, str]:
    kind = "server_error" if status >= _LOWEST_SERVER_ERROR else "invalid_request_error"
    return kind, None, f"The request was answered with status {status}."


def _page(answer: EmulatedAnswer, title: str) -> EmulatedAnswer:
    page = replace(answer, body=_PAGE.format(title=title).encode())
    return _with_headers(page, {"Content-Type": "text/html", "Server": "nginx"})


def _half(answer: EmulatedAnswer) -> EmulatedAnswer:
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def _cut(answer: EmulatedAnswer) -> EmulatedAnswer:
    return _with_headers(_half(answer), {"Content-Length": str(len(answer.body))})


_DAMAGED: Final[Mapping[Damage, Callable[[EmulatedAnswer], EmulatedAnswer]]] = {
    "html": lambda answer: _page(answer, _SIGN_IN),
    "empty": lambda answer: replace(answer, body=b""),
    "half": _half,
    "cut": _cut,
    "repeat": lambda answer: answer,  # `earlier` has replaced the answer already
}


def _encoded(body: bytes | str | Mapping[str, object]) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else msgspec.json.encode(body)


def _with_headers(answer: EmulatedAnswer, headers: Mapping[str, str]) -> EmulatedAnswer:
    given = {name.lower() for name in headers}
    kept = {name: value for name, value in answer.headers.items() if name.lower() not in given}
    return replace(answer, headers={**kept, **headers})
