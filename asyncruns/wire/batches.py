"""Batches of requests, on OpenAI's wire and on Anthropic's, with the files that hold requests and results.

https://platform.openai.com/docs/api-reference/batch and https://docs.anthropic.com/en/api/creating-message-batches
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from msgspec import UNSET

from asyncruns.wire.codec import Maybe, Object
from asyncruns.wire.common import Metadata, Time


class FileObject(Object, frozen=True, kw_only=True):
    """A file at the server."""

    id: str
    object: str = "file"
    bytes: Maybe[int] = UNSET
    created_at: Time = UNSET
    expires_at: Time = UNSET
    filename: Maybe[str] = UNSET
    purpose: Maybe[str] = UNSET
    status: Maybe[str] = UNSET
    status_details: Maybe[str] = UNSET


class BatchRequestCounts(Object, frozen=True, kw_only=True, gc=False):
    """How many requests of a batch there are; some servers send null while they validate the file."""

    total: Maybe[int] = UNSET
    completed: Maybe[int] = UNSET
    failed: Maybe[int] = UNSET


class BatchError(Object, frozen=True, kw_only=True, gc=False):
    """Why a batch failed; `line` is the line of the input file, from 1, if one is at fault."""

    code: Maybe[str] = UNSET
    message: Maybe[str] = UNSET
    param: Maybe[str] = UNSET
    line: Maybe[int] = UNSET


class BatchErrors(Object, frozen=True, kw_only=True):
    """The errors of a batch that failed."""

    data: Maybe[list[BatchError]] = UNSET
    object: str = "list"


class Batch(Object, frozen=True, kw_only=True):
    """A batch of OpenAI's wire.

    All fields except `id` and `status` may be absent (UNSET) or null (None). Some servers send "" for a file that does
    not exist; all of these are false.
    """

    id: str
    status: str
    object: str = "batch"
    endpoint: Maybe[str] = UNSET
    model: Maybe[str] = UNSET
    errors: Maybe[BatchErrors] = UNSET
    input_file_id: Maybe[str] = UNSET
    completion_window: Maybe[str] = UNSET
    output_file_id: Maybe[str] = UNSET
    error_file_id: Maybe[str] = UNSET
    created_at: Time = UNSET
    in_progress_at: Time = UNSET
    expires_at: Time = UNSET
    finalizing_at: Time = UNSET
    completed_at: Time = UNSET
    failed_at: Time = UNSET
    expired_at: Time = UNSET
    cancelling_at: Time = UNSET
    cancelled_at: Time = UNSET
    request_counts: Maybe[BatchRequestCounts] = UNSET
    metadata: Metadata = UNSET
    usage: Maybe[dict[str, Any]] = UNSET


class MessageBatchRequestCounts(Object, frozen=True, kw_only=True, gc=False):
    """How many requests of a message batch are in which state."""

    processing: Maybe[int] = UNSET
    succeeded: Maybe[int] = UNSET
    errored: Maybe[int] = UNSET
    canceled: Maybe[int] = UNSET
    expired: Maybe[int] = UNSET


class MessageBatch(Object, frozen=True, kw_only=True, tag_field="type", tag="message_batch"):
    """A batch of Anthropic's wire. Its times are ISO 8601."""

    type: ClassVar[Literal["message_batch"]] = "message_batch"
    id: str
    processing_status: str
    request_counts: Maybe[MessageBatchRequestCounts] = UNSET
    created_at: Time = UNSET
    expires_at: Time = UNSET
    ended_at: Time = UNSET
    cancel_initiated_at: Time = UNSET
    archived_at: Time = UNSET
    results_url: Maybe[str] = UNSET


class DeletedMessageBatch(Object, frozen=True, kw_only=True, gc=False):
    """The answer to the deletion of a message batch."""

    id: str
    type: str = "message_batch_deleted"
