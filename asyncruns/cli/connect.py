"""Which server to ask, and how to sign. A key goes only to the URL that it was given for."""

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
    """Add headers to those that sign: the ones named like credentials are kept out of every text, as a key is."""

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
    """Make a client from what the command line says, or else from the environment, whose proxy counts in any case.

    Args:
        base_url: The server; by default that of the environment, with its key.
        api_key: The key for that server; by default that of the environment if it was set for the same URL.
        auth_header: A header of its own for the key; by default it is a bearer token.
        headers: For every request; may hold credentials.
        **options: As `Client` takes them.

    Raises:
        ConfigurationError: It is not known which server to ask, or no request could be sent like that.
    """
    if base_url is None and api_key is not None:
        raise ConfigurationError("--api-key needs --base-url: a key is only sent to the host that it was given for")
    pair = _pair_of_environment(base_url)
    if base_url is None:
        if pair is None:
            return Client.from_env()  # says what is missing
        base_url = pair[0]
    if api_key is None and pair is not None:
        api_key = pair[1]
    auth: Auth | None = None
    if api_key is not None:
        auth = BearerAuth(api_key) if auth_header is None else ApiKeyAuth(api_key, header=auth_header)
    elif auth_header is not None:
        raise ConfigurationError("--auth-header names the header of a key, and there is no key: give --api-key")
    auth = SignedHeaders(auth, headers) if headers else auth
    return Client(base_url, auth=auth, **with_proxy_of_environment(base_url, cast("ClientOptions", options)))


def _pair_of_environment(base_url: str | None) -> tuple[str, str] | None:
    """Give the first pair that is complete, and for this URL if one is given."""
    for url_name, key_name in _ENVIRONMENT:
        url, key = os.environ.get(url_name), os.environ.get(key_name)
        if url and key and (base_url is None or url.rstrip("/") == base_url.rstrip("/")):
            return url, key
    return None
