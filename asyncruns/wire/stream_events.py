"""The events of a run's stream: https://platform.openai.com/docs/api-reference/assistants-streaming/events

The data of an event decides what it is: by its `object`, or by the event's name if the data has no known one. The name
is kept as sent. So an event with an unknown name whose data is a run is a `RunEvent`, and the run in an event with the
name `thread.run.completed` may have any status. Decoding never raises, whatever a server sends.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from asyncruns.wire.codec import Object, convert, decode, decoder, parse
from asyncruns.wire.common import ErrorBody, ErrorObject
from asyncruns.wire.deltas import MessageDelta, RunStepDelta
from asyncruns.wire.runs import Run
from asyncruns.wire.steps import RunStep
from asyncruns.wire.threads import Message, Thread

DONE: Final = "[DONE]"


class ThreadEvent(Object, frozen=True):
    """`thread.created`: the thread was created together with the run."""

    event: str
    data: Thread


class RunEvent(Object, frozen=True):
    """`thread.run.*`: the run changed. `data.status` counts, not the name."""

    event: str
    data: Run


class RunStepEvent(Object, frozen=True):
    """`thread.run.step.*`: a step began, or its status changed."""

    event: str
    data: RunStep


class RunStepDeltaEvent(Object, frozen=True):
    """`thread.run.step.delta`: an addition to a step."""

    event: str
    data: RunStepDelta


class MessageEvent(Object, frozen=True):
    """`thread.message.*`: a message began, or its status changed."""

    event: str
    data: Message


class MessageDeltaEvent(Object, frozen=True, gc=False):
    """`thread.message.delta`: an addition to a message."""

    event: str
    data: MessageDelta


class ErrorEvent(Object, frozen=True):
    """`error`: the server aborted the stream; how the run ended is not known. Usually it is the last event."""

    event: str
    data: ErrorObject


class DoneEvent(Object, frozen=True):
    """`done`, or data `[DONE]`: the stream has ended. Some servers do not send it. The run may wait for outputs."""

    event: str
    data: str = DONE


class UnknownEvent(Object, frozen=True):
    """An event that this version does not know; `data` is the text as sent."""

    event: str
    data: str


class UndecodableEvent(Object, frozen=True):
    """An event whose data is not JSON, or does not fit its kind; `data` is the text as sent."""

    event: str
    data: str
    error: str


ThreadStreamEvent = (
    ThreadEvent
    | RunEvent
    | RunStepEvent
    | RunStepDeltaEvent
    | MessageEvent
    | MessageDeltaEvent
    | ErrorEvent
    | DoneEvent
    | UnknownEvent
    | UndecodableEvent
)


class _Kind:
    """A kind of event: its class, the type and decoder of its data, and the `object` field that such data has."""

    __slots__ = ("decode", "event", "object", "type")

    def __init__(self, event: Any, type_: Any) -> None:
        self.event = event
        self.type = type_
        self.decode = decoder(type_).decode
        self.object: str = type_.__struct_defaults__[0]  # the first field with a default is `object`, in all of them


_THREAD: Final = _Kind(ThreadEvent, Thread)
_RUN: Final = _Kind(RunEvent, Run)
_STEP: Final = _Kind(RunStepEvent, RunStep)
_STEP_DELTA: Final = _Kind(RunStepDeltaEvent, RunStepDelta)
_MESSAGE: Final = _Kind(MessageEvent, Message)
_MESSAGE_DELTA: Final = _Kind(MessageDeltaEvent, MessageDelta)

_STATUSES: Final = {
    _RUN: ("created queued in_progress requires_action completed incomplete failed cancelling cancelled expired"),
    _STEP: "created in_progress completed failed cancelled expired",
    _MESSAGE: "created in_progress completed incomplete",
    _THREAD: "created",
}
_BY_NAME: Final = {
    **{f"{kind.object}.{status}": kind for kind, statuses in _STATUSES.items() for status in statuses.split()},
    _STEP_DELTA.object: _STEP_DELTA,
    _MESSAGE_DELTA.object: _MESSAGE_DELTA,
}
_BY_OBJECT: Final = {kind.object: kind for kind in _BY_NAME.values()}


def decode_thread_event(name: str, text: str) -> ThreadStreamEvent:
    """Decode an event of a run's stream. Never raises.

    Args:
        name: The event's name, "message" if the server sent none.
        text: The event's data.
    """
    # The fast way: the name decides the type, if the data confirms it.
    kind = _BY_NAME.get(name)
    if kind is not None:
        try:
            data = kind.decode(text)
        except (ValueError, RecursionError):
            pass
        else:
            if data.object == kind.object:
                event: ThreadStreamEvent = kind.event(name, data)
                return event
    return _decode_openly(name, text, kind)


def _decode_openly(name: str, text: str, kind: _Kind | None) -> ThreadStreamEvent:
    if name == "done" or text.strip() == DONE:
        return DoneEvent(name, text)
    if name == "error":
        return ErrorEvent(name, error_in(text))
    try:
        raw = parse(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        return UndecodableEvent(name, text, str(error)) if is_expected(name, kind) else UnknownEvent(name, text)
    if not isinstance(raw, dict):
        return UnknownEvent(name, text) if kind is None else UndecodableEvent(name, text, "Expected an object")
    # Some servers send an error without a name. A run with an `error` field has an `object`.
    if kind is None and raw.get("error") and "object" not in raw:
        return ErrorEvent(name, error_in(text))
    said = raw.get("object")
    kind = _BY_OBJECT.get(said, kind) if isinstance(said, str) else kind
    if kind is None:
        return UnknownEvent(name, text)
    try:
        found: ThreadStreamEvent = kind.event(name, convert(raw, kind.type))
    except (ValueError, RecursionError) as error:
        return UndecodableEvent(name, text, str(error))
    return found


def is_expected(name: str, kind: object) -> bool:
    """Return whether the data of an event must be JSON: it has a known name, or none."""
    return kind is not None or name == "message"


def error_in(text: str) -> ErrorObject:
    """Return the error in an event's data, in any of the known shapes; for others the whole text is its message."""
    data = text.encode("utf-8", "replace")
    try:
        body = decode(data, ErrorBody)
        if isinstance(body.error, ErrorObject):
            return body.error
        if isinstance(body.error, str) and body.error:
            return ErrorObject(message=body.error, code=body.code)
        flat = decode(data, ErrorObject)  # {"message": ..., "code": ...}
    except msgspec.DecodeError:
        return ErrorObject(message=text)
    return flat if flat.message or flat.code else ErrorObject(message=text)
