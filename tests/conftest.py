"""Fixtures of the whole suite: virtual time for every async test, an emulator, and a plain HTTP client for it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from typing import Any, Final

import aiohttp
import pytest
from blockbuster import BlockBuster, BlockBusterFunction, blockbuster_ctx

from asyncruns.testing import Emulator, VirtualTimeLoop


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_time: run this async test on a loop with real time.")
    config.addinivalue_line(
        "markers", "slow: a test of a second or more, or one that starts servers; only `pytest -m slow` runs it."
    )
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts background processes like this; the programs that tests interrupt would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    """Start workers only if they save time: for single files they would not."""
    workers = yield
    is_small = any(argument.partition("::")[0].endswith(".py") for argument in config.args)
    return 0 if is_small or workers == 1 else workers


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("real_time") is not None:
        return {"real": asyncio.new_event_loop}
    return {"virtual": VirtualTimeLoop}


# The clock of virtual time has to wait in real time; the command line prints.
MAY_BLOCK: Final = ["asyncruns.testing", "asyncruns.cli"]
# Functions that BlockBuster does not check by itself.
ALSO_BLOCKING: Final = ("socket.getaddrinfo", "socket.gethostbyname", "builtins.open", "subprocess.Popen.__init__")


@pytest.fixture(scope="session", autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """Raise a BlockingError if the package, or a function that it calls, blocks a running event loop."""
    with blockbuster_ctx("asyncruns", excluded_modules=MAY_BLOCK) as blockbuster:
        for name in ALSO_BLOCKING:
            function = BlockBusterFunction(None, name, scanned_modules="asyncruns", excluded_modules=MAY_BLOCK)
            # anyio and asyncruns import some of their modules on first use, once in a process.
            function.can_block_in("<frozen importlib._bootstrap>", "_find_and_load")
            blockbuster.functions[name] = function.activate()
        # It is in MAY_BLOCK, too, but sleeps so often that checking its whole call stack each time would take seconds.
        blockbuster.functions["time.sleep"].can_block_in("asyncruns/testing/clock.py", "_poll_again")
        # A line is written at once, as a log is, so that it is in the file if the process dies.
        blockbuster.functions["os.write"].can_block_in("asyncruns/testing/recording.py", "write")
        yield blockbuster


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as emulator:
        yield emulator


@pytest.fixture
async def ask(emulator: Emulator) -> AsyncIterator[Callable[..., Awaitable[tuple[int, Any]]]]:
    """Return a function that sends one request to the emulator: `await ask("GET", "/threads/x")` -> (status, body)."""
    async with aiohttp.ClientSession() as session:

        async def send(method: str, path: str, body: object = None, **query: str) -> tuple[int, Any]:
            url = emulator.base_url + path
            async with session.request(method, url, json=body, params=query) as response:
                return response.status, await response.json()

        yield send
