"""`client.threads.runs`: all operations on runs in one class."""

from __future__ import annotations

from asyncruns.resources.run_polling import RunPolling
from asyncruns.resources.run_streaming import RunStreaming


class Runs(RunPolling, RunStreaming):
    """`client.threads.runs`: the operations on runs, and helpers that wait for a run or stream it.

    Every method also takes the `CallOptions`.
    """
