"""Real processes with an SQLite journal, killed in the middle; `.ci/campaigns/kill_fleet.py` does it for hours."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from killed_fleet import kill_some

pytestmark = pytest.mark.slow


@pytest.mark.real_time
@pytest.mark.parametrize("wire", ["threads", "responses"])
async def test_nothing_is_lost_and_no_call_begins_twice(tmp_path: Path, wire: str) -> None:
    counted = await kill_some(tmp_path, wire, random.Random(wire), runs=10, at_most=3)
    assert counted.is_well, counted
    assert counted.kills > 0
    assert counted.begun > 0
