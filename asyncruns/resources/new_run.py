"""A run that is to be created, as a value, and what it takes to ask for it again, as plain JSON for a journal.

No header is written down: it may be a credential.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from asyncruns.abc import RunClient
from asyncruns.errors import InvalidRequestError
from asyncruns.resources.options import json_body
from asyncruns.watch.create_guard import CreateGuard
from asyncruns.watch.open_watches import open_watches_of, telemetry_of
from asyncruns.wire.codec import present


class NewRun(Struct, frozen=True):
    """A run or a response that is to be created; its arguments were checked.

    Attributes:
        client: The client that watches it.
        create: Creates it, and returns it. Safe to cancel; what was created stays, and the guard handles a run whose
            create is then pending. Raises an `APIError` if it could not be created.
        to_ask_again: Returns what it takes to ask for it again, as plain JSON; raises an `InvalidRequestError` if that
            cannot be written down. None if it can't be asked for again.
    """

    client: RunClient[Any]
    create: Callable[[CreateGuard], Awaitable[Any]]
    to_ask_again: Callable[[], dict[str, Any]] | None = None


def followed_create(
    client: RunClient[Any], create: Callable[[CreateGuard], Awaitable[Any]]
) -> Callable[[CreateGuard], Awaitable[Any]]:
    """Return what creates a run, followed by the client's telemetry if it has one."""
    telemetry = telemetry_of(client)
    if telemetry is None:
        return create

    async def followed(guard: CreateGuard) -> Any:
        with telemetry.creating(client.dialect.name, open_watches_of(client).server) as note:
            run = await create(guard)
            note(run)
            return run

    return followed


def written_down(dialect: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a create as plain JSON, as it would be sent.

    Args:
        dialect: The name of the dialect of the run.
        arguments: The arguments; those of the request are its `parameters`.

    Raises:
        InvalidRequestError: They cannot be written down.
    """
    parameters = arguments["parameters"]
    if parameters.get("extra_headers"):
        raise InvalidRequestError(
            "extra_headers may be credentials, so a journal does not have them, and a run could not be asked for again "
            "after a crash: pass them to the client as default_headers"
        )
    plain: dict[str, Any] = msgspec.json.decode(
        json_body({**arguments, "dialect": dialect, "parameters": present(parameters)})
    )
    return plain
