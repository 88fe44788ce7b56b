"""A program dies at each await of its journal, of its requests and of its tools, and another one goes on."""

from __future__ import annotations

import random

import pytest
from worlds import ShellName, WireName, lives

from asyncruns import Completed
from asyncruns.testing import Fault

OTHER_SHELLS = ["fleet", "single", "run"]
shells = pytest.mark.parametrize("shell", ["fleet.run", *OTHER_SHELLS])
wires = pytest.mark.parametrize("wire", ["threads", "responses"])


def seeds(count: int) -> list[object]:
    """Return as many seeds; all but the first few are for `pytest -m slow`."""
    return [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= 10)) for seed in range(count)]


@wires
@shells
async def test_a_program_that_never_dies_leaves_nothing_in_the_journal(wire: WireName, shell: ShellName) -> None:
    world, _ = await lives(wire, shell)
    world.check()
    assert sorted(world.told) == [0, 1]
    assert all(isinstance(outcome, Completed) for told in world.told.values() for outcome in told)


@wires
@pytest.mark.parametrize("shell", ["fleet.run", *(pytest.param(each, marks=pytest.mark.slow) for each in OTHER_SHELLS)])
async def test_a_program_may_die_at_every_point(wire: WireName, shell: ShellName) -> None:
    _, (process,) = await lives(wire, shell)
    for dies_at in range(1, process.points + 1):
        world, _ = await lives(wire, shell, dies_at)
        world.check()


@wires
@pytest.mark.parametrize("seed", seeds(100))
@pytest.mark.parametrize("shell", ["fleet", "fleet.run"])
async def test_a_program_may_die_again_and_again(wire: WireName, shell: ShellName, seed: int) -> None:
    chance = random.Random(seed)
    world, _ = await lives(wire, shell, *(chance.randrange(1, 60) for _ in range(chance.randrange(2, 5))))
    world.check()


@pytest.mark.parametrize("seed", seeds(100))
async def test_a_program_may_die_while_its_server_is_in_trouble(seed: int) -> None:
    """Answers to submits are lost, also of those that acted, and polls show older states."""
    chance = random.Random(seed)
    troubles = [
        Fault(on="submit", status=502, acts=True, skip=chance.randrange(2), times=2),
        Fault(on="submit", drop=True, acts=True, skip=chance.randrange(4)),
        Fault(on="submit", status=503, skip=chance.randrange(4)),
        Fault(on="poll", stale=1.0, skip=chance.randrange(6), times=chance.randrange(1, 4)),
        Fault(on="poll", status=500, every=3, times=4),
    ]
    deaths = [chance.randrange(1, 70) for _ in range(chance.randrange(1, 4))]
    world, _ = await lives("threads", "fleet", *deaths, faults=troubles)
    world.check()


@wires
@pytest.mark.parametrize("shell", ["fleet.run", "run"])
@pytest.mark.parametrize("seed", seeds(50))
async def test_a_program_may_die_while_the_answers_to_creates_are_lost(
    wire: WireName, shell: ShellName, seed: int
) -> None:
    """No run is created twice, and each one that was asked for ends in an outcome."""
    chance = random.Random(seed)
    operations = ["create_run", "create_message"] if wire == "threads" else ["create_response"]
    troubles = [
        Fault(on=operation, skip=chance.randrange(3), **how)  # type: ignore[arg-type]
        for operation in operations
        for how in ({"drop": True, "acts": True}, {"status": 502, "acts": True}, {"status": 503}, {"delay_after": 0.5})
        if chance.random() < 0.5
    ]
    troubles.append(Fault(on="create_thread", drop=True, acts=True, skip=chance.randrange(3)))
    deaths = [chance.randrange(1, 40) for _ in range(chance.randrange(1, 4))]
    world, _ = await lives(wire, shell, *deaths, faults=troubles)
    world.check()


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["fleet.run", "run"])
async def test_a_lost_response_is_created_again_if_that_is_wanted(shell: ShellName) -> None:
    _, (process,) = await lives("responses", shell)
    for dies_at in range(1, process.points + 1):
        world, _ = await lives("responses", shell, dies_at, on_lost_submit="resend")
        world.check()
        outcomes = [outcome for told in world.told.values() for outcome in told]
        assert all(isinstance(outcome, Completed) for outcome in outcomes), outcomes
