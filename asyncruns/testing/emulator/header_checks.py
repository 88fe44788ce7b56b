"""The headers that requests must have: the key of the server, and on Anthropic's wire a version."""

from __future__ import annotations

from collections.abc import Mapping

from asyncruns.testing.emulator import message_errors, refusals


def check_headers(headers: Mapping[str, str], api_key: str | None, *, of_messages: bool) -> None:
    """Check the headers of a request.

    Args:
        headers: A mapping that finds names in any case.
        api_key: The key that the server accepts; None if it accepts every request.
        of_messages: Whether the request is of Anthropic's wire, which has the key in either of two headers.

    Raises:
        RefusedError: The key is missing or wrong, or there is no version.
    """
    authorization = headers.get("Authorization")
    if of_messages and (key := headers.get("x-api-key")) is not None:
        authorization = f"Bearer {key}"
    if api_key is not None and authorization is None:
        raise message_errors.no_message_key() if of_messages else refusals.no_key()
    if api_key is not None and authorization != f"Bearer {api_key}":
        wrong = (authorization or "").removeprefix("Bearer ")
        raise message_errors.wrong_message_key() if of_messages else refusals.wrong_key(wrong)
    if of_messages and "anthropic-version" not in headers:
        raise message_errors.no_version()
