"""The workflows of the workers that `kill_temporal.py` kills, in two versions; nothing here may be random."""

from __future__ import annotations

from typing import Any

from temporalio import workflow

from asyncruns import AnyOutcome, RunRef
from asyncruns.temporal import watch


def line_of(outcome: AnyOutcome[Any]) -> str:
    """Return a line for an outcome: its first run, and how it ended."""
    reason = "" if outcome.reason is None else f"/{outcome.reason.value}"
    return f"{outcome.refs[0]} {type(outcome).__name__}{reason}"


@workflow.defn(name="Ask")
class Ask:
    """Watches a run."""

    @workflow.run
    async def run(self, ref: RunRef) -> str:
        outcome = await watch(ref, heartbeat_timeout=3.0)
        return line_of(outcome)


@workflow.defn(name="Ask")
class PoliteAsk:
    """Watches a run, as the next version of the program does: replays of the first version go on with it."""

    @workflow.run
    async def run(self, ref: RunRef) -> str:
        if workflow.patched("polite"):
            await workflow.sleep(0.1)
        outcome = await watch(ref, heartbeat_timeout=3.0)
        if workflow.patched("thanks"):
            await workflow.sleep(0.1)
        return line_of(outcome)
