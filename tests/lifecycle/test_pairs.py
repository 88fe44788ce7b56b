"""Every event in every situation, compared with pairs.txt and with the table of moves."""

from __future__ import annotations

from pairs import WRITTEN, pairs, written
from situations import SITUATIONS

from asyncruns.lifecycle import MOVES, Event, State


def test_pairs_txt_lists_what_the_machine_does() -> None:
    assert WRITTEN.read_text(encoding="utf-8") == written(), (
        "run python tests/lifecycle/pairs.py and review the changes of pairs.txt"
    )


def test_the_situations_cover_all_states() -> None:
    assert {make().machine.state for make in SITUATIONS.values()} == set(State)


def test_no_event_makes_a_move_that_is_not_in_the_table() -> None:
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
