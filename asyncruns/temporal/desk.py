"""The calls of one workflow that wait for people: what the workflow keeps of them, its update and its query.

Nothing waits outside of the workflow: no worker is held, however long a person takes.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from temporalio import workflow

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import Call, RunRef
from asyncruns.lifecycle.ledger import check_answers
from asyncruns.lifecycle.records import key_of_call
from asyncruns.temporal.messages import ANSWER, OPEN_CALLS, OpenCall, PersonsAnswer
from asyncruns.temporal.search_attributes import note_waiting
from asyncruns.temporal.sizes import LARGEST_PAYLOAD, first_piece, json_size

MOST_TOOLS_AT_ONCE: Final = 500
"""Tools of a workflow that run at a time: the server refuses more than 2,000 pending activities of one workflow."""


class Desk:
    """Where the calls of a workflow wait for people. Use `desk()`, which returns that of the current workflow.

    Attributes:
        tools: Bounds how many tools of the workflow run at a time.
        watched: The runs whose calls watches of the workflow answer now.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[str, ...], OpenCall] = {}
        self._outputs: dict[tuple[str, ...], str] = {}
        self._room: dict[tuple[str, ...], float] = {}  # bytes that an output may have
        self._asked = 0  # number of calls that have waited so far
        self.tools: asyncio.Semaphore = asyncio.Semaphore(MOST_TOOLS_AT_ONCE)
        self.watched: set[RunRef] = set()
        workflow.set_query_handler(OPEN_CALLS, self.open_calls_from)
        workflow.set_update_handler(ANSWER, self._answer, validator=self._check)

    @property
    def has_answers(self) -> bool:
        """Whether people have given answers that what waits for them has not taken yet."""
        return bool(self._outputs)

    def open_calls(self) -> list[OpenCall]:
        """Return the calls that wait."""
        return list(self._open.values())

    def open_calls_from(self, number: int = 0) -> list[OpenCall]:
        """Return the calls that wait, from a number on: the first of them, if a payload does not hold all."""
        calls = [each for each in self._open.values() if each.number >= number]
        return calls[: first_piece(calls)]

    async def output_of(self, call: Call, ref: RunRef, label: Any, room: float = LARGEST_PAYLOAD) -> str:
        """Wait until a person has answered a call, and return the output. Safe to cancel: the call waits no more.

        Args:
            call: The call.
            ref: The ref of its run.
            label: The label of the watch.
            room: The bytes that its output may have.
        """
        key = (*ref.ids, key_of_call(call))
        self._room[key] = room
        asked_at = workflow.now().timestamp()
        self._open[key] = OpenCall(call=call, ref=ref, label=label, asked_at=asked_at, number=self._asked)
        self._asked += 1
        note_waiting(for_people=True)
        try:
            await workflow.wait_condition(lambda: key in self._outputs)
        except asyncio.CancelledError:
            if key not in self._outputs:
                self._close(key)
                raise  # a person who was told that the answer is taken does not answer again, so it must not be lost
        self._close(key)  # not in a `finally`, which may be executed outside of the workflow, when it is forgotten
        return self._outputs.pop(key)

    def _close(self, key: tuple[str, ...]) -> None:
        del self._open[key], self._room[key]
        if not self._open:
            note_waiting(for_people=False)

    def _find(self, answer: PersonsAnswer) -> tuple[tuple[str, ...], OpenCall]:
        found = [
            (key, each)
            for key, each in self._open.items()
            if each.call.id == answer.call_id and (not answer.run or answer.run == each.ref.ids)
        ]
        if len(found) > 1:
            raise InvalidRequestError(
                f"{len(found)} runs of this workflow have an open call {answer.call_id!r}: pass run= as well"
            )
        if not found:
            raise InvalidRequestError(
                f"No call with the id {answer.call_id!r} waits for a person in this workflow: it was answered already, "
                "or its run has ended, or is elsewhere"
            )
        return found[0]

    def _check(self, answer: PersonsAnswer) -> None:
        key, found = self._find(answer)
        if key in self._outputs:
            raise InvalidRequestError(f"The call {answer.call_id!r} was answered already")
        check_answers(((found.call, answer.output),))
        size, room = json_size(answer.output), self._room[key]
        if size > room:
            raise InvalidRequestError(
                f"The output for the call {answer.call_id!r} has {size} bytes, and may have {room:.0f}: shorten it"
            )

    async def _answer(self, answer: PersonsAnswer) -> None:
        key, _ = self._find(answer)
        self._outputs[key] = answer.output


def desk() -> Desk:
    """Return the desk of the current workflow, which from then on takes the answers of people."""
    handler = workflow.get_query_handler(OPEN_CALLS)  # it is kept there: a workflow has no other place for it
    found = getattr(handler, "__self__", None)
    return found if isinstance(found, Desk) else Desk()
