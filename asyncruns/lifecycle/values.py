"""The values of the lifecycle: calls, snapshots and refusals, in terms that fit every server.

Dialects translate a server's words to these; nothing here may depend on one server.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import UNSET, Struct

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.run_shapes import canonical, check_is_object, dialect_and_ids, no_run
from asyncruns.wire.plain import Plain

R = TypeVar("R")


class CallKind(enum.Enum):
    """The side that is meant to answer a call."""

    FUNCTION = "function"  # a function of the caller
    APPROVAL = "approval"  # the caller allows or refuses what a tool behind the server would do
    SERVER = "server"  # a tool of the server, which answers the call itself
    OTHER = "other"  # unknown to this version: left to the caller, never answered automatically


class Call(Plain, frozen=True, kw_only=True):
    """One call that the run waits for.

    Attributes:
        id: The server's id, which its output names. Some servers use the same ids in each round.
        name: The name of the function; "" if the call has none.
        arguments: What the model wrote, unchanged: mostly JSON text, but it may be empty or invalid.
        kind: The side that is meant to answer it.
        type: The server's word for its kind.
        server_label: For an approval, the label of the tool server that would act; "" if it is not known.
        is_cut: Whether the server says that the model did not finish writing the call. Run nothing for it, whatever its
            arguments are; an output that says so makes the model repeat it.
    """

    id: str
    name: str
    arguments: str = ""
    kind: CallKind = CallKind.FUNCTION
    type: str = "function"
    server_label: str = ""
    is_cut: bool = False


class RunRef(Plain, frozen=True, gc=False):
    """The dialect and ids of a run. It can be stored, to watch the run later. `RunRef.of` returns that of an object.

    `RunRef.of(ref.to_dict())` is the ref again.

    Attributes:
        dialect: The name of the dialect that can poll the run.
        ids: The ids that the dialect needs, in its order; none if the run was not created, or not yet.
    """

    dialect: str
    ids: tuple[str, ...]

    @classmethod
    def of(cls, run: object) -> RunRef:
        """Return the ref of a run or a response in any form.

        Args:
            run: A run or a response of this client, of openai or of azure-ai-agents, or its JSON as a dict; an outcome,
                a watch, or a stream that has named its run; or a ref, which is returned as it is, or its `to_dict()`.

        Raises:
            InvalidRequestError: It is none of these, or a stream that has not named its run yet; the message says what
                to pass.
        """
        if isinstance(run, RunRef):
            return run._in_our_words()
        ref = getattr(run, "ref", UNSET)
        if isinstance(ref, RunRef) and ref.ids:
            return ref
        if ref is None or isinstance(ref, RunRef):
            raise InvalidRequestError(
                f"This {type(run).__name__} names no run: it was not created, or not yet, or, of a stream, its first "
                "event was not read"
            )
        check_is_object(run)
        if (found := dialect_and_ids(run)) is not None:
            return RunRef(*found)
        if isinstance(run, Mapping) and isinstance(run.get("ids"), list | tuple) and run.get("dialect"):
            return RunRef(str(run["dialect"]), tuple(map(str, run["ids"])))._in_our_words()
        raise no_run(run, "Expected a run, a response, an outcome, a watch, a stream or a RunRef")

    def _in_our_words(self) -> RunRef:
        dialect = canonical(self.dialect)
        if isinstance(self.ids, str):
            raise InvalidRequestError(
                f"The ids of {self!r} are a string; pass a tuple, as in RunRef({dialect!r}, ({self.ids!r},))"
            )
        is_ours = dialect == self.dialect and isinstance(self.ids, tuple)
        return self if is_ours else RunRef(dialect, tuple(self.ids))  # read from JSON, it may have a list: not hashable

    def __str__(self) -> str:
        return "/".join(self.ids) or "(no id)"


class RunFault(Plain, frozen=True):
    """Why a run did not succeed, in the server's words. It is not an HTTP error, even if its code looks like one."""

    code: str
    message: str


