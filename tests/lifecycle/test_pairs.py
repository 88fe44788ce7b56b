"""Every event in every situation."""

from __future__ import annotations

from pairs import WRITTEN, pairs, written
from situations import SITUATIONS

from asyncruns.lifecycle import MOVES, Event, State


def test_what_the_machine_does_is_written_down() -> None:
    assert WRITTEN.read_text(encoding="utf-8") == written(), "read what changed: python tests/lifecycle/pairs.py"


def test_the_situations_are_of_all_states() -> None:
    assert {make().machine.state for make in SITUATIONS.values()} == set(State)


def test_no_event_leads_where_the_table_does_not() -> None:
    for situation, name, event, before, after, _ in pairs():
        allowed = MOVES[before].get(type(event), frozenset()) | {before}
        assert after in allowed, (situation, name)


def test_every_move_of_the_table_happens() -> None:
    found = {(before, type(event), after) for _, _, event, before, after, _ in pairs()}
    listed: set[tuple[State, type[Event], State]] = {
        (before, kind, after) for before, moves in MOVES.items() for kind, states in moves.items() for after in states
    }
    assert listed <= found


def test_illegal_input_raises_and_leaves_the_state_as_it_was() -> None:
    raised = [(before, after) for _, _, _, before, after, done in pairs() if done == "raises"]
    assert raised
    assert all(before is after for before, after in raised)
