"""Batches on OpenAI's wire: https://platform.openai.com/docs/api-reference/batch

The module sends no request a second time that may have taken effect: `adoption.py` finds the batch of a lost answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Unpack

import anyio
from msgspec import UNSET
from msgspec.structs import replace

from asyncruns._loop import loop_time
from asyncruns.dialects.batches import BatchDialect, is_file_not_there
from asyncruns.errors import APIStatusError
from asyncruns.http import Request
from asyncruns.lifecycle import RunRef
from asyncruns.limits import Limits
from asyncruns.resources.adoption import NEWEST, Creation, with_nonce
from asyncruns.resources.base import PageCall, Resource, Server
from asyncruns.resources.batch_client import BatchClient
from asyncruns.resources.options import CallOptions
from asyncruns.watch.options import WatchOptions
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.to_outcome import watch_to_outcome
from asyncruns.wire import Batch, Maybe

FILE_LAG_S: Final = 10.0  # how long a server may not find a file that was just uploaded
FILE_PAUSE_S: Final = 0.5  # the first pause before the create is repeated; it doubles
FILE_LONGEST_PAUSE_S: Final = 2.0

_LIMITS: Final = Limits()


class Batches(Resource):
    """`client.batches`. Every method also takes the `CallOptions`."""

    def __init__(self, server: Server) -> None:
        super().__init__(replace(server, dialect=BatchDialect()))

    @cached_property
    def alone(self) -> BatchClient[Batch]:
        """The client for watches of batches, such as `RunWatcher(client.batches.alone, batch)`. Can be shared."""
        return BatchClient(self._server, BatchDialect())

    async def create(
        self,
        *,
        input_file_id: str,
        endpoint: str,
        completion_window: str = "24h",
        metadata: Maybe[Mapping[str, str]] = UNSET,
        output_expires_after: Maybe[Mapping[str, Any]] = UNSET,
        **options: Unpack[CallOptions],
    ) -> Batch:
        """Create a batch of the requests in a file that was uploaded.

        The batch gets a pair `asyncruns_nonce` in its metadata, unless these have 16 pairs already. If the answer is
        lost, the batch is found by it in the list; it is created again only if it is certainly not there. While the
        server does not find the file, the create is repeated for 10 s: the file may just have been uploaded.

        Safe to cancel; the batch may then exist, and go on and cost.

        Args:
            input_file_id: The file, uploaded with the purpose "batch".
            endpoint: The path that the requests are for, such as "/v1/chat/completions" or "/v1/responses".
            completion_window: How long the server may take. OpenAI only has "24h".
            metadata: Up to 16 pairs; keys up to 64 characters, values up to 512.
            output_expires_after: When the server deletes the files of results, such as
                `{"anchor": "created_at", "seconds": 86400}`.

        Raises:
            InvalidRequestError: A parameter can't be sent.
            BadRequestError, NotFoundError: The server refused a parameter, or has no such file.
            APIError: The batch could not be created, or it is not known whether it was; the message says so.
        """
        body = {
            "input_file_id": input_file_id,
            "endpoint": endpoint,
            "completion_window": completion_window,
            "metadata": metadata,
            "output_expires_after": output_expires_after,
        }
        return await self._create(body, options)

    async def retrieve(self, batch_id: str, **options: Unpack[CallOptions]) -> Batch:
        """Fetch a batch. Safe to cancel.

        Raises:
            NotFoundError: There is no such batch, or it is of another project.
            APIError: The server did not answer.
        """
        return await self._ask(Batch, "GET", "batches", batch_id, options=options)

    def list(
        self, *, after: str | None = None, limit: int | None = None, **options: Unpack[CallOptions]
    ) -> PageCall[Batch]:
        """List the batches of the project: `await` for one page, `async for` for all. Safe to cancel.

        Args:
            after: Id of the batch before the page. The newest batches come first.
            limit: Batches per page, 1 to 100; the server's default is 20.
        """
        return self._list(Batch, "batches", query={"after": after, "limit": limit}, options=options)

    async def cancel(self, batch_id: str, **options: Unpack[CallOptions]) -> Batch:
        """Request the cancellation of a batch.

        It is `cancelling` for up to 10 minutes then, and may have results of the requests that had ended. Safe to
        cancel; the cancellation may then take effect at the server or not.

        Raises:
            BadRequestError, ConflictError: The batch has ended.
            APIError: There is no such batch, or the server did not answer.
        """
        return await self._ask(Batch, "POST", "batches", batch_id, "cancel", options=options)

    async def watch(self, batch: Batch | RunRef | str, **options: Unpack[WatchOptions]) -> AnyOutcome[Batch]:
        """Watch a batch to its end, which may take hours. `client.watch(batch)` is the same.

        Safe to cancel: the batch goes on at the server, or is cancelled with `on_exit="cancel"`.

        Args:
            batch: The batch, its id, or a `RunRef`.
            **options: See `RunWatcher`. By default a batch is polled after 2 s at first, and then after some 5 % of its
                age, at most every 5 minutes; the watch waits until an hour after its expiry, and outlasts an hour in
                which the server does not answer.

        Raises:
            InvalidRequestError: It is not a batch, or an option is not valid.
        """
        client = self.alone
        run = RunRef(client.dialect.name, (batch,)) if isinstance(batch, str) else batch
        return await watch_to_outcome(client, run, options)

    async def _create(self, body: Mapping[str, Any], options: CallOptions) -> Batch:
        """Create a batch once: adopt it after a lost answer, and wait for its file."""
        nonce = None
        # Metadata in extra_body would replace ours, and the nonce with it, so there is none.
        if "metadata" not in (options.get("extra_body") or {}):
            metadata, nonce = with_nonce(body["metadata"], _LIMITS.metadata_pairs)
            body = {**body, "metadata": metadata}
        request = self._request("POST", "batches", body=body, options=options)
        file_id = {**body, **(options.get("extra_body") or {})}["input_file_id"]
        return await Creation(
            self._server,
            lambda: self._send_when_file_is_there(request),
            Batch,
            ("batches",),
            nonce=nonce,
            is_like_ours=lambda batch: not batch.input_file_id or batch.input_file_id == file_id,
            raw=self._raw,
            options=options,
            query={"limit": NEWEST},
        ).attempt()

    async def _send_when_file_is_there(self, request: Request) -> Batch:
        until, pause = loop_time() + FILE_LAG_S, FILE_PAUSE_S
        while True:
            try:
                return await self._send(request, Batch)
            except APIStatusError as error:
                if not is_file_not_there(error) or loop_time() + pause > until:
                    raise
            await anyio.sleep(pause)
            pause = min(2 * pause, FILE_LONGEST_PAUSE_S)
