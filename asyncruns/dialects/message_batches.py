"""Batches of Anthropic's wire: `GET /messages/batches/{id}`, as Anthropic and OGX serve it.

https://docs.anthropic.com/en/api/retrieving-message-batches

This API knows one end, `ended`, and counts how each request ended. The phase is read from these counts::

    any request was cancelled     CANCELLED: the batch was, before it was done
    else any request has expired  EXPIRED
    else                          SUCCEEDED, however many requests errored: these are data, as on the other wire

The other requests of a cancelled or expired batch have results. A cancel that came too late to cancel a request changes
nothing. Without counts, a batch for which a cancel was asked is CANCELLED.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from asyncruns.dialects.any_batch import AnyBatchDialect
from asyncruns.http import server_time, wait_hint
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import Counts, RunRef, Snapshot
from asyncruns.wire import MessageBatch, status_names
from asyncruns.wire.common import epoch_seconds
from asyncruns.wire.names import MESSAGE_BATCH

MESSAGE_BATCH_PHASES: Final[Mapping[str, Phase]] = {
    status_names.IN_PROGRESS: Phase.RUNNING,
    status_names.CANCELING: Phase.CANCELLING,
    status_names.ENDED: Phase.SUCCEEDED,  # or another end, by the counts
}


class MessageBatchDialect(AnyBatchDialect[MessageBatch]):
    """The dialect of `GET /messages/batches/{message_batch_id}`."""

    name = MESSAGE_BATCH
    _type = MessageBatch
    _path = ("messages", "batches")
    _phases = MESSAGE_BATCH_PHASES
    _cursor = "after_id"

    def _snapshot(self, batch: MessageBatch, headers: Mapping[str, str]) -> Snapshot[MessageBatch]:
        phase = MESSAGE_BATCH_PHASES.get(batch.processing_status, Phase.UNKNOWN)
        return Snapshot(
            phase=_end(batch) if phase is Phase.SUCCEEDED else phase,
            status=batch.processing_status,
            resource=batch,
            expires_at=epoch_seconds(batch.expires_at),
            server_time=server_time(headers),
            created_at=epoch_seconds(batch.created_at),
            ended_at=epoch_seconds(batch.ended_at),
            group=(self.name,),
            hint=wait_hint(headers),
            ref=RunRef(self.name, (batch.id,)),
            counts=_counts(batch),
        )


def _end(batch: MessageBatch) -> Phase:
    counts = batch.request_counts
    if counts.canceled if counts else batch.cancel_initiated_at:
        return Phase.CANCELLED
    return Phase.EXPIRED if counts and counts.expired else Phase.SUCCEEDED


def _counts(batch: MessageBatch) -> Counts | None:
    counts = batch.request_counts
    if not counts:
        return None
    done = counts.succeeded or 0
    failed = (counts.errored or 0) + (counts.canceled or 0) + (counts.expired or 0)
    total = done + failed + (counts.processing or 0)
    return Counts(done=done, failed=failed, total=total) if total else None
