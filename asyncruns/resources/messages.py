"""Messages of a thread: https://platform.openai.com/docs/api-reference/messages"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Unpack

from msgspec import UNSET

from asyncruns.resources.base import PageCall
from asyncruns.resources.options import CallOptions
from asyncruns.resources.thread_items import ThreadItems
from asyncruns.resources.thread_lock import OnBusy
from asyncruns.wire import Deleted, Maybe, Message

if TYPE_CHECKING:
    from asyncruns.resources.message_batches import MessageBatches


class Messages(ThreadItems):
    """`client.threads.messages`. Every method also takes the `CallOptions`."""

    @cached_property
    def batches(self) -> MessageBatches:
        """Batches of Anthropic's API: `client.messages.batches`, as in its client, is `client.message_batches`."""
        from asyncruns.resources.message_batches import MessageBatches  # late: few programs use all wires

        return MessageBatches(self._server)

    async def create(
        self,
        thread_id: str,
        *,
        role: str = "user",
        content: str | Iterable[Mapping[str, Any] | Any],
        attachments: Maybe[Iterable[Mapping[str, Any] | Any]] = UNSET,
        metadata: Maybe[Mapping[str, str]] = UNSET,
        on_busy: OnBusy = "raise",
        adopt: bool = False,
        **options: Unpack[CallOptions],
    ) -> Message:
        """Add a message to a thread.

        Safe to cancel; the message may then exist or not. Waiting for a run changes nothing at the server.

        Args:
            thread_id: The thread; it is locked while a run on it is active.
            role: "user", or "assistant" for a message in the assistant's name.
            content: Text, or a list of content parts.
            metadata: Up to 16 pairs; keys up to 64 characters, values up to 512.
            on_busy: What to do while a run is active on the thread: "raise", or "wait" until it has ended and try
                again, however many other runs precede it. Each run is waited for until 60 s after its own expiry by the
                server's clock, or for 15 minutes if it has none. A run that waits for outputs is left to its owner.
            adopt: Whether to find out, after a lost answer, whether the message was created, by a pair
                `asyncruns_nonce` in its metadata; as in `runs.create`.

        Raises:
            ThreadBusyError: A run on the thread is active; the error names the run.
            BadRequestError: The server refused the message.
            APIError: The server did not answer; the message may exist. With `adopt`, that is only possible if the
                server's list does not show whether it does, as the error's text then says.
        """
        return await self._create(
            Message,
            *("threads", thread_id, "messages"),
            body={"role": role, "content": content, "attachments": attachments, "metadata": metadata},
            options=options,
            on_busy=on_busy,
            adopt=adopt,
        )

    async def retrieve(self, message_id: str, *, thread_id: str, **options: Unpack[CallOptions]) -> Message:
        """Fetch a message. Safe to cancel.

        Raises:
            APIError: There is no such message, or the server did not answer.
        """
        return await self._ask(Message, "GET", "threads", thread_id, "messages", message_id, options=options)

    def list(
        self,
        thread_id: str,
        *,
        limit: int | None = None,
        order: Literal["asc", "desc"] | None = None,
        after: str | None = None,
        before: str | None = None,
        run_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> PageCall[Message]:
        """List messages: `await` for one page, `async for` for all. Safe to cancel.

        Args:
            limit: Items per page, 1 to 100; the server's default is 20.
            order: Oldest ("asc") or newest ("desc") first, by creation; the server's default is "desc".
            after: Id of the item before the page.
            before: Id of the item after the page.
            run_id: Only messages that this run wrote.
        """
        query = {"limit": limit, "order": order, "after": after, "before": before, "run_id": run_id}
        return self._list(Message, "threads", thread_id, "messages", query=query, options=options)

    async def update(
        self,
        message_id: str,
        *,
        thread_id: str,
        metadata: Maybe[Mapping[str, str]] = UNSET,
        **options: Unpack[CallOptions],
    ) -> Message:
        """Change a message's metadata; nothing else of it can be changed.

        Safe to cancel; the change may then be made or not.

        Args:
            metadata: Up to 16 pairs; keys up to 64 characters, values up to 512.

        Raises:
            APIError: The server refused the request, or did not answer.
        """
        body = {"metadata": metadata}
        return await self._ask(
            Message, "POST", "threads", thread_id, "messages", message_id, body=body, options=options
        )

    async def delete(self, message_id: str, *, thread_id: str, **options: Unpack[CallOptions]) -> Deleted:
        """Delete a message. Safe to cancel; it may then be deleted or not.

        Raises:
            APIError: There is no such message, or the server did not answer.
        """
        return await self._ask(Deleted, "DELETE", "threads", thread_id, "messages", message_id, options=options)
