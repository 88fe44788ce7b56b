"""An event handler that records its calls, for our client and the official one, and a function that runs both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai

from asyncruns import AssistantEventHandler, BearerAuth, Client

Heard = list[tuple[Any, ...]]

METHODS = (
    "on_event",
    "on_run_step_created",
    "on_run_step_delta",
    "on_run_step_done",
    "on_tool_call_created",
    "on_tool_call_delta",
    "on_tool_call_done",
    "on_message_created",
    "on_message_delta",
    "on_message_done",
    "on_text_created",
    "on_text_delta",
    "on_text_done",
    "on_image_file_done",
    "on_timeout",
    "on_exception",
    "on_end",
)


def shown(value: Any) -> Any:
    """Return an argument in a comparable form, without the empty fields that the two clients omit differently."""
    if isinstance(value, Exception):
        return type(value).__mro__[-3].__name__  # below Exception
    written = value.to_dict() if hasattr(value, "to_dict") else value
    return without(written)


def without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without(item) for name, item in value.items() if name != "index" and item not in (None, "")}
    return [without(item) for item in value] if isinstance(value, list) else value


def listening(base: type, heard: Heard) -> Any:
    """Return a handler, of a subclass of `base`, that appends every call to `heard`."""

    def method(name: str) -> Callable[..., Any]:
        async def call(self: Any, *arguments: Any) -> None:
            heard.append((name, *map(shown, arguments)))

        return call

    return type("Listening", (base,), {name: method(name) for name in METHODS})()


async def heard_by_both(base_url: str, read: Callable[[Any, Any], Any]) -> tuple[Heard, Heard]:
    """Run `read(client, handler)` with both clients, and return the calls of each handler; ours first."""
    ours: Heard = []
    theirs: Heard = []
    async with Client(base_url, auth=BearerAuth("test"), max_retries=0) as mine:
        await read(mine, listening(AssistantEventHandler, ours))
    async with openai.AsyncOpenAI(base_url=base_url, api_key="test", max_retries=0) as official:
        await read(official, listening(openai.AsyncAssistantEventHandler, theirs))
    return ours, theirs
