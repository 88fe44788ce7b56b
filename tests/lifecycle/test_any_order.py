"""Events in any order: the machine never raises, never loops without progress, and never runs a call twice."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from driver import Driver, call, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncruns.lifecycle import (
    MOVES,
    Asked,
    Call,
    CallsAnswered,
    CallsUnanswered,
    CancelAsked,
    Event,
    Finish,
    Observed,
    Phase,
    PollAt,
    Refusal,
    RefusalKind,
    Refused,
    RunTools,
    State,
    StreamBegun,
    StreamEnded,
    Submit,
    Tick,
)

# A mutation run (`.ci/mutate`) tries few examples, and always the same ones.
FEW = os.environ.get("FEW_EXAMPLES") == "1"
EXAMPLES = 10 if FEW else 100

CALLS = [call(f"call_{n}", arguments=arguments) for n in range(2) for arguments in ("{}", '{"x":1}')]
ROUNDS = st.lists(st.sampled_from(CALLS), max_size=3)


# Each strategy yields a function from a time to an event: strategies that depend on the time would be slow to draw.
Later = Callable[[float], Event]


@st.composite
def observations(draw: st.DrawFn) -> Later:
    phase = draw(st.sampled_from(Phase))
    calls = draw(ROUNDS) if phase is Phase.NEEDS_CALLER else []
    timed = draw(st.booleans())
    facts: dict[str, Any] = {"expires_at": 600.0, "server_time": draw(st.floats(0, 700))} if timed else {}
    seen, asked = snapshot(phase, *calls, **facts), draw(st.sampled_from(Asked))
    return lambda now: Observed(now, seen, asked)


def refused(kind: RefusalKind, asked: Asked, after: float | None) -> Later:
    refusal = Refusal(kind=kind, cause=RuntimeError(kind.value), retry_after=after)
    return lambda now: Refused(now, refusal, asked)


def answered(one: Call) -> Later:
    return lambda now: CallsAnswered(now, ((one, "out"),))


def unanswered(one: Call) -> Later:
    return lambda now: CallsUnanswered(now, (one,))


FROM_THE_SERVER: st.SearchStrategy[Later] = observations() | st.builds(
    refused, st.sampled_from(RefusalKind), st.sampled_from(Asked), st.none() | st.floats(0, 7200)
)
LEAVES: Later = lambda now: CancelAsked(now, by=now + 5.0)  # noqa: E731 - as those below
STREAMS: list[Later] = [StreamBegun, StreamEnded, lambda now: StreamEnded(now, RuntimeError("broken"))]
FROM_ANYONE: st.SearchStrategy[Later] = (
    FROM_THE_SERVER | st.just(CancelAsked) | st.just(LEAVES) | st.just(Tick) | st.sampled_from(STREAMS)
)
PAUSES = st.sampled_from([0.0, 0.1, 1.0, 6.0, 61.0])


@settings(max_examples=3 * EXAMPLES, derandomize=FEW, deadline=None)
@given(st.data(), st.sampled_from([None, 0.0, 5.0, 100.0]))
def test_any_sequence_of_events(data: st.DataObject, timeout: float | None) -> None:
    run = Driver(timeout=timeout)
    handed_out: list[Call] = []
    for _ in range(data.draw(st.integers(1, 25))):
        run.now += data.draw(PAUSES)
        events = FROM_ANYONE
        if handed_out:
            some = st.sampled_from(handed_out)
            events = FROM_ANYONE | some.map(answered) | some.map(unanswered)
        event, before = data.draw(events)(run.now), run.machine.state
        commands = run.feed(event)
        assert run.machine.state in MOVES[before].get(type(event), frozenset()) | {before}
        handed_out += [one for c in commands if isinstance(c, RunTools) for one in c.calls]

        # No call is handed out twice, whatever the polls show.
        assert max(Counter(handed_out).values(), default=0) <= 1
        # A submit is never empty, and names each call once.
        for command in commands:
            if isinstance(command, Submit):
                ids = [call_id for call_id, _ in command.outputs]
                assert ids
                assert len(ids) == len(set(ids))
            if isinstance(command, PollAt):
                assert run.now <= command.not_before <= command.not_after or command.not_before == math.inf
        # No command follows a Finish, and the machine is DONE then.
        finishes = [n for n, c in enumerate(commands) if isinstance(c, Finish)]
        assert finishes in ([], [len(commands) - 1])
        assert bool(finishes) <= (run.machine.state is State.DONE)


@settings(max_examples=2 * EXAMPLES, derandomize=FEW, deadline=None)
@given(st.data())
def test_a_tick_at_wake_at_always_makes_progress(data: st.DataObject) -> None:
    run = Driver(timeout=50.0)
    for _ in range(data.draw(st.integers(0, 8))):
        run.feed(data.draw(FROM_THE_SERVER)(run.now))
        run.now += 0.5
    for _ in range(40):
        if run.machine.wake_at == math.inf:
            break
        before = run.machine.wake_at
        run.now = max(run.now, before)
        run.feed(Tick(run.now))
        assert run.machine.wake_at > before or run.machine.wake_at == math.inf or run.machine.state is State.DONE
    assert run.machine.state is State.DONE
