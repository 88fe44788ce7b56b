"""What a watch promises holds in each shell: a test that asks for `shell` runs once for every one."""

from __future__ import annotations

import pytest
from shells import SHELLS, Shell
from wires import tools, way, wire

__all__ = ["tools", "way", "wire"]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> Shell:
    return SHELLS[request.param]
