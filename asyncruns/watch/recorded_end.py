"""Reads how a run ended out of a journal, for a run that its server does not know any more. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from asyncruns.abc import RunClient
from asyncruns.errors import APIError
from asyncruns.http import Response
from asyncruns.lifecycle import End, TokenUsage
from asyncruns.lifecycle.commands import ENDS
from asyncruns.lifecycle.records import WatchRecord


def recorded_end(record: WatchRecord, client: RunClient[Any]) -> End | None:
    """Return how a run ended, as an earlier process had recorded it; None if it did not."""
    outcome = record.outcome or {}
    run = outcome.get("run")
    if not isinstance(run, Mapping):
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
