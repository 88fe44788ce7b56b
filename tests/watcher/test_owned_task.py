"""The one background task of a watch or a fleet: how it begins, and who gets its failure."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scripted import ok, scene
from shells import Shell

from asyncruns import Cadence, Fleet, Watch
from asyncruns.errors import ConfigurationError


async def test_an_owner_whose_task_is_cancelled_before_its_first_step_does_not_hang(shell: Shell) -> None:
    stage = scene(ok("in_progress"))

    async def enter() -> None:
        async with shell(stage, stage.ref):
            pass

    entering = asyncio.create_task(enter())
    await asyncio.sleep(0)
    for task in asyncio.all_tasks():
        if task.get_name().startswith("asyncruns"):
            task.cancel()
    done, _ = await asyncio.wait({entering}, timeout=1.0)
    assert done


async def test_the_failure_of_a_fleet_reaches_the_task_that_entered_it_though_another_had_it_first() -> None:
    stage = scene(*[ok("in_progress")] * 100)
    before = asyncio.all_tasks()

    async def handle(watch: Watch[Any]) -> None:
        with pytest.raises(RuntimeError):
            await watch

    with pytest.raises(RuntimeError, match="from outside"):
        async with Fleet(stage) as fleet:
            watch = fleet.watch(stage.ref)
            await asyncio.sleep(0.05)
            for task in asyncio.all_tasks() - before:
                if "_work" in repr(task):
                    task.cancel()
            await asyncio.sleep(0.1)
            await asyncio.create_task(handle(watch))


def test_a_cadence_is_made_by_its_four_factories_alone() -> None:
    with pytest.raises(ConfigurationError, match=r"Cadence\.fixed\(2\.0\)"):
        Cadence(2.0)  # type: ignore[arg-type]
