"""Threads: https://platform.openai.com/docs/api-reference/threads"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from msgspec import UNSET

from asyncruns.abc import RunClient
from asyncruns.http import require_id
from asyncruns.resources.base import PageCall, RawCalls, Resource, Server
from asyncruns.resources.messages import Messages
from asyncruns.resources.options import CallOptions
from asyncruns.resources.run_operations import RawRuns
from asyncruns.resources.run_parameters import RunSettings, split_options, with_response_format
from asyncruns.resources.run_polling import cadence_of, polled
from asyncruns.resources.run_streaming import AssistantStreamManager, H, managed
from asyncruns.resources.runs import Runs
from asyncruns.watch.to_outcome import create_guard_for
from asyncruns.wire import Deleted, Maybe, Run, Thread

if TYPE_CHECKING:
    from asyncruns.streams.event_handler import AssistantEventHandler
    from asyncruns.streams.run_stream import RunStream


class RawThreads(RawCalls):
    """`client.threads.with_raw_response`."""

    messages: RawCalls
    runs: RawRuns


class Threads(Resource):
    """`client.threads`, with `.messages`, `.runs` and `.runs.steps`. Every method also takes the `CallOptions`."""

    def __init__(self, client: RunClient[Run], server: Server) -> None:
        super().__init__(server)
        self._client = client
        self.messages: Messages = Messages(server)
        self.runs: Runs = Runs(client, server)

    @property
    def with_raw_response(self) -> RawThreads:
        """The same methods, returning a `RawResponse`; `.messages`, `.runs` and `.runs.steps` too."""
        return RawThreads(self)

    async def create(
        self,
        *,
        messages: Maybe[Iterable[Mapping[str, Any] | Any]] = UNSET,
        metadata: Maybe[Mapping[str, str]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
        **options: Unpack[CallOptions],
    ) -> Thread:
        """Create a thread.

        Safe to cancel; the thread may then exist or not.

        Args:
            messages: The first messages, each `{"role": "user", "content": ...}`.
            metadata: Up to 16 pairs; keys up to 64 characters, values up to 512.
            tool_resources: Files and vector stores for the server's own tools.

        Raises:
            APIError: The server refused the request, or did not answer.
        """
        body = {"messages": messages, "metadata": metadata, "tool_resources": tool_resources}
        return await self._ask(Thread, "POST", "threads", body=body, options=options)

    async def retrieve(self, thread_id: str, **options: Unpack[CallOptions]) -> Thread:
        """Fetch a thread. Safe to cancel.

        Raises:
            APIError: There is no such thread, or the server did not answer.
        """
        return await self._ask(Thread, "GET", "threads", thread_id, options=options)

    def list(
        self,
        *,
        limit: int | None = None,
        order: Literal["asc", "desc"] | None = None,
        after: str | None = None,
        before: str | None = None,
        **options: Unpack[CallOptions],
    ) -> PageCall[Thread]:
        """List threads; only some servers support this (Azure AI Foundry), others answer 404 or 405. Safe to cancel.

        Args:
            limit: Items per page, 1 to 100; the server's default is 20.
            order: Oldest ("asc") or newest ("desc") first, by creation; the server's default is "desc".
            after: Id of the item before the page.
            before: Id of the item after the page.
        """
        query = {"limit": limit, "order": order, "after": after, "before": before}
        return self._list(Thread, "threads", query=query, options=options)

    async def update(
        self,
        thread_id: str,
        *,
        metadata: Maybe[Mapping[str, str]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
        **options: Unpack[CallOptions],
    ) -> Thread:
        """Change a thread's metadata or tool resources.

        Safe to cancel; the change may then be made or not.

        Raises:
            APIError: The server refused the request, or did not answer.
        """
        body = {"metadata": metadata, "tool_resources": tool_resources}
        return await self._ask(Thread, "POST", "threads", thread_id, body=body, options=options)

    async def delete(self, thread_id: str, **options: Unpack[CallOptions]) -> Deleted:
        """Delete a thread and everything in it. Safe to cancel; it may then be deleted or not.

        Raises:
            APIError: There is no such thread, or the server did not answer.
        """
        return await self._ask(Deleted, "DELETE", "threads", thread_id, options=options)

    @overload
    async def create_and_run(
        self,
        *,
        assistant_id: str,
        thread: Maybe[Mapping[str, Any]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
        stream: Literal[False] | None = None,
        **parameters: Unpack[RunSettings],
    ) -> Run: ...

    @overload
    async def create_and_run(
        self,
        *,
        assistant_id: str,
        thread: Maybe[Mapping[str, Any]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
        stream: Literal[True],
        **parameters: Unpack[RunSettings],
    ) -> RunStream: ...

    @overload
    async def create_and_run(
        self,
        *,
        assistant_id: str,
        thread: Maybe[Mapping[str, Any]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
        stream: bool,
        **parameters: Unpack[RunSettings],
    ) -> Run | RunStream: ...

    async def create_and_run(
        self,
        *,
        assistant_id: str,
        thread: Maybe[Mapping[str, Any]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
        stream: bool | None = None,
        **parameters: Unpack[RunSettings],
    ) -> Run | RunStream:
        """Create a thread and start a run on it, in one request.

        Safe to cancel; thread and run may then exist or not.

        Args:
            assistant_id: The assistant.
            thread: The parameters of `create`, as one object.
            tool_resources: Files and vector stores for the server's own tools.
            stream: Whether to return a `RunStream` in place of the run; use it with `async with`.
            **parameters: See `RunSettings`; messages go into `thread` here.

        Raises:
            APIError: The server refused the request, or did not answer.
        """
        require_id("assistant_id", assistant_id)
        settings, options = split_options(with_response_format(parameters), RunSettings)
        body = {"assistant_id": assistant_id, "thread": thread, "tool_resources": tool_resources, **settings}
        if stream:
            from asyncruns.streams.run_stream import RunStream  # late: most programs do not stream

            request = self._request("POST", "threads", "runs", body={**body, "stream": True}, options=options)
            return RunStream(request, await self._open_stream(request))
        return await self._ask(Run, "POST", "threads", "runs", body=body, options=options)

    async def create_and_run_poll(
        self,
        *,
        assistant_id: str,
        thread: Maybe[Mapping[str, Any]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
        poll_interval_ms: float | None = None,
        **parameters: Unpack[RunSettings],
    ) -> Run:
        """Create a thread, start a run on it, and poll that until it has ended, or waits for the caller.

        Safe to cancel; leaving waits for a pending create, for at most 5 s, and a warning names the run, which goes on
        at the server.

        Args:
            assistant_id: The assistant.
            thread: The parameters of `create`, as one object.
            tool_resources: Files and vector stores for the server's own tools.
            poll_interval_ms: As in `runs.poll`.
            **parameters: See `RunSettings`; messages go into `thread` here.

        Raises:
            APIError: The server refused the request, or did not answer.
            WatchGaveUpError: As in `runs.poll`.
        """
        cadence = cadence_of(poll_interval_ms)
        create = self.create_and_run(
            assistant_id=assistant_id, thread=thread, tool_resources=tool_resources, **parameters
        )
        run = await create_guard_for(self._client, {}).keep(create)
        return await polled(self._client, run, cadence, split_options(parameters, RunSettings)[1])

    @overload
    def create_and_run_stream(
        self,
        *,
        assistant_id: str,
        thread: Maybe[Mapping[str, Any]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
        event_handler: None = None,
        **parameters: Unpack[RunSettings],
    ) -> AssistantStreamManager[AssistantEventHandler]: ...

    @overload
    def create_and_run_stream(
        self,
        *,
        assistant_id: str,
        thread: Maybe[Mapping[str, Any]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
        event_handler: H,
        **parameters: Unpack[RunSettings],
    ) -> AssistantStreamManager[H]: ...

    def create_and_run_stream(
        self,
        *,
        assistant_id: str,
        thread: Maybe[Mapping[str, Any]] = UNSET,
        tool_resources: Maybe[Mapping[str, Any] | Any] = UNSET,
        event_handler: H | None = None,
        **parameters: Unpack[RunSettings],
    ) -> AssistantStreamManager[H] | AssistantStreamManager[AssistantEventHandler]:
        """Create a thread, start a run on it, and read its events; with `async with`, as `runs.stream`.

        Nothing is sent before `async with`, which raises the errors of `create_and_run`.

        Args:
            assistant_id: The assistant.
            thread: The parameters of `create`, as one object.
            tool_resources: Files and vector stores for the server's own tools.
            event_handler: As in `runs.stream`.
            **parameters: See `RunSettings`; messages go into `thread` here.
        """

        async def begin() -> RunStream:
            stream: RunStream = await self.create_and_run(
                assistant_id=assistant_id, thread=thread, tool_resources=tool_resources, stream=True, **parameters
            )
            return stream

        return managed(begin, event_handler)
