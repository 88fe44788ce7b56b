"""The options of a client, and their checks.

An error message here must never show what may be a credential: keys, headers, sessions, the value of `auth`.
"""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from msgspec import UNSET, UnsetType

from asyncruns.abc import Journal, Telemetry, Transport
from asyncruns.dialects.errors import RETIRED
from asyncruns.errors import ConfigurationError
from asyncruns.transport.aiohttp import AiohttpTransport
from asyncruns.transport.auth import Auth, BearerAuth, TokenProvider

if TYPE_CHECKING:
    import aiohttp

    from asyncruns.transport.httptools import HttptoolsTransport

_VERSIONS: Final = ("v1", "v2")

DEFAULT_TIMEOUT_S: Final = 30.0

ApiKey = str | TokenProvider
"""A key, or a function that returns one, async or not, as in the official clients."""


HTTPLibrary = Literal["aiohttp", "httptools"]
"""What a client sends with, by its name."""


class ClientOptions(TypedDict, total=False):
    """The options of a client other than its base URL and what signs its requests; `Client` describes them."""

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
    webhook_secret: str | Sequence[str] | None
    journal: Journal | None
    telemetry: Telemetry | Sequence[Telemetry] | None


def given_base_url(base_url: str | None) -> str:
    """Return the base URL.

    Raises:
        ConfigurationError: There is none; the message says how to set one.
    """
    if not base_url:
        raise ConfigurationError(
            "There is no default base URL: give base_url=, for example https://host.example/v1, or set "
            f"ASYNCRUNS_BASE_URL or OPENAI_API_KEY and use Client.from_env(). {RETIRED}"
        )
    return base_url


def chosen_auth(auth: object, api_key: ApiKey | None) -> Auth | None:
    """Return the auth that signs requests; None if neither `auth` nor `api_key` is given.

    Raises:
        ConfigurationError: `auth` is something else, such as a bare key (which the message does not show); or both are
            given; or the key is empty.
    """
    if auth is not None and api_key is not None:
        raise ConfigurationError("Give either api_key=, which is sent as a bearer token, or auth=")
    if isinstance(api_key, str) and not api_key.strip():
        raise ConfigurationError(
            "api_key must be a non-empty string: check that the environment variable it is read from is set. For a "
            "server without keys, leave out api_key="
        )
    if api_key is not None:
        return BearerAuth(api_key)
    if auth is None or isinstance(auth, Auth):
        return auth
    raise ConfigurationError("auth must be an Auth: BearerAuth(key), ApiKeyAuth(key) or PortkeyAuth(...)")


def chosen_timeout(request_timeout: float | UnsetType | None, timeout: float | UnsetType | None) -> float | None:
    """Return the timeout of one request in seconds, from the two names of the option.

    Raises:
        ConfigurationError: Both names are given, or the value is not a number.
    """
    if request_timeout is not UNSET and timeout is not UNSET:
        raise ConfigurationError("Give either request_timeout= or timeout=: they are two names of one option")
    seconds = timeout if request_timeout is UNSET else request_timeout
    if seconds is UNSET:
        return DEFAULT_TIMEOUT_S
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
        raise ConfigurationError(f"request_timeout must be seconds, or None for ever; got a {type(seconds).__name__}")
    return seconds


def own_headers(
    default_headers: Mapping[str, str] | None, organization: str | None, project: str | None
) -> dict[str, str]:
    """Return the headers of every request; `default_headers` take precedence over `organization` and `project`."""
    named = {"OpenAI-Organization": organization, "OpenAI-Project": project}
    given = dict(default_headers or {})
    known = {str(name).lower() for name in given}  # not checked yet, so a name may not be a string
    return {name: value for name, value in named.items() if value is not None and name.lower() not in known} | given


def given_transport(transport: object, **others: tuple[Any, Any]) -> Transport:
    """Return the transport that the caller gave.

    Args:
        transport: The caller's transport.
        **others: The options of the client's own transport, each with its value and its default.

    Raises:
        ConfigurationError: `transport` is not a Transport, or an option is given that would have no effect.
    """
    if not isinstance(transport, Transport):
        kind = type(transport).__name__
        raise ConfigurationError(f"transport must be an instance of asyncruns.abc.Transport, not {kind}")
    # Names only: a value may be a credential.
    if given := [f"{name}=" for name, (value, default) in others.items() if value is not default and value != default]:
        raise ConfigurationError(
            f"{', '.join(given)} would have no effect beside transport=, which is used as it is; configure the "
            "transport itself, or leave out transport="
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
    """Return the header that names the version of the API; empty for None.

    Raises:
        ConfigurationError: The version is not known.
    """
    if version is None:
        return {}
    if version not in _VERSIONS:
        raise ConfigurationError(
            f'version must be "v2", "v1", or None for no header; got {version!r}. For another one, use version=None '
            'and default_headers={"OpenAI-Beta": ...}'
        )
    return {"OpenAI-Beta": f"assistants={version}"}


def check_retries(max_retries: object) -> None:
    """Check the number of times that a request may be sent again.

    Raises:
        ConfigurationError: It is not a whole number, or it is negative.
    """
    if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
        raise ConfigurationError(f"max_retries must be 0 or a larger whole number; got {max_retries!r}")
