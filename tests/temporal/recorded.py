"""What the tests read of histories: the data of their payloads, which are in base64 in JSON."""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf.json_format import MessageToDict
from temporalio.client import WorkflowHistory


def opened(history: WorkflowHistory) -> str:
    """Return the data of all payloads."""
    found = _data_in([MessageToDict(event) for event in history.events])
    return "\n".join(base64.b64decode(data).decode("utf-8", "replace") for data in found)


def _data_in(value: Any) -> list[str]:
    if isinstance(value, list):
        return [data for each in value for data in _data_in(each)]
    if not isinstance(value, dict):
        return []
    if "metadata" in value and isinstance(value.get("data"), str):
        return [value["data"]]
    return [data for each in value.values() for data in _data_in(each)]
