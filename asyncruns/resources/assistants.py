"""Assistants: https://platform.openai.com/docs/api-reference/assistants"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import UNSET

from asyncruns.http import Request, join_path
from asyncruns.resources.base import PageCall, Resource
from asyncruns.wire import Assistant, Deleted, Maybe


class Assistants(Resource):
    """`client.assistants`. What is not given is not sent; what is given as None is sent as null."""

    async def create(
        self,
        *,
        model: str,
        name: Maybe[str] = UNSET,
        description: Maybe[str] = UNSET,
        instructions: Maybe[str] = UNSET,
        tools: Maybe[Iterable[Mapping[str, Any] | Any]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
        metadata: Maybe[Mapping[str, str]] = UNSET,
        temperature: Maybe[float] = UNSET,
        top_p: Maybe[float] = UNSET,
        response_format: Maybe[str | Mapping[str, Any]] = UNSET,
        reasoning_effort: Maybe[str] = UNSET,
    ) -> Assistant:
        """Create an assistant.

        Safe to cancel; the assistant may then exist or not.

        Args:
            model: The model's name at the server.
            tools: Up to 128; `toolset.definitions()` for functions of yours.
            metadata: Up to 16 pairs; keys to 64 characters, values to 512.
            temperature: 0 to 2; the server's default is 1.
            top_p: 0 to 1; the server's default is 1.

        Raises:
            APIError: The server refused it, or gave no answer.
        """
        body = {
            "model": model,
            "name": name,
            "description": description,
            "instructions": instructions,
            "tools": tools,
            "tool_resources": tool_resources,
            "metadata": metadata,
            "temperature": temperature,
            "top_p": top_p,
            "response_format": response_format,
            "reasoning_effort": reasoning_effort,
        }
        return await self._post(Assistant, "assistants", body=body)

    async def retrieve(self, assistant_id: str) -> Assistant:
        """Fetch an assistant. Safe to cancel.

        Raises:
            APIError: There is no such assistant, or no answer.
        """
        return await self._send(Request("GET", join_path("assistants", assistant_id)), Assistant)

    def list(
        self,
        *,
        limit: int | None = None,
        order: Literal["asc", "desc"] | None = None,
        after: str | None = None,
        before: str | None = None,
    ) -> PageCall[Assistant]:
        """List assistants: `await` for one page, `async for` for all. Safe to cancel.

        Args:
            limit: 1 to 100 items a page; the server's default is 20.
            order: By creation; the server's default is newest first.
            after: The id of the item before the page.
            before: The id of the item after the page.
        """
        return self._list(Assistant, "assistants", limit=limit, order=order, after=after, before=before)

    async def delete(self, assistant_id: str) -> Deleted:
        """Delete an assistant. Safe to cancel; it may then be deleted or not.

        Raises:
            APIError: There is no such assistant, or no answer.
        """
        return await self._delete(Deleted, "assistants", assistant_id)
