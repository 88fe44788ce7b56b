"""How many bytes the values may have that workflows and activities pass to each other, as JSON.

Temporal refuses a payload of more than 2 MiB. A workflow that passes one on is stuck, so all that may be large is
measured before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")

LARGEST_PAYLOAD: Final = 2_000_000
"""Of a payload, in which there are a few other fields."""
LARGEST_HISTORY_INPUT: Final = 1_800_000
"""Of what a new history begins with."""
PIECE: Final = 1_000_000
"""Of a piece of a list that is passed on in pieces."""
LARGEST_REPORT: Final = 700_000
"""Of the report of a run of a shard, which has the arguments of its calls twice."""
LARGEST_OUTPUTS: Final = 600_000
"""Of all outputs of a round in a shard: what tells `on_outcome` of them has them twice, beside such a report."""


def size_of(value: Any) -> int:
    """Return how many bytes a value has as JSON."""
    return len(msgspec.json.encode(value))


def first_piece(values: Sequence[T], most: int = PIECE) -> int:
    """Return how many of the values, from the first one on, have no more bytes than this; at least one."""
    total = 0
    for number, value in enumerate(values):
        total += size_of(value)
        if number and total > most:
            return number
    return len(values)
