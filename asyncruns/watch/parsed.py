"""Reads what a completed run wrote as a value of its output type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asyncruns.errors import SHOWN_BODY_CHARACTERS, InvalidOutputError, RefusalError
from asyncruns.lifecycle import RunRef
from asyncruns.schemas.output_type import OutputType
from asyncruns.schemas.pydantic_types import DoesNotFitError
from asyncruns.wire import Message
from asyncruns.wire.shown_text import on_one_line

if TYPE_CHECKING:
    from asyncruns.wire import ResponseMessage


def parsed_answer(ref: RunRef, messages: Sequence[Message | ResponseMessage], output_type: OutputType) -> Any:
    """Return the value of the last message that has a text; earlier ones may be comments between rounds of calls.

    Raises:
        InvalidOutputError: There is no text, or it does not fit.
        RefusalError: The model refused instead.
    """
    last = last_written(messages)
    if last is None:
        raise InvalidOutputError(
            on_one_line(f"The run {ref} wrote no {output_type.shown}: it wrote no text"), ref=ref, text=""
        )
    if last.refusal:
        raise RefusalError(
            on_one_line(f"The run {ref} wrote no {output_type.shown}: the model refused: {_beginning(last.refusal)}"),
            ref=ref,
            refusal=last.refusal,
        )
    try:
        return output_type.decode(last.text)
    except DoesNotFitError as error:
        wrote = f"The run {ref} wrote no {output_type.shown}: {error}. Its text begins: {_beginning(last.text)}"
        raise InvalidOutputError(on_one_line(wrote), ref=ref, text=last.text) from (error.__cause__ or error)


def last_written(messages: Sequence[Message | ResponseMessage]) -> Message | ResponseMessage | None:
    """Return the last message that has a text or a refusal; None if there is none."""
    return next((message for message in reversed(messages) if message.text or message.refusal), None)


def _beginning(text: str) -> str:
    return text if len(text) <= SHOWN_BODY_CHARACTERS else f"{text[:SHOWN_BODY_CHARACTERS]}…"
