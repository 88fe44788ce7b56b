"""The events of a run as they happen: https://platform.openai.com/docs/api-reference/assistants-streaming"""

from __future__ import annotations

from asyncruns.abc import ByteStream
from asyncruns.http import Request
from asyncruns.streams.event_stream import EventStream
from asyncruns.streams.run_source import RunSource
from asyncruns.wire import Message, Run, RunStep, Thread
from asyncruns.wire.stream_events import ThreadStreamEvent


class RunStream(EventStream[Run, ThreadStreamEvent]):
    """The events of a run, one by one: `async for event in stream`; see `asyncruns.wire` for what they are.

    An event's data counts, not its name: the run is over when `run.status` says so. A stream ends when the run waits
    for outputs; submitting these with `stream=True` gives the next stream. It may also end too early, without a word,
    or after an `ErrorEvent`: then retrieve the run, or watch it; `is_whole` tells, and `text_deltas` raises. A stream
    that breaks raises, and so does one with an event of another run.
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
        """The thread, where it was created together with the run, or None."""
        return self._source.told.thread

    @property
    def message(self) -> Message | None:
        """The message that is being written, or was last, with all its deltas so far; or None."""
        return self._source.told.message

    @property
    def messages(self) -> list[Message]:
        """All messages so far, with all their deltas."""
        return self._source.told.messages

    @property
    def step(self) -> RunStep | None:
        """The step that the last event about a step was of, with all its deltas so far; or None."""
        return self._source.told.step

    @property
    def steps(self) -> list[RunStep]:
        """All steps so far, with all their deltas."""
        return self._source.told.steps

    def __repr__(self) -> str:
        status = self.run.status if self.run else "nothing seen"
        return f"<RunStream {self._source.run_id or '?'} {status}>"
