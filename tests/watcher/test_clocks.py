"""Servers with inconsistent times: ends are seen just as soon, and no watch finishes before its run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from shells import Shell, watched

from asyncruns import Client, Completed, RunRef

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "clocks.py"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("clocks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["clocks"] = module  # where its dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


clocks = _load()
HOUR = clocks.HOUR
TWO = (clocks.RIGHT, "both 8 h behind")
WRONG = [name for name in clocks.TIMES if name != clocks.RIGHT]
RUNS = 10 if sys.flags.dev_mode else 25
REF = RunRef("thread.run", ("t", "run_0"))
RESPONSE = RunRef("response", ("resp_0",))


@pytest.fixture(scope="module", params=["threads", "responses"])
def wire(request: pytest.FixtureRequest) -> tuple[str, float]:
    """Return a wire, and the mean delay of a fleet on it if all times are right."""
    return request.param, clocks.trial(clocks.TIMES[clocks.RIGHT], "fleet", request.param, "5 s", RUNS)["delay_s"]


@pytest.mark.parametrize("name", WRONG)
def test_a_fleet_sees_the_ends_as_soon_whatever_the_servers_clocks_show(name: str, wire: tuple[str, float]) -> None:
    kind, right = wire
    found = clocks.trial(clocks.TIMES[name], "fleet", kind, "5 s", RUNS)
    assert found["wrong_ends"] == 0
    assert found["delay_s"] < 1.5 * right


def test_ends_of_long_runs_are_seen_as_soon_although_the_clocks_are_hours_behind() -> None:
    right, wrong = (clocks.trial(clocks.TIMES[name], "fleet", "threads", "120 s", 12) for name in TWO)
    assert wrong["wrong_ends"] == 0
    assert wrong["delay_s"] < 1.5 * right["delay_s"]


@pytest.mark.parametrize("name", WRONG)
async def test_no_clock_ends_the_watch_of_a_run_that_goes_on(name: str, shell: Shell) -> None:
    server = clocks.Server(clocks.TIMES[name], "threads", [120.0])
    outcome = await watched(shell, Client(transport=server), REF)
    assert isinstance(outcome, Completed)
    assert outcome.elapsed < 123.0


@pytest.mark.parametrize("behind", [0.0, 8 * HOUR, 3 * clocks.YEAR, -8 * HOUR])
@pytest.mark.parametrize("has_date", [True, False])
async def test_a_run_is_watched_for_the_hour_that_its_server_allows(
    behind: float, has_date: bool, shell: Shell
) -> None:
    times = clocks.Times(
        created=clocks.off(-behind),
        expires=clocks.off(HOUR - behind),
        date=(lambda asked: asked.now) if has_date else (lambda asked: None),
    )
    server = clocks.Server(times, "threads", [1500.0])
    assert isinstance(await watched(shell, Client(transport=server), REF), Completed)


@pytest.mark.parametrize("behind", [0.0, 8 * HOUR, 3 * clocks.YEAR])
async def test_a_response_is_watched_for_the_window_that_was_requested(behind: float, shell: Shell) -> None:
    times = clocks.Times(created=clocks.off(-behind))
    server = clocks.Server(times, "responses", [5000.0])
    server.more = {"background_options": {"completion_window": "2h"}}
    client = Client(transport=server)
    outcome = await watched(shell, client.for_run(RESPONSE), RESPONSE)
    assert isinstance(outcome, Completed)


async def test_a_watch_ends_a_minute_after_the_expiry_of_its_run(shell: Shell) -> None:
    """Nothing contradicts the clocks, and the server never marks the run as expired."""
    times = clocks.Times(created=clocks.off(-500.0), expires=clocks.off(100.0))
    server = clocks.Server(times, "threads", [1e6])
    outcome = await watched(shell, Client(transport=server), REF)
    assert outcome.status == "in_progress"
    assert outcome.elapsed == pytest.approx(160.0, abs=3.0)


async def test_a_run_that_never_ends_and_whose_expiry_is_wrong_is_given_up_after_its_lifetime(shell: Shell) -> None:
    server = clocks.Server(clocks.TIMES["both 8 h behind"], "threads", [1e6])
    outcome = await watched(shell, Client(transport=server), REF)
    assert outcome.status == "in_progress"
    assert outcome.elapsed == pytest.approx(660.0, abs=3.0)
