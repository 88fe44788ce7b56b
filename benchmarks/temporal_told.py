"""When the ends of the runs of `temporal.py` became known: shared by a worker's process and its workflows.

Workflows pass it through their sandbox, so that there is one list of times in the process. It must never change what a
workflow does, nor ask the Temporal server for anything.
"""

from __future__ import annotations

import time
from typing import Final

times: Final[dict[int, float]] = {}
known: Final[dict[int, float]] = {}


def note_told(number: int) -> None:
    """Note that the caller is told of the end of a run now, by `time.monotonic()`; the first time counts."""
    times.setdefault(number, time.monotonic())


def note_known(number: int) -> None:
    """Note that what outlives the worker knows of the end of a run now; the first time counts."""
    known.setdefault(number, time.monotonic())


def note(number: int) -> None:
    """Note both."""
    note_told(number)
    note_known(number)