class TokenUsage(Plain, frozen=True, kw_only=True, gc=False):
    """How many tokens the model read and wrote; may be added. What a server does not count is 0.

    Attributes:
        input_tokens: Tokens read; `prompt_tokens` of a run on a thread.
        output_tokens: Tokens written; `completion_tokens` of a run on a thread.
        total_tokens: Both together, as the server counts.
        cached_tokens: Those of `input_tokens` that came from a cache.
        reasoning_tokens: Those of `output_tokens` that were reasoning.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})

    def __sub__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(**{name: getattr(self, name) - getattr(other, name) for name in self.__struct_fields__})


class Counts(Plain, frozen=True, kw_only=True, gc=False):
    """How many requests of a batch have ended, and of how many; may be added and subtracted.

    Attributes:
        done: Those that have a good answer.
        failed: Those that ended without one: refused, cancelled or expired.
        total: All of them.
    """

    done: int = 0
    failed: int = 0
    total: int = 0

    def is_before(self, other: Counts) -> bool:
        """Return whether these are counts of the same requests from before the others."""
        return self.total == other.total and self.done + self.failed < other.done + other.failed

    def __add__(self, other: Counts) -> Counts:
        return Counts(done=self.done + other.done, failed=self.failed + other.failed, total=self.total + other.total)

    def __sub__(self, other: Counts) -> Counts:
        return Counts(done=self.done - other.done, failed=self.failed - other.failed, total=self.total - other.total)


class Snapshot(Struct, Generic[R], frozen=True, kw_only=True, gc=False):
    """The run as one answer of the server shows it.

    Attributes:
        phase: The phase that the dialect derives from the status.
        status: The server's own word.
        resource: The typed run.
        calls: The calls that the run waits for; empty unless the phase is NEEDS_CALLER.
        fault: Why the run did not succeed, if it ended so and the server says why.
        expires_at: When the server will expire the run, in seconds since the server's epoch; None if not sent.
        server_time: The server's clock when it answered, in seconds since its epoch; None if not sent.
        created_at: When the run was created, by the same clock; None if not sent.
        ended_at: When it ended, by the same clock; None if it has not, or if not sent.
        group: Key of runs that mostly take about equally long, such as those of the same assistant and model.
        hint: Seconds that the server asks to wait before the next poll; None if it does not.
        ref: The ref of the run; None means unchanged. With some servers a submit begins another run, which is watched
            from then on.
        is_final: Whether this never changes although it waits for the caller: outputs begin another run.
        usage: The tokens that the run has used so far; None if not sent.
        counts: How many requests of a batch have ended; None if not known, and for other runs.
    """

    phase: Phase
    status: str
    resource: R
    calls: tuple[Call, ...] = ()
    fault: RunFault | None = None
    expires_at: float | None = None
    server_time: float | None = None
    created_at: float | None = None
    ended_at: float | None = None
    group: tuple[str, ...] = ()
    hint: float | None = None
    ref: RunRef | None = None
    is_final: bool = False
    usage: TokenUsage | None = None
    counts: Counts | None = None

    @property
    def elapsed(self) -> float | None:
        """Seconds from the creation of the run to its end; None if the server did not say."""
        if self.created_at is None or self.ended_at is None:
            return None
        return max(self.ended_at - self.created_at, 0.0)


class RefusalKind(enum.Enum):
    """What a failed request means. The set is closed: the lifecycle handles each kind explicitly."""

    NOT_SENT = "not sent"  # nothing reached the server: safe to send again
    UNREACHABLE = "unreachable"  # nothing can reach the server until a setting is changed
    LOST = "lost"  # sent, but no usable answer arrived: the server may have acted
    UNAVAILABLE = "unavailable"  # the server is in trouble: it may have acted
    THROTTLED = "throttled"  # too many requests: the server has not acted
    QUOTA_SPENT = "quota spent"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not found"
    NOT_ACCEPTING = "not accepting"  # the run takes no outputs, since it is in `phase`
    ALREADY_OVER = "already over"  # the server says that the run has ended: a cancel is too late
    BUSY = "busy"  # the thread is locked by the run `active_run`
    NOT_READY = "not ready"  # what the request builds on is not stored or released yet: nothing was done, retry soon
    UNSUPPORTED = "unsupported"  # the server has no such operation, whatever the status of the run
    TAKEN_OVER = "taken over"  # by another process, says the journal: nothing was sent, and nothing may be
    REJECTED = "rejected"  # the request is wrong, and sending it again does not help

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later. Not NOT_READY and NOT_FOUND, which have limits of their own."""
        return self in _PASSING_REFUSALS

    @property
    def may_have_acted(self) -> bool:
        """Whether the request may have had its effect although no usable answer arrived."""
        return self is RefusalKind.LOST or self is RefusalKind.UNAVAILABLE


_PASSING_REFUSALS: Final = (
    RefusalKind.NOT_SENT,
    RefusalKind.LOST,
    RefusalKind.UNAVAILABLE,
    RefusalKind.THROTTLED,
)


class Refusal(Struct, frozen=True, kw_only=True):
    """Why a request failed.

    Attributes:
        kind: What the failure means.
        cause: The exception that a direct call would raise.
        retry_after: Seconds that the server asks to wait; None if it does not.
        phase: The phase that the server names; only with NOT_ACCEPTING and ALREADY_OVER.
        active_run: The id of the run that locks the thread; only with BUSY.
    """

    kind: RefusalKind
    cause: Exception
    retry_after: float | None = None
    phase: Phase | None = None
    active_run: str | None = None


class Asked(enum.Enum):
    """The kind of request that an answer is for."""

    POLL = "poll"
    SUBMIT = "submit"
    CANCEL = "cancel"


Outputs = tuple[tuple[str, str], ...]
"""The outputs of one round as pairs of call id and text, in the order of the calls."""

Answers = tuple[tuple[Call, str], ...]
"""Calls with their outputs. The output for an approval is JSON: true, false, or an object with `approve`."""


def approval_of(output: str) -> dict[str, Any] | None:
    """Return the output for an approval as an object with a boolean `approve` at least; None if it is not one."""
    try:
        read = msgspec.json.decode(output)
    except msgspec.DecodeError:
        return None
    if isinstance(read, bool):
        return {"approve": read}
    return read if isinstance(read, dict) and isinstance(read.get("approve"), bool) else None


def describe(fault: RunFault | None) -> str:
    """Return ": code: message", without an empty part; "" for no fault. It is appended to a sentence."""
    if fault is None:
        return ""
    return ": " + ": ".join(part for part in (fault.code, fault.message) if part)


AnySnapshot = Snapshot[Any]
