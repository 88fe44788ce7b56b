"""The fixtures for users' tests; pytest loads this module if asyncruns is installed, `-p no:asyncruns` leaves it out.

It must cost nothing where it is not used: it imports no other module of the package before a fixture is used, and
changes nothing for tests that use none. It works with pytest-asyncio, in both modes, and with anyio's plugin.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    import asyncio

    from asyncruns.client.client import Client
    from asyncruns.testing import Emulator, InMemoryTransport

_VIRTUAL_TIME: Final = "asyncruns_virtual_time"
_BACKEND: Final = "anyio_backend"  # the fixture of anyio's plugin
_COLLECTING: Final = ("0.", "1.0.")  # the versions of pytest-asyncio that look for fixtures when tests are collected
_ASYNCIO: Final = "asyncio"  # the name of pytest-asyncio's plugin, and of its mark


async def _emulator() -> AsyncIterator[Emulator]:
    """An `Emulator` that listens on a port of this machine, in the event loop of the test."""
    from asyncruns.testing import Emulator

    async with Emulator() as emulator:
        yield emulator


asyncruns_emulator: Any = pytest.fixture(name="asyncruns_emulator")(_emulator)


@pytest.fixture
def asyncruns_memory() -> InMemoryTransport:
    """An `InMemoryTransport`: the emulated server without sockets."""
    from asyncruns.testing import InMemoryTransport

    return InMemoryTransport()


@pytest.fixture
def asyncruns_client(asyncruns_memory: InMemoryTransport) -> Client:
    """A `Client` of the server `asyncruns_memory`."""
    from asyncruns.client.client import Client

    return Client(transport=asyncruns_memory)


@pytest.fixture
def asyncruns_virtual_time() -> None:
    """Run the test on a `VirtualTimeLoop`; for many tests use the mark `usefixtures`, or the setting of that name.

    The loop is chosen when tests are collected, so `request.getfixturevalue` has no effect.
    """


# Virtual time


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None]:
    """Choose the loop of a test that is to run in virtual time."""
    if _VIRTUAL_TIME not in metafunc.fixturenames or not inspect.iscoroutinefunction(metafunc.function):
        return (yield)
    if _BACKEND in metafunc.fixturenames:
        _choose_backend(metafunc.definition)
        return (yield)
    with _loops_chosen(metafunc.config):
        return (yield)


def _choose_backend(item: pytest.Item) -> None:
    """Parametrize a test of anyio's plugin, unless its author does."""
    from asyncruns.testing import VirtualTimeLoop

    given = [mark.args[0] for mark in item.iter_markers("parametrize") if mark.args]
    if not any(_BACKEND in (names.split(",") if isinstance(names, str) else names) for names in given):
        backend = pytest.param((_ASYNCIO, {"loop_factory": VirtualTimeLoop}), id=_ASYNCIO)
        item.add_marker(pytest.mark.parametrize(_BACKEND, [backend]))


@contextmanager
def _loops_chosen(config: pytest.Config) -> Iterator[None]:
    """Choose the loop of tests of pytest-asyncio, for one test: a hook that stayed would affect all others."""
    manager = config.pluginmanager
    if not manager.has_plugin(_ASYNCIO):
        yield
        return
    if not hasattr(config.hook, "pytest_asyncio_loop_factories"):
        pytest.fail(f"{_VIRTUAL_TIME} needs pytest-asyncio 1.5 or later, or anyio's plugin", pytrace=False)
    plugin = _VirtualLoops()
    manager.register(plugin)
    try:
        yield
    finally:
        manager.unregister(plugin)


class _VirtualLoops:
    @pytest.hookimpl(optionalhook=True)
    def pytest_asyncio_loop_factories(self) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
        from asyncruns.testing import VirtualTimeLoop

        return {"virtual": VirtualTimeLoop}


# The strict mode of pytest-asyncio


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(fixturedef: Any, request: pytest.FixtureRequest) -> Generator[None, object, object]:
    """Mark the emulator for pytest-asyncio, which in its strict mode runs marked fixtures only, in the test's loop.

    The mark stays until the next setup: pytest-asyncio looks for it again when it calls the test.
    """
    is_ours = fixturedef.argname == "asyncruns_emulator" and fixturedef.func.__module__ == __name__
    if is_ours and inspect.isasyncgenfunction(fixturedef.func):  # otherwise such a version has wrapped it
        plugin = sys.modules.get("pytest_asyncio")
        is_theirs = _BACKEND not in request.fixturenames and request.config.pluginmanager.has_plugin(_ASYNCIO)
        if plugin is not None and is_theirs and plugin.__version__.startswith(_COLLECTING):
            pytest.fail(
                "asyncruns_emulator needs pytest-asyncio 1.1 or later, its mode auto, or anyio's plugin; or write a "
                "fixture of your own: async with Emulator() as emulator: yield emulator",
                pytrace=False,
            )
        fixturedef.func = _marked(plugin, request) if plugin is not None and is_theirs else _emulator
    return (yield)


def _marked(plugin: Any, request: pytest.FixtureRequest) -> Callable[[], AsyncIterator[Emulator]]:
    """Return a copy of the fixture's function with the mark, which a test of anyio's plugin must not see."""

    async def emulator() -> AsyncIterator[Emulator]:
        from asyncruns.testing import Emulator

        async with Emulator() as server:
            yield server

    mark = request.node.get_closest_marker(_ASYNCIO)
    given = mark.kwargs.get("loop_scope") if mark is not None else None
    plugin.fixture(loop_scope=given or request.config.getini("asyncio_default_test_loop_scope"))(emulator)
    return emulator
