"""What a journal holds, as values. Does no I/O.

Nothing of a run's content is written down but the outputs of its calls and what the caller gave to come back: a call is
known by its id and a digest of its name and arguments. Until a run is created, what it takes to ask for it is kept.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Any, Final

from asyncruns.lifecycle.values import Call, RunRef
from asyncruns.wire.plain import Plain

CANCEL_STEP: Final = ("cancel",)
"""What a watch is submitting whose run is to be cancelled."""


class Wish(enum.Enum):
    """What a process may ask the owner of a watch to do with its run."""

    POLL = "poll"
    CANCEL = "cancel"


class CallRecord(Plain, frozen=True, kw_only=True, gc=False):
    """A call that has begun.

    Attributes:
        key: Identifies the call within its watch; see `key_of_call`.
        call_id: The server's id.
        output: The text of its output; None if it has none yet.
        failed: Whether the output is an error of ours.
        accepted_at: When the submit with its output was accepted, in seconds since the epoch; 0.0 if it was not.
    """

    key: str
    call_id: str
    output: str | None = None
    failed: bool = False
    accepted_at: float = 0.0


class WatchRecord(Plain, frozen=True, kw_only=True):
    """A watch, as a journal holds it.

    Attributes:
        key: Identifies the watch in the journal.
        ref: The ref of its run; None until that is created.
        refs: The refs of all its runs, oldest first.
        label: What the caller gave as `label=`; a plain JSON value.
        toolset: The name of its toolset; "" if that has none.
        created_at: When it was added, in seconds since the epoch, by the clock of the machine.
        traceparent: The W3C trace context in which it was added; "" for none.
        calls: Its calls that have begun, in the order in which they did.
        submitting: Keys of the calls whose outputs were about to be submitted, if it is not known that they were
            accepted or refused. Of a run that is not created: `("create",)` if its create was about to be sent, or
            `("thread", id)` if a thread was created for it. `CANCEL_STEP` if the run is to be cancelled.
        creating: What it takes to ask for the run again, as plain JSON, with its `dialect`; None once it is created.
        outcome: How it finished, if that was recorded but not delivered: the outcome's `to_dict()`.
        owner: The living process that owns it, in words; "" for none. Only `Journal.read` sets it.
    """

    key: str
    ref: RunRef | None
    refs: tuple[RunRef, ...] = ()
    label: Any = None
    toolset: str = ""
    created_at: float = 0.0
    traceparent: str = ""
    calls: tuple[CallRecord, ...] = ()
    submitting: tuple[str, ...] = ()
    creating: dict[str, Any] | None = None
    outcome: dict[str, Any] | None = None
    owner: str = ""


def key_of_run(ref: RunRef) -> str:
    """Return the key of the watch of a run in a journal: a run has one watch there."""
    return "/".join((ref.dialect, *ref.ids))


def key_of_call(call: Call) -> str:
    """Return what identifies a call within its watch: its id with a digest of its name and arguments.

    Some servers use the same ids in each round.
    """
    digest = hashlib.sha256(f"{call.name}\0{call.arguments}".encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{call.id}/{digest}"


def ref_of(record: WatchRecord) -> RunRef:
    """Return the ref of the run of a watch; without ids, if the run is not created yet."""
    return record.ref or RunRef(str((record.creating or {}).get("dialect", "")), ())
