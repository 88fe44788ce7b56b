"""The lines of a file of requests for a batch: checks each request, and writes it as one line of JSON.

It does no I/O, and keeps of each request only its custom id, so that any number of them can be written. A message names
the request by its number, from 1, and never shows its contents.

The format: https://platform.openai.com/docs/guides/batch
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from msgspec import UNSET, Struct

from asyncruns.errors import InvalidRequestError
from asyncruns.wire.codec import encode, parse
from asyncruns.wire.shown_text import on_one_line

MOST_LINES_OF_FILE: Final = 50_000
MOST_BYTES_OF_FILE: Final = 200_000_000
BYTES_OF_A_TOKEN: Final = 4  # of English text; JSON and other languages have fewer, so this estimate is rather low
_OUTPUT_LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_OF_A_LINE: Final = frozenset({"custom_id", "body", "url"})  # no body has these
_KEPT_BY_JSON: Final = frozenset({str, int, bool, type(None)})
_SHOWN_CHARACTERS: Final = 80
_FORMS: Final = "pass a body as a dict, a pair (custom_id, body), or a line {custom_id, method, url, body}"


class RequestLine(Struct, frozen=True, gc=False):
    """One request, as it is written.

    Attributes:
        custom_id: Its custom id.
        data: The line, with its end.
        tokens: The estimate of its tokens: a quarter of the bytes of its body, and the limit of its output.
    """

    custom_id: str
    data: bytes
    tokens: int


class RequestLines:
    """Checks the requests of one batch, in their order, and returns their lines.

    Args:
        endpoint: The endpoint of the batch, such as "/v1/chat/completions"; None takes that of the first line.

    Attributes:
        endpoint: The endpoint; None until it is known.
        count: Number of requests so far.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint: str | None = endpoint
        self.count: int = 0
        self._custom_ids: set[str] = set()
        self._model: Any = UNSET

    def add(self, request: object) -> RequestLine:
        """Check the next request, and return its line.

        Args:
            request: A body, a pair `(custom_id, body)`, or a whole line as a mapping.

        Raises:
            InvalidRequestError: It cannot be a request of this batch; the message has its number.
        """
        self.count += 1
        custom_id = self._own_custom_id(request)
        body = self._body_of(request)
        self._check_body(body)
        data = encoded_request(body, self.count)
        head = encoded_request({"custom_id": custom_id, "method": "POST", "url": self.endpoint}, self.count)
        return RequestLine(
            custom_id, b'%s,"body":%s}\n' % (head[:-1], data), len(data) // BYTES_OF_A_TOKEN + _most(body)
        )

    def _own_custom_id(self, request: object) -> str:
        custom_id = custom_id_of(request, self.count)
        if custom_id in self._custom_ids:
            raise self._refused(f"has the custom_id {quoted(custom_id)}, as an earlier one; results are matched by it")
        self._custom_ids.add(custom_id)
        return custom_id

    def _body_of(self, request: object) -> Mapping[str, Any]:
        line: Mapping[Any, Any] = request if isinstance(request, Mapping) else {"body": cast("Any", request)[1]}
        if not line.keys() & _OF_A_LINE:
            line = {"body": line}
        self._check_head(line)
        if "params" in line:
            raise self._refused("has the form of a message batch; pass it to client.message_batches.create")
        body = line.get("body")
        if not isinstance(body, Mapping):
            raise self._refused(f"has no body; {_FORMS}")
        return body

    def _check_head(self, line: Mapping[Any, Any]) -> None:
        if (method := line.get("method", "POST")) != "POST":
            raise self._refused(f"has the method {quoted(method)}; a batch sends POST")
        url = line.get("url", self.endpoint)
        if self.endpoint is None:
            if not isinstance(url, str) or not url:
                raise self._refused('has no url; pass endpoint=, such as "/v1/chat/completions"')
            if not url.startswith("/"):
                raise self._refused(f'has the url {quoted(url)}; it must be a path, such as "/v1/chat/completions"')
            self.endpoint = url
        if url != self.endpoint:
            raise self._refused(f"is for {quoted(url)}, but a batch has one endpoint, here {quoted(self.endpoint)}")

    def _check_body(self, body: Mapping[str, Any]) -> None:
        if body.get("stream"):
            raise self._refused("has stream=True, but a batch does not stream; leave it out")
        model = body.get("model")
        if self._model is UNSET:
            self._model = model
        if model != self._model:
            raise self._refused(
                f"has {_model(model)}, but a batch has one model, and the first has {_model(self._model)}"
            )

    def _refused(self, why: str) -> InvalidRequestError:
        return refused_request(self.count, why)


