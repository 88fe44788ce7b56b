"""What a run can be: the two tables of the lifecycle.

*Theirs*: the phase of the run at the server, as a dialect reads it from an answer. *Ours*: what the watch is doing.
Nothing here knows a server's words, a path or a clock.
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
    # The server said something that this version has no name for. It may be anything, an end included, so it is
    # watched with a bound of its own.
    UNKNOWN = "unknown"

    @property
    def is_terminal(self) -> bool:
        """Whether the run will never change again. Neither a pause for the caller nor `CANCELLING` is an end."""
        return self in TERMINAL


class State(enum.Enum):
    """What the watch is doing."""

    POLLING = "polling"
    DISPATCHING = "dispatching"  # calls are out; polling goes on, slower
    SUBMITTING = "submitting"  # outputs are on the way, or their fate is being looked up
    CANCELLING = "cancelling"
    DONE = "done"


TERMINAL: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED, Phase.EXPIRED, Phase.INCOMPLETE})

# What the server itself does, one step at a time.
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
        # The last three are races that the cancellation lost.
        Phase.CANCELLING: frozenset({Phase.CANCELLED, Phase.SUCCEEDED, Phase.FAILED, Phase.EXPIRED}),
        **{end: frozenset[Phase]() for end in TERMINAL},
    }
)


def _closure() -> Mapping[Phase, frozenset[Phase]]:
    """Give, for each phase, every phase that a later poll may find: a poller sees samples, not steps."""
    reach: dict[Phase, set[Phase]] = {phase: {phase, *after} for phase, after in STEPS.items()}
    for middle in STEPS:
        for found in reach.values():
            if middle in found:
                found |= reach[middle]
    # Nothing is known of an unknown phase, so it may lead anywhere and be reached from anything but an end.
    for phase, found in reach.items():
        if phase not in TERMINAL:
            found.add(Phase.UNKNOWN)
    reach[Phase.UNKNOWN] = set(Phase)
    return MappingProxyType({phase: frozenset(found) for phase, found in reach.items()})


OBSERVABLE: Final = _closure()
