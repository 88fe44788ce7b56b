"""The benchmark of 200 runs on a server with many faults keeps its promise; here with fewer runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "many_faults.py"
RUNS = 10 if sys.flags.dev_mode else 50


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("many_faults", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "many_faults", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["asyncruns", "asyncruns, a fleet"])
def test_all_runs_complete_each_call_is_executed_once_and_no_submit_is_refused(benchmark: Any, name: str) -> None:
    figures = benchmark.run(name, RUNS)
    assert benchmark.violations(figures, RUNS) == []
    # The faults did occur: a fifth of all answers, and a third of the answers to submits.
    assert figures.answers_spoiled >= figures.requests / 5
    assert figures.submit_answers_lost >= RUNS * benchmark.ROUNDS / 3


def test_a_broken_promise_is_reported(benchmark: Any) -> None:
    figures = benchmark.run("asyncruns", 3)
    assert "completed is 3, not 4" in benchmark.violations(figures, 4)
