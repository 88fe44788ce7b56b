"""The operations on runs of a thread: https://platform.openai.com/docs/api-reference/runs"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from msgspec import UNSET

from asyncruns.abc import RunClient
from asyncruns.errors import InvalidRequestError
from asyncruns.http import require_id
from asyncruns.resources.base import PageCall, RawCalls, Server
from asyncruns.resources.options import CallOptions
from asyncruns.resources.run_parameters import (
    RunParameters,
    ToolApproval,
    ToolOutput,
    split_options,
    with_response_format,
)
from asyncruns.resources.steps import Steps
from asyncruns.resources.thread_items import ThreadItems
from asyncruns.resources.thread_lock import OnBusy
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.watch.options import WatchOptions
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.to_outcome import watch_to_outcome
from asyncruns.wire import Maybe, Run

if TYPE_CHECKING:
    from asyncruns.streams.run_stream import RunStream


class RawRuns(RawCalls):
    """`client.threads.runs.with_raw_response`."""

    steps: RawCalls


class RunOperations(ThreadItems):
    """The operations on the runs of a thread, one request each. Every method also takes the `CallOptions`."""

    def __init__(self, client: RunClient[Run], server: Server) -> None:
        super().__init__(server)
        self._client = client
        self.steps: Steps = Steps(server)

    @property
    def with_raw_response(self) -> RawRuns:
        """The same methods, returning a `RawResponse`; `.steps` too."""
        return RawRuns(self)

    @overload
    async def create(
        self,
        thread_id: str,
        *,
        assistant_id: str,
        include: Sequence[str] | None = None,
        on_busy: OnBusy = "raise",
        adopt: bool = False,
        stream: Literal[False] | None = None,
        **parameters: Unpack[RunParameters],
    ) -> Run: ...

    @overload
    async def create(
        self,
        thread_id: str,
        *,
        assistant_id: str,
        include: Sequence[str] | None = None,
        on_busy: OnBusy = "raise",
        adopt: bool = False,
        stream: Literal[True],
        **parameters: Unpack[RunParameters],
    ) -> RunStream: ...

    @overload
    async def create(
        self,
        thread_id: str,
        *,
        assistant_id: str,
        include: Sequence[str] | None = None,
        on_busy: OnBusy = "raise",
        adopt: bool = False,
        stream: bool,
        **parameters: Unpack[RunParameters],
    ) -> Run | RunStream: ...

    async def create(
        self,
        thread_id: str,
        *,
        assistant_id: str,
        include: Sequence[str] | None = None,
        on_busy: OnBusy = "raise",
        adopt: bool = False,
        stream: bool | None = None,
        **parameters: Unpack[RunParameters],
    ) -> Run | RunStream:
        """Start a run on a thread; with `stream=True`, return its events as they happen.

        Safe to cancel; the run may then exist or not, and holds the thread if it does. Waiting for another run changes
        nothing at the server.

        Args:
            thread_id: The thread.
            assistant_id: The assistant.
            include: What else to include in the steps of the answer.
            on_busy: What to do while another run is active on the thread: "raise", or "wait" until it has ended and try
                again, however many other runs precede it. Each run is waited for until 60 s after its own expiry by the
                server's clock, or for 15 minutes if it has none. A run that waits for outputs is left to its owner.
            adopt: Whether to find out, after a lost answer, whether the run was created. The metadata then carries a
                pair `asyncruns_nonce`, by which the run is found and returned as if the create had returned it. A run
                that certainly does not exist is created again, up to twice. The polls for it take 5 s, or up to a
                minute if they fail. Not possible if the metadata already has 16 pairs, nor with `stream`.
            stream: Whether to return a `RunStream` in place of the run; use it with `async with`.
            **parameters: See `RunParameters`.

        Raises:
            ThreadBusyError: Another run on the thread is active; the error names the run.
            BadRequestError: The server refused a parameter.
            APIError: The server did not answer; after a timeout or a dropped connection the run may exist. With
                `adopt`, that is only possible if the server's list does not show whether it does, as the error's text
                then says.
        """
        if not stream:
            return await self._create_kept(
                thread_id, assistant_id, parameters, include=include, on_busy=on_busy, adopt=adopt, guard=None
            )
        require_id("assistant_id", assistant_id)
        settings, options = split_options(with_response_format(parameters), RunParameters)
        segments, query = ("threads", thread_id, "runs"), {"include": include}
        body = {"assistant_id": assistant_id, **settings}
        return await self._create_stream(
            *segments, query=query, body=body, options=options, on_busy=on_busy, adopt=adopt
        )

    async def _create_kept(
        self,
        thread_id: str,
        assistant_id: str,
        parameters: RunParameters,
        *,
        guard: CreateGuard | None,
        include: Sequence[str] | None = None,
        on_busy: OnBusy = "raise",
        adopt: bool = False,
    ) -> Run:
        """Start a run as `create` does, for a method that then watches it.

        Args:
            guard: Awaits each try, so that the run is not lost when the caller is cancelled; None for no guard.
        """
        require_id("assistant_id", assistant_id)
        settings, options = split_options(with_response_format(parameters), RunParameters)
        return await self._create(
            Run,
            *("threads", thread_id, "runs"),
            query={"include": include},
            body={"assistant_id": assistant_id, **settings},
            options=options,
            on_busy=on_busy,
            adopt=adopt,
            guard=guard,
        )

    async def retrieve(self, run_id: str, *, thread_id: str, **options: Unpack[CallOptions]) -> Run:
        """Fetch a run. Safe to cancel.

        Raises:
            NotFoundError: There is no such run; a replica that lags may say so just after it was created.
            APIError: The server did not answer.
        """
        return await self._ask(Run, "GET", "threads", thread_id, "runs", run_id, options=options)

    def list(
        self,
        thread_id: str,
        *,
        limit: int | None = None,
        order: Literal["asc", "desc"] | None = None,
        after: str | None = None,
        before: str | None = None,
        **options: Unpack[CallOptions],
    ) -> PageCall[Run]:
        """List the runs of a thread: `await` for one page, `async for` for all. Safe to cancel.

        Args:
            limit: Items per page, 1 to 100; the server's default is 20.
            order: Oldest ("asc") or newest ("desc") first, by creation; the server's default is "desc".
            after: Id of the item before the page.
            before: Id of the item after the page.
        """
        query = {"limit": limit, "order": order, "after": after, "before": before}
        return self._list(Run, "threads", thread_id, "runs", query=query, options=options)

    async def update(
        self,
        run_id: str,
        *,
        thread_id: str,
        metadata: Maybe[Mapping[str, str]] = UNSET,
        **options: Unpack[CallOptions],
    ) -> Run:
        """Change a run's metadata; nothing else of it can be changed.

        Safe to cancel; the change may then be made or not.

        Args:
            metadata: Up to 16 pairs; keys up to 64 characters, values up to 512. Servers merge it into what there is.

        Raises:
            APIError: The server refused the request (some do while the run is in progress), or did not answer.
        """
        body = {"metadata": metadata}
        return await self._ask(Run, "POST", "threads", thread_id, "runs", run_id, body=body, options=options)

    async def cancel(self, run_id: str, *, thread_id: str, **options: Unpack[CallOptions]) -> Run:
        """Request the cancellation of a run.

        The run is usually returned as `cancelling`. It ends later, and may still complete or fail instead.

        Safe to cancel; the cancellation may then take effect at the server or not.

        Raises:
            BadRequestError: The run has ended already; retrieve it to see how.
            APIError: The server did not answer.
        """
        return await self._ask(Run, "POST", "threads", thread_id, "runs", run_id, "cancel", options=options)

    @overload
    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: Maybe[Iterable[ToolOutput | Mapping[str, str]]] = UNSET,
        tool_approvals: Maybe[Iterable[ToolApproval | Mapping[str, Any]]] = UNSET,
        stream: Literal[False] | None = None,
        **options: Unpack[CallOptions],
    ) -> Run: ...

    @overload
    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: Maybe[Iterable[ToolOutput | Mapping[str, str]]] = UNSET,
        tool_approvals: Maybe[Iterable[ToolApproval | Mapping[str, Any]]] = UNSET,
        stream: Literal[True],
        **options: Unpack[CallOptions],
    ) -> RunStream: ...

    @overload
    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: Maybe[Iterable[ToolOutput | Mapping[str, str]]] = UNSET,
        tool_approvals: Maybe[Iterable[ToolApproval | Mapping[str, Any]]] = UNSET,
        stream: bool,
        **options: Unpack[CallOptions],
    ) -> Run | RunStream: ...

    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: Maybe[Iterable[ToolOutput | Mapping[str, str]]] = UNSET,
        tool_approvals: Maybe[Iterable[ToolApproval | Mapping[str, Any]]] = UNSET,
        stream: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> Run | RunStream:
        """Submit the outputs of a run's calls, all of them in one request. A watcher does this by itself.

        Safe to cancel; the outputs may then have been accepted or not: retrieve the run before submitting them again.

        Args:
            run_id: The run.
            thread_id: Its thread.
            tool_outputs: `{"tool_call_id": ..., "output": ...}` for each call; outputs are strings.
            tool_approvals: `{"tool_call_id": ..., "approve": ..., "headers": {...}}` for each call of a
                `submit_tool_approval` (Azure AI Foundry).
            stream: Whether to return a `RunStream` in place of the run, with the events from here on.

        Raises:
            InvalidRequestError: Neither outputs, nor approvals, nor an `extra_body` were passed.
            BadRequestError: The run does not wait for outputs, or not for these.
            APIError: The server did not answer.
        """
        if tool_outputs is UNSET and tool_approvals is UNSET and not options.get("extra_body"):
            raise InvalidRequestError("Pass tool_outputs, or tool_approvals if the run waits for approvals")
        body = {"tool_outputs": tool_outputs, "tool_approvals": tool_approvals}
        segments = ("threads", thread_id, "runs", run_id, "submit_tool_outputs")
        if stream:
            from asyncruns.streams.run_stream import RunStream  # late: most programs do not stream

            request = self._request("POST", *segments, body={**body, "stream": True}, options=options)
            return RunStream(request, await self._open_stream(request), run_id=run_id, thread_id=thread_id)
        return await self._ask(Run, "POST", *segments, body=body, options=options)

    async def watch(self, run_id: str, *, thread_id: str, **options: Unpack[WatchOptions]) -> AnyOutcome[Run]:
        """Watch a run to its end; the same as `client.watch` with ids. See `RunWatcher` for the options.

        Safe to cancel: leaving waits for a pending submit, for at most 5 s; the run goes on at the server, or is
        cancelled with `on_exit="cancel"`.
        """
        return await watch_to_outcome(self._client, None, options, thread_id=thread_id, run_id=run_id)
