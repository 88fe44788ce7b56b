"""The fixtures of the fleet's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from stage import Stage


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    async with stage.client:
        yield stage
