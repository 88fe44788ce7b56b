"""The stream of a run: its events, in the order of the official API.

https://platform.openai.com/docs/api-reference/assistants-streaming/events

Without I/O: the events are made as the caller iterates; a number among them is a time to wait for, in epoch seconds.
The run may be cancelled while the caller waits, so the waits are short.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from asyncruns.testing.emulator.fields import Body
from asyncruns.testing.emulator.run import EmulatedRun
from asyncruns.testing.emulator.threads import EmulatedThread, answer_of, message_of, part_of
from asyncruns.testing.emulator.timeline import TERMINAL_STATUSES, reached, whole

DONE_EVENT: Final = b"event: done\ndata: [DONE]\n\n"
ERROR: Final = (
    b'event: error\ndata: {"message":"The server had an error while processing your request. Sorry about that!",'
    b'"type":"server_error","param":null,"code":null}\n\n'
)

LONGEST_WAIT_S: Final = 0.1  # then check whether the run was cancelled
PIECE: Final = re.compile(r"\s*\S+|\s+")
ARGUMENTS_PIECE: Final = 8


def framed(name: str, body: Body) -> bytes:
    """Return an event as bytes."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(body))


class RunFeed:
    """Makes the events of a run from its creation, or from the submit that was just accepted, to its end or next round.

    Args:
        now: Returns the time, in epoch seconds.
        operation: The operation that began the stream.
    """

    def __init__(self, run: EmulatedRun, thread: EmulatedThread, now: Callable[[], float], *, operation: str) -> None:
        self._run = run
        self._thread = thread
        self._now = now
        self._operation = operation
        self._message: Body | None = None
        self._step: Body | None = None

    def events(self) -> Iterator[bytes | float]:
        """Yield the events, and between them times to wait for, in epoch seconds."""
        run = self._run
        # The stream covers one leg of the run: from its creation or last submit to the next round or the end.
        began = run.submissions[-1].at if run.submissions else run.created
        yield from self._opening(began)
        starts = began + run.scenario.queued
        yield from self._until(starts)
        if reached(self._now(), starts) and self._status != "cancelling":
            yield self._said("in_progress")
            if len(run.submissions) == len(run.rounds) and run.scenario.end in ("completed", "incomplete"):
                yield from self._writing(starts)
            yield from self._until(starts + run.scenario.working)
        while self._status in ("queued", "in_progress"):  # a run whose end is "never"
            yield self._now() + LONGEST_WAIT_S
        yield from self._ending()
        yield DONE_EVENT

    @property
    def _status(self) -> str:
        return self._run.position(self._now()).status

    def _until(self, moment: float) -> Iterator[float]:
        while not reached(self._now(), moment) and self._status in ("queued", "in_progress"):
            yield min(moment, self._now() + LONGEST_WAIT_S)

    def _said(self, status: str, *, name: str | None = None) -> bytes:
        body = self._run.body(self._now())
        if status != body["status"] and status in ("queued", "in_progress"):  # the run is past it: it took no time
            body = {**body, "status": status, "required_action": None, "completed_at": None, "usage": None}
        return framed(f"thread.run.{name or status}", body)

    def _opening(self, began: float) -> Iterator[bytes]:
        if self._operation == "submit":
            for step in self._run.steps(began)[-1:]:
                yield framed("thread.run.step.completed", step)
        else:
            if self._operation == "create_thread_and_run":
                yield framed("thread.created", self._thread.body)
            yield self._said("queued", name="created")
        yield self._said("queued")

    def _writing(self, starts: float) -> Iterator[bytes | float]:
        """Yield the message, word by word, over the time for which the run works."""
        run = self._run
        at = self._now()
        details = {"type": "message_creation", "message_creation": {"message_id": run.message_id}}
        self._step = run.message_step(at, details)
        self._message = {
            **message_of(run, [], at),
            "status": "in_progress",
            "completed_at": None,
            "incomplete_at": None,
            "incomplete_details": None,
        }
        for status in ("created", "in_progress"):
            yield framed(f"thread.run.step.{status}", self._step)
        for status in ("created", "in_progress"):
            yield framed(f"thread.message.{status}", self._message)
        said = ""
        pieces = PIECE.findall(answer_of(run, self._thread.last_user_text))
        for place, piece in enumerate(pieces):
            # Spread evenly: with 3 words in 2 s, the words come after 0.5, 1.0 and 1.5 s.
            yield from self._until(starts + run.scenario.working * (place + 1) / (len(pieces) + 1))
            if self._status not in ("in_progress", "completed", "incomplete"):
                return
            said += piece
            self._message["content"] = [part_of(run, said)]
            content = [{"index": 0, **part_of(run, piece)}]
            if place and "text" in content[0]:
                content[0]["text"] = {"value": piece}  # only the first piece has annotations
            delta = {"id": run.message_id, "object": "thread.message.delta", "delta": {"content": content}}
            yield framed("thread.message.delta", delta)

    def _ending(self) -> Iterator[bytes | float]:
        if self._status == "cancelling":
            yield self._said("cancelling")
            while self._status not in TERMINAL_STATUSES:
                yield self._now() + LONGEST_WAIT_S
        status = self._status
        if status == "requires_action":
            yield from self._asking()
        elif self._message is not None and self._step is not None:
            yield from self._closing(status, self._message, self._step)
        yield self._said(status)

    def _closing(self, status: str, message: Body, step: Body) -> Iterator[bytes]:
        at = whole(self._now())
        if status == "completed":
            yield framed("thread.message.completed", {**message, "status": "completed", "completed_at": at})
        else:
            reason = "max_tokens" if status == "incomplete" else f"run_{status}"
            ended = {"status": "incomplete", "incomplete_at": at, "incomplete_details": {"reason": reason}}
            yield framed("thread.message.incomplete", {**message, **ended})
        step_status = "completed" if status == "incomplete" else status
        yield framed(f"thread.run.step.{step_status}", {**step, "status": step_status, f"{step_status}_at": at})

    def _asking(self) -> Iterator[bytes]:
        """Yield the step that calls tools, with the arguments in pieces, as models write them."""
        step = self._run.steps(self._now())[-1]
        calls = step["step_details"]["tool_calls"]
        begun = {**step, "step_details": {"type": "tool_calls", "tool_calls": []}}
        yield framed("thread.run.step.created", begun)
        yield framed("thread.run.step.in_progress", begun)
        for index, call in enumerate(calls):
            function = call["function"]
            first = {"name": function["name"], "arguments": "", "output": None}
            yield self._step_delta({"index": index, "id": call["id"], "type": "function", "function": first})
            text = function["arguments"]
            for begin in range(0, len(text), ARGUMENTS_PIECE):
                piece = {"arguments": text[begin : begin + ARGUMENTS_PIECE]}
                yield self._step_delta({"index": index, "type": "function", "function": piece})

    def _step_delta(self, call: Body) -> bytes:
        step_id = self._run.step_ids[len(self._run.submissions)]
        details = {"type": "tool_calls", "tool_calls": [call]}
        delta = {"id": step_id, "object": "thread.run.step.delta", "delta": {"step_details": details}}
        return framed("thread.run.step.delta", delta)
