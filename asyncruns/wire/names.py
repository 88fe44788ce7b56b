"""The names of the wires: ours, those of the API, and those of its clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

THREAD_RUN: Final = "thread.run"
RESPONSE: Final = "response"
BATCH: Final = "batch"
MESSAGE_BATCH: Final = "message_batch"

_THREADS: Final = "thread.run thread_run thread.runs threads.runs threads thread runs run assistants"

DIALECTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(_THREADS.split(), THREAD_RUN),
    **dict.fromkeys(("response", "responses"), RESPONSE),
    **dict.fromkeys(("batch", "batches"), BATCH),
    **dict.fromkeys(("message_batch", "message_batches", "messages.batches"), MESSAGE_BATCH),
}
"""Our name of a dialect, by each name that callers may know it by."""
