"""The outcomes of a watch: one type for each way to finish, so that a `match` over them can be exhaustive.

`AnyOutcome` is their union. An outcome must not hold a credential once it is pickled: the client stays behind.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Protocol, Self, TypeVar, overload, runtime_checkable

import anyio

from asyncruns.abc import RunClient
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
from asyncruns.lifecycle import Call, End, EndKind, Outputs, Phase, Reason, RunFault, RunRef, TokenUsage
from asyncruns.lifecycle.values import describe
from asyncruns.schemas.output_type import output_type_of
from asyncruns.timeline.values import RunTimeline, server_facts
from asyncruns.watch.handover import HandedOver, token_for
from asyncruns.watch.outcome_clients import LeftBehind, reads_results
from asyncruns.watch.parsed import last_written, parsed_answer
from asyncruns.watch.reconciliation import Reconciliation, reconciled, unanswered_of
from asyncruns.wire import Message
from asyncruns.wire.names import BATCH, MESSAGE_BATCH
from asyncruns.wire.plain import Held, Plain, is_plain, plain_value, value_in
from asyncruns.wire.shown_text import on_one_line

if TYPE_CHECKING:
    from asyncruns.dialects.result_lines import BatchResult
    from asyncruns.wire import ResponseMessage

R = TypeVar("R")
T = TypeVar("T")

# Messages may appear later than the status `completed`: seconds before each further attempt to read them, 3.25 in all.
ANSWER_LAG_PAUSES_S: Final = (0.25, 0.5, 1.0, 1.5)

_WHY: Final = {
    Reason.TIMEOUT: "the timeout passed",
    Reason.UNREACHABLE: "the server could not be reached",
    Reason.UNKNOWN_STATUS: "this version does not know the status, and it did not change for max_unknown_status s",
    Reason.NOT_FOUND: "there is no such run",
    Reason.GONE: "the run was there and is gone: deleted or purged",
    Reason.UNAUTHORIZED: "the credential was refused",
    Reason.QUOTA_SPENT: "the quota is spent",
    Reason.REJECTED: "the server refuses to show the run",
    Reason.UNANSWERED: "nothing answers these calls: pass tools= or on_requires_action=, or use watcher.submit()",
    Reason.CANCEL_UNCONFIRMED: "the server accepted the cancel, but a minute later the run still went on",
    Reason.CANCEL_REFUSED: "the run could not be cancelled, and these calls had been stopped for the cancel",
    Reason.NOT_CANCELLED: "the watch was left, and the run could not be cancelled, or not in time; it may go on",
    Reason.HANDLER_FAILED: "answering these calls raised an error",
    Reason.NO_CALLS: "the run waits for the caller, but shows no calls to answer",
    Reason.OUTPUTS_IGNORED: "the server accepted the outputs twice and still asks for them",
    Reason.SUBMIT_REFUSED: "the server refused the outputs",
    Reason.MAX_ROUNDS: "it asked for calls again after max_rounds rounds; pass outputs to watcher.submit() to go on",
    Reason.NOT_CREATED: "the run could not be created, or was not, since the fleet was left",
    Reason.TAKEN_OVER: "by the journal, the run is watched elsewhere, goes on as another run, or was delivered",
    Reason.BROKE: "watching it raised an unexpected error; the other watches go on",
    Reason.SUBMIT_LOST: "the answer to a submit was lost, and polls can't show if it was accepted; a new run may go on",
}


def _restored(kind: type[Any], fields: dict[str, Any], output_type: bytes) -> Any:
    try:
        found = pickle.loads(output_type)  # noqa: S301 - inside of a pickle
    except Exception:  # a class that this process does not have
        found = None
    return kind(**fields, _output_type=found, _client=LeftBehind())


def _pickled_type(output_type: Any) -> bytes:
    """Return the pickle of a type, which refers to its classes by their names; of None if it cannot be pickled."""
    try:
        return pickle.dumps(output_type)
    except Exception:  # such as a class that was defined in a function
        return pickle.dumps(None)


@runtime_checkable
class HoldsMessages(Protocol):
    """A run that holds the messages it wrote, as a response does."""

    @property
    def messages(self) -> Sequence[Message | ResponseMessage]:
        """The messages that it wrote, oldest first."""
        ...


def _held_by(run: object) -> Sequence[Message | ResponseMessage] | None:
    return run.messages if isinstance(run, HoldsMessages) else None


class Outcome(Plain, Generic[R], frozen=True, kw_only=True, eq=False):
    """How a watch finished.

    Match on the subclass, or take the success path: `unwrap()` returns the completed run, `text()` its text and
    `parsed()` that text as a value, and all three raise a `RunError` for every other outcome::

        match outcome:
            case Completed():
                print(await outcome.text())
            case NeedsCaller(calls=calls):
                ...  # the run waits for outputs
            case GaveUp(reason=reason):
                ...  # the run may go on at the server
            case Failed() | Cancelled() | Expired() | Incomplete():
                print(outcome.error)

    `to_dict()` and `to_json()` return it as JSON, in which `outcome` is the name of the class; messages that have to be
    fetched are not in it.

    An outcome can be pickled and copied. A pickle does not hold the client: after that, `messages()` and `text()` of a
    run on a thread raise an InvalidRequestError that says what to do, and those of a response return what it holds. It
    holds the name of the `output_type`; if that cannot be found where it is unpickled, pass the type to `parsed()`.

    Attributes:
        ref: The dialect and ids of the run; of the last one, if each round of outputs created a new one. It has no ids
            if the reason is `NOT_CREATED`.
        refs: The refs of all these runs, oldest first; empty if none was created.
        status: The last known status, as the server spells it; "" if no poll succeeded.
        run: The typed run as last seen; None if no poll succeeded. A fleet does not keep the bodies of runs that go on,
            so in a fleet it is usually also None for `GaveUp`.
        polls: Number of polls sent.
        usage: The tokens used, over all rounds and all these runs, as far as the server says: those of runs on threads
            are known when they end.
        elapsed: Seconds from the beginning of the watch to this outcome; see `run_elapsed` for the run's own.
        at: When the watch finished, in seconds since the epoch, by this machine's clock.
        run_elapsed: Seconds from the creation of the run to its end, both by the server's clock, so mostly whole
            numbers; of the last run if there are several. None if the server does not say, as of expired runs.
        error: The server's error, with `code` and `message`, when the run ended badly; None if it sent none.
        reason: Why the watch finished before the run ended; None if the run ended.
        cause: The exception that led to this outcome, if any.
        calls: Tool calls that have no output yet, for `NeedsCaller` and `GaveUp`; may be empty.
        outputs: Outputs that exist already for the open round, as (call id, text).
        cancel_requested: Whether the watch asked the server to cancel the run, which may have ended in another way
            first. False if the server refused for certain.
        cancel_error: Why the run was not cancelled although `on_exit="cancel"` or `cancel_run()` asked for it: the
            server's answer to the cancel, or an `APITimeoutError` if no poll confirmed it in time. If the outcome is
            `GaveUp` or `NeedsCaller`, the run may go on, and cost money. None if it was cancelled.
        label: What the caller passed as `label=`. `to_dict()` has it only if it is a plain JSON value.
    """

    ref: RunRef
    refs: tuple[RunRef, ...]
    status: str
    run: R | None
    polls: int
    elapsed: float
    at: float = 0.0
    run_elapsed: float | None = None
    usage: TokenUsage = TokenUsage()
    error: RunFault | None = None
    reason: Reason | None = None
    cause: Exception | None = None
    calls: tuple[Call, ...] = ()
    outputs: Outputs = ()
    cancel_requested: bool = False
    cancel_error: Exception | None = None
    label: Any = None
    _output_type: Any = None
    _is_unknown: bool = False  # whether the dialect does not know the status
    _context: Held | None = None
    _handed: HandedOver | None = None  # what its token needs to know; None if there is nothing to go on with
    _token: str = ""  # of an outcome that was unpickled
    _client: RunClient[R]

    _raises: ClassVar[type[RunError]] = RunError
    _kind: ClassVar[str] = "outcome"

    @property
    def context(self) -> Any:
        """What the caller gave as `context=`; None if nothing. It is neither in JSON nor in a pickle."""
        return value_in(self._context)

    @property
    def token(self) -> str:
        """The token with which another process goes on with the watch, if it finished before the run ended; else "".

        `RunWatcher.token` says what it is, and what it holds.
        """
        if self._handed is None or not self.refs:
            return self._token
        return token_for(self.ref, self.refs, self.label, self._handed, self._client)

    def unwrap(self) -> R:
        """Return the run if it is completed, otherwise raise.

        Raises:
            RunError: The run is not completed. The subclass says how the watch finished (`RunFailedError`,
                `RunExpiredError`, ...), the message why, and the error's `outcome` is this object.
        """
        raises = RunGoneError if self.reason is Reason.GONE else self._raises
        raise raises(self._message(), self) from self.cause

    async def messages(self) -> list[Message | ResponseMessage]:
        """Return the messages that this run wrote, oldest first.

        A response holds its messages, so nothing is sent. The messages of a run on a thread are fetched. Safe to
        cancel.

        Raises:
            APIError: They could not be fetched.
            InvalidRequestError: They have to be fetched, and the outcome was unpickled.
        """
        held = _held_by(self.run)
        return [*(await self._client.answer(self.ref) if held is None else held)]

    async def text(self) -> str:
        """Return the text of the run's messages, joined by empty lines. A refusal is not in it: see `refusal`.

        A response holds its text, so nothing is sent. The text of a run on a thread is fetched. Safe to cancel.

        Raises:
            RunError: The run is not completed (see `unwrap`).
            APIError: The messages could not be fetched.
            InvalidRequestError: They have to be fetched, and the outcome was unpickled.
        """
        self.unwrap()
        return "\n\n".join(text for message in await self.messages() if (text := message.text))

    async def refusal(self) -> str:
        """Return what the model wrote instead of an answer if it refused to answer; otherwise "".

        A refusal is not in `text()`. It is read from the last message that has a text or a refusal. Sends what `text()`
        sends, and is safe to cancel.

        Raises:
            APIError: The messages could not be fetched.
            InvalidRequestError: They have to be fetched, and the outcome was unpickled.
        """
        last = last_written(await self.messages())
        return "" if last is None else last.refusal

    @overload
    async def parsed(self) -> Any: ...

    @overload
    async def parsed(self, output_type: type[T]) -> T: ...

    async def parsed(self, output_type: type[Any] | None = None) -> Any:
        """Return the run's text as a value of the output type.

        The value is new at each call. If the run wrote several messages, the last one is read. Sends what `text()`
        sends, and is safe to cancel.

        Args:
            output_type: The type: a pydantic model, a msgspec Struct, a dataclass, a TypedDict, or another type that
                these libraries read JSON as. Default: the `output_type` of the watch.

        Raises:
            InvalidOutputError: The text is not JSON, or does not fit the type; the error holds the text.
            RefusalError: The model refused to answer; the error holds what it wrote instead.
            RunError: The run is not completed (see `unwrap`). So a text that was cut off at a token limit raises a
                `RunIncompleteError`, and is not read.
            APIError: The messages could not be fetched.
            InvalidRequestError: There is no output type, or it cannot be one; or the messages have to be fetched, and
                the outcome was unpickled.
        """
        chosen = self._output_type if output_type is None else output_type
        if chosen is None:
            raise InvalidRequestError(
                "No output type: pass one to the watch, as output_type=City, or here: await outcome.parsed(City)"
            )
        reads_as = output_type_of(chosen)
        self.unwrap()
        return parsed_answer(self.ref, await self.messages(), reads_as)

    def results(self) -> AsyncGenerator[BatchResult]:
        """Iterate over the results of a batch, in the order in which the server sends them; read while they arrive.

        A batch that expired or was cancelled has results, too; one that failed has none. Results that are not there yet
        are waited for, in pauses of 15.5 s in all. If the connection breaks, it is taken up again, and no result comes
        twice. A line at a time is held in memory, and the custom ids of those before it. Safe to cancel; to stop before
        the end, use `contextlib.aclosing`, which closes the connection at once.

        Raises:
            InvalidRequestError: This is no batch, or it has not ended, or the outcome was unpickled.
            APIError: The results could not be fetched; while iterating.
        """
        return reads_results(self._client).results(self._batch())

    async def reconcile(self, ids: Iterable[Any] | AsyncIterable[Any]) -> Reconciliation:
        """Return what became of each request of a batch, by its custom id. Reads all results. Safe to cancel.

        Args:
            ids: The custom ids that were asked for; or the requests, as they were passed to `create(requests=...)`.

        Raises:
            InvalidRequestError: As for `results`, or an item is neither an id nor a request.
            APIError: The results could not be fetched.
        """
        async with aclosing(self.results()) as results:
            return await reconciled(results, ids)

    def unanswered(self, requests: Iterable[Any] | AsyncIterable[Any] | None = None) -> AsyncGenerator[tuple[str, Any]]:
        """Iterate over the requests of a batch that have no answer, as pairs of custom id and body.

        Those that failed, expired or were cancelled are among them, and those without a result. They can be passed to
        `create(requests=...)` as they are; nothing is created by itself. Reads all results first. Safe to cancel.

        Args:
            requests: The requests, as they were passed to `create(requests=...)`. By default they are read from the
                input file of the batch; a message batch has none.

        Raises:
            InvalidRequestError: As for `results`, or this is a message batch and there are no `requests`.
            APIError: The results or the input file could not be fetched; while iterating.
        """
        if requests is None:
            requests = reads_results(self._client).requests(self._batch())
        return unanswered_of(self.results(), requests)

    def _batch(self) -> Any:
        if self.run is None and not self.ref.ids:
            raise InvalidRequestError("This batch was not created, so it has no results")
        return self.ref.ids[0] if self.run is None else self.run

    def timeline(self) -> RunTimeline:
        """Return when the run was created, began and ended, by the server, and when it was watched.

        Its statuses, calls and polls are known only if they are recorded: see `Fleet.record`.
        """
        facts = server_facts(self.run)
        return RunTimeline(
            ref=self.ref,
            assistant=facts.assistant,
            model=facts.model,
            label=plain_value(self.label) if is_plain(self.label) else None,
            began_at=self.at - self.elapsed,
            finished_at=self.at,
            outcome=type(self).__name__,
            reason="" if self.reason is None else self.reason.value,
            status=self.status,
            error="" if self.error is None else self.error.code,
            created_at=facts.created_at,
            started_at=facts.started_at,
            ended_at=facts.ended_at,
            poll_count=self.polls,
        )

    def to_dict(self) -> dict[str, Any]:
        fields = super().to_dict()
        if not is_plain(self.label):
            del fields["label"]
        return fields

    def __reduce__(self) -> tuple[Any, ...]:
        left_out = ("_client", "_context", "_output_type", "_handed", "_token")
        fields = {name: portable(getattr(self, name)) for name in self.__struct_fields__ if name not in left_out}
        if token := self.token:
            fields["_token"] = token
        return _restored, (type(self), fields, _pickled_type(self._output_type))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        shared = ("_client", "_context", "_output_type", "cause", "label")
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return type(self)(
            **{name: value if name in shared else copy.deepcopy(value, memo) for name, value in fields.items()}
        )

    def __repr__(self) -> str:
        why = "" if self.reason is None else f", {self.reason.value}"
        seen = f"{self.status or 'not seen'}{why}, {self.polls} polls, {self.elapsed:.1f} s"
        return on_one_line(f"<{type(self).__name__} {self.ref} {seen}>")

    def _message(self) -> str:
        state = f"is {self.status or 'of unknown status'}"
        if self._is_unknown:
            state = f"has the status {self.status!r}, which its dialect does not know"
        kind = "batch" if self.ref.dialect in (BATCH, MESSAGE_BATCH) else "run"
        what = on_one_line(f"The {kind} {self.ref} {state}{describe(self.error)}")
        if self.reason is Reason.NOT_CREATED:
            what = f"{_WHY[self.reason][0].upper()}{_WHY[self.reason][1:]}"
        elif self.reason is not None:
            polls = "1 poll" if self.polls == 1 else f"{self.polls} polls"
            what += f"; the watch finished after {self.elapsed:.1f} s and {polls}: {_WHY[self.reason]}"
        if self.calls:
            names = ", ".join(call.name or call.id for call in self.calls)
            what += f" (open calls: {on_one_line(names)})"
        return what if self.cause is None else f"{what}. Cause: {self.cause}"


class Completed(Outcome[R], frozen=True, kw_only=True, eq=False):
    """The run is completed."""

    run: R

    def unwrap(self) -> R:
        """Return the run."""
        return self.run

    async def messages(self) -> list[Message | ResponseMessage]:
        """Return the messages that this run wrote, oldest first.

        A response holds its messages, so nothing is sent. The messages of a run on a thread are fetched; if there are
        none yet, again for 3.25 s, as they may appear later than the status. Safe to cancel.

        Raises:
            APIError: They could not be fetched.
            InvalidRequestError: They have to be fetched, and the outcome was unpickled.
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
    """The run was cancelled, by this watch (`cancel_requested`) or by another client."""

    run: R
    _raises: ClassVar[type[RunError]] = RunCancelledError


