"""The workflow of `temporal.py` that a user writes without shards: an activity for each run.

It imports nothing of asyncruns: the sandbox loads this module again, and its activities are known by name.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    import temporal_told

HEARTBEAT_TIMEOUT: Final = timedelta(seconds=30)
LONGEST: Final = timedelta(hours=1)
ONCE: Final = RetryPolicy(maximum_attempts=1)


@workflow.defn
class ActivityPerRun:
    """Watches a run in an activity, and starts that again for each round of calls; a call is an activity, too."""

    @workflow.run
    async def run(self, numbers: list[int]) -> None:
        await asyncio.gather(*map(self._watch, numbers))

    async def _watch(self, number: int) -> None:
        outputs: dict[str, str] = {}
        while calls := await self._calls(number, outputs):
            answers = await asyncio.gather(*map(self._answer, calls.values()))
            outputs = dict(zip(calls, answers, strict=True))
        if not workflow.unsafe.is_replaying():
            temporal_told.note(number)

    async def _calls(self, number: int, outputs: dict[str, str]) -> dict[str, str]:
        """Submit outputs, if there are any, and return the arguments of the next calls, by id; of none at the end."""
        calls: dict[str, str] = await workflow.execute_activity(
            "watch_run",
            args=[number, outputs],
            result_type=dict[str, str],
            start_to_close_timeout=LONGEST,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
        )
        return calls

    async def _answer(self, arguments: str) -> str:
        output: str = await workflow.execute_activity(
            "look_up", arguments, result_type=str, start_to_close_timeout=HEARTBEAT_TIMEOUT, retry_policy=ONCE
        )
        return output
