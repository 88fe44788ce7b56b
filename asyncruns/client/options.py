"""What a client can be told, the checks of it, and what the environment says."""

from __future__ import annotations

import os
import ssl as ssl_module
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from msgspec import UNSET, UnsetType

from asyncruns.abc import Transport
from asyncruns.dialects.errors import RETIRED
from asyncruns.errors import ConfigurationError
from asyncruns.transport.aiohttp import AiohttpTransport
from asyncruns.transport.auth import Auth, BearerAuth, TokenProvider
from asyncruns.transport.urls import check_base_url, proxy_of_environment

if TYPE_CHECKING:
    import aiohttp

    from asyncruns.transport.httptools import HttptoolsTransport

_ENVIRONMENT: Final = (("ASYNCRUNS_BASE_URL", "ASYNCRUNS_API_KEY"), ("OPENAI_BASE_URL", "OPENAI_API_KEY"))
_VERSIONS: Final = ("v1", "v2")

DEFAULT_TIMEOUT_S: Final = 30.0

ApiKey = str | TokenProvider
"""A key, or a function that returns one, async or not, as the official clients take them."""


HTTPLibrary = Literal["aiohttp", "httptools"]
"""What a client sends with, by its name."""


class ClientOptions(TypedDict, total=False):
    """The options of a client, beside where it is and how it signs; `Client` describes them."""

    version: str | None
    default_headers: Mapping[str, str] | None
    default_query: Mapping[str, str] | None
    organization: str | None
    project: str | None
    request_timeout: float | UnsetType | None
    timeout: float | UnsetType | None
    max_retries: int
    validate: bool
    session: aiohttp.ClientSession | None
    proxy: str | None
    trust_env: bool
    ssl: ssl_module.SSLContext | aiohttp.Fingerprint | bool
    http: HTTPLibrary


def given_base_url(base_url: str | None) -> str:
    """Give the base URL.

    Raises:
        ConfigurationError: There is none; the message says where they come from.
    """
    if not base_url:
        raise ConfigurationError(
            "There is no default base URL: give base_url=, such as https://host.example/v1, or set "
            f"ASYNCRUNS_BASE_URL and ASYNCRUNS_API_KEY and use Client.from_env(). {RETIRED}"
        )
    return base_url


def chosen_auth(auth: object, api_key: ApiKey | None) -> Auth | None:
    """Give what signs requests.

    Raises:
        ConfigurationError: It is something else, such as a bare key, which is not shown; or there are two.
    """
    if auth is not None and api_key is not None:
        raise ConfigurationError("Give either api_key=, which is sent as a bearer token, or auth=")
    if isinstance(api_key, str) and not api_key.strip():
        raise ConfigurationError(
            "api_key must be a non-empty string: is the environment variable set that it comes from? For a server "
            "without keys, leave api_key= out"
        )
    if api_key is not None:
        return BearerAuth(api_key)
    if auth is None or isinstance(auth, Auth):
        return auth
    raise ConfigurationError("auth must be an Auth: BearerAuth(key), ApiKeyAuth(key) or PortkeyAuth(...)")


def chosen_timeout(request_timeout: float | UnsetType | None, timeout: float | UnsetType | None) -> float | None:
    """Give the seconds for one request, which go by two names.

    Raises:
        ConfigurationError: Both are given, or they are no seconds.
    """
    if request_timeout is not UNSET and timeout is not UNSET:
        raise ConfigurationError("Give request_timeout= or timeout=: they are the same")
    seconds = timeout if request_timeout is UNSET else request_timeout
    if seconds is UNSET:
        return DEFAULT_TIMEOUT_S
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
        raise ConfigurationError(f"request_timeout must be seconds, or None for ever; got a {type(seconds).__name__}")
    return seconds


