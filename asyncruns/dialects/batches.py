"""Batches of OpenAI's wire: `GET /batches/{id}`, as OpenAI, Azure, Groq, Together, LiteLLM, OGX and others serve it.

https://platform.openai.com/docs/api-reference/batch

A batch that expired or was cancelled has results, too: those of the requests that had ended before. A batch that is
completed may have requests that failed, in its error file; they are data, and no fault of the batch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from asyncruns.dialects.any_batch import AnyBatchDialect
from asyncruns.errors import APIStatusError
from asyncruns.http import server_time, wait_hint
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import Counts, RunFault, RunRef, Snapshot, TokenUsage
from asyncruns.wire import Batch, BatchError, status_names
from asyncruns.wire.common import count_in, epoch_seconds
from asyncruns.wire.names import BATCH

BATCH_PHASES: Final[Mapping[str, Phase]] = {
    status_names.VALIDATING: Phase.PENDING,
    status_names.IN_PROGRESS: Phase.RUNNING,
    status_names.FINALIZING: Phase.RUNNING,
    status_names.CANCELLING: Phase.CANCELLING,
    status_names.COMPLETED: Phase.SUCCEEDED,
    status_names.FAILED: Phase.FAILED,
    status_names.EXPIRED: Phase.EXPIRED,
    status_names.CANCELLED: Phase.CANCELLED,
}
SHOWN_ERRORS: Final = 3  # of a batch that failed: its file may have thousands of wrong lines

_WINDOW: Final = re.compile(r"(\d+)\s*(h|d)")
_WINDOW_UNITS_S: Final = {"h": 3600.0, "d": 86_400.0}
_FILE_NOT_THERE: Final = (
    r"(?:can(?:not|'t| not)|could not|unable to) (?:find|locate|access).{0,40}file"
    r"|file.{0,120}(?:not (?:be )?found|does not exist|doesn't exist)|no such file"
)


class BatchDialect(AnyBatchDialect[Batch]):
    """The dialect of `GET /batches/{batch_id}`."""

    name = BATCH
    _type = Batch
    _path = ("batches",)
    _phases = BATCH_PHASES
    _cursor = "after"

    def _snapshot(self, batch: Batch, headers: Mapping[str, str]) -> Snapshot[Batch]:
        phase = BATCH_PHASES.get(batch.status, Phase.UNKNOWN)
        return Snapshot(
            phase=phase,
            status=batch.status,
            resource=batch,
            fault=None if phase is Phase.SUCCEEDED else _fault(batch),
            expires_at=_expires_at(batch),
            server_time=server_time(headers),
            created_at=epoch_seconds(batch.created_at),
            ended_at=_ended_at(batch) if phase.is_terminal else None,
            group=(batch.endpoint or "", batch.model or ""),
            hint=wait_hint(headers),
            ref=RunRef(self.name, (batch.id,)),
            usage=_usage(batch.usage) if batch.usage else None,
            counts=_counts(batch),
        )


def is_file_not_there(error: APIStatusError) -> bool:
    """Return whether a create was refused because the server has no such input file, or does not show it yet."""
    return error.status in (400, 404, 409) and re.search(_FILE_NOT_THERE, error.detail, re.IGNORECASE) is not None


def is_token_limit(batch: Batch) -> bool:
    """Return whether a batch failed because too many tokens were enqueued, so that it may be created again later."""
    errors = (batch.errors.data or []) if batch.errors else []
    return any(error.code == "token_limit_exceeded" for error in errors)


def _counts(batch: Batch) -> Counts | None:
    """Return the counts; None while the server has not counted the requests: 0 or null."""
    counts = batch.request_counts
    if not counts or not counts.total:
        return None
    return Counts(done=counts.completed or 0, failed=counts.failed or 0, total=counts.total)


def _expires_at(batch: Batch) -> float | None:
    """Return when the batch expires: if the server does not say, at the end of its window."""
    expires, created = epoch_seconds(batch.expires_at), epoch_seconds(batch.created_at)
    if expires is not None or created is None:
        return expires
    window = _WINDOW.fullmatch(str(batch.completion_window or ""))
    return created + float(window[1]) * _WINDOW_UNITS_S[window[2]] if window else None


def _ended_at(batch: Batch) -> float | None:
    times = (batch.completed_at, batch.failed_at, batch.expired_at, batch.cancelled_at)
    return next((found for time in times if (found := epoch_seconds(time)) is not None), None)


def _fault(batch: Batch) -> RunFault | None:
    """Return the first errors of a batch with their lines, and how many more there are."""
    errors = (batch.errors.data or []) if batch.errors else []
    if not errors:
        return None
    texts = [_error_text(error) for error in errors[:SHOWN_ERRORS]]
    more = len(errors) - len(texts)
    return RunFault(errors[0].code or "", "; ".join(texts) + (f"; and {more} more" if more else ""))


def _error_text(error: BatchError) -> str:
    text = error.message or error.code or "no message"
    return f"line {error.line}: {text}" if error.line else text


def _usage(used: dict[str, object]) -> TokenUsage:
    return TokenUsage(
        input_tokens=count_in(used, "input_tokens"),
        output_tokens=count_in(used, "output_tokens"),
        total_tokens=count_in(used, "total_tokens"),
        cached_tokens=count_in(used.get("input_tokens_details"), "cached_tokens"),
        reasoning_tokens=count_in(used.get("output_tokens_details"), "reasoning_tokens"),
    )
