"""Builds exceptions from error responses, and decides what each status means on every wire. Does no I/O.

https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import UnsetType
from msgspec.structs import replace

from asyncruns.errors import (
    SHOWN_BODY_CHARACTERS,
    APIResponseValidationError,
    APIStatusError,
    ThreadBusyError,
    status_error_class,
    with_sentence,
)
from asyncruns.http import Request, Response, request_id
from asyncruns.lifecycle.values import R, RefusalKind, Snapshot
from asyncruns.wire import ErrorBody, decode
from asyncruns.wire.common import ErrorObject
from asyncruns.wire.shown_text import on_one_line

_NEXT_STEP = {
    401: "Check the key, and that it belongs to this base URL.",
    403: "Check what the key may do.",
    404: "Check the id, and that the base URL serves this path.",
    429: "Send fewer requests, or check the quota.",
}
# Statuses that are not here: 500 and above are UNAVAILABLE, all others REJECTED.
_KINDS: Final[Mapping[int, RefusalKind]] = {
    401: RefusalKind.UNAUTHORIZED,
    403: RefusalKind.UNAUTHORIZED,
    404: RefusalKind.NOT_FOUND,
    408: RefusalKind.UNAVAILABLE,
    409: RefusalKind.UNAVAILABLE,
    410: RefusalKind.NOT_FOUND,
    423: RefusalKind.THROTTLED,  # locked: the server has not acted
    425: RefusalKind.UNAVAILABLE,
    429: RefusalKind.THROTTLED,
}
# Texts of temporary refusals that come with a status that usually means "never" (400, 422) or that the server may have
# acted (409). Here it has not acted.
_FOR_A_MOMENT: Final = (
    r"(?:try|retry)(?: your request| it)? (?:again )?later|please retry|queue is full|rate_limit_exceeded"
    r"|too_?many_?requests|server_?overloaded|(?:currently|temporarily) (?:overloaded|unavailable|locked)"
    r"|conversation_locked|conversation is locked"
)
_VERSION: Final = re.compile(r"/v\d")
_VERSION_IN_QUERY: Final = ".azure.com"  # these hosts take `api-version=` in the query
_AN_ID: Final = re.compile(r"[_\d]")  # a path segment with one of these is an id: "run_1", but not "runs"
_QUOTA: Final = r"insufficient_quota|exceeded your (?:current|monthly|usage) quota"
_IN_A_TOOL: Final = r"\btools\[\d+\]\.(?:function|name)\b"
_FUNCTION_FIELD: Final = b'"function":{'  # definitions for threads have it, those for responses do not
# Not "invalid x-api-key": there the header was sent.
_NO_HEADER: Final = r"(?:anthropic-version|x-api-key)\b.*\b(?:required|missing)|missing\b.*\banthropic-version"
_NO_SUCH_ROUTE: Final = frozenset({405, 501})
_NO_PATH: Final = (
    r"invalid url|unknown (?:request )?(?:url|path|endpoint)|unrecognized (?:request )?url|cannot (?:get|post) /"
    r"|^(?:404 )?(?:page |path |resource |route )?not found\W*$|no (?:matching |such )?route|no static resource"
)
_OF_VERSION: Final = (
    r"openai-beta|invalid_beta|assistants=v\d|\bv\d assistants\b|\bassistants (?:api )?v\d|api[-_ ]?version"
)
# A refusal that names a status, or says "yet", may no longer apply when the run has another status.
_NO_CANCEL: Final = (
    r"^(?!.*\b(?:status|state|while|yet|queued|running|in[ _]progress|requires[ _]action)\b)"
    r".*(?:not (?:supported|implemented)|unsupported)"
)
_RETIRED_HOST = "api.openai.com"
RETIRED = (
    f"{_RETIRED_HOST} no longer serves threads and runs (shut down on 2026-08-26); set base_url to a server that does, "
    "or use responses: client.run(model=...), client.responses."
)


def error_object(response: Response) -> ErrorObject:
    """Return the server's description of an error, in any of the known shapes; an empty one if there is none."""
    try:
        body = decode(response.body, ErrorBody)
    except msgspec.DecodeError:
        return ErrorObject()
    if isinstance(body.error, ErrorObject):
        return body.error
    if isinstance(body.error, str):
        return ErrorObject(message=body.error, code=body.code)
    if body.detail:
        text = body.detail if isinstance(body.detail, str) else shown(msgspec.json.encode(body.detail))
        return ErrorObject(message=text, code=body.code)
    return ErrorObject(message=body.message, code=body.code)


