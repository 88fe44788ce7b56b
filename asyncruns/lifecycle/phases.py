"""The phases of a run at the server, with the steps between them, and the states of a watch.

A `Phase` is what a dialect reads from an answer; a `State` is what the watch is doing (its moves are in `moves.py`).
Nothing here may depend on a server's words, a path or a clock.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


class Phase(enum.Enum):
    """The phase of a run at the server."""

    PENDING = "pending"
    RUNNING = "running"
    NEEDS_CALLER = "needs_caller"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    INCOMPLETE = "incomplete"
    # This version does not know the server's status. It may be anything, even an end, so the watch limits how long it
    # accepts it (`Policy.max_unknown_status`).
    UNKNOWN = "unknown"

    @property
    def is_terminal(self) -> bool:
        """Whether the run will never change again. `NEEDS_CALLER` and `CANCELLING` are not ends."""
        return self in TERMINAL


class State(enum.Enum):
    """What the watch is doing."""

    POLLING = "polling"
    DISPATCHING = "dispatching"  # calls are being answered; polls continue, at a slower pace
    SUBMITTING = "submitting"  # outputs are in flight or about to be sent, or polls check whether they arrived
    CANCELLING = "cancelling"
    DONE = "done"


TERMINAL: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED, Phase.EXPIRED, Phase.INCOMPLETE})

# The steps that a server makes. A poller may miss any number of them: see `OBSERVABLE`.
STEPS: Final[Mapping[Phase, frozenset[Phase]]] = MappingProxyType(
    {
        Phase.PENDING: frozenset({Phase.RUNNING, Phase.CANCELLING, Phase.FAILED, Phase.EXPIRED}),
        Phase.RUNNING: frozenset(
            {
                Phase.NEEDS_CALLER,
                Phase.SUCCEEDED,
                Phase.FAILED,
                Phase.INCOMPLETE,
                Phase.CANCELLING,
                Phase.EXPIRED,
            }
        ),
        Phase.NEEDS_CALLER: frozenset({Phase.PENDING, Phase.EXPIRED, Phase.CANCELLING, Phase.FAILED}),
        # In the last three, the run ended before the cancel took effect.
        Phase.CANCELLING: frozenset({Phase.CANCELLED, Phase.SUCCEEDED, Phase.FAILED, Phase.EXPIRED}),
        **{end: frozenset[Phase]() for end in TERMINAL},
    }
)


def _closure() -> Mapping[Phase, frozenset[Phase]]:
    """Return, for each phase, every phase that a later poll may show: a poller sees samples, not steps."""
    # Transitive closure (Warshall): from PENDING to RUNNING and from RUNNING to SUCCEEDED, so from PENDING to
    # SUCCEEDED.
    reach: dict[Phase, set[Phase]] = {phase: {phase, *after} for phase, after in STEPS.items()}
    for middle in STEPS:
        for found in reach.values():
            if middle in found:
                found |= reach[middle]
    # An unknown phase may lead anywhere, and may follow any phase that is not an end.
    for phase, found in reach.items():
        if phase not in TERMINAL:
            found.add(Phase.UNKNOWN)
    reach[Phase.UNKNOWN] = set(Phase)
    return MappingProxyType({phase: frozenset(found) for phase, found in reach.items()})


OBSERVABLE: Final = _closure()
