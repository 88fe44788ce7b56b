"""Assistants: https://platform.openai.com/docs/api-reference/assistants"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Unpack

from msgspec import UNSET

from asyncruns.resources.base import PageCall, Resource
from asyncruns.resources.options import CallOptions
from asyncruns.wire import Assistant, Deleted, Maybe


class Assistants(Resource):
    """`client.assistants`. Parameters that are not passed are not sent; None is sent as null.

    Every method also takes the `CallOptions`.
    """

    _tools_limit: ClassVar[str | None] = "assistant_tools"

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
        **options: Unpack[CallOptions],
    ) -> Assistant:
        """Create an assistant.

        Safe to cancel; the assistant may then exist or not.

        Args:
            model: The model's name at the server.
            name: Up to 256 characters.
            description: Up to 512 characters.
            instructions: Up to 256,000 characters.
            tools: Up to 128; `toolset.definitions()` for your functions.
            tool_resources: Files and vector stores for the server's own tools.
            metadata: Up to 16 pairs; keys up to 64 characters, values up to 512.
            temperature: 0 to 2; the server's default is 1.
            top_p: 0 to 1; the server's default is 1.
            response_format: "auto", or an object. With `{"type": "json_object"}`, the instructions must ask for JSON as
                well: otherwise the model may write white space until the token limit, and the run seems stuck.
            reasoning_effort: For models that reason.

        Raises:
            APIError: The server refused the request, or did not answer.
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
        return await self._ask(Assistant, "POST", "assistants", body=body, options=options)

    async def retrieve(self, assistant_id: str, **options: Unpack[CallOptions]) -> Assistant:
        """Fetch an assistant. Safe to cancel.

        Raises:
            APIError: There is no such assistant, or the server did not answer.
        """
        return await self._ask(Assistant, "GET", "assistants", assistant_id, options=options)

    async def update(
        self,
        assistant_id: str,
        *,
        model: Maybe[str] = UNSET,
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
        **options: Unpack[CallOptions],
    ) -> Assistant:
        """Change an assistant; parameters that are not passed stay as they are.

        Safe to cancel; the change may then be made or not.

        Args:
            assistant_id: The assistant. The other parameters are those of `create`.

        Raises:
            APIError: The server refused the request, or did not answer.
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
        return await self._ask(Assistant, "POST", "assistants", assistant_id, body=body, options=options)

    def list(
        self,
        *,
        limit: int | None = None,
        order: Literal["asc", "desc"] | None = None,
        after: str | None = None,
        before: str | None = None,
        **options: Unpack[CallOptions],
    ) -> PageCall[Assistant]:
        """List assistants: `await` for one page, `async for` for all. Safe to cancel.

        Args:
            limit: Items per page, 1 to 100; the server's default is 20.
            order: Oldest ("asc") or newest ("desc") first, by creation; the server's default is "desc".
            after: Id of the item before the page.
            before: Id of the item after the page.
        """
        query = {"limit": limit, "order": order, "after": after, "before": before}
        return self._list(Assistant, "assistants", query=query, options=options)

    async def delete(self, assistant_id: str, **options: Unpack[CallOptions]) -> Deleted:
        """Delete an assistant. Safe to cancel; it may then be deleted or not.

        Raises:
            APIError: There is no such assistant, or the server did not answer.
        """
        return await self._ask(Deleted, "DELETE", "assistants", assistant_id, options=options)
