"""A group of batches: what one call could not put into one batch, because of the limits of a file or of a queue.

It is a plain value: it sends nothing, and can be stored as JSON or pickled, and be watched again later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from asyncruns.errors import InvalidRequestError
from asyncruns.wire import Batch
from asyncruns.wire.codec import convert, parse
from asyncruns.wire.plain import Plain


class BatchPart(Plain, frozen=True, kw_only=True):
    """One part of a group.

    Attributes:
        input_file_id: The file with its requests.
        requests: Number of its requests.
        tokens: The estimate of its tokens; see `BatchGroup`.
        batch: The batch, as it was when it was created; None if it was not created yet.
        error: Why it could not be created; "" if it was, or if that was not tried.
        is_unsure: Whether the answer to its create was lost, so that it may run. A watch creates it only if the list of
            batches proves that it does not exist.
    """

    input_file_id: str
    requests: int
    tokens: int
    batch: Batch | None = None
    error: str = ""
    is_unsure: bool = False


class BatchGroup(Plain, frozen=True, kw_only=True):
    """The batches of one call of `client.batches.create(requests=...)`, in the order of the requests.

    `client.watch(group)` watches all of them, and creates those that are held back. `BatchGroup.of(group.to_dict())` is
    the group again.

    Attributes:
        parts: The parts. The file of each is at the server.
        endpoint: The endpoint of all requests.
        completion_window: The window of each batch.
        created_at: When the first file was created, in seconds since the epoch, by the server's clock.
        metadata: The metadata of each batch; None for none.
        output_expires_after: As given to `create`.
        max_enqueued_tokens: How many tokens the batches that have not ended may have together; None for no limit. They
            are estimated: for each request a quarter of the bytes of its body, and the limit of its output if it has
            one (`max_completion_tokens`, `max_output_tokens` or `max_tokens`).
        delete_input_files: Whether a watch deletes the file of a part when each of its requests is answered.
    """

    parts: tuple[BatchPart, ...]
    endpoint: str
    completion_window: str = "24h"
    created_at: float = 0.0
    metadata: dict[str, str] | None = None
    output_expires_after: dict[str, Any] | None = None
    max_enqueued_tokens: int | None = None
    delete_input_files: bool = False

    @classmethod
    def of(cls, group: object) -> BatchGroup:
        """Return the group that was stored with `to_dict` or `to_json`, or the group itself.

        Raises:
            InvalidRequestError: It is neither.
        """
        if isinstance(group, BatchGroup):
            return group
        try:
            found = (
                parse(group.encode() if isinstance(group, str) else group) if isinstance(group, str | bytes) else group
            )
            if not isinstance(found, Mapping):
                what = "a BatchGroup, its to_dict() or its to_json()"
                raise InvalidRequestError(f"Expected {what}; got {type(group).__name__}")
            return convert(dict(found), cls)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise InvalidRequestError(f"This is not the to_dict() or to_json() of a BatchGroup: {error}") from error

    @property
    def batches(self) -> list[Batch]:
        """The batches that were created."""
        return [part.batch for part in self.parts if part.batch is not None]

    @property
    def requests(self) -> int:
        """Number of requests of all parts."""
        return sum(part.requests for part in self.parts)

    def __repr__(self) -> str:
        return f"<BatchGroup of {len(self.parts)} parts, {len(self.batches)} created, {self.requests} requests>"


def with_part(
    group: BatchGroup, place: int, *, batch: Batch | None = None, error: str = "", is_unsure: bool = False
) -> BatchGroup:
    """Return a group with another batch, or another error, for one of its parts.

    Args:
        group: The group.
        place: The place of the part, from 0.
        batch: The batch.
        error: Why it could not be created.
        is_unsure: Whether it may have been created nevertheless.
    """
    part = replace(group.parts[place], batch=batch, error=error, is_unsure=is_unsure)
    return replace(group, parts=(*group.parts[:place], part, *group.parts[place + 1 :]))
