"""The batches of an emulator on OpenAI's wire, and their output and error files.

https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.batch import BATCH_ENDS, EmulatedBatch
from asyncruns.testing.emulator.batch_answers import INPUT_TOKENS, OUTPUT_TOKENS, endpoint_answer
from asyncruns.testing.emulator.batch_input import FileInput, read_input
from asyncruns.testing.emulator.batch_list import BatchList
from asyncruns.testing.emulator.batch_scenario import BatchRequest, BatchScenario, BatchScripts
from asyncruns.testing.emulator.fields import Body, limit_of, metadata_of, required_text
from asyncruns.testing.emulator.files import EmulatedFile, EmulatedFiles, expiry_of
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.timeline import whole

_ENDPOINTS: Final = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
)
_WINDOW: Final = "24h"
_OUTPUT, _ERRORS = "output", "error"
_RESULT_ID: Final = re.compile(rf"file-(\w+)-({_OUTPUT}|{_ERRORS})")
_TIMES: Final = (
    "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled",
)  # fmt: skip
_FAILED: Final = {"code": "server_error", "message": "Sorry, something went wrong.", "param": None, "line": None}
_NOT_DONE: Final = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed before the batch was cancelled."),
}
_SUCCESS: Final = 200


class EmulatedBatches:
    """Creates and cancels batches; times are epoch seconds.

    Args:
        scripts: Chooses the scenario of each batch.
        late_cancel: Status of the answer to a cancel of a batch that has ended; 200 returns the batch.
    """

    def __init__(self, ids: Ids, files: EmulatedFiles, scripts: BatchScripts, late_cancel: int) -> None:
        self._ids = ids
        self._files = files
        self._late_cancel = late_cancel
        self._inputs: dict[tuple[str, str], FileInput] = {}  # by the file and the endpoint
        self.scripts = scripts
        self.list_of: BatchList = BatchList(refusals.no_batch)
        files.find_result, files.results = self._find_result, self._results

    def create(self, body: Mapping[str, Any], now: float) -> Body:
        """Create a batch. What is wrong with the lines of its file makes it fail later."""
        settings = _settings(body, now)
        read = self._read(settings["input_file_id"], settings["endpoint"], now)
        request = BatchRequest(
            endpoint=settings["endpoint"],
            model=read.model,
            total=len(read.custom_ids),
            metadata=settings["metadata"] or {},
            number=len(self.list_of),
        )
        scenario = self.scripts.choose(request)
        batch = EmulatedBatch(
            id=self._ids.new("batch"),
            number=request.number,
            created=now,
            scenario=scenario,
            input=read,
            settings={**settings, "model": read.model or None},
            errors=read.errors or self._own_errors(scenario, request.total, now),
        )
        self.list_of.add(batch)
        return _body(batch, now)

    def retrieve(self, batch_id: str, now: float) -> Body:
        """Return a batch's body; for a time in the past, as it was then."""
        return _body(self.list_of.find(batch_id, now).as_of(now), now)

    def list(self, query: Mapping[str, str], now: float) -> Body:
        """Return a page of the batches, newest first."""
        batches, has_more = self.list_of.page(now, limit_of(query), after=query.get("after"))
        data = [_body(batch, now) for batch in batches]
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more}

    def cancel(self, batch_id: str, now: float) -> Body:
        """Begin to cancel a batch; a second cancel changes nothing."""
        batch = self.list_of.find(batch_id, now)
        status = batch.status(now)
        if status in BATCH_ENDS:
            if status != "cancelled" and self._late_cancel != _SUCCESS:
                raise refusals.batch_over(status, self._late_cancel)
        elif status != "cancelling":
            batch.cancelled = now
        return _body(batch, now)

    def _read(self, file_id: str, endpoint: str, now: float) -> FileInput:
        try:
            file = self._files.find(file_id, now)
        except refusals.RefusedError:
            raise refusals.no_input_file(file_id) from None
        if file.purpose != "batch":
            raise refusals.wrong_purpose(file_id, file.purpose)
        key = file_id, endpoint
        if key not in self._inputs:
            self._inputs[key] = read_input(file.content, endpoint)
        return self._inputs[key]

    def _own_errors(self, scenario: BatchScenario, total: int, now: float) -> Sequence[Mapping[str, Any]]:
        if scenario.end == "failed":
            return [{**_FAILED, **error} for error in scenario.errors] or [_FAILED]
        if scenario.most_enqueued is None:
            return []
        open_batches = (batch for batch in self.list_of.by_id.values() if batch.status(now) not in BATCH_ENDS)
        enqueued = total + sum(len(batch.input.custom_ids) for batch in open_batches if not batch.errors)
        if enqueued <= scenario.most_enqueued:
            return []
        text = (
            f"Enqueued token limit reached. Limit: {scenario.most_enqueued} enqueued requests. Please try again once "
            "some in_progress batches have been completed."
        )
        return [{**_FAILED, "code": "token_limit_exceeded", "message": text}]

    def _find_result(self, file_id: str, now: float) -> EmulatedFile | None:
        found = _RESULT_ID.fullmatch(file_id)
        batch = None if found is None else self.list_of.by_id.get(f"batch_{found[1]}")
        if found is None or batch is None or not batch.shows_results(now):
            return None
        return self._file(batch, found[2], now)

    def _results(self, now: float) -> Iterator[EmulatedFile]:
        for batch in self.list_of.by_id.values():
            if batch.shows_results(now):
                files = (self._file(batch, which, now) for which in (_OUTPUT, _ERRORS))
                yield from (file for file in files if file is not None)

    def _file(self, batch: EmulatedBatch, which: str, now: float) -> EmulatedFile | None:
        if not _has_file(batch, which, now):
            return None
        if batch.results is None:
            batch.results = self._written(batch, now)
        ended = batch.end()[1]
        return EmulatedFile(
            id=_file_id(batch, which),
            created=ended,
            filename=f"{batch.id}_{which}.jsonl",
            purpose="batch_output",
            content=batch.results[which == _ERRORS],
            expires=expiry_of(batch.settings, "output_expires_after", ended),
        )

    def _written(self, batch: EmulatedBatch, now: float) -> tuple[bytes, bytes]:
        """Return the output file and the error file, with their lines in no order that a client could rely on."""
        lines: tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]] = ([], [])
        for custom_id, fate, body in batch.fates(now):
            line = self._line(batch, custom_id, fate, body, now)
            lines[fate != "answered"].append((zlib.crc32(custom_id.encode()), msgspec.json.encode(line)))
        output, errors = (b"".join(line + b"\n" for _, line in sorted(part)) for part in lines)
        return output, errors

    def _line(self, batch: EmulatedBatch, custom_id: str, fate: str, body: Mapping[str, Any], now: float) -> Body:
        line: Body = {"id": self._ids.new("batch_req"), "custom_id": custom_id, "response": None, "error": None}
        if fate in _NOT_DONE:
            code, message = _NOT_DONE[fate]
            line["error"] = {"code": code, "message": message}
            return line
        scenario, status = batch.scenario, _SUCCESS
        if fate == "failed":
            status = 400
            answer: Any = refusals.RefusedError(f"The emulator fails the request '{custom_id}'.").body
        elif scenario.answers is not None:
            answer = scenario.answers(custom_id, body)
        else:
            answer = endpoint_answer(batch.settings["endpoint"], body, self._ids, now)
        if scenario.body_as_text:
            answer = msgspec.json.encode(answer).decode()
        line["response"] = {"status_code": status, "request_id": self._ids.new_request_id(), "body": answer}
        return line