def own_headers(
    default_headers: Mapping[str, str] | None, organization: str | None, project: str | None
) -> dict[str, str]:
    """Give the headers of every request; those that are given by their names count more."""
    named = {"OpenAI-Organization": organization, "OpenAI-Project": project}
    given = dict(default_headers or {})
    known = {str(name).lower() for name in given}  # no name of them is checked yet
    return {name: value for name, value in named.items() if value is not None and name.lower() not in known} | given


def given_transport(transport: object, **others: tuple[Any, Any]) -> Transport:
    """Give the transport that a client shall send with.

    Args:
        transport: The transport, made by the caller.
        **others: The options for the transport that the client would make else, each with its default.

    Raises:
        ConfigurationError: It is none, or an option is given that it would take no notice of.
    """
    if not isinstance(transport, Transport):
        kind = type(transport).__name__
        raise ConfigurationError(f"transport must be an instance of asyncruns.abc.Transport, not {kind}")
    # The values are not shown, for there may be a credential among them.
    if given := [f"{name}=" for name, (value, default) in others.items() if value is not default and value != default]:
        raise ConfigurationError(
            f"{', '.join(given)} would have no effect beside transport=, which is sent with as it is; configure the "
            "transport itself, or leave transport= out"
        )
    return transport


def chosen_http(http: object) -> type[AiohttpTransport] | type[HttptoolsTransport]:
    """Return the kind of transport that a client makes for itself.

    Raises:
        ConfigurationError: There is no such one, or it is not installed.
    """
    if http == "aiohttp":
        return AiohttpTransport
    if http != "httptools":
        raise ConfigurationError(f'http must be "aiohttp" or "httptools"; got {http!r}')
    try:
        from asyncruns.transport.httptools import HttptoolsTransport  # late, as it may not be installed
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"http=\"httptools\" needs {error.name}, which is not installed: pip install 'asyncruns[fast]'"
        ) from error
    return HttptoolsTransport


def version_header(version: object) -> dict[str, str]:
    """Give the header that names the version of the API, if any.

    Raises:
        ConfigurationError: There is no such version.
    """
    if version is None:
        return {}
    if version not in _VERSIONS:
        raise ConfigurationError(
            f'version must be "v2", "v1", or None for no header; got {version!r}. Another one goes in '
            'default_headers={"OpenAI-Beta": ...}, with version=None'
        )
    return {"OpenAI-Beta": f"assistants={version}"}


def check_retries(max_retries: object) -> None:
    """Check how often a request may be sent again.

    Raises:
        ConfigurationError: It is no number of times.
    """
    if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
        raise ConfigurationError(f"max_retries must be 0 or a larger whole number; got {max_retries!r}")


def with_proxy_of_environment(base_url: str, options: ClientOptions) -> ClientOptions:
    """Return options with the proxy that the environment names for this server, unless they say how to get there.

    Raises:
        ConfigurationError: The environment names one that can't be used, or the base URL is none.
    """
    says_how = "proxy" in options or options.get("session") is not None or options.get("trust_env")
    return options if says_how else {**options, "proxy": proxy_of_environment(check_base_url(base_url))}


def pair_of_environment() -> tuple[str, str]:
    """Give the base URL and the key that belong together.

    Raises:
        ConfigurationError: Neither pair is complete; the message says what is missing.
    """
    for url_name, key_name in _ENVIRONMENT:
        base_url, key = os.environ.get(url_name, ""), os.environ.get(key_name, "")
        if base_url.strip() and key.strip():
            return base_url, key
    are_set = {name: bool(os.environ.get(name, "").strip()) for name in sum(_ENVIRONMENT, ())}
    state = ", ".join(f"{name} is {'set' if is_set else 'not set'}" for name, is_set in are_set.items())
    raise ConfigurationError(
        f"Set ASYNCRUNS_BASE_URL and ASYNCRUNS_API_KEY, or OPENAI_BASE_URL and OPENAI_API_KEY ({state}). A key is "
        f"only sent to the host that it was set for, so both of a pair are needed. {RETIRED}"
    )
