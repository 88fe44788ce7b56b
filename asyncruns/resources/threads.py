"""Threads: https://platform.openai.com/docs/api-reference/threads"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from msgspec import UNSET

from asyncruns.abc import Connection, Transport
from asyncruns.http import Request, join_path
from asyncruns.resources.base import Resource
from asyncruns.resources.messages import Messages
from asyncruns.resources.runs import RunParameters, Runs
from asyncruns.wire import Deleted, Maybe, Run, Thread


class Threads(Resource):
    """`client.threads`, with `.messages`, `.runs` and `.runs.steps`."""

    def __init__(self, connection: Connection[Run], transport: Transport, host: str = "") -> None:
        super().__init__(transport, host)
        self.messages: Messages = Messages(transport, host)
        self.runs: Runs = Runs(connection, transport, host)

    async def create(
        self,
        *,
        messages: Maybe[Iterable[Mapping[str, Any] | Any]] = UNSET,
        metadata: Maybe[Mapping[str, str]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
    ) -> Thread:
        """Create a thread.

        Safe to cancel; the thread may then exist or not.

        Args:
            messages: To begin with; `{"role": "user", "content": ...}` each.
            metadata: Up to 16 pairs; keys to 64 characters, values to 512.

        Raises:
            APIError: The server refused it, or gave no answer.
        """
        body = {"messages": messages, "metadata": metadata, "tool_resources": tool_resources}
        return await self._post(Thread, "threads", body=body)

    async def retrieve(self, thread_id: str) -> Thread:
        """Fetch a thread. Safe to cancel.

        Raises:
            APIError: There is no such thread, or no answer.
        """
        return await self._send(Request("GET", join_path("threads", thread_id)), Thread)

    async def update(
        self,
        thread_id: str,
        *,
        metadata: Maybe[Mapping[str, str]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
    ) -> Thread:
        """Change a thread's metadata or tool resources.

        Safe to cancel; the change may then be made or not.

        Raises:
            APIError: The server refused it, or gave no answer.
        """
        return await self._post(
            Thread, "threads", thread_id, body={"metadata": metadata, "tool_resources": tool_resources}
        )

    async def delete(self, thread_id: str) -> Deleted:
        """Delete a thread with all that is in it. Safe to cancel; it may then be deleted or not.

        Raises:
            APIError: There is no such thread, or no answer.
        """
        return await self._delete(Deleted, "threads", thread_id)

    async def create_and_run(
        self,
        *,
        assistant_id: str,
        thread: Maybe[Mapping[str, Any]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
        **parameters: Unpack[RunParameters],
    ) -> Run:
        """Create a thread and start a run on it, in one request.

        Safe to cancel; thread and run may then exist or not.

        Args:
            assistant_id: The assistant.
            thread: What `create` takes, as one object.
            **parameters: See `RunParameters`; messages go into `thread` here.

        Raises:
            APIError: The server refused it, or gave no answer.
        """
        body = {"assistant_id": assistant_id, "thread": thread, "tool_resources": tool_resources, **parameters}
        return await self._post(Run, "threads", "runs", body=body)
