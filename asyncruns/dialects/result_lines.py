"""The lines of a file of results: reads each line, of OpenAI's wire and of Anthropic's, as one `BatchResult`.

It does no I/O. A line never raises, whatever it is: one that is cut or not JSON is a result that says so.

The formats: https://platform.openai.com/docs/guides/batch#5-retrieve-the-results and
https://docs.anthropic.com/en/api/retrieving-message-batch-results
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from asyncruns.lifecycle import RunFault
from asyncruns.wire import ModelResponse
from asyncruns.wire.codec import convert, parse
from asyncruns.wire.plain import Plain
from asyncruns.wire.shown_text import on_one_line

ResultKind = Literal["answered", "failed", "expired", "cancelled"]

MALFORMED_LINE: Final = "malformed_line"
"""The `code` of the error of a line that is no result."""

_BAD_STATUS: Final = 400
_DIGITS_OF_STATUS: Final = 3
_NOTHING_SENT: Final = RunFault("", "the server sent neither an answer nor an error")
_BY_CODE: Final[Mapping[str, ResultKind]] = {"batch_expired": "expired", "batch_cancelled": "cancelled"}
_BY_TYPE: Final[Mapping[str, ResultKind]] = {"succeeded": "answered", "expired": "expired", "canceled": "cancelled"}


class BatchResult(Plain, frozen=True, kw_only=True):
    """What became of one request of a batch.

    Attributes:
        custom_id: The custom id of the request; "" if the line could not be read.
        kind: "answered", "failed", or why the request was not executed: "expired" or "cancelled".
        response: The answer: a `ModelResponse` from the endpoint /v1/responses; otherwise the body as a dict, such as a
            chat completion, an embedding or a message of Anthropic. None if there is none.
        error: The error, with `code` and `message`; None if the request was answered. The code is `MALFORMED_LINE` if
            the line could not be read; its message then has the file and the line.
        status_code: The HTTP status of the answer; None if the server does not say.
        request_id: The id by which the server's operators find the request; "" if there is none.
    """

    custom_id: str
    kind: ResultKind
    response: ModelResponse | dict[str, Any] | None = None
    error: RunFault | None = None
    status_code: int | None = None
    request_id: str = ""

    @property
    def text(self) -> str:
        """The text of the answer; "" if there is none, or if it is no text, such as an embedding."""
        if isinstance(self.response, dict):
            return _text_of(self.response)
        return "" if self.response is None else self.response.output_text


def read_result(line: bytes, where: str) -> BatchResult:
    """Return the result in a line.

    Args:
        line: The line; it is not blank.
        where: The file and the number of the line, for the message if it cannot be read.
    """
    try:
        found = parse(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _malformed(where, str(error))
    if not isinstance(found, dict) or not isinstance(custom_id := found.get("custom_id"), str) or not custom_id:
        return _malformed(where, "it has no custom_id")
    if isinstance(result := found.get("result"), dict):
        return _of_anthropic(custom_id, result)
    return _of_openai(custom_id, found)


def _malformed(where: str, why: str) -> BatchResult:
    fault = RunFault(MALFORMED_LINE, on_one_line(f"{where} is no result: {why}"))
    return BatchResult(custom_id="", kind="failed", error=fault)


def _of_anthropic(custom_id: str, result: dict[str, Any]) -> BatchResult:
    kind: ResultKind = _BY_TYPE.get(str(result.get("type")), "failed")
    if kind == "answered":
        message = _object(result.get("message"))
        if message is None:
            return BatchResult(custom_id=custom_id, kind="failed", error=_NOTHING_SENT)
        return BatchResult(custom_id=custom_id, kind=kind, response=message)
    outer = _object(result.get("error")) or {}
    request_id = outer.get("request_id")
    return BatchResult(
        custom_id=custom_id,
        kind=kind,
        error=_fault(outer.get("error", outer), str(result.get("type") or "")),
        request_id=request_id if isinstance(request_id, str) else "",
    )


def _of_openai(custom_id: str, line: dict[str, Any]) -> BatchResult:
    response = _object(line.get("response")) or {}
    body = _object(response.get("body"))
    status, request_id = _status_in(response), response.get("request_id")
    error = _error_of(line, body, status)
    answer = None if body is None or _is_error(body) else _typed(body)
    if error is None and answer is None:
        error = _NOTHING_SENT
    return BatchResult(
        custom_id=custom_id,
        kind="answered" if error is None else _BY_CODE.get(error.code, "failed"),
        response=answer,
        error=error,
        status_code=status,
        request_id=request_id if isinstance(request_id, str) else "",
    )


def _error_of(line: dict[str, Any], body: dict[str, Any] | None, status: int | None) -> RunFault | None:
    if error := line.get("error"):
        return _fault(error, "")
    is_refused = status is not None and status >= _BAD_STATUS
    if body is None:
        return RunFault(str(status), f"HTTP {status}, without a body") if is_refused else None
    if body.get("object") == "response" and body.get("status") == "cancelled":
        return RunFault("cancelled", "the response was cancelled before it was complete")
    # A response that failed has the HTTP status 200, and its error in it.
    if is_refused or body.get("status") == "failed" or _is_error(body):
        return _fault(body.get("error") or body, str(status or ""))
    return None


def _status_in(response: dict[str, Any]) -> int | None:
    """Return the HTTP status of an answer; some servers write it as a text, or as a float."""
    status = response.get("status_code")
    if isinstance(status, str):
        is_number = status.isascii() and status.isdigit() and len(status) <= _DIGITS_OF_STATUS
        return int(status) if is_number else None
    if isinstance(status, float):
        return int(status) if status.is_integer() else None
    return status if isinstance(status, int) and not isinstance(status, bool) else None


def _is_error(body: dict[str, Any]) -> bool:
    return bool(body.get("error")) and "id" not in body and "object" not in body


def _fault(error: Any, code: str) -> RunFault:
    """Return an error in the form in which servers send it: an object, or a text."""
    if not isinstance(error, dict):
        return RunFault(code, str(error or ""))
    found = error.get("code") or error.get("type") or code
    return RunFault(str(found), str(error.get("message") or ""))


def _object(value: object) -> dict[str, Any] | None:
    """Return an object, also if it was sent as a string with JSON, as OGX does; None if it is neither."""
    if isinstance(value, str):
        try:
            value = parse(value.encode(errors="replace"))
        except (msgspec.DecodeError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _typed(body: dict[str, Any]) -> ModelResponse | dict[str, Any]:
    if body.get("object") != "response":
        return body
    try:
        return convert(body, ModelResponse)
    except (msgspec.ValidationError, RecursionError):
        return body


def _text_of(body: dict[str, Any]) -> str:
    """Return the text of a chat completion or of a message of Anthropic."""
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        message = choices[0].get("message")
        content = message.get("content") if isinstance(message, dict) else choices[0].get("text")
    else:
        content = body.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
