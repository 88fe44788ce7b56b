"""A run's stream with methods that are called as it goes on, by the names that users of the official client know."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Self

from asyncruns.errors import APIError, APITimeoutError, InvalidRequestError
from asyncruns.streams.callbacks import Callback, Callbacks
from asyncruns.streams.event_stream import source_of
from asyncruns.streams.run_stream import RunStream
from asyncruns.wire import ImageFile, Message, Run, RunStep, Text
from asyncruns.wire.deltas import MessageDeltaFields, RunStepDeltaFields, TextDelta, ToolCallDelta
from asyncruns.wire.statuses import ENDED_STATUSES
from asyncruns.wire.steps import StepToolCall
from asyncruns.wire.stream_events import DoneEvent, ThreadStreamEvent


class AssistantEventHandler:
    """Reads a run's stream; a subclass overrides what it wants to hear of.

    ::

        class Printer(AssistantEventHandler):
            async def on_text_delta(self, delta: TextDelta, snapshot: Text) -> None:
                print(delta.value, end="")

        async with client.threads.runs.stream(thread_id=..., assistant_id=..., event_handler=Printer()) as stream:
            await stream.until_done()

    The methods are called while somebody reads: by iteration, which gives the events, by `text_deltas`, `until_done` or
    `get_final_...`. What `current_...` gives has taken notice of the event at hand. Each stream needs a handler of its
    own.

    What a method raises ends the stream, and is raised to the reader. Reading is safe to cancel: no event is lost, and
    the run goes on at the server; a method that is cancelled is not called again for the same event.
    """

    __handled: _Handled | None = None

    def _init(self, stream: RunStream) -> None:
        self.__handled = _Handled(self, stream)

    def _check_unused(self) -> None:
        if self.__handled is not None:
            raise InvalidRequestError("This event handler has had a stream already; make a new one for each stream")

    @property
    def __used(self) -> _Handled:
        if self.__handled is None:
            raise InvalidRequestError(
                "This event handler has no stream yet; give it as event_handler= and use what `async with` gives"
            )
        return self.__handled

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ThreadStreamEvent:
        """Give the next event, after the methods were called for it. The `done` at the end is not given.

        Raises:
            APIError: The server gave up the stream with an error.
            APIConnectionError: The stream broke; what to do next is in the message. The run goes on at the server.
            APITimeoutError: No byte came within the request's timeout; as above.
        """
        event = await self.__used.next()
        if event is None:
            raise StopAsyncIteration
        return event

    @property
    def text_deltas(self) -> AsyncIterator[str]:
        """The pieces of the text as they come: `async for text in stream.text_deltas`.

        Raises as iteration does, and `APIConnectionError` if the stream ended too early for the text to be whole.
        """
        return self.__text_deltas()

    async def __text_deltas(self) -> AsyncIterator[str]:
        source = self.__used.source
        async for event in self:
            if (text := source.text_in(event)) or (text := source.text_in(source.rest_in(event))):
                yield text
        source.check_whole()

    async def until_done(self) -> None:
        """Read the stream to its end. Safe to cancel; raises as iteration does."""
        async for _ in self:
            pass

    async def get_final_run(self) -> Run:
        """Read the stream to its end, and give the run as last seen. Safe to cancel; raises as iteration does.

        It may wait for outputs; and a stream that the server closed early leaves a run that is not at its end: its
        `status` tells.

        Raises:
            APIError: The stream told of no run.
        """
        await self.until_done()
        if (run := self.current_run) is None:
            raise APIError("The stream ended without a word of its run; list the runs of the thread to find it")
        return run

    async def get_final_run_steps(self) -> list[RunStep]:
        """Read the stream to its end, and give the steps of it. Safe to cancel; raises as iteration does."""
        await self.until_done()
        return self.__used.stream.steps

    async def get_final_messages(self) -> list[Message]:
        """Read the stream to its end, and give the messages of it. Safe to cancel; raises as iteration does.

        Raises:
            APIConnectionError: The stream ended too early, so that they may not be whole.
        """
        await self.until_done()
        self.__used.source.check_whole()
        return self.__used.stream.messages

    async def close(self) -> None:
        """Stop reading; `async with` does it when it is left. May be called twice.

        The run goes on at the server: cancel it there if nobody wants it.
        """
        if self.__handled is not None:
            await self.__handled.close()

    @property
    def current_event(self) -> ThreadStreamEvent | None:
        """The event that the methods are called for, or None."""
        return self.__used.event

    @property
    def current_run(self) -> Run | None:
        """The run as last seen, or None."""
        return self.__used.stream.run

    @property
    def current_run_step_snapshot(self) -> RunStep | None:
        """The step that goes on, with all its deltas so far; or None."""
        step = self.__used.stream.step
        return None if step is None or step.status in ENDED_STATUSES else step

    @property
    def current_message_snapshot(self) -> Message | None:
        """The message that is being written, or was last, with all its deltas so far; or None."""
        return self.__used.stream.message

    # For subclasses. A snapshot is what there is with the delta.

    async def on_event(self, event: ThreadStreamEvent) -> None:
        """Hear of every event, before the other methods do."""

    async def on_run_step_created(self, run_step: RunStep) -> None:
        """Hear of a step that begins."""

    async def on_run_step_delta(self, delta: RunStepDeltaFields, snapshot: RunStep) -> None:
        """Hear of more of a step."""

    async def on_run_step_done(self, run_step: RunStep) -> None:
        """Hear of a step that has ended, in whatever way."""

    async def on_tool_call_created(self, tool_call: StepToolCall) -> None:
        """Hear of a call that begins, with its first delta."""

    async def on_tool_call_delta(self, delta: ToolCallDelta, snapshot: StepToolCall) -> None:
        """Hear of more of a call, after its first delta."""

    async def on_tool_call_done(self, tool_call: StepToolCall) -> None:
        """Hear of a call that is whole. The caller's functions are to be answered at `requires_action`."""

    async def on_message_created(self, message: Message) -> None:
        """Hear of a message that begins."""

    async def on_message_delta(self, delta: MessageDeltaFields, snapshot: Message) -> None:
        """Hear of more of a message."""

    async def on_message_done(self, message: Message) -> None:
        """Hear of a message that has ended, whole or not: `status` tells."""

    async def on_text_created(self, text: Text) -> None:
        """Hear of a text that begins, with its first delta."""

    async def on_text_delta(self, delta: TextDelta, snapshot: Text) -> None:
        """Hear of more of a text, from its first delta on."""

    async def on_text_done(self, text: Text) -> None:
        """Hear of a text that is whole."""

    async def on_image_file_done(self, image_file: ImageFile) -> None:
        """Hear of an image in a message, once what follows begins."""

    async def on_timeout(self) -> None:
        """Hear that nothing came for too long, before `on_exception`."""

    async def on_exception(self, exception: Exception) -> None:
        """Hear of what ended the stream, and is raised afterwards."""

    async def on_end(self) -> None:
        """Hear that reading is over, once: at the stream's end, after `on_exception`, or when it is left early."""


