"""Helpers that stream a run, named as in the official client.

https://github.com/openai/openai-python/blob/main/helpers.md#assistant-streaming-api
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar, Unpack, overload

from asyncruns.abc import AsyncOnly
from asyncruns.errors import InvalidRequestError
from asyncruns.resources.options import CallOptions
from asyncruns.resources.run_operations import RunOperations
from asyncruns.resources.run_parameters import RunParameters, ToolOutput
from asyncruns.resources.thread_lock import OnBusy

if TYPE_CHECKING:
    from asyncruns.streams.event_handler import AssistantEventHandler
    from asyncruns.streams.run_stream import RunStream

H = TypeVar("H", bound="AssistantEventHandler")


class AssistantStreamManager(AsyncOnly, Generic[H]):
    """A stream that `async with` opens, returning its event handler. Nothing is sent before."""

    def __init__(self, begin: Callable[[], Awaitable[RunStream]], event_handler: H) -> None:
        self._begin = begin
        self._handler = event_handler

    async def __aenter__(self) -> H:
        """Send the request, and wait for the stream to begin.

        Safe to cancel; the run may then exist, or have accepted the outputs, or not; if so, it goes on at the server.

        Raises:
            InvalidRequestError: The handler already has a stream; nothing was sent.
            APIError: As in `create`, `submit_tool_outputs` or `create_and_run`.
        """
        self._handler._check_unused()
        self._handler._init(await self._begin())
        return self._handler

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading. The run goes on at the server: cancel it there if it is no longer needed."""
        await self._handler.close()


def managed(
    begin: Callable[[], Awaitable[RunStream]], event_handler: H | None
) -> AssistantStreamManager[H] | AssistantStreamManager[AssistantEventHandler]:
    """Return the manager of a stream, with the handler or, if it is None, one that does nothing.

    Raises:
        InvalidRequestError: The handler is a class.
    """
    if isinstance(event_handler, type):
        raise InvalidRequestError(f"event_handler must be an instance: event_handler={event_handler.__name__}()")
    if event_handler is not None:
        return AssistantStreamManager(begin, event_handler)
    from asyncruns.streams.event_handler import AssistantEventHandler  # late: most programs do not stream

    return AssistantStreamManager(begin, AssistantEventHandler())


class RunStreaming(RunOperations):
    """The helpers that stream a run."""

    @overload
    def stream(
        self,
        *,
        thread_id: str,
        assistant_id: str,
        include: Sequence[str] | None = None,
        on_busy: OnBusy = "raise",
        event_handler: None = None,
        **parameters: Unpack[RunParameters],
    ) -> AssistantStreamManager[AssistantEventHandler]: ...

    @overload
    def stream(
        self,
        *,
        thread_id: str,
        assistant_id: str,
        include: Sequence[str] | None = None,
        on_busy: OnBusy = "raise",
        event_handler: H,
        **parameters: Unpack[RunParameters],
    ) -> AssistantStreamManager[H]: ...

    def stream(
        self,
        *,
        thread_id: str,
        assistant_id: str,
        include: Sequence[str] | None = None,
        on_busy: OnBusy = "raise",
        event_handler: H | None = None,
        **parameters: Unpack[RunParameters],
    ) -> AssistantStreamManager[H] | AssistantStreamManager[AssistantEventHandler]:
        """Start a run and read its events: `async with client.threads.runs.stream(...) as stream`.

        Nothing is sent before `async with`, which raises the errors of `create`.

        Args:
            thread_id: The thread.
            assistant_id: The assistant.
            include: What else to include in the steps of the answer.
            on_busy: As in `create`.
            event_handler: The handler that `async with` returns, whose methods are called; see `AssistantEventHandler`.
            **parameters: See `RunParameters`.
        """

        async def begin() -> RunStream:
            stream: RunStream = await self.create(
                thread_id, assistant_id=assistant_id, include=include, on_busy=on_busy, stream=True, **parameters
            )
            return stream

        return managed(begin, event_handler)

    create_and_stream = stream
    """The older name of `stream`."""

    @overload
    def submit_tool_outputs_stream(
        self,
        *,
        tool_outputs: Iterable[ToolOutput | Mapping[str, str]],
        run_id: str,
        thread_id: str,
        event_handler: None = None,
        **options: Unpack[CallOptions],
    ) -> AssistantStreamManager[AssistantEventHandler]: ...

    @overload
    def submit_tool_outputs_stream(
        self,
        *,
        tool_outputs: Iterable[ToolOutput | Mapping[str, str]],
        run_id: str,
        thread_id: str,
        event_handler: H,
        **options: Unpack[CallOptions],
    ) -> AssistantStreamManager[H]: ...

    def submit_tool_outputs_stream(
        self,
        *,
        tool_outputs: Iterable[ToolOutput | Mapping[str, str]],
        run_id: str,
        thread_id: str,
        event_handler: H | None = None,
        **options: Unpack[CallOptions],
    ) -> AssistantStreamManager[H] | AssistantStreamManager[AssistantEventHandler]:
        """Submit the outputs of a run's calls, and read its events from there on; with `async with`, as `stream`.

        Nothing is sent before `async with`, which raises the errors of `submit_tool_outputs`.

        Args:
            tool_outputs: `{"tool_call_id": ..., "output": ...}` for each call; outputs are strings.
            run_id: The run.
            thread_id: Its thread.
            event_handler: As in `stream`; a new one, not the handler of the stream that had the calls.
        """

        async def begin() -> RunStream:
            stream: RunStream = await self.submit_tool_outputs(
                run_id, thread_id=thread_id, tool_outputs=tool_outputs, stream=True, **options
            )
            return stream

        return managed(begin, event_handler)
