"""What `asyncruns show` knows of a run, a response or a batch. Does no I/O."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from asyncruns.cli.steps import StepShown
from asyncruns.lifecycle import RunRef, Snapshot


class ShownRun(Struct, kw_only=True):
    """What `asyncruns show` knows of a run, a response or a batch.

    Attributes:
        times: When it reached which status, by the server's clock, in order.
        now: The server's time when it answered; that of this machine if the server sent none.
        clock_offset: Seconds by which this machine's clock is ahead of the server's; None if that is not known.
        messages: Role and text of each message that it wrote.
    """

    ref: RunRef
    snapshot: Snapshot[Any]
    times: list[tuple[str, float]]
    now: float
    clock_offset: float | None
    steps: list[StepShown] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
