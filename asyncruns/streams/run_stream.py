"""The events of a run as they happen: https://platform.openai.com/docs/api-reference/assistants-streaming"""

from __future__ import annotations

from asyncruns.abc import ByteStream
from asyncruns.http import Request
from asyncruns.streams.event_stream import EventStream
from asyncruns.streams.run_source import RunSource
from asyncruns.wire import Message, Run, RunStep, Thread
from asyncruns.wire.stream_events import ThreadStreamEvent


class RunStream(EventStream[Run, ThreadStreamEvent]):
    """The events of a run, one by one: `async for event in stream`. Their types are in `asyncruns.wire`.

    Rely on an event's data, not its name: the run is over when `run.status` says so. A stream ends when the run waits
    for outputs; submitting these with `stream=True` returns the next stream. It may also end too early, silently or
    after an `ErrorEvent`: then `is_whole` is False and `text_deltas` raises; retrieve the run, or watch it. Iteration
    raises if the stream breaks, or if an event belongs to another run.
    """

    _source: RunSource

    def __init__(self, request: Request, body: ByteStream, *, run_id: str = "", thread_id: str = "") -> None:
        super().__init__(RunSource(request, body, run_id=run_id, thread_id=thread_id))

    @property
    def run(self) -> Run | None:
        """The run as last seen, or None."""
        return self._source.told.run

    @property
    def thread(self) -> Thread | None:
        """The thread, if it was created together with the run, or None."""
        return self._source.told.thread

    @property
    def message(self) -> Message | None:
        """The current or last message, with all its deltas so far; or None."""
        return self._source.told.message

    @property
    def messages(self) -> list[Message]:
        """All messages so far, with all their deltas."""
        return self._source.told.messages

    @property
    def step(self) -> RunStep | None:
        """The step of the last event about a step, with all its deltas so far; or None."""
        return self._source.told.step

    @property
    def steps(self) -> list[RunStep]:
        """All steps so far, with all their deltas."""
        return self._source.told.steps

    def __repr__(self) -> str:
        status = self.run.status if self.run else "nothing seen"
        return f"<RunStream {self._source.run_id or '?'} {status}>"