def refusal_kind(response: Response, error: ErrorObject) -> RefusalKind:
    """Return what an error response means, by the rules that all wires share."""
    # Servers put the decisive words into any of these fields.
    said = f"{error.code} {error.type} {error.message}"
    kind = _KINDS.get(response.status)
    if response.status in (400, 409, 422) and re.search(_FOR_A_MOMENT, said, re.IGNORECASE):
        return RefusalKind.THROTTLED
    if kind is None:
        return RefusalKind.UNAVAILABLE if response.status >= 500 else RefusalKind.REJECTED
    if kind is RefusalKind.THROTTLED and re.search(_QUOTA, said, re.IGNORECASE):
        return RefusalKind.QUOTA_SPENT
    return kind


def has_no_cancel(request: Request, response: Response, error: ErrorObject) -> bool:
    """Return whether this is the response to a cancel by a server that cannot cancel runs of any status."""
    if not request.path.endswith("/cancel"):
        return False
    says_so = re.search(_NO_CANCEL, f"{error.code} {error.message}", re.IGNORECASE | re.DOTALL)
    return response.status in _NO_SUCH_ROUTE or (response.status in (400, 409, 422) and says_so is not None)


def has_no_path(response: Response) -> bool:
    """Return whether a server says that it has no such path; a 404 may also be about an object, which has an id."""
    if response.status != 404:
        return response.status in _NO_SUCH_ROUTE
    said = error_object(response).message
    return not said or re.search(_NO_PATH, said.strip(), re.IGNORECASE) is not None


def has_retired(host: str) -> bool:
    """Return whether a host has served threads and runs, and does so no longer."""
    return host == _RETIRED_HOST


def wants_another_version(response: Response) -> bool:
    """Return whether a server refuses a request for the version of the API that its headers or its query name."""
    if response.status not in (400, 401, 403, 404, 415, 422):
        return False
    error = error_object(response)
    return re.search(_OF_VERSION, f"{error.code} {error.param} {error.message}", re.IGNORECASE) is not None


def shown(body: bytes) -> str:
    """Return the first characters of a body for a message, on one line and printable."""
    # Four bytes are the most that a character has in UTF-8, so the cut leaves at least as many characters as are shown.
    text = " ".join(body[: SHOWN_BODY_CHARACTERS * 4].decode("utf-8", "replace").split())
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if len(text) <= SHOWN_BODY_CHARACTERS else text[:SHOWN_BODY_CHARACTERS] + "..."


def status_error(request: Request, response: Response, *, host: str = "") -> APIStatusError:
    """Return the exception for an error response, with the next step in its message.

    Args:
        request: The request.
        response: Its response.
        host: The host of the base URL, for hints about that host; "" if it is not known.
    """
    error = error_object(response)
    return status_error_class(response.status)(**_facts(request, response, _next_step(request, response, error, host)))


def busy_error(request: Request, response: Response, *, thread_id: str, active_run_id: str) -> ThreadBusyError:
    """Return the exception for a request that was refused because a run is active on the thread."""
    step = (
        f"The run {active_run_id} holds the thread until it ends: watch it to its end, cancel it with "
        'client.threads.runs.cancel(), or pass on_busy="wait".'
    )
    return ThreadBusyError(active_run_id=active_run_id, thread_id=thread_id, **_facts(request, response, step))


def _facts(request: Request, response: Response, step: str) -> dict[str, Any]:
    """Return the arguments that all classes of status errors share."""
    error = error_object(response)
    detail = error.message or shown(response.body) or "no details in the response"
    said_id = request_id(response.headers)
    parts = [f"{request.method} {request.path} answered {response.status}: {shown(detail.encode(errors='replace'))}"]
    if said_id:
        parts.append(f"(request id {said_id})")
    if response.attempts:
        parts.append(f"(try {len(response.attempts) + 1}, after {', '.join(response.attempts)}).")
    message = " ".join(parts)
    return {
        "message": on_one_line(with_sentence(message, step) if step else message),
        "status": response.status,
        "detail": detail,
        "code": None if not error.code else str(error.code),  # some servers send numbers
        "type": error.type or None,
        "param": error.param or None,
        "request_id": said_id,
        "body": response.body,
        "headers": response.headers,
        "method": request.method,
        "path": request.path,
    }


