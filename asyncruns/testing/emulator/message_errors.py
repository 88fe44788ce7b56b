"""Errors in the form of Anthropic's wire, https://docs.anthropic.com/en/api/errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from asyncruns.testing.emulator.fields import Body
from asyncruns.testing.emulator.refusals import RefusedError

_LOWEST_SERVER_ERROR: Final = 500
_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def as_message_error(body: Mapping[str, Any], status: int, request_id: str | None) -> Body:
    """Return the error of a body of OpenAI's wire as Anthropic's has it."""
    error = message_error(body["error"]["message"], status)
    return {**error, "request_id": request_id}


def message_error(message: str, status: int = 400) -> Body:
    """Return an error without a request id, as in the results of a batch."""
    usual = "api_error" if status >= _LOWEST_SERVER_ERROR else "invalid_request_error"
    return {"type": "error", "error": {"type": _TYPES.get(status, usual), "message": message}}


def no_version() -> RefusedError:
    """Make the 400 for a request without the header `anthropic-version`."""
    return RefusedError("anthropic-version: header is required")


def no_message_key() -> RefusedError:
    """Make the 401 for a request without a key."""
    return RefusedError("x-api-key header is required", status=401)


def wrong_message_key() -> RefusedError:
    """Make the 401 for a wrong key."""
    return RefusedError("invalid x-api-key", status=401)


def no_message_batch(id: str) -> RefusedError:
    """Make the 404 for a batch."""
    return RefusedError(f"No message batch found with id '{id}'.", status=404)


def field_required(param: str) -> RefusedError:
    """Make the 400 for a field that is missing or of the wrong type."""
    return RefusedError(f"{param}: Field required")


def too_few_requests() -> RefusedError:
    """Make the 400 for a batch without requests."""
    return RefusedError("requests: List should have at least 1 item after validation, not 0")


def too_many_requests(count: int, most: int) -> RefusedError:
    """Make the 400 for a batch of too many requests."""
    return RefusedError(f"requests: List should have at most {most} items after validation, not {count}")


def wrong_custom_id(place: int, pattern: str) -> RefusedError:
    """Make the 400 for a custom id with other characters than those allowed."""
    return RefusedError(f"requests.{place}.custom_id: String should match pattern '{pattern}'")


def same_custom_id(custom_id: str) -> RefusedError:
    """Make the 400 for a custom id that two requests have."""
    return RefusedError(f"requests: custom_id '{custom_id}' is not unique within the batch.")


def ended_already(id: str) -> RefusedError:
    """Make the 400 for a cancel of a batch that has ended."""
    return RefusedError(f"Batch '{id}' has already ended and cannot be canceled.")


def not_ended(id: str, what: str) -> RefusedError:
    """Make the 400 for something that can only be done to a batch that has ended."""
    return RefusedError(f"Batch '{id}' has not finished processing; it cannot be {what} yet.")
