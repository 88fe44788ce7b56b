"""Checks what callers pass for a run or for a client, and names their mistakes in error messages.

A run may be an object of another library, which is then identified by its ids. No other library is imported: its
objects are recognized by their attributes.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final, TypeVar

from msgspec import Struct

from asyncruns.errors import InvalidRequestError
from asyncruns.http import require_id
from asyncruns.lifecycle.run_shapes import check_is_object, dialect_and_ids, not_awaited
from asyncruns.lifecycle.values import RunRef
from asyncruns.wire.names import BATCH, MESSAGE_BATCH, RESPONSE

C = TypeVar("C")

MESSAGE_BATCH_PREFIX: Final = "msgbatch_"
"""How the ids of message batches begin, at every server; those of other batches begin in many ways."""

_OF_CLIENTS: Final = ("transport", "dialect", "answer")


def given_run(run: object) -> Any:
    """Return the caller's argument for a run or a stream: unchanged, or a `RunRef` for an object of another library.

    Raises:
        InvalidRequestError: It is a string, an awaitable, or a `RunRef` whose ids are a string; the message says what
            to write. Other objects are left to the caller of this function (see `no_run`).
    """
    if run is None:
        return run
    if isinstance(run, RunRef):
        return RunRef.of(run)
    if isinstance(run, Struct):  # an object of ours, or of a dialect that the caller wrote
        return run
    check_is_object(run)
    found = dialect_and_ids(run)
    return run if found is None else RunRef(*found)


def with_own_id(run: Any, response_id: str | None, batch_id: str | None, **ids: str | None) -> Any:
    """Return the run, or the ref of the response or the batch that one of the ids names.

    Raises:
        InvalidRequestError: Several are given, or it cannot be an id.
    """
    own = {"response_id": response_id, "batch_id": batch_id}
    named = next((name for name, id_ in own.items() if id_ is not None), None)
    if named is None:
        return run
    others = {"run": run, **ids, **own}
    del others[named]
    if any(given is not None for given in others.values()):
        kind = named.removesuffix("_id")
        raise InvalidRequestError(f"{named} names a {kind} by itself: leave out {', '.join(others)}")
    id_ = require_id(named, own[named])
    if named == "response_id":
        return RunRef(RESPONSE, (id_,))
    return RunRef(MESSAGE_BATCH if id_.startswith(MESSAGE_BATCH_PREFIX) else BATCH, (id_,))


def check_ids(thread_id: str, run_id: str) -> None:
    """Check that the ids of a run are not swapped.

    Raises:
        InvalidRequestError: They are.
    """
    if thread_id.startswith("run_") and run_id.startswith("thread_"):
        raise InvalidRequestError(f"The ids are swapped: thread_id is {thread_id!r}, and run_id is {run_id!r}")


def check_client(client: C, where: str) -> C:
    """Return a client unchanged, if a watch can use it.

    Args:
        client: The caller's argument for the client.
        where: The name of the class or function that takes it, for the message.

    Raises:
        InvalidRequestError: It is a client of another library, or no client.
    """
    # On the class first: reading a property of the instance might have an effect, or raise.
    lacking = [name for name in _OF_CLIENTS if not (hasattr(type(client), name) or hasattr(client, name))]
    if not lacking:
        return client
    kind = type(client)
    library = kind.__module__.partition(".")[0]
    if isinstance(client, Awaitable):
        raise not_awaited(client)
    if len(lacking) < len(_OF_CLIENTS):  # a client of the caller's own dialect
        raise InvalidRequestError(
            f"{kind.__name__} lacks {' and '.join(lacking)}: a client has transport, dialect and answer"
        )
    origin = "" if library in ("builtins", "asyncruns") else f" of {library}"
    raise InvalidRequestError(
        f"{where} takes a client of asyncruns first; got {kind.__name__}{origin}: make one with "
        "asyncruns.Client(base_url, auth=BearerAuth(key)), Client.from_env(), or Client.from_openai(client)"
    )
