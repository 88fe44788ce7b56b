"""The workflow of `temporal.py` that a user writes without shards, and what notes when the workflow of a shard knows.

It imports nothing of asyncruns: the sandbox loads this module again, and its activities are known by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.worker import (
    Interceptor,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

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


class NotesEnds(Interceptor):
    """Notes the ends of runs when the workflow of a shard gets them from its activity; this costs the server nothing.

    Args:
        number_of: Returns the number of a run from its ref.
    """

    def __init__(self, number_of: Callable[[Any], int]) -> None:
        self._number_of = number_of

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        """Return a class of interceptors of workflows that begin."""
        number_of = self._number_of

        class Outbound(WorkflowOutboundInterceptor):
            def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:
                handle = super().start_activity(input)
                handle.add_done_callback(lambda done: note_ends(done, number_of))
                return handle

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

        return Inbound


def note_ends(done: asyncio.Future[Any], number_of: Callable[[Any], int]) -> None:
    """Note the ends that an activity has returned."""
    if workflow.unsafe.is_replaying() or done.cancelled() or done.exception() is not None:
        return
    for report in getattr(done.result(), "reports", ()):
        if report.outcome["outcome"] == "Completed":
            temporal_told.note_known(number_of(report.run.token.ref))
