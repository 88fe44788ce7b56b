"""The table of the watch's states: where each event may lead.

The machine does not run on this table, since its state follows from the rounds of calls (see `machine.py`). The table
lists the moves that result. Tests check both that the machine makes no other move and that it makes each of these; the
diagram in CONTRIBUTING.md is drawn from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from asyncruns.lifecycle.events import (
    CallsAnswered,
    CallsUnanswered,
    CancelAsked,
    Event,
    Observed,
    OutputsProvided,
    Refused,
    Tick,
)
from asyncruns.lifecycle.phases import State

# Staying in a state is always allowed, so it is not listed.
MOVES: Final[Mapping[State, Mapping[type[Event], frozenset[State]]]] = {
    State.POLLING: {
        Observed: frozenset({State.DISPATCHING, State.SUBMITTING, State.CANCELLING, State.DONE}),
        Refused: frozenset({State.DONE}),
        CancelAsked: frozenset({State.CANCELLING}),
        Tick: frozenset({State.DONE}),
    },
    State.DISPATCHING: {
        Observed: frozenset({State.CANCELLING, State.DONE}),
        Refused: frozenset({State.DONE}),
        CallsAnswered: frozenset({State.SUBMITTING, State.DONE}),
        OutputsProvided: frozenset({State.SUBMITTING, State.DONE}),
        CallsUnanswered: frozenset({State.DONE}),
        CancelAsked: frozenset({State.CANCELLING}),
        Tick: frozenset({State.SUBMITTING, State.DONE}),
    },
    State.SUBMITTING: {
        Observed: frozenset({State.POLLING, State.DISPATCHING, State.CANCELLING, State.DONE}),
        Refused: frozenset({State.POLLING, State.CANCELLING, State.DONE}),
        CancelAsked: frozenset({State.CANCELLING}),
        Tick: frozenset({State.CANCELLING, State.DONE}),
    },
    State.CANCELLING: {
        Observed: frozenset({State.DONE}),
        Refused: frozenset({State.POLLING, State.DISPATCHING, State.SUBMITTING, State.DONE}),
        Tick: frozenset({State.DONE}),
    },
    # Only a watch that finished before its run can be reopened.
    State.DONE: {
        OutputsProvided: frozenset({State.SUBMITTING}),
        CancelAsked: frozenset({State.CANCELLING, State.SUBMITTING}),
    },
}
