"""The fixtures of the tests of what a journal is for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres_server import PostgresServer, started_server
from worlds import Crash, WireName


@pytest.fixture(params=["threads", "responses"])
async def crash(request: pytest.FixtureRequest) -> Crash:
    wire: WireName = request.param
    return Crash(wire)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = started_server()
    yield server
    server.remove()


@pytest.fixture
def dsn(postgres: PostgresServer) -> str:
    """Return how to connect to a new database."""
    return postgres.new_database()
