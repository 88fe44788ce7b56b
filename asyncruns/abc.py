"""The interfaces that users may implement: transports, dialects and clients.

Our own implementations are in `transport/`, `dialects/` and `client/`. Nothing here does I/O.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, runtime_checkable

from msgspec import Struct

from asyncruns.errors import ConfigurationError
from asyncruns.http import Request, Response
from asyncruns.lifecycle.policy import AFTER_EXPIRY_S, CANCEL_BOUND_S, MAX_OUTAGE_S, WAIT_WITHOUT_EXPIRY_S
from asyncruns.lifecycle.values import Answers, Refusal, RunRef, Snapshot
from asyncruns.limits import Limits
from asyncruns.wire import Message

if TYPE_CHECKING:
    from asyncruns.lifecycle import Asked, Call, Notice, Observed, Refused
    from asyncruns.lifecycle.records import CallRecord, WatchRecord, Wish
    from asyncruns.wire import ResponseMessage

R = TypeVar("R")


class AsyncOnly:
    """Mix-in for classes used with `async for` and `async with`: without `async`, the error explains the mistake."""

    __slots__ = ()

    # Hidden from type checkers, which would otherwise accept `for` and `with`.
    if not TYPE_CHECKING:

        def __iter__(self):
            raise TypeError(f"Write `async for` instead of `for`: {_name(self)} is iterated over asynchronously")

        def __enter__(self):
            raise TypeError(f"Write `async with` instead of `with`: {_name(self)} is entered asynchronously")

        def __exit__(self, kind, error, trace):
            raise TypeError("Write `async with` instead of `with`")


def _name(value: object) -> str:
    return f"a {type(value).__name__}"


class ByteStream(ABC):
    """A successful response whose body is read piece by piece. Nothing is read ahead, except into socket buffers.

    Attributes:
        status: The HTTP status, below 300.
        headers: A mapping that finds names in lower case.
        redact: Removes credentials from bytes that are to be shown; None if there are none to remove.
    """

    status: int
    headers: Mapping[str, str]
    redact: Callable[[bytes], bytes] | None = None

    @abstractmethod
    async def read(self) -> bytes:
        """Wait for the next bytes and return them; b"" at the end of the body.

        Safe to cancel: no bytes are lost. Only one task may read at a time.

        Raises:
            APIConnectionError: The connection broke before the end of the body. `sent` is True.
            APITimeoutError: No bytes came within the request's timeout.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Stop reading, and close the connection if the body was not read to its end.

        Never raises; may be called twice.
        """


class Transport(ABC):
    """Sends requests. One instance serves many tasks of one event loop concurrently."""

    @abstractmethod
    async def send(self, request: Request) -> Response:
        """Send a request and return the response, whatever its status.

        Safe to cancel; it is then not known whether the server has acted on the request.

        Raises:
            APIConnectionError: No response came; `sent` is whether the server may have acted.
            APITimeoutError: No response came in time. The time of an upload begins anew with each piece that was sent.
            APIResponseValidationError: The response cannot be accepted, such as a body without end.
            Exception: What `request.upload` raised; the server did not receive its whole body.
        """

    async def stream(self, request: Request) -> Response | ByteStream:
        """Send a request and return the response as soon as its headers have arrived.

        An error is returned with its whole body, as a `Response`. So is anything else that is not an event stream, such
        as JSON or an HTML page; the content type and the first bytes decide.

        The request's timeout applies to the headers, and then to each pause between bytes: a stream may last for any
        time. A transport that cannot stream does not override this. Safe to cancel, as `send` is.

        Raises:
            ConfigurationError: This transport does not stream; nothing was sent.
            APIConnectionError, APITimeoutError, APIResponseValidationError: As for `send`.
        """
        raise ConfigurationError(
            f"{type(self).__name__} does not stream, so {request.method} {request.path} was not sent: leave out "
            "stream=True, or implement Transport.stream"
        )

    async def download(self, request: Request) -> Response | ByteStream:
        """Send a request and return a good response as soon as its headers have arrived, whatever its type.

        Its body is read piece by piece, so it may be of any size. An error is returned with its whole body. The
        request's timeout applies as in `stream`. A transport that does not override this returns the whole response.
        Safe to cancel, as `send` is.

        Raises:
            APIConnectionError, APITimeoutError, APIResponseValidationError: As for `send`.
        """
        return await self.send(request)

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections that this transport has opened. Never raises; may be called twice."""


