"""Event handlers: a run's stream with methods that are called for its events, named as in the official client.

https://github.com/openai/openai-python/blob/main/helpers.md#assistant-events

Which methods an event calls is decided in `callbacks.py`. The methods run in the task that reads the stream, never in
the background.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Self

from asyncruns.errors import APIError, APITimeoutError, InvalidRequestError
from asyncruns.streams.callbacks import Callback, Callbacks
from asyncruns.streams.event_stream import source_of
from asyncruns.streams.run_stream import RunStream
from asyncruns.wire import ImageFile, Message, Run, RunStep, Text
from asyncruns.wire.deltas import MessageDeltaFields, RunStepDeltaFields, TextDelta, ToolCallDelta
from asyncruns.wire.status_names import ENDED_STATUSES
from asyncruns.wire.steps import StepToolCall
from asyncruns.wire.stream_events import DoneEvent, ThreadStreamEvent


class AssistantEventHandler:
    """Reads a run's stream; a subclass overrides the methods for the events it handles.

    ::

        class Printer(AssistantEventHandler):
            async def on_text_delta(self, delta: TextDelta, snapshot: Text) -> None:
                print(delta.value, end="")

        async with client.threads.runs.stream(thread_id=..., assistant_id=..., event_handler=Printer()) as stream:
            await stream.until_done()

    The methods are called while the stream is read: by iteration, which yields the events, by `text_deltas`,
    `until_done` or `get_final_...`. The `current_...` properties include the event that is being handled. Each stream
    needs a handler of its own.

    An exception raised by a method ends the stream and propagates to the reader. Reading is safe to cancel: no event is
    lost, and the run goes on at the server; a method that is cancelled is not called again for the same event.
    """

    # Mangled names, and a default in the class: subclasses neither overwrite them nor need to call `__init__` of this.
    __handled: _Handled | None = None

    def _init(self, stream: RunStream) -> None:
        self.__handled = _Handled(self, stream)

    def _check_unused(self) -> None:
        if self.__handled is not None:
            raise InvalidRequestError("This event handler already has a stream; make a new one for each stream")

    @property
    def __used(self) -> _Handled:
        if self.__handled is None:
            raise InvalidRequestError(
                "This event handler has no stream yet; pass it as event_handler= and use what `async with` returns"
            )
        return self.__handled

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ThreadStreamEvent:
        """Return the next event, after its methods were called. The final `done` event is not returned.

        Raises:
            APIError: The server ended the stream with an error.
            APIConnectionError: The stream broke; the message says what to do next. The run goes on at the server.
            APITimeoutError: No byte arrived within the request's timeout; the run goes on at the server.
        """
        event = await self.__used.next()
        if event is None:
            raise StopAsyncIteration
        return event

    @property
    def text_deltas(self) -> AsyncIterator[str]:
        """The pieces of the text as they arrive: `async for text in stream.text_deltas`.

        Raises the errors of iteration, and `APIConnectionError` if the stream ended too early for the text to be
        complete.
        """
        return self.__text_deltas()

    async def __text_deltas(self) -> AsyncIterator[str]:
        source = self.__used.source
        async for event in self:
            # A message that arrives whole may have text that no delta had.
            if (text := source.text_in(event)) or (text := source.text_in(source.rest_in(event))):
                yield text
        source.check_whole()

    async def until_done(self) -> None:
        """Read the stream to its end. Safe to cancel; raises the errors of iteration."""
        async for _ in self:
            pass

    async def get_final_run(self) -> Run:
        """Read the stream to its end, and return the run as last seen. Safe to cancel; raises the errors of iteration.

        The run may not have ended: it may wait for outputs, or the server may have closed the stream early. Check its
        `status`.

        Raises:
            APIError: The stream had no event of a run.
        """
        await self.until_done()
        if (run := self.current_run) is None:
            raise APIError("The stream ended without an event of its run; list the runs of the thread to find it")
        return run

    async def get_final_run_steps(self) -> list[RunStep]:
        """Read the stream to its end, and return its steps. Safe to cancel; raises the errors of iteration."""
        await self.until_done()
        return self.__used.stream.steps

    async def get_final_messages(self) -> list[Message]:
        """Read the stream to its end, and return its messages. Safe to cancel; raises the errors of iteration.

        Raises:
            APIConnectionError: The stream ended too early, so the messages may be incomplete.
        """
        await self.until_done()
        self.__used.source.check_whole()
        return self.__used.stream.messages

    async def close(self) -> None:
        """Stop reading; `async with` does this on exit. May be called twice.

        The run goes on at the server: cancel it there if it is no longer needed.
        """
        if self.__handled is not None:
            await self.__handled.close()

    @property
    def current_event(self) -> ThreadStreamEvent | None:
        """The event whose methods are being called, or None."""
        return self.__used.event

    @property
    def current_run(self) -> Run | None:
        """The run as last seen, or None."""
        return self.__used.stream.run

    @property
    def current_run_step_snapshot(self) -> RunStep | None:
        """The step in progress, with all its deltas so far; or None."""
        step = self.__used.stream.step
        return None if step is None or step.status in ENDED_STATUSES else step

    @property
    def current_message_snapshot(self) -> Message | None:
        """The current or last message, with all its deltas so far; or None."""
        return self.__used.stream.message

    # For subclasses to override; all do nothing here. A snapshot includes the delta that is passed with it.

    async def on_event(self, event: ThreadStreamEvent) -> None:
        """Handle any event, before the more specific methods are called."""

    async def on_run_step_created(self, run_step: RunStep) -> None:
        """Handle the beginning of a step."""

    async def on_run_step_delta(self, delta: RunStepDeltaFields, snapshot: RunStep) -> None:
        """Handle a delta of a step."""

    async def on_run_step_done(self, run_step: RunStep) -> None:
        """Handle the end of a step, successful or not: see its `status`."""

    async def on_tool_call_created(self, tool_call: StepToolCall) -> None:
        """Handle the beginning of a tool call, which includes its first delta."""

    async def on_tool_call_delta(self, delta: ToolCallDelta, snapshot: StepToolCall) -> None:
        """Handle a delta of a tool call, from its second one on."""

    async def on_tool_call_done(self, tool_call: StepToolCall) -> None:
        """Handle the end of a tool call. The outputs of functions are submitted once the run is `requires_action`."""

    async def on_message_created(self, message: Message) -> None:
        """Handle the beginning of a message."""

    async def on_message_delta(self, delta: MessageDeltaFields, snapshot: Message) -> None:
        """Handle a delta of a message."""

    async def on_message_done(self, message: Message) -> None:
        """Handle the end of a message, complete or not: see its `status`."""

    async def on_text_created(self, text: Text) -> None:
        """Handle the beginning of a text, which includes its first delta."""

    async def on_text_delta(self, delta: TextDelta, snapshot: Text) -> None:
        """Handle a delta of a text, from its first one on."""

    async def on_text_done(self, text: Text) -> None:
        """Handle the end of a text."""

    async def on_image_file_done(self, image_file: ImageFile) -> None:
        """Handle an image in a message; called when the next part begins or the message ends."""

    async def on_timeout(self) -> None:
        """Handle a timeout that ended the stream; called before `on_exception`."""

    async def on_exception(self, exception: Exception) -> None:
        """Handle the exception that ended the stream; it is raised to the reader afterwards."""

    async def on_end(self) -> None:
        """Handle the end of reading, once: at the stream's end, after `on_exception`, or when it is closed early."""


