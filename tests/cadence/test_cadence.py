"""The public side of a cadence."""

from __future__ import annotations

import pickle

import pytest

from asyncruns.cadence import Cadence

CADENCES = {
    "hinted": Cadence.hinted(2.0),
    "fixed": Cadence.fixed(3.0),
    "backoff": Cadence.backoff(),
    "learned": Cadence.learned(),
}
ALL = pytest.mark.parametrize("cadence", CADENCES.values(), ids=CADENCES)


@ALL
def test_all_are_cadences(cadence: object) -> None:
    assert isinstance(cadence, Cadence)


@ALL
def test_only_the_constructors_are_public(cadence: Cadence) -> None:
    assert [name for name in dir(cadence) if not name.startswith("_")] == ["backoff", "fixed", "hinted", "learned"]


def test_cadences_that_do_not_learn_are_equal_if_their_numbers_are() -> None:
    assert Cadence.fixed(3.0) == CADENCES["fixed"] != Cadence.fixed(3.5)
    assert len({Cadence.hinted(2.0), CADENCES["hinted"], Cadence.backoff(), CADENCES["backoff"]}) == 2


def test_two_cadences_that_learn_are_never_equal() -> None:
    assert Cadence.learned() != Cadence.learned()
    assert len({Cadence.learned(), Cadence.learned()}) == 2


def test_the_repr_shows_the_constructor_and_its_numbers() -> None:
    assert repr(CADENCES["hinted"]) == "<Cadence.hinted start=0.25 growth=1.5 interval=2.0>"
    assert repr(CADENCES["fixed"]) == "<Cadence.fixed start=3.0 growth=1.0 interval=3.0>"
    assert repr(CADENCES["backoff"]) == "<Cadence.backoff start=0.5 growth=1.5 interval=10.0>"
    assert repr(CADENCES["learned"]) == "<Cadence.learned poll_worth=0.05 floor=0.1 ceiling=30.0 groups=0 runs=0>"


@ALL
def test_a_cadence_can_be_pickled(cadence: Cadence) -> None:
    assert repr(pickle.loads(pickle.dumps(cadence))) == repr(cadence)
