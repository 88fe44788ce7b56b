"""The server, the key and the proxy that environment variables name. A key is only sent to the host it was set for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from asyncruns.client.options import ClientOptions
from asyncruns.dialects.errors import RETIRED
from asyncruns.errors import ConfigurationError
from asyncruns.transport.urls import check_base_url, proxy_of_environment

_NAMES: Final = ("ASYNCRUNS_BASE_URL", "ASYNCRUNS_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY")

OPENAI_API_URL: Final = "https://api.openai.com/v1"  # where the official client sends `OPENAI_API_KEY` by default


def servers_of_environment() -> Iterator[tuple[str, str | None]]:
    """Yield the base URL of each server that the environment names, with its key or None, in order of precedence."""
    if base_url := _value("ASYNCRUNS_BASE_URL"):
        yield base_url, os.environ.get("ASYNCRUNS_API_KEY")
    if key := _value("OPENAI_API_KEY"):
        yield _value("OPENAI_BASE_URL") or OPENAI_API_URL, key


def server_of_environment() -> tuple[str, str | None]:
    """Return the base URL of the first server that the environment names, and its key or None.

    Raises:
        ConfigurationError: It names none; the message says which variables are missing. Or the key of the server is
            empty.
    """
    for base_url, key in servers_of_environment():
        if key is not None and not key.strip():
            raise ConfigurationError(
                "ASYNCRUNS_API_KEY is empty: set it to the key for ASYNCRUNS_BASE_URL, or unset it if that server "
                "needs no key"
            )
        return base_url, key
    state = ", ".join(f"{name} is {'set' if _value(name) else 'not set'}" for name in _NAMES)
    raise ConfigurationError(
        "Set ASYNCRUNS_BASE_URL, and ASYNCRUNS_API_KEY if the server needs a key; or OPENAI_API_KEY, with "
        f"OPENAI_BASE_URL for another server than {OPENAI_API_URL} ({state}). A key is only sent to the host that it "
        f"was set for. {RETIRED}"
    )


def with_proxy_of_environment(base_url: str, options: ClientOptions) -> ClientOptions:
    """Return options with the proxy that the environment names for this server.

    Options with `proxy`, with a `session`, or with a true `trust_env` are returned unchanged: they decide themselves.

    Raises:
        ConfigurationError: The environment names a proxy that can't be used, or the base URL is invalid.
    """
    says_how = "proxy" in options or options.get("session") is not None or options.get("trust_env")
    return options if says_how else {**options, "proxy": proxy_of_environment(check_base_url(base_url))}


def _value(name: str) -> str:
    """Return a variable, or "" if it is blank or not set."""
    value = os.environ.get(name, "")
    return value if value.strip() else ""
