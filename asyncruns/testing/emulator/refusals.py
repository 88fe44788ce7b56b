"""The error answers, word for word as recorded from real servers.

`code` and `param` are null in about half of them; that is recorded as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

_KINDS: Final = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


class RefusedError(Exception):
    """The request is answered with an error status."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {
            "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        }


def not_found(thing: str, id: str) -> RefusedError:
    """Make the 404 for an id; `thing` is "run", "thread", "assistant", "message", "run step" or "item"."""
    return RefusedError(f"No {thing} found with id '{id}'.", status=404)


def no_such_url(method: str, path: str) -> RefusedError:
    """Make the 404 for a path without an operation."""
    return RefusedError(f"Invalid URL ({method} {path})", status=404)


def not_json() -> RefusedError:
    """Make the 400 for a body that cannot be decoded."""
    return RefusedError(
        "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
        "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
    )


def too_large(most: int) -> RefusedError:
    """Make the 413 for a body with more than `most` bytes."""
    return RefusedError(f"The request body is larger than {most} bytes.", status=413)


def missing(param: str) -> RefusedError:
    """Make the 400 for a required parameter that is missing."""
    return RefusedError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def wrong_type(param: str, expected: str, value: object) -> RefusedError:
    """Make the 400 for a parameter of the wrong type; `expected` is like "a string"."""
    got = _KINDS.get(type(value), "something")
    return RefusedError(
        f"Invalid type for '{param}': expected {expected}, but got {got} instead.",
        param=param,
        code="invalid_type",
    )


def wrong_value(param: str, value: object, supported: Sequence[str]) -> RefusedError:
    """Make the 400 for a value outside a closed set."""
    names = " and ".join(f"'{one}'" for one in supported)
    return RefusedError(f"Invalid value: '{value}'. Supported values are: {names}.", param=param, code="invalid_value")


def out_of_range(param: str, value: int, low: int, high: int) -> RefusedError:
    """Make the 400 for a number that is too small or too large."""
    above = value > high
    side, sign, bound = ("above maximum", "<=", high) if above else ("below minimum", ">=", low)
    return RefusedError(
        f"Invalid '{param}': integer {side} value. Expected a value {sign} {bound}, but got {value} instead.",
        param=param,
        code="integer_above_max_value" if above else "integer_below_min_value",
    )


def too_long(param: str, value: str, most: int) -> RefusedError:
    """Make the 400 for a string that is too long."""
    return RefusedError(
        f"Invalid '{param}': string too long. Expected a string with maximum length {most}, but got a string with "
        f"length {len(value)} instead.",
        param=param,
        code="string_above_max_length",
    )


def wrong_pattern(param: str, pattern: str) -> RefusedError:
    """Make the 400 for a string with other characters than those allowed."""
    return RefusedError(
        f"Invalid '{param}': string does not match pattern. Expected a string that matches the pattern '{pattern}'.",
        param=param,
        code="invalid_value",
    )


def wrong_schema(name: str, wrong: str, *, param: str, code: str | None) -> RefusedError:
    """Make the 400 for the schema of a structured output that strict mode does not accept."""
    return RefusedError(f"Invalid schema for response_format '{name}': {wrong}", param=param, code=code)


def has_active_run(thread_id: str, run_id: str) -> RefusedError:
    """Make the 400 for a second active run on a thread."""
    return RefusedError(f"Thread {thread_id} already has an active run {run_id}.")


def locked(thread_id: str, run_id: str) -> RefusedError:
    """Make the 400 for a message to a thread with an active run."""
    return RefusedError(f"Can't add messages to {thread_id} while a run {run_id} is active.")


def no_outputs_accepted(status: str) -> RefusedError:
    """Make the 400 for tool outputs to a run that is not in `requires_action`."""
    return RefusedError(f'Runs in status "{status}" do not accept tool outputs.')


def wrong_outputs(expected: list[str], got: list[str]) -> RefusedError:
    """Make the 400 for outputs that are not those of the round's calls."""
    return RefusedError(f"Expected tool outputs for call_ids {expected!r}, got {got!r}")


def duplicate_outputs() -> RefusedError:
    """Make the 400 for two outputs of one call."""
    return RefusedError("Duplicate call_ids submitted")


