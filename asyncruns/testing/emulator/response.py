"""One response of the emulator, and its body on the wire.

::

    queued -> in_progress -> completed, with the calls of its round; without calls -> completed | failed | incomplete
    queued or in_progress -(cancel)-> the same status for `cancelling` seconds -> cancelled

No status means waiting for outputs: a response with calls is completed, and another response continues it. A response
never expires.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from asyncruns.testing.emulator.fields import Body
from asyncruns.testing.emulator.run import EmulatedCall
from asyncruns.testing.emulator.scenario import Scenario
from asyncruns.testing.emulator.structured import text_written
from asyncruns.testing.emulator.timeline import reached, whole

OPEN: Final = frozenset({"queued", "in_progress"})
_WITH_OUTPUT: Final = frozenset({"completed", "incomplete"})
# The same reason has another name in this API; all others are sent as the scenario has them.
_INCOMPLETE_REASONS: Final = {"max_completion_tokens": "max_output_tokens"}


@dataclass(frozen=True, slots=True)
class AnsweredRound:
    """A round of calls and their outputs, by call id."""

    calls: tuple[EmulatedCall, ...]
    outputs: Mapping[str, str]


@dataclass(slots=True, eq=False)
class EmulatedResponse:
    """A response: fixed at creation, except for a cancel.

    Attributes:
        answered: The rounds that were answered before it in its chain.
        calls: The tool calls in its output; without any, it is the last response of its scenario.
        item_ids: Ids of the items of its output.
        settings: The body's fields that come from the request.
        said: The last text of a user in its chain.
        streams: Whether it was created with `stream`; if it is in the background, its stream can then be resumed.
    """

    id: str
    created: float
    scenario: Scenario
    background: bool
    answered: tuple[AnsweredRound, ...]
    calls: tuple[EmulatedCall, ...]
    item_ids: tuple[str, ...]
    input: tuple[Body, ...]
    settings: Body
    said: str
    streams: bool = False
    cancelled: float | None = None

    @property
    def announces(self) -> bool:
        """Whether its end is announced by a webhook."""
        return self.background

    def as_of(self, now: float) -> EmulatedResponse:
        """Return the response as it was at that time; itself, if it was not cancelled since."""
        if self.cancelled is None or reached(now, self.cancelled):
            return self
        return replace(self, cancelled=None)

    def status(self, now: float) -> str:
        """Return the status at that time."""
        status, moment = self.end()
        if reached(now, moment):
            return status
        is_queued = self.background and not reached(now, self.created + self.scenario.queued)
        return "queued" if is_queued else "in_progress"

    def pending(self, now: float) -> tuple[EmulatedCall, ...]:
        """Return the calls that wait for outputs at that time."""
        return self.calls if self.status(now) == "completed" else ()

    def body(self, now: float) -> Body:
        """Return the response as it is on the wire at that time."""
        status = self.status(now)
        return {
            "id": self.id,
            "object": "response",
            "created_at": whole(self.created),
            "status": status,
            "background": self.background,
            "completed_at": whole(self.end()[1]) if status == "completed" else None,
            "error": self._error() if status == "failed" else None,
            "incomplete_details": self._incomplete_details() if status == "incomplete" else None,
            "output": self.output(status) if status in _WITH_OUTPUT else [],
            "usage": self._usage() if status in _WITH_OUTPUT else None,
            **self.settings,
        }

    def end(self) -> tuple[str, float]:
        """Return the terminal status and its time: the response's own end or that of a cancel, whichever is first."""
        # In the foreground the answer to the create already has the end, so the response takes no time.
        took = self.scenario.queued + self.scenario.working if self.background else 0.0
        status = "completed" if self.calls else self.scenario.end
        own = math.inf if status == "never" else self.created + took
        cancelled = math.inf if self.cancelled is None else self.cancelled + self.scenario.cancelling
        return ("cancelled", cancelled) if cancelled < own else (status, own)

    @property
    def writes(self) -> bool:
        """Whether it has an output when it ends by itself."""
        return bool(self.calls) or self.scenario.end in _WITH_OUTPUT

    def output(self, status: str) -> list[Body]:
        """Return the items of its output; a message has the given status."""
        if self.calls:
            return [_call_item(item_id, call) for item_id, call in zip(self.item_ids, self.calls, strict=True)]
        part: Body = {"type": "refusal", "refusal": self.scenario.refusal}
        if self.scenario.refusal is None:
            part = {"type": "output_text", "annotations": [], "logprobs": [], "text": self._answer()}
        return [
            {"id": self.item_ids[0], "type": "message", "status": status, "role": "assistant", "content": [part]},
        ]

    def _answer(self) -> str:
        lines = [f"{call.name}: {done.outputs[call.id]}" for done in self.answered for call in done.calls]
        return text_written(self.scenario, self.settings["text"], lines, self.said)

    def _error(self) -> Body:
        return {"code": self.scenario.error_code, "message": self.scenario.error_message}

    def _incomplete_details(self) -> Body:
        reason = self.scenario.incomplete_reason
        return {"reason": _INCOMPLETE_REASONS.get(reason, reason)}

    def _usage(self) -> Body:
        """Make up the token counts; they grow with each round."""
        given, made = 100 * (1 + len(self.answered)), 20
        return {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + made,
        }


def _call_item(item_id: str, call: EmulatedCall) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }
