"""Reads how a run ended out of a journal, for a run that is not at its server, or not any more. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from asyncruns.abc import RunClient
from asyncruns.errors import APIConnectionError, APIError
from asyncruns.http import Response
from asyncruns.lifecycle import End, TokenUsage
from asyncruns.lifecycle.commands import ENDS
from asyncruns.lifecycle.records import WatchRecord

_MAY_HAVE_ACTED: Final = frozenset({"APIConnectionError", "APITimeoutError"})


def recorded_end(record: WatchRecord, client: RunClient[Any]) -> End | None:
    """Return how a run ended, as an earlier process had recorded it; None if it did not."""
    outcome = record.outcome or {}
    run = outcome.get("run")
    if record.ref is None or not isinstance(run, Mapping):
        return None
    response = Response(status=200, headers={}, body=msgspec.json.encode(run))
    try:
        snapshot = client.dialect.read(client.dialect.poll(record.ref), response)
        usage = msgspec.convert(outcome.get("usage") or {}, TokenUsage)
    except (APIError, msgspec.ValidationError):  # another version has written it
        return None
    if not snapshot.phase.is_terminal:
        return None
    return End(kind=ENDS[snapshot.phase], snapshot=snapshot, usage=usage)


def recorded_cause(record: WatchRecord) -> APIError | None:
    """Return why a run was not created, as an earlier process had recorded it; None if it did not say."""
    cause = (record.outcome or {}).get("cause")
    if not isinstance(cause, Mapping):
        return None
    message = f"As an earlier process has recorded: {cause.get('type')}: {cause.get('message')}"
    may_exist = bool(record.submitting) and cause.get("type") in _MAY_HAVE_ACTED
    return APIConnectionError(message, sent=True) if may_exist else APIError(message)
