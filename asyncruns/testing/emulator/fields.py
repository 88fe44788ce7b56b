"""Read request bodies and query strings, with the errors of a real server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from asyncruns.testing.emulator import refusals

MAX_LIMIT: Final = 100
DEFAULT_LIMIT: Final = 20
MAX_DEPTH: Final = 100  # of nested objects and arrays in a body; real servers have such limits as well

Body = dict[str, Any]


def read_body(raw: bytes) -> Body:
    """Decode a request body; an empty one is an empty object."""
    if not raw.strip():
        return {}
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusals.not_json() from error
    if not isinstance(body, dict) or _is_too_deep(body):
        raise refusals.not_json()
    return body


def _is_too_deep(body: Body) -> bool:
    """Return whether the body is nested too deeply for the recursive functions that read it later."""
    # Level by level and not recursively, since a deep body would exceed Python's own recursion limit here.
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        if not inner:
            return False
        level = [each for items in inner for each in items]
    return True


def required_text(body: Mapping[str, Any], name: str) -> str:
    """Read a string that must be there."""
    if name not in body:
        raise refusals.missing(name)
    value = body[name]
    if not isinstance(value, str):
        raise refusals.wrong_type(name, "a string", value)
    return value


def given(body: Mapping[str, Any], name: str, default: Any) -> Any:
    """Read a field for which null means the same as absent."""
    value = body.get(name)
    return default if value is None else value


def given_list(body: Mapping[str, Any], name: str) -> list[Any]:
    """Read an array; absent and null are empty."""
    value = given(body, name, [])
    if not isinstance(value, list):
        raise refusals.wrong_type(name, "an array", value)
    return value


def tools_of(body: Mapping[str, Any]) -> list[Any]:
    """Read the tools; a function must have a name, since the default scenario calls it."""
    tools = given_list(body, "tools")
    for place, tool in enumerate(tools):
        param = f"tools[{place}]"
        if not isinstance(tool, dict):
            raise refusals.wrong_type(param, "an object", tool)
        if "type" not in tool:
            raise refusals.missing(f"{param}.type")
        if tool["type"] == "function":
            function = tool.get("function")
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise refusals.missing(f"{param}.function.name")
    return tools


def metadata_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Read the metadata, whose values must be strings."""
    value = given(body, "metadata", {})
    if not isinstance(value, dict):
        raise refusals.wrong_type("metadata", "an object", value)
    for key, each in value.items():
        if not isinstance(each, str):
            raise refusals.wrong_type(f"metadata.{key}", "a string", each)
    return value


def page(
    query: Mapping[str, str],
    oldest_first: Sequence[Body],
    thing: str,
    *,
    most: int = MAX_LIMIT,
    usual: int = DEFAULT_LIMIT,
) -> Body:
    """Return one page of a list, by the query's `limit`, `order`, `after` and `before`."""
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise refusals.wrong_value("order", order, ("asc", "desc"))
    limit = limit_of(query, most=most, usual=usual)
    items = list(oldest_first) if order == "asc" else list(reversed(oldest_first))
    if (after := query.get("after")) is not None:
        items = items[_place(items, after, thing) + 1 :]
    if (before := query.get("before")) is not None:
        items = items[: _place(items, before, thing)]
        shown = items[-limit:]  # the page that ends just before it: with limit=2, [a, b, c, d] before d is [b, c]
    else:
        shown = items[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > len(shown),  # in the direction of paging
    }


def limit_of(query: Mapping[str, str], *, most: int = MAX_LIMIT, usual: int = DEFAULT_LIMIT) -> int:
    """Read how many items a page has at most."""
    text = query.get("limit", str(usual))
    try:
        limit = int(text)
    except ValueError:
        raise refusals.wrong_type("limit", "an integer", text) from None
    if not 1 <= limit <= most:
        raise refusals.out_of_range("limit", limit, 1, most)
    return limit


def _place(items: Sequence[Body], id: str, thing: str) -> int:
    for place, item in enumerate(items):
        if item["id"] == id:
            return place
    raise refusals.not_found(thing, id)
