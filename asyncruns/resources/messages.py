"""Messages of a thread: https://platform.openai.com/docs/api-reference/messages"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import UNSET

from asyncruns.http import Request, join_path
from asyncruns.resources.base import PageCall, Resource
from asyncruns.wire import Maybe, Message


class Messages(Resource):
    """`client.threads.messages`."""

    async def create(
        self,
        thread_id: str,
        *,
        role: str = "user",
        content: str | Iterable[Mapping[str, Any] | Any],
        attachments: Maybe[Iterable[Mapping[str, Any] | Any]] = UNSET,
        metadata: Maybe[Mapping[str, str]] = UNSET,
    ) -> Message:
        """Add a message to a thread.

        Safe to cancel; the message may then exist or not.

        Args:
            thread_id: The thread; it is locked while a run on it is active, and the error then names the run.
            role: "user", or "assistant" for what an assistant is made to have said.
            content: Text, or a list of content parts.
            metadata: Up to 16 pairs; keys to 64 characters, values to 512.

        Raises:
            BadRequestError: A run on the thread is active, or the server refused the message.
            APIError: There was no answer.
        """
        body = {"role": role, "content": content, "attachments": attachments, "metadata": metadata}
        return await self._post(Message, "threads", thread_id, "messages", body=body)

    async def retrieve(self, message_id: str, *, thread_id: str) -> Message:
        """Fetch a message. Safe to cancel.

        Raises:
            APIError: There is no such message, or no answer.
        """
        return await self._send(Request("GET", join_path("threads", thread_id, "messages", message_id)), Message)

    def list(
        self,
        thread_id: str,
        *,
        limit: int | None = None,
        order: Literal["asc", "desc"] | None = None,
        after: str | None = None,
        before: str | None = None,
        run_id: str | None = None,
    ) -> PageCall[Message]:
        """List messages: `await` for one page, `async for` for all. Safe to cancel.

        Args:
            limit: 1 to 100 items a page; the server's default is 20.
            order: By creation; the server's default is newest first.
            after: The id of the item before the page.
            before: The id of the item after the page.
            run_id: Only what this run wrote.
        """
        return self._list(
            Message,
            "threads",
            thread_id,
            "messages",
            limit=limit,
            order=order,
            after=after,
            before=before,
            run_id=run_id,
        )