AsyncAssistantEventHandler = AssistantEventHandler


class _Handled:
    """A stream that is read for a handler.

    Attributes:
        stream: The stream.
        source: What the stream reads from.
        event: What the handler's methods are being called for, or None.
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
        """Give the next event, or None at the end, when the handler has heard of it."""
        if self._is_over:
            return None
        self._has_begun = True
        try:
            if self.event is None:  # else a call for it was cancelled
                self.event = await self._read()
                if self.event is not None:
                    self._calls = self._callbacks.of(self.event)
            for name, arguments in self._calls:
                await getattr(self._handler, name)(*arguments)
            if self.event is not None:
                self.source.check_error(self.event)
        except Exception as error:
            await self._failed(error)
            raise
        event, self.event = self.event, None
        if event is None:
            await self._ended()
        return event

    async def _read(self) -> ThreadStreamEvent | None:
        async for event in self.stream:
            if not isinstance(event, DoneEvent):
                return event
        return None

    async def _failed(self, error: Exception) -> None:
        self.event, self._calls = None, iter(())
        try:
            if isinstance(error, (APITimeoutError, TimeoutError)):
                await self._handler.on_timeout()
            await self._handler.on_exception(error)
        finally:
            await self._ended()

    async def _ended(self) -> None:
        if not self._is_over:
            self._is_over = True
            await self._handler.on_end()

    async def close(self) -> None:
        await self.stream.close()
        if self._has_begun:
            await self._ended()
        self._is_over = True
