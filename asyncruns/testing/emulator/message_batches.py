"""The batches of an emulator on Anthropic's wire, https://docs.anthropic.com/en/api/creating-message-batches."""

from __future__ import annotations

import datetime
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from asyncruns.testing.emulator import message_errors
from asyncruns.testing.emulator.batch import EmulatedBatch
from asyncruns.testing.emulator.batch_answers import message_answer
from asyncruns.testing.emulator.batch_list import BatchList
from asyncruns.testing.emulator.batch_scenario import BatchRequest, BatchScripts
from asyncruns.testing.emulator.fields import Body, limit_of
from asyncruns.testing.emulator.files import RawBody
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.timeline import reached

_ENDPOINT: Final = "/v1/messages"
_MOST_REQUESTS: Final = 100_000
_MOST_LISTED: Final = 1000
_CUSTOM_ID: Final = "^[a-zA-Z0-9_-]{1,64}$"
_REQUIRED: Final = ("model", "max_tokens", "messages")  # of the parameters of a message
_COUNTS: Final[Sequence[str]] = ("processing", "succeeded", "errored", "canceled", "expired")
_RESULT_TYPES: Final = {"cancelled": "canceled", "expired": "expired"}


@dataclass(frozen=True, slots=True, eq=False)
class GivenInput:
    """The requests of a batch as they came in its creation."""

    given: Sequence[Mapping[str, Any]]
    custom_ids: Sequence[str]

    def requests(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the custom id and the parameters of each request."""
        for request in self.given:
            yield request["custom_id"], request["params"]


class EmulatedMessageBatches:
    """Creates, cancels and deletes message batches; times are epoch seconds.

    Args:
        scripts: Chooses the scenario of each batch.
    """

    def __init__(self, ids: Ids, scripts: BatchScripts) -> None:
        self._ids = ids
        self.scripts = scripts
        self.list_of: BatchList = BatchList(message_errors.no_message_batch)

    def create(self, body: Mapping[str, Any], base_url: str, now: float) -> Body:
        """Create a batch. What is wrong with the parameters of a request shows in its result."""
        given = _read(body)
        custom_ids = tuple(request["custom_id"] for request in given)
        model, number = str(given[0]["params"].get("model") or ""), len(self.list_of)
        chosen = self.scripts.choose(BatchRequest(endpoint=_ENDPOINT, model=model, total=len(given), number=number))
        malformed = {request["custom_id"] for request in given if _lacking(request["params"])}
        if chosen.end == "failed":  # this wire has no such end
            chosen = replace(chosen, end="completed", errors=(), failing=custom_ids)
        elif malformed and not callable(chosen.failing):
            chosen = replace(chosen, failing={*chosen.failing, *malformed})
        batch = EmulatedBatch(
            id=self._ids.new("msgbatch"),
            number=number,
            created=now,
            scenario=chosen,
            input=GivenInput(given, custom_ids),
            settings={},
        )
        self.list_of.add(batch)
        return _body(batch, base_url, now)

    def retrieve(self, batch_id: str, base_url: str, now: float) -> Body:
        """Return a batch's body; for a time in the past, as it was then."""
        return _body(self.list_of.find(batch_id, now).as_of(now), base_url, now)

    def list(self, query: Mapping[str, str], base_url: str, now: float) -> Body:
        """Return a page of the batches, newest first."""
        batches, has_more = self.list_of.page(
            now, limit_of(query, most=_MOST_LISTED), after=query.get("after_id"), before=query.get("before_id")
        )
        data = [_body(batch, base_url, now) for batch in batches]
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return {"data": data, "has_more": has_more, "first_id": first, "last_id": last}

    def cancel(self, batch_id: str, base_url: str, now: float) -> Body:
        """Begin to cancel a batch; a second cancel changes nothing."""
        batch = self.list_of.find(batch_id, now)
        if _has_ended(batch, now):
            raise message_errors.ended_already(batch_id)
        if batch.status(now) != "cancelling":
            batch.cancelled = now
        return _body(batch, base_url, now)

    def delete(self, batch_id: str, now: float) -> Body:
        """Delete a batch that has ended."""
        batch = self.list_of.find(batch_id, now)
        if not _has_ended(batch, now):
            raise message_errors.not_ended(batch_id, "deleted")
        self.list_of.delete(batch)
        return {"id": batch_id, "type": "message_batch_deleted"}

    def results(self, batch_id: str, now: float) -> RawBody:
        """Return the results of a batch, a line for each, in no order that a client could rely on."""
        batch = self.list_of.find(batch_id, now)
        if not batch.shows_results(now):
            raise message_errors.not_ended(batch_id, "read")
        if batch.results is None:
            lines = sorted(
                (zlib.crc32(custom_id.encode()), msgspec.json.encode(self._line(batch, custom_id, fate, params)))
                for custom_id, fate, params in batch.fates(now)
            )
            batch.results = (b"".join(line + b"\n" for _, line in lines),)
        return RawBody(200, {"Content-Type": "application/x-jsonl"}, batch.results[0])

    def _line(self, batch: EmulatedBatch, custom_id: str, fate: str, params: Mapping[str, Any]) -> Body:
        if fate in _RESULT_TYPES:
            return {"custom_id": custom_id, "result": {"type": _RESULT_TYPES[fate]}}
        if fate == "failed":
            lacking = _lacking(params)
            text = f"{lacking}: Field required" if lacking else f"The emulator fails the request '{custom_id}'."
            return {"custom_id": custom_id, "result": {"type": "errored", "error": message_errors.message_error(text)}}
        answers = batch.scenario.answers
        message = message_answer(params, self._ids) if answers is None else answers(custom_id, params)
        return {"custom_id": custom_id, "result": {"type": "succeeded", "message": message}}


def _read(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the requests of a new batch.

    Raises:
        RefusedError: One is not valid.
    """
    given = body.get("requests")
    if not isinstance(given, list):
        raise message_errors.field_required("requests")
    if not given:
        raise message_errors.too_few_requests()
    if len(given) > _MOST_REQUESTS:
        raise message_errors.too_many_requests(len(given), _MOST_REQUESTS)
    custom_ids: set[str] = set()
    for place, request in enumerate(given):
        custom_id = request.get("custom_id") if isinstance(request, dict) else None
        if not isinstance(custom_id, str):
            raise message_errors.field_required(f"requests.{place}.custom_id")
        if not isinstance(request.get("params"), dict):
            raise message_errors.field_required(f"requests.{place}.params")
        if not re.fullmatch(_CUSTOM_ID, custom_id):
            raise message_errors.wrong_custom_id(place, _CUSTOM_ID)
        if custom_id in custom_ids:
            raise message_errors.same_custom_id(custom_id)
        custom_ids.add(custom_id)
    return given


def _lacking(params: Mapping[str, Any]) -> str:
    return next((name for name in _REQUIRED if params.get(name) is None), "")


def _has_ended(batch: EmulatedBatch, now: float) -> bool:
    return reached(now, batch.end()[1])


def _body(batch: EmulatedBatch, base_url: str, now: float) -> Body:
    """Return a batch as it is on the wire at that time."""
    stages = dict(batch.reached_stages(now))
    status, ended = ("ended", batch.end()[1]) if _has_ended(batch, now) else ("in_progress", None)
    if status != "ended" and "cancelling" in stages:
        status = "canceling"
    url = f"{base_url}/messages/batches/{batch.id}/results"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": _counts(batch, now),
        "ended_at": _wire(ended),
        "created_at": _wire(batch.created),
        "expires_at": _wire(batch.expires),
        "archived_at": None,
        "cancel_initiated_at": _wire(stages.get("cancelling")),
        "results_url": url if batch.shows_results(now) else None,
    }


def _counts(batch: EmulatedBatch, now: float) -> Body:
    """Count the requests; as documented, all are processing until the whole batch has ended."""
    counts: Body = dict.fromkeys(_COUNTS, 0)
    total = len(batch.input.custom_ids)
    if not _has_ended(batch, now):
        return {**counts, "processing": total}
    answered, failed = batch.counts(now)
    counts |= {"succeeded": answered, "errored": failed}
    if (left := total - answered - failed) > 0:
        counts[_RESULT_TYPES[batch.status(now)]] = left
    return counts


def _wire(moment: float | None) -> str | None:
    return None if moment is None else datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat()