class Expired(Outcome[R], frozen=True, kw_only=True, eq=False):
    """The run expired at the server."""

    run: R
    _raises: ClassVar[type[RunError]] = RunExpiredError


class Incomplete(Outcome[R], frozen=True, kw_only=True, eq=False):
    """The run ended before its answer was complete; `error.code` says why. `messages()` returns what there is."""

    run: R
    _raises: ClassVar[type[RunError]] = RunIncompleteError


class NeedsCaller(Outcome[R], frozen=True, kw_only=True, eq=False):
    """The run waits for tool outputs: some are missing (`calls`), or the server did not take them; `reason` says which.

    `outputs` are those that exist already. Within `async with RunWatcher(...)`, `watcher.submit(outputs)` resumes the
    watch.
    """

    run: R
    _raises: ClassVar[type[RunError]] = RunNeedsCallerError


class GaveUp(Outcome[R], frozen=True, kw_only=True, eq=False):
    """The watch finished before the run ended; `reason` and `cause` say why. The run may go on at the server.

    In a fleet, `run` is usually None even if the run was seen: between polls a fleet keeps `status`, not the body.
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
    ref: RunRef,
    refs: tuple[RunRef, ...],
    client: RunClient[R],
    *,
    polls: int,
    elapsed: float,
    at: float,
    context: Held | None,
    cancel_requested: bool,
    cancel_error: Exception | None,
    label: object,
    output_type: Any = None,
    handed: Callable[[End], HandedOver | None] | None = None,
) -> AnyOutcome[R]:
    """Return the typed outcome for an end of the lifecycle; `handed` makes what a token of the watch needs to know."""
    snapshot = end.snapshot
    outcome: AnyOutcome[R] = _TYPES[end.kind](
        ref=ref,
        refs=refs,
        status=snapshot.status if snapshot else "",
        run=snapshot.resource if snapshot else None,
        polls=polls,
        usage=end.usage,
        elapsed=elapsed,
        at=at,
        run_elapsed=snapshot.elapsed if snapshot else None,
        error=snapshot.fault if snapshot else None,
        reason=end.reason,
        cause=end.cause,
        calls=end.calls,
        outputs=end.outputs,
        cancel_requested=cancel_requested,
        cancel_error=cancel_error,
        label=label,
        _output_type=output_type,
        _is_unknown=snapshot is not None and snapshot.phase is Phase.UNKNOWN,
        _context=context,
        _handed=None if end.kind.is_final or handed is None else handed(end),
        _client=client,
    )
    return outcome
