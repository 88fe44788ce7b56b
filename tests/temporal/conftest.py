"""The fixtures of the tests of asyncruns.temporal: a dev server of Temporal, and a stage for each test.

The server is one for all tests of a process; each test has its own task queue, emulator and client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import flows
import pytest
from dev_server import KEY, DevServer, Stage
from shard_bench import Bench

from asyncruns import Client
from asyncruns.testing import Emulator


@pytest.fixture(scope="session")
def temporal_address() -> Iterator[str]:
    """Return the address of a dev server of Temporal."""
    server = DevServer()
    yield server.address
    server.kill()


@pytest.fixture
async def stage(temporal_address: str, emulator: Emulator) -> AsyncIterator[Stage]:
    """Return what a test needs: `async with stage.worker(tools=tools): await stage.run(flows.Ask.run, ref)`."""
    async with Client(emulator.base_url, api_key=KEY) as client:
        yield Stage(temporal_address, emulator, client, flows.WORKFLOWS)


@pytest.fixture
def bench() -> Bench:
    return Bench()
