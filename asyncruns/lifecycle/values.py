"""What the lifecycle speaks of: calls, snapshots and refusals, in words that fit every server."""

from __future__ import annotations

import enum
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from asyncruns.lifecycle.phases import Phase

R = TypeVar("R")


class CallKind(enum.Enum):
    """Who is meant to answer a call."""

    FUNCTION = "function"  # a function of the caller's
    APPROVAL = "approval"  # the caller allows or refuses what a tool behind the server would do
    SERVER = "server"  # the server's own: it answers, and is left to it
    OTHER = "other"  # something this version does not know: never answered by itself


class Call(Struct, frozen=True, kw_only=True):
    """One call that the run waits for.

    Attributes:
        id: The server's name for it; an output is answered to this id. Some servers use the same ids in each round.
        name: The function's name; "" where the call has none.
        arguments: What the model wrote, as it came: JSON text, mostly; may be empty or broken.
        kind: Who is meant to answer it.
        type: The server's word for its kind.
        server_label: With an approval, the tool server that would do it; "" where it does not say.
        is_cut: Whether the server says that the model did not finish writing it. Nothing is to be run for it, whatever
            its arguments are; an output that says so has the model make it again.
    """

    id: str
    name: str
    arguments: str = ""
    kind: CallKind = CallKind.FUNCTION
    type: str = "function"
    server_label: str = ""
    is_cut: bool = False


class RunRef(Struct, frozen=True, gc=False):
    """The name of a run, good for writing down.

    Attributes:
        dialect: The name of the dialect that can ask for it.
        ids: The ids that the dialect needs, in its order.
    """

    dialect: str
    ids: tuple[str, ...]

    def __str__(self) -> str:
        return "/".join(self.ids)


class RunFault(Struct, frozen=True):
    """Why a run ended badly, in the server's words. It is no HTTP error, whatever its code speaks of."""

    code: str
    message: str


class Snapshot(Struct, Generic[R], frozen=True, kw_only=True, gc=False):
    """One poll a run.

    Attributes:
        phase: What the dialect makes of the status.
        status: The server's own word.
        calls: The calls that the run waits for; empty unless the phase is NEEDS_CALLER.
        fault: Why it ended badly, if it did and the server says so.
        expires_at: When the server will give the run up, in seconds of the server's epoch; None where it does not say.
        server_time: The server's clock at the answer, in seconds of its epoch; None where it does not say.
        created_at: When the run was created, by the same clock; None where it does not say.
        group: What runs take equally long, mostly: those of the same assistant and model, say.
        hint: How many seconds the server asks to wait before the next poll; None where it does not.
        resource: The typed run.
        ref: Its name; with some servers a submit gives another run, which is watched from then on. None is the same.
        is_final: Whether what is seen never changes, though it waits for the caller: outputs begin something new.
    """

    phase: Phase
    status: str
    resource: R
    calls: tuple[Call, ...] = ()
    fault: RunFault | None = None
    expires_at: float | None = None
    server_time: float | None = None
    created_at: float | None = None
    group: tuple[str, ...] = ()
    hint: float | None = None
    ref: RunRef | None = None
    is_final: bool = False


class RefusalKind(enum.Enum):
    """What it means that no good answer came. A closed set: each is handled on purpose."""

    NOT_SENT = "not sent"  # nothing reached the server: safe to send again
    UNREACHABLE = "unreachable"  # nothing can reach the server before a setting is changed
    LOST = "lost"  # sent, and no usable answer came: the server may have acted
    UNAVAILABLE = "unavailable"  # the server is in trouble: it may have acted
    THROTTLED = "throttled"  # too many requests: it has not acted
    QUOTA_SPENT = "quota spent"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not found"
    NOT_ACCEPTING = "not accepting"  # outputs are not wanted, since the run is in `phase`
    ALREADY_OVER = "already over"  # a cancel came too late
    BUSY = "busy"  # the thread is locked by the run `active_run`
    NOT_READY = "not ready"  # what it builds on is not stored or released yet: nothing was done, send it again soon
    UNSUPPORTED = "unsupported"  # the server has no such operation, in whatever status the run is
    REJECTED = "rejected"  # the request was wrong, and will stay so

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later, although nothing about it has changed."""
        return self in _PASSING_REFUSALS

    @property
    def may_have_acted(self) -> bool:
        """Whether the request may have had its effect although no good answer came."""
        return self is RefusalKind.LOST or self is RefusalKind.UNAVAILABLE


_PASSING_REFUSALS: Final = (
    RefusalKind.NOT_SENT,
    RefusalKind.LOST,
    RefusalKind.UNAVAILABLE,
    RefusalKind.THROTTLED,
)


class Refusal(Struct, frozen=True, kw_only=True):
    """Why a request was not answered as asked.

    Attributes:
        kind: One of the closed set.
        cause: The exception that a caller would get.
        retry_after: How many seconds the server asks to wait; None where it does not.
        phase: The phase that the server named, with NOT_ACCEPTING and ALREADY_OVER.
        active_run: The id of the run that locks the thread, with BUSY.
    """

    kind: RefusalKind
    cause: Exception
    retry_after: float | None = None
    phase: Phase | None = None
    active_run: str | None = None


class Asked(enum.Enum):
    """Which request an answer belongs to."""

    POLL = "poll"
    SUBMIT = "submit"
    CANCEL = "cancel"


Outputs = tuple[tuple[str, str], ...]
"""The outputs of one round as (call id, text), in the order of the calls."""

Answers = tuple[tuple[Call, str], ...]
"""Calls with their outputs. That of an approval is JSON: true, false, or an object with `approve`."""


def approval_of(output: str) -> dict[str, Any] | None:
    """Read the output of an approval: an object with a boolean `approve`, and more; None when it is nothing such."""
    try:
        read = msgspec.json.decode(output)
    except msgspec.DecodeError:
        return None
    if isinstance(read, bool):
        return {"approve": read}
    return read if isinstance(read, dict) and isinstance(read.get("approve"), bool) else None


def describe(fault: RunFault | None) -> str:
    """Give ": code: message", or "" for no fault."""
    if fault is None:
        return ""
    return ": " + ": ".join(part for part in (fault.code, fault.message) if part)


AnySnapshot = Snapshot[Any]
