"""Limits of the documented API, which are checked before a request is sent. Does no I/O.

Some servers accept more: `Client(validate=False)` turns the checks off. The numbers are those of
https://platform.openai.com/docs/api-reference/runs/createRun and related pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any, Final

from msgspec import UNSET, Struct

from asyncruns.errors import InvalidRequestError

_SHOWN_KEY: Final = 20


class Limits(Struct, frozen=True, kw_only=True, gc=False):
    """The limits of a server.

    Attributes:
        metadata_pairs: Maximum number of pairs in `metadata`.
        metadata_key: Maximum length of a key, in characters.
        metadata_value: Maximum length of a value, in characters.
        page: Maximum `limit` of a list; the minimum is 1.
        tokens_from: Minimum of `max_prompt_tokens` and `max_completion_tokens`.
        run_tools: Maximum number of tools of a run.
        assistant_tools: Maximum number of tools of an assistant.
    """

    metadata_pairs: int = 16
    metadata_key: int = 64
    metadata_value: int = 512
    page: int = 100
    tokens_from: int = 256
    run_tools: int = 20
    assistant_tools: int = 128

    def check(self, fields: Mapping[str, Any], *, tools: int | None = None) -> None:
        """Check the fields of a request, also those of a `thread` and of messages in it.

        Args:
            fields: The fields of the query and of the body, by their names. UNSET and None are not checked.
            tools: Maximum number of tools in the field `tools`; None for no limit.

        Raises:
            InvalidRequestError: The server would refuse a field; the message names the field and the rule.
        """
        # The limit depends on the operation, so it comes from the caller: 20 for a run, 128 for an assistant.
        given = fields.get("tools")
        if tools is not None and isinstance(given, Sized) and len(given) > tools:
            raise _refused("tools", f"at most {tools} are allowed", f"{len(given)} were given")
        self._check(fields, "")

    def _check(self, fields: Mapping[str, Any], where: str) -> None:
        for name, check in _CHECKS.items():
            value = fields.get(name)
            if value is not None and value is not UNSET:
                check(self, where + name, value)
        # A place is a path into the body, such as `thread.messages[0].metadata`.
        for name, value in fields.items():
            for place, part in _parts(name, value):
                self._check(part, f"{where}{place}.")


def _parts(name: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects in a field that have fields of their own, with their places, such as `messages[0]`."""
    if name == "thread" and isinstance(value, Mapping):
        yield name, value
    if name in ("messages", "additional_messages") and isinstance(value, list | tuple):
        for number, item in enumerate(value):
            if isinstance(item, Mapping):  # other objects are left to the server
                yield f"{name}[{number}]", item


def _check_metadata(limits: Limits, name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise _refused(name, "a mapping of strings to strings is required", f"got {type(value).__name__}")
    if len(value) > limits.metadata_pairs:
        raise _refused(name, f"at most {limits.metadata_pairs} pairs are allowed", f"{len(value)} were given")
    for key, text in value.items():
        if not isinstance(key, str):
            raise _refused(name, "keys are strings", f"{type(key).__name__} is the type of one")
        if len(key) > limits.metadata_key:
            rule = f"a key has at most {limits.metadata_key} characters"
            raise _refused(name, rule, f"{key[:_SHOWN_KEY]!r}... has {len(key)}")
        if not isinstance(text, str):
            raise _refused(f"{name}[{key!r}]", "values are strings", f"got {type(text).__name__}")
        if len(text) > limits.metadata_value:
            rule = f"a value has at most {limits.metadata_value} characters"
            raise _refused(f"{name}[{key!r}]", rule, f"this one has {len(text)}")


def _check_page(limits: Limits, name: str, value: Any) -> None:
    if not _is_int(value) or not 1 <= value <= limits.page:
        raise _refused(name, f"1 to {limits.page} is allowed", f"got {value!r}")


def _check_tokens(limits: Limits, name: str, value: Any) -> None:
    if not _is_int(value) or value < limits.tokens_from:
        raise _refused(name, f"{limits.tokens_from} or more is allowed", f"got {value!r}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # True is an int in Python, but not in JSON


# The checks of fields by their names, at any depth.
_CHECKS: Final[Mapping[str, Callable[[Limits, str, Any], None]]] = {
    "metadata": _check_metadata,
    "limit": _check_page,
    "max_prompt_tokens": _check_tokens,
    "max_completion_tokens": _check_tokens,
}


def _refused(field: str, rule: str, found: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{field}: {rule}; {found}. Nothing was sent. Client(validate=False) leaves that to the server."
    )
