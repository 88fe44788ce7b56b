"""The fixtures of the tests of what a journal is for."""

from __future__ import annotations

import pytest
from worlds import Crash, WireName


@pytest.fixture(params=["threads", "responses"])
async def crash(request: pytest.FixtureRequest) -> Crash:
    wire: WireName = request.param
    return Crash(wire)
