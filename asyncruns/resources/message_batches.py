"""Batches on Anthropic's wire: https://docs.anthropic.com/en/api/creating-message-batches

The module never repeats a create whose answer was lost: this API keeps no metadata by which its batch could be found.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from contextlib import aclosing
from functools import cached_property
from typing import Any, Final, Unpack

import msgspec
from msgspec.structs import replace

from asyncruns.dialects.message_batches import MessageBatchDialect
from asyncruns.dialects.request_lines import custom_id_of, encoded_request, quoted, refused_request
from asyncruns.dialects.result_lines import BatchResult
from asyncruns.errors import APIError, InvalidRequestError
from asyncruns.lifecycle import RunRef
from asyncruns.resources.adoption import is_lost
from asyncruns.resources.base import PageCall, Resource, Server
from asyncruns.resources.batch_client import BatchClient
from asyncruns.resources.batch_results import message_batch_results, no_requests
from asyncruns.resources.options import CallOptions
from asyncruns.watch.options import WatchOptions
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.reconciliation import each_of
from asyncruns.watch.to_outcome import watch_to_outcome
from asyncruns.wire import DeletedMessageBatch, MessageBatch

LONGEST_PAGE: Final = 1000  # https://docs.anthropic.com/en/api/listing-message-batches

_PATH: Final = ("messages", "batches")


class MessageBatches(Resource):
    """`client.message_batches`. Every method also takes the `CallOptions`."""

    _tools_limit = None

    def __init__(self, server: Server) -> None:
        limits = None if server.limits is None else replace(server.limits, page=LONGEST_PAGE)
        super().__init__(replace(server, dialect=MessageBatchDialect(), limits=limits))

    @cached_property
    def alone(self) -> BatchClient[MessageBatch]:
        """The client for watches of these batches. Can be shared."""
        return BatchClient(self._server, MessageBatchDialect(), message_batch_results, no_requests)

    async def create(
        self, *, requests: Iterable[Any] | AsyncIterable[Any], **options: Unpack[CallOptions]
    ) -> MessageBatch:
        """Create a batch of requests for messages. They are sent in one body, which is held in memory.

        Safe to cancel; the batch may then exist, and go on and cost.

        Args:
            requests: Mappings of `custom_id`, which no other request has, and `params`, those of a message; or pairs of
                both, such as `outcome.unanswered(requests)`. Anthropic takes up to 100,000 requests and 256 MB.

        Raises:
            InvalidRequestError: A request can't be sent; the message has its number. Nothing was sent.
            BadRequestError: The server refused a request.
            APIError: The batch could not be created, or it is not known whether it was; the message says so.
        """
        body = {"requests": await _checked(requests)}
        try:
            return await self._ask(MessageBatch, "POST", *_PATH, body=body, options=options)
        except APIError as error:
            if not is_lost(error):
                raise
            raise error._extend(
                "The batch may have been created: it keeps no metadata to find it by, so check "
                "client.message_batches.list(), newest first, before you create it again."
            ) from error.__cause__

    async def retrieve(self, message_batch_id: str, **options: Unpack[CallOptions]) -> MessageBatch:
        """Fetch a batch. Safe to cancel.

        Raises:
            NotFoundError: There is no such batch, or it is of another workspace.
            APIError: The server did not answer.
        """
        return await self._ask(MessageBatch, "GET", *_PATH, message_batch_id, options=options)

    def list(
        self,
        *,
        after_id: str | None = None,
        before_id: str | None = None,
        limit: int | None = None,
        **options: Unpack[CallOptions],
    ) -> PageCall[MessageBatch]:
        """List the batches of the workspace: `await` for one page, `async for` for all. Safe to cancel.

        Args:
            after_id: Id of the batch before the page. The newest batches come first.
            before_id: Id of the batch after the page; then there is only this page.
            limit: Batches per page, 1 to 1000; the server's default is 20.
        """
        query = {"after_id": after_id, "before_id": before_id, "limit": limit}
        return self._list(MessageBatch, *_PATH, query=query, options=options, suffix="_id")

    async def cancel(self, message_batch_id: str, **options: Unpack[CallOptions]) -> MessageBatch:
        """Request the cancellation of a batch. The requests that had ended have results.

        Safe to cancel; the cancellation may then take effect at the server or not.

        Raises:
            BadRequestError: The batch has ended.
            APIError: There is no such batch, or the server did not answer.
        """
        return await self._ask(MessageBatch, "POST", *_PATH, message_batch_id, "cancel", options=options)

    async def delete(self, message_batch_id: str, **options: Unpack[CallOptions]) -> DeletedMessageBatch:
        """Delete a batch that has ended, with its results. Safe to cancel; it may then be deleted or not.

        Raises:
            BadRequestError: The batch has not ended: cancel it first.
            APIError: There is no such batch, the server deletes none (405), or it did not answer.
        """
        return await self._ask(DeletedMessageBatch, "DELETE", *_PATH, message_batch_id, options=options)

    def results(self, message_batch: MessageBatch | str, **options: Unpack[CallOptions]) -> AsyncGenerator[BatchResult]:
        """Iterate over the results of a batch that has ended; `Outcome.results` describes how.

        Args:
            message_batch: The batch, or its id.

        Raises:
            InvalidRequestError: It has not ended; while iterating.
            APIError: The results could not be fetched; while iterating.
        """
        given: object = message_batch
        is_ours = isinstance(given, MessageBatch | str)
        return message_batch_results(self._server, message_batch if is_ours else RunRef.of(given).ids[-1], options)

    async def watch(
        self, message_batch: MessageBatch | RunRef | str, **options: Unpack[WatchOptions]
    ) -> AnyOutcome[MessageBatch]:
        """Watch a batch to its end, as `client.batches.watch` does. `client.watch(message_batch)` is the same.

        Safe to cancel: the batch goes on at the server, or is cancelled with `on_exit="cancel"`.

        Args:
            message_batch: The batch, its id, or a `RunRef`.
            **options: See `RunWatcher` and `client.batches.watch`.

        Raises:
            InvalidRequestError: It is not a batch, or an option is not valid.
        """
        client = self.alone
        run = RunRef(client.dialect.name, (message_batch,)) if isinstance(message_batch, str) else message_batch
        return await watch_to_outcome(client, run, options)


async def _checked(requests: Iterable[Any] | AsyncIterable[Any]) -> list[msgspec.Raw]:
    """Return the requests, as JSON.

    Raises:
        InvalidRequestError: There is none, or one lacks its `custom_id` or `params`, or has the id of another.
    """
    checked: list[msgspec.Raw] = []
    numbers: dict[str, int] = {}
    async with aclosing(each_of(requests)) as each:
        async for request in each:
            number = len(checked) + 1
            custom_id = custom_id_of(request, number)
            named = {**request} if isinstance(request, Mapping) else {"custom_id": custom_id, "params": request[1]}
            if "custom_id" not in named or not isinstance(named.get("params"), Mapping):
                raise refused_request(number, "must be a mapping with custom_id and params, or a pair of both")
            if (first := numbers.setdefault(custom_id, number)) != number:
                raise refused_request(number, f"has the same custom_id {quoted(custom_id)} as request {first}")
            checked.append(msgspec.Raw(encoded_request(named, number)))
    if not checked:
        raise InvalidRequestError("There are no requests: a batch needs at least one. Nothing was sent.")
    return checked