class Dialect(ABC, Generic[R]):
    """What differs between servers, as pure functions and constants; it does no I/O.

    A watch and a fleet know no path, status or error text of a server.

    Attributes:
        name: The `dialect` of this dialect's `RunRef`s.
        limits: What the server is documented to refuse; None if nothing is known.
        shows_submits: Whether polls show if a submit whose response was lost took effect.
        without_expiry: Seconds that a watch waits by default for a run without an expiry time.
        after_expiry: Seconds that a watch waits by default after the expiry of a run: servers notice it late.
        max_outage: Seconds for which requests may fail by default before a watch gives up.
        cancel_bound: Seconds that the server may take over a cancel that it has accepted.
        longest_pause: For runs that take hours, the longest pause between two polls in seconds, if the caller chooses
            no cadence: pauses then grow to it, or are learned up to it. None is the usual cadence, of seconds.
    """

    name: str
    limits: Limits | None = None
    shows_submits: bool = True
    without_expiry: float = WAIT_WITHOUT_EXPIRY_S
    after_expiry: float = AFTER_EXPIRY_S
    max_outage: float = MAX_OUTAGE_S
    cancel_bound: float = CANCEL_BOUND_S
    longest_pause: float | None = None

    @abstractmethod
    def identify(self, run: object, ids: Mapping[str, str]) -> RunRef:
        """Return the ref of the run that an object (or a `RunRef`, or None) and ids identify.

        Args:
            run: A run, as this dialect knows it; a `RunRef`; or None, if the ids suffice.
            ids: Ids by their parameter names, such as `thread_id`.

        Raises:
            InvalidRequestError: They do not identify a run of this dialect.
        """

    def given(self, run: object) -> Any:
        """Return the caller's argument for a run in a form that `identify` accepts; by default unchanged.

        Raises:
            InvalidRequestError: The argument is a recognizable mistake, such as a coroutine that was not awaited.
        """
        return run

    @abstractmethod
    def snapshot(self, resource: R) -> Snapshot[R]:
        """Return the snapshot of an object that the caller has."""

    @abstractmethod
    def poll(self, ref: RunRef) -> Request:
        """Return the request for one poll."""

    @abstractmethod
    def read(self, request: Request, response: Response) -> Snapshot[R]:
        """Return the snapshot in a successful response to a poll, a submit or a cancel.

        Raises:
            APIResponseValidationError: The body is not a run, or is another run than the requested one.
        """

    @abstractmethod
    def submit(
        self, ref: RunRef, snapshot: Snapshot[R], answers: Answers, *, keep_tool_choice: bool = False
    ) -> Request:
        """Return the request that submits the outputs of all calls of a round.

        Args:
            ref: The run.
            snapshot: The snapshot that has the calls.
            answers: Each call with its output.
            keep_tool_choice: Whether to repeat a `tool_choice` that forces the model to call a tool, if the request
                has one. By default it becomes "auto": a run that is forced to call a tool in each round never ends.
        """

    @abstractmethod
    def cancel(self, ref: RunRef) -> Request:
        """Return the request that cancels the run."""

    def reopen(self, ref: RunRef, after: int | None) -> Sequence[Request]:
        """Return the requests that may reopen the broken stream of a run, the likeliest first; by default none.

        Args:
            ref: The run.
            after: The sequence number of the last event received; None requests all events.
        """
        return ()

    @abstractmethod
    def refusal(self, request: Request, response: Response) -> Refusal:
        """Return the meaning of an error response. Never raises.

        The text of a server's error is matched here and nowhere else in a watch.
        """

    def carried_parameters(self) -> Mapping[str, Any] | None:
        """Return what another process needs in addition to the ids to go on with a run, as JSON; by default None.

        `MultiWireClient.for_run` gets it as `parameters` of a token.

        Raises:
            InvalidRequestError: It holds what may be a credential, so it is not written into a token.
        """
        return None

    def collective(self) -> CollectivePolls[R] | None:
        """Return what polls many runs with one request, new for each fleet and client; by default None.

        A fleet then polls these runs by it as far as that shows more of them than single polls.
        """
        return None


class CollectivePoll(Struct, frozen=True, kw_only=True):
    """A request that shows several runs.

    Attributes:
        request: The request.
        refs: The runs that its answer is expected to show.
        key: What the maker needs to read the answer.
    """

    request: Request
    refs: Collection[RunRef]
    key: Any = None


