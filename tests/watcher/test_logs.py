"""What is logged of a watch: statuses and outcome at INFO, polls at DEBUG, with the run's ids, and no content."""

from __future__ import annotations

import asyncio
import logging

import pytest
from wires import Wire, about_polls

from asyncruns import Completed, RunRef, Toolset
from asyncruns.fleet import Fleet
from asyncruns.testing import Fault, FunctionCall
from asyncruns.watch.logs import fields_of

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


class _Raising(logging.Handler):
    """A handler of an application with a bug."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the disk is full")


async def test_a_handler_that_raises_ends_no_watch(wire: Wire) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    handler, logger = _Raising(), logging.getLogger("asyncruns")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        run = await wire.start(rounds=(CALLS,))
        outcome = await wire.watch(run, tools=Toolset([recite]))
        runs = [await wire.start() for _ in range(3)]
        async with Fleet(wire.connection) as fleet:
            ends = [await watch for watch in [fleet.watch(run) for run in runs]]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert isinstance(outcome, Completed)
    assert all(isinstance(end, Completed) for end in ends)
    assert reported


async def test_a_cause_is_logged_without_its_text_which_may_quote_a_body(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "asyncruns")
    run = await wire.start(answer="a secret answer")
    wire.emulator.inject(Fault(on="poll", damage="half"), Fault(on="poll", status=500))
    await wire.watch(run)
    assert "secret" not in caplog.text


def fail_for_a_minute(wire: Wire) -> None:
    wire.emulator.inject(Fault(on="poll", status=503, times=None))
    asyncio.get_running_loop().call_later(60.0, wire.emulator.faults.clear)


@about_polls
async def test_a_server_that_does_not_answer_is_warned_of_once_and_its_return_is_logged(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asyncruns")
    run = await wire.start(working=100.0)
    fail_for_a_minute(wire)
    outcome = await wire.watch(run)
    assert isinstance(outcome, Completed)
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in warned] == [logger_of(wire)]
    assert "requests have failed for 15 s, InternalServerError 503" in warned[0].getMessage()
    after = caplog.records[caplog.records.index(warned[0]) + 1 :]
    again = "succeed again" if logger_of(wire).endswith("fleet") else "healthy"
    assert [again in record.getMessage() for record in after].count(True) == 1


@pytest.mark.slow
@about_polls
async def test_a_fleet_warns_of_an_outage_once_a_minute_and_not_once_for_each_run(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asyncruns")
    runs = [await wire.start(working=100.0) for _ in range(30)]
    fail_for_a_minute(wire)
    async with Fleet(wire.connection) as fleet:
        watches = [fleet.watch(run) for run in runs]
        watches.pop().cancel()
        outcomes = [await watch for watch in watches]
    assert all(isinstance(outcome, Completed) for outcome in outcomes)
    said = [record.getMessage() for record in caplog.records if "requests" in record.getMessage()]
    assert len(said) == 2
    assert "other runs of the fleet" in said[0]
    assert said[1].endswith("requests succeed again, for all runs of the fleet")


def test_ids_of_a_server_are_on_one_line_in_the_fields() -> None:
    fields = fields_of(RunRef("thread.run", ("thread_1", "run\n\x1b[31m1")))
    assert "\n" not in fields["run_ref"]
    assert "\x1b" not in fields["run_ref"]
