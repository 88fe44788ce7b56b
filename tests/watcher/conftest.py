"""Fixtures of the tests of a watch. A test with the argument `shell` runs once for each shell."""

from __future__ import annotations

import pytest
from shells import SHELLS, Shell
from wires import tools, way, wire

__all__ = ["tools", "way", "wire"]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> Shell:
    return SHELLS[request.param]