class CollectivePolls(ABC, Generic[R]):
    """How many runs of one server are polled with one request: by pages of a list, say, or by a search for ids.

    It learns from the answers which runs a request shows. It does no I/O and reads no clock. What an answer shows is
    always checked against what is watched, so `read` may return other runs, too. A run that three polls in a row do not
    show, although they were made for it, is polled by itself.
    """

    @abstractmethod
    def add(self, ref: RunRef, snapshot: Snapshot[Any] | None) -> None:
        """Note that a run is watched; with the snapshot of the caller's object, if there is one."""

    @abstractmethod
    def discard(self, ref: RunRef) -> None:
        """Note that a run is not watched any more; if it never was, do nothing."""

    @abstractmethod
    def poll(self, ref: RunRef) -> CollectivePoll | None:
        """Return a request that shows this run together with others; None to poll it by itself."""

    @abstractmethod
    def read(self, poll: CollectivePoll, response: Response) -> Mapping[RunRef, Snapshot[R]]:
        """Return the snapshots in the answer to a poll, of watched runs and perhaps of others.

        Raises:
            APIResponseValidationError: The body is not such an answer.
        """

    @abstractmethod
    def failed(self, poll: CollectivePoll, refusal: Refusal) -> bool:
        """Note that a poll failed. Return whether other polls may still succeed, if this refusal will not pass."""

    @abstractmethod
    def polled_alone(self, ref: RunRef) -> None:
        """Note that a run was polled by itself, with success."""


