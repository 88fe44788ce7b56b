"""Clients for commands on runs of several kinds: one for each wire. A key goes only to the URL that it was set for."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from asyncruns.cli.arguments import version_of
from asyncruns.cli.connect import connect, connect_anthropic
from asyncruns.client.client import Client
from asyncruns.wire.names import BATCH, MESSAGE_BATCH

_MESSAGE_BATCH_PREFIX: Final = "msgbatch_"


def wire_of(batch_id: str) -> str:
    """Return the name of the wire that a batch is on, by its id."""
    return MESSAGE_BATCH if batch_id.startswith(_MESSAGE_BATCH_PREFIX) else BATCH


@asynccontextmanager
async def connected(options: argparse.Namespace, wires: Iterable[str]) -> AsyncGenerator[Mapping[str, Client]]:
    """Open a client for each of these wires, and close all at the end.

    Raises:
        ConfigurationError: No server is configured for a wire, or the options are not valid.
    """
    async with AsyncExitStack() as stack:
        clients = {wire: client_for(options, wire) for wire in sorted(wires)}
        for client in clients.values():
            await stack.enter_async_context(client)
        yield clients


def client_for(options: argparse.Namespace, wire: str) -> Client:
    """Make the client for a wire from the command line, or from the environment if no URL is given.

    Raises:
        ConfigurationError: No server is configured for it, or the options are not valid.
    """
    make = connect_anthropic if wire == MESSAGE_BATCH else connect
    return make(
        options.base_url,
        options.api_key,
        auth_header=options.auth_header,
        headers=dict(options.header),
        default_query=dict(options.query),
        version=version_of(options),
    )


class ClientsByNeed:
    """The clients that runs need: one for OpenAI's wires, one for message batches, made when one is needed."""

    def __init__(self, options: argparse.Namespace, stack: AsyncExitStack) -> None:
        self._options = options
        self._stack = stack
        self._made: dict[bool, Client] = {}
        self._making = asyncio.Lock()

    async def of(self, dialect: str) -> Client:
        """Return the client for the runs of a dialect.

        Raises:
            ConfigurationError: No server is configured for it.
        """
        is_anthropic = dialect == MESSAGE_BATCH
        if is_anthropic in self._made:
            return self._made[is_anthropic]
        async with self._making:
            if is_anthropic not in self._made:
                client = client_for(self._options, dialect)
                self._made[is_anthropic] = await self._stack.enter_async_context(client)
        return self._made[is_anthropic]

    def made(self, dialect: str) -> Client:
        """Return the client that `of` has returned before."""
        return self._made[dialect == MESSAGE_BATCH]


def batches_of(client: Client, wire: str) -> Any:
    """Return the client's operations on the batches of a wire; those used here have the same names on both."""
    return client.message_batches if wire == MESSAGE_BATCH else client.batches
