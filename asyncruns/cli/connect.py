"""Choose the server and the credentials. Never send a key to another URL than the one that it was set for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, cast

from asyncruns.client.client import Client
from asyncruns.client.options import ClientOptions, with_proxy_of_environment
from asyncruns.errors import ConfigurationError
from asyncruns.transport.auth import ApiKeyAuth, Auth, BearerAuth, Headers, check_header

_ENVIRONMENT: Final = (("ASYNCRUNS_BASE_URL", "ASYNCRUNS_API_KEY"), ("OPENAI_BASE_URL", "OPENAI_API_KEY"))
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
    if base_url is None and api_key is not None:
        raise ConfigurationError("--api-key needs --base-url: a key is only sent to the URL that it was set for")
    # With an explicit URL, a key from the environment is used only if it was set for the same URL.
    pair = _pair_of_environment(base_url)
    if base_url is None:
        if pair is None:
            return Client.from_env()  # raises an error that names what is missing
        base_url = pair[0]
    if api_key is None and pair is not None:
        api_key = pair[1]
    auth: Auth | None = None
    if api_key is not None:
        auth = BearerAuth(api_key) if auth_header is None else ApiKeyAuth(api_key, header=auth_header)
    elif auth_header is not None:
        raise ConfigurationError("--auth-header names the header for a key, but there is no key: add --api-key")
    auth = SignedHeaders(auth, headers) if headers else auth
    return Client(base_url, auth=auth, **with_proxy_of_environment(base_url, cast("ClientOptions", options)))


def _pair_of_environment(base_url: str | None) -> tuple[str, str] | None:
    """Return the first complete pair of URL and key, if `base_url` is not None only for that URL."""
    for url_name, key_name in _ENVIRONMENT:
        url, key = os.environ.get(url_name), os.environ.get(key_name)
        if url and key and (base_url is None or url.rstrip("/") == base_url.rstrip("/")):
            return url, key
    return None
