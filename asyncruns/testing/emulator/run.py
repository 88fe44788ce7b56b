"""One run of the emulator, and its body and steps on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from asyncruns.testing.emulator.fields import Body
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.scenario import FunctionCall, Scenario
from asyncruns.testing.emulator.timeline import TERMINAL_STATUSES, Position, RunCourse, reached, whole

_NOTHING_USED: Final = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
_STEP_STATUS: Final = {"cancelled": "cancelled", "expired": "expired", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class EmulatedCall:
    """A tool call with its id."""

    id: str
    name: str
    arguments: str

    def body(self, **more: Any) -> Body:
        """Return the call as in `required_action`; `more` are additional fields of the function."""
        function = {"name": self.name, "arguments": self.arguments, **more}
        return {"id": self.id, "type": "function", "function": function}


def calls_of(ids: Ids, calls: Sequence[FunctionCall], *, reuse_ids: bool) -> tuple[EmulatedCall, ...]:
    """Return the calls of a round, with ids."""
    return tuple(
        EmulatedCall(f"call_{place}" if reuse_ids else ids.new("call"), call.name, call.text)
        for place, call in enumerate(calls)
    )


@dataclass(frozen=True, slots=True)
class Submission:
    """The outputs of a round, by call id, and the time at which they were accepted."""

    at: float
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _KnownPosition:
    """A cached position of a run, valid from `since` to `until` if no submit or cancel came since; most polls hit it.

    `done` is the number of submissions and the time of the cancel for which it holds.
    """

    done: tuple[int, float | None]
    since: float
    until: float
    position: Position


@dataclass(slots=True, eq=False)
class EmulatedRun:
    """A run: fixed at creation, except for its metadata, its submissions and its cancel.

    `settings` are the body's fields that come from the request or the assistant. The ids of calls, steps and the
    message are made at creation, so that a poll of the run changes nothing.
    """

    id: str
    thread_id: str
    assistant_id: str
    created: float
    scenario: Scenario
    settings: Body
    rounds: tuple[tuple[EmulatedCall, ...], ...]
    step_ids: tuple[str, ...]
    message_id: str
    submissions: list[Submission] = field(default_factory=list)
    cancelled: float | None = None
    _kept: _KnownPosition | None = field(default=None, init=False, repr=False)

    def as_of(self, now: float) -> EmulatedRun:
        """Return the run as it was at that time, except for its settings; itself, if nothing has changed since."""
        submissions = [submission for submission in self.submissions if reached(now, submission.at)]
        cancelled = self.cancelled if self.cancelled is not None and reached(now, self.cancelled) else None
        if len(submissions) == len(self.submissions) and cancelled == self.cancelled:
            return self
        return replace(self, submissions=submissions, cancelled=cancelled)

    def position(self, now: float) -> Position:
        """Return the run's position at that time."""
        kept, done = self._kept, (len(self.submissions), self.cancelled)
        # A stale poll asks for an earlier time, so `since` must be checked as well.
        if kept is not None and kept.done == done and kept.since <= now and not reached(now, kept.until):
            return kept.position
        submitted = [submission.at for submission in self.submissions]
        course = RunCourse(self.scenario, self.created, submitted, self.cancelled)
        self._kept = _KnownPosition(done, now, course.changes_after(now), course.at(now))
        return self._kept.position

    @property
    def open_round(self) -> tuple[EmulatedCall, ...]:
        """The calls of the next round to be answered."""
        return self.rounds[len(self.submissions)]

    @property
    def expires(self) -> int:
        """The time at which it expires, in whole epoch seconds."""
        return whole(self.created + self.scenario.lifetime)

    def body(self, now: float) -> Body:
        """Return the run as it is on the wire at that time."""
        position = self.position(now)
        status, ended = position.status, position.ended
        over = status in TERMINAL_STATUSES
        return {
            "id": self.id,
            "object": "thread.run",
            "created_at": whole(self.created),
            "assistant_id": self.assistant_id,
            "thread_id": self.thread_id,
            "status": status,
            "started_at": _wire(position.started),
            "expires_at": None if over else self.expires,
            "cancelled_at": _wire(ended) if status == "cancelled" else None,
            "failed_at": _wire(ended) if status == "failed" else None,
            # As recorded: it is set for incomplete and expired runs as well.
            "completed_at": _wire(ended) if status in ("completed", "incomplete", "expired") else None,
            "required_action": self._required_action() if status == "requires_action" else None,
            "last_error": self._last_error() if status == "failed" else None,
            "incomplete_details": self._incomplete_details() if status == "incomplete" else None,
            "usage": self._usage(status) if over else None,
            **self.settings,
        }

    def steps(self, now: float) -> list[Body]:
        """Return the steps that had begun by that time, oldest first."""
        position = self.position(now)
        # One step for each round that was reached, then one for the message.
        steps = [self._tool_step(place, asked_at, position) for place, asked_at in enumerate(position.asked)]
        if position.status in ("completed", "incomplete"):
            details = {"type": "message_creation", "message_creation": {"message_id": self.message_id}}
            ended = position.ended or 0.0
            steps.append(self._step(len(self.rounds), ended, "completed", ended, details))
        return steps

    def message_step(self, at: float, details: Body) -> Body:
        """Return the step of the message, in progress."""
        return self._step(len(self.rounds), at, "in_progress", at, details)

    def _tool_step(self, place: int, asked_at: float, position: Position) -> Body:
        calls = self.rounds[place]
        if place < len(self.submissions):
            submission = self.submissions[place]
            tool_calls = [call.body(output=submission.outputs[call.id]) for call in calls]
            status, ended = "completed", submission.at
        else:
            tool_calls = [call.body(output=None) for call in calls]
            status, ended = _STEP_STATUS.get(position.status, "in_progress"), position.ended or 0.0
        return self._step(place, asked_at, status, ended, {"type": "tool_calls", "tool_calls": tool_calls})

    def _step(self, place: int, created: float, status: str, ended: float, details: Body) -> Body:
        return {
            "id": self.step_ids[place],
            "object": "thread.run.step",
            "created_at": whole(created),
            "run_id": self.id,
            "assistant_id": self.assistant_id,
            "thread_id": self.thread_id,
            "type": details["type"],
            "status": status,
            "cancelled_at": whole(ended) if status == "cancelled" else None,
            "completed_at": whole(ended) if status == "completed" else None,
            "expires_at": self.expires,
            "failed_at": whole(ended) if status == "failed" else None,
            "last_error": None,
            "step_details": details,
            "usage": self._usage(status) if status == "completed" else None,
        }

    def _required_action(self) -> Body:
        calls = [call.body() for call in self.open_round]
        return {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}

    def _last_error(self) -> Body:
        return {"code": self.scenario.error_code, "message": self.scenario.error_message}

    def _incomplete_details(self) -> Body:
        return {"reason": self.scenario.incomplete_reason}

    def _usage(self, status: str) -> Body:
        """Make up the token counts; they grow with each round. As recorded, a cancelled or expired run has 0."""
        if status in ("cancelled", "expired"):
            return dict(_NOTHING_USED)
        prompt, completion = 100 * (1 + len(self.submissions)), 20 * (1 + len(self.submissions))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }


def _wire(moment: float | None) -> int | None:
    return None if moment is None else whole(moment)
