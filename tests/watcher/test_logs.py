"""What is logged of a watch: statuses and outcome at INFO, polls at DEBUG, with the run's ids, and no content."""

from __future__ import annotations

import logging

import pytest
from wires import Wire

from asyncruns import Toolset
from asyncruns.fleet import Fleet
from asyncruns.testing import FunctionCall

CALLS = (FunctionCall("recite", {"what": "a secret argument"}),)


def recite(what: str) -> str:
    """Recite."""
    return f"a secret output about {what}"


def logger_of(wire: Wire) -> str:
    return "asyncruns.watch" if wire.shell.__name__ == "RunWatcher" else "asyncruns.fleet"


async def test_statuses_and_the_outcome_are_logged_at_info_with_the_ids_of_the_run(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asyncruns")
    run = await wire.start(rounds=(CALLS,), answer="a secret answer")
    outcome = await wire.watch(run, tools=Toolset([recite]))
    records = [record for record in caplog.records if record.name == logger_of(wire)]
    said = [record.getMessage() for record in records]
    assert any("outputs submitted: 1" in text for text in said)
    assert said[-1].startswith(f"{outcome.ref}: Completed as completed after ")
    assert {record.levelno for record in records} == {logging.INFO}
    refs = {str(ref) for ref in outcome.refs}
    assert {vars(record)["run_ref"] for record in records} <= refs
    assert {vars(record)["run_dialect"] for record in records} == {outcome.ref.dialect}


async def test_polls_are_logged_at_debug_and_nothing_that_was_said_is(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "asyncruns")
    run = await wire.start(rounds=(CALLS,), answer="a secret answer")
    outcome = await wire.watch(run, tools=Toolset([recite]))
    polled = [record for record in caplog.records if record.getMessage().startswith("poll of ")]
    assert len(polled) == outcome.polls
    assert {record.levelno for record in polled} <= {logging.DEBUG}
    assert "secret" not in caplog.text


async def test_the_logger_of_a_fleet_is_its_own(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asyncruns")
    run = await wire.start()
    async with Fleet(wire.connection) as fleet:
        await fleet.watch(run)
    assert {record.name for record in caplog.records if "run_ref" in vars(record)} == {"asyncruns.fleet"}
