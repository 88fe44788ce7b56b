"""When the workflows of `temporal.py` were told of the ends of runs: shared by a worker's process and its workflows.

Workflows pass it through their sandbox, so that there is one list of times in the process. It must never change what a
workflow does.
"""

from __future__ import annotations

import time
from typing import Final

times: Final[dict[int, float]] = {}


def note(number: int) -> None:
    """Note that the end of a run is known now, by `time.monotonic()`; the first time counts."""
    times.setdefault(number, time.monotonic())
