"""Read the input of a response: messages, and the outputs of calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.fields import Body
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.run import EmulatedCall

_PREFIXES: Final = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}
_TEXTS: Final = frozenset({"input_text", "output_text"})


def input_items(value: Any, ids: Ids) -> list[Body]:
    """Return the items of an input, each with a type and an id; a string is a user's message."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise refusals.wrong_type("input", "a string", value)
    return [_item(f"input[{place}]", item, ids) for place, item in enumerate(value)]


def outputs_of(items: Sequence[Body], pending: Sequence[EmulatedCall]) -> dict[str, str]:
    """Return the outputs among the items, by call id.

    They are checked against the calls of the previous response and those among the items.
    """
    outputs = {item["call_id"]: _text(item["output"]) for item in items if item["type"] == "function_call_output"}
    # A client without `previous_response_id` sends the calls along with their outputs, so both sources count.
    calls = [call.id for call in pending]
    calls += [item["call_id"] for item in items if item["type"] == "function_call"]
    for call_id in calls:
        if call_id not in outputs:
            raise refusals.no_output_for(call_id)
    for call_id in outputs:
        if call_id not in calls:
            raise refusals.no_call_for(call_id)
    return outputs


def said_in(items: Sequence[Body]) -> str:
    """Return the text of the last message of a user, or ""."""
    for item in reversed(items):
        if item["type"] == "message" and item.get("role") == "user":
            return "\n".join(part["text"] for part in item["content"] if part.get("type") in _TEXTS)
    return ""


def _item(param: str, item: Any, ids: Ids) -> Body:
    if not isinstance(item, dict):
        raise refusals.wrong_type(param, "an object", item)
    kind = item.get("type", "message")
    required = {
        "message": ("role", "content"),
        "function_call": ("call_id", "name", "arguments"),
        "function_call_output": ("call_id", "output"),
    }
    for name in required.get(kind, ()):
        if item.get(name) is None:
            raise refusals.missing(f"{param}.{name}")
    made = {"id": ids.new(_PREFIXES.get(kind, "item")), **item, "type": kind}
    if kind != "message":
        return made
    return {**made, "content": _content(f"{param}.content", item), "status": item.get("status", "completed")}


def _content(param: str, item: Mapping[str, Any]) -> list[Body]:
    content = item["content"]
    if isinstance(content, str):
        return [{"type": "output_text" if item["role"] == "assistant" else "input_text", "text": content}]
    if not isinstance(content, list):
        raise refusals.wrong_type(param, "a string", content)
    for place, part in enumerate(content):
        if not isinstance(part, dict):
            raise refusals.wrong_type(f"{param}[{place}]", "an object", part)
        if part.get("type") in _TEXTS and not isinstance(part.get("text"), str):
            raise refusals.wrong_type(f"{param}[{place}].text", "a string", part.get("text"))
    return content


def _text(output: Any) -> str:
    return output if isinstance(output, str) else msgspec.json.encode(output).decode()
