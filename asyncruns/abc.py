"""What the outside may replace, as abstract classes. The real things are in `transport/` and `dialects/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

from asyncruns.errors import ConfigurationError
from asyncruns.http import Request, Response
from asyncruns.lifecycle.patience import WAIT_WITHOUT_EXPIRY_S
from asyncruns.lifecycle.values import Answers, Refusal, RunRef, Snapshot
from asyncruns.limits import Limits
from asyncruns.wire import Message

if TYPE_CHECKING:
    from asyncruns.wire import ResponseMessage

R = TypeVar("R")


class AsyncOnly:
    """What is used with `async for` and `async with`: without `async`, the error says so."""

    __slots__ = ()

    if not TYPE_CHECKING:  # a type checker finds the mistake by itself

        def __iter__(self):
            raise TypeError(f"Write `async for` in place of `for`: {_name(self)} is iterated over asynchronously")

        def __enter__(self):
            raise TypeError(f"Write `async with` in place of `with`: {_name(self)} is entered asynchronously")

        def __exit__(self, kind, error, trace):
            raise TypeError("Write `async with` in place of `with`")


def _name(value: object) -> str:
    return f"a {type(value).__name__}"


class ByteStream(ABC):
    """A good answer whose body is read as it comes. Nothing is read ahead but for what the connection holds.

    Attributes:
        status: The HTTP status, below 300.
        headers: Finds names in lower case.
        redact: Takes the credentials out of what is to be shown; None where there is nothing to take out.
    """

    status: int
    headers: Mapping[str, str]
    redact: Callable[[bytes], bytes] | None = None

    @abstractmethod
    async def read(self) -> bytes:
        """Wait for the next bytes, and give them; b"" at the end.

        Safe to cancel: nothing is lost. For one task at a time.

        Raises:
            APIConnectionError: The connection broke, or was closed in the middle. `sent` is True.
            APITimeoutError: No byte came for too long.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Stop reading. What is not read to its end has its connection closed. Never raises; may be called twice."""


class Transport(ABC):
    """Sends requests. One instance serves many tasks of one event loop at once."""

    @abstractmethod
    async def send(self, request: Request) -> Response:
        """Send a request; give the answer, whatever its status.

        Safe to cancel; the server may then have acted on the request or not.

        Raises:
            APIConnectionError: No answer came; `sent` tells whether the server may have acted.
            APITimeoutError: None came in time.
            APIResponseValidationError: One came that can't be taken, such as a body without end.
        """

    async def stream(self, request: Request) -> Response | ByteStream:
        """Send a request; give the answer as soon as its headers are there.

        An error is given whole, and so is what is by its type no stream of events but JSON or a page.

        The request's timeout is for the headers, and then for each pause between bytes; a stream may last for ever.
        A transport that can't stream leaves this as it is. Safe to cancel, as `send`.

        Raises:
            ConfigurationError: This transport does not stream; nothing was sent.
            APIConnectionError, APITimeoutError, APIResponseValidationError: As `send`.
        """
        raise ConfigurationError(
            f"{type(self).__name__} does not stream, so {request.method} {request.path} was not sent: leave out "
            "stream=True, or implement Transport.stream"
        )

    @abstractmethod
    async def aclose(self) -> None:
        """Close what this transport has opened. Never raises; may be called twice."""


class Dialect(ABC, Generic[R]):
    """What differs between servers: pure functions and constants, no I/O.

    Nothing above may know a path, a status or a phrase of a server.

    Attributes:
        name: What a `RunRef` of this dialect carries.
        limits: What the server is documented to refuse; None where nothing is known.
        shows_submits: Whether a poll tells if a submit was taken whose answer was lost.
        without_expiry: How many seconds a watch waits by default for a run whose server tells no expiry.
    """

    name: str
    limits: Limits | None = None
    shows_submits: bool = True
    without_expiry: float = WAIT_WITHOUT_EXPIRY_S

    @abstractmethod
    def identify(self, run: object, ids: Mapping[str, str]) -> RunRef:
        """Name the run that an object (or a `RunRef`, or None) and ids stand for.

        Raises:
            InvalidRequestError: They do not name a run of this dialect.
        """

    def given(self, run: object) -> Any:
        """Return what a caller gave for a run as what `identify` takes; itself by default.

        Raises:
            InvalidRequestError: It is a mistake that can be named, such as a coroutine that was not awaited.
        """
        return run

    @abstractmethod
    def snapshot(self, resource: R) -> Snapshot[R]:
        """Read an object that the caller holds."""

    @abstractmethod
    def poll(self, ref: RunRef) -> Request:
        """Make the request for one poll."""

    @abstractmethod
    def read(self, request: Request, response: Response) -> Snapshot[R]:
        """Read the good answer to a poll, a submit or a cancel.

        Raises:
            APIResponseValidationError: The body is not a run.
        """

    @abstractmethod
    def submit(
        self, ref: RunRef, snapshot: Snapshot[R], answers: Answers, *, keep_tool_choice: bool = False
    ) -> Request:
        """Make the request that submits the outputs of all calls of a round, which the snapshot asked for.

        Args:
            keep_tool_choice: Whether a choice that forces the model to call a tool is repeated, where the request has
                one. By default it becomes "auto": a forced call in each round has no end.
        """

    @abstractmethod
    def cancel(self, ref: RunRef) -> Request:
        """Make the request that cancels the run."""

    def reopen(self, ref: RunRef, after: int | None) -> Sequence[Request]:
        """Return the requests that may open the stream of a run again where it broke, the likeliest first.

        Args:
            ref: The run.
            after: The number of the last event that came; None asks for all.
        """
        return ()

    @abstractmethod
    def refusal(self, request: Request, response: Response) -> Refusal:
        """Say what an error answer means: the only place where a server's prose is matched. Never raises."""


class HasId(Protocol):
    """A run or a response as another client has it."""

    @property
    def id(self) -> str:
        """Its id."""
        ...


@runtime_checkable
class MultiWireClient(Protocol):
    """A client of a server with several kinds of runs, as `Client` is: it has a `RunClient` for each kind."""

    def for_run(self, run: object) -> RunClient[Any]:
        """Return the client for runs of this run's kind, or of this `RunRef`'s; None is a run by its ids."""
        ...


class RunClient(Protocol[R]):
    """A client of one kind of run: what a watch needs to poll it, to submit outputs and to cancel it.

    `Client` is the one of a thread's runs; `client.responses.continued()` makes one of responses.
    """

    @property
    def transport(self) -> Transport:
        """Sends each request once: the watch has its own patience."""
        ...

    @property
    def dialect(self) -> Dialect[R]:
        """Speaks the server's language."""
        ...

    async def answer(self, ref: RunRef) -> Sequence[Message | ResponseMessage]:
        """Fetch what a run said, oldest first."""
        ...
