"""Choose the server and the credentials. Never send a key to another URL than the one that it was set for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

from asyncruns.client.anthropic import ANTHROPIC_API_URL, ANTHROPIC_VERSION, anthropic_server
from asyncruns.client.client import Client
from asyncruns.client.environment import (
    server_of_environment,
    servers_of_environment,
    with_proxy_of_environment,
)
from asyncruns.client.options import ClientOptions
from asyncruns.errors import ConfigurationError
from asyncruns.transport.auth import ApiKeyAuth, Auth, BearerAuth, Headers, check_header

_ANTHROPIC_KEY_HEADER: Final = "x-api-key"
_SECRET_WORDS: Final = ("auth", "key", "token", "secret", "cookie", "password")


class SignedHeaders(Auth):
    """Adds headers to those of another auth. Values of headers that are named like credentials are redacted as keys."""

    def __init__(self, auth: Auth | None, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            check_header(name, value)
        self._headers: Headers = {**((auth.ready() if auth else None) or {}), **headers}
        named_so = (value for name, value in headers.items() if any(word in name.lower() for word in _SECRET_WORDS))
        self._secrets = (*(auth.secrets() if auth else ()), *named_so)

    def ready(self) -> Headers:
        return self._headers

    def secrets(self) -> tuple[str, ...]:
        return self._secrets


def connect(
    base_url: str | None,
    api_key: str | None,
    *,
    auth_header: str | None = None,
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> Client:
    """Make a client from the command line, or from the environment if no URL is given. It uses the environment's proxy.

    Args:
        base_url: URL of the server; by default that of the environment, with its key.
        api_key: Key for that server; by default the environment's key, if it was set for the same URL.
        auth_header: Name of the header for the key; by default the key is sent as a bearer token.
        headers: Headers for every request; may hold credentials.
        **options: Options of `Client`.

    Raises:
        ConfigurationError: No server is configured, or the options are not valid for a request.
    """
    base_url, api_key = chosen_server(base_url, api_key)
    return _client(base_url, api_key, auth_header, headers, cast("ClientOptions", options))


def chosen_server(base_url: str | None, api_key: str | None) -> tuple[str, str | None]:
    """Return the URL of the server, and the key for it or None, as `connect` chooses them.

    Raises:
        ConfigurationError: No server is configured.
    """
    _check_key(base_url, api_key)
    if base_url is None:
        return server_of_environment()
    if api_key is None:  # a key from the environment is used only if it was set for the same URL
        api_key = _key_for(base_url, servers_of_environment())
    return base_url, api_key


def connect_anthropic(
    base_url: str | None,
    api_key: str | None,
    *,
    auth_header: str | None = None,
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> Client:
    """Make a client for Anthropic's API as `connect` does for OpenAI's.

    Without a URL, the server is Anthropic's if ANTHROPIC_API_KEY is set, or the one in ANTHROPIC_BASE_URL; otherwise
    that in ASYNCRUNS_BASE_URL, which may serve both APIs. The key is sent as `x-api-key`.

    Raises:
        ConfigurationError: As for `connect`.
    """
    _check_key(base_url, api_key)
    servers = list(_servers_of_anthropic())
    if base_url is not None:
        base_url, _ = anthropic_server(base_url, "")
        api_key = _key_for(base_url, servers) if api_key is None else api_key
    elif servers:
        base_url, api_key = servers[0]
    else:
        raise ConfigurationError(
            "For message batches set ANTHROPIC_API_KEY, with ANTHROPIC_BASE_URL for another server than "
            f"{ANTHROPIC_API_URL}; or ASYNCRUNS_BASE_URL, and ASYNCRUNS_API_KEY if the server needs a key"
        )
    if api_key is not None:
        auth_header = auth_header or _ANTHROPIC_KEY_HEADER
    options["default_headers"] = {"anthropic-version": ANTHROPIC_VERSION}
    return _client(base_url, api_key, auth_header, headers, cast("ClientOptions", options))


def _servers_of_anthropic() -> Iterator[tuple[str, str | None]]:
    """Yield the base URL and the key of each server of the environment that may serve Anthropic's API."""
    key, url = os.environ.get("ANTHROPIC_API_KEY"), os.environ.get("ANTHROPIC_BASE_URL")
    if key or url:
        yield anthropic_server(url, key or "")[0], key
    if os.environ.get("ASYNCRUNS_BASE_URL", "").strip():
        yield server_of_environment()


def _check_key(base_url: str | None, api_key: str | None) -> None:
    if base_url is None and api_key is not None:
        raise ConfigurationError("--api-key needs --base-url: a key is only sent to the URL that it was set for")


def _key_for(base_url: str, servers: Iterable[tuple[str, str | None]]) -> str | None:
    same = base_url.rstrip("/")
    return next((key for url, key in servers if key and url.rstrip("/") == same), None)


def _client(
    base_url: str,
    api_key: str | None,
    auth_header: str | None,
    headers: Mapping[str, str] | None,
    options: ClientOptions,
) -> Client:
    auth: Auth | None = None
    if api_key is not None:
        auth = BearerAuth(api_key) if auth_header is None else ApiKeyAuth(api_key, header=auth_header)
    elif auth_header is not None:
        raise ConfigurationError("--auth-header names the header for a key, but there is no key: add --api-key")
    auth = SignedHeaders(auth, headers) if headers else auth
    return Client(base_url, auth=auth, **with_proxy_of_environment(base_url, options))
