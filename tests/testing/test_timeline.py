"""The position of a run is computed once and cached while it is valid; these tests check that this is invisible."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from asyncruns.testing import FunctionCall, Scenario
from asyncruns.testing.emulator.ids import Ids
from asyncruns.testing.emulator.run import EmulatedRun, Submission, calls_of
from asyncruns.testing.emulator.timeline import RunCourse

EPOCH = 1.8e9
CALLS = (FunctionCall("f"),)

halves = st.integers(0, 6).map(lambda count: count / 2)
scenarios = st.builds(
    Scenario,
    queued=st.one_of(halves, st.just(math.inf)),
    working=halves,
    rounds=st.sampled_from([(), (CALLS,), (CALLS, CALLS)]),
    end=st.sampled_from(["completed", "failed", "incomplete", "never"]),
    cancelling=st.one_of(halves, st.just(math.inf)),
    lifetime=st.integers(0, 12).map(float),
)
# Just before, at, and just after every moment at which a run may change.
moments = st.builds(lambda half, nearby: half / 2 + nearby, st.integers(0, 26), st.sampled_from([-1e-4, 0.0, 1e-4]))
events = st.lists(st.tuples(st.sampled_from(["poll", "poll", "poll", "submit", "cancel"]), moments), max_size=12)


@given(scenarios, events)
def test_a_cached_position_equals_a_newly_computed_one(scenario: Scenario, events: list[tuple[str, float]]) -> None:
    ids = Ids()
    run = EmulatedRun(
        id="run_1",
        thread_id="thread_1",
        assistant_id="asst_1",
        created=EPOCH,
        scenario=scenario,
        settings={},
        rounds=tuple(calls_of(ids, calls, reuse_ids=True) for calls in scenario.rounds),
        step_ids=("step_1", "step_2", "step_3"),
        message_id="msg_1",
    )
    for what, seconds in events:
        now = EPOCH + seconds  # may be earlier than before, like the polls of a lagging replica
        if what == "submit" and run.position(now).status == "requires_action" and run.as_of(now) is run:
            run.submissions.append(Submission(now, {"call_0": "1"}))
        elif what == "cancel" and run.cancelled is None:
            run.cancelled = now
        submitted = [submission.at for submission in run.submissions]
        assert run.position(now) == RunCourse(scenario, run.created, submitted, run.cancelled).at(now)
