"""Assistants: https://platform.openai.com/docs/api-reference/assistants/object"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from asyncruns.wire.codec import Maybe, Object
from asyncruns.wire.common import Metadata, Time, Tool, ToolResources


class Assistant(Object, frozen=True, kw_only=True):
    """An assistant, of v1 or v2 of the API."""

    id: str
    object: str = "assistant"
    created_at: Time = UNSET
    name: Maybe[str] = UNSET
    description: Maybe[str] = UNSET
    model: Maybe[str] = UNSET
    instructions: Maybe[str] = UNSET
    tools: Maybe[list[Tool]] = UNSET
    tool_resources: Maybe[ToolResources] = UNSET
    file_ids: Maybe[list[str]] = UNSET
    metadata: Metadata = UNSET
    temperature: Maybe[float] = UNSET
    top_p: Maybe[float] = UNSET
    response_format: Maybe[str | dict[str, Any]] = UNSET
    reasoning_effort: Maybe[str] = UNSET
