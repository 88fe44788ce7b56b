"""How a watch ended: one type for each end, so that a `match` over them can be exhaustive."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Protocol, Self, TypeVar, runtime_checkable

import anyio
from msgspec import Struct

from asyncruns.abc import Dialect, RunClient, Transport
from asyncruns.errors import (
    InvalidRequestError,
    RunCancelledError,
    RunError,
    RunExpiredError,
    RunFailedError,
    RunGoneError,
    RunIncompleteError,
    RunNeedsCallerError,
    WatchGaveUpError,
    portable,
)
from asyncruns.lifecycle import Call, End, EndKind, Outputs, Reason, RunFault, RunRef
from asyncruns.lifecycle.values import describe
from asyncruns.wire import Message
from asyncruns.wire.shown_text import on_one_line

if TYPE_CHECKING:
    from asyncruns.wire import ResponseMessage

R = TypeVar("R")

# The answer's messages may come later than the status `completed`: read again after so many seconds.
ANSWER_LAG_PAUSES_S: Final = (0.25, 0.5, 1.0, 1.5)

_WHY: Final = {
    Reason.TIMEOUT: "the wait's time was over",
    Reason.UNREACHABLE: "the server could not be reached",
    Reason.UNKNOWN_STATUS: "the status is one that nobody knows, and it did not change",
    Reason.NOT_FOUND: "there is no such run",
    Reason.GONE: "the run was there and is gone: deleted or purged",
    Reason.UNAUTHORIZED: "the credential was refused",
    Reason.QUOTA_SPENT: "the quota is spent",
    Reason.REJECTED: "the server refuses to show the run",
    Reason.UNANSWERED: "nobody answers these calls: add tools=, or on_requires_action=, or watcher.submit() them",
    Reason.CANCEL_UNCONFIRMED: "the server took the cancel, and a minute later the run still went on",
    Reason.CANCEL_REFUSED: "the server does not cancel the run, and these calls were stopped for that",
    Reason.NOT_CANCELLED: "it was left, and the run could not be cancelled, or not in time; it may go on",
    Reason.HANDLER_FAILED: "answering them raised an error",
    Reason.NO_CALLS: "the run waits for the caller and does not say for what",
    Reason.OUTPUTS_IGNORED: "the server took the outputs twice and still asks for them",
    Reason.SUBMIT_REFUSED: "the server refused the outputs",
    Reason.MAX_ROUNDS: "it asked for calls once more after max_rounds rounds; watcher.submit() outputs to go on",
    Reason.BROKE: "watching it raised an error that nobody expected; the other watches go on",
    Reason.SUBMIT_LOST: "no answer to the outputs came, and no poll can tell if they were taken; an orphan may go on",
}


class LeftBehind:
    """The client of an outcome that was unpickled: a client stays in its process, with its key."""

    @property
    def transport(self) -> Transport:
        """Raise InvalidRequestError, as all here."""
        raise InvalidRequestError(_LEFT_BEHIND)

    @property
    def dialect(self) -> Dialect[Any]:
        """Raise InvalidRequestError, as all here."""
        raise InvalidRequestError(_LEFT_BEHIND)

    async def answer(self, ref: RunRef) -> Sequence[Message | ResponseMessage]:
        """Raise InvalidRequestError, as all here."""
        raise InvalidRequestError(f"The messages of {ref} have to be fetched. {_LEFT_BEHIND}")


def _restored(kind: type[Any], fields: dict[str, Any]) -> Any:
    return kind(**fields, _client=LeftBehind())


_LEFT_BEHIND: Final = (
    "This outcome came through a pickle, which leaves the client behind: with a client of this process, await "
    "client.for_run(outcome.ref).answer(outcome.ref); or await outcome.text() before the outcome is sent"
)


@runtime_checkable
class HoldsMessages(Protocol):
    """A run that came together with all that it wrote, as a response does."""

    @property
    def messages(self) -> Sequence[Message | ResponseMessage]:
        """What it wrote, oldest first."""
        ...


def _held_by(run: object) -> Sequence[Message | ResponseMessage] | None:
    return run.messages if isinstance(run, HoldsMessages) else None


class Outcome(Struct, Generic[R], frozen=True, kw_only=True, eq=False):
    """How a watch ended.

    It can be pickled and copied. A pickle leaves the client behind: of a run on a thread, `messages()` and `text()`
    raise an InvalidRequestError then, which says what to do; of a response they return what it holds.

    Attributes:
        ref: Which run; the last one where each round of outputs begins a new one.
        refs: All of these, in their order.
        status: The server's own word at the last poll, or "" when no poll succeeded.
        run: The typed run at the last poll; None when no poll succeeded. A fleet keeps no bodies of runs that go on, so
            there it is None where the watch gave up, too.
        polls: How many polls were made.
        elapsed: Seconds from the beginning of the watch.
        error: Why the run ended badly, as the server says; None where it does not.
        reason: Why the watch ended before the run did; None where it did not.
        cause: The exception that is why, if one is.
        calls: Calls that are open.
        outputs: Outputs that there are for the open round, as (call id, text).
        cancel_requested: Whether the watch asked for a cancellation; the run may have ended in another way first.
        cancel_error: Why the run was not cancelled although the caller asked for it, by `on_exit="cancel"` or
            `cancel_run()`: what the server answered to the cancel, or an `APITimeoutError` when no poll confirmed it in
            time. The run may go on, and cost. None when it was cancelled.
    """

    ref: RunRef
    refs: tuple[RunRef, ...]
    status: str
    run: R | None
    polls: int
    elapsed: float
    error: RunFault | None = None
    reason: Reason | None = None
    cause: Exception | None = None
    calls: tuple[Call, ...] = ()
    outputs: Outputs = ()
    cancel_requested: bool = False
    cancel_error: Exception | None = None
    _client: RunClient[R]

    _raises: ClassVar[type[RunError]] = RunError

    def unwrap(self) -> R:
        """Give the run when it is completed.

        Raises:
            RunError: It is not; the subclass says how it ended (`RunFailedError`, `RunExpiredError`, ...), the message
                why and what to do, and `outcome` is this.
        """
        raises = RunGoneError if self.reason is Reason.GONE else self._raises
        raise raises(self._message(), self) from self.cause

    async def messages(self) -> list[Message | ResponseMessage]:
        """Return the messages that this run wrote, oldest first.

        A response holds its messages, and nothing is sent. Those of a run on a thread are fetched. Safe to cancel.

        Raises:
            APIError: They could not be fetched.
        """
        held = _held_by(self.run)
        return [*(await self._client.answer(self.ref) if held is None else held)]

    async def text(self) -> str:
        """Return the run's answer: the text of its messages, joined by empty lines.

        A response holds its text, and nothing is sent. That of a run on a thread is fetched. Safe to cancel.

        Raises:
            RunError: The run is not completed (see `unwrap`).
            APIError: The answer could not be fetched.
        """
        self.unwrap()
        return "\n\n".join(text for message in await self.messages() if (text := message.text))

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: portable(getattr(self, name)) for name in self.__struct_fields__ if name != "_client"}
        return _restored, (type(self), fields)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        shared = ("_client", "cause")
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return type(self)(
            **{name: value if name in shared else copy.deepcopy(value, memo) for name, value in fields.items()}
        )

    def __repr__(self) -> str:
        why = "" if self.reason is None else f", {self.reason.value}"
        seen = f"{self.status or 'not seen'}{why}, {self.polls} polls, {self.elapsed:.1f} s"
        return on_one_line(f"<{type(self).__name__} {self.ref} {seen}>")

    def _message(self) -> str:
        what = on_one_line(f"The run {self.ref} is {self.status or 'of unknown status'}{describe(self.error)}")
        if self.reason is not None:
            polls = "1 poll" if self.polls == 1 else f"{self.polls} polls"
            what += f"; the watch ended after {self.elapsed:.1f} s and {polls}: {_WHY[self.reason]}"
        if self.calls:
            names = ", ".join(call.name or call.id for call in self.calls)
            what += f" (open calls: {on_one_line(names)})"
        return what if self.cause is None else f"{what}. Cause: {self.cause}"


class Completed(Outcome[R], frozen=True, kw_only=True, eq=False):
    """The run is completed."""

    run: R

    def unwrap(self) -> R:
        """Give the run."""
        return self.run

    async def messages(self) -> list[Message | ResponseMessage]:
        """Return the messages that this run wrote, oldest first.

        A response holds its messages, and nothing is sent. Those of a run on a thread are fetched, and while there are
        none, fetched again for 3.25 s: they may lag behind the status. Safe to cancel.

        Raises:
            APIError: They could not be fetched.
        """
        for pause in ANSWER_LAG_PAUSES_S if _held_by(self.run) is None else ():
            if found := await Outcome.messages(self):
                return found
            await anyio.sleep(pause)
        return await Outcome.messages(self)


class Failed(Outcome[R], frozen=True, kw_only=True, eq=False):
    """The run failed; `error` says why."""

    run: R
    _raises: ClassVar[type[RunError]] = RunFailedError


class Cancelled(Outcome[R], frozen=True, kw_only=True, eq=False):
    """The run was cancelled, by us (`cancel_requested`) or by another."""

    run: R
    _raises: ClassVar[type[RunError]] = RunCancelledError


class Expired(Outcome[R], frozen=True, kw_only=True, eq=False):
    """The run expired at the server."""

    run: R
    _raises: ClassVar[type[RunError]] = RunExpiredError


class Incomplete(Outcome[R], frozen=True, kw_only=True, eq=False):
    """The run ended before its answer was whole; `error.code` says why. `messages()` gives what there is."""

    run: R
    _raises: ClassVar[type[RunError]] = RunIncompleteError


class NeedsCaller(Outcome[R], frozen=True, kw_only=True, eq=False):
    """The run waits for outputs that nobody here gives: `calls` are open, `outputs` are there.

    Inside of `async with RunWatcher(...)`, `watcher.submit(outputs)` goes on.
    """

    run: R
    _raises: ClassVar[type[RunError]] = RunNeedsCallerError


class GaveUp(Outcome[R], frozen=True, kw_only=True, eq=False):
    """The watch ended before the run did; `reason` and `cause` say why. The run may go on at the server.

    In a fleet there is mostly no `run`, though it was seen: `status` is kept between polls, and the body is not.
    """

    _raises: ClassVar[type[RunError]] = WatchGaveUpError


AnyOutcome = Completed[R] | Failed[R] | Cancelled[R] | Expired[R] | Incomplete[R] | NeedsCaller[R] | GaveUp[R]

_TYPES: Final[Mapping[EndKind, type[Any]]] = {
    EndKind.COMPLETED: Completed,
    EndKind.FAILED: Failed,
    EndKind.CANCELLED: Cancelled,
    EndKind.EXPIRED: Expired,
    EndKind.INCOMPLETE: Incomplete,
    EndKind.NEEDS_CALLER: NeedsCaller,
    EndKind.GAVE_UP: GaveUp,
}


def outcome_of(
    end: End,
    refs: tuple[RunRef, ...],
    client: RunClient[R],
    *,
    polls: int,
    elapsed: float,
    cancel_requested: bool,
    cancel_error: Exception | None,
) -> AnyOutcome[R]:
    """Give the typed value for an end."""
    snapshot = end.snapshot
    outcome: AnyOutcome[R] = _TYPES[end.kind](
        ref=refs[-1],
        refs=refs,
        status=snapshot.status if snapshot else "",
        run=snapshot.resource if snapshot else None,
        polls=polls,
        elapsed=elapsed,
        error=snapshot.fault if snapshot else None,
        reason=end.reason,
        cause=end.cause,
        calls=end.calls,
        outputs=end.outputs,
        cancel_requested=cancel_requested,
        cancel_error=cancel_error,
        _client=client,
    )
    return outcome
