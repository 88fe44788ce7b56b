"""Both wires of batches as OGX 1.5.0 really speaks them: a recording of ours, in `tests/data`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from asyncruns.dialects.batches import BatchDialect
from asyncruns.dialects.message_batches import MessageBatchDialect
from asyncruns.dialects.result_lines import read_result
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Counts, Phase, RefusalKind
from asyncruns.wire import Batch, FileObject, decode

RECORDING: Final = Path(__file__).parent.parent / "data" / "ogx-1.5.0-batches.jsonl"
EXCHANGES: Final = {entry["name"]: entry for entry in map(json.loads, RECORDING.read_text().splitlines())}


def exchange(name: str) -> tuple[Request, Response]:
    entry = EXCHANGES[name]
    body = entry["body"] if isinstance(entry["body"], str) else json.dumps(entry["body"])
    return Request(entry["method"], entry["path"]), Response(entry["status"], entry["headers"], body.encode())


def snapshot(name: str) -> Any:
    dialect: Any = MessageBatchDialect() if name.startswith("message") else BatchDialect()
    return dialect.read(*exchange(name))


@pytest.mark.parametrize(
    ("name", "phase", "counts"),
    [
        ("validating", Phase.PENDING, None),
        ("in_progress", Phase.RUNNING, Counts(total=40)),
        ("completed", Phase.SUCCEEDED, Counts(done=30, failed=10, total=40)),
        ("completed_empty", Phase.SUCCEEDED, None),
        ("failed_json", Phase.FAILED, None),
        ("cancel", Phase.CANCELLING, Counts(done=20, total=40)),
        ("cancelled", Phase.CANCELLED, Counts(done=20, total=40)),
        ("message_in_progress", Phase.RUNNING, Counts(total=4)),
        ("message_ended", Phase.SUCCEEDED, Counts(done=1, failed=3, total=4)),
        ("message_canceling", Phase.CANCELLING, Counts(total=40)),
        ("message_canceled", Phase.CANCELLED, Counts(done=20, failed=20, total=40)),
    ],
)
def test_each_status_and_its_counts_are_read(name: str, phase: Phase, counts: Counts | None) -> None:
    found = snapshot(name)
    assert found.phase is phase
    assert found.counts == counts


def test_the_expiry_follows_from_the_window_since_ogx_sends_none() -> None:
    found = snapshot("validating")
    assert found.resource.expires_at is None
    assert found.expires_at == found.created_at + 86_400


def test_the_errors_of_a_failed_batch_have_their_lines() -> None:
    fault = snapshot("failed_lines").fault
    assert fault.code == "invalid_request"
    assert fault.message.startswith("line 1: Custom_id must be a string; line 1: Missing required parameter: method")
    assert snapshot("failed_json").fault.message == "line 1: This line is not parseable as valid JSON."
    assert snapshot("failed_no_file").fault.message == "Cannot find file file-abcd."


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("batch_missing", RefusalKind.NOT_FOUND),
        ("cancel_after_end", RefusalKind.ALREADY_OVER),
        ("message_batch_missing", RefusalKind.NOT_FOUND),
        ("message_cancel_after_end", RefusalKind.ALREADY_OVER),
    ],
)
def test_each_refusal_is_told_by_its_text(name: str, kind: RefusalKind) -> None:
    dialect: Any = MessageBatchDialect() if name.startswith("message") else BatchDialect()
    assert dialect.refusal(*exchange(name)).kind is kind


def test_a_body_that_is_a_string_of_json_is_an_answer() -> None:
    _, response = exchange("output_file")
    result = read_result(response.body, "x")
    assert (result.custom_id, result.kind, result.text) == ("r-1", "answered", "echo: one")
    assert result.status_code == 200


def test_an_error_without_a_response_is_a_failure() -> None:
    _, response = exchange("error_file")
    results = [read_result(line, "x") for line in response.body.splitlines()]
    assert {result.kind for result in results} == {"failed"}
    assert results[0].error is not None
    assert results[0].error.message == "Error code: 400 - The model fails as it was asked to (400)."


def test_the_results_of_messages_have_flat_errors() -> None:
    _, response = exchange("message_results")
    results = {result.custom_id: result for result in (read_result(line, "x") for line in response.body.splitlines())}
    assert results["m-1"].text == "echo: one"
    failed = results["m-2"].error
    assert failed is not None
    assert (failed.code, failed.message[:15]) == ("api_error", "Error code: 400")


def test_lists_and_files_are_read() -> None:
    _, response = exchange("batches")
    assert [decode(json.dumps(batch).encode(), Batch).status for batch in json.loads(response.body)["data"]]
    _, response = exchange("create_file")
    file = decode(response.body, FileObject)
    assert (file.purpose, file.filename, file.status_details) == ("batch", "a__b_.jsonl", "")
