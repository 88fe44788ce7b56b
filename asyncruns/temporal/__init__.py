"""Waits for runs from workflows of Temporal, on many machines. Needs the extra `asyncruns[temporal]`.

Public: `AsyncRunsPlugin` for workers, `watch` and `run_and_wait` for workflows,
`start_shards` for thousands of runs, `open_calls` and `answer_call` for people.
"""

from __future__ import annotations

from asyncruns.temporal.creating import run_and_wait
from asyncruns.temporal.messages import EndedRun, OpenCall
from asyncruns.temporal.people import answer_call, open_calls
from asyncruns.temporal.plugin import AsyncRunsPlugin
from asyncruns.temporal.search_attributes import WAITS_FOR, WAITS_FOR_RUNS, add_search_attributes
from asyncruns.temporal.shards import Shards, start_shards
from asyncruns.temporal.watching import watch
from asyncruns.temporal.workflow_options import WorkflowOptions

__all__ = [
    "WAITS_FOR",
    "WAITS_FOR_RUNS",
    "AsyncRunsPlugin",
    "EndedRun",
    "OpenCall",
    "Shards",
    "WorkflowOptions",
    "add_search_attributes",
    "answer_call",
    "open_calls",
    "run_and_wait",
    "start_shards",
    "watch",
]
