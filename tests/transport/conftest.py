"""Every async test of this folder runs over both transports, unless `OVER` in its module, or `@over`, names one."""

from __future__ import annotations

import inspect

import pytest
from transports import LIBRARIES, defaults_of_client


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if inspect.iscoroutinefunction(metafunc.function):
        libraries = getattr(metafunc.function, "over", getattr(metafunc.module, "OVER", LIBRARIES))
        metafunc.parametrize("http", libraries, indirect=True)


@pytest.fixture(autouse=True)
def http(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make every client of the test send with one of the libraries, and return its name."""
    name: str = getattr(request, "param", "aiohttp")
    monkeypatch.setitem(defaults_of_client(), "http", name)
    return name