AsyncAssistantEventHandler = AssistantEventHandler  # the official client's name for its asynchronous variant


class _Handled:
    """A stream that is read for a handler.

    It lives outside the handler, so that a subclass cannot hide its attributes.

    Attributes:
        stream: The stream.
        source: The source that the stream reads from.
        event: The event whose methods are being called, or None.
    """

    def __init__(self, handler: AssistantEventHandler, stream: RunStream) -> None:
        self.stream = stream
        self.source = source_of(stream)
        self.event: ThreadStreamEvent | None = None
        self._handler = handler
        self._callbacks = Callbacks(stream, self._is_overridden)
        self._calls: Iterator[Callback] = iter(())
        self._has_begun = False
        self._is_over = False

    def _is_overridden(self, name: str) -> bool:
        mine = getattr(self._handler, name)
        return getattr(mine, "__func__", None) is not getattr(AssistantEventHandler, name)

    async def next(self) -> ThreadStreamEvent | None:
        """Return the next event after the handler's methods were called for it; None at the end."""
        if self._is_over:
            return None
        self._has_begun = True
        try:
            if self.event is None:  # otherwise a method was cancelled: continue with the next one for this event
                self.event = await self._read()
                if self.event is not None:
                    self._calls = self._callbacks.of(self.event)
            for name, arguments in self._calls:
                await self._call(name, *arguments)
            if self.event is not None:
                self.source.check_error(self.event)
        except Exception as error:
            await self._failed(error)
            raise
        event, self.event = self.event, None
        if event is None:
            await self._ended()
        return event

    async def _call(self, name: str, *arguments: object) -> None:
        called = getattr(self._handler, name)(*arguments)
        if not isinstance(called, Awaitable):
            raise TypeError(f"{name} of {type(self._handler).__name__} must be `async def`")
        await called

    async def _read(self) -> ThreadStreamEvent | None:
        async for event in self.stream:
            if not isinstance(event, DoneEvent):
                return event
        return None

    async def _failed(self, error: Exception) -> None:
        self.event, self._calls = None, iter(())  # no further method is called for this event
        try:
            if isinstance(error, (APITimeoutError, TimeoutError)):
                await self._call("on_timeout")
            await self._call("on_exception", error)
        finally:
            await self._ended()

    async def _ended(self) -> None:
        if not self._is_over:
            self._is_over = True
            await self._call("on_end")

    async def close(self) -> None:
        await self.stream.close()
        if self._has_begun:  # `on_end` is for streams that were read
            await self._ended()
        self._is_over = True
