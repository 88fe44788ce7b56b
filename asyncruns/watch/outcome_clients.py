"""What an outcome needs of a client to fetch what a run wrote; and the client of an outcome that was unpickled."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from asyncruns.abc import Dialect, Transport
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import RunRef
from asyncruns.wire import Message

if TYPE_CHECKING:
    from asyncruns.dialects.result_lines import BatchResult
    from asyncruns.wire import ResponseMessage

_LEFT_BEHIND: Final = (
    "This outcome was unpickled, and a pickle does not hold the client: with a client of this process, await "
    "client.for_run(outcome.ref).answer(outcome.ref); or await outcome.text() before the outcome is pickled"
)
_NO_CLIENT_FOR_RESULTS: Final = (
    "This outcome was unpickled, and a pickle does not hold the client: with a client of this process, iterate over "
    "client.batches.results(outcome.run), or over client.message_batches.results(outcome.run)"
)


@runtime_checkable
class ReadsResults(Protocol):
    """A client of batches: it fetches their results."""

    def results(self, batch: Any) -> AsyncGenerator[BatchResult]:
        """Yield the results of a batch, which may be given by its id."""
        ...

    def requests(self, batch: Any) -> AsyncGenerator[tuple[str, Any]]:
        """Yield the requests of a batch, as pairs of custom id and body."""
        ...


def reads_results(client: object) -> ReadsResults:
    """Return the client as one of batches.

    Raises:
        InvalidRequestError: It is not one, so what it watched has no results.
    """
    if isinstance(client, ReadsResults):
        return client
    raise InvalidRequestError("Only batches have results; a run or a response has messages() and text()")


def check_has_client(client: object) -> None:
    """Check that an outcome can fetch results.

    Raises:
        InvalidRequestError: It was unpickled.
    """
    if isinstance(client, LeftBehind):
        raise InvalidRequestError(_NO_CLIENT_FOR_RESULTS)


class LeftBehind:
    """The client of an outcome that was unpickled: the real one stays in its process, with its key."""

    @property
    def transport(self) -> Transport:
        """Raise InvalidRequestError, like everything here."""
        raise InvalidRequestError(_LEFT_BEHIND)

    @property
    def dialect(self) -> Dialect[Any]:
        """Raise InvalidRequestError, like everything here."""
        raise InvalidRequestError(_LEFT_BEHIND)

    async def answer(self, ref: RunRef) -> Sequence[Message | ResponseMessage]:
        """Raise InvalidRequestError, which says how to fetch the messages."""
        raise InvalidRequestError(f"The messages of {ref} have to be fetched. {_LEFT_BEHIND}")

    def results(self, batch: object) -> AsyncGenerator[BatchResult]:
        """Raise InvalidRequestError, which says how to fetch the results."""
        raise InvalidRequestError(_NO_CLIENT_FOR_RESULTS)

    def requests(self, batch: object) -> AsyncGenerator[tuple[str, Any]]:
        """Raise InvalidRequestError, like everything here."""
        raise InvalidRequestError(_NO_CLIENT_FOR_RESULTS)
