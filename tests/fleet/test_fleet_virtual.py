"""The benchmark of ten thousand runs of ten minutes in virtual time, with fewer runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fleet_virtual.py"
RUNS = 100 if sys.flags.dev_mode else 1000
PER_SECOND = RUNS / 200  # so that each run could be polled every 200 s


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("fleet_virtual", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fleet_virtual", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_many_runs_of_ten_minutes_are_watched_to_their_ends_with_a_small_budget(benchmark: Any) -> None:
    figures = benchmark.run(RUNS, PER_SECOND)
    assert figures.completed == RUNS
    assert figures.polls <= PER_SECOND * figures.virtual_s + 1
    # Polling all runs in turn would see ends late by half a turn on average, and by a whole one at worst.
    assert figures.mean_delay_s < 0.6 * RUNS / PER_SECOND
    assert figures.virtual_s < 660.0 + RUNS / PER_SECOND