class Journal(ABC):
    """Writes down what must survive the process, for the watches that this process owns.

    A method returns when what it writes is durable, so that it survives a crash of the process. Several calls may be
    pending at once; an implementation may put them into one transaction, in the order of the calls. All of them are
    safe to cancel: what was being written is then written or not, as a whole.

    Each watch has one owner, the process that has opened the journal. A journal is opened by `async with`, once, and
    then used in the event loop of that. A run has one watch: each ref of a watch, its first ones and those that it has
    moved to, leads to that watch until it is forgotten.

    Raises (each method):
        JournalError: It could not be written or read, or is not open; nothing was changed.
        NotOwnerError: Another process owns one of the watches now, or none does, or it is not in the journal, or a run
            belongs to another watch; nothing was changed.
    """

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and not closed since; without it a fleet is not entered. True, unless overridden."""
        return True

    @abstractmethod
    async def open(self) -> None:
        """Open the journal, and begin to own watches. May be called again when it was closed."""

    @abstractmethod
    async def aclose(self) -> None:
        """Write what is pending, give up the watches that are owned, and close. Never raises; may be called twice."""

    @abstractmethod
    async def add(self, watches: Sequence[WatchRecord]) -> list[WatchRecord]:
        """Add watches, which this process owns then; return them as the journal has them now, in the order given.

        Of a watch that this journal owns already, all that is recorded is kept, and what is given is left out.
        """

    @abstractmethod
    async def claim(self, watches: Sequence[str] | None = None) -> list[WatchRecord]:
        """Own the watches that no living process owns, and return all of them, the oldest first.

        If keys are given, only these; those that are not there, or that a living process owns, are skipped. If the
        caller is cancelled, those that it would have returned are released. One that cannot be read is skipped.
        """

    @abstractmethod
    async def read(self) -> list[WatchRecord]:
        """Return all watches, the oldest first, with who owns each; own none of them, and change nothing."""

    @abstractmethod
    async def release(self, watches: Sequence[str]) -> None:
        """Leave watches to any journal that claims them, this one too; skip those that are not owned or not there."""

    @abstractmethod
    async def begin(self, watch: str, calls: Sequence[CallRecord]) -> list[CallRecord]:
        """Note that calls begin; return those of them that had begun before, as they are recorded.

        The others have begun only now, and may be run; the ones returned must not be run again. One whose output was
        accepted is over: a call with its key is a new one, without an output.
        """

    @abstractmethod
    async def answered(self, watch: str, calls: Sequence[CallRecord]) -> None:
        """Record the outputs of calls. An output that is recorded already is kept."""

    @abstractmethod
    async def submitting(self, watch: str, calls: Sequence[str]) -> None:
        """Note that the outputs of the calls with these keys are about to be submitted; or, if none, are not.

        For a run that is not created it notes how far the create has come: see `WatchRecord.submitting`.
        """

    @abstractmethod
    async def moved(self, watch: str, ref: RunRef, at: float) -> None:
        """Note that a submit was accepted, and which run the watch goes on with: the same, or another one.

        Its calls were accepted at this time, in seconds since the epoch; those that had been before are forgotten, and
        so is how the watch had finished before, as it goes on. Also notes which run was created for the watch: what it
        took to ask for that is forgotten.
        """

    @abstractmethod
    async def finished(self, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
        """Record how watches finished, by their keys: the outcomes are not delivered yet."""

    @abstractmethod
    async def delivered(self, watches: Sequence[str]) -> None:
        """Forget watches whose outcomes were delivered, or which the caller has left; skip those that are not there."""

    @abstractmethod
    async def ask(self, ref: RunRef, wish: Wish) -> bool:
        """Ask the process that watches a run for something; return False if no other living process does."""

    @abstractmethod
    async def wishes(self) -> list[tuple[str, Wish]]:
        """Wait until other processes ask something of watches that this one owns, and return it once, with the keys.

        If the caller is cancelled, what it would have returned is returned to the next one.
        """


class Codec(Protocol):
    """Changes what a journal keeps of its caller's content before it is written: encrypts it, or drops it.

    That is the outputs of calls, labels, and outcomes; each is given as JSON, by itself. Ids, the name of the toolset,
    and digests of calls are no content, and are written as they are. A journal may call the codec in a thread of its
    own, one call at a time.
    """

    def encode(self, content: bytes, /) -> bytes | None:
        """Return what to write instead; None to write nothing.

        Without its output, a call counts as interrupted after a restart; without its outcome, a watch is polled anew;
        a label is None then.
        """
        ...

    def decode(self, data: bytes, /) -> bytes:
        """Return the content of what `encode` has returned; raise any exception if that is not possible."""
        ...


class WatchTrace(ABC):
    """Follows one watch, to make a trace of it; as for `Telemetry`, nothing here may wait."""

    @abstractmethod
    def notice(self, notice: Notice) -> None:
        """Note an event of the watch."""

    @abstractmethod
    def calling(
        self, calls: Sequence[Call], handler: str = ""
    ) -> AbstractContextManager[Callable[[str, bool], object]]:
        """Follow a tool, or a handler of this name, while it answers calls; it sees what is made current here.

        A handler that returns awaitables is followed once more while each of these is awaited.

        The function that the context manager returns is called with the output of a tool, and whether that is an error
        of ours; or, if a handler raised, with "" and True.
        """

    @abstractmethod
    def sending(self, asked: Asked) -> AbstractContextManager[Callable[[Observed | Refused], object]]:
        """Follow a submit or a cancel; the function that the context manager returns is called with its result."""

    @abstractmethod
    def polled(self, event: Observed | Refused) -> None:
        """Note what a poll has shown, before the events that follow from it."""

    @abstractmethod
    def ended(self, outcome: Any) -> None:
        """Note how the watch finished: an `AnyOutcome`, or None if it was left before. Nothing follows."""


class Telemetry(ABC):
    """Follows what a client does, to make traces and metrics of it. Nothing here may wait.

    What it raises does not affect what it follows; the first exception is logged.
    """

    @abstractmethod
    def watch(self, ref: RunRef, run: object, server: str, link: str, label: object = None) -> WatchTrace:
        """Return what follows a watch that begins now, in the context variables of its caller.

        Args:
            ref: The ref of the run.
            run: The run as the caller's object shows it, or None.
            server: The base URL of the server; "" if it is not known.
            link: The `traceparent` of an earlier watch of the run; "" for none.
            label: What the caller passed as `label=`.
        """

    def creating(self, dialect: str, server: str) -> AbstractContextManager[Callable[[object], object]]:
        """Follow the create of a run that is watched then, in the context variables of its caller; by default nothing.

        The function that the context manager returns is called with the run, once it is created.

        Args:
            dialect: The name of the dialect of the run.
            server: As for `watch`.
        """
        return nullcontext(_ignore)

    @abstractmethod
    def requested(self, request: Request, answer: Response | Exception | None, seconds: float) -> None:
        """Note a request that was answered, or failed, after so many seconds; None is a stream that was opened."""


def _ignore(created: object) -> None:
    pass


class HasId(Protocol):
    """A run or a response, as an object of another client."""

    @property
    def id(self) -> str:
        """The id of the run or response."""
        ...


@runtime_checkable
class MultiWireClient(Protocol):
    """A client of a server with several kinds of runs, as `Client` is: it has a `RunClient` for each kind."""

    def for_run(self, run: object) -> RunClient[Any]:
        """Return the client for runs of the kind of this run or `RunRef`; None stands for a run given by its ids.

        It may be a token that was read, if its `parameters` are needed to go on.
        """
        ...


class RunClient(Protocol[R]):
    """A client of one kind of run: what a watch needs to poll a run, submit outputs and cancel it.

    `Client` is the one for runs of threads; `client.responses.continued()` returns one for responses.
    """

    @property
    def transport(self) -> Transport:
        """A transport that sends each request once: the watch does its own retries."""
        ...

    @property
    def dialect(self) -> Dialect[R]:
        """The dialect of the server."""
        ...

    async def answer(self, ref: RunRef) -> Sequence[Message | ResponseMessage]:
        """Fetch the messages that a run wrote, oldest first."""
        ...