def _settings(body: Mapping[str, Any], now: float) -> Body:
    """Read the parameters of a new batch.

    Raises:
        RefusedError: One is missing or not valid.
    """
    endpoint, window = required_text(body, "endpoint"), required_text(body, "completion_window")
    if endpoint not in _ENDPOINTS:
        raise refusals.wrong_value("endpoint", endpoint, _ENDPOINTS)
    if window != _WINDOW:
        raise refusals.wrong_value("completion_window", window, (_WINDOW,))
    expiry_of(body, "output_expires_after", now)  # refuses what is not valid
    return {
        "endpoint": endpoint,
        "input_file_id": required_text(body, "input_file_id"),
        "completion_window": window,
        "metadata": None if body.get("metadata") is None else metadata_of(body),
        "output_expires_after": body.get("output_expires_after"),
    }


def _file_id(batch: EmulatedBatch, which: str) -> str:
    return f"file-{batch.id.removeprefix('batch_')}-{which}"


def _has_file(batch: EmulatedBatch, which: str, now: float) -> bool:
    answered, failed = batch.counts(now)
    if which == _OUTPUT:
        return answered > 0
    return failed > 0 or answered + failed < len(batch.input.custom_ids)


def _body(batch: EmulatedBatch, now: float) -> Body:
    """Return a batch as it is on the wire at that time."""
    scenario = batch.scenario
    stages = dict(batch.reached_stages(now))
    status, created = list(stages)[-1], batch.created
    no_file = "" if scenario.empty_file_ids else None
    times = {f"{name}_at": whole(stages[name]) if name in stages else None for name in _TIMES}
    times["expires_at"] = whole(batch.expires)
    if scenario.bare_times:
        times = {name: at if name == "completed_at" else None for name, at in times.items()}
    shows = batch.shows_results(now)
    settings = {name: value for name, value in batch.settings.items() if name != "output_expires_after"}
    return {
        "id": batch.id,
        "object": "batch",
        "status": status,
        "errors": {"object": "list", "data": list(batch.errors)} if status == "failed" else None,
        "output_file_id": _file_id(batch, _OUTPUT) if shows and _has_file(batch, _OUTPUT, now) else no_file,
        "error_file_id": _file_id(batch, _ERRORS) if shows and _has_file(batch, _ERRORS, now) else no_file,
        "created_at": whole(created),
        **times,
        **_counts(batch, status, now),
        **settings,
    }


def _counts(batch: EmulatedBatch, status: str, now: float) -> Body:
    if status == "validating" and batch.scenario.null_counts:
        return {"request_counts": None, "usage": None}
    total = 0 if status in ("validating", "failed") else len(batch.input.custom_ids)
    answered, failed = batch.counts(now)
    usage = {
        "input_tokens": INPUT_TOKENS * answered,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": OUTPUT_TOKENS * answered,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": (INPUT_TOKENS + OUTPUT_TOKENS) * answered,
    }
    return {"request_counts": {"total": total, "completed": answered, "failed": failed}, "usage": usage}
