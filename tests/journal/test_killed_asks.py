"""Real processes that ask for runs with an SQLite journal, killed in the middle."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from killed_asks import kill_askers

pytestmark = pytest.mark.slow


@pytest.mark.real_time
@pytest.mark.parametrize("wire", ["threads", "responses"])
async def test_no_run_is_created_twice_and_none_is_lost(tmp_path: Path, wire: str) -> None:
    asked = await kill_askers(tmp_path, wire, random.Random(wire), runs=10, at_most=2)
    assert asked.is_well, asked
    assert asked.kills > 0
