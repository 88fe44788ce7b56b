"""Creates batches from requests: writes and uploads their files, and creates a batch, or a group of them.

Everything is checked before anything is sent, and all files are uploaded before a batch is created: if a create fails,
the others can be created later from what is at the server. Nothing here creates a batch twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from msgspec import UNSET, Struct
from msgspec.structs import replace

from asyncruns.dialects.request_lines import quoted
from asyncruns.errors import (
    APIError,
    BadRequestError,
    BatchGroupError,
    InvalidRequestError,
    UnprocessableEntityError,
    with_sentence,
)
from asyncruns.limits import Limits
from asyncruns.resources.adoption import is_lost
from asyncruns.resources.batch_group import BatchGroup, BatchPart, with_part
from asyncruns.resources.options import json_body
from asyncruns.resources.request_files import FilePart, WrittenRequests, written
from asyncruns.wire import Batch, FileObject
from asyncruns.wire.common import epoch_seconds
from asyncruns.wire.shown_text import on_one_line

FILE_NAME: Final = "requests.jsonl"


class BatchSubmission(Struct, frozen=True, kw_only=True):
    """What a batch, or each batch of a group, is created with.

    Attributes:
        requests: The requests, in any form that `RequestLines` takes.
        endpoint: Their endpoint; None takes that of the first line.
        template: A group without parts, which has the other parameters of the batches.
        upload: Uploads a file, which is given by its name and its content.
        create: Creates the batch of a part of a group.
    """

    requests: Iterable[Any] | AsyncIterable[Any]
    endpoint: str | None
    template: BatchGroup
    upload: Callable[[Any], Awaitable[FileObject]]
    create: Callable[[BatchGroup, int], Awaitable[Batch]]

    async def submit(self) -> Batch | BatchGroup:
        """Create the batch, or the group of batches.

        A caller that is cancelled leaves what was created until then; the files can be found by their purpose.

        Raises:
            InvalidRequestError: A request cannot be part of the batch; nothing was sent.
            BatchGroupError: A batch of the group could not be created.
            APIError: A file could not be uploaded, or the only batch not be created; the message names the files.
        """
        _check_tokens(self.template.max_enqueued_tokens)
        async with written(self.requests, self.endpoint, self.template.max_enqueued_tokens) as found:
            group = await self._uploaded(found)
        if len(group.parts) == 1 and not has_options_of_groups(group):
            return await self._alone(group)
        return await self._created(group)

    async def _uploaded(self, found: WrittenRequests) -> BatchGroup:
        parts: list[BatchPart] = []
        created_at: float | None = None
        for file_part in found.parts:
            try:
                file = await self.upload((FILE_NAME, found.content_of(file_part), "application/jsonl"))
            except APIError as error:
                if parts:
                    names = _listed(part.input_file_id for part in parts)
                    error._extend(
                        f"No batch was created. Nothing uses the files {names}, uploaded before; delete them."
                    )
                raise
            created_at = created_at or epoch_seconds(file.created_at)
            parts.append(_part(file, file_part))
        return replace(self.template, parts=tuple(parts), endpoint=found.endpoint, created_at=created_at or 0.0)

    async def _alone(self, group: BatchGroup) -> Batch:
        try:
            return await self.create(group, 0)
        except APIError as error:
            file_id = on_one_line(group.parts[0].input_file_id)
            if isinstance(error, BadRequestError | UnprocessableEntityError):  # the same file would be refused again
                advice = f"The file {file_id} with the requests stays at the server: client.files.delete deletes it."
            else:
                advice = f"The requests are at the server, as the file {file_id}: pass it as input_file_id."
            error._extend(advice)
            raise

    async def _created(self, group: BatchGroup) -> BatchGroup:
        """Create the batches of a group, as far as its limit has room; the first one always has."""
        tokens = 0
        for place, part in enumerate(group.parts):
            tokens += part.tokens
            if group.max_enqueued_tokens is not None and tokens > group.max_enqueued_tokens:
                break
            try:
                batch = await self.create(group, place)
            except APIError as error:
                group = with_part(group, place, error=str(error), is_unsure=is_lost(error))
                raise BatchGroupError(_what_runs(group, place), group) from error
            group = with_part(group, place, batch=batch)
        return group


def check_parameters(endpoint: object, metadata: object, output_expires_after: object, limits: Limits | None) -> None:
    """Check what the server would refuse only when the requests are uploaded already.

    Args:
        endpoint: The endpoint; None for none.
        metadata: The metadata; None or UNSET for none.
        output_expires_after: Likewise.
        limits: The limits of the server; None checks none.

    Raises:
        InvalidRequestError: A parameter can't be sent.
    """
    if endpoint is not None and not (isinstance(endpoint, str) and endpoint.startswith("/")):
        raise InvalidRequestError(
            f'endpoint must be a path, such as "/v1/chat/completions"; got {quoted(endpoint)}. Nothing was sent.'
        )
    given = {"metadata": metadata, "output_expires_after": output_expires_after}
    for name, value in given.items():
        if value is not None and value is not UNSET and not isinstance(value, Mapping):
            raise InvalidRequestError(f"{name} must be a mapping; got {type(value).__name__}. Nothing was sent.")
    json_body(given)
    if limits is not None:
        limits.check(given)


def file_id_of(given: object) -> str:
    """Return the id of a file, which may be given as the object.

    Raises:
        InvalidRequestError: It is neither, such as a path.
    """
    file_id = getattr(given, "id", given)
    if not isinstance(file_id, str) or not file_id or "/" in file_id:
        raise InvalidRequestError(
            f"input_file_id must be the id of a file at the server; got {quoted(given)}. Upload the file first: "
            'await client.files.create(file=Path(...), purpose="batch"); or pass requests=.'
        )
    return file_id


def has_options_of_groups(group: BatchGroup) -> bool:
    """Return whether an option is set that only a group has, so that even one batch is a group."""
    return group.max_enqueued_tokens is not None or group.delete_input_files


def _part(file: FileObject, part: FilePart) -> BatchPart:
    return BatchPart(input_file_id=file.id, requests=part.requests, tokens=part.tokens)


def _listed(ids: Iterable[str]) -> str:
    return on_one_line(", ".join(ids))


def _check_tokens(most: object) -> None:
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise InvalidRequestError(f"max_enqueued_tokens must be 1 or more, or None for no limit; got {most!r}")


def _what_runs(group: BatchGroup, place: int) -> str:
    running = _listed(batch.id for batch in group.batches)
    so_far = f"The parts before it run, as {running}." if running else "No other part runs."
    what = f"Part {place + 1} of {len(group.parts)} could not be created: {group.parts[place].error}"
    return (
        f"{with_sentence(what, so_far)} The files of all parts are at the server: client.watch(error.group) creates "
        "the rest and watches all parts, and client.batches.cancel(error.group) cancels what runs."
    )