def custom_id_of(request: object, number: int) -> str:
    """Return the custom id of a request; if it has none, the one that is made for it: "request-1" for the first.

    Args:
        request: A request in any form.
        number: Its number among the requests, from 1.

    Raises:
        InvalidRequestError: It is no request, or its custom id is not a string, or empty.
    """
    if isinstance(request, Mapping):
        custom_id = request.get("custom_id") if "custom_id" in request else f"request-{number}"
    elif isinstance(request, list | tuple) and len(request) == 2:
        custom_id = request[0]
    else:
        hint = "; for a line of JSON, pass json.loads(line)" if isinstance(request, str | bytes) else ""
        raise refused_request(number, f"is of the type {type(request).__name__}; {_FORMS}{hint}")
    if not isinstance(custom_id, str) or not custom_id:
        what = "an empty custom_id" if custom_id == "" else f"a custom_id of the type {type(custom_id).__name__}"
        raise refused_request(number, f"has {what}; pass a string that is not empty")
    return custom_id


def body_of(request: object, number: int) -> Any:
    """Return the body of a request in any form; the `params` of one for a message batch.

    Raises:
        InvalidRequestError: It is no request, such as a custom id alone.
    """
    custom_id_of(request, number)
    if not isinstance(request, Mapping):
        return cast("Any", request)[1]
    return next((request[name] for name in ("body", "params") if name in request), request)


def request_in(line: bytes, where: str) -> tuple[str, dict[str, Any]]:
    """Return the custom id and the body of the request in a line of a file.

    Args:
        line: The line.
        where: The file and the number of the line, for the message.

    Raises:
        InvalidRequestError: It is no request.
    """
    try:
        found = parse(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(on_one_line(f"{where} is no request: {error}")) from error
    if isinstance(found, dict) and isinstance(found.get("custom_id"), str) and isinstance(found.get("body"), dict):
        return found["custom_id"], found["body"]
    raise InvalidRequestError(f"{where} is no request: it needs a custom_id and a body")


def encoded_request(value: Mapping[str, Any], number: int) -> bytes:
    """Return a request, or a part of one, as JSON.

    Args:
        value: The request.
        number: Its number among the requests, from 1.

    Raises:
        InvalidRequestError: JSON has no form for a value in it.
    """
    try:
        data = encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise refused_request(number, on_one_line(f"can't be written as JSON: {error}")) from error
    if (problem := _lost_in_json(value)) is not None:
        raise refused_request(number, f"can't be written as JSON: it has {problem}")
    return data


def _lost_in_json(value: object) -> str | None:
    """Return what would be written as something else: numbers that are not finite as null, bytes as base64."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, Mapping | list | tuple):
            values = each.values() if isinstance(each, Mapping) else each
            left += [value for value in values if type(value) not in _KEPT_BY_JSON]  # token ids come by thousands
        elif isinstance(each, bytes | bytearray | memoryview):
            return f"{type(each).__name__}, which must be decoded or encoded to a string"
        elif isinstance(each, float) and not math.isfinite(each):
            return f"the number {each}"
    return None


def refused_request(number: int, why: str) -> InvalidRequestError:
    """Return the error that says why a request cannot be part of a batch."""
    return InvalidRequestError(f"Request {number} {why}. Nothing was sent.")


def _most(body: Mapping[str, Any]) -> int:
    """Return the limit of the output in a body, in tokens; 0 without one."""
    given = (body.get(name) for name in _OUTPUT_LIMITS)
    return max((each for each in given if isinstance(each, int) and each > 0), default=0)


def _model(model: object) -> str:
    return "no model" if model is None else f"the model {quoted(model)}"


def quoted(value: object) -> str:
    """Return a value in quotes, for a message: on one line, and shortened."""
    text = on_one_line(str(value))
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")