def _next_step(request: Request, response: Response, error: ErrorObject, host: str) -> str:
    if 300 <= response.status < 400:
        where = response.headers.get("location", "elsewhere").split("?")[0]
        return f"Redirects are not followed, since a key goes only to the host it was set for; it points to {where}."
    # A 404 may mean a wrong host, a base URL without its version, or a wrong id; the surest reason is named.
    if response.status in (404, 410) and has_retired(host):
        return RETIRED
    if response.status in (404, 405) and (hint := _versioned(request, response)):
        return hint
    if response.status in (400, 422) and (hint := _of_the_other_wire(request, error)):
        return hint
    if response.status in (400, 401, 422) and re.search(_NO_HEADER, error.message or "", re.IGNORECASE):
        return "Use Client.anthropic(), which sends the headers anthropic-version and x-api-key."
    return _NEXT_STEP.get(response.status, "")


def _of_the_other_wire(request: Request, error: ErrorObject) -> str:
    """Return which definitions of tools to send, if the refused ones are those of the other API; otherwise ""."""
    if not re.search(_IN_A_TOOL, f"{error.param} {error.message}"):
        return ""
    is_of_threads = _FUNCTION_FIELD in (request.body or b"")
    if request.path.startswith("/responses"):
        return 'These are definitions for threads: pass tools.definitions(wire="responses").' if is_of_threads else ""
    return "" if is_of_threads else "These are definitions for responses: pass tools.definitions()."


def _versioned(request: Request, response: Response) -> str:
    """Return the hint that the base URL may lack a version, or "".

    There is no hint if the base URL has a version, or if the error text names an id of the path.
    """
    base = urlsplit(response.base_url)
    if not base.hostname or _VERSION.search(base.path) or base.hostname.endswith(_VERSION_IN_QUERY):
        return ""
    said = error_object(response).message or ""
    ids = [part for part in request.path.split("/") if _AN_ID.search(part)]
    if request.path not in said and any(part in said for part in ids):
        return ""  # the server serves this path, but has no such object
    return (
        f"The base URL {response.base_url} has no version in it, and most servers serve the API below /v1: try "
        f'base_url="{response.base_url}/v1". Otherwise check the id.'
    )


def redacted(snapshot: Snapshot[R], redact: Callable[[bytes], bytes] | None) -> Snapshot[R]:
    """Return a snapshot with the credentials removed from its fault: gateways copy another server's error texts."""
    if snapshot.fault is None or redact is None:
        return snapshot
    message = redact(snapshot.fault.message.encode(errors="replace")).decode()
    return replace(snapshot, fault=replace(snapshot.fault, message=message))


def check_is_of(request: Request, response: Response, **ids: tuple[str, str | UnsetType | None]) -> None:
    """Check that a response is about the requested run: the cache of a proxy may return another one.

    Args:
        request: The request.
        response: Its response.
        **ids: By their names, each as requested and as received. An id that is empty on either side is not compared.

    Raises:
        APIResponseValidationError: Two ids differ. The response must not be used; send the request again.
    """
    for name, (requested, received) in ids.items():
        if requested and received and requested != received:
            raise bad_answer(request, response, ValueError(f"it is about {name} {received!r}, not {requested!r}"))


def bad_answer(request: Request, response: Response, cause: Exception) -> APIResponseValidationError:
    """Return the exception for a response with a good status whose body is not one of this API.

    Args:
        request: The request.
        response: Its response. The body is shown redacted.
        cause: What is wrong with the body.
    """
    said_id = request_id(response.headers)
    # A successful body comes from the transport as it is; only error bodies are redacted already.
    if response.redact is not None:
        # A header that is not UTF-8 arrives with surrogates.
        said_id = response.redact(said_id.encode(errors="surrogateescape")).decode(errors="replace")
    body = response.body if response.redact is None else response.redact(response.body)
    kind = response.headers.get("content-type", "no content type")
    suffix = f" (request id {said_id})" if said_id else ""
    message = (
        f"{request.method} {request.path} answered {response.status} with a body that is not of this API "
        f"({cause}; {kind}): {shown(body) or 'empty'}{suffix}. Is there a proxy in between, and does the "
        f"base URL end where the API begins? {_versioned(request, response)}"
    )
    return APIResponseValidationError(
        on_one_line(message),
        status=response.status,
        body=body,
        request_id=said_id,
        method=request.method,
        path=request.path,
    )
