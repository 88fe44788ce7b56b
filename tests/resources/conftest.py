"""A fixture: a thread at the emulator, and a client whose answers can be lost."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from lossy import Stage, faulty_client

from asyncruns.testing import Emulator, Scenario


@pytest.fixture
async def stage(emulator: Emulator) -> AsyncIterator[Stage]:
    emulator.script(Scenario(end="never"), assistant_id="asst_1")
    emulator.script(Scenario(working=30.0), assistant_id="asst_other")
    client, faulty = faulty_client(emulator)
    async with client:
        yield Stage(emulator, client, faulty, (await client.threads.create()).id)