def not_cancellable(status: str) -> RefusedError:
    """Make the 400 for a cancel that comes too late, or twice."""
    return RefusedError(f"Cannot cancel run with status '{status}'.")


def not_updatable(status: str) -> RefusedError:
    """Make the 400 for an update of a run that has not ended."""
    return RefusedError(f"Cannot update run with status '{status}'.")


# For responses


def no_response(id: str) -> RefusedError:
    """Make the 404 for a response."""
    return RefusedError(f"Response with id '{id}' not found.", status=404)


def no_previous_response(id: str) -> RefusedError:
    """Make the 400 for a response that continues one that does not exist."""
    return RefusedError(
        f"Previous response with id '{id}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def still_going(id: str, status: str) -> RefusedError:
    """Make the 400 for a response that continues one that has not ended; no real server's text is known."""
    return RefusedError(
        f"Previous response with id '{id}' has status '{status}': it can't be continued yet.",
        param="previous_response_id",
    )


def no_output_for(call_id: str) -> RefusedError:
    """Make the 400 for a call without an output."""
    return RefusedError(f"No tool output found for function call {call_id}.", param="input")


def no_call_for(call_id: str) -> RefusedError:
    """Make the 400 for an output without a call."""
    return RefusedError(f"No tool call found for function call output with call_id {call_id}.", param="input")


def synchronous() -> RefusedError:
    """Make the 400 for a cancel of a response that is not in the background."""
    return RefusedError("Cannot cancel a synchronous response.")


def over(status: str, http_status: int) -> RefusedError:
    """Make the error for a cancel of a response that has ended."""
    what = "a response in terminal state" if status == "incomplete" else f"a {status} response"
    return RefusedError(f"Cannot cancel {what}.", status=http_status)


# For files and batches


def no_file(id: str) -> RefusedError:
    """Make the 404 for a file."""
    return RefusedError(f"No such File object: {id}", status=404, param="id")


def not_a_form(content_type: str) -> RefusedError:
    """Make the 400 for an upload that is not `multipart/form-data`."""
    return RefusedError(f"Invalid Content-Type header ({content_type}), expected multipart/form-data.")


def malformed_form() -> RefusedError:
    """Make the 400 for a form that cannot be read."""
    return RefusedError("Could not parse multipart form.")


def no_input_file(id: str) -> RefusedError:
    """Make the 400 for a batch whose input file does not exist."""
    return RefusedError(
        f"Cannot find file: the input file '{id}' was not found.", param="input_file_id", code="file_not_found"
    )


def wrong_purpose(id: str, purpose: str) -> RefusedError:
    """Make the 400 for a batch whose input file was uploaded for something else."""
    return RefusedError(
        f"Invalid file purpose: expected 'batch', but '{id}' has '{purpose}'.",
        param="input_file_id",
        code="invalid_file_purpose",
    )


def no_batch(id: str) -> RefusedError:
    """Make the 404 for a batch."""
    return RefusedError(f"No batch found with id '{id}'.", status=404)


def batch_over(status: str, http_status: int) -> RefusedError:
    """Make the error for a cancel of a batch that has ended."""
    return RefusedError(f"Cannot cancel a batch with status '{status}'.", status=http_status)


def no_streams() -> RefusedError:
    """Make the 400 for a stream that is not emulated; no real server sends it.

    Refusing is better than answering in another format.
    """
    return RefusedError("The emulator does not stream this.", param="stream", code="unsupported_parameter")


def no_stream_of(id: str) -> RefusedError:
    """Make the 400 for a stream that cannot be resumed; no real server's text is known."""
    return RefusedError(
        f"Response with id '{id}' has no stream: it was not created with background=true and stream=true.",
        param="stream",
    )


def wrong_key(key: str) -> RefusedError:
    """Make the 401 for a wrong key; most of the key is masked."""
    shown = key[: min(5, len(key) // 2)]
    return RefusedError(
        f"Incorrect API key provided: {shown}***. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        status=401,
        code="invalid_api_key",
    )


def no_key() -> RefusedError:
    """Make the 401 for a request without a key."""
    return RefusedError(
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
        "auth (i.e. Authorization: Bearer YOUR_KEY). You can obtain an API key from "
        "https://platform.openai.com/account/api-keys.",
        status=401,
    )
