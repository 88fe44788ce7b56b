"""The assistants of an emulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.fields import Body, given, metadata_of, page, required_text, tools_of
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.structured import check_response_format
from asyncruns.testing.emulator.timeline import whole

_CHANGEABLE: Final = (
    "name",
    "description",
    "model",
    "instructions",
    "top_p",
    "temperature",
    "tool_resources",
    "response_format",
)
_SCRIPTED_MODEL: Final = "gpt-4o"


class EmulatedAssistants:
    """Creates, changes and lists assistants; times are epoch seconds."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._all: dict[str, Body] = {}

    def create(self, body: Mapping[str, Any], now: float) -> Body:
        """Create an assistant."""
        return self._add(self._ids.new("asst"), body, now)

    def ensure(self, assistant_id: str, now: float) -> None:
        """Create an assistant with this id and no tools, unless it exists."""
        if assistant_id not in self._all:
            self._add(assistant_id, {"model": _SCRIPTED_MODEL}, now)

    def retrieve(self, assistant_id: str) -> Body:
        """Return an assistant."""
        if assistant_id not in self._all:
            raise refusals.not_found("assistant", assistant_id)
        return self._all[assistant_id]

    def update(self, assistant_id: str, body: Mapping[str, Any]) -> Body:
        """Change the fields that are in the body; existing runs keep their settings."""
        changed = dict(self.retrieve(assistant_id))
        check_response_format(body.get("response_format"))
        changed.update({name: body[name] for name in _CHANGEABLE if name in body})
        if "tools" in body:
            changed["tools"] = tools_of(body)
        if "metadata" in body:
            changed["metadata"] = metadata_of(body)
        self._all[assistant_id] = changed
        return changed

    def delete(self, assistant_id: str) -> Body:
        """Delete an assistant; its runs continue."""
        self.retrieve(assistant_id)
        del self._all[assistant_id]
        return {"id": assistant_id, "object": "assistant.deleted", "deleted": True}

    def list(self, query: Mapping[str, str]) -> Body:
        """Return a page of the assistants."""
        return page(query, list(self._all.values()), "assistant")

    def _add(self, assistant_id: str, body: Mapping[str, Any], now: float) -> Body:
        check_response_format(body.get("response_format"))
        assistant = {
            "id": assistant_id,
            "object": "assistant",
            "created_at": whole(now),
            "name": body.get("name"),
            "description": body.get("description"),
            "model": required_text(body, "model"),
            "instructions": body.get("instructions"),
            "tools": tools_of(body),
            "top_p": given(body, "top_p", 1.0),
            "temperature": given(body, "temperature", 1.0),
            "tool_resources": given(body, "tool_resources", {}),
            "metadata": metadata_of(body),
            "response_format": given(body, "response_format", "auto"),
        }
        self._all[assistant_id] = assistant
        return assistant
