"""Batches on OpenAI's wire: https://platform.openai.com/docs/api-reference/batch

The module sends no request a second time that may have taken effect: `adoption.py` finds the batch of a lost answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Final, Literal, Unpack, overload

import anyio
from msgspec import UNSET
from msgspec.structs import replace

from asyncruns._loop import loop_time
from asyncruns.dialects.batches import BatchDialect, is_file_not_there
from asyncruns.dialects.result_lines import BatchResult
from asyncruns.errors import APIError, APIStatusError, BadRequestError, ConflictError, InvalidRequestError
from asyncruns.http import Request
from asyncruns.lifecycle import RunRef
from asyncruns.limits import Limits
from asyncruns.resources.adoption import NEWEST, Creation, with_nonce
from asyncruns.resources.base import PageCall, Resource, Server
from asyncruns.resources.batch_client import BatchClient
from asyncruns.resources.batch_group import BatchGroup, BatchPart, with_part
from asyncruns.resources.batch_results import batch_requests, batch_results
from asyncruns.resources.batch_submission import (
    BatchSubmission,
    check_parameters,
    file_id_of,
    has_options_of_groups,
)
from asyncruns.resources.files import Files
from asyncruns.resources.group_outcome import GroupOutcome
from asyncruns.resources.group_search import batches_of_files
from asyncruns.resources.options import CallOptions
from asyncruns.watch.options import WatchOptions
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.to_outcome import watch_to_outcome
from asyncruns.wire import Batch, FileObject, Maybe
from asyncruns.wire.common import epoch_seconds

FILE_LAG_S: Final = 10.0  # how long a server may not find a file that was just uploaded
FILE_PAUSE_S: Final = 0.5  # the first pause before the create is repeated; it doubles
FILE_LONGEST_PAUSE_S: Final = 2.0

_LIMITS: Final = Limits()


class Batches(Resource):
    """`client.batches`. Every method also takes the `CallOptions`."""

    def __init__(
        self,
        server: Server,
        watch_group: Callable[[Batches, BatchGroup, WatchOptions], Awaitable[GroupOutcome]] | None = None,
    ) -> None:
        super().__init__(replace(server, dialect=BatchDialect()))
        self._files = Files(self._server)
        self._watch_group = watch_group  # a group is watched by a fleet, whose room comes after this one
        self._cancelled_files: set[str] = set()  # the input files of groups that were cancelled: nothing more of them

    @cached_property
    def alone(self) -> BatchClient[Batch]:
        """The client for watches of batches, such as `RunWatcher(client.batches.alone, batch)`. Can be shared."""
        return BatchClient(self._server, BatchDialect(), batch_results, batch_requests)

    @overload
    async def create(
        self,
        *,
        input_file_id: str | FileObject,
        endpoint: str,
        completion_window: str = "24h",
        metadata: Maybe[Mapping[str, str]] = UNSET,
        output_expires_after: Maybe[Mapping[str, Any]] = UNSET,
        **options: Unpack[CallOptions],
    ) -> Batch: ...

    @overload
    async def create(
        self,
        *,
        requests: Iterable[Any] | AsyncIterable[Any],
        endpoint: str | None = None,
        completion_window: str = "24h",
        metadata: Maybe[Mapping[str, str]] = UNSET,
        output_expires_after: Maybe[Mapping[str, Any]] = UNSET,
        max_enqueued_tokens: int,
        delete_input_files: bool = False,
        **options: Unpack[CallOptions],
    ) -> BatchGroup: ...

    @overload
    async def create(
        self,
        *,
        requests: Iterable[Any] | AsyncIterable[Any],
        endpoint: str | None = None,
        completion_window: str = "24h",
        metadata: Maybe[Mapping[str, str]] = UNSET,
        output_expires_after: Maybe[Mapping[str, Any]] = UNSET,
        max_enqueued_tokens: int | None = None,
        delete_input_files: Literal[True],
        **options: Unpack[CallOptions],
    ) -> BatchGroup: ...

    @overload
    async def create(
        self,
        *,
        requests: Iterable[Any] | AsyncIterable[Any],
        endpoint: str | None = None,
        completion_window: str = "24h",
        metadata: Maybe[Mapping[str, str]] = UNSET,
        output_expires_after: Maybe[Mapping[str, Any]] = UNSET,
        max_enqueued_tokens: int | None = None,
        delete_input_files: bool = False,
        **options: Unpack[CallOptions],
    ) -> Batch | BatchGroup: ...

    async def create(
        self,
        *,
        input_file_id: str | FileObject | None = None,
        requests: Iterable[Any] | AsyncIterable[Any] | None = None,
        endpoint: str | None = None,
        completion_window: str = "24h",
        metadata: Maybe[Mapping[str, str]] = UNSET,
        output_expires_after: Maybe[Mapping[str, Any]] = UNSET,
        max_enqueued_tokens: int | None = None,
        delete_input_files: bool = False,
        **options: Unpack[CallOptions],
    ) -> Batch | BatchGroup:
        """Create a batch of requests, or of the requests in a file that was uploaded.

        Requests are written to a temporary file as they come, checked, and uploaded; they are never held in memory.
        Nothing is sent before all of them were checked. More than 50,000 requests, or 200 MB, become a `BatchGroup`,
        which `client.watch` takes as well.

        A batch gets a pair `asyncruns_nonce` in its metadata, unless these have 16 pairs already. If the answer is
        lost, the batch is found by it in the list; it is created again only if it is certainly not there. While the
        server does not find the file, the create is repeated for 10 s: the file may just have been uploaded.

        Safe to cancel; files and batches may then exist, and batches go on and cost.

        Args:
            input_file_id: The file, or its id; uploaded with the purpose "batch". Needs `endpoint`.
            requests: In place of a file: an iterable, async or not, of bodies as dicts, of pairs `(custom_id, body)`,
                or of whole lines `{custom_id, method, url, body}`. A body without a custom id gets "request-1" and so
                on, by its number. All have one endpoint and one model.
            endpoint: The path that the requests are for, such as "/v1/chat/completions" or "/v1/responses"; may be
                omitted if the requests are lines that have it.
            completion_window: How long the server may take. OpenAI only has "24h".
            metadata: Up to 16 pairs; keys up to 64 characters, values up to 512.
            output_expires_after: When the server deletes the files of results, such as
                `{"anchor": "created_at", "seconds": 86400}`.
            max_enqueued_tokens: With `requests`: how many tokens may be in the server's queue at once, as far as this
                call is concerned, as batches fail if there are too many. Makes a `BatchGroup` whose parts each fit; its
                watch creates the parts that have to wait. See `BatchGroup` for how tokens are estimated.
            delete_input_files: With `requests`: makes a `BatchGroup` whose watch deletes the input file of each part
                when the counts of its batch say that all its requests are answered. Otherwise `unanswered()` still
                needs it; it also does if the server then lost a result, and raises an error for that part.
            **options: The `CallOptions`. They are not kept in a `BatchGroup`: what its watch creates is sent without.

        Raises:
            InvalidRequestError: A parameter or a request can't be sent; the message has the number of the request.
            BatchGroupError: Not all batches of a group could be created; it holds the group.
            BadRequestError, NotFoundError: The server refused a parameter, or has no such file.
            APIError: The batch could not be created, or it is not known whether it was; the message says so.
        """
        if (input_file_id is None) is (requests is None):
            raise InvalidRequestError("Pass either input_file_id= or requests=")
        check_parameters(endpoint, metadata, output_expires_after, self._server.limits)
        template = BatchGroup(
            parts=(),
            endpoint="",
            completion_window=completion_window,
            metadata=dict(metadata) if metadata else None,
            output_expires_after=dict(output_expires_after) if output_expires_after else None,
            max_enqueued_tokens=max_enqueued_tokens,
            delete_input_files=delete_input_files,
        )
        if requests is not None:
            return await self._submission(requests, endpoint, template, options).submit()
        if endpoint is None or has_options_of_groups(template):
            raise InvalidRequestError(
                "input_file_id= needs endpoint=; max_enqueued_tokens= and delete_input_files= are for requests="
            )
        body = {
            "input_file_id": file_id_of(input_file_id),
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

    @overload
    async def cancel(self, batch_id: str, **options: Unpack[CallOptions]) -> Batch: ...

    @overload
    async def cancel(self, batch_id: BatchGroup, **options: Unpack[CallOptions]) -> BatchGroup: ...

    async def cancel(self, batch_id: str | BatchGroup, **options: Unpack[CallOptions]) -> Batch | BatchGroup:
        """Request the cancellation of a batch, or of all batches of a group that have not ended.

        It is `cancelling` for up to 10 minutes then, and may have results of the requests that had ended. The batches
        of a group are also searched in the list, as a watch may have created some after the group was stored. A watch
        of the group through this client creates no further parts; another one stops when it sees that a part was
        cancelled. Safe to cancel; the cancellation may then take effect at the server or not.

        Raises:
            BadRequestError, ConflictError: The batch has ended. Not raised for a group.
            APIError: There is no such batch, or the server did not answer. The other batches of a group are cancelled.
        """
        if isinstance(batch_id, BatchGroup):
            return await self._cancel_parts(batch_id, options)
        return await self._ask(Batch, "POST", "batches", batch_id, "cancel", options=options)

    def results(self, batch: Batch | str, **options: Unpack[CallOptions]) -> AsyncGenerator[BatchResult]:
        """Iterate over the results of a batch that has ended; `Outcome.results` describes how.

        Args:
            batch: The batch, or its id.

        Raises:
            InvalidRequestError: It has not ended; while iterating.
            APIError: The results could not be fetched; while iterating.
        """
        given: object = batch
        is_ours = isinstance(given, Batch | str)
        return batch_results(self._server, batch if is_ours else RunRef.of(given).ids[-1], options)

    @overload
    async def watch(self, batch: Batch | RunRef | str, **options: Unpack[WatchOptions]) -> AnyOutcome[Batch]: ...

    @overload
    async def watch(self, batch: BatchGroup, **options: Unpack[WatchOptions]) -> GroupOutcome: ...

    async def watch(
        self, batch: Batch | BatchGroup | RunRef | str, **options: Unpack[WatchOptions]
    ) -> AnyOutcome[Batch] | GroupOutcome:
        """Watch a batch, or all of a group, to its end, which may take hours. `client.watch(batch)` is the same.

        Of a group, the parts that are held back are created as others end: those for which `max_enqueued_tokens` has no
        room, and those that failed because too many tokens were enqueued; if none is left to wait for, after 1, 2, 5,
        10 and 20 minutes. A part that was cancelled is the end of that: parts not created then are not created at all.
        Watch a group once at a time. A `timeout` is for all parts together.

        Safe to cancel: the batch goes on at the server, or is cancelled with `on_exit="cancel"`. When the group is
        watched again, also by another process, the batches that were created meanwhile are found in the list.

        Args:
            batch: The batch, its id, a `RunRef`, or a group.
            **options: See `RunWatcher`. By default a batch is polled after 2 s at first, and then after some 5 % of its
                age, at most every 5 minutes; the watch waits until an hour after its expiry, and outlasts an hour in
                which the server does not answer.

        Raises:
            InvalidRequestError: It is not a batch, or an option is not valid.
        """
        if isinstance(batch, BatchGroup):
            if self._watch_group is None:
                raise InvalidRequestError("These batches belong to no client, so they can't watch a group")
            return await self._watch_group(self, batch, options)
        run = RunRef(self.alone.dialect.name, (batch,)) if isinstance(batch, str) else batch
        return await watch_to_outcome(self.alone, run, options)

    def _submission(
        self,
        requests: Iterable[Any] | AsyncIterable[Any],
        endpoint: str | None,
        template: BatchGroup,
        options: CallOptions,
    ) -> BatchSubmission:
        if self._raw:
            raise InvalidRequestError("requests= sends several requests, so with_raw_response has no answer to return")
        of_files = options.copy()
        of_files.pop("extra_body", None)
        return BatchSubmission(
            requests=requests,
            endpoint=endpoint,
            template=template,
            upload=lambda file: self._files.create(file=file, purpose="batch", **of_files),
            create=lambda group, place: self._create_part(group, place, options),
        )

    async def _create_part(self, group: BatchGroup, place: int, options: CallOptions | None = None) -> Batch:
        """Create the batch of a part of a group."""
        body = {
            "input_file_id": group.parts[place].input_file_id,
            "endpoint": group.endpoint,
            "completion_window": group.completion_window,
            "metadata": UNSET if group.metadata is None else group.metadata,
            "output_expires_after": UNSET if group.output_expires_after is None else group.output_expires_after,
        }
        return await self._create(body, options or {})

    async def _cancel_parts(self, group: BatchGroup, options: CallOptions) -> BatchGroup:
        if self._raw:
            raise InvalidRequestError("A group is cancelled by several requests, so with_raw_response has no answer")
        file_ids = {part.input_file_id for part in group.parts}
        self._cancelled_files |= file_ids
        failed: APIError | None = None
        of_files: Mapping[str, list[Batch]] = {}
        try:
            of_files = (await batches_of_files(self.list, file_ids, group.created_at)).of_files
        except APIError as error:
            failed = error
        for place, part in enumerate(group.parts):
            newest: Batch | None = None
            for batch in _oldest_first(part, of_files.get(part.input_file_id, [])):
                try:
                    newest = await self._cancel_one(batch, options)
                except APIError as error:
                    failed = failed or error
            if newest is not None:
                is_known = part.batch is not None and part.batch.id == newest.id
                group = with_part(group, place, batch=newest, is_unsure=part.is_unsure and is_known)
        if failed is not None:
            raise failed
        return group

    async def _cancel_one(self, batch: Batch, options: CallOptions | None = None) -> Batch:
        """Cancel a batch that may have ended, and return it."""
        try:
            return await self.cancel(batch.id, **(options or {}))
        except (BadRequestError, ConflictError):  # it has ended
            return batch

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


def _oldest_first(part: BatchPart, listed: list[Batch]) -> list[Batch]:
    """Return the batches of a part, as the list shows them; it may not show the one that is known.

    Args:
        part: The part.
        listed: The batches of its file in the list, the newest first.
    """
    known = [] if part.batch is None or any(part.batch.id == batch.id for batch in listed) else [part.batch]
    return sorted([*known, *reversed(listed)], key=lambda batch: epoch_seconds(batch.created_at) or 0.0)
