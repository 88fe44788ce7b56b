"""Both transports: the tests of this folder run over each of them; `over` limits that for one test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from asyncruns import Client
from asyncruns.client.options import chosen_http
from asyncruns.transport.base import HTTPTransport

LIBRARIES: Final = ("aiohttp", "httptools")


Test = TypeVar("Test", bound=Callable[..., Any])


def over(*libraries: str) -> Callable[[Test], Test]:
    """Return a decorator that makes a test run over these libraries only."""

    def mark(test: Test) -> Test:
        test.over = libraries  # type: ignore[attr-defined]
        return test

    return mark


def defaults_of_client() -> dict[str, Any]:
    """Return the defaults of the client's options, as the dict that Python uses, so that changes take effect."""
    found: dict[str, Any] | None = Client.__init__.__kwdefaults__
    assert found is not None
    return found


def make_transport(base_url: str, **options: Any) -> HTTPTransport:
    """Return a transport of the kind that clients use in this test."""
    return chosen_http(defaults_of_client()["http"])(base_url, **options)
