"""`asyncruns batch submit`: create a batch of the requests in a file, and print its id.

All lines are checked before anything is sent. What is too large for one batch becomes several, with an id each.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from asyncruns.cli.batch_servers import connected
from asyncruns.cli.output import complain, counted, say, say_json
from asyncruns.cli.request_file import RequestFile
from asyncruns.client.client import Client
from asyncruns.errors import BatchGroupError, ConfigurationError, InvalidRequestError
from asyncruns.resources.batch_group import BatchGroup
from asyncruns.wire import Batch, MessageBatch
from asyncruns.wire.names import BATCH, MESSAGE_BATCH


async def submit_command(options: argparse.Namespace) -> int:
    """Create the batch, print the ids, and return the exit code."""
    file = RequestFile(options.file)
    async with aclosing(file.requests()) as requests:
        first = await anext(requests, None)
        if first is None:
            raise InvalidRequestError(f"{options.file} has no requests. Nothing was sent.")
        wire = MESSAGE_BATCH if "params" in first else BATCH
        _check_options(options, wire, first)
        async with connected(options, {wire}) as clients:
            create = _create_message_batch if wire == MESSAGE_BATCH else _create_batch
            try:
                created = await create(clients[wire], _with_first(first, requests), options)
            except InvalidRequestError as error:
                raise file.named(error) from error
            except BatchGroupError as error:
                _print(error.group.batches, options)
                raise
    _print(created, options)
    if not options.json:
        ids = " ".join(batch.id for batch in created)
        complain(f"{counted(file.count, 'request')} submitted; to watch: asyncruns batch watch {ids}")
    return 0


def _check_options(options: argparse.Namespace, wire: str, first: dict[str, Any]) -> None:
    if wire == MESSAGE_BATCH and (options.endpoint or options.metadata):
        raise ConfigurationError(
            "The file has requests with `params`, for a message batch, which has no endpoint and no metadata: leave "
            "out --endpoint and --metadata"
        )
    if wire == BATCH and not options.endpoint and not first.get("url"):
        raise ConfigurationError("The first request has no url: pass --endpoint, such as /v1/chat/completions")


async def _with_first(first: dict[str, Any], others: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[dict[str, Any]]:
    yield first
    async for request in others:
        yield request


async def _create_batch(
    client: Client, requests: AsyncGenerator[dict[str, Any]], options: argparse.Namespace
) -> list[Batch]:
    metadata = dict(options.metadata)
    given: dict[str, Any] = {"metadata": metadata} if metadata else {}
    created = await client.batches.create(requests=requests, endpoint=options.endpoint, **given)
    return created.batches if isinstance(created, BatchGroup) else [created]


async def _create_message_batch(
    client: Client, requests: AsyncGenerator[dict[str, Any]], options: argparse.Namespace
) -> list[MessageBatch]:
    # They are sent in one body, so they are held in any case.
    return [await client.message_batches.create(requests=[request async for request in requests])]


def _print(batches: list[Batch] | list[MessageBatch], options: argparse.Namespace) -> None:
    for batch in batches:
        if options.json:
            say_json({"event": "created", "batch": batch.id, "file": options.file})
        else:
            say(batch.id)
