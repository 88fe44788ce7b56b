from __future__ import annotations

import asyncio

import pytest
from transports import LIBRARIES

from asyncruns import APIConnectionError, Client, ConfigurationError


@pytest.mark.parametrize("http", LIBRARIES, indirect=True)
def test_a_client_of_another_event_loop_raises() -> None:
    client = Client("http://127.0.0.1:9/v1", max_retries=0)

    async def ask() -> None:
        await client.threads.retrieve("thread_1")

    with asyncio.Runner() as first:
        with pytest.raises(APIConnectionError):
            first.run(ask())
        with asyncio.Runner() as second, pytest.raises(ConfigurationError, match="another event loop"):
            second.run(ask())
        first.run(client.close())
