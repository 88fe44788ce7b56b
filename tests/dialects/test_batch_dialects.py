"""Both dialects of batches, with bodies as OpenAI, OGX and Anthropic send them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asyncruns.dialects.any_batch import AnyBatchDialect
from asyncruns.dialects.batches import BatchDialect, is_file_not_there
from asyncruns.dialects.errors import status_error
from asyncruns.dialects.message_batches import MessageBatchDialect
from asyncruns.errors import APIResponseValidationError, InvalidRequestError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Counts, Phase, RefusalKind, RunFault, RunRef, Snapshot, TokenUsage

BATCH = BatchDialect()
MESSAGES = MessageBatchDialect()
POLL = Request("GET", "/batches/batch_1")
CANCEL = Request("POST", "/batches/batch_1/cancel")
DATE = {"date": "Mon, 30 Nov 2026 20:00:00 GMT"}

OPENAI: dict[str, Any] = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/responses",
    "model": "gpt-5-2025-08-07",
    "errors": None,
    "input_file_id": "file-1",
    "completion_window": "24h",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": 1711471533,
    "in_progress_at": 1711471538,
    "expires_at": 1711557933,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 100, "completed": 95, "failed": 2},
    "metadata": {"customer_id": "user_1"},
    "usage": {
        "input_tokens": 1500,
        "input_tokens_details": {"cached_tokens": 1024},
        "output_tokens": 500,
        "output_tokens_details": {"reasoning_tokens": 300},
        "total_tokens": 2000,
    },
}
# All times but two are null, and so are the counts while it waits.
OGX = OPENAI | {
    "endpoint": "/v1/chat/completions",
    "model": None,
    "in_progress_at": None,
    "expires_at": None,
    "request_counts": None,
    "usage": None,
    "metadata": None,
}
ANTHROPIC: dict[str, Any] = {
    "id": "msgbatch_1",
    "type": "message_batch",
    "processing_status": "in_progress",
    "request_counts": {"processing": 100, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
    "ended_at": None,
    "created_at": "2024-09-24T18:37:24.100435Z",
    "expires_at": "2024-09-25T18:37:24.100435Z",
    "archived_at": None,
    "cancel_initiated_at": None,
    "results_url": None,
}


def read(body: dict[str, Any], **changes: Any) -> Snapshot[Any]:
    body = body | changes
    if "processing_status" in body:
        return MESSAGES.read(Request("GET", "/messages/batches/msgbatch_1"), response(body))
    return BATCH.read(POLL, response(body))


def response(body: Any, status: int = 200, **headers: str) -> Response:
    return Response(status, DATE | headers, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("validating", Phase.PENDING),
        ("in_progress", Phase.RUNNING),
        ("finalizing", Phase.RUNNING),
        ("cancelling", Phase.CANCELLING),
        ("completed", Phase.SUCCEEDED),
        ("failed", Phase.FAILED),
        ("expired", Phase.EXPIRED),
        ("cancelled", Phase.CANCELLED),
        ("of_tomorrow", Phase.UNKNOWN),
    ],
)
@pytest.mark.parametrize("body", [OPENAI, OGX], ids=["openai", "ogx"])
def test_each_status_has_its_phase(body: dict[str, Any], status: str, phase: Phase) -> None:
    snapshot = read(body, status=status)
    assert (snapshot.phase, snapshot.status, snapshot.calls) == (phase, status, ())
    assert snapshot.ref == RunRef("batch", ("batch_1",))


def test_a_batch_of_openai_is_read() -> None:
    snapshot = read(OPENAI)
    assert snapshot.counts == Counts(done=95, failed=2, total=100)
    assert (snapshot.created_at, snapshot.expires_at, snapshot.ended_at) == (1711471533.0, 1711557933.0, None)
    assert snapshot.group == ("/v1/responses", "gpt-5-2025-08-07")
    assert snapshot.server_time == 1796068800.0
    assert snapshot.usage == TokenUsage(
        input_tokens=1500, output_tokens=500, total_tokens=2000, cached_tokens=1024, reasoning_tokens=300
    )
    assert read(OPENAI, status="completed", completed_at=1711493163).elapsed == 21630.0
    assert read(OPENAI, status="expired", expired_at=1711557999).ended_at == 1711557999.0


def test_a_batch_without_times_expires_at_the_end_of_its_window() -> None:
    assert read(OGX).expires_at == 1711471533.0 + 86_400.0
    assert read(OGX, completion_window="7d").expires_at == 1711471533.0 + 7 * 86_400.0
    assert read(OGX, completion_window="soon").expires_at is None
    assert read(OGX, created_at=None).expires_at is None
    assert read(OGX).group == ("/v1/chat/completions", "")


@pytest.mark.parametrize("counts", [None, {}, {"total": 0, "completed": 0, "failed": 0}, {"total": None}])
def test_counts_that_are_not_there_yet_are_not_known(counts: Any) -> None:
    assert read(OGX, request_counts=counts).counts is None
    assert read(OGX, request_counts={"total": 7, "completed": None}).counts == Counts(total=7)


def test_files_may_be_null_absent_or_empty() -> None:
    for file_id in (None, ""):
        assert not read(OGX, status="completed", output_file_id=file_id, error_file_id=file_id).resource.output_file_id
    least = {"id": "batch_1", "status": "completed"}
    assert (read(least).phase, read(least).counts, read(least).expires_at) == (Phase.SUCCEEDED, None, None)


def test_the_fault_has_the_first_errors_with_their_lines() -> None:
    errors = [
        {"code": "invalid_json_line", "line": 3, "message": "This line is not parseable as valid JSON.", "param": None},
        {"code": "invalid_request", "line": None, "message": "Cannot find file file-1.", "param": "input_file_id"},
        {"code": "duplicate_custom_id", "line": 9, "message": None},
        *[{"code": "x", "message": "y", "line": 10}] * 1000,
    ]
    failed = read(OGX, status="failed", errors={"object": None, "data": errors})
    text = "line 3: This line is not parseable as valid JSON.; Cannot find file file-1.; line 9: duplicate_custom_id"
    assert failed.fault == RunFault("invalid_json_line", f"{text}; and 1000 more")
    assert read(OGX, status="failed", errors={"data": errors[:1]}).fault == RunFault(
        "invalid_json_line", "line 3: This line is not parseable as valid JSON."
    )
    empty: list[Any] = [None, {"data": None}, {"data": []}]
    for nothing in empty:
        assert read(OGX, status="failed", errors=nothing).fault is None
    assert read(OGX, status="completed", errors={"data": errors}).fault is None


@pytest.mark.parametrize(
    ("counts", "asked", "phase"),
    [
        ({"succeeded": 100}, False, Phase.SUCCEEDED),
        ({"errored": 100}, False, Phase.SUCCEEDED),
        ({"succeeded": 50, "canceled": 50}, True, Phase.CANCELLED),
        ({"succeeded": 50, "expired": 50}, False, Phase.EXPIRED),
        ({"expired": 50, "canceled": 50}, True, Phase.CANCELLED),
        ({"succeeded": 100}, True, Phase.SUCCEEDED),
        (None, True, Phase.CANCELLED),
        (None, False, Phase.SUCCEEDED),
    ],
)
def test_how_a_message_batch_ended_is_told_by_its_counts(
    counts: dict[str, int] | None, asked: bool, phase: Phase
) -> None:
    at = "2024-09-24T19:00:00Z"
    snapshot = read(
        ANTHROPIC,
        processing_status="ended",
        request_counts=None if counts is None else {"processing": 0, **counts},
        cancel_initiated_at=at if asked else None,
        ended_at=at,
    )
    assert snapshot.phase is phase
    assert snapshot.elapsed == pytest.approx(1355.9, abs=0.1)
    if counts is not None:
        assert snapshot.counts is not None
        assert (snapshot.counts.total, snapshot.counts.done) == (100, counts.get("succeeded", 0))
        assert snapshot.counts.failed == 100 - snapshot.counts.done


def test_a_message_batch_at_work_is_read() -> None:
    snapshot = read(ANTHROPIC)
    assert (snapshot.phase, snapshot.status) == (Phase.RUNNING, "in_progress")
    assert snapshot.counts == Counts(total=100)
    assert snapshot.expires_at == (snapshot.created_at or 0.0) + 86_400.0
    assert snapshot.ref == RunRef("message_batch", ("msgbatch_1",))
    assert read(ANTHROPIC, processing_status="canceling").phase is Phase.CANCELLING
    assert read(ANTHROPIC, processing_status="of_tomorrow").phase is Phase.UNKNOWN


@pytest.mark.parametrize("dialect", [BATCH, MESSAGES], ids=lambda dialect: dialect.name)
def test_requests_have_the_quoted_id(dialect: AnyBatchDialect[Any]) -> None:
    ref = dialect.ref("of/them?")
    path = "/batches/of%2Fthem%3F" if dialect is BATCH else "/messages/batches/of%2Fthem%3F"
    assert dialect.poll(ref) == Request("GET", path)
    assert dialect.cancel(ref) == Request("POST", f"{path}/cancel")
    assert (dialect.longest_pause, dialect.max_outage, dialect.after_expiry) == (300.0, 3600.0, 3600.0)
    with pytest.raises(InvalidRequestError, match="takes no outputs"):
        dialect.submit(ref, read(OPENAI), ())
    with pytest.raises(InvalidRequestError, match="identified by its own id"):
        dialect.identify(None, {"thread_id": "thread_1"})


def test_another_batch_than_the_requested_one_is_not_believed() -> None:
    with pytest.raises(APIResponseValidationError, match="batch_id 'batch_2', not 'batch_1'"):
        read(OPENAI, id="batch_2")
    with pytest.raises(APIResponseValidationError, match="not 'msgbatch_1'"):
        read(ANTHROPIC, id="msgbatch_2")
    with pytest.raises(APIResponseValidationError, match="not of this API"):
        BATCH.read(POLL, response({"object": "list", "data": []}))


@pytest.mark.parametrize(
    ("status", "message", "kind", "phase"),
    [
        (409, "Cannot cancel batch 'batch_1' with status 'completed'", RefusalKind.ALREADY_OVER, Phase.SUCCEEDED),
        (409, "Cannot cancel batch 'batch_1' with status 'failed'", RefusalKind.ALREADY_OVER, Phase.FAILED),
        (409, "no", RefusalKind.ALREADY_OVER, None),
        (400, "Cannot cancel a batch with status 'finalizing'.", RefusalKind.ALREADY_OVER, Phase.RUNNING),
        (400, "Failed to cancel batch 'msgbatch_1': batch has already ended", RefusalKind.ALREADY_OVER, None),
        (400, "Batch msgbatch_1 cannot be canceled because it has ended.", RefusalKind.ALREADY_OVER, None),
        (400, "what is this", RefusalKind.REJECTED, None),
        (400, "Cancelling batches is not supported", RefusalKind.UNSUPPORTED, None),
        (405, "Method Not Allowed", RefusalKind.UNSUPPORTED, None),
        (404, "no such batch", RefusalKind.NOT_FOUND, None),
        (409, "Please try again later", RefusalKind.THROTTLED, None),
        (429, "slow down", RefusalKind.THROTTLED, None),
        (529, "Overloaded", RefusalKind.UNAVAILABLE, None),
        (401, "invalid x-api-key", RefusalKind.UNAUTHORIZED, None),
    ],
)
def test_refusals_of_a_cancel(status: int, message: str, kind: RefusalKind, phase: Phase | None) -> None:
    bodies = [{"error": {"message": message}}, {"type": "error", "error": {"type": "x", "message": message}}]
    dialects: list[AnyBatchDialect[Any]] = [BATCH, MESSAGES]
    for dialect, body in zip(dialects, bodies, strict=True):
        refusal = dialect.refusal(CANCEL, response(body, status))
        assert refusal.kind is kind
        if dialect is BATCH:
            assert refusal.phase is phase
        assert message in str(refusal.cause)


def test_a_conflict_of_a_poll_is_no_end() -> None:
    assert BATCH.refusal(POLL, response({"error": {"message": "no"}}, 409)).kind is RefusalKind.UNAVAILABLE
    said = response({"error": {"message": "no"}}, 503, **{"retry-after": "7"})
    assert BATCH.refusal(POLL, said).retry_after == 7.0


@pytest.mark.parametrize(
    ("status", "message", "is_so"),
    [
        (400, "Cannot find file file-abc.", True),
        (404, "File 'file-abc' not found. Use 'client.files.list()' ...", True),
        (400, "The input file could not be found", True),
        (404, "No such File object: file-abc", True),
        (400, "Invalid purpose of the file", False),
        (404, "The model 'x' does not exist", False),
        (500, "Cannot find file", False),
    ],
)
def test_a_file_that_is_not_there_yet_is_recognized(status: int, message: str, is_so: bool) -> None:
    error = status_error(Request("POST", "/batches"), response({"error": {"message": message}}, status))
    assert is_file_not_there(error) is is_so


def test_a_cancel_is_read_as_a_batch() -> None:
    snapshot = BATCH.read(CANCEL, response(OPENAI | {"status": "cancelling"}))
    assert snapshot.phase is Phase.CANCELLING
