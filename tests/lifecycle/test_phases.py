"""The tables of phases, and their diagrams in the README."""

from __future__ import annotations

import pytest
from diagram import PAGE, drawn

from asyncruns.lifecycle import OBSERVABLE, STEPS, TERMINAL, Phase


def test_exactly_five_phases_are_ends() -> None:
    assert {phase for phase in Phase if phase.is_terminal} == TERMINAL
    assert len(TERMINAL) == 5
    assert not Phase.NEEDS_CALLER.is_terminal
    assert not Phase.CANCELLING.is_terminal


def test_every_named_phase_has_its_steps() -> None:
    assert set(STEPS) == set(Phase) - {Phase.UNKNOWN}


@pytest.mark.parametrize("phase", sorted(TERMINAL, key=str))
def test_nothing_follows_an_end(phase: Phase) -> None:
    assert STEPS[phase] == frozenset()
    assert OBSERVABLE[phase] == {phase}


def test_a_poller_may_miss_any_number_of_steps() -> None:
    assert Phase.SUCCEEDED in OBSERVABLE[Phase.PENDING]
    assert Phase.NEEDS_CALLER in OBSERVABLE[Phase.NEEDS_CALLER]
    assert Phase.CANCELLED in OBSERVABLE[Phase.NEEDS_CALLER]


def test_a_run_that_is_being_cancelled_does_not_return_to_work() -> None:
    assert Phase.RUNNING not in OBSERVABLE[Phase.CANCELLING]
    assert Phase.SUCCEEDED in OBSERVABLE[Phase.CANCELLING]


def test_the_observable_is_closed_under_steps() -> None:
    for phase, after in OBSERVABLE.items():
        for reached in after - {Phase.UNKNOWN}:
            assert STEPS[reached] <= after, (phase, reached)


def test_the_diagrams_of_contributing_match_the_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert drawn(page) == page, "run python tests/lifecycle/diagram.py"


@pytest.mark.parametrize("phase", list(Phase))
def test_an_unknown_phase_may_follow_any_phase_but_an_end_and_lead_anywhere(phase: Phase) -> None:
    assert (Phase.UNKNOWN in OBSERVABLE[phase]) is not phase.is_terminal
    assert phase in OBSERVABLE[Phase.UNKNOWN]
    assert set(OBSERVABLE) == set(Phase)
